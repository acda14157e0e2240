//! The two tables of Candleflight, bronze and gold, and the JSON candle they come from. Nothing else spells a column.

pub mod bronze;
pub mod candle;
pub mod gold;
pub mod rows;

use arrow::datatypes::{DataType, TimeUnit};

/// Symbol of the instrument, such as `BTC-USD`. Never null.
pub const SYMBOL: &str = "symbol";
/// Open time of the candle, microseconds UTC. Never null.
pub const EVENT_TIME: &str = "event_time";
/// First price of the minute. Never null, finite.
pub const OPEN: &str = "open";
/// Highest price of the minute. Never null, finite.
pub const HIGH: &str = "high";
/// Lowest price of the minute. Never null, finite.
pub const LOW: &str = "low";
/// Last price of the minute. Never null, finite.
pub const CLOSE: &str = "close";
/// Traded volume of the minute in units of the base asset. Never null, finite, not negative.
pub const VOLUME: &str = "volume";
/// When the message was produced (its Kafka timestamp), microseconds UTC. Never null.
pub const KAFKA_TIME: &str = "kafka_time";
/// Day of the event time, UTC; the partition column of both Delta tables. Never null.
pub const DATE: &str = "date";

/// Microseconds in a minute.
pub const MINUTE_MICROS: i64 = 60_000_000;
/// Microseconds in a day.
pub const DAY_MICROS: i64 = 86_400_000_000;

/// The type of every time column: microseconds since the epoch, UTC.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Returns the day of `event_time_micros` as days since the epoch, the value of [`DATE`].
pub fn date_of(event_time_micros: i64) -> i32 {
    i32::try_from(event_time_micros.div_euclid(DAY_MICROS))
        .expect("a valid event time lies within the years 1970 to 9999")
}
