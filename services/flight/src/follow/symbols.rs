//! Filter of rows by symbol.

use std::collections::HashSet;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use schema::RangedBatch;

/// Symbols that a client requests. All symbols are sent if the client names none.
#[derive(Clone, Debug)]
pub(crate) struct Symbols(Option<HashSet<String>>);

impl Symbols {
    /// Creates the filter from the symbols of a ticket.
    pub(crate) fn new(symbols: Option<Vec<String>>) -> Self {
        Symbols(symbols.map(HashSet::from_iter))
    }

    /// Returns the rows of `batch`, bronze or gold, whose symbols the client requests. The range stays the same.
    ///
    /// # Errors
    ///
    /// [`ArrowError`] if the batch cannot be filtered. No batch of either table causes this.
    pub(crate) fn select(&self, batch: &RangedBatch) -> Result<RangedBatch, ArrowError> {
        let Some(requested) = &self.0 else { return Ok(batch.clone()) };
        let symbols = batch.rows.column_by_name(schema::SYMBOL).expect("both tables have symbols");
        let mask: BooleanArray = symbols
            .as_string::<i32>()
            .iter()
            .map(|symbol| Some(symbol.is_some_and(|symbol| requested.contains(symbol))))
            .collect();
        Ok(RangedBatch { range: batch.range, rows: filter_record_batch(&batch.rows, &mask)? })
    }
}
