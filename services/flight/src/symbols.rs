//! The rows of some symbols only.

use std::collections::HashSet;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;

/// The symbols that a client wants; all when it named none.
#[derive(Clone, Debug)]
pub(crate) struct Symbols(Option<HashSet<String>>);

impl Symbols {
    /// Takes over what the ticket says.
    pub(crate) fn new(symbols: Option<Vec<String>>) -> Self {
        Symbols(symbols.map(HashSet::from_iter))
    }

    /// Returns the rows of `batch`, bronze or gold, that are wanted.
    ///
    /// # Errors
    ///
    /// [`ArrowError`] when the batch cannot be filtered, which neither table's can cause.
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
