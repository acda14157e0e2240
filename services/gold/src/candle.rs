//! Candles in memory: rows, because they arrive one by one, are replaced and are kept sorted by time.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use schema::bronze::column;

/// What gold needs of a bronze row besides its symbol.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candle {
    pub(crate) event_time: i64,
    pub(crate) open: f64,
    pub(crate) high: f64,
    pub(crate) low: f64,
    pub(crate) close: f64,
    pub(crate) volume: f64,
    pub(crate) kafka_time: i64,
}

/// Iterates over the rows of a bronze batch.
pub(crate) fn decode(batch: &RecordBatch) -> impl Iterator<Item = (&str, Candle)> {
    let float = |index| batch.column(index).as_primitive::<Float64Type>().values();
    let micros = |index| batch.column(index).as_primitive::<TimestampMicrosecondType>().values();
    let symbols = batch.column(column::SYMBOL).as_string::<i32>();
    let (event_times, kafka_times) = (micros(column::EVENT_TIME), micros(column::KAFKA_TIME));
    let [opens, highs, lows, closes, volumes] =
        [column::OPEN, column::HIGH, column::LOW, column::CLOSE, column::VOLUME].map(float);
    (0..symbols.len()).map(move |row| {
        let candle = Candle {
            event_time: event_times[row],
            open: opens[row],
            high: highs[row],
            low: lows[row],
            close: closes[row],
            volume: volumes[row],
            kafka_time: kafka_times[row],
        };
        (symbols.value(row), candle)
    })
}

/// Sorts candles that are in offset order by event time; of the same event time the later offset stays.
pub(crate) fn sort(candles: &mut Vec<Candle>) {
    candles.sort_by_key(|candle| candle.event_time);
    candles.dedup_by(|later, earlier| {
        let same = later.event_time == earlier.event_time;
        if same {
            *earlier = *later;
        }
        same
    });
}

/// Merges a sorted run into another; of the same event time the one in `newer` stays.
pub(crate) fn merge(older: &mut Vec<Candle>, newer: &[Candle]) {
    let Some(first) = newer.first() else { return };
    let mut tail = older.split_off(older.partition_point(|candle| candle.event_time < first.event_time));
    if tail.is_empty() {
        older.extend_from_slice(newer);
    } else {
        tail.extend_from_slice(newer);
        sort(&mut tail);
        older.append(&mut tail);
    }
}
