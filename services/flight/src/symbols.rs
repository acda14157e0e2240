//! Filter of rows by symbol.

use std::collections::HashSet;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;

/// Symbols that a client requests; all symbols if it names none.
#[derive(Clone, Debug)]
pub(crate) struct Symbols(Option<HashSet<String>>);

impl Symbols {
    /// Creates the filter from the symbols of a ticket.
    pub(crate) fn new(symbols: Option<Vec<String>>) -> Self {
        Symbols(symbols.map(HashSet::from_iter))
    }

    /// Returns the rows of `batch`, bronze or gold, whose symbols the client requests.
    ///
    /// # Errors
    ///
    /// [`ArrowError`] if the batch cannot be filtered. No batch of either table causes this.
    pub(crate) fn select(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let Some(wanted) = &self.0 else { return Ok(batch.clone()) };
        let symbols = batch.column_by_name(schema::SYMBOL).expect("both tables have symbols");
        let mask: BooleanArray = symbols
            .as_string::<i32>()
            .iter()
            .map(|symbol| Some(symbol.is_some_and(|symbol| wanted.contains(symbol))))
            .collect();
        filter_record_batch(batch, &mask)
    }
}
