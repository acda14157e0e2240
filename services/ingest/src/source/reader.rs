//! Polls for one session: from the server's position, into batches of messages, as fast as they are taken.

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

use crate::messages::Messages;
use crate::source::ends::Ends;
use crate::source::member::Member;
use crate::source::{Assignment, Located, POLL_MAX, Start};
use crate::{Config, Error};

/// How long the session may take no batch before fetching is paused; until then librdkafka's own bounded queue is enough.
const STALL_MAX: Duration = Duration::from_millis(500);
/// Messages between two looks at the clock and at what else there is to do: some tens of microseconds.
const STEP_MESSAGES_MAX: usize = 64;
/// How often a paused reader looks after the group.
const PAUSED_POLL: Duration = Duration::from_millis(100);
/// How long the last batches may wait for room in a drain; what is left is read again at the next start.
const DRAIN_MAX: Duration = Duration::from_secs(2);

pub(crate) struct Reader {
    config: Config,
    assignment: Assignment,
    assigned: TopicPartitionList,
    open: BTreeMap<i32, Messages>,
    /// What the open batches take together, in bytes.
    open_bytes: usize,
    /// When the oldest message of the open batches came.
    opened: Option<Instant>,
    /// Closed batches that the session has not taken; no more than the partitions.
    closed: VecDeque<Messages>,
    is_paused: bool,
    /// Cancelled when a partition that is not read for want of a leader has one.
    returned: CancellationToken,
    polled: mpsc::Sender<Result<Messages, Error>>,
}

impl Reader {
    /// Starts reading at the session's position; `None` when that is not possible, which the session is told.
    ///
    /// `is_offset_lost`: a broker did not have the offset at which the session before read on.
    pub(crate) fn start(
        consumer: &BaseConsumer<Member>,
        config: &Config,
        located: Located,
        is_offset_lost: bool,
    ) -> Option<Self> {
        let Located { start: Start { assignment, position, polled }, ends, returned } = located;
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
                reader.tell(error);
                None
            }
        }
    }

    /// Takes what is ready, at most [`STEP_MESSAGES_MAX`], or nothing within [`POLL_MAX`].
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
            // The poll above is what tells of a rebalance.
            if !consumer.context().is_current(&self.assignment) {
                return Err(Error::Rebalanced);
            }
            match polled {
                Some(Ok(message)) => self.take(&message),
                Some(Err(error)) if is_passing(&error) => {
                    tracing::debug!(%error, "librdkafka is trying again");
                }
                Some(Err(error)) => return Err(self.unreadable(error)),
                // Idle: nothing is gained by waiting for more.
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

    /// Hands over all that was read.
    pub(crate) fn drain(&mut self) -> Result<(), Error> {
        self.close_all();
        let deadline = Instant::now() + DRAIN_MAX;
        while let Some(batch) = self.closed.pop_front() {
            self.send(batch, deadline.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
    }

    /// Stops reading and tells the session why.
    pub(crate) fn stop(self, consumer: &BaseConsumer<Member>, error: Error) -> Result<(), Error> {
        if self.is_paused {
            consumer.resume(&self.assigned).map_err(self.failed("resume"))?;
        }
        consumer.assign(&TopicPartitionList::new()).map_err(self.failed("stop reading"))?;
        self.tell(error);
        Ok(())
    }

    fn tell(self, error: Error) {
        if !matches!(error, Error::ReaderStopped) {
            // A session that does not listen is over already.
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
            self.open.insert(*partition, Messages::new(*partition, first));
        }
        if is_offset_lost {
            if !ends.absent.is_empty() {
                // One of them may be the one that has lost it.
                return Err(Error::OffsetLost { topic: topic.to_owned() });
            }
            // Each partition has the offset that bronze goes on at, though one did not: it has other messages below.
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
        // What was read already, as after a change of the partition's leader, is not taken twice.
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
        self.closed.extend(self.open.values_mut().filter_map(Messages::take));
    }

    /// Hands closed batches to the session; if it takes none for a while, pauses fetching until it does.
    fn hand_over(&mut self, consumer: &BaseConsumer<Member>) -> Result<(), Error> {
        while let Some(batch) = self.closed.pop_front() {
            let patience = if self.is_paused { PAUSED_POLL } else { STALL_MAX };
            let Some(batch) = self.send(batch, patience)? else { continue };
            self.closed.push_front(batch);
            if !self.is_paused {
                tracing::warn!("the Flight server takes no more: pausing");
                consumer.pause(&self.assigned).map_err(self.failed("pause"))?;
                self.is_paused = true;
            }
            return Ok(());
        }
        if self.is_paused {
            tracing::info!("the Flight server takes batches again: resuming");
            consumer.resume(&self.assigned).map_err(self.failed("resume"))?;
            self.is_paused = false;
        }
        Ok(())
    }

    /// Returns the batch if there is no room for it in time.
    fn send(&self, batch: Messages, patience: Duration) -> Result<Option<Messages>, Error> {
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

/// Decides where to read a partition from, given bronze's next offset and the topic's first and next ones.
///
/// # Errors
///
/// The topic is not the one that bronze was read from, or has lost what bronze needs.
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
                    "bronze has nothing of this partition and older messages are gone"
                );
            }
            Ok(low)
        }
    }
}

/// Tells whether librdkafka gets over the error by itself, without having skipped a message.
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
