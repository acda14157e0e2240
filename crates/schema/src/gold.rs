//! Gold: each candle with its moving averages and volatilities, keyed by (symbol, event time).

use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::candle::TIME_MICROS_MAX;
use crate::{CLOSE, DATE, EVENT_TIME, HIGH, KAFKA_TIME, LOW, OPEN, SYMBOL, VOLUME, timestamp};

/// The window lengths w in minutes (or rows, with `--frame rows`), ascending.
pub const WINDOWS: [u16; 3] = [5, 10, 30];
/// Times that gold holds, in microseconds: the years 1 to 9999, in which PostgreSQL and all date formats agree.
pub const TIMES: RangeInclusive<i64> = -62_135_596_800_000_000..=TIME_MICROS_MAX;
/// When gold computed the row, microseconds UTC. Never null; the one column that is not a function of bronze.
pub const COMPUTED_AT: &str = "computed_at";

/// Name of the mean of `close` over w; never null.
pub fn price_ma(window: u16) -> String {
    format!("price_ma_{window}m")
}

/// Name of the sample standard deviation (n − 1) of `close` over w; null where the window holds fewer than two candles.
pub fn price_volatility(window: u16) -> String {
    format!("price_volatility_{window}m")
}

/// Name of the mean of `volume` over w; never null.
pub fn volume_ma(window: u16) -> String {
    format!("volume_ma_{window}m")
}

/// Name of the count of candles in w; never null, at least 1.
pub fn samples(window: u16) -> String {
    format!("samples_{window}m")
}

/// Returns the schema of gold: one row a (symbol, event time).
///
/// Order: `symbol, event_time, open, high, low, close, volume`; for each w `price_ma, price_volatility, volume_ma, samples`;
/// `kafka_time, computed_at, date`.
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
