//! The topic, read on a thread of its own that never stops polling, so that the group keeps us whatever the server does.
//!
//! The group says which partitions, bronze says from where: the group's answer is taken in without reading anything, then a session
//! asks the server how far it is, the brokers where partitions begin and end, and starts reading there. A rebalance ends the session.

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

use crate::messages::Messages;
use crate::metrics::Metrics;
use crate::source::ends::Ends;
use crate::source::member::Member;
use crate::source::reader::{Reader, first_offset};
use crate::{Config, Error};

/// How long a poll waits for a message: how late a new session or a shutdown is noticed on a quiet topic.
const POLL_MAX: Duration = Duration::from_millis(20);
/// Time between two commits to Kafka; they only tell others how far we are.
const COMMIT_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two updates of the lag.
const STATISTICS_MILLIS: &str = "1000";

/// The partitions that the group has given us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// Counts the group's answers, revocations included.
    generation: u64,
    /// `None` while the group has not answered, or has revoked its answer.
    partitions: Option<Vec<i32>>,
}

/// Our membership, which the thread owns: whoever else uses it must not keep it from leaving the group.
type Consumer = kafka::Closing<BaseConsumer<Member>>;

/// What a session asks of the source.
pub(crate) struct Start {
    /// The assignment that the session is for.
    pub(crate) assignment: Assignment,
    /// Where to start; partitions that are absent start at their first offset.
    pub(crate) position: Position,
    /// Where messages go; the last item says why reading ended, unless it was drained.
    pub(crate) polled: mpsc::Sender<Result<Messages, Error>>,
}

/// A session's start with what the brokers say of its partitions.
struct Located {
    start: Start,
    ends: Ends,
    /// Cancelled when a partition that had no leader has one.
    returned: CancellationToken,
}

/// A session's side of the source.
pub(crate) struct Source {
    topic: String,
    consumer: Weak<Consumer>,
    assignment: watch::Receiver<Assignment>,
    starts: mpsc::Sender<Located>,
    durable: watch::Sender<Position>,
    /// Waits for the leaders that the session lacks.
    waiting: JoinSet<()>,
}

/// The thread's side of the source.
pub(crate) struct SourceThread {
    consumer: Arc<Consumer>,
    config: Config,
    starts: mpsc::Receiver<Located>,
    /// The last session ended since a broker did not have the next offset.
    is_offset_lost: bool,
    durable: watch::Receiver<Position>,
    committed: Position,
    commit_due: Instant,
    drain: CancellationToken,
}

/// Joins the consumer group; `drain` ends reading, but neither membership nor commits.
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
    // One session at a time: the next is asked for when the last is over.
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
    /// Waits until the group has given us partitions.
    pub(crate) async fn assignment(&mut self) -> Result<Assignment, Error> {
        let assignment = self.assignment.wait_for(|assignment| assignment.partitions.is_some()).await;
        Ok(assignment.map_err(|_closed| Error::ReaderStopped)?.clone())
    }

    /// Starts reading for a session, in place of the last one, the partitions that have a leader.
    pub(crate) async fn start(&mut self, start: Start) -> Result<(), Error> {
        self.waiting.abort_all();
        let partitions = start.assignment.partitions.clone().unwrap_or_default();
        let ends = Ends::look_up(&self.consumer, &self.topic, &partitions).await?;
        // Before the session counts as open: others wait for that until they write to a topic that may have lost its end.
        for (partition, found) in &ends.found {
            if let position @ Some(_) = start.position.next(*partition) {
                first_offset(&self.topic, *partition, position, *found)?;
            }
        }
        let returned = CancellationToken::new();
        if !ends.absent.is_empty() {
            tracing::warn!(topic = self.topic, partitions = ?ends.absent, "these have no leader: reading the others meanwhile");
            let (consumer, topic) = (Weak::clone(&self.consumer), self.topic.clone());
            self.waiting.spawn(ends::await_any(consumer, topic, ends.absent.clone(), returned.clone()));
        }
        let located = Located { start, ends, returned };
        self.starts.send(located).await.map_err(|_closed| Error::ReaderStopped)
    }

    /// Lets the thread commit what is durable.
    pub(crate) fn commit(&self, durable: Position) {
        self.durable.send_replace(durable);
    }
}

impl SourceThread {
    /// Polls until `stop`.
    ///
    /// # Errors
    ///
    /// What needs a person. All else ends the session only.
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
                // librdkafka does nothing more with this client.
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

    /// Serves the group between sessions.
    fn idle(&self) -> Result<(), Error> {
        match self.consumer.poll(POLL_MAX) {
            None | Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(self.failed("wait for partitions of")(error).into()),
        }
    }

    /// Commits what has become durable of our partitions; what [`Member`] learns was not committed, the next commit makes up for.
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
                tracing::warn!(%error, "cannot commit offsets: others see an old lag, nothing else");
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
