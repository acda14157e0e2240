//! Candles in memory. They are rows, not columns, because they arrive one by one, are replaced, and stay sorted by time.

use std::borrow::Cow;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, TimestampMicrosecondType};
use schema::bronze::column;

/// Values of a bronze row that gold needs, except the symbol.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candle {
    pub(crate) event_time: i64,
    pub(crate) open: f64,
    pub(crate) high: f64,
    pub(crate) low: f64,
    pub(crate) close: f64,
    pub(crate) volume: f64,
    pub(crate) kafka_time: i64,
    pub(crate) partition: i32,
}

/// Iterates over all rows of a bronze batch.
pub(crate) fn decode_all(batch: &RecordBatch) -> impl Iterator<Item = (&str, Candle)> {
    let float = |index| batch.column(index).as_primitive::<Float64Type>().values();
    let micros = |index| batch.column(index).as_primitive::<TimestampMicrosecondType>().values();
    let symbols = batch.column(column::SYMBOL).as_string::<i32>();
    let partitions = batch.column(column::KAFKA_PARTITION).as_primitive::<Int32Type>().values();
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
            partition: partitions[row],
        };
        (symbols.value(row), candle)
    })
}

/// Sorts candles by event time and partition, and removes duplicates. The candles of one partition must be in offset order: of duplicates,
/// the candle with the later offset stays.
pub(crate) fn sort(candles: &mut Vec<Candle>) {
    let key = |candle: &Candle| (candle.event_time, candle.partition);
    candles.sort_by_key(key);
    candles.dedup_by(|later, earlier| {
        let is_same = key(later) == key(earlier);
        if is_same {
            *earlier = *later;
        }
        is_same
    });
}

/// Merges `newer` into `older`. Both are sorted. If both have a candle of the same event time and partition, the candle in `newer` stays.
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

/// Returns the candle that counts for each event time. `candles` must be sorted. If several partitions have one, the candle that was
/// produced last counts. If these were produced in the same millisecond, the candle of the highest partition counts.
///
/// The choice depends only on the rows, so the order in which the partitions are read does not matter.
pub(crate) fn winners(candles: &[Candle]) -> Cow<'_, [Candle]> {
    let is_same_time = |one: &Candle, next: &Candle| one.event_time == next.event_time;
    if candles.windows(2).all(|pair| !is_same_time(&pair[0], &pair[1])) {
        return Cow::Borrowed(candles);
    }
    let rivals = candles.chunk_by(is_same_time);
    let winners =
        rivals.filter_map(|rivals| rivals.iter().max_by_key(|rival| (rival.kafka_time, rival.partition)));
    winners.copied().collect()
}
