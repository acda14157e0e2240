//! DoPut of bronze: receives batches and answers with progress.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int32Type;
use arrow_flight::FlightData;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use position::Position;
use proto::metadata::Progress;
use schema::RangedBatch;
use schema::bronze::column;
use schema::ranged::offsets;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::bronze::buffer::HotBuffer;
use crate::error::CallError;
use crate::ipc::Decoder;
use crate::metrics::Metrics;

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
        sent: Progress::default(),
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
    sent: Progress,
}

impl Put {
    async fn next(&mut self) -> Result<Option<Progress>, CallError> {
        loop {
            let progress = self.hot.progress();
            if progress.durable != self.sent.durable {
                return Ok(Some(self.sending(progress)));
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
                        if self.buffer(message).await? {
                            let progress = self.hot.progress();
                            return Ok(Some(self.sending(progress)));
                        }
                    }
                },
            }
        }
    }

    /// Decodes and buffers one message. Returns true if it held a batch.
    async fn buffer(&mut self, message: FlightData) -> Result<bool, CallError> {
        let Some(batch) = self.decoder.decode_ranged(&message).map_err(CallError::BadBatch)? else {
            return Ok(false);
        };
        validate(&batch).map_err(CallError::BadBatch)?;
        while self.hot.size().bytes >= self.hot_bytes_max {
            self.changed().await?;
        }
        let new_rows = self.hot.push(&batch)?;
        self.metrics.rows.inc_by(u64::try_from(new_rows).unwrap_or(u64::MAX));
        self.metrics.observe_hot(&self.hot);
        failpoint::pass("flight.received");
        self.reached.advance(batch.range);
        Ok(true)
    }

    async fn changed(&mut self) -> Result<(), CallError> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(CallError::Stopping),
            _ = self.changes.changed() => Ok(()),
        }
    }

    fn sending(&mut self, progress: Progress) -> Progress {
        self.sent.clone_from(&progress);
        progress
    }
}

/// Checks the rules that all services rely on: one partition per batch, ascending offsets within the range, and rows that are candles.
fn validate(RangedBatch { range, rows }: &RangedBatch) -> Result<(), String> {
    let partitions = rows.column(column::KAFKA_PARTITION).as_primitive::<Int32Type>().values();
    if partitions.iter().any(|partition| *partition != range.partition) {
        return Err(format!("a row of another partition in {range}"));
    }
    let offsets = offsets(rows);
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
