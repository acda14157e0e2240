use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use schema::MINUTE_MICROS;

use super::{EVENT_TIME, NewestBySymbol, SYMBOL};
use crate::candle::Candle;
use crate::rows::Rows;
use kernel::Frame;

/// Returns a gold batch with these rows, given as (symbol, minute).
fn gold(keys: &[(&str, i64)]) -> RecordBatch {
    let mut rows = Rows::default();
    for (symbol, minute) in keys {
        let event_time = minute * MINUTE_MICROS;
        let candle = Candle {
            event_time,
            open: 1.0,
            high: 1.0,
            low: 1.0,
            close: 1.0,
            volume: 1.0,
            kafka_time: 0,
            partition: 0,
        };
        rows.append(symbol, &[candle], 0..1, Frame::Time);
    }
    rows.finish(0)
}

fn keys(batches: &[RecordBatch]) -> Vec<Vec<(String, i64)>> {
    let keys = |batch: &RecordBatch| {
        let symbols = batch.column(SYMBOL).as_string::<i32>().iter().flatten().map(str::to_owned);
        let event_times = batch.column(EVENT_TIME).as_primitive::<TimestampMicrosecondType>().values();
        symbols.zip(event_times.iter().map(|event_time| event_time / MINUTE_MICROS)).collect()
    };
    batches.iter().map(keys).collect()
}

fn newest(pairs: &[(&str, i64)]) -> NewestBySymbol {
    pairs.iter().map(|(symbol, minute)| ((*symbol).to_owned(), minute * MINUTE_MICROS)).collect()
}

type Keys<'a> = &'a [&'a [(&'a str, i64)]];

#[track_caller]
fn check(
    held: &[(&str, i64)],
    batches: Keys<'_>,
    fresh: Keys<'_>,
    corrections: Keys<'_>,
    then: &[(&str, i64)],
) {
    let owned = |keys: Keys<'_>| -> Vec<Vec<(String, i64)>> {
        keys.iter()
            .map(|keys| keys.iter().map(|(symbol, minute)| ((*symbol).to_owned(), *minute)).collect())
            .collect()
    };
    let mut held = newest(held);
    let batches: Vec<RecordBatch> = batches.iter().map(|keys| gold(keys)).collect();
    let split = held.split(&batches);
    assert_eq!((keys(&split.inserts), keys(&split.updates)), (owned(fresh), owned(corrections)));
    assert_eq!(held, newest(then));
}

#[test]
fn a_row_is_fresh_when_it_is_later_than_all_of_its_symbol() {
    let batch: Keys<'_> = &[&[("A", 1), ("A", 2), ("B", 1), ("C", 9)]];
    check(
        &[("A", 1), ("C", 9)],
        batch,
        &[&[("A", 2), ("B", 1)]],
        &[&[("A", 1), ("C", 9)]],
        &[("A", 2), ("B", 1), ("C", 9)],
    );
}

#[test]
fn a_row_that_an_earlier_batch_has_is_a_correction() {
    check(&[], &[&[("A", 1), ("A", 2)], &[("A", 2)]], &[&[("A", 1), ("A", 2)]], &[&[("A", 2)]], &[("A", 2)]);
}

#[test]
fn a_batch_without_rows_is_neither() {
    check(&[("A", 1)], &[&[]], &[], &[], &[("A", 1)]);
}

#[test]
fn a_symbol_that_one_sink_lacks_was_not_there_at_its_position() {
    let lesser = newest(&[("A", 5), ("B", 1)]).lesser(&newest(&[("A", 3), ("C", 1)]));
    assert_eq!(lesser, newest(&[("A", 3)]));
}
