//! DoGet of gold from a position: what changes, as upserts; from the ring, and from the gold table's files for those who are not in it.

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

use self::ring::{Kept, Ring};
use crate::error::Refusal;
use crate::follow::turn::Turn;
use crate::follow::{KEEP_ALIVE, Wanted, in_turn};
use crate::gold::Gold;
use crate::symbols::Symbols;

/// How often a follower looks whether the table has rows that did not come to the ring: a request to the store, shared by all.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// How often one looks that waits for such rows.
const LOOK_PERIOD_BEHIND: Duration = Duration::from_millis(250);

/// Streams gold as `wanted`: the schema, where each partition starts, then batches of rows that each replace the row of their symbol and
/// event time. Only the range of the last batch of a change moves, so a client goes on after any batch.
///
/// Pulled by the client's own pace: of the ring no more is taken than is sent next. A reader that the ring has left behind reads the files
/// that were written since its position, in its turn and one at a time.
///
/// # Errors
///
/// [`Refusal`], once, as the last item; the client goes on from its last range.
pub(crate) fn follow(
    ring: Arc<Ring>,
    gold: Arc<Gold>,
    wanted: Wanted,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<FlightData, Refusal>> + Send {
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
    ring: Arc<Ring>,
    gold: Arc<Gold>,
    changes: watch::Receiver<u64>,
    /// Partitions whose start the client has not been told yet.
    starts: VecDeque<(i32, i64)>,
    /// The next offset to send of each partition.
    cursor: Position,
    until: Option<Position>,
    symbols: Symbols,
    turn: Turn,
    /// The partition that was taken from the ring last.
    last: Option<i32>,
    /// Something is missing in the ring. Until the files have it, nothing is taken from the ring: the files' rows, older then than what had
    /// been sent already, would take it back.
    is_behind: bool,
    /// The table's position at the last look. Only what was there then is waited for: the rest may be on its way to the ring.
    seen: Option<Position>,
    look_at: Instant,
    quiet_until: Instant,
    files: Option<Files>,
    messages: VecDeque<FlightData>,
    shutdown: CancellationToken,
}

/// The files that are being read, and the snapshot they lead to.
struct Files {
    rows: BoxStream<'static, Result<RecordBatch, LakeError>>,
    snapshot: Snapshot,
}

impl Follower {
    async fn next(&mut self) -> Result<Option<FlightData>, Refusal> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                self.quiet_until = Instant::now() + KEEP_ALIVE;
                return Ok(Some(message));
            }
            if self.shutdown.is_cancelled() {
                return Err(Refusal::Stopping);
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
                // Seen before looking, so that a change after the look ends the wait.
                self.changes.mark_unchanged();
                if self.is_behind || !self.take_from_ring()? {
                    self.wait().await?;
                }
            }
        }
    }

    /// Takes what is next in one partition, if nothing is missing in any; returns whether there was anything to do.
    fn take_from_ring(&mut self) -> Result<bool, Refusal> {
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

    /// Looks whether the table has what is missing, and begins to read it.
    async fn look_at_table(&mut self) -> Result<(), Refusal> {
        let looked = self.gold.snapshot().await;
        let snapshot = match looked {
            Ok(snapshot) => snapshot,
            // The ring goes on, and the next look may succeed.
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

    async fn read_files(&mut self) -> Result<(), Refusal> {
        let Some(files) = &mut self.files else { return Ok(()) };
        match files.rows.next().await {
            // The client is where it was until it has all of them.
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
                // A reader slower than the vacuum's retention may find its files gone: a newer snapshot has the rows.
                let version = files.snapshot.version();
                self.files = None;
                self.turn.end();
                self.look_at = Instant::now();
                if self.gold.snapshot().await?.version() <= version {
                    return Err(error.into());
                }
                tracing::info!(
                    error = &error as &dyn std::error::Error,
                    "a follower of gold moves on to a newer snapshot"
                );
            }
        }
        Ok(())
    }

    fn send(&mut self, range: OffsetRange, rows: &RecordBatch) -> Result<(), Refusal> {
        self.messages.extend(encode_upserts(&self.symbols.select(rows)?, range)?);
        self.cursor.advance(range);
        Ok(())
    }

    /// Sends an empty batch that says where a partition is.
    fn stand_at(&mut self, partition: i32, next: i64) -> Result<(), Refusal> {
        let nothing = RecordBatch::new_empty(schema::gold::schema());
        self.messages.extend(encode_upserts(&nothing, OffsetRange { partition, first: next, next })?);
        Ok(())
    }

    fn next_of(&self, partition: i32) -> i64 {
        self.cursor.next(partition).unwrap_or(0)
    }

    /// Returns a partition for batches that move none.
    fn some_partition(&self) -> i32 {
        self.cursor.iter().next().map_or(0, |(partition, _)| partition)
    }

    fn is_done(&self) -> bool {
        let reached = |(partition, next)| self.next_of(partition) >= next;
        self.until.as_ref().is_some_and(|until| until.iter().all(reached))
    }

    async fn wait(&mut self) -> Result<(), Refusal> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(Refusal::Stopping),
            // What comes to the ring does not help one who waits for the files.
            _ = self.changes.changed(), if !self.is_behind => Ok(()),
            () = tokio::time::sleep_until(self.look_at.min(self.quiet_until)) => {
                if Instant::now() >= self.quiet_until { self.keep_alive() } else { Ok(()) }
            }
        }
    }

    async fn wait_for_turn(&mut self) -> Result<(), Refusal> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(Refusal::Stopping),
            () = self.turn.take() => Ok(()),
            () = tokio::time::sleep_until(self.quiet_until) => self.keep_alive(),
        }
    }

    fn keep_alive(&mut self) -> Result<(), Refusal> {
        let partition = self.some_partition();
        self.stand_at(partition, self.next_of(partition))
    }
}

#[cfg(test)]
mod tests;
