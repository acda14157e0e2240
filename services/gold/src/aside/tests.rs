use std::sync::Arc;

use arrow::array::{
    Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use position::{OffsetRange, Position};

use super::Aside;
use crate::run::Run;
use crate::state::{NewestBySymbol, SymbolPartitions};
use crate::window::{Arrivals, Window};
use kernel::Frame;

const MINUTE: i64 = schema::MINUTE_MICROS;

/// One row of bronze: symbol, event time, numbers, Kafka time.
type Row<'a> = (&'a str, i64, [f64; 5], i64);

fn bronze(rows: &[Row<'_>]) -> RecordBatch {
    let micros = |of: fn(&Row<'_>) -> i64| {
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(of)).with_timezone("UTC"))
    };
    let number = |index: usize| Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2[index])));
    RecordBatch::try_new(
        schema::bronze::schema(),
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
            micros(|row| row.1),
            number(0),
            number(1),
            number(2),
            number(3),
            number(4),
            Arc::new(Int32Array::from(vec![3; rows.len()])),
            Arc::new(Int64Array::from_iter_values((100..).take(rows.len()))),
            micros(|row| row.3),
            Arc::new(Date32Array::from(vec![0; rows.len()])),
        ],
    )
    .unwrap()
}

#[track_caller]
fn check(row: Row<'_>, expected: Option<&str>) {
    let asides = Aside::of(&bronze(&[("A", MINUTE, [1.0; 5], 0), row]));
    let found: Vec<_> = asides.iter().map(|aside| (aside.partition, aside.offset, aside.reason)).collect();
    assert_eq!(found, expected.map(|reason| (3, 101, reason)).into_iter().collect::<Vec<_>>(), "{row:?}");
}

#[test]
fn what_postgresql_or_the_kernel_cannot_hold_is_set_aside_with_its_reason() {
    let with = |index: usize, number: f64| {
        let mut numbers = [1.0; 5];
        numbers[index] = number;
        numbers
    };
    check(("A\0", MINUTE, [1.0; 5], 0), Some("bad_symbol"));
    check((&"x".repeat(3000), MINUTE, [1.0; 5], 0), Some("bad_symbol"));
    for time in [i64::MIN, -62_135_596_800_000_001, 253_402_300_799_000_001, i64::MAX] {
        check(("A", time, [1.0; 5], 0), Some("time_out_of_range"));
        check(("A", MINUTE, [1.0; 5], time), Some("kafka_time_out_of_range"));
    }
    for index in 0..5 {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            check(("A", MINUTE, with(index, number), 0), Some("not_finite"));
        }
        check(("A", MINUTE, with(index, -1.1e15), 0), Some("number_out_of_range"));
    }
}

#[test]
fn what_an_older_version_let_in_and_gold_can_hold_stays() {
    check(("", MINUTE, [1.0; 5], 0), None);
    check(("A\nB", MINUTE, [1.0; 5], 0), None);
    check((&"x".repeat(200), MINUTE, [1.0; 5], 0), None);
    check(("A", -MINUTE, [1.0; 5], -1), None);
    // The high is below the low, and the volume is negative.
    check(("A", MINUTE, [1.0, 1.0, 2.0, 1.0, -1.0], 0), None);
}

#[test]
fn a_report_of_a_row_is_text_that_postgresql_holds() {
    let asides = Aside::of(&bronze(&[("A\0\n", MINUTE, [f64::NAN; 5], i64::MIN)]));
    assert_eq!(asides[0].symbol, "A\\0\\n");
    assert!(!asides[0].candle.contains('\0') && asides[0].candle.contains("close NaN"), "{:?}", asides[0]);
    assert_eq!(asides[0].kafka_time, *schema::gold::TIMES.start());
}

#[test]
fn a_row_that_is_set_aside_replaces_none() {
    let rows = [("A", MINUTE, [1.0; 5], 0), ("A", MINUTE, [f64::NAN; 5], 1), ("A\0", MINUTE, [1.0; 5], 2)];
    let range = OffsetRange { partition: 3, first: 100, next: 103 };
    let arrivals = Arrivals::of(&Run { range, batches: vec![bronze(&rows)] });
    let mut window =
        Window::new(Frame::Time, Position::default(), NewestBySymbol::default(), SymbolPartitions::default());
    let mut gold = crate::rows::Rows::default();
    for change in window.apply(arrivals) {
        window.compute(&change, &[], &mut gold);
    }
    assert_eq!(gold.finish(0).num_rows(), 1);
}
