//! The hot buffer: what was put and is not yet durable, together with the snapshot it continues.
//!
//! One lock guards both, so that whoever looks sees one Delta version and exactly the batches above its position.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use lake::Snapshot;
use position::{OffsetRange, Origin, Position, Topic};
use proto::metadata::Progress;
use schema::bronze::column;
use tokio::sync::watch;
use transport::stream::offset_at;

/// Largest batch that merging makes, in rows: one Flight message holds about twice as many.
const MERGED_ROWS_MAX: usize = 8192;
/// Most rows that one [`Hot::read`] hands out, so that a slow follower pins little memory: a megabyte.
const READ_ROWS_MAX: usize = 8192;

/// One partition's run of offsets with its rows.
#[derive(Clone, Debug)]
pub(crate) struct HotBatch {
    pub(crate) range: OffsetRange,
    pub(crate) rows: RecordBatch,
}

/// A batch would leave a gap: the buffer expects another offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition} is expected at offset {expected}, not {found}")]
pub(crate) struct Gap {
    pub(crate) partition: i32,
    pub(crate) expected: i64,
    pub(crate) found: i64,
}

/// A put of another topic, or of another life of the topic, than bronze's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bronze holds topic {ours}, not {theirs}: put these batches to the server of their own topic")]
pub(crate) struct OtherTopic {
    pub(crate) ours: Topic,
    pub(crate) theirs: Topic,
}

/// Sizes of the buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// What a follower at some position reads next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Durable rows: read them from the files of this snapshot.
    Durable(Snapshot, OffsetRange),
    /// Hot rows.
    Hot(Vec<HotBatch>),
    /// Nothing until something changes.
    Nothing,
}

/// The hot buffer and the snapshot below it. Shared by puts, the flusher, followers and queries.
#[derive(Debug)]
pub(crate) struct Hot {
    state: Mutex<State>,
    /// Counts changes of `state`; followers, waiting puts and acknowledgements wait on it.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    durable: Snapshot,
    /// The topic whose offsets these are; its id is known before it is durable.
    topic: Topic,
    partitions: BTreeMap<i32, Partition>,
    size: Size,
}

#[derive(Debug)]
struct Partition {
    /// Ranges join; the last one ends at `next`.
    batches: VecDeque<HotBatch>,
    next: i64,
}

impl Hot {
    /// Starts empty above `durable`.
    pub(crate) fn new(durable: Snapshot) -> Self {
        let partitions = durable.position().iter();
        let partitions = partitions.map(|(partition, next)| (partition, Partition::at(next))).collect();
        let topic = durable.topic();
        Hot {
            state: Mutex::new(State { durable, topic, partitions, size: Size::default() }),
            changes: watch::Sender::new(0),
        }
    }

    /// Checks that a put is of bronze's topic, and learns the topic's id from the first put that has it.
    ///
    /// # Errors
    ///
    /// [`OtherTopic`], with the names of both.
    pub(crate) fn admit(&self, topic: &Topic) -> Result<(), OtherTopic> {
        let mut state = self.lock();
        if !state.topic.matches(topic) {
            return Err(OtherTopic { ours: state.topic.clone(), theirs: topic.clone() });
        }
        if state.topic.id.is_none() {
            state.topic.id.clone_from(&topic.id);
        }
        Ok(())
    }

    /// Returns what the positions of bronze count in.
    pub(crate) fn origin(&self) -> Origin {
        let state = self.lock();
        Origin { topic: state.topic.clone(), table: state.durable.table_id().to_owned() }
    }

    /// Takes a batch; what is already held is trimmed off. Returns the number of rows that were new.
    ///
    /// # Errors
    ///
    /// [`Gap`] when `range` begins after the offset that is expected; nothing was taken.
    pub(crate) fn push(&self, range: OffsetRange, rows: &RecordBatch) -> Result<usize, Gap> {
        let mut state = self.lock();
        let state = &mut *state;
        let partition = state.partitions.entry(range.partition).or_insert_with(|| Partition::at(range.first));
        if range.first > partition.next {
            return Err(Gap { partition: range.partition, expected: partition.next, found: range.first });
        }
        let Some(new) = above(range, rows, partition.next) else { return Ok(0) };
        let size = new.size();
        partition.push(new);
        state.size.add(size);
        self.changes.send_modify(|changes| *changes += 1);
        Ok(size.rows)
    }

    /// Returns the rows of all partitions and the position behind them, for one commit; `None` when nothing is above the durable position.
    pub(crate) fn to_flush(&self) -> Option<(Vec<RecordBatch>, Position)> {
        let state = self.lock();
        let position: Position =
            state.partitions.iter().map(|(index, partition)| (*index, partition.next)).collect();
        let batches = state.partitions.values().flat_map(|partition| &partition.batches);
        let rows =
            batches.filter(|batch| batch.rows.num_rows() > 0).map(|batch| batch.rows.clone()).collect();
        (position != *state.durable.position()).then_some((rows, position))
    }

    /// Replaces the snapshot by a later one and lets go of the batches that it covers, in one step.
    pub(crate) fn set_durable(&self, durable: Snapshot) {
        let mut state = self.lock();
        for (index, next) in durable.position().iter() {
            state.partitions.entry(index).or_insert_with(|| Partition::at(next)).drop_below(next);
        }
        state.size = Size::default();
        let sizes: Vec<Size> = state
            .partitions
            .values()
            .flat_map(|partition| partition.batches.iter().map(HotBatch::size))
            .collect();
        for size in sizes {
            state.size.add(size);
        }
        state.durable = durable;
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Returns one consistent view: a snapshot and every hot row above its position.
    pub(crate) fn snapshot(&self) -> (Snapshot, Vec<RecordBatch>) {
        let state = self.lock();
        let batches = state.partitions.values().flat_map(|partition| &partition.batches);
        (
            state.durable.clone(),
            batches.map(|batch| batch.rows.clone()).filter(|rows| rows.num_rows() > 0).collect(),
        )
    }

    /// Returns what follows offset `from` of `partition` (`None`: its beginning), up to `until`.
    pub(crate) fn read(&self, partition: i32, from: Option<i64>, until: Option<i64>) -> Next {
        let state = self.lock();
        let first = from.unwrap_or(0);
        let durable_next = state.durable.position().next(partition).unwrap_or(0);
        if first < durable_next {
            let next = until.unwrap_or(durable_next).min(durable_next);
            return if next <= first {
                Next::Nothing
            } else {
                Next::Durable(state.durable.clone(), OffsetRange { partition, first, next })
            };
        }
        let batches =
            state.partitions.get(&partition).map(|hot| hot.between(first, until.unwrap_or(i64::MAX)));
        match batches {
            Some(batches) if !batches.is_empty() => Next::Hot(batches),
            _ => Next::Nothing,
        }
    }

    /// Returns the partitions that bronze knows, ascending.
    pub(crate) fn partitions(&self) -> Vec<i32> {
        self.lock().partitions.keys().copied().collect()
    }

    /// Returns the next offset that `partition` expects, 0 before its first.
    pub(crate) fn received(&self, partition: i32) -> i64 {
        self.lock().partitions.get(&partition).map_or(0, |partition| partition.next)
    }

    /// Returns how far bronze is.
    pub(crate) fn progress(&self) -> Progress {
        let state = self.lock();
        let received = state.partitions.iter().map(|(index, partition)| (*index, partition.next)).collect();
        Progress { received, durable: state.durable.position().clone(), origin: None }
    }

    /// Returns the size of what is not durable.
    pub(crate) fn size(&self) -> Size {
        self.lock().size
    }

    /// Returns a receiver that sees every later change of the buffer.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partition {
    fn at(next: i64) -> Self {
        Partition { batches: VecDeque::new(), next }
    }

    /// Appends a batch and merges equals: like the carries of a binary counter, each row is copied log(rows) times at most, and
    /// rows that came one by one do not leave a batch each.
    fn push(&mut self, batch: HotBatch) {
        self.next = batch.range.next;
        self.batches.push_back(batch);
        while let [.., before, last] = self.batches.make_contiguous() {
            let (rows, rows_last) = (before.rows.num_rows(), last.rows.num_rows());
            if rows > 2 * rows_last || rows + rows_last > MERGED_ROWS_MAX {
                return;
            }
            let Ok(merged) = concat_batches(before.rows.schema_ref(), [&before.rows, &last.rows]) else {
                return;
            };
            let range = OffsetRange { next: last.range.next, ..before.range };
            self.batches.truncate(self.batches.len() - 2);
            self.batches.push_back(HotBatch { range, rows: merged });
        }
    }

    fn drop_below(&mut self, next: i64) {
        self.next = self.next.max(next);
        while self.batches.front().is_some_and(|batch| batch.range.next <= next) {
            self.batches.pop_front();
        }
        if let Some(front) = self.batches.front_mut()
            && let Some(rest) = above(front.range, &front.rows, next)
        {
            *front = rest;
        }
    }

    /// Returns the batches from offset `first` up to `until`, [`READ_ROWS_MAX`] rows at most; the first range begins at `first`.
    fn between(&self, first: i64, until: i64) -> Vec<HotBatch> {
        let start = self.batches.partition_point(|batch| batch.range.next <= first);
        let mut batches = Vec::new();
        let mut rows = 0;
        for batch in self.batches.range(start..).take_while(|batch| batch.range.first < until) {
            if rows >= READ_ROWS_MAX {
                break;
            }
            let from_first = above(batch.range, &batch.rows, first);
            let Some(mut piece) = from_first.and_then(|piece| below(&piece, until)) else { break };
            let rows_left = READ_ROWS_MAX - rows;
            if piece.rows.num_rows() > rows_left {
                let next = offset_at(&piece.rows, rows_left);
                piece = HotBatch {
                    range: OffsetRange { next, ..piece.range },
                    rows: piece.rows.slice(0, rows_left),
                };
            }
            if batches.is_empty() {
                // A follower that starts below the topic's first offset still sees ranges that join.
                piece.range.first = first;
            }
            rows += piece.rows.num_rows();
            batches.push(piece);
        }
        batches
    }
}

impl HotBatch {
    fn size(&self) -> Size {
        // Each buffer once: the columns of a batch that came by Flight are slices of one, and keep all of it in memory.
        Size { rows: self.rows.num_rows(), bytes: get_record_batch_memory_size(&self.rows) }
    }
}

impl Size {
    fn add(&mut self, other: Size) {
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}

/// Returns what of a batch lies at or above offset `next`, `None` when nothing does.
fn above(range: OffsetRange, rows: &RecordBatch, next: i64) -> Option<HotBatch> {
    if range.next <= next {
        return None;
    }
    if range.first >= next {
        return Some(HotBatch { range, rows: rows.clone() });
    }
    let row = row_of(rows, next);
    Some(HotBatch {
        range: OffsetRange { first: next, ..range },
        rows: rows.slice(row, rows.num_rows() - row),
    })
}

/// Returns what of a batch lies below offset `until`, `None` when nothing does.
fn below(batch: &HotBatch, until: i64) -> Option<HotBatch> {
    if batch.range.first >= until {
        return None;
    }
    if batch.range.next <= until {
        return Some(batch.clone());
    }
    let rows = batch.rows.slice(0, row_of(&batch.rows, until));
    Some(HotBatch { range: OffsetRange { next: until, ..batch.range }, rows })
}

/// Returns the index of the first row at or above `offset`.
fn row_of(rows: &RecordBatch, offset: i64) -> usize {
    let offsets = rows.column(column::KAFKA_OFFSET).as_primitive::<Int64Type>().values();
    offsets.partition_point(|held| *held < offset)
}

#[cfg(test)]
pub(crate) mod tests;
