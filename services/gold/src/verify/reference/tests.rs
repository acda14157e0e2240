use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::util::pretty::pretty_format_batches;
use position::OffsetRange;

use super::Reference;
use crate::rows::Rows;
use crate::run::Run;
use crate::state::{NewestBySymbol, SymbolPartitions};
use crate::verify::project;
use crate::window::{Arrivals, Window};
use kernel::Frame;

/// Returns two candles that differ in every column of numbers.
fn bronze() -> RecordBatch {
    let floats = |values: [f64; 2]| -> ArrayRef { Arc::new(Float64Array::from(values.to_vec())) };
    let times = |micros: [i64; 2]| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(micros.to_vec()).with_timezone("UTC"))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["BTC-USD", "BTC-USD"])),
        times([60_000_000, 120_000_000]),
        floats([11.0, 21.0]),
        floats([14.0, 24.0]),
        floats([10.0, 20.0]),
        floats([12.0, 22.0]),
        floats([3.0, 5.0]),
        Arc::new(Int32Array::from(vec![7, 7])),
        Arc::new(Int64Array::from(vec![70, 71])),
        times([61_000_000, 122_000_000]),
        Arc::new(Date32Array::from(vec![0, 0])),
    ];
    RecordBatch::try_new(schema::bronze::schema(), columns).unwrap()
}

/// The gold of [`bronze`], computed by hand: the deviation of 12 and 22 is √50.
const GOLD: &str = "\
| BTC-USD | 1970-01-01T00:01:00Z | 11.0 | 14.0 | 10.0 | 12.0 | 3.0 | 12.0 | | 3.0 | 1 | 12.0 | | 3.0 | 1 | 12.0 | | 3.0 | 1 | 1970-01-01T00:01:01Z |
| BTC-USD | 1970-01-01T00:02:00Z | 21.0 | 24.0 | 20.0 | 22.0 | 5.0 | 17.0 | 7.0710678118654755 | 4.0 | 2 | 17.0 | 7.0710678118654755 | 4.0 | 2 | 17.0 | 7.0710678118654755 | 4.0 | 2 | 1970-01-01T00:02:02Z |";

#[track_caller]
fn check(gold: &RecordBatch) {
    let text = pretty_format_batches(&[project(gold)]).unwrap().to_string();
    let rows = text.lines().filter(|line| line.contains("BTC-USD"));
    let rows: Vec<String> = rows.map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(rows.join("\n"), GOLD);
}

#[test]
fn the_definition_gives_what_a_person_computes() {
    let mut reference = Reference::default();
    reference.push(&bronze());
    let gold: Vec<RecordBatch> = reference.into_gold(Frame::Time).collect();
    check(&gold[0]);
}

#[test]
fn the_service_gives_what_a_person_computes() {
    let range = OffsetRange { partition: 7, first: 70, next: 72 };
    let arrivals = Arrivals::of(&Run { range, batches: vec![bronze()] });
    let mut window = Window::new(
        Frame::Time,
        position::Position::default(),
        NewestBySymbol::default(),
        SymbolPartitions::default(),
    );
    let mut rows = Rows::default();
    for change in window.apply(arrivals) {
        window.compute(&change, &[], &mut rows);
    }
    check(&rows.finish(0));
}
