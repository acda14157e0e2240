//! DoGet from a position of bronze or gold: the stream of one follower.
//!
//! [`follow`] is the common part of both tables: the schema and the starts at the beginning, keep-alives, turns, and the end. A [`Feed`]
//! finds the next rows of its table. The stream produces messages only when the client reads, so a slow client takes little memory.

pub(crate) mod start;
pub(crate) mod symbols;
pub(crate) mod turn;
pub(crate) mod untaken;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_flight::FlightData;
use futures::Stream;
use position::{OffsetRange, Position};
use schema::RangedBatch;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use transport::stream::encode_schema;

use self::symbols::Symbols;
use self::turn::Turn;
use crate::error::CallError;

/// Longest time without a message before the server sends an empty batch. Proxies close streams that are silent for about 60 s.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Request of a follower: its start, its end (`None` to follow without end), its symbols, and its turn to read files.
#[derive(Debug)]
pub(crate) struct FollowRequest {
    pub(crate) from: Position,
    pub(crate) until: Option<Position>,
    pub(crate) symbols: Symbols,
    pub(crate) turn: Turn,
}

/// Source of one table's rows for one follower.
pub(crate) trait Feed: Send {
    /// Returns the schema of the rows.
    fn schema() -> SchemaRef;

    /// Encodes a batch as messages of bounded size.
    fn encode(batch: &RangedBatch) -> Result<Vec<FlightData>, ArrowError>;

    /// Returns a receiver of every later change of the table.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Sends the next rows to `outbox`, or returns the events that the follower waits for. The caller drops the future when the server
    /// stops.
    fn advance(&mut self, outbox: &mut Outbox) -> impl Future<Output = Result<Step, CallError>> + Send;
}

/// Outcome of [`Feed::advance`].
pub(crate) enum Step {
    /// Rows were sent, or another call can make progress at once.
    Advanced,
    /// There are no rows until one of these events.
    Wait {
        /// A change of the table.
        for_change: bool,
        /// The follower's turn to read files.
        for_turn: bool,
        /// A point in time.
        until: Option<Instant>,
    },
}

/// Messages on their way to a follower, and the position that they reach.
pub(crate) struct Outbox {
    messages: VecDeque<FlightData>,
    schema: SchemaRef,
    encode: fn(&RangedBatch) -> Result<Vec<FlightData>, ArrowError>,
    /// Next offset to send, for each partition.
    position: Position,
    until: Option<Position>,
    pub(crate) symbols: Symbols,
    pub(crate) turn: Turn,
}

/// Streams a table: its schema, the start of each partition, then the batches of `feed`. The ranges of a partition join.
///
/// # Errors
///
/// [`CallError`], once, as the last item. The client continues from its last range.
pub(crate) fn follow<F: Feed>(
    feed: F,
    request: FollowRequest,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<FlightData, CallError>> + Send {
    let follower = Follower {
        changes: feed.changes(),
        feed,
        starts: request.from.iter().collect(),
        outbox: Outbox {
            messages: VecDeque::from([encode_schema(&F::schema())]),
            schema: F::schema(),
            encode: F::encode,
            position: request.from,
            until: request.until,
            symbols: request.symbols,
            turn: request.turn,
        },
        quiet_until: Instant::now() + KEEP_ALIVE,
        shutdown,
    };
    futures::stream::try_unfold(follower, async |mut follower| {
        Ok(follower.next().await?.map(|message| (message, follower)))
    })
}

struct Follower<F> {
    feed: F,
    changes: watch::Receiver<u64>,
    /// Partitions whose start has not been sent to the client yet.
    starts: VecDeque<(i32, i64)>,
    outbox: Outbox,
    /// Time of the next keep-alive, unless a message comes first.
    quiet_until: Instant,
    shutdown: CancellationToken,
}

impl<F: Feed> Follower<F> {
    async fn next(&mut self) -> Result<Option<FlightData>, CallError> {
        loop {
            if let Some(message) = self.outbox.messages.pop_front() {
                self.quiet_until = Instant::now() + KEEP_ALIVE;
                return Ok(Some(message));
            }
            if let Some((partition, next)) = self.starts.pop_front() {
                self.outbox.send_position(partition, next)?;
                continue;
            }
            if self.outbox.is_complete() {
                return Ok(None);
            }
            // Marked before the feed reads, so that a change after the read ends the wait.
            self.changes.mark_unchanged();
            let advanced = self.shutdown.run_until_cancelled(self.feed.advance(&mut self.outbox)).await;
            match advanced.ok_or(CallError::Stopping)?? {
                Step::Advanced => {}
                Step::Wait { for_change, for_turn, until } => {
                    let until = until.map_or(self.quiet_until, |until| until.min(self.quiet_until));
                    tokio::select! {
                        () = self.shutdown.cancelled() => return Err(CallError::Stopping),
                        () = self.outbox.turn.take(), if for_turn => {}
                        _ = self.changes.changed(), if for_change => {}
                        () = sleep_until(until) => {}
                    }
                    if Instant::now() >= self.quiet_until {
                        self.outbox.keep_alive()?;
                    }
                }
            }
        }
    }
}

impl Outbox {
    /// Returns the next offset of a partition to send.
    pub(crate) fn next_of(&self, partition: i32) -> i64 {
        self.position.next(partition).unwrap_or(0)
    }

    /// Returns the offset where the follower ends in a partition, or `None` if it follows without end.
    pub(crate) fn end_of(&self, partition: i32) -> Option<i64> {
        self.until.as_ref().map(|until| until.next(partition).unwrap_or(0))
    }

    /// Returns the position that the messages reach.
    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    /// Sends the rows of the requested symbols, and moves the position past the batch.
    pub(crate) fn send(&mut self, batch: &RangedBatch) -> Result<(), CallError> {
        let messages = (self.encode)(&self.symbols.select(batch)?)?;
        self.send_encoded(batch.range, messages);
        Ok(())
    }

    /// Sends the messages of an encoded batch, and moves the position past `range`.
    pub(crate) fn send_encoded(&mut self, range: OffsetRange, messages: Vec<FlightData>) {
        self.messages.extend(messages);
        self.position.advance(range);
    }

    /// Sends rows that move no position. A client that continues from its last range receives them again.
    pub(crate) fn send_unmoved(&mut self, rows: RecordBatch) -> Result<(), CallError> {
        let (partition, next) = self.first_partition();
        self.send(&RangedBatch { range: OffsetRange { partition, first: next, next }, rows })
    }

    /// Moves the position past `range` without rows.
    pub(crate) fn skip(&mut self, range: OffsetRange) -> Result<(), CallError> {
        self.send(&RangedBatch::empty(Arc::clone(&self.schema), range))
    }

    /// Moves the position past `range` and sends nothing. The next range of the partition begins at its end.
    pub(crate) fn advance(&mut self, range: OffsetRange) {
        self.position.advance(range);
    }

    /// Sends an empty batch with the position of a partition.
    fn send_position(&mut self, partition: i32, next: i64) -> Result<(), CallError> {
        let range = OffsetRange { partition, first: next, next };
        self.messages.extend((self.encode)(&RangedBatch::empty(Arc::clone(&self.schema), range))?);
        Ok(())
    }

    fn keep_alive(&mut self) -> Result<(), CallError> {
        let (partition, next) = self.first_partition();
        self.send_position(partition, next)
    }

    /// Returns a partition and its next offset, for batches that move no position.
    fn first_partition(&self) -> (i32, i64) {
        self.position.iter().next().unwrap_or((0, 0))
    }

    fn is_complete(&self) -> bool {
        self.until.as_ref().is_some_and(|until| self.position.has_reached(until))
    }
}

/// Returns the partitions in ascending order, starting after `last` and wrapping around. So no partition waits until another partition is
/// complete.
pub(crate) fn in_turn(mut partitions: Vec<i32>, last: Option<i32>) -> Vec<i32> {
    let next = last.map_or(0, |last| partitions.partition_point(|partition| *partition <= last));
    partitions.rotate_left(next);
    partitions
}

#[cfg(test)]
mod tests {
    use super::in_turn;

    #[test]
    fn partitions_come_in_turn() {
        assert_eq!(in_turn(vec![0, 1, 5], None), [0, 1, 5]);
        assert_eq!(in_turn(vec![0, 1, 5], Some(0)), [1, 5, 0]);
        assert_eq!(in_turn(vec![0, 1, 5], Some(3)), [5, 0, 1]);
        assert_eq!(in_turn(vec![0, 1, 5], Some(5)), [0, 1, 5]);
        assert_eq!(in_turn(Vec::new(), Some(5)), [0; 0]);
    }
}
