//! What ends a session, and what ends the service.

use arrow::error::ArrowError;
use proto::client::ClientError;
use rdkafka::error::KafkaError;
use tonic::Code;

/// Why a session ended; transient ones are followed by another session, which starts from the server's position.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka could not be asked, told or read.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// A Flight call failed.
    #[error(transparent)]
    Flight(#[from] ClientError),
    /// The server ended the put stream without saying why: it drains.
    #[error("the Flight server ended the put stream")]
    PutEnded,
    /// A put result is not ours to read.
    #[error("read a put result")]
    PutResult(#[from] proto::DecodeError),
    /// A batch could not be written as Arrow IPC.
    #[error("encode a batch")]
    Encode(#[from] ArrowError),
    /// The group gave us other partitions.
    #[error("the consumer group rebalanced")]
    Rebalanced,
    /// A broker does not have the offset that was to be read next: retention, a lost log, or another topic.
    #[error("topic {topic} does not have the next offset that was to be read")]
    OffsetLost {
        /// The topic.
        topic: String,
    },
    /// Partitions that the session could not read have a leader again.
    #[error("partitions without a leader have one again")]
    LeadersReturned,
    /// The session's reader stopped: the session it read for, or the service, is over.
    #[error("reading stopped")]
    ReaderStopped,
    /// A dead letter was not acknowledged.
    #[error("deliver a dead letter to {topic}{}", kafka::what_to_do(source))]
    DeadLetter {
        /// The dead-letter topic.
        topic: String,
        /// Why not.
        #[source]
        source: KafkaError,
    },
    /// Messages are there but cannot be unpacked; skipping them would lose them.
    #[error(
        "topic {topic} holds messages packed with a codec that this build cannot read: \
         have its producers use zstd, lz4, snappy or gzip"
    )]
    Codec {
        /// The topic.
        topic: String,
        /// What librdkafka says.
        #[source]
        source: KafkaError,
    },
    /// Messages that bronze holds were lost, and others have their offsets.
    #[error(
        "topic {topic} no longer holds messages that bronze has, and has others at their offsets: a partition has lost its newest messages \
         and grown again, as after an unclean leader election. No message of bronze is lost; go on with a new topic, a new lake (--lake) and a \
         new database (--postgres)"
    )]
    TopicReplaced {
        /// The topic.
        topic: String,
    },
    /// The topic ends below bronze's position: it is not the topic that bronze was read from.
    #[error(
        "topic {topic}, partition {partition} ends at offset {high}, but bronze has read it up to {position}: the topic was created \
         anew. Restore the topic, or start with another topic name or an empty lake (a new --lake, or streaming_raw removed)"
    )]
    TopicRecreated {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Bronze's next offset.
        position: i64,
        /// The topic's next offset.
        high: i64,
    },
    /// The topic begins above bronze's position: messages that bronze never got are gone.
    #[error(
        "topic {topic}, partition {partition} begins at offset {low}, but bronze has read it only up to {position}: {} messages \
         between are gone. Restore the topic with them (and raise its retention), or accept the loss by starting an empty lake \
         (a new --lake, or streaming_raw removed)", low - position
    )]
    TopicTruncated {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Bronze's next offset.
        position: i64,
        /// The topic's first offset.
        low: i64,
    },
}

impl Error {
    /// Tells whether another session may succeed where this one ended.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Kafka(error) => error.is_transient(),
            // A refusal names the offset that the server expects, which is where the next session starts.
            Error::Flight(ClientError::Status { status, .. })
                if status.code() == Code::FailedPrecondition =>
            {
                true
            }
            Error::Flight(error) => error.is_transient(),
            Error::DeadLetter { source, .. } => !kafka::is_fatal(source),
            Error::PutEnded | Error::Rebalanced | Error::ReaderStopped => true,
            Error::OffsetLost { .. } | Error::LeadersReturned => true,
            Error::PutResult(_)
            | Error::Encode(_)
            | Error::Codec { .. }
            | Error::TopicReplaced { .. }
            | Error::TopicRecreated { .. }
            | Error::TopicTruncated { .. } => false,
        }
    }

    pub(crate) fn put(status: tonic::Status) -> Self {
        Error::Flight(ClientError::Status { action: "put bronze batches", status: Box::new(status) })
    }
}
