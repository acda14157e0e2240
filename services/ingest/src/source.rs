//! Reads the topic on a separate thread. The thread never stops polling, so that the group keeps this member whatever the server does.
//!
//! The group assigns the partitions, and bronze determines the offsets. So an assignment alone starts no reading. A session first
//! requests the position from the server, and the first and last offsets from the brokers. Then it reads from the position. A rebalance
//! ends the session.

mod ends;
mod member;
mod reader;

use std::sync::{Arc, Weak};
use std::time::Duration;

use position::Position;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::raw_batch::RawBatch;
use crate::source::ends::Ends;
use crate::source::member::Member;
use crate::source::reader::{Reader, first_offset};
use crate::{Config, Error};

/// Longest wait of a poll for a message. On an idle topic, a new session or a shutdown is noticed after at most this time.
const POLL_MAX: Duration = Duration::from_millis(20);
/// Time between two commits to Kafka. Commits only show the progress to other tools.
const COMMIT_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two updates of the lag, in milliseconds.
const STATISTICS_MILLIS: &str = "1000";

/// The partitions that the group has assigned to this member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// Number of assignments and revocations so far.
    generation: u64,
    /// `None` before the first assignment and after a revocation.
    partitions: Option<Vec<i32>>,
}

/// Client of this member. The thread owns the client. Other users hold weak references, so that the thread can leave the group.
type Consumer = kafka::Closing<BaseConsumer<Member>>;

/// Request of a session to start reading.
pub(crate) struct SessionStart {
    /// Assignment that the session reads.
    pub(crate) assignment: Assignment,
    /// Position to start at. Partitions that it does not contain start at their first offset.
    pub(crate) position: Position,
    /// Channel for the messages. Its last item is the error that ended reading, unless reading was drained.
    pub(crate) polled: mpsc::Sender<Result<RawBatch, Error>>,
}

/// Request of a session, with the first and last offsets of its partitions.
struct Located {
    start: SessionStart,
    ends: Ends,
    /// Token that is cancelled when a partition without a leader has one again.
    returned: CancellationToken,
}

/// Handle of the sessions to the source.
pub(crate) struct Source {
    topic: String,
    consumer: Weak<Consumer>,
    assignment: watch::Receiver<Assignment>,
    starts: mpsc::Sender<Located>,
    durable: watch::Sender<Position>,
    /// Task that waits until a partition without a leader has one again.
    waiting: JoinSet<()>,
}

/// State of the thread that polls.
pub(crate) struct SourceThread {
    consumer: Arc<Consumer>,
    config: Config,
    starts: mpsc::Receiver<Located>,
    /// True if the last session ended because a broker did not have the next offset.
    is_offset_lost: bool,
    durable: watch::Receiver<Position>,
    committed: Position,
    commit_due: Instant,
    drain: CancellationToken,
}

/// Joins the consumer group. When `drain` is cancelled, reading ends, but the membership and the commits continue.
pub(crate) fn open(
    config: &Config,
    metrics: &Metrics,
    drain: CancellationToken,
) -> Result<(Source, SourceThread), kafka::Error> {
    let topic = config.kafka.topic.as_str();
    let mut options = config.kafka.consumer(&config.group);
    options.set("statistics.interval.ms", STATISTICS_MILLIS);
    if let Some(instance) = &config.group_instance {
        options.set("group.instance.id", instance);
    }
    let (assignment_sender, assignment) = watch::channel(Assignment::default());
    let member = Member::new(topic, assignment_sender, metrics);
    let failed = || kafka::Error::new(format!("join consumer group {} of topic {topic}", config.group));
    let consumer = BaseConsumer::from_config_and_context(&options, member).map_err(failed())?;
    let consumer = Arc::new(kafka::Closing::new(consumer));
    consumer.subscribe(&[topic]).map_err(failed())?;
    // There is one session at a time: the next session is requested after the previous session has ended.
    let (start_sender, starts) = mpsc::channel(1);
    let (durable_sender, durable) = watch::channel(Position::default());
    let source = Source {
        topic: topic.to_owned(),
        consumer: Arc::downgrade(&consumer),
        assignment,
        starts: start_sender,
        durable: durable_sender,
        waiting: JoinSet::new(),
    };
    let thread = SourceThread {
        consumer,
        config: config.clone(),
        starts,
        is_offset_lost: false,
        durable,
        committed: Position::default(),
        commit_due: Instant::now(),
        drain,
    };
    Ok((source, thread))
}

impl Source {
    /// Waits until the group has assigned partitions to this member.
    pub(crate) async fn assignment(&mut self) -> Result<Assignment, Error> {
        let assignment = self.assignment.wait_for(|assignment| assignment.partitions.is_some()).await;
        Ok(assignment.map_err(|_closed| Error::ReaderStopped)?.clone())
    }

    /// Starts reading for a session, which replaces the last one. Only partitions with a leader are read.
    pub(crate) async fn start(&mut self, start: SessionStart) -> Result<(), Error> {
        self.waiting.abort_all();
        let partitions = start.assignment.partitions.clone().unwrap_or_default();
        let ends = Ends::look_up(&self.consumer, &self.topic, &partitions).await?;
        // This check comes before the session counts as open, because producers wait for that. A topic that has lost its end must be
        // refilled before they write to it.
        for (partition, found) in &ends.found {
            if let position @ Some(_) = start.position.next(*partition) {
                first_offset(&self.topic, *partition, position, *found)?;
            }
        }
        let returned = CancellationToken::new();
        if !ends.absent.is_empty() {
            tracing::warn!(topic = self.topic, partitions = ?ends.absent, "some partitions have no leader: reading the others");
            let (consumer, topic) = (Weak::clone(&self.consumer), self.topic.clone());
            self.waiting.spawn(ends::await_any(consumer, topic, ends.absent.clone(), returned.clone()));
        }
        let located = Located { start, ends, returned };
        self.starts.send(located).await.map_err(|_closed| Error::ReaderStopped)
    }

    /// Passes the durable position to the thread, which commits it.
    pub(crate) fn commit(&self, durable: Position) {
        self.durable.send_replace(durable);
    }
}

impl SourceThread {
    /// Polls until `stop`.
    ///
    /// # Errors
    ///
    /// An error for which a person must act. All other errors end only the session.
    pub(crate) fn run(mut self, stop: &CancellationToken) -> Result<(), Error> {
        let mut reader: Option<Reader> = None;
        while !stop.is_cancelled() {
            if let Ok(start) = self.starts.try_recv() {
                if let Some(last) = reader.take() {
                    last.stop(&self.consumer, Error::ReaderStopped)?;
                }
                reader = Reader::start(&self.consumer, &self.config, start, self.is_offset_lost);
                self.is_offset_lost &= reader.is_none();
            }
            let read = match &mut reader {
                Some(reader) if self.drain.is_cancelled() => reader.drain().and(Err(Error::ReaderStopped)),
                Some(reader) => reader.step(&self.consumer),
                None => self.idle(),
            };
            if let Err(error) = read {
                self.is_offset_lost |= matches!(error, Error::OffsetLost { .. });
                match reader.take() {
                    Some(reader) => reader.stop(&self.consumer, error)?,
                    None if !error.is_transient() => return Err(error),
                    None => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "waiting for partitions");
                    }
                }
                // After a fatal error, this librdkafka client does nothing more.
                if let Some((code, _)) = self.consumer.client().fatal_error() {
                    return Err(
                        self.failed("stay a reader of")(KafkaError::MessageConsumptionFatal(code)).into()
                    );
                }
            }
            if Instant::now() >= self.commit_due {
                self.commit()?;
            }
        }
        self.commit()
    }

    /// Polls between sessions, so that the group keeps this member.
    fn idle(&self) -> Result<(), Error> {
        match self.consumer.poll(POLL_MAX) {
            None | Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(self.failed("wait for partitions of")(error).into()),
        }
    }

    /// Commits the durable position of the assigned partitions. If [`Member`] reports that a commit failed, the next commit repeats it.
    fn commit(&mut self) -> Result<(), Error> {
        self.commit_due = Instant::now() + COMMIT_INTERVAL;
        if self.consumer.context().take_uncommitted() {
            self.committed = Position::default();
        }
        let durable = self.durable.borrow_and_update().clone();
        let mut offsets = TopicPartitionList::new();
        for partition in self.consumer.context().partitions() {
            let Some(next) =
                durable.next(partition).filter(|next| self.committed.next(partition) != Some(*next))
            else {
                continue;
            };
            offsets
                .add_partition_offset(&self.config.kafka.topic, partition, Offset::Offset(next))
                .map_err(self.failed("commit offsets of"))?;
            self.committed.set(partition, next);
        }
        if offsets.count() > 0 {
            if let Err(error) = self.consumer.commit(&offsets, CommitMode::Async) {
                tracing::warn!(%error, "cannot commit offsets: other tools see an old lag, but no data is affected");
                self.committed = Position::default();
            }
            failpoint::pass("ingest.committed");
        }
        Ok(())
    }

    fn failed(&self, action: &str) -> impl FnOnce(KafkaError) -> kafka::Error + use<> {
        kafka::Error::new(format!("{action} topic {}", self.config.kafka.topic))
    }
}
