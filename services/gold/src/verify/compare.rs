//! Compares two streams of gold rows that are ordered by key. It compares their bytes, so that each bit of a float counts.

use std::cmp::Ordering;
use std::pin::pin;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use arrow::util::display::array_value_to_string;
use datafusion::error::DataFusionError;
use futures::{Stream, StreamExt, stream};

use super::project;
use super::report::{Difference, TableReport};
use crate::error::Error;

/// Number of key columns: symbol and event time, the first columns of gold.
const KEY_COLUMNS: usize = 2;

/// Compares `found` with `expected`, both ordered by symbol and event time, and adds the differences to `report`.
pub(super) async fn compare(
    expected: impl Iterator<Item = RecordBatch> + Send,
    found: impl Stream<Item = Result<RecordBatch, Error>> + Send,
    report: &mut TableReport,
) -> Result<(), Error> {
    let (expected, found) = (pin!(stream::iter(expected.map(Ok))), pin!(found));
    let (mut expected, mut found) = (Cursor::new(expected), Cursor::new(found));
    loop {
        let (has_expected, has_found) = (expected.fill().await?, found.fill().await?);
        let order = match (has_expected, has_found) {
            (false, false) => return Ok(()),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (true, true) => expected.key().cmp(found.key()),
        };
        match order {
            Ordering::Less => report.missing(|| Difference::whole_row(expected.row_key(), "expected")),
            Ordering::Greater => report.extra(|| Difference::whole_row(found.row_key(), "found")),
            Ordering::Equal if expected.bytes() != found.bytes() => {
                report.different(|| differences(&expected, &found));
            }
            Ordering::Equal => (),
        }
        if order.is_le() {
            report.expected_rows += 1;
            expected.row += 1;
        }
        if order.is_ge() {
            report.found_rows += 1;
            found.row += 1;
        }
    }
}

/// A stream of batches that is read row by row.
struct Cursor<S> {
    stream: S,
    batch: RecordBatch,
    keys: Option<Rows>,
    rows: Option<Rows>,
    row: usize,
}

impl<S: Stream<Item = Result<RecordBatch, Error>> + Unpin> Cursor<S> {
    fn new(stream: S) -> Self {
        let batch = RecordBatch::new_empty(schema::gold::schema());
        Cursor { stream, batch, keys: None, rows: None, row: 0 }
    }

    /// Loads the next row, if there is none. Returns false at the end of the stream.
    async fn fill(&mut self) -> Result<bool, Error> {
        while self.row == self.batch.num_rows() {
            let Some(batch) = self.stream.next().await else { return Ok(false) };
            self.batch = project(&batch?);
            self.row = 0;
            let convert = |batch: &RecordBatch| -> Result<Rows, ArrowError> {
                let fields = batch.columns().iter().map(|column| SortField::new(column.data_type().clone()));
                RowConverter::new(fields.collect())?.convert_columns(batch.columns())
            };
            let keys = self.batch.project(&(0..KEY_COLUMNS).collect::<Vec<_>>());
            self.keys = Some(keys.and_then(|keys| convert(&keys)).map_err(DataFusionError::from)?);
            self.rows = Some(convert(&self.batch).map_err(DataFusionError::from)?);
        }
        Ok(true)
    }
}

impl<S> Cursor<S> {
    fn key(&self) -> &[u8] {
        self.keys.as_ref().expect("filled").row(self.row).data()
    }

    fn bytes(&self) -> &[u8] {
        self.rows.as_ref().expect("filled").row(self.row).data()
    }

    fn row_key(&self) -> [String; KEY_COLUMNS] {
        std::array::from_fn(|column| self.text(column))
    }

    fn text(&self, column: usize) -> String {
        let column = self.batch.column(column);
        if column.is_null(self.row) {
            return "NULL".to_owned();
        }
        array_value_to_string(column, self.row).unwrap_or_else(|error| error.to_string())
    }
}

/// Returns the columns of a row that differ. Rust prints floats with enough digits to distinguish any two.
fn differences<E, F>(expected: &Cursor<E>, found: &Cursor<F>) -> Vec<Difference> {
    let columns = expected.batch.schema();
    let differing = columns.fields().iter().enumerate().filter_map(|(column, field)| {
        let (expects, have) = (expected.text(column), found.text(column));
        let [symbol, event_time] = expected.row_key();
        (expects != have).then(|| Difference {
            symbol,
            event_time,
            column: field.name().clone(),
            expected: expects,
            found: have,
        })
    });
    differing.collect()
}

#[cfg(test)]
mod tests;
