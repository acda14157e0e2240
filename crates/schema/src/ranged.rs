//! Rows and the offsets that they stand for: the unit in which all services exchange rows.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use position::OffsetRange;

use crate::bronze::column;

/// Rows of one partition, bronze or gold, and the range of offsets that they stand for.
///
/// A range may be wider than its rows: dead letters leave holes in the rows only. The ranges of consecutive batches join. In bronze, the
/// offsets of the rows ascend inside the range. Clones share the columns.
#[derive(Clone, Debug)]
pub struct RangedBatch {
    /// The offsets.
    pub range: OffsetRange,
    /// The rows, with the schema of their table.
    pub rows: RecordBatch,
}

impl RangedBatch {
    /// Returns a batch of `range` without rows.
    pub fn empty(schema: SchemaRef, range: OffsetRange) -> Self {
        RangedBatch { range, rows: RecordBatch::new_empty(schema) }
    }

    /// Returns true if the batch has neither rows nor offsets: a start of a partition, or a keep-alive.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty() && self.rows.num_rows() == 0
    }

    /// Returns the part of a bronze batch at or above `offset`, or `None` if its range ends before.
    pub fn above(&self, offset: i64) -> Option<Self> {
        if self.range.next <= offset {
            return None;
        }
        if self.range.first >= offset {
            return Some(self.clone());
        }
        let row = self.row_of(offset);
        let rows = self.rows.slice(row, self.rows.num_rows() - row);
        Some(RangedBatch { range: OffsetRange { first: offset, ..self.range }, rows })
    }

    /// Returns the part of a bronze batch below `offset`, or `None` if its range begins at or after `offset`.
    pub fn below(&self, offset: i64) -> Option<Self> {
        if self.range.first >= offset {
            return None;
        }
        if self.range.next <= offset {
            return Some(self.clone());
        }
        let rows = self.rows.slice(0, self.row_of(offset));
        Some(RangedBatch { range: OffsetRange { next: offset, ..self.range }, rows })
    }

    /// Returns the first `count` rows of a bronze batch. The range ends before the next row.
    pub fn head(&self, count: usize) -> Self {
        if self.rows.num_rows() <= count {
            return self.clone();
        }
        let next = offset_at(&self.rows, count);
        RangedBatch { range: OffsetRange { next, ..self.range }, rows: self.rows.slice(0, count) }
    }

    /// Returns the index of the first row at or above `offset`.
    fn row_of(&self, offset: i64) -> usize {
        offsets(&self.rows).partition_point(|held| *held < offset)
    }
}

/// Returns the Kafka offsets of bronze rows.
pub fn offsets(rows: &RecordBatch) -> &[i64] {
    rows.column(column::KAFKA_OFFSET).as_primitive::<Int64Type>().values()
}

/// Returns the Kafka offset of one bronze row.
pub fn offset_at(rows: &RecordBatch, row: usize) -> i64 {
    offsets(rows)[row]
}
