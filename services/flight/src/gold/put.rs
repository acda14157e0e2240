//! DoPut of gold: receives the committed rows of the gold service, for gold's followers.

use std::sync::Arc;

use arrow_flight::FlightData;
use futures::{Stream, StreamExt};
use schema::RangedBatch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::bronze::buffer::HotBuffer;
use crate::error::CallError;
use crate::gold::changes::ChangeBuffer;
use crate::ipc::Decoder;

/// Receives batches until the client ends the stream or the server stops. Batches are neither stored nor acknowledged. Followers read
/// missing rows from the gold table.
///
/// # Errors
///
/// [`CallError`] if a batch is not gold, if bronze has not received its offsets, or if the server is stopping.
pub(crate) async fn put(
    hot: Arc<HotBuffer>,
    changes: Arc<ChangeBuffer>,
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    shutdown: CancellationToken,
) -> Result<(), CallError> {
    let mut messages = messages.boxed();
    let mut decoder = Decoder::of(proto::GOLD, schema::gold::schema());
    loop {
        let message = shutdown.run_until_cancelled(messages.next()).await.ok_or(CallError::Stopping)?;
        let Some(message) = message.transpose().map_err(CallError::Broken)? else { return Ok(()) };
        if let Some(batch) = decoder.decode_ranged(&message).map_err(|reason| bad(&reason))? {
            validate(&batch).map_err(|reason| bad(&reason))?;
            // Gold is made of bronze. A position beyond bronze would block the followers until bronze has reached it.
            let received = hot.received(batch.range.partition);
            if batch.range.next > received {
                return Err(CallError::Ahead { found: batch.range, received });
            }
            changes.push(batch);
        }
    }
}

/// Checks that a batch with rows has offsets, and that the rows are candles.
fn validate(RangedBatch { range, rows }: &RangedBatch) -> Result<(), String> {
    if range.is_empty() && rows.num_rows() > 0 {
        return Err(format!("{range} is empty, but its batch is not"));
    }
    schema::rows::check(rows).map_err(|bad| format!("row {} of {range}: {}", bad.index, bad.reason))
}

fn bad(reason: &str) -> CallError {
    CallError::BadRequest(format!("put gold: {reason}"))
}
