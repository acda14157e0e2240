//! Bronze for followers: first from the files, then from the hot buffer.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_flight::FlightData;
use datafusion::common::runtime::SpawnedTask;
use futures::StreamExt;
use futures::stream::BoxStream;
use lake::{LakeError, Snapshot};
use position::OffsetRange;
use schema::RangedBatch;
use tokio::sync::watch;
use transport::stream::encode_batch;

use crate::bronze::buffer::{HotBuffer, Next};
use crate::error::CallError;
use crate::follow::symbols::Symbols;
use crate::follow::{Feed, Outbox, Step, in_turn};

/// Maximum number of batches from files that are encoded ahead of the one being sent.
const ENCODED_AHEAD: usize = 2;

/// Rows of bronze from a follower's position on. Each offset comes once.
///
/// Of the hot rows, only the next messages are read. Of the files, only a few batches are read ahead to keep the connection busy, and only
/// in turns.
pub(crate) struct BronzeFeed {
    hot: Arc<HotBuffer>,
    /// Last partition that was read.
    last: Option<i32>,
    files: Option<Files>,
}

/// Files that are being read.
struct Files {
    batches: BoxStream<'static, Result<EncodedBatch, CallError>>,
    version: u64,
    range: OffsetRange,
}

/// Range of offsets and its messages.
type EncodedBatch = (OffsetRange, Vec<FlightData>);

impl BronzeFeed {
    pub(crate) fn new(hot: Arc<HotBuffer>) -> Self {
        BronzeFeed { hot, last: None, files: None }
    }

    /// Sends the next hot rows of one partition, or opens the files of one.
    fn search(&mut self, outbox: &mut Outbox) -> Result<Step, CallError> {
        let mut for_turn = false;
        for partition in in_turn(self.hot.partitions(), self.last) {
            let from = outbox.position().next(partition);
            match self.hot.read(partition, from, outbox.end_of(partition)) {
                Next::Nothing => continue,
                Next::Durable(..) if !outbox.turn.is_held() => {
                    for_turn = true;
                    continue;
                }
                Next::Durable(snapshot, range) => {
                    let batches = encode_files(&snapshot, range, &outbox.symbols);
                    self.files = Some(Files { batches, version: snapshot.version(), range });
                }
                Next::Hot(batches) => {
                    for batch in &batches {
                        outbox.send(batch)?;
                    }
                }
            }
            self.last = Some(partition);
            return Ok(Step::Advanced);
        }
        outbox.turn.end();
        // Hot rows of other partitions are sent while the follower waits for its turn.
        Ok(Step::Wait { for_change: true, for_turn, until: None })
    }

    /// Sends the next batch of the files, or closes them.
    async fn read_files(&mut self, mut files: Files, outbox: &mut Outbox) -> Result<(), CallError> {
        if !outbox.turn.is_over() {
            match files.batches.next().await {
                Some(Ok((range, messages))) => {
                    outbox.send_encoded(range, messages);
                    self.files = Some(files);
                    return Ok(());
                }
                // Offsets after the last row belong to dead letters.
                None => outbox.advance(files.range),
                // Vacuum may remove the files before a slow reader has read them. The newer snapshot has the rows in other files.
                Some(Err(CallError::Lake(error))) if self.hot.snapshot().0.version() > files.version => {
                    tracing::info!(
                        error = &error as &dyn std::error::Error,
                        "a follower continues on a newer snapshot"
                    );
                }
                Some(Err(error)) => return Err(error),
            }
        }
        outbox.turn.end();
        Ok(())
    }
}

impl Feed for BronzeFeed {
    fn schema() -> SchemaRef {
        schema::bronze::schema()
    }

    fn encode(batch: &RangedBatch) -> Result<Vec<FlightData>, ArrowError> {
        encode_batch(batch)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.hot.changes()
    }

    async fn advance(&mut self, outbox: &mut Outbox) -> Result<Step, CallError> {
        let Some(files) = self.files.take() else { return self.search(outbox) };
        self.read_files(files, outbox).await?;
        Ok(Step::Advanced)
    }
}

/// Reads files and encodes their rows as messages. Separate threads do this, because sending keeps the connection's thread busy.
fn encode_files(
    snapshot: &Snapshot,
    range: OffsetRange,
    symbols: &Symbols,
) -> BoxStream<'static, Result<EncodedBatch, CallError>> {
    let symbols = symbols.clone();
    let encode = move |read: Result<RangedBatch, LakeError>| {
        let symbols = symbols.clone();
        let encoding = read.map(|batch| {
            SpawnedTask::spawn_blocking(move || Ok((batch.range, encode_batch(&symbols.select(&batch)?)?)))
        });
        async move { encoding?.join().await.map_err(|_| CallError::Panicked)? }
    };
    // The messages keep their order. An error comes after the batches that were read before it.
    snapshot.read(range).map(encode).buffered(ENCODED_AHEAD).boxed()
}

#[cfg(test)]
mod tests;
