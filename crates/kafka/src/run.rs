//! Reading a run of a partition's offsets, outside any group.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::{Args, Error, Logs, REQUEST_MAX, is_fatal};

/// Longest wait of one poll. A shutdown is noticed within this time.
const POLL_MAX: Duration = Duration::from_millis(100);

/// A consumer that reads runs of offsets. It joins no group and commits nothing.
pub struct RunReader {
    consumer: BaseConsumer<Logs>,
    topic: String,
}

impl fmt::Debug for RunReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunReader").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl RunReader {
    /// Opens a consumer with the group id `group`, which the brokers' access rules apply to.
    ///
    /// # Errors
    ///
    /// [`Error`] if an option is wrong.
    pub fn open(args: &Args, group: &str) -> Result<Self, Error> {
        let mut config = args.consumer(group);
        config.set("enable.partition.eof", "true");
        let consumer = BaseConsumer::from_config_and_context(&config, Logs);
        let consumer = consumer.map_err(Error::new(format!("open a reader of topic {}", args.topic)))?;
        Ok(RunReader { consumer, topic: args.topic.clone() })
    }

    /// Returns the partitions of the topic. Blocks the calling thread.
    ///
    /// # Errors
    ///
    /// [`Error`], transient while no broker answers.
    pub fn partitions(&self) -> Result<Vec<i32>, Error> {
        let failed = Error::new(format!("look up the partitions of topic {}", self.topic));
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), REQUEST_MAX).map_err(failed)?;
        let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
        Ok(partitions.map(MetadataPartition::id).collect())
    }

    /// Returns the first offset of the partition, and the offset after its last. Blocks the calling thread.
    ///
    /// # Errors
    ///
    /// [`Error`], transient while no broker answers.
    pub fn watermarks(&self, partition: i32) -> Result<(i64, i64), Error> {
        let failed = Error::new(format!("look up the ends of topic {}, partition {partition}", self.topic));
        self.consumer.fetch_watermarks(&self.topic, partition, REQUEST_MAX).map_err(failed)
    }

    /// Reads the messages of a run of offsets in order, and passes each to `each`. Blocks the calling thread.
    ///
    /// # Errors
    ///
    /// [`Error`] if a failure is fatal, if no message arrives for [`REQUEST_MAX`], or after `shutdown`.
    pub fn read(
        &self,
        partition: i32,
        offsets: Range<i64>,
        shutdown: &CancellationToken,
        mut each: impl FnMut(&BorrowedMessage<'_>),
    ) -> Result<(), Error> {
        let failed = || Error::new(format!("read topic {}, partition {partition}", self.topic));
        let mut assignment = TopicPartitionList::new();
        let first = Offset::Offset(offsets.start);
        assignment.add_partition_offset(&self.topic, partition, first).map_err(failed())?;
        self.consumer.assign(&assignment).map_err(failed())?;
        let mut silence = Duration::ZERO;
        while !shutdown.is_cancelled() {
            match self.consumer.poll(POLL_MAX) {
                Some(Ok(message)) if message.offset() >= offsets.end => return Ok(()),
                Some(Ok(message)) => {
                    each(&message);
                    if message.offset() == offsets.end - 1 {
                        return Ok(());
                    }
                    silence = Duration::ZERO;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Some(Err(error)) if is_fatal(&error) => return Err(failed()(error)),
                Some(Err(error)) => tracing::debug!(%error, "librdkafka retries"),
                None => silence += POLL_MAX,
            }
            if silence >= REQUEST_MAX {
                return Err(failed()(KafkaError::NoMessageReceived));
            }
        }
        Err(failed()(KafkaError::Canceled))
    }
}
