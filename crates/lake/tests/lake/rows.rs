//! Rows for the tests, and functions that read rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use lake::Snapshot;
use position::{OffsetRange, Position};
use schema::RangedBatch;
use schema::{DAY_MICROS, MINUTE_MICROS};

/// 2024-01-01 in days since the epoch.
pub(crate) const DAY: i32 = 19_723;

/// Returns bronze rows of one partition, one per (offset, day). The candles alternate between two symbols, and the offset gives the minute.
pub(crate) fn bronze(partition: i32, rows: &[(i64, i32)]) -> RecordBatch {
    let times =
        || rows.iter().map(|(offset, day)| i64::from(*day) * DAY_MICROS + offset % 1440 * MINUTE_MICROS);
    let float = |shift: f64| -> ArrayRef {
        Arc::new(rows.iter().map(|(offset, _)| Some(*offset as f64 + shift)).collect::<Float64Array>())
    };
    let symbol = |offset: i64| if offset % 2 == 0 { "BTC-USD" } else { "ETH-USD" };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|(offset, _)| Some(symbol(*offset))).collect::<StringArray>()),
        Arc::new(times().map(Some).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        float(0.0),
        float(2.0),
        float(-2.0),
        float(1.0),
        float(0.5),
        Arc::new(Int32Array::from_value(partition, rows.len())),
        Arc::new(rows.iter().map(|(offset, _)| Some(*offset)).collect::<Int64Array>()),
        Arc::new(
            times()
                .map(|time| Some(time + 123_456))
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        ),
        Arc::new(rows.iter().map(|(_, day)| Some(*day)).collect::<Date32Array>()),
    ];
    RecordBatch::try_new(schema::bronze::schema(), columns).unwrap()
}

/// Returns bronze rows of a run of offsets, all of one day.
pub(crate) fn bronze_run(partition: i32, offsets: std::ops::Range<i64>, day: i32) -> RecordBatch {
    bronze(partition, &offsets.map(|offset| (offset, day)).collect::<Vec<_>>())
}

/// A gold row: symbol, day, minute of the day, close, volatility (which may be null).
pub(crate) type GoldRow = (&'static str, i32, i64, f64, Option<f64>);

/// Returns gold rows. Columns that no test reads are constant.
pub(crate) fn gold(rows: &[GoldRow]) -> RecordBatch {
    let times = || rows.iter().map(|row| i64::from(row.1) * DAY_MICROS + row.2 * MINUTE_MICROS);
    let columns = schema::gold::schema();
    let columns = columns.fields().iter().map(|field| -> ArrayRef {
        match (field.name().as_str(), field.data_type()) {
            ("symbol", _) => Arc::new(rows.iter().map(|row| Some(row.0)).collect::<StringArray>()),
            ("date", _) => Arc::new(rows.iter().map(|row| Some(row.1)).collect::<Date32Array>()),
            ("close", _) => Arc::new(rows.iter().map(|row| Some(row.3)).collect::<Float64Array>()),
            (_, arrow::datatypes::DataType::Timestamp(..)) => {
                Arc::new(times().map(Some).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
            }
            (_, arrow::datatypes::DataType::Int32) => Arc::new(Int32Array::from_value(1, rows.len())),
            _ if field.is_nullable() => Arc::new(rows.iter().map(|row| row.4).collect::<Float64Array>()),
            _ => Arc::new(Float64Array::from_value(1.0, rows.len())),
        }
    });
    RecordBatch::try_new(schema::gold::schema(), columns.collect()).unwrap()
}

pub(crate) fn position(pairs: &[(i32, i64)]) -> Position {
    pairs.iter().copied().collect()
}

/// Reads `range`, checks that the ranges tile it and hold their rows, and returns the (offset, partition) of the rows.
pub(crate) async fn read(snapshot: &Snapshot, range: OffsetRange) -> Vec<i64> {
    let batches: Vec<_> = snapshot.read(range).try_collect().await.unwrap();
    let (mut next, mut offsets) = (range.first, Vec::new());
    for RangedBatch { range: step, rows: batch } in batches {
        assert_eq!((step.partition, step.first), (range.partition, next), "ranges tile");
        assert!(step.next > step.first, "no range is empty");
        assert_eq!(batch.schema(), schema::bronze::schema());
        let partitions = batch.column_by_name("kafka_partition").unwrap().as_primitive::<Int32Type>();
        assert!(partitions.values().iter().all(|partition| *partition == range.partition));
        let rows = batch.column_by_name("kafka_offset").unwrap().as_primitive::<Int64Type>().values();
        assert!(rows.iter().all(|offset| (step.first..step.next).contains(offset)));
        offsets.extend_from_slice(rows);
        next = step.next;
    }
    assert_eq!(next, range.next.max(range.first), "ranges reach the end");
    assert!(offsets.is_sorted());
    offsets
}

/// Returns the result of `sql` over the table `t`, printed as a table.
pub(crate) async fn query(table: Arc<dyn TableProvider>, sql: &str) -> String {
    let context = SessionContext::new();
    context.register_table("t", table).unwrap();
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

/// Returns the printed result of `sql` over the rows of a snapshot.
pub(crate) async fn query_snapshot(snapshot: &Snapshot, sql: &str) -> String {
    query(lake::provider(snapshot.clone(), Vec::new()), sql).await
}

/// Returns the printed plan of `sql` over the table `t`.
pub(crate) async fn plan(table: Arc<dyn TableProvider>, sql: &str) -> String {
    let context = SessionContext::new();
    context.register_table("t", table).unwrap();
    let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    datafusion::physical_plan::displayable(plan.as_ref()).indent(true).to_string()
}
