//! DoGet of bronze from a position: from the files, then the hot buffer, then live.

pub(crate) mod turn;
pub(crate) mod untaken;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_flight::FlightData;
use datafusion::common::runtime::SpawnedTask;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use lake::{LakeError, Snapshot};
use position::{OffsetRange, Position};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transport::stream::{encode_batch, encode_schema};

use self::turn::Turn;
use crate::error::Refusal;
use crate::hot::{Hot, Next};
use crate::symbols::Symbols;

/// After this long without a row an empty batch is sent: proxies cut streams that are quiet for 60 s or so.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Batches from files that are encoded ahead of the one that is sent.
const ENCODED_AHEAD: usize = 2;

/// What a follower reads: from where, up to where (for ever without), which rows, and when files.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) from: Position,
    pub(crate) until: Option<Position>,
    pub(crate) symbols: Symbols,
    pub(crate) turn: Turn,
}

/// Streams bronze as `wanted`: the schema, where each partition starts, then batches whose ranges join, partition by partition, each
/// offset once.
///
/// Pulled by the client's own pace: of the hot rows no more is read than is sent next, of files the few that keep the connection busy, and
/// those in turns, so that slow readers cost little memory, however many they are.
///
/// # Errors
///
/// [`Refusal`], once, as the last item; the client goes on from its last range.
pub(crate) fn follow(
    hot: Arc<Hot>,
    wanted: Wanted,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<FlightData, Refusal>> + Send {
    let follower = Follower {
        changes: hot.changes(),
        hot,
        starts: wanted.from.iter().collect(),
        cursor: wanted.from,
        until: wanted.until,
        symbols: wanted.symbols,
        turn: wanted.turn,
        last: None,
        durable: None,
        messages: VecDeque::from([encode_schema(&schema::bronze::schema())]),
        shutdown,
    };
    futures::stream::try_unfold(follower, async |mut follower| {
        Ok(follower.next().await?.map(|message| (message, follower)))
    })
}

struct Follower {
    hot: Arc<Hot>,
    changes: watch::Receiver<u64>,
    /// Partitions whose start the client has not been told yet.
    starts: VecDeque<(i32, i64)>,
    /// The next offset to send of each partition.
    cursor: Position,
    until: Option<Position>,
    symbols: Symbols,
    turn: Turn,
    /// The partition that was looked into last: the next look begins behind it, so that no partition waits for all of another.
    last: Option<i32>,
    /// The files being read, and whether anything came of them yet.
    durable: Option<Durable>,
    messages: VecDeque<FlightData>,
    shutdown: CancellationToken,
}

struct Durable {
    pieces: BoxStream<'static, Result<Piece, Refusal>>,
    version: u64,
    range: OffsetRange,
}

/// What a look found.
enum Look {
    Found,
    Nothing,
    /// Files, and others are at theirs.
    NotYet,
}

/// What is sent of a run of offsets.
type Piece = (OffsetRange, Vec<FlightData>);

impl Follower {
    async fn next(&mut self) -> Result<Option<FlightData>, Refusal> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Ok(Some(message));
            }
            if self.shutdown.is_cancelled() {
                return Err(Refusal::Stopping);
            }
            if let Some((partition, next)) = self.starts.pop_front() {
                self.stand_at(partition, next)?;
            } else if self.durable.is_some() {
                self.read_files().await?;
            } else if self.is_done() {
                return Ok(None);
            } else {
                // Seen before looking, so that a change after the look ends the wait.
                self.changes.mark_unchanged();
                match self.look()? {
                    Look::Found => {}
                    Look::Nothing => self.wait().await?,
                    Look::NotYet => self.wait_for_turn().await?,
                }
            }
        }
    }

    /// Takes what is next in one partition.
    fn look(&mut self) -> Result<Look, Refusal> {
        let mut found = Look::Nothing;
        for partition in in_turn(self.hot.partitions(), self.last) {
            let until = self.until.as_ref().map(|until| until.next(partition).unwrap_or(0));
            match self.hot.read(partition, self.cursor.next(partition), until) {
                Next::Nothing => continue,
                Next::Durable(..) if !self.turn.is_held() => {
                    found = Look::NotYet;
                    continue;
                }
                Next::Durable(snapshot, range) => {
                    let pieces = encode_files(&snapshot, range, &self.symbols);
                    self.durable = Some(Durable { pieces, version: snapshot.version(), range });
                }
                Next::Hot(batches) => {
                    for batch in batches {
                        self.send(batch.range, &batch.rows)?;
                    }
                }
            }
            self.last = Some(partition);
            return Ok(Look::Found);
        }
        self.turn.end();
        Ok(found)
    }

    async fn read_files(&mut self) -> Result<(), Refusal> {
        if self.turn.is_over() {
            self.durable = None;
            self.turn.end();
            return Ok(());
        }
        let Some(durable) = &mut self.durable else { return Ok(()) };
        match durable.pieces.next().await {
            Some(Ok((range, messages))) => {
                self.messages.extend(messages);
                self.cursor.advance(range);
            }
            None => {
                // Offsets behind the last row belong to dead letters.
                self.cursor.advance(durable.range);
                self.durable = None;
                self.turn.end();
            }
            Some(Err(Refusal::Lake(error))) => {
                // A reader slower than the vacuum's retention may find its files compacted away: the newer snapshot has the rows.
                let moved_on = self.hot.snapshot().0.version() > durable.version;
                self.durable = None;
                self.turn.end();
                if !moved_on {
                    return Err(error.into());
                }
                tracing::info!(
                    error = &error as &dyn std::error::Error,
                    "a follower moves on to a newer snapshot"
                );
            }
            Some(Err(refusal)) => return Err(refusal),
        }
        Ok(())
    }

    fn send(&mut self, range: OffsetRange, rows: &RecordBatch) -> Result<(), Refusal> {
        self.messages.extend(encode_batch(&self.symbols.select(rows)?, range)?);
        self.cursor.advance(range);
        Ok(())
    }

    /// Sends an empty batch that says where a partition is.
    fn stand_at(&mut self, partition: i32, next: i64) -> Result<(), Refusal> {
        let nothing = RecordBatch::new_empty(schema::bronze::schema());
        self.messages.extend(encode_batch(&nothing, OffsetRange { partition, first: next, next })?);
        Ok(())
    }

    fn is_done(&self) -> bool {
        // Offset 0 is reached before anything is read.
        let reached = |(partition, next)| self.cursor.next(partition).unwrap_or(0) >= next;
        self.until.as_ref().is_some_and(|until| until.iter().all(reached))
    }

    async fn wait(&mut self) -> Result<(), Refusal> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(Refusal::Stopping),
            _ = self.changes.changed() => Ok(()),
            () = tokio::time::sleep(KEEP_ALIVE) => self.keep_alive(),
        }
    }

    async fn wait_for_turn(&mut self) -> Result<(), Refusal> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(Refusal::Stopping),
            () = self.turn.take() => Ok(()),
            // Hot rows of other partitions are sent meanwhile.
            _ = self.changes.changed() => Ok(()),
            () = tokio::time::sleep(KEEP_ALIVE) => self.keep_alive(),
        }
    }

    fn keep_alive(&mut self) -> Result<(), Refusal> {
        let partition = self.hot.partitions().first().copied().unwrap_or(0);
        let next = self.cursor.next(partition).unwrap_or(0);
        self.stand_at(partition, next)
    }
}

/// Returns the partitions, ascending from the one behind `last` on, around to it.
pub(crate) fn in_turn(mut partitions: Vec<i32>, last: Option<i32>) -> Vec<i32> {
    let next = last.map_or(0, |last| partitions.partition_point(|partition| *partition <= last));
    partitions.rotate_left(next);
    partitions
}

/// Reads files and writes their rows as messages, on other threads than the connection's own, which has enough to do with sending them.
fn encode_files(
    snapshot: &Snapshot,
    range: OffsetRange,
    symbols: &Symbols,
) -> BoxStream<'static, Result<Piece, Refusal>> {
    let symbols = symbols.clone();
    let encode = move |read: Result<(OffsetRange, RecordBatch), LakeError>| {
        let symbols = symbols.clone();
        let encoding = read.map(|(range, rows)| {
            SpawnedTask::spawn_blocking(move || Ok((range, encode_batch(&symbols.select(&rows)?, range)?)))
        });
        async move { encoding?.join().await.map_err(|_| Refusal::Panicked)? }
    };
    // In their order, an error behind what was read before it.
    snapshot.read(range).map(encode).buffered(ENCODED_AHEAD).boxed()
}

#[cfg(test)]
mod tests;
