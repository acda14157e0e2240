//! Gold: each candle with its moving averages and volatilities, keyed by (symbol, event time).

use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::candle::TIME_MICROS_MAX;
use crate::{CLOSE, DATE, EVENT_TIME, HIGH, KAFKA_TIME, LOW, OPEN, SYMBOL, VOLUME, timestamp};

/// Window lengths w in minutes (or in rows, with `--frame rows`), ascending.
pub const WINDOWS: [u16; 3] = [5, 10, 30];
/// Times that gold holds, in microseconds: the years 1 to 9999. PostgreSQL and all date formats support these years.
pub const TIMES: RangeInclusive<i64> = -62_135_596_800_000_000..=TIME_MICROS_MAX;
/// Time at which gold computed the row, in microseconds UTC. Never null. It is the only column that is not a function of bronze.
pub const COMPUTED_AT: &str = "computed_at";

/// Returns the name of the column with the mean of `close` over `window`. The column is never null.
pub fn price_ma(window: u16) -> String {
    format!("price_ma_{window}m")
}

/// Returns the name of the column with the sample standard deviation (n − 1) of `close` over `window`. The column is null if the window
/// holds fewer than two candles.
pub fn price_volatility(window: u16) -> String {
    format!("price_volatility_{window}m")
}

/// Returns the name of the column with the mean of `volume` over `window`. The column is never null.
pub fn volume_ma(window: u16) -> String {
    format!("volume_ma_{window}m")
}

/// Returns the name of the column with the number of candles in `window`. The column is never null, and at least 1.
pub fn samples(window: u16) -> String {
    format!("samples_{window}m")
}

/// Returns the schema of gold: one row per (symbol, event time).
///
/// The order is `symbol, event_time, open, high, low, close, volume`, then `price_ma, price_volatility, volume_ma, samples` for each w,
/// then `kafka_time, computed_at, date`.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let float = |name| Field::new(name, DataType::Float64, false);
        let mut fields =
            vec![Field::new(SYMBOL, DataType::Utf8, false), Field::new(EVENT_TIME, timestamp(), false)];
        fields.extend([OPEN, HIGH, LOW, CLOSE, VOLUME].map(float));
        for window in WINDOWS {
            fields.push(Field::new(price_ma(window), DataType::Float64, false));
            fields.push(Field::new(price_volatility(window), DataType::Float64, true));
            fields.push(Field::new(volume_ma(window), DataType::Float64, false));
            fields.push(Field::new(samples(window), DataType::Int32, false));
        }
        fields.push(Field::new(KAFKA_TIME, timestamp(), false));
        fields.push(Field::new(COMPUTED_AT, timestamp(), false));
        fields.push(Field::new(DATE, DataType::Date32, false));
        Arc::new(Schema::new(fields))
    });
    Arc::clone(&SCHEMA)
}

/// Indexes of the first columns in [`schema`], for code that works on columns.
pub mod column {
    /// Index of `symbol`.
    pub const SYMBOL: usize = 0;
    /// Index of `event_time`.
    pub const EVENT_TIME: usize = 1;
}
