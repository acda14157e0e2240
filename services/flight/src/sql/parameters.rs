//! Parameters of a prepared statement, as clients send them.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow_flight::FlightData;
use futures::{Stream, StreamExt};
use tonic::Status;

use crate::error::CallError;
use crate::ipc::Decoder;

/// Maximum number of rows of parameters in one execution: each row is a query of its own.
const ROWS_MAX: usize = 1000;
/// Maximum number of values in all rows. Each becomes a value of a plan, which takes some hundred bytes.
const VALUES_MAX: usize = 65_536;
/// Maximum size of all messages, in bytes. Together with a query's text they must make a handle that fits in one message.
const BYTES_MAX: usize = 2 * 1024 * 1024;

/// Reads all rows of parameters, up to the limits.
///
/// # Errors
///
/// [`CallError`] if there are too many rows or none, or if the values are not plain.
pub(super) async fn read(
    messages: impl Stream<Item = Result<FlightData, Status>> + Send,
) -> Result<RecordBatch, CallError> {
    let mut messages = std::pin::pin!(messages);
    let (mut decoder, mut batches) = (Decoder::default(), Vec::<RecordBatch>::new());
    let (mut bytes, mut rows) = (0, 0);
    while let Some(message) = messages.next().await {
        let message = message.map_err(CallError::Broken)?;
        bytes += message.data_header.len() + message.data_body.len();
        if bytes > BYTES_MAX {
            return Err(bad(&format!("parameters of more than {BYTES_MAX} bytes were bound")));
        }
        if let Some(batch) = decoder.decode(&message).map_err(|error| bad(&error))? {
            rows += batch.num_rows();
            check_rows(rows)?;
            batches.push(batch);
        }
    }
    let first = batches.first().ok_or_else(|| bad("no parameters were bound"))?;
    Ok(concat_batches(first.schema_ref(), &batches)?)
}

/// Checks that parameters can be bound: at least one row, and not too many.
///
/// # Errors
///
/// [`CallError::BadRequest`].
pub(super) fn check(parameters: &RecordBatch) -> Result<(), CallError> {
    let (rows, columns) = (parameters.num_rows(), parameters.num_columns());
    if rows == 0 {
        return Err(bad("no row of parameters was bound"));
    }
    check_rows(rows)?;
    if rows.saturating_mul(columns) > VALUES_MAX {
        return Err(bad(&format!(
            "{rows} rows of {columns} parameters were bound; at most {VALUES_MAX} values are executed together"
        )));
    }
    Ok(())
}

fn check_rows(rows: usize) -> Result<(), CallError> {
    if rows <= ROWS_MAX {
        return Ok(());
    }
    Err(bad(&format!("{rows} rows of parameters were bound; at most {ROWS_MAX} are executed together")))
}

fn bad(reason: &str) -> CallError {
    CallError::BadRequest(reason.to_owned())
}

#[cfg(test)]
mod tests;
