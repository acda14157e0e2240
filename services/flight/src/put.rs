//! DoPut: bronze batches in, progress out.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Date32Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedFlightData, DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use futures::{Stream, StreamExt};
use position::{OffsetRange, Position};
use proto::metadata::{BatchMetadata, Progress};
use schema::bronze::column;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::Refusal;
use crate::hot::Hot;
use crate::metrics::Metrics;

/// Answers one DoPut: a [`Progress`] after each batch that was received and after each flush that made more durable.
///
/// When the client has sent all, the answers go on until all that it put is durable, and end. While the hot buffer holds
/// `hot_bytes_max` the next batch waits.
///
/// # Errors
///
/// [`Refusal`], once, as the last item: a batch that would leave a gap or is not bronze, or the server is stopping.
pub(crate) fn put(
    hot: Arc<Hot>,
    hot_bytes_max: usize,
    messages: impl Stream<Item = Result<FlightData, FlightError>> + Send + 'static,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<Progress, Refusal>> + Send {
    let changes = hot.changes();
    let batches = Some(FlightDataDecoder::new(messages));
    let put = Put {
        hot,
        hot_bytes_max,
        batches,
        changes,
        metrics,
        shutdown,
        reached: Position::default(),
        told: Progress::default(),
    };
    futures::stream::try_unfold(put, async |mut put| Ok(put.next().await?.map(|progress| (progress, put))))
}

struct Put {
    hot: Arc<Hot>,
    hot_bytes_max: usize,
    /// `None` once the client has sent all.
    batches: Option<FlightDataDecoder>,
    changes: watch::Receiver<u64>,
    metrics: Metrics,
    shutdown: CancellationToken,
    /// The end of what this stream put.
    reached: Position,
    /// What the client was last told.
    told: Progress,
}

impl Put {
    async fn next(&mut self) -> Result<Option<Progress>, Refusal> {
        loop {
            let progress = self.hot.progress();
            if progress.durable != self.told.durable {
                return Ok(Some(self.tell(progress)));
            }
            let Some(batches) = &mut self.batches else {
                if progress.durable.covers(&self.reached) {
                    return Ok(None);
                }
                self.changed().await?;
                continue;
            };
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(Refusal::Stopping),
                // The buffer, and so the channel of its changes, lives as long as `self.hot`.
                _ = self.changes.changed() => {}
                message = batches.next() => match message {
                    None => self.batches = None,
                    Some(Err(error)) => return Err(Refusal::BadRequest(error.to_string())),
                    Some(Ok(message)) => {
                        if self.take(message).await? {
                            let progress = self.hot.progress();
                            return Ok(Some(self.tell(progress)));
                        }
                    }
                },
            }
        }
    }

    /// Takes one message; returns whether it was a batch.
    async fn take(&mut self, message: DecodedFlightData) -> Result<bool, Refusal> {
        let rows = match message.payload {
            DecodedPayload::None => return Ok(false),
            DecodedPayload::Schema(schema) if schema.fields() == schema::bronze::schema().fields() => {
                return Ok(false);
            }
            DecodedPayload::Schema(schema) => {
                let expected = schema::bronze::schema();
                return Err(Refusal::BadBatch(format!(
                    "the schema is not bronze's: expected {expected}, found {schema}"
                )));
            }
            DecodedPayload::RecordBatch(rows) => rows,
        };
        let metadata = BatchMetadata::decode(&message.inner.app_metadata);
        let range = metadata
            .map_err(|error| Refusal::BadBatch(format!("its app_metadata is no range: {error}")))?
            .range;
        validate(range, &rows).map_err(Refusal::BadBatch)?;
        while self.hot.size().bytes >= self.hot_bytes_max {
            self.changed().await?;
        }
        let new_rows = self.hot.push(range, &rows)?;
        self.metrics.rows.inc_by(u64::try_from(new_rows).unwrap_or(u64::MAX));
        self.metrics.observe_hot(&self.hot);
        failpoint::pass("flight.received");
        self.reached.advance(range);
        Ok(true)
    }

    async fn changed(&mut self) -> Result<(), Refusal> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(Refusal::Stopping),
            _ = self.changes.changed() => Ok(()),
        }
    }

    fn tell(&mut self, progress: Progress) -> Progress {
        self.told.clone_from(&progress);
        progress
    }
}

/// Checks what the whole house relies on: one partition a batch, offsets that ascend within the range, and each row under its own date.
fn validate(range: OffsetRange, rows: &RecordBatch) -> Result<(), String> {
    if range.first < 0 || range.partition < 0 || range.next < range.first {
        return Err(format!("{range} is no range of offsets"));
    }
    let partitions = rows.column(column::KAFKA_PARTITION).as_primitive::<Int32Type>().values();
    if partitions.iter().any(|partition| *partition != range.partition) {
        return Err(format!("a row of another partition in {range}"));
    }
    let offsets = rows.column(column::KAFKA_OFFSET).as_primitive::<Int64Type>().values();
    let inside = offsets.first().is_none_or(|first| *first >= range.first)
        && offsets.last().is_none_or(|last| *last < range.next);
    if !inside || !offsets.is_sorted_by(|before, after| before < after) {
        return Err(format!("the offsets of {range} do not ascend inside it"));
    }
    let event_times = rows.column(column::EVENT_TIME).as_primitive::<TimestampMicrosecondType>().values();
    let dates = rows.column(column::DATE).as_primitive::<Date32Type>().values();
    if event_times
        .iter()
        .zip(dates)
        .any(|(time, date)| time.div_euclid(schema::DAY_MICROS) != i64::from(*date))
    {
        return Err(format!("a row of {range} whose date is not its event time's"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
