//! Gold for followers: changes, as upserts. They come from the change buffer, and from the gold table's files for followers that are behind
//! the buffer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_flight::FlightData;
use lake::{Changes, LakeError};
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
/// Most reads of one file that may fail one after the other. Each has its own retries in the store's client.
const FAILURES_MAX: u32 = 5;

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

/// Files that are being read.
struct Files {
    changes: Changes,
    /// Rows of the last file that are not sent yet.
    rows: VecDeque<RecordBatch>,
    /// Reads of the next file that failed one after the other.
    failures: u32,
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
            let changes = snapshot.changed_since(outbox.position()).await?;
            self.files = Some(Files { changes, rows: VecDeque::new(), failures: 0 });
        } else {
            outbox.turn.end();
        }
        self.check_at = Instant::now() + if self.is_behind { CHECK_PERIOD_BEHIND } else { CHECK_PERIOD };
        Ok(Step::Advanced)
    }

    /// Sends the next rows of the files, or closes the files.
    async fn read_files(&mut self, mut files: Files, outbox: &mut Outbox) -> Result<Step, CallError> {
        // The client's position moves only after all files are read.
        if let Some(rows) = files.rows.pop_front() {
            outbox.send_unmoved(rows)?;
            self.files = Some(files);
            return Ok(Step::Advanced);
        }
        match self.next_rows(&mut files.changes, outbox.position()).await {
            Ok(Some(rows)) => {
                files.rows.extend(rows);
                files.failures = 0;
                self.files = Some(files);
            }
            Ok(None) => {
                outbox.turn.end();
                self.is_behind = false;
                for (partition, next) in files.changes.snapshot().position().iter() {
                    let first = outbox.next_of(partition);
                    if first < next {
                        outbox.skip(OffsetRange { partition, first, next })?;
                    }
                }
            }
            // One failed request costs one request, and not the files before it.
            Err(error) if is_passing(&error) && files.failures < FAILURES_MAX => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "read gold for a follower, trying again"
                );
                files.failures += 1;
                self.files = Some(files);
                let until = Some(Instant::now() + CHECK_PERIOD);
                return Ok(Step::Wait { for_change: false, for_turn: false, until });
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Step::Advanced)
    }

    /// Reads the next file. If vacuum has removed it, continues with the files of a newer snapshot since `position`.
    async fn next_rows(
        &self,
        changes: &mut Changes,
        position: &Position,
    ) -> Result<Option<Vec<RecordBatch>>, LakeError> {
        match changes.next().await {
            Err(expired @ LakeError::Expired { .. }) => {
                let newer = self.table.snapshot().await?;
                if newer.version() <= changes.snapshot().version() {
                    return Err(expired);
                }
                tracing::info!(version = newer.version(), "a follower of gold continues on a newer snapshot");
                changes.continue_on(newer.changed_since(position).await?);
                changes.next().await
            }
            read => read,
        }
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
            return self.read_files(files, outbox).await;
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

/// Returns true if another read may succeed. Vacuum may remove a file before a slow client has read it. A
/// newer snapshot has its rows.
fn is_passing(error: &LakeError) -> bool {
    error.is_transient() || matches!(error, LakeError::Expired { .. })
}

#[cfg(test)]
mod tests;
