//! The membership in the consumer group, as librdkafka reports it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{TopicPartitionList, TopicPartitionListElem};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::source::Assignment;

/// Receiver of the rebalances, commit results and statistics that librdkafka reports.
pub(crate) struct Member {
    topic: String,
    assignment: watch::Sender<Assignment>,
    /// Generation of the assignment, as an atomic because it is read after each message.
    generation: AtomicU64,
    /// True if a commit has failed since the last [`Member::take_uncommitted`].
    is_uncommitted: AtomicBool,
    metrics: Metrics,
}

impl Member {
    pub(crate) fn new(topic: &str, assignment: watch::Sender<Assignment>, metrics: &Metrics) -> Self {
        let generation = AtomicU64::new(assignment.borrow().generation);
        let is_uncommitted = AtomicBool::new(false);
        Member { topic: topic.to_owned(), assignment, generation, is_uncommitted, metrics: metrics.clone() }
    }

    /// Returns true if a commit has failed since the last call.
    pub(crate) fn take_uncommitted(&self) -> bool {
        self.is_uncommitted.swap(false, Ordering::AcqRel)
    }

    /// Returns true if there was no rebalance since `assignment`.
    pub(crate) fn is_current(&self, assignment: &Assignment) -> bool {
        self.generation.load(Ordering::Acquire) == assignment.generation
    }

    /// Returns the partitions that are currently assigned.
    pub(crate) fn partitions(&self) -> Vec<i32> {
        self.assignment.borrow().partitions.clone().unwrap_or_default()
    }
}

impl ConsumerContext for Member {
    /// Acknowledges the rebalance without starting to read, because bronze and not the group determines the offsets.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let (acknowledged, partitions) = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let partitions = partitions
                .elements_for_topic(&self.topic)
                .iter()
                .map(TopicPartitionListElem::partition)
                .collect();
            (consumer.assign(&TopicPartitionList::new()), Some(partitions))
        } else {
            (consumer.unassign(), None)
        };
        if let Err(error) = acknowledged {
            tracing::warn!(%error, "cannot acknowledge a rebalance: the group will remove this member, which then joins again");
        }
        tracing::info!(?partitions, "the consumer group rebalanced");
        self.metrics.lag_records.clear();
        self.metrics.end_offset.clear();
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.assignment.send_replace(Assignment { generation, partitions });
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let of_a_partition = || offsets.elements().iter().try_for_each(TopicPartitionListElem::error);
        if let Err(error) = result.and_then(|()| of_a_partition()) {
            tracing::debug!(%error, "offsets were not committed: other tools see an old lag until the next commit");
            self.is_uncommitted.store(true, Ordering::Release);
        }
    }
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka::log_error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        let ours = self.partitions();
        for partition in topic.partitions.values().filter(|partition| ours.contains(&partition.partition)) {
            // A negative offset means that librdkafka has no value yet.
            if partition.ls_offset >= 0 && partition.app_offset >= 0 {
                let lag = (partition.ls_offset - partition.app_offset).max(0);
                let label = [("partition", partition.partition)];
                self.metrics.lag_records.get_or_create(&label).set(lag);
                self.metrics.end_offset.get_or_create(&label).set(partition.ls_offset);
            }
        }
    }
}
