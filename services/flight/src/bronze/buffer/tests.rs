use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use lake::{Lake, Table};
use position::{OffsetRange, Position};
use proptest::prelude::{Strategy, prop_assert_eq, proptest};
use schema::RangedBatch;
use schema::ranged::offset_at;

use super::{Gap, HotBuffer, Next};

/// Returns candles at the given offsets, one a minute.
pub(crate) fn rows(partition: i32, offsets: &[i64]) -> RecordBatch {
    let count = offsets.len();
    let times: Vec<i64> = offsets.iter().map(|offset| offset * schema::MINUTE_MICROS).collect();
    let dates: Vec<i32> = times.iter().map(|time| schema::date_of(*time)).collect();
    let number = || Arc::new(Float64Array::from(vec![1.0; count])) as ArrayRef;
    let time = |times: &[i64]| {
        Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC")) as ArrayRef
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["BTC-USD"; count])),
        time(&times),
        number(),
        number(),
        number(),
        number(),
        number(),
        Arc::new(Int32Array::from(vec![partition; count])),
        Arc::new(Int64Array::from(offsets.to_vec())),
        time(&times),
        Arc::new(Date32Array::from(dates)),
    ];
    RecordBatch::try_new(schema::bronze::schema(), columns).unwrap()
}

fn range(partition: i32, first: i64, next: i64) -> OffsetRange {
    OffsetRange { partition, first, next }
}

fn whole(partition: i32, first: i64, next: i64) -> RangedBatch {
    let rows = rows(partition, &(first..next).collect::<Vec<_>>());
    RangedBatch { range: range(partition, first, next), rows }
}

pub(crate) async fn table(folder: &tempfile::TempDir) -> Table {
    let lake = Lake::open(folder.path().to_str().unwrap()).await.unwrap();
    Table::open(&lake, lake::bronze("candles")).await.unwrap()
}

fn push(hot: &HotBuffer, batch: RangedBatch) -> Result<usize, Gap> {
    hot.push(&batch)
}

fn offsets(batches: &[RecordBatch]) -> Vec<i64> {
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| offset_at(batch, row))).collect()
}

#[tokio::test]
async fn a_batch_that_would_leave_a_gap_is_refused_with_the_offset_that_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let hot = HotBuffer::new(table(&folder).await.snapshot());
    assert_eq!(push(&hot, whole(0, 100, 110)), Ok(10));
    assert_eq!(push(&hot, whole(0, 111, 120)), Err(Gap { partition: 0, expected: 110, found: 111 }));
}

#[tokio::test]
async fn what_is_already_held_is_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let hot = HotBuffer::new(table(&folder).await.snapshot());
    assert_eq!(push(&hot, whole(0, 0, 10)), Ok(10));
    assert_eq!(push(&hot, whole(0, 5, 12)), Ok(2));
    assert_eq!(push(&hot, whole(0, 3, 12)), Ok(0));
    assert_eq!(offsets(&hot.snapshot().1), (0..12).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_flush_takes_what_is_hot_and_leaves_what_came_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = table(&folder).await;
    let hot = HotBuffer::new(table.snapshot());
    push(&hot, whole(0, 0, 10)).unwrap();
    let (batches, position) = hot.to_flush().unwrap();
    push(&hot, whole(0, 10, 13)).unwrap();
    hot.set_durable(table.append(&batches, &position).await.unwrap());
    let (durable, rows) = hot.snapshot();
    assert_eq!((durable.row_count(), offsets(&rows)), (10, vec![10, 11, 12]));
    assert_eq!(hot.progress().received.next(0), Some(13));
}

#[tokio::test]
async fn dead_letters_alone_move_the_durable_position() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = table(&folder).await;
    let hot = HotBuffer::new(table.snapshot());
    push(&hot, RangedBatch { range: range(0, 0, 7), rows: rows(0, &[]) }).unwrap();
    let (batches, position) = hot.to_flush().unwrap();
    hot.set_durable(table.append(&batches, &position).await.unwrap());
    assert_eq!(hot.progress().durable.next(0), Some(7));
    assert!(hot.to_flush().is_none());
}

#[tokio::test]
async fn a_restarted_buffer_goes_on_at_the_table_s_position() {
    let folder = tempfile::tempdir().unwrap();
    table(&folder).await.append(&[rows(0, &[0, 1])], &Position::from_iter([(0, 2)])).await.unwrap();
    let hot = HotBuffer::new(table(&folder).await.snapshot());
    assert_eq!(push(&hot, whole(0, 3, 4)), Err(Gap { partition: 0, expected: 2, found: 3 }));
    assert_eq!(push(&hot, whole(0, 0, 4)), Ok(2));
}

/// Reads partition 0 from `from` to the end, as a follower does.
fn read_all(hot: &HotBuffer, mut from: i64) -> (Vec<i64>, i64) {
    let mut seen = Vec::new();
    loop {
        match hot.read(0, Some(from), None) {
            Next::Hot(batches) => {
                for batch in batches {
                    assert_eq!(batch.range.first, from, "ranges join");
                    from = batch.range.next;
                    seen.extend(offsets(&[batch.rows]));
                }
            }
            Next::Durable(_, range) => {
                assert_eq!(range.first, from, "ranges join");
                from = range.next;
            }
            Next::Nothing => return (seen, from),
        }
    }
}

fn cuts() -> impl Strategy<Value = Vec<(i64, i64)>> {
    // Pairs of a run's length and the distance that it starts back: batches of any size, some sent again.
    proptest::collection::vec((1..40i64, 0..20i64), 1..60)
}

proptest! {
    #[test]
    fn a_follower_sees_every_offset_once_whatever_was_put_twice_and_flushed_when(cuts in cuts(), flush_every in 1..10usize, from in 0..30i64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut table = table(&folder).await;
            let hot = HotBuffer::new(table.snapshot());
            let mut next = 0;
            for (index, (length, back)) in cuts.iter().enumerate() {
                let first = (next - back).max(0);
                push(&hot, whole(0, first, next + length)).unwrap();
                next += length;
                if index % flush_every == 0 && index < 12 {
                    let (batches, position) = hot.to_flush().unwrap();
                    hot.set_durable(table.append(&batches, &position).await.unwrap());
                }
            }
            let durable = hot.progress().durable.next(0).unwrap_or(0);
            let (seen, end) = read_all(&hot, from.min(next));
            prop_assert_eq!(end, next);
            prop_assert_eq!(seen, (durable.max(from.min(next))..next).collect::<Vec<_>>());
            Ok(())
        })?;
    }
}
