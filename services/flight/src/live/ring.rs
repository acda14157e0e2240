//! The latest gold batches, for those who follow gold: in memory only, and the oldest go when it is full.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use position::{OffsetRange, Position};
use tokio::sync::watch;

/// Bytes of the batches that are kept: some 150,000 rows, more than gold commits to the lake at a time.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most batches that one [`Ring::read`] hands out, so that a slow follower pins little memory.
const READ_BATCHES_MAX: usize = 4;

/// The rows that a run of offsets has changed in gold, as they were after it.
#[derive(Clone, Debug)]
pub(crate) struct GoldBatch {
    pub(crate) range: OffsetRange,
    pub(crate) rows: RecordBatch,
}

/// What the ring has for a follower.
#[derive(Debug)]
pub(crate) enum Kept {
    /// What follows, beginning at its offset.
    Batches(Vec<GoldBatch>),
    /// Nothing follows yet, as far as the ring knows.
    Nothing,
    /// Something follows that is not here any more, or never came here.
    Missed,
}

/// The ring. Shared by gold's puts and the followers.
#[derive(Debug)]
pub(crate) struct Ring {
    state: Mutex<State>,
    bytes_max: usize,
    /// Counts changes of `state`; followers wait on it.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    runs: BTreeMap<i32, Run>,
    bytes: usize,
    /// Counts the batches that ever came.
    arrivals: u64,
}

/// One partition's batches; their ranges join, from `first` to `next`.
#[derive(Debug)]
struct Run {
    batches: VecDeque<(u64, GoldBatch)>,
    first: i64,
    next: i64,
}

impl Default for Ring {
    fn default() -> Self {
        Ring::new(BYTES_MAX)
    }
}

impl Ring {
    fn new(bytes_max: usize) -> Self {
        Ring { state: Mutex::default(), bytes_max, changes: watch::Sender::new(0) }
    }

    /// Takes a batch. What is held already is left; a batch after a gap takes the place of all before it.
    pub(crate) fn push(&self, mut batch: GoldBatch) {
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
        // A gold that was started again cuts its batches elsewhere. Rows as of a later offset serve an earlier one, too.
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

    /// Returns what follows offset `from` of `partition`, some batches at most.
    pub(crate) fn read(&self, partition: i32, from: i64) -> Kept {
        let state = self.lock();
        let Some(run) = state.runs.get(&partition) else { return Kept::Nothing };
        if from >= run.next {
            return Kept::Nothing;
        }
        if from < run.first {
            return Kept::Missed;
        }
        let start = run.batches.partition_point(|(_, batch)| batch.range.next <= from);
        let batches = run.batches.range(start..).take(READ_BATCHES_MAX).map(|(_, batch)| batch.clone());
        let mut batches: Vec<GoldBatch> = batches.collect();
        if let Some(batch) = batches.first_mut() {
            batch.range.first = from;
        }
        Kept::Batches(batches)
    }

    /// Returns where the batches end; a partition of which none came is absent.
    pub(crate) fn position(&self) -> Position {
        self.lock().runs.iter().map(|(partition, run)| (*partition, run.next)).collect()
    }

    /// Returns a receiver that sees every later change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets go of the batch that came first.
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

fn bytes_of(batch: &GoldBatch) -> usize {
    get_record_batch_memory_size(&batch.rows)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use position::OffsetRange;

    use super::{GoldBatch, Kept, Ring, bytes_of};

    /// A batch for a run of offsets; to the ring, rows are bytes.
    fn batch(partition: i32, first: i64, next: i64) -> GoldBatch {
        let column = std::sync::Arc::new(Int64Array::from_iter_values(first..next)) as ArrayRef;
        let rows = RecordBatch::try_from_iter([("offset", column)]).unwrap();
        GoldBatch { range: OffsetRange { partition, first, next }, rows }
    }

    /// Pushes batches of partition 0, reads from an offset and describes what comes.
    #[track_caller]
    fn check(pushed: &[(i64, i64)], from: i64, expected: &str) {
        let ring = Ring::default();
        for (first, next) in pushed {
            ring.push(batch(0, *first, *next));
        }
        assert_eq!(describe(ring.read(0, from)), expected);
    }

    fn describe(kept: Kept) -> String {
        match kept {
            Kept::Batches(batches) => {
                batches.iter().map(|batch| batch.range.to_string()).collect::<Vec<_>>().join(" ")
            }
            Kept::Nothing => "nothing".to_owned(),
            Kept::Missed => "missed".to_owned(),
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
    fn a_full_ring_drops_the_oldest_of_all_partitions() {
        let bytes = bytes_of(&batch(0, 0, 100));
        let ring = Ring::new(2 * bytes);
        ring.push(batch(0, 0, 100));
        ring.push(batch(1, 0, 100));
        assert_eq!(describe(ring.read(0, 0)), "0:0..100");
        ring.push(batch(1, 100, 200));
        assert_eq!(describe(ring.read(0, 0)), "missed");
        assert_eq!(describe(ring.read(0, 100)), "nothing");
        assert_eq!(describe(ring.read(1, 0)), "1:0..100 1:100..200");
        ring.push(batch(0, 100, 1000));
        assert_eq!(
            (describe(ring.read(1, 0)), describe(ring.read(0, 100))),
            ("missed".into(), "missed".into())
        );
        assert_eq!(ring.position(), [(0, 1000), (1, 200)].into_iter().collect());
    }
}
