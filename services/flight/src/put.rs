//! DoPut of bronze: receives batches and answers with progress.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow_flight::FlightData;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use position::{OffsetRange, Position};
use proto::Message as _;
use proto::metadata::{BatchMetadata, Progress, RANGE_OFFSETS_MAX};
use schema::bronze::column;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::error::CallError;
use crate::hot::HotBuffer;
use crate::ipc::Decoder;
use crate::metrics::Metrics;

/// Upper bound of partition numbers: ten times the partitions of the largest topics.
const PARTITIONS_MAX: i32 = 100_000;
/// Upper bound of offsets. Positions are sent as JSON, whose numbers are exact up to this value in every language.
const OFFSETS_MAX: i64 = 1 << 53;

/// Answers one DoPut: a [`Progress`] after each received batch, and after each flush that makes more rows durable.
///
/// After the client has sent everything, the answers continue until all of its rows are durable. While the hot buffer holds
/// `hot_bytes_max`, the next batch waits.
///
/// # Errors
///
/// [`CallError`], once, as the last item: a batch would leave a gap or is not bronze, or the server is stopping.
pub(crate) fn put(
    hot: Arc<HotBuffer>,
    hot_bytes_max: usize,
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<Progress, CallError>> + Send {
    let changes = hot.changes();
    let put = Put {
        hot,
        hot_bytes_max,
        messages: Some(messages.boxed()),
        decoder: Decoder::of(proto::BRONZE, schema::bronze::schema()),
        changes,
        metrics,
        shutdown,
        reached: Position::default(),
        told: Progress::default(),
    };
    futures::stream::try_unfold(put, async |mut put| Ok(put.next().await?.map(|progress| (progress, put))))
}

struct Put {
    hot: Arc<HotBuffer>,
    hot_bytes_max: usize,
    /// `None` once the client has sent everything.
    messages: Option<BoxStream<'static, Result<FlightData, Status>>>,
    decoder: Decoder,
    changes: watch::Receiver<u64>,
    metrics: Metrics,
    shutdown: CancellationToken,
    /// End position of the batches that this stream put.
    reached: Position,
    /// Last progress that was sent to the client.
    told: Progress,
}

impl Put {
    async fn next(&mut self) -> Result<Option<Progress>, CallError> {
        loop {
            let progress = self.hot.progress();
            if progress.durable != self.told.durable {
                return Ok(Some(self.tell(progress)));
            }
            let Some(messages) = &mut self.messages else {
                if progress.durable.covers(&self.reached) {
                    return Ok(None);
                }
                self.changed().await?;
                continue;
            };
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(CallError::Stopping),
                // The sender of the changes lives as long as `self.hot`.
                _ = self.changes.changed() => {}
                message = messages.next() => match message {
                    None => self.messages = None,
                    Some(Err(broken)) => return Err(CallError::Broken(broken)),
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

    /// Decodes and buffers one message. Returns true if it held a batch.
    async fn take(&mut self, message: FlightData) -> Result<bool, CallError> {
        let Some(rows) = self.decoder.decode(&message).map_err(CallError::BadBatch)? else {
            return Ok(false);
        };
        let range = range_of(&message).map_err(CallError::BadBatch)?;
        validate(range, &rows).map_err(CallError::BadBatch)?;
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

    async fn changed(&mut self) -> Result<(), CallError> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(CallError::Stopping),
            _ = self.changes.changed() => Ok(()),
        }
    }

    fn tell(&mut self, progress: Progress) -> Progress {
        self.told.clone_from(&progress);
        progress
    }
}

/// Reads the range of a batch of bronze or gold.
///
/// # Errors
///
/// The message holds no range, or one that no batch of Kafka messages can have. A wrong range would move the position, and a position never
/// goes back.
pub(crate) fn range_of(message: &FlightData) -> Result<OffsetRange, String> {
    let metadata = BatchMetadata::decode(&message.app_metadata);
    let range = metadata.map_err(|error| format!("its app_metadata is not a range: {error}"))?.range;
    if range.first < 0 || range.partition < 0 || range.next < range.first {
        return Err(format!("{range} is not a range of offsets"));
    }
    if range.partition >= PARTITIONS_MAX || range.next >= OFFSETS_MAX {
        return Err(format!(
            "{range} is beyond all topics: partitions end at {PARTITIONS_MAX}, offsets at {OFFSETS_MAX}"
        ));
    }
    if range.next - range.first > RANGE_OFFSETS_MAX {
        return Err(format!(
            "{range} is too long a range for one batch: put batches of at most {RANGE_OFFSETS_MAX} offsets, and empty batches where there are no rows"
        ));
    }
    Ok(range)
}

/// Checks the rules that all services rely on: one partition a batch, offsets that ascend within the range, and rows that are candles.
fn validate(range: OffsetRange, rows: &RecordBatch) -> Result<(), String> {
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
    schema::rows::check(rows)
        .map_err(|bad| format!("the row of offset {}: {}", offsets[bad.index], bad.reason))
}

#[cfg(test)]
mod tests;
