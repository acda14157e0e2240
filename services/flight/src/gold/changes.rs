//! The change buffer: the latest changes of gold, for its followers. They are in memory only. When the buffer is full, the oldest changes
//! are dropped.
//!
//! Each batch holds the gold rows that a range of offsets changed, with their values after that range.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use datafusion::common::utils::memory::get_record_batch_memory_size;
use position::{OffsetRange, Position};
use schema::RangedBatch;
use tokio::sync::watch;

/// Maximum size of the kept batches, in bytes: about 150,000 rows, more than gold commits to the lake at a time.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// Maximum number of batches that one [`ChangeBuffer::read`] returns, so that a slow follower holds little memory.
const READ_BATCHES_MAX: usize = 4;

/// Result of a follower's read.
#[derive(Debug)]
pub(crate) enum Found {
    /// Next batches. The first one begins at the follower's offset.
    Batches(Vec<RangedBatch>),
    /// The buffer has no later batch yet.
    Nothing,
    /// Later rows are no longer in the buffer, or never came to it.
    Missed,
}

/// Change buffer. Gold's puts and the followers share it.
#[derive(Debug)]
pub(crate) struct ChangeBuffer {
    state: Mutex<State>,
    bytes_max: usize,
    /// Number of changes of `state`. Followers wait for a change.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    runs: BTreeMap<i32, Run>,
    bytes: usize,
    /// Number of all batches that have ever arrived.
    arrivals: u64,
}

/// Batches of one partition. Their ranges are contiguous and cover the offsets from `first` to `next`.
#[derive(Debug)]
struct Run {
    batches: VecDeque<(u64, RangedBatch)>,
    first: i64,
    next: i64,
}

impl Default for ChangeBuffer {
    fn default() -> Self {
        ChangeBuffer::new(BYTES_MAX)
    }
}

impl ChangeBuffer {
    fn new(bytes_max: usize) -> Self {
        ChangeBuffer { state: Mutex::default(), bytes_max, changes: watch::Sender::new(0) }
    }

    /// Adds a batch, without the offsets that the buffer already holds. A batch after a gap replaces all batches before it.
    pub(crate) fn push(&self, mut batch: RangedBatch) {
        let mut state = self.lock();
        let state = &mut *state;
        let OffsetRange { partition, first, next } = batch.range;
        let run = state.runs.entry(partition).or_insert_with(|| Run {
            batches: VecDeque::new(),
            first,
            next: first,
        });
        if next <= run.next {
            return;
        }
        if first > run.next {
            state.bytes -= run.batches.iter().map(|(_, batch)| bytes_of(batch)).sum::<usize>();
            *run = Run { batches: VecDeque::new(), first, next: first };
        }
        // A restarted gold may cut its batches at different offsets. Rows as of a later offset also serve a follower at an earlier offset.
        batch.range.first = run.next;
        run.next = next;
        state.bytes += bytes_of(&batch);
        run.batches.push_back((state.arrivals, batch));
        state.arrivals += 1;
        while state.bytes > self.bytes_max {
            state.drop_oldest();
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Returns the next batches of `partition` from offset `from` on, at most [`READ_BATCHES_MAX`].
    pub(crate) fn read(&self, partition: i32, from: i64) -> Found {
        let state = self.lock();
        let Some(run) = state.runs.get(&partition) else { return Found::Nothing };
        if from >= run.next {
            return Found::Nothing;
        }
        if from < run.first {
            return Found::Missed;
        }
        let start = run.batches.partition_point(|(_, batch)| batch.range.next <= from);
        let batches = run.batches.range(start..).take(READ_BATCHES_MAX).map(|(_, batch)| batch.clone());
        let mut batches: Vec<RangedBatch> = batches.collect();
        if let Some(batch) = batches.first_mut() {
            batch.range.first = from;
        }
        Found::Batches(batches)
    }

    /// Returns the end position of the batches. A partition without batches is absent.
    pub(crate) fn position(&self) -> Position {
        self.lock().runs.iter().map(|(partition, run)| (*partition, run.next)).collect()
    }

    /// Returns a receiver of every later change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic in the middle of a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Drops the oldest batch.
    fn drop_oldest(&mut self) {
        let oldest = self.runs.values_mut().filter(|run| !run.batches.is_empty());
        let oldest = oldest.min_by_key(|run| run.batches.front().map(|(arrival, _)| *arrival));
        if let Some(run) = oldest
            && let Some((_, batch)) = run.batches.pop_front()
        {
            run.first = batch.range.next;
            self.bytes -= bytes_of(&batch);
        }
    }
}

fn bytes_of(batch: &RangedBatch) -> usize {
    get_record_batch_memory_size(&batch.rows)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use position::OffsetRange;

    use schema::RangedBatch;

    use super::{ChangeBuffer, Found, bytes_of};

    /// Returns a batch for a range of offsets. The buffer counts only the bytes of its rows.
    fn batch(partition: i32, first: i64, next: i64) -> RangedBatch {
        let column = std::sync::Arc::new(Int64Array::from_iter_values(first..next)) as ArrayRef;
        let rows = RecordBatch::try_from_iter([("offset", column)]).unwrap();
        RangedBatch { range: OffsetRange { partition, first, next }, rows }
    }

    /// Pushes batches of partition 0, reads from an offset, and compares the description of the result.
    #[track_caller]
    fn check(pushed: &[(i64, i64)], from: i64, expected: &str) {
        let changes = ChangeBuffer::default();
        for (first, next) in pushed {
            changes.push(batch(0, *first, *next));
        }
        assert_eq!(describe(changes.read(0, from)), expected);
    }

    fn describe(found: Found) -> String {
        match found {
            Found::Batches(batches) => {
                batches.iter().map(|batch| batch.range.to_string()).collect::<Vec<_>>().join(" ")
            }
            Found::Nothing => "nothing".to_owned(),
            Found::Missed => "missed".to_owned(),
        }
    }

    #[test]
    fn a_follower_gets_what_follows_its_offset() {
        check(&[(0, 5), (5, 7), (7, 9)], 5, "0:5..7 0:7..9");
        check(&[(0, 5), (5, 7)], 3, "0:3..5 0:5..7");
        check(&[(0, 5)], 5, "nothing");
        check(&[(0, 5)], 6, "nothing");
        check(&[], 0, "nothing");
    }

    #[test]
    fn a_gap_drops_what_is_before_it() {
        check(&[(0, 5), (7, 9)], 0, "missed");
        check(&[(0, 5), (7, 9)], 5, "missed");
        check(&[(0, 5), (7, 9)], 7, "0:7..9");
        check(&[(3, 5)], 0, "missed");
    }

    #[test]
    fn batches_that_come_again_or_are_cut_elsewhere_still_join() {
        check(&[(0, 5), (0, 5), (2, 4)], 0, "0:0..5");
        check(&[(0, 5), (3, 8), (8, 9)], 0, "0:0..5 0:5..8 0:8..9");
    }

    #[test]
    fn a_full_buffer_drops_the_oldest_of_all_partitions() {
        let bytes = bytes_of(&batch(0, 0, 100));
        let changes = ChangeBuffer::new(2 * bytes);
        changes.push(batch(0, 0, 100));
        changes.push(batch(1, 0, 100));
        assert_eq!(describe(changes.read(0, 0)), "0:0..100");
        changes.push(batch(1, 100, 200));
        assert_eq!(describe(changes.read(0, 0)), "missed");
        assert_eq!(describe(changes.read(0, 100)), "nothing");
        assert_eq!(describe(changes.read(1, 0)), "1:0..100 1:100..200");
        changes.push(batch(0, 100, 1000));
        assert_eq!(
            (describe(changes.read(1, 0)), describe(changes.read(0, 100))),
            ("missed".into(), "missed".into())
        );
        assert_eq!(changes.position(), [(0, 1000), (1, 200)].into_iter().collect());
    }
}
