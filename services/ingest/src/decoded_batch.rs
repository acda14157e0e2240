//! Consecutive messages of one partition, decoded: the candles in columns, and the unusable messages as dead letters.

use std::sync::Arc;

use arrow::array::{
    Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringBuilder, TimestampMicrosecondArray,
};
use position::OffsetRange;
use schema::RangedBatch;

use crate::decode::{Decoded, Unusable, decode};
use crate::raw_batch::Message;

/// Longest part of an unusable message that is kept, in bytes. It fits into a record of a broker with default limits.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 900_000;
/// Length of a usual symbol in bytes, for which memory is reserved.
const SYMBOL_BYTES: usize = 8;

/// Decoded messages: the rows that are put to bronze together, and the dead letters among them.
#[derive(Debug)]
pub struct DecodedBatch {
    /// The usable messages. The range covers all messages, usable or not.
    pub batch: RangedBatch,
    /// The unusable messages, ascending by offset. They must be delivered before the rows are put.
    pub dead_letters: Vec<DeadLetter>,
}

/// A message that cannot be used.
#[derive(Debug)]
pub struct DeadLetter {
    pub(crate) offset: i64,
    /// Time at which the message was produced or appended, in Unix milliseconds. `None` if the message has no time.
    pub(crate) kafka_millis: Option<i64>,
    pub(crate) unusable: Unusable,
    pub(crate) key: Option<Vec<u8>>,
    /// First [`PAYLOAD_BYTES_MAX`] bytes of the value. `None` if the value is null.
    pub(crate) payload: Option<Vec<u8>>,
    /// Length of the whole value.
    pub(crate) payload_bytes: usize,
}

impl DeadLetter {
    /// Copies the parts of a message that a dead letter needs.
    fn new(message: &Message<'_>, unusable: Unusable) -> Self {
        let Message { offset, kafka_millis, key, payload } = *message;
        let cut = |bytes: &[u8]| bytes[..bytes.len().min(PAYLOAD_BYTES_MAX)].to_vec();
        let payload_bytes = payload.map_or(0, <[u8]>::len);
        let key = key.filter(|key| key.len() <= schema::candle::SYMBOL_BYTES_MAX).map(<[u8]>::to_vec);
        DeadLetter { offset, kafka_millis, unusable, key, payload: payload.map(cut), payload_bytes }
    }
}

impl DecodedBatch {
    /// Decodes the messages of `range`, which ascend by offset.
    pub fn decode<'a>(range: OffsetRange, messages: impl Iterator<Item = Message<'a>>) -> Self {
        let mut columns = Columns::with_capacity(messages.size_hint().0);
        let mut dead_letters = Vec::new();
        for message in messages {
            match decode(message.payload, message.kafka_millis) {
                Ok(decoded) => columns.push(message.offset, &decoded),
                Err(unusable) => dead_letters.push(DeadLetter::new(&message, unusable)),
            }
        }
        DecodedBatch { batch: RangedBatch { range, rows: columns.into_rows(range.partition) }, dead_letters }
    }
}

/// Values of the columns that are not constant in a batch.
struct Columns {
    symbol: StringBuilder,
    event_time: Vec<i64>,
    open: Vec<f64>,
    high: Vec<f64>,
    low: Vec<f64>,
    close: Vec<f64>,
    volume: Vec<f64>,
    kafka_offset: Vec<i64>,
    kafka_time: Vec<i64>,
    date: Vec<i32>,
}

impl Columns {
    fn with_capacity(rows: usize) -> Self {
        Columns {
            symbol: StringBuilder::with_capacity(rows, rows * SYMBOL_BYTES),
            event_time: Vec::with_capacity(rows),
            open: Vec::with_capacity(rows),
            high: Vec::with_capacity(rows),
            low: Vec::with_capacity(rows),
            close: Vec::with_capacity(rows),
            volume: Vec::with_capacity(rows),
            kafka_offset: Vec::with_capacity(rows),
            kafka_time: Vec::with_capacity(rows),
            date: Vec::with_capacity(rows),
        }
    }

    fn push(&mut self, offset: i64, decoded: &Decoded<'_>) {
        let candle = &decoded.candle;
        self.symbol.append_value(&candle.symbol);
        self.event_time.push(decoded.event_time);
        self.open.push(candle.open);
        self.high.push(candle.high);
        self.low.push(candle.low);
        self.close.push(candle.close);
        self.volume.push(candle.volume);
        self.kafka_offset.push(offset);
        self.kafka_time.push(decoded.kafka_time);
        self.date.push(schema::date_of(decoded.event_time));
    }

    fn into_rows(mut self, partition: i32) -> RecordBatch {
        let timestamps = |micros| Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC"));
        let floats = |values| Arc::new(Float64Array::from(values));
        let row_count = self.kafka_offset.len();
        let rows = RecordBatch::try_new(
            schema::bronze::schema(),
            vec![
                Arc::new(self.symbol.finish()),
                timestamps(self.event_time),
                floats(self.open),
                floats(self.high),
                floats(self.low),
                floats(self.close),
                floats(self.volume),
                Arc::new(Int32Array::from_value(partition, row_count)),
                Arc::new(Int64Array::from(self.kafka_offset)),
                timestamps(self.kafka_time),
                Arc::new(Date32Array::from(self.date)),
            ],
        );
        rows.expect("the columns are those of the schema and of one length")
    }
}

#[cfg(test)]
mod tests;
