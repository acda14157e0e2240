//! DoPut of gold: what the gold service has committed, for those who follow it.

use std::sync::Arc;

use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedFlightData, DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use futures::{Stream, StreamExt};
use proto::metadata::BatchMetadata;
use tokio_util::sync::CancellationToken;

use crate::error::Refusal;
use crate::live::ring::{GoldBatch, Ring};

/// Takes batches until the client ends or the server stops. Nothing here is durable or acknowledged: what does not arrive, followers read
/// from the gold table.
///
/// # Errors
///
/// [`Refusal`] when a batch is not gold, or the server is stopping.
pub(crate) async fn put(
    ring: Arc<Ring>,
    messages: impl Stream<Item = Result<FlightData, FlightError>> + Send + 'static,
    shutdown: CancellationToken,
) -> Result<(), Refusal> {
    let mut messages = FlightDataDecoder::new(messages);
    loop {
        let message = shutdown.run_until_cancelled(messages.next()).await.ok_or(Refusal::Stopping)?;
        let Some(message) = message else { return Ok(()) };
        let message = message.map_err(|error| bad(&error.to_string()))?;
        if let Some(batch) = batch_of(message)? {
            ring.push(batch);
        }
    }
}

fn batch_of(message: DecodedFlightData) -> Result<Option<GoldBatch>, Refusal> {
    let expected = schema::gold::schema();
    let rows = match message.payload {
        DecodedPayload::None => return Ok(None),
        DecodedPayload::Schema(schema) if schema.fields() == expected.fields() => return Ok(None),
        DecodedPayload::Schema(schema) => {
            return Err(bad(&format!("the schema is not gold's: expected {expected}, found {schema}")));
        }
        DecodedPayload::RecordBatch(rows) => rows,
    };
    let metadata = BatchMetadata::decode(&message.inner.app_metadata);
    let range = metadata.map_err(|error| bad(&format!("its app_metadata is no range: {error}")))?.range;
    if range.first < 0 || range.partition < 0 || range.next < range.first {
        return Err(bad(&format!("{range} is no range of offsets")));
    }
    if range.is_empty() && rows.num_rows() > 0 {
        return Err(bad(&format!("{range} is empty, its batch is not")));
    }
    Ok(Some(GoldBatch { range, rows }))
}

fn bad(reason: &str) -> Refusal {
    Refusal::BadRequest(format!("put gold: {reason}"))
}
