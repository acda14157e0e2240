//! The schemas of the tables [`bronze`] and [`gold`], and the JSON [`candle`] that both come from.
//!
//! This crate is the only place that spells the names of columns. It also holds the rules that every candle keeps, for messages
//! ([`candle`]) and for rows ([`rows`]), and the unit in which rows travel: a [`RangedBatch`].
//!
//! It does not read or write topics, files or tables, and it does not compute gold.
//!
//! ```
//! use schema::bronze;
//! use schema::candle::Candle;
//!
//! let message = br#"{"symbol":"BTC-USD","timestamp":1704067200,"open":42.0,"high":43.5,"low":41.0,"close":42.5,"volume":1.25}"#;
//! let candle = Candle::from_json(message)?;
//! let kafka_time = 1_704_067_260_000_000;
//! let event_time = candle.validate(kafka_time).expect("the candle keeps all rules");
//! assert_eq!(event_time, 1_704_067_200_000_000);
//! assert_eq!(schema::date_of(event_time), 19_723);
//! assert_eq!(bronze::schema().field(bronze::column::CLOSE).name(), schema::CLOSE);
//! # Ok::<(), serde_json::Error>(())
//! ```

pub mod bronze;
pub mod candle;
pub mod gold;
pub mod ranged;
pub mod rows;

use arrow::datatypes::{DataType, TimeUnit};

pub use crate::ranged::RangedBatch;

/// Symbol of the instrument, such as `BTC-USD`. Never null.
pub const SYMBOL: &str = "symbol";
/// Open time of the candle, in microseconds UTC. Never null.
pub const EVENT_TIME: &str = "event_time";
/// First price of the minute. Never null, finite.
pub const OPEN: &str = "open";
/// Highest price of the minute. Never null, finite.
pub const HIGH: &str = "high";
/// Lowest price of the minute. Never null, finite.
pub const LOW: &str = "low";
/// Last price of the minute. Never null, finite.
pub const CLOSE: &str = "close";
/// Traded volume of the minute, in units of the base asset. Never null, finite, not negative.
pub const VOLUME: &str = "volume";
/// Time at which the message was produced (its Kafka timestamp), in microseconds UTC. Never null.
pub const KAFKA_TIME: &str = "kafka_time";
/// Day of the event time, UTC; the partition column of both Delta tables. Never null.
pub const DATE: &str = "date";

/// Microseconds in a minute.
pub const MINUTE_MICROS: i64 = 60_000_000;
/// Microseconds in a day.
pub const DAY_MICROS: i64 = 86_400_000_000;

/// Returns the type of every time column: microseconds since the epoch, UTC.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Returns the day of `event_time_micros` in days since the epoch, the value of [`DATE`].
pub fn date_of(event_time_micros: i64) -> i32 {
    i32::try_from(event_time_micros.div_euclid(DAY_MICROS))
        .expect("a valid event time lies within the years 1970 to 9999")
}
