//! The hot buffer: rows that were put and are not yet durable, together with the snapshot that they continue.
//!
//! One lock guards the rows and the snapshot, so every reader gets one Delta version and exactly the batches above its position.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use lake::Snapshot;
use position::{OffsetRange, Origin, Position, Topic};
use proto::metadata::Progress;
use schema::RangedBatch;
use tokio::sync::watch;

/// Largest batch that a merge makes, in rows. One Flight message holds about twice as many.
const MERGED_ROWS_MAX: usize = 8192;
/// Maximum number of rows that one [`HotBuffer::read`] returns, about a megabyte. So a slow follower holds little memory.
const READ_ROWS_MAX: usize = 8192;

/// Error for a batch that would leave a gap: the buffer expects an earlier offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition} is expected at offset {expected}, not {found}")]
pub(crate) struct Gap {
    pub(crate) partition: i32,
    pub(crate) expected: i64,
    pub(crate) found: i64,
}

/// Error for a put of a topic other than bronze's, or of a recreated topic with the same name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bronze holds topic {ours}, not {theirs}: put these batches to the server of their own topic")]
pub(crate) struct OtherTopic {
    pub(crate) ours: Topic,
    pub(crate) theirs: Topic,
}

/// Numbers of rows and bytes in the buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// Rows that a follower at some position reads next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Durable rows, to be read from the files of this snapshot.
    Durable(Snapshot, OffsetRange),
    /// Hot rows.
    Hot(Vec<RangedBatch>),
    /// No rows until the buffer changes.
    Nothing,
}

/// Hot buffer, and the snapshot below it. Puts, the flusher, followers and queries share it.
#[derive(Debug)]
pub(crate) struct HotBuffer {
    state: Mutex<State>,
    /// Number of changes of `state`. Followers, waiting puts and acknowledgements wait for a change.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    durable: Snapshot,
    /// Topic of the offsets. Its id may be set before it is durable.
    topic: Topic,
    partitions: BTreeMap<i32, Partition>,
    size: Size,
}

#[derive(Debug)]
struct Partition {
    /// Batches whose ranges join. The last range ends at `next`.
    batches: VecDeque<RangedBatch>,
    next: i64,
}

impl HotBuffer {
    /// Creates an empty buffer above `durable`.
    pub(crate) fn new(durable: Snapshot) -> Self {
        let partitions = durable.position().iter();
        let partitions = partitions.map(|(partition, next)| (partition, Partition::at(next))).collect();
        let topic = durable.topic();
        HotBuffer {
            state: Mutex::new(State { durable, topic, partitions, size: Size::default() }),
            changes: watch::Sender::new(0),
        }
    }

    /// Checks that a put belongs to bronze's topic. Stores the topic's id from the first put that has one.
    ///
    /// # Errors
    ///
    /// [`OtherTopic`], with both topics.
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

    /// Returns the topic and the table that bronze's positions belong to.
    pub(crate) fn origin(&self) -> Origin {
        let state = self.lock();
        Origin { topic: state.topic.clone(), table: state.durable.table_id().to_owned() }
    }

    /// Buffers a batch, without the rows that the buffer already holds. Returns the number of new rows.
    ///
    /// # Errors
    ///
    /// [`Gap`] if its range begins after the expected offset. Nothing is buffered then.
    pub(crate) fn push(&self, batch: &RangedBatch) -> Result<usize, Gap> {
        let range = batch.range;
        let mut state = self.lock();
        let state = &mut *state;
        let partition = state.partitions.entry(range.partition).or_insert_with(|| Partition::at(range.first));
        if range.first > partition.next {
            return Err(Gap { partition: range.partition, expected: partition.next, found: range.first });
        }
        let Some(new) = batch.above(partition.next) else { return Ok(0) };
        let size = Size::of(&new);
        partition.push(new);
        state.size.add(size);
        self.changes.send_modify(|changes| *changes += 1);
        Ok(size.rows)
    }

    /// Returns the rows of all partitions and the position after them, for one commit. Returns `None` if that is the durable position.
    pub(crate) fn to_flush(&self) -> Option<(Vec<RecordBatch>, Position)> {
        let state = self.lock();
        let position: Position =
            state.partitions.iter().map(|(index, partition)| (*index, partition.next)).collect();
        let batches = state.partitions.values().flat_map(|partition| &partition.batches);
        let rows =
            batches.filter(|batch| batch.rows.num_rows() > 0).map(|batch| batch.rows.clone()).collect();
        (position != *state.durable.position()).then_some((rows, position))
    }

    /// Replaces the snapshot with a later one and drops the batches that it covers, in one step.
    pub(crate) fn set_durable(&self, durable: Snapshot) {
        let mut state = self.lock();
        for (index, next) in durable.position().iter() {
            state.partitions.entry(index).or_insert_with(|| Partition::at(next)).drop_below(next);
        }
        state.size = Size::default();
        let sizes: Vec<Size> =
            state.partitions.values().flat_map(|partition| partition.batches.iter().map(Size::of)).collect();
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

    /// Returns the rows of `partition` from offset `from` up to `until`. `None` for `from` means the beginning of the partition.
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

    /// Returns the partitions of bronze, ascending.
    pub(crate) fn partitions(&self) -> Vec<i32> {
        self.lock().partitions.keys().copied().collect()
    }

    /// Returns the next offset that `partition` expects, or 0 before its first batch.
    pub(crate) fn received(&self, partition: i32) -> i64 {
        self.lock().partitions.get(&partition).map_or(0, |partition| partition.next)
    }

    /// Returns the received and the durable position of bronze.
    pub(crate) fn progress(&self) -> Progress {
        let state = self.lock();
        let received = state.partitions.iter().map(|(index, partition)| (*index, partition.next)).collect();
        Progress { received, durable: state.durable.position().clone(), origin: None }
    }

    /// Returns the size of the rows that are not durable.
    pub(crate) fn size(&self) -> Size {
        self.lock().size
    }

    /// Returns a receiver of every later change of the buffer.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic in the middle of a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partition {
    fn at(next: i64) -> Self {
        Partition { batches: VecDeque::new(), next }
    }

    /// Appends a batch and merges neighbours of similar size, like the carries of a binary counter. Each row is copied at most log(rows)
    /// times, and single rows do not leave one batch each.
    fn push(&mut self, batch: RangedBatch) {
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
            self.batches.push_back(RangedBatch { range, rows: merged });
        }
    }

    fn drop_below(&mut self, next: i64) {
        self.next = self.next.max(next);
        while self.batches.front().is_some_and(|batch| batch.range.next <= next) {
            self.batches.pop_front();
        }
        if let Some(front) = self.batches.front_mut()
            && let Some(rest) = front.above(next)
        {
            *front = rest;
        }
    }

    /// Returns the batches from offset `first` up to `until`, with at most [`READ_ROWS_MAX`] rows. The first range begins at `first`.
    fn between(&self, first: i64, until: i64) -> Vec<RangedBatch> {
        let start = self.batches.partition_point(|batch| batch.range.next <= first);
        let mut batches = Vec::new();
        let mut rows = 0;
        for batch in self.batches.range(start..).take_while(|batch| batch.range.first < until) {
            if rows >= READ_ROWS_MAX {
                break;
            }
            let Some(piece) = batch.above(first).and_then(|piece| piece.below(until)) else { break };
            let mut piece = piece.head(READ_ROWS_MAX - rows);
            if batches.is_empty() {
                // A follower may start below the topic's first offset. Its ranges still join.
                piece.range.first = first;
            }
            rows += piece.rows.num_rows();
            batches.push(piece);
        }
        batches
    }
}

impl Size {
    fn of(batch: &RangedBatch) -> Self {
        // Each buffer counts once. The columns of a batch from Flight are slices of one buffer and keep all of it in memory.
        Size { rows: batch.rows.num_rows(), bytes: get_record_batch_memory_size(&batch.rows) }
    }

    fn add(&mut self, other: Size) {
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}

#[cfg(test)]
pub(crate) mod tests;
