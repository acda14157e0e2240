//! Reads of bronze by position: the rows of a run of offsets, in order, in steps of bounded size.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::common::runtime::SpawnedTask;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use position::OffsetRange;
use schema::RangedBatch;
use schema::bronze::column;
use schema::ranged::offsets;

use crate::LakeError;
use crate::file::DataFile;
use crate::read::read_file;
use crate::snapshot::{Snapshot, State};

/// Maximum number of rows in a step: about 12 MiB.
const STEP_ROWS_MAX: u64 = 131_072;
/// Minimum number of offsets in a step that ends where a file begins. Files are then read once, and not in parts.
const STEP_ROWS_MIN: i64 = STEP_ROWS_MAX.cast_signed() / 2;
/// Maximum number of files in a step. This limits steps of small files, since a step of many rows has few files.
const STEP_FILES_MAX: usize = 512;
/// Steps that are read ahead of the reader.
const STEPS_AHEAD: usize = 2;
/// Files of a step that are read at once.
const FILES_AT_ONCE: usize = 8;
/// Minimum number of rows in a decoded batch that is passed on unchanged. One more message then costs less than copying the batch together
/// with others.
const PASSED_ROWS_MIN: usize = 16_384;

/// A run of offsets, and the files that may hold some of its rows.
struct Step {
    range: OffsetRange,
    files: Vec<Arc<DataFile>>,
}

impl Snapshot {
    /// Reads the bronze rows of `range`, in ascending order of offsets. The ranges of the batches tile `range`, and may be wider than their
    /// rows.
    ///
    /// Reads only files whose statistics overlap the range. A step has at most 131,072 rows. Two steps are read ahead of the reader.
    ///
    /// # Errors
    ///
    /// An item is [`LakeError::Expired`] if the snapshot is older than vacuum's retention. For other errors, see
    /// [`LakeError::is_transient`].
    pub fn read(&self, range: OffsetRange) -> BoxStream<'static, Result<RangedBatch, LakeError>> {
        let state = Arc::clone(&self.0);
        let steps = steps(&state.files, range);
        let read = move |step: Step| {
            let range = step.range;
            // A separate task continues while the reader works on the step before.
            let reading = SpawnedTask::spawn(read_step(Arc::clone(&state), step));
            async move {
                let ended = reading.join().await;
                ended.map_err(|error| LakeError::store(format!("read the rows of {range}"))(error.into()))?
            }
        };
        let steps = futures::stream::iter(steps).map(read).buffered(STEPS_AHEAD);
        steps.map_ok(|pieces| futures::stream::iter(pieces.into_iter().map(Ok))).try_flatten().boxed()
    }
}

async fn read_step(state: Arc<State>, step: Step) -> Result<Vec<RangedBatch>, LakeError> {
    let range = step.range;
    let reads = step.files.into_iter().map(|file| {
        let only = (!is_within(&file, range)).then_some(range);
        read_file(Arc::clone(&state.spec), state.store.clone(), file, only)
    });
    let batches: Vec<Vec<RecordBatch>> =
        futures::stream::iter(reads).buffered(FILES_AT_ONCE).try_collect().await?;
    let table = state.spec.name;
    let merged = tokio::task::spawn_blocking(move || merge(&state.spec.schema, range, batches.concat()));
    let merged =
        merged.await.map_err(|error| LakeError::store(format!("merge the rows of {range}"))(error.into()))?;
    merged.map_err(|source| LakeError::Rows { table, source })
}

/// Sorts the rows of `range` by offset. The ranges of the pieces tile `range`.
fn merge(
    schema: &SchemaRef,
    range: OffsetRange,
    mut batches: Vec<RecordBatch>,
) -> Result<Vec<RangedBatch>, ArrowError> {
    batches.retain(|batch| batch.num_rows() > 0);
    batches.sort_by_key(|batch| offsets(batch)[0]);
    let follows = |pair: &[RecordBatch]| offsets(&pair[0]).last() < offsets(&pair[1]).first();
    let in_order = batches.iter().all(|batch| offsets(batch).is_sorted()) && batches.windows(2).all(follows);
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if in_order && rows > 0 && rows >= (batches.len() - 1) * PASSED_ROWS_MIN {
        let firsts: Vec<i64> = batches[1..].iter().map(|batch| offsets(batch)[0]).collect();
        let firsts = [range.first].into_iter().chain(firsts).chain([range.next]).collect::<Vec<_>>();
        let ranges = firsts.windows(2).map(|ends| OffsetRange { first: ends[0], next: ends[1], ..range });
        return Ok(ranges.zip(batches).map(|(range, rows)| RangedBatch { range, rows }).collect());
    }
    let rows = concat_batches(schema, &batches)?;
    if in_order {
        return Ok(vec![RangedBatch { range, rows }]);
    }
    // Files of different dates interleave if candles came late. Files of another engine have no order.
    let order = sort_to_indices(rows.column(column::KAFKA_OFFSET), None, None)?;
    Ok(vec![RangedBatch { range, rows: take_record_batch(&rows, &order)? }])
}

/// Returns true if all rows of the file are in `range`, so that no row needs a check.
fn is_within(file: &DataFile, range: OffsetRange) -> bool {
    file.partition == Some((range.partition, range.partition))
        && file.offset.is_some_and(|(first, last)| range.first <= first && last < range.next)
}

/// Cuts `range` into steps of at most [`STEP_ROWS_MAX`] rows. A run of that many offsets cannot hold more rows. A step takes a longer run
/// if the files that overlap it hold few enough rows.
fn steps(files: &[Arc<DataFile>], range: OffsetRange) -> Vec<Step> {
    let meets = |file: &&Arc<DataFile>| {
        let (first, last) = bounds(file);
        file.partition.is_none_or(|(least, greatest)| (least..=greatest).contains(&range.partition))
            && first < range.next
            && range.first <= last
    };
    let mut waiting: Vec<Arc<DataFile>> = files.iter().filter(meets).map(Arc::clone).collect();
    waiting.sort_unstable_by_key(|file| std::cmp::Reverse(bounds(file).0));
    let (mut steps, mut open) = (Vec::new(), Vec::<Arc<DataFile>>::new());
    let mut cursor = range.first;
    while cursor < range.next {
        open.retain(|file| bounds(file).1 >= cursor);
        let first_of_next =
            |waiting: &[Arc<DataFile>]| waiting.last().map_or(range.next, |file| bounds(file).0.max(cursor));
        let start = if open.is_empty() { first_of_next(&waiting) } else { cursor };
        let least = start.saturating_add(STEP_ROWS_MIN);
        let mut width = start.saturating_add(STEP_ROWS_MAX.cast_signed()).min(range.next);
        let mut rows: u64 = open.iter().map(|file| rows_of(file)).sum();
        while let Some(file) = waiting.last() {
            let fits = rows.saturating_add(rows_of(file)) <= STEP_ROWS_MAX && open.len() < STEP_FILES_MAX;
            if bounds(file).0 >= least && !fits {
                width = width.min(bounds(file).0);
                break;
            }
            rows = rows.saturating_add(rows_of(file));
            open.extend(waiting.pop());
        }
        let next = if rows <= STEP_ROWS_MAX { first_of_next(&waiting).max(width) } else { width };
        let files = open.iter().filter(|file| bounds(file).0 < next).map(Arc::clone).collect();
        let next = if waiting.is_empty() && open.iter().all(|file| bounds(file).1 < next) {
            range.next
        } else {
            next
        };
        steps.push(Step { range: OffsetRange { partition: range.partition, first: cursor, next }, files });
        cursor = next;
    }
    steps
}

fn bounds(file: &DataFile) -> (i64, i64) {
    file.offset.unwrap_or((i64::MIN, i64::MAX))
}

fn rows_of(file: &DataFile) -> u64 {
    file.rows.unwrap_or(STEP_ROWS_MAX)
}
