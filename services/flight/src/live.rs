//! DoGet of gold from a position: changes, as upserts. They come from the ring, and from the gold table's files for followers that are not
//! in the ring.

pub(crate) mod put;
pub(crate) mod ring;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_flight::FlightData;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use lake::{LakeError, Snapshot};
use position::{OffsetRange, Position};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use transport::stream::{encode_schema, encode_upserts};

use self::ring::{ChangeBuffer, Kept};
use crate::error::CallError;
use crate::follow::turn::Turn;
use crate::follow::{FollowRequest, KEEP_ALIVE, in_turn};
use crate::gold::Gold;
use crate::symbols::Symbols;

/// Time between two checks for table rows that did not come to the ring. A check is one request to the store, which all followers share.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Time between two checks while a follower waits for such rows.
const LOOK_PERIOD_BEHIND: Duration = Duration::from_millis(250);

/// Streams gold as `wanted`: the schema, the start of each partition, then batches of rows. Each row replaces the row of the same symbol
/// and event time. Only the last batch of a change has a range that moves, so a client can continue after any batch.
///
/// The client's own pace pulls the stream. Of the ring, only the next messages are taken. A follower that is behind the ring reads the
/// files that were written since its position, in its turn and one file at a time.
///
/// # Errors
///
/// [`CallError`], once, as the last item. The client continues from its last range.
pub(crate) fn follow(
    ring: Arc<ChangeBuffer>,
    gold: Arc<Gold>,
    wanted: FollowRequest,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<FlightData, CallError>> + Send {
    let now = Instant::now();
    let follower = Follower {
        changes: ring.changes(),
        ring,
        gold,
        starts: wanted.from.iter().collect(),
        cursor: wanted.from,
        until: wanted.until,
        symbols: wanted.symbols,
        turn: wanted.turn,
        last: None,
        is_behind: false,
        seen: None,
        look_at: now,
        quiet_until: now + KEEP_ALIVE,
        files: None,
        messages: VecDeque::from([encode_schema(&schema::gold::schema())]),
        shutdown,
    };
    futures::stream::try_unfold(follower, async |mut follower| {
        Ok(follower.next().await?.map(|message| (message, follower)))
    })
}

struct Follower {
    ring: Arc<ChangeBuffer>,
    gold: Arc<Gold>,
    changes: watch::Receiver<u64>,
    /// Partitions whose start has not been sent to the client yet.
    starts: VecDeque<(i32, i64)>,
    /// Next offset to send, for each partition.
    cursor: Position,
    until: Option<Position>,
    symbols: Symbols,
    turn: Turn,
    /// Last partition that was read from the ring.
    last: Option<i32>,
    /// True if the ring no longer holds rows that this client needs. Until the files have them, nothing is taken from the ring: older rows
    /// from the files would overwrite newer ones.
    is_behind: bool,
    /// Table position at the last check. The follower waits only for the rows below it, because later rows may still come to the ring.
    seen: Option<Position>,
    look_at: Instant,
    quiet_until: Instant,
    files: Option<Files>,
    messages: VecDeque<FlightData>,
    shutdown: CancellationToken,
}

/// Files that are being read, and the snapshot that they lead to.
struct Files {
    rows: BoxStream<'static, Result<RecordBatch, LakeError>>,
    snapshot: Snapshot,
}

impl Follower {
    async fn next(&mut self) -> Result<Option<FlightData>, CallError> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                self.quiet_until = Instant::now() + KEEP_ALIVE;
                return Ok(Some(message));
            }
            if self.shutdown.is_cancelled() {
                return Err(CallError::Stopping);
            }
            if let Some((partition, next)) = self.starts.pop_front() {
                self.stand_at(partition, next)?;
            } else if self.files.is_some() {
                self.read_files().await?;
            } else if self.is_done() {
                return Ok(None);
            } else if Instant::now() >= self.look_at {
                self.look_at_table().await?;
            } else {
                // Marked before the read, so that a change after the read ends the wait.
                self.changes.mark_unchanged();
                if self.is_behind || !self.take_from_ring()? {
                    self.wait().await?;
                }
            }
        }
    }

    /// Queues the next batches of one partition, if no partition misses rows. Returns true if there was anything to do.
    fn take_from_ring(&mut self) -> Result<bool, CallError> {
        let partitions = self.ring.position().iter().map(|(partition, _)| partition).collect();
        let mut next = None;
        for partition in in_turn(partitions, self.last) {
            match self.ring.read(partition, self.next_of(partition)) {
                Kept::Batches(kept) => next = next.or(Some((partition, kept))),
                Kept::Nothing => {}
                Kept::Missed => {
                    self.is_behind = true;
                    self.look_at = Instant::now();
                    return Ok(true);
                }
            }
        }
        let Some((partition, batches)) = next else { return Ok(false) };
        self.last = Some(partition);
        for batch in &batches {
            self.send(batch.range, &batch.rows)?;
        }
        Ok(true)
    }

    /// Checks whether the table has the missing rows, and starts to read them.
    async fn look_at_table(&mut self) -> Result<(), CallError> {
        let looked = self.gold.snapshot().await;
        let snapshot = match looked {
            Ok(snapshot) => snapshot,
            // The ring still works, and the next check may succeed.
            Err(error) if error.is_transient() => {
                self.look_at = Instant::now() + LOOK_PERIOD;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let position = snapshot.position().clone();
        let seen = self.seen.replace(position.clone()).unwrap_or_else(|| position.clone());
        self.is_behind |= seen.iter().any(|(partition, next)| {
            let ours = self.next_of(partition);
            ours < next && !matches!(self.ring.read(partition, ours), Kept::Batches(_))
        });
        let is_ahead = position.iter().any(|(partition, next)| self.next_of(partition) < next);
        let is_behind_us =
            self.cursor.iter().any(|(partition, ours)| position.next(partition).unwrap_or(0) < ours);
        if self.is_behind && is_ahead && !is_behind_us {
            if !self.turn.is_held() {
                return self.wait_for_turn().await;
            }
            let rows = snapshot.changed_since(&self.cursor).await?.read();
            self.files = Some(Files { rows, snapshot });
        } else {
            self.turn.end();
        }
        self.look_at = Instant::now() + if self.is_behind { LOOK_PERIOD_BEHIND } else { LOOK_PERIOD };
        Ok(())
    }

    async fn read_files(&mut self) -> Result<(), CallError> {
        let Some(files) = &mut self.files else { return Ok(()) };
        match files.rows.next().await {
            // The client's position moves only after all files are read.
            Some(Ok(rows)) => {
                let partition = self.some_partition();
                let next = self.next_of(partition);
                self.send(OffsetRange { partition, first: next, next }, &rows)?;
            }
            None => {
                let position = files.snapshot.position().clone();
                self.files = None;
                self.turn.end();
                self.is_behind = false;
                let nothing = RecordBatch::new_empty(schema::gold::schema());
                for (partition, next) in position.iter() {
                    let first = self.next_of(partition);
                    if first < next {
                        self.send(OffsetRange { partition, first, next }, &nothing)?;
                    }
                }
            }
            Some(Err(error)) => {
                // Vacuum may remove the files before a slow reader has read them. A newer snapshot has the rows.
                let version = files.snapshot.version();
                self.files = None;
                self.turn.end();
                self.look_at = Instant::now();
                if self.gold.snapshot().await?.version() <= version {
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

    fn send(&mut self, range: OffsetRange, rows: &RecordBatch) -> Result<(), CallError> {
        self.messages.extend(encode_upserts(&self.symbols.select(rows)?, range)?);
        self.cursor.advance(range);
        Ok(())
    }

    /// Sends an empty batch with the position of a partition.
    fn stand_at(&mut self, partition: i32, next: i64) -> Result<(), CallError> {
        let nothing = RecordBatch::new_empty(schema::gold::schema());
        self.messages.extend(encode_upserts(&nothing, OffsetRange { partition, first: next, next })?);
        Ok(())
    }

    fn next_of(&self, partition: i32) -> i64 {
        self.cursor.next(partition).unwrap_or(0)
    }

    /// Returns any partition, for batches that move no position.
    fn some_partition(&self) -> i32 {
        self.cursor.iter().next().map_or(0, |(partition, _)| partition)
    }

    fn is_done(&self) -> bool {
        let reached = |(partition, next)| self.next_of(partition) >= next;
        self.until.as_ref().is_some_and(|until| until.iter().all(reached))
    }

    async fn wait(&mut self) -> Result<(), CallError> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(CallError::Stopping),
            // A follower that waits for the files takes nothing from the ring.
            _ = self.changes.changed(), if !self.is_behind => Ok(()),
            () = tokio::time::sleep_until(self.look_at.min(self.quiet_until)) => {
                if Instant::now() >= self.quiet_until { self.keep_alive() } else { Ok(()) }
            }
        }
    }

    async fn wait_for_turn(&mut self) -> Result<(), CallError> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(CallError::Stopping),
            () = self.turn.take() => Ok(()),
            () = tokio::time::sleep_until(self.quiet_until) => self.keep_alive(),
        }
    }

    fn keep_alive(&mut self) -> Result<(), CallError> {
        let partition = self.some_partition();
        self.stand_at(partition, self.next_of(partition))
    }
}

#[cfg(test)]
mod tests;
