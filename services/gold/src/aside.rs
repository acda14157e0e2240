//! Rows of bronze that gold cannot store.
//!
//! Ingest and DoPut reject such rows, but an older server may have accepted one. Gold leaves the row out, reports it, and writes it to
//! PostgreSQL like a dead letter, in the transaction that moves the position past it. The rule depends only on the row, so all sinks and
//! `verify` agree. The Flight server applies the rule for numbers and times when it chooses the candles of a history.

use arrow::array::RecordBatch;
use schema::candle::MAGNITUDE_MAX;
use schema::gold::TIMES;
use schema::ranged::offsets;

use crate::candle::{Candle, decode_all};

/// Longest symbol that gold stores, in bytes. An entry of a PostgreSQL index has at most 2704 bytes, and may also contain the name of the
/// topic.
const SYMBOL_BYTES_HELD: usize = 2048;
/// Longest part of a symbol that a report shows, in characters.
const SYMBOL_CHARS_SHOWN: usize = 100;

/// A row of bronze that gold leaves out.
#[derive(Clone, Debug, PartialEq)]
pub struct Aside {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Stable name of the reason why gold cannot store the row.
    pub reason: &'static str,
    /// Beginning of its symbol, escaped.
    pub symbol: String,
    /// Its values as text.
    pub candle: String,
    /// Time at which it was produced, in microseconds UTC, limited to the range that PostgreSQL can store.
    pub kafka_time: i64,
}

impl Aside {
    /// Collects the rows of a bronze batch that gold cannot store.
    pub(crate) fn of(batch: &RecordBatch) -> Vec<Aside> {
        let offsets = offsets(batch);
        let rows = decode_all(batch).zip(offsets);
        let asides = rows.filter_map(|((symbol, candle), offset)| {
            let reason = reason(symbol, &candle)?;
            let Candle { event_time, open, high, low, close, volume, kafka_time, partition } = candle;
            let candle = format!(
                "event_time {event_time} µs, open {open:?}, high {high:?}, low {low:?}, close {close:?}, volume {volume:?}, \
                 kafka_time {kafka_time} µs"
            );
            let symbol = symbol.escape_debug().take(SYMBOL_CHARS_SHOWN).collect();
            let kafka_time = kafka_time.clamp(*TIMES.start(), *TIMES.end());
            Some(Aside { partition, offset: *offset, reason, symbol, candle, kafka_time })
        });
        asides.collect()
    }
}

/// Iterates over the rows of a bronze batch that gold can store.
pub(crate) fn decode(batch: &RecordBatch) -> impl Iterator<Item = (&str, Candle)> {
    decode_all(batch).filter(|(symbol, candle)| reason(symbol, candle).is_none())
}

/// Returns the stable name of the reason why gold cannot store a row. Returns `None` if gold can store it.
pub(crate) fn reason(symbol: &str, candle: &Candle) -> Option<&'static str> {
    let Candle { event_time, open, high, low, close, volume, kafka_time, .. } = candle;
    let numbers = [open, high, low, close, volume];
    if symbol.len() > SYMBOL_BYTES_HELD || symbol.contains('\0') {
        Some("bad_symbol")
    } else if !TIMES.contains(event_time) {
        Some("time_out_of_range")
    } else if !TIMES.contains(kafka_time) {
        Some("kafka_time_out_of_range")
    } else if numbers.iter().any(|number| !number.is_finite()) {
        Some("not_finite")
    } else if numbers.iter().any(|number| number.abs() > MAGNITUDE_MAX) {
        Some("number_out_of_range")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
