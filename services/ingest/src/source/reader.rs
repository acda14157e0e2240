//! Polls for one session: reads messages from the server's position into batches, as fast as the session takes them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use position::Position;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::raw_batch::RawBatch;
use crate::source::ends::Ends;
use crate::source::member::Member;
use crate::source::{Assignment, Located, POLL_MAX, SessionStart};
use crate::{Config, Error};

/// Time without a batch taken by the session after which fetching is paused. Until then the bounded queue of librdkafka is enough.
const STALL_MAX: Duration = Duration::from_millis(500);
/// Maximum number of messages before the reader checks the clock and its other duties: some tens of microseconds of work.
const STEP_MESSAGES_MAX: usize = 64;
/// Interval at which a paused reader polls the group.
const PAUSED_POLL: Duration = Duration::from_millis(100);
/// Longest wait of the last batches for room during a drain. The rest is read again at the next start.
const DRAIN_MAX: Duration = Duration::from_secs(2);

pub(crate) struct Reader {
    config: Config,
    assignment: Assignment,
    assigned: TopicPartitionList,
    open: BTreeMap<i32, RawBatch>,
    /// Size of all open batches together, in bytes.
    open_bytes: usize,
    /// Time at which the oldest message of the open batches came.
    opened: Option<Instant>,
    /// Closed batches that the session has not taken yet, at most one for each partition.
    closed: VecDeque<RawBatch>,
    is_paused: bool,
    /// Token that is cancelled when a partition without a leader has one again.
    returned: CancellationToken,
    polled: mpsc::Sender<Result<RawBatch, Error>>,
}

impl Reader {
    /// Starts reading at the position of the session. If that fails, it returns `None` and sends the error to the session.
    ///
    /// `is_offset_lost` is true if the last session ended because a broker did not have the next offset.
    pub(crate) fn start(
        consumer: &BaseConsumer<Member>,
        config: &Config,
        located: Located,
        is_offset_lost: bool,
    ) -> Option<Self> {
        let Located { start: SessionStart { assignment, position, polled }, ends, returned } = located;
        let mut reader = Reader {
            config: config.clone(),
            assignment,
            assigned: TopicPartitionList::new(),
            open: BTreeMap::new(),
            open_bytes: 0,
            opened: None,
            closed: VecDeque::new(),
            is_paused: false,
            returned,
            polled,
        };
        match reader.assign(consumer, &position, &ends, is_offset_lost) {
            Ok(()) => Some(reader),
            Err(error) => {
                reader.end_with(error);
                None
            }
        }
    }

    /// Takes the messages that are ready, at most [`STEP_MESSAGES_MAX`]. Waits at most [`POLL_MAX`] if there are none.
    pub(crate) fn step(&mut self, consumer: &BaseConsumer<Member>) -> Result<(), Error> {
        if self.returned.is_cancelled() {
            return Err(Error::LeadersReturned);
        }
        self.hand_over(consumer)?;
        let is_waiting = self.opened.is_some() || !self.closed.is_empty();
        let mut patience = if is_waiting { Duration::ZERO } else { POLL_MAX };
        for _ in 0..STEP_MESSAGES_MAX {
            let polled = consumer.poll(patience);
            patience = Duration::ZERO;
            // The poll above reports rebalances, so the assignment is checked after it.
            if !consumer.context().is_current(&self.assignment) {
                return Err(Error::Rebalanced);
            }
            match polled {
                Some(Ok(message)) => self.take(&message),
                Some(Err(error)) if is_passing(&error) => {
                    tracing::debug!(%error, "librdkafka retries after an error");
                }
                Some(Err(error)) => return Err(self.unreadable(error)),
                // The topic is idle, so a longer wait would only delay the open batches.
                None => {
                    if !self.is_paused {
                        self.close_all();
                    }
                    return Ok(());
                }
            }
            if !self.closed.is_empty() {
                return Ok(());
            }
        }
        if self.opened.is_some_and(|opened| opened.elapsed() >= self.config.age_max) {
            self.close_all();
        }
        Ok(())
    }

    /// Hands over all messages that were read.
    pub(crate) fn drain(&mut self) -> Result<(), Error> {
        self.close_all();
        let deadline = Instant::now() + DRAIN_MAX;
        while let Some(batch) = self.closed.pop_front() {
            self.send(batch, deadline.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
    }

    /// Stops reading and sends `error` to the session as the reason.
    pub(crate) fn stop(self, consumer: &BaseConsumer<Member>, error: Error) -> Result<(), Error> {
        if self.is_paused {
            consumer.resume(&self.assigned).map_err(self.failed("resume"))?;
        }
        consumer.assign(&TopicPartitionList::new()).map_err(self.failed("stop reading"))?;
        self.end_with(error);
        Ok(())
    }

    fn end_with(self, error: Error) {
        if !matches!(error, Error::ReaderStopped) {
            // If the session does not receive it, the session has already ended.
            let _closed = Handle::current().block_on(self.polled.send_timeout(Err(error), STALL_MAX));
        }
    }

    fn assign(
        &mut self,
        consumer: &BaseConsumer<Member>,
        position: &Position,
        ends: &Ends,
        is_offset_lost: bool,
    ) -> Result<(), Error> {
        if !consumer.context().is_current(&self.assignment) {
            return Err(Error::Rebalanced);
        }
        let topic = self.config.kafka.topic.as_str();
        let mut is_all_held = true;
        for (partition, watermarks) in &ends.found {
            let held = position.next(*partition);
            is_all_held &= held.is_some();
            let first = first_offset(topic, *partition, held, *watermarks)?;
            self.assigned
                .add_partition_offset(topic, *partition, Offset::Offset(first))
                .map_err(self.failed("assign partitions of"))?;
            self.open.insert(*partition, RawBatch::new(*partition, first));
        }
        if is_offset_lost {
            if !ends.absent.is_empty() {
                // The offset may be lost in one of the partitions without a leader.
                return Err(Error::OffsetLost { topic: topic.to_owned() });
            }
            // Each partition has the next offset now, but in the last session a broker lacked that offset for one partition. So that
            // partition has lost messages and has grown again, with different messages at the same offsets.
            if is_all_held {
                return Err(Error::TopicReplaced { topic: topic.to_owned() });
            }
        }
        consumer.assign(&self.assigned).map_err(self.failed("assign partitions of"))?;
        tracing::info!(topic, partitions = ?self.open.keys(), %position, "reading");
        Ok(())
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let offset = message.offset();
        // Messages that were read before, as after a change of the partition's leader, are not taken again.
        let open = self.open.get_mut(&message.partition()).filter(|open| offset >= open.range().next);
        let Some(open) = open else { return };
        let bytes_before = open.bytes();
        open.push(message.into());
        self.open_bytes += open.bytes() - bytes_before;
        let is_full = open.count() >= self.config.batch_rows_max;
        self.opened.get_or_insert_with(Instant::now);
        if is_full || self.open_bytes >= self.config.batch_bytes_max {
            self.close_all();
        }
    }

    fn close_all(&mut self) {
        self.opened = None;
        self.open_bytes = 0;
        self.closed.extend(self.open.values_mut().filter_map(RawBatch::take));
    }

    /// Hands closed batches to the session. If the session takes none for a while, fetching is paused until it does.
    fn hand_over(&mut self, consumer: &BaseConsumer<Member>) -> Result<(), Error> {
        while let Some(batch) = self.closed.pop_front() {
            let patience = if self.is_paused { PAUSED_POLL } else { STALL_MAX };
            let Some(batch) = self.send(batch, patience)? else { continue };
            self.closed.push_front(batch);
            if !self.is_paused {
                tracing::warn!("the Flight server accepts no more batches: pausing");
                consumer.pause(&self.assigned).map_err(self.failed("pause"))?;
                self.is_paused = true;
            }
            return Ok(());
        }
        if self.is_paused {
            tracing::info!("the Flight server accepts batches again: resuming");
            consumer.resume(&self.assigned).map_err(self.failed("resume"))?;
            self.is_paused = false;
        }
        Ok(())
    }

    /// Sends a batch to the session. Returns the batch if there is no room for it in time.
    fn send(&self, batch: RawBatch, patience: Duration) -> Result<Option<RawBatch>, Error> {
        failpoint::pass("ingest.polled");
        match Handle::current().block_on(self.polled.send_timeout(Ok(batch), patience)) {
            Ok(()) => Ok(None),
            Err(SendTimeoutError::Timeout(batch)) => batch.map(Some),
            Err(SendTimeoutError::Closed(_)) => Err(Error::ReaderStopped),
        }
    }

    fn unreadable(&self, source: KafkaError) -> Error {
        match source.rdkafka_error_code() {
            Some(RDKafkaErrorCode::NotImplemented | RDKafkaErrorCode::UnsupportedCompressionType) => {
                Error::Codec { topic: self.config.kafka.topic.clone(), source }
            }
            Some(RDKafkaErrorCode::AutoOffsetReset) => {
                Error::OffsetLost { topic: self.config.kafka.topic.clone() }
            }
            _ => self.failed("read")(source).into(),
        }
    }

    fn failed(&self, action: &str) -> impl FnOnce(KafkaError) -> kafka::Error + use<> {
        kafka::Error::new(format!("{action} topic {}", self.config.kafka.topic))
    }
}

/// Returns the offset to read a partition from, given the next offset of bronze and the first and next offsets of the topic.
///
/// # Errors
///
/// The topic ends below bronze's position, or it has lost messages that bronze needs.
pub(super) fn first_offset(
    topic: &str,
    partition: i32,
    position: Option<i64>,
    (low, high): (i64, i64),
) -> Result<i64, Error> {
    let topic = topic.to_owned();
    match position {
        Some(position) if high < position => Err(Error::TopicRecreated { topic, partition, position, high }),
        Some(position) if low > position => Err(Error::TopicTruncated { topic, partition, position, low }),
        Some(position) => Ok(position),
        None => {
            if low > 0 {
                tracing::warn!(
                    topic,
                    partition,
                    low,
                    "bronze has no rows of this partition, and the topic has lost its oldest messages"
                );
            }
            Ok(low)
        }
    }
}

/// Returns true if librdkafka recovers from the error by itself and skips no message.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::AllBrokersDown
                | Code::Authentication
                | Code::BrokerTransportFailure
                | Code::CoordinatorLoadInProgress
                | Code::CoordinatorNotAvailable
                | Code::LeaderNotAvailable
                | Code::NetworkException
                | Code::NotCoordinator
                | Code::NotLeaderForPartition
                | Code::OperationTimedOut
                | Code::PollExceeded
                | Code::RebalanceInProgress
                | Code::RequestTimedOut
                | Code::Resolve
                | Code::SaslAuthenticationFailed
                | Code::SSL
                | Code::WaitingForCoordinator
        )
    )
}

#[cfg(test)]
mod tests;
