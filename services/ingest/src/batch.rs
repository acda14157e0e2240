//! One partition's run of offsets: its candles in columns, its unusable messages beside them.

use std::sync::Arc;

use arrow::array::{
    Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringBuilder, TimestampMicrosecondArray,
};
use position::OffsetRange;

use crate::decode::{Decoded, Unusable, decode};

/// Longest part of an unusable message that is kept, in bytes: fits into a record of a broker with default limits.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 900_000;
/// Memory that a row takes beside its symbol, in bytes: 8 a column.
const ROW_BYTES: usize = 80;

/// What is put to bronze at once.
#[derive(Debug)]
pub struct Batch {
    /// The offsets that it stands for, whatever became of them.
    pub range: OffsetRange,
    /// The usable messages, ascending by offset.
    pub rows: RecordBatch,
    /// The unusable ones, ascending by offset; to be delivered before the rows are put.
    pub dead_letters: Vec<DeadLetter>,
}

/// A message that cannot be used.
#[derive(Debug)]
pub struct DeadLetter {
    pub(crate) offset: i64,
    pub(crate) unusable: Unusable,
    pub(crate) key: Option<Vec<u8>>,
    /// At most [`PAYLOAD_BYTES_MAX`] of the value.
    pub(crate) payload: Option<Vec<u8>>,
    /// Length of the whole value.
    pub(crate) payload_bytes: usize,
}

impl DeadLetter {
    /// Keeps what is needed of a message.
    pub(crate) fn new(offset: i64, unusable: Unusable, key: Option<&[u8]>, payload: Option<&[u8]>) -> Self {
        let cut = |bytes: &[u8]| bytes[..bytes.len().min(PAYLOAD_BYTES_MAX)].to_vec();
        let payload_bytes = payload.map_or(0, <[u8]>::len);
        let key = key.filter(|key| key.len() <= schema::candle::SYMBOL_BYTES_MAX).map(<[u8]>::to_vec);
        DeadLetter { offset, unusable, key, payload: payload.map(cut), payload_bytes }
    }
}

/// The open batch of one partition.
#[derive(Debug)]
pub struct OpenBatch {
    range: OffsetRange,
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
    dead_letters: Vec<DeadLetter>,
    bytes: usize,
}

impl OpenBatch {
    /// Opens a batch whose range begins at `first`, wherever its first message may be.
    pub fn new(partition: i32, first: i64) -> Self {
        OpenBatch {
            range: OffsetRange { partition, first, next: first },
            symbol: StringBuilder::new(),
            event_time: Vec::new(),
            open: Vec::new(),
            high: Vec::new(),
            low: Vec::new(),
            close: Vec::new(),
            volume: Vec::new(),
            kafka_offset: Vec::new(),
            kafka_time: Vec::new(),
            date: Vec::new(),
            dead_letters: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds a message, as a candle or as a dead letter; the range then ends after it.
    pub fn take(
        &mut self,
        offset: i64,
        kafka_millis: Option<i64>,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
    ) {
        match decode(payload, kafka_millis) {
            Ok(decoded) => self.push(offset, &decoded),
            Err(unusable) => self.push_dead_letter(DeadLetter::new(offset, unusable, key, payload)),
        }
    }

    /// Adds a candle; the range then ends after it.
    pub(crate) fn push(&mut self, offset: i64, decoded: &Decoded<'_>) {
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
        self.bytes += ROW_BYTES + candle.symbol.len();
        self.range.next = offset + 1;
    }

    /// Adds an unusable message; the range then ends after it.
    pub(crate) fn push_dead_letter(&mut self, letter: DeadLetter) {
        self.range.next = letter.offset + 1;
        self.bytes += ROW_BYTES + letter.payload.as_ref().map_or(0, Vec::len);
        self.dead_letters.push(letter);
    }

    /// Returns the offset after the last message.
    pub(crate) fn next(&self) -> i64 {
        self.range.next
    }

    /// Counts the messages.
    pub(crate) fn message_count(&self) -> usize {
        self.kafka_offset.len() + self.dead_letters.len()
    }

    /// Estimates the memory that the batch takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Closes the batch and opens the one that joins it; `None` if it holds nothing.
    pub fn close(&mut self) -> Option<Batch> {
        if self.range.is_empty() {
            return None;
        }
        let next = OpenBatch::new(self.range.partition, self.range.next);
        Some(std::mem::replace(self, next).into_batch())
    }

    fn into_batch(mut self) -> Batch {
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
                Arc::new(Int32Array::from_value(self.range.partition, row_count)),
                Arc::new(Int64Array::from(self.kafka_offset)),
                timestamps(self.kafka_time),
                Arc::new(Date32Array::from(self.date)),
            ],
        );
        let rows = rows.expect("the columns are those of the schema and of one length");
        Batch { range: self.range, rows, dead_letters: self.dead_letters }
    }
}

#[cfg(test)]
mod tests;
