//! Bronze: every usable candle message, stored once and unchanged.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::{CLOSE, DATE, EVENT_TIME, HIGH, KAFKA_TIME, LOW, OPEN, SYMBOL, VOLUME, timestamp};

/// Kafka partition that the message came from. Never null.
pub const KAFKA_PARTITION: &str = "kafka_partition";
/// Offset of the message in its partition. Never null.
pub const KAFKA_OFFSET: &str = "kafka_offset";

/// Returns the schema of bronze: one row per message, no nulls.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let float = |name| Field::new(name, DataType::Float64, false);
        Arc::new(Schema::new(vec![
            Field::new(SYMBOL, DataType::Utf8, false),
            Field::new(EVENT_TIME, timestamp(), false),
            float(OPEN),
            float(HIGH),
            float(LOW),
            float(CLOSE),
            float(VOLUME),
            Field::new(KAFKA_PARTITION, DataType::Int32, false),
            Field::new(KAFKA_OFFSET, DataType::Int64, false),
            Field::new(KAFKA_TIME, timestamp(), false),
            Field::new(DATE, DataType::Date32, false),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// Indexes of the columns in [`schema`], for code that works on columns.
pub mod column {
    /// Index of `symbol`.
    pub const SYMBOL: usize = 0;
    /// Index of `event_time`.
    pub const EVENT_TIME: usize = 1;
    /// Index of `open`.
    pub const OPEN: usize = 2;
    /// Index of `high`.
    pub const HIGH: usize = 3;
    /// Index of `low`.
    pub const LOW: usize = 4;
    /// Index of `close`.
    pub const CLOSE: usize = 5;
    /// Index of `volume`.
    pub const VOLUME: usize = 6;
    /// Index of `kafka_partition`.
    pub const KAFKA_PARTITION: usize = 7;
    /// Index of `kafka_offset`.
    pub const KAFKA_OFFSET: usize = 8;
    /// Index of `kafka_time`.
    pub const KAFKA_TIME: usize = 9;
    /// Index of `date`.
    pub const DATE: usize = 10;
}
