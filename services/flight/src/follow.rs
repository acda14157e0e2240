//! DoGet of bronze from a position: first from the files, then from the hot buffer, then live.

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
use crate::error::CallError;
use crate::hot::{HotBuffer, Next};
use crate::symbols::Symbols;

/// Longest time without a row before the server sends an empty batch. Proxies close streams that are silent for about 60 s.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Most batches from files that are encoded ahead of the one being sent.
const ENCODED_AHEAD: usize = 2;

/// Request of a follower: its start, its end (`None` to follow without end), its symbols, and its turn to read files.
#[derive(Debug)]
pub(crate) struct FollowRequest {
    pub(crate) from: Position,
    pub(crate) until: Option<Position>,
    pub(crate) symbols: Symbols,
    pub(crate) turn: Turn,
}

/// Streams bronze as `wanted`: the schema, the start of each partition, then the batches. The ranges of a partition join, and each offset
/// is sent once.
///
/// The client's own pace pulls the stream. Of the hot rows, only the next messages are read. Of the files, only a few batches are read
/// ahead to keep the connection busy, and only in turns. So slow readers take little memory, however many there are.
///
/// # Errors
///
/// [`CallError`], once, as the last item. The client continues from its last range.
pub(crate) fn follow(
    hot: Arc<HotBuffer>,
    wanted: FollowRequest,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<FlightData, CallError>> + Send {
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
    hot: Arc<HotBuffer>,
    changes: watch::Receiver<u64>,
    /// Partitions whose start has not been sent to the client yet.
    starts: VecDeque<(i32, i64)>,
    /// Next offset to send, for each partition.
    cursor: Position,
    until: Option<Position>,
    symbols: Symbols,
    turn: Turn,
    /// Last partition that was read. The next search begins after it, so that no partition waits until another is complete.
    last: Option<i32>,
    /// Files that are being read.
    durable: Option<Durable>,
    messages: VecDeque<FlightData>,
    shutdown: CancellationToken,
}

struct Durable {
    pieces: BoxStream<'static, Result<Piece, CallError>>,
    version: u64,
    range: OffsetRange,
}

/// Result of a search for the next rows.
enum Look {
    Found,
    Nothing,
    /// Rows in files, while other followers have all turns.
    NotYet,
}

/// Range of offsets and its messages.
type Piece = (OffsetRange, Vec<FlightData>);

impl Follower {
    async fn next(&mut self) -> Result<Option<FlightData>, CallError> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Ok(Some(message));
            }
            if self.shutdown.is_cancelled() {
                return Err(CallError::Stopping);
            }
            if let Some((partition, next)) = self.starts.pop_front() {
                self.stand_at(partition, next)?;
            } else if self.durable.is_some() {
                self.read_files().await?;
            } else if self.is_done() {
                return Ok(None);
            } else {
                // Marked before the search, so that a change after the search ends the wait.
                self.changes.mark_unchanged();
                match self.look()? {
                    Look::Found => {}
                    Look::Nothing => self.wait().await?,
                    Look::NotYet => self.wait_for_turn().await?,
                }
            }
        }
    }

    /// Queues the next rows of one partition.
    fn look(&mut self) -> Result<Look, CallError> {
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
                Next::HotBuffer(batches) => {
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

    async fn read_files(&mut self) -> Result<(), CallError> {
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
                // Offsets after the last row belong to dead letters.
                self.cursor.advance(durable.range);
                self.durable = None;
                self.turn.end();
            }
            Some(Err(CallError::Lake(error))) => {
                // Vacuum may remove the files before a slow reader has read them. The newer snapshot has the rows in other files.
                let moved_on = self.hot.snapshot().0.version() > durable.version;
                self.durable = None;
                self.turn.end();
                if !moved_on {
                    return Err(error.into());
                }
                tracing::info!(
                    error = &error as &dyn std::error::Error,
                    "a follower continues on a newer snapshot"
                );
            }
            Some(Err(refusal)) => return Err(refusal),
        }
        Ok(())
    }

    fn send(&mut self, range: OffsetRange, rows: &RecordBatch) -> Result<(), CallError> {
        self.messages.extend(encode_batch(&self.symbols.select(rows)?, range)?);
        self.cursor.advance(range);
        Ok(())
    }

    /// Sends an empty batch with the position of a partition.
    fn stand_at(&mut self, partition: i32, next: i64) -> Result<(), CallError> {
        let nothing = RecordBatch::new_empty(schema::bronze::schema());
        self.messages.extend(encode_batch(&nothing, OffsetRange { partition, first: next, next })?);
        Ok(())
    }

    fn is_done(&self) -> bool {
        // Offset 0 counts as reached before any row is read.
        let reached = |(partition, next)| self.cursor.next(partition).unwrap_or(0) >= next;
        self.until.as_ref().is_some_and(|until| until.iter().all(reached))
    }

    async fn wait(&mut self) -> Result<(), CallError> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(CallError::Stopping),
            _ = self.changes.changed() => Ok(()),
            () = tokio::time::sleep(KEEP_ALIVE) => self.keep_alive(),
        }
    }

    async fn wait_for_turn(&mut self) -> Result<(), CallError> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(CallError::Stopping),
            () = self.turn.take() => Ok(()),
            // Hot rows of other partitions are sent while the follower waits.
            _ = self.changes.changed() => Ok(()),
            () = tokio::time::sleep(KEEP_ALIVE) => self.keep_alive(),
        }
    }

    fn keep_alive(&mut self) -> Result<(), CallError> {
        let partition = self.hot.partitions().first().copied().unwrap_or(0);
        let next = self.cursor.next(partition).unwrap_or(0);
        self.stand_at(partition, next)
    }
}

/// Returns the partitions in ascending order, starting after `last` and wrapping around.
pub(crate) fn in_turn(mut partitions: Vec<i32>, last: Option<i32>) -> Vec<i32> {
    let next = last.map_or(0, |last| partitions.partition_point(|partition| *partition <= last));
    partitions.rotate_left(next);
    partitions
}

/// Reads files and encodes their rows as messages. Other threads than the connection's do this, because sending keeps that thread busy.
fn encode_files(
    snapshot: &Snapshot,
    range: OffsetRange,
    symbols: &Symbols,
) -> BoxStream<'static, Result<Piece, CallError>> {
    let symbols = symbols.clone();
    let encode = move |read: Result<(OffsetRange, RecordBatch), LakeError>| {
        let symbols = symbols.clone();
        let encoding = read.map(|(range, rows)| {
            SpawnedTask::spawn_blocking(move || Ok((range, encode_batch(&symbols.select(&rows)?, range)?)))
        });
        async move { encoding?.join().await.map_err(|_| CallError::Panicked)? }
    };
    // The messages keep their order. An error comes after the batches that were read before it.
    snapshot.read(range).map(encode).buffered(ENCODED_AHEAD).boxed()
}

#[cfg(test)]
mod tests;
