//! A run of one partition's offsets. Waiting batches are joined into one run, and a run that changes too many rows is split.

use arrow::array::RecordBatch;
use position::OffsetRange;
use schema::RangedBatch;
use schema::ranged::offset_at;

/// A run of one partition's offsets, in order of arrival.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// All offsets of the run.
    pub(crate) range: OffsetRange,
    /// Their bronze rows.
    pub(crate) batches: Vec<RecordBatch>,
}

impl Run {
    /// Returns the number of rows.
    pub(crate) fn row_count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Splits the run by offset into a part of at most `rows` rows (but at least one) and the rest, if any.
    pub(crate) fn split(&self, rows: usize) -> (Run, Option<Run>) {
        let mut room = rows.max(1);
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for batch in &self.batches {
            let taken = room.min(batch.num_rows());
            room -= taken;
            if taken > 0 || batch.num_rows() == 0 {
                first.push(batch.slice(0, taken));
            }
            if taken < batch.num_rows() {
                rest.push(batch.slice(taken, batch.num_rows() - taken));
            }
        }
        let Some(next) = rest.first().map(|rows| offset_at(rows, 0)) else { return (self.clone(), None) };
        let first = Run { range: OffsetRange { next, ..self.range }, batches: first };
        let rest = Run { range: OffsetRange { first: next, ..self.range }, batches: rest };
        (first, Some(rest))
    }
}

/// Joins the batches of each partition into one run.
pub(crate) fn join(batches: Vec<RangedBatch>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for RangedBatch { range, rows } in batches {
        match runs.iter_mut().find(|run| run.range.partition == range.partition) {
            Some(run) => {
                run.range.next = range.next;
                run.batches.push(rows);
            }
            None => runs.push(Run { range, batches: vec![rows] }),
        }
    }
    runs
}
