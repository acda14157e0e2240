//! Gold for followers: changes, as upserts. They come from the change buffer, and from the gold table's files for followers that are behind
//! the buffer.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_flight::FlightData;
use futures::StreamExt;
use futures::stream::BoxStream;
use lake::{LakeError, Snapshot};
use position::{OffsetRange, Position};
use schema::RangedBatch;
use tokio::sync::watch;
use tokio::time::Instant;
use transport::stream::encode_upserts;

use crate::error::CallError;
use crate::follow::{Feed, Outbox, Step, in_turn};
use crate::gold::changes::{ChangeBuffer, Found};
use crate::gold::table::GoldTable;

/// Time between two checks for table rows that did not come to the buffer. A check is one request to the store, which all followers share.
const CHECK_PERIOD: Duration = Duration::from_secs(1);
/// Time between two checks while a follower waits for such rows.
const CHECK_PERIOD_BEHIND: Duration = Duration::from_millis(250);

/// Rows of gold from a follower's position on. Each row replaces the row of the same symbol and event time. Only the last batch of a change
/// has a range that moves, so a client can continue after any batch.
///
/// Of the change buffer, only the next messages are taken. A follower that is behind the buffer reads the files that were written since its
/// position, in its turn and one file at a time.
pub(crate) struct GoldFeed {
    changes: Arc<ChangeBuffer>,
    table: Arc<GoldTable>,
    /// Last partition that was read from the buffer.
    last: Option<i32>,
    /// True if the buffer no longer holds rows that this client needs. Until the files have them, nothing is taken from the buffer: older
    /// rows from the files would overwrite newer ones.
    is_behind: bool,
    /// Table position at the last check. The follower waits only for the rows below it, because later rows may still come to the buffer.
    checked: Option<Position>,
    check_at: Instant,
    files: Option<Files>,
}

/// Files that are being read, and the snapshot that they lead to.
struct Files {
    rows: BoxStream<'static, Result<RecordBatch, LakeError>>,
    snapshot: Snapshot,
}

impl GoldFeed {
    pub(crate) fn new(changes: Arc<ChangeBuffer>, table: Arc<GoldTable>) -> Self {
        GoldFeed {
            changes,
            table,
            last: None,
            is_behind: false,
            checked: None,
            check_at: Instant::now(),
            files: None,
        }
    }

    /// Sends the next batches of one partition, if no partition misses rows. Returns true if there was anything to do.
    fn take_changes(&mut self, outbox: &mut Outbox) -> Result<bool, CallError> {
        let partitions = self.changes.position().iter().map(|(partition, _)| partition).collect();
        let mut next = None;
        for partition in in_turn(partitions, self.last) {
            match self.changes.read(partition, outbox.next_of(partition)) {
                Found::Batches(batches) => next = next.or(Some((partition, batches))),
                Found::Nothing => {}
                Found::Missed => {
                    self.is_behind = true;
                    self.check_at = Instant::now();
                    return Ok(true);
                }
            }
        }
        let Some((partition, batches)) = next else { return Ok(false) };
        self.last = Some(partition);
        for batch in &batches {
            outbox.send(batch)?;
        }
        Ok(true)
    }

    /// Checks whether the table has the missing rows, and starts to read them.
    async fn check_table(&mut self, outbox: &mut Outbox) -> Result<Step, CallError> {
        let snapshot = match self.table.snapshot().await {
            Ok(snapshot) => snapshot,
            // The buffer still works, and the next check may succeed.
            Err(error) if error.is_transient() => {
                self.check_at = Instant::now() + CHECK_PERIOD;
                return Ok(Step::Advanced);
            }
            Err(error) => return Err(error.into()),
        };
        let position = snapshot.position().clone();
        let checked = self.checked.replace(position.clone()).unwrap_or_else(|| position.clone());
        self.is_behind |= checked.iter().any(|(partition, next)| {
            let ours = outbox.next_of(partition);
            ours < next && !matches!(self.changes.read(partition, ours), Found::Batches(_))
        });
        let is_ahead = position.iter().any(|(partition, next)| outbox.next_of(partition) < next);
        let is_behind_us =
            outbox.position().iter().any(|(partition, ours)| position.next(partition).unwrap_or(0) < ours);
        if self.is_behind && is_ahead && !is_behind_us {
            if !outbox.turn.is_held() {
                return Ok(Step::Wait { for_change: false, for_turn: true, until: None });
            }
            let rows = snapshot.changed_since(outbox.position()).await?.read();
            self.files = Some(Files { rows, snapshot });
        } else {
            outbox.turn.end();
        }
        self.check_at = Instant::now() + if self.is_behind { CHECK_PERIOD_BEHIND } else { CHECK_PERIOD };
        Ok(Step::Advanced)
    }

    /// Sends the rows of the next file, or closes the files.
    async fn read_files(&mut self, mut files: Files, outbox: &mut Outbox) -> Result<(), CallError> {
        match files.rows.next().await {
            // The client's position moves only after all files are read.
            Some(Ok(rows)) => {
                outbox.send_unmoved(rows)?;
                self.files = Some(files);
            }
            None => {
                outbox.turn.end();
                self.is_behind = false;
                for (partition, next) in files.snapshot.position().iter() {
                    let first = outbox.next_of(partition);
                    if first < next {
                        outbox.skip(OffsetRange { partition, first, next })?;
                    }
                }
            }
            Some(Err(error)) => {
                // Vacuum may remove the files before a slow reader has read them. A newer snapshot has the rows.
                outbox.turn.end();
                self.check_at = Instant::now();
                if self.table.snapshot().await?.version() <= files.snapshot.version() {
                    return Err(error.into());
                }
                tracing::info!(
                    error = &error as &dyn std::error::Error,
                    "a follower of gold continues on a newer snapshot"
                );
            }
        }
        Ok(())
    }
}

impl Feed for GoldFeed {
    fn schema() -> SchemaRef {
        schema::gold::schema()
    }

    fn encode(batch: &RangedBatch) -> Result<Vec<FlightData>, ArrowError> {
        encode_upserts(batch)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.changes()
    }

    async fn advance(&mut self, outbox: &mut Outbox) -> Result<Step, CallError> {
        if let Some(files) = self.files.take() {
            self.read_files(files, outbox).await?;
        } else if Instant::now() >= self.check_at {
            return self.check_table(outbox).await;
        } else if self.is_behind || !self.take_changes(outbox)? {
            // A follower that waits for the files takes nothing from the buffer.
            let for_change = !self.is_behind;
            return Ok(Step::Wait { for_change, for_turn: false, until: Some(self.check_at) });
        }
        Ok(Step::Advanced)
    }
}

#[cfg(test)]
mod tests;
