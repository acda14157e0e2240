//! Errors that end a session or the service.

use arrow::error::ArrowError;
use position::{OffsetRange, Topic};
use rdkafka::error::KafkaError;
use tonic::Code;
use transport::client::ClientError;

/// Reason why a session ended. After a transient error, a new session starts from the server's position.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to Kafka failed.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// A Flight call failed.
    #[error(transparent)]
    Flight(#[from] ClientError),
    /// The server ended the put stream without an error, because it drains.
    #[error("the Flight server ended the put stream")]
    PutEnded,
    /// A put result cannot be decoded.
    #[error("read a put result")]
    PutResult(#[from] proto::DecodeError),
    /// A batch could not be written as Arrow IPC.
    #[error("encode a batch")]
    Encode(#[from] ArrowError),
    /// The group has changed the assignment of partitions.
    #[error("the consumer group rebalanced")]
    Rebalanced,
    /// A broker does not have the next offset to read, because of retention, a lost log or a different topic.
    #[error("topic {topic} does not have the next offset to read")]
    OffsetLost {
        /// The topic.
        topic: String,
    },
    /// A partition that the session could not read has a leader again.
    #[error("partitions that had no leader have one again")]
    LeadersReturned,
    /// The reader of the session stopped, because the session or the service has ended.
    #[error("reading stopped")]
    ReaderStopped,
    /// A dead letter was not acknowledged.
    #[error("deliver a dead letter to {topic}{}", kafka::what_to_do(source))]
    DeadLetter {
        /// The dead-letter topic.
        topic: String,
        /// The cause.
        #[source]
        source: KafkaError,
    },
    /// Messages use a compression that cannot be read. If ingest skipped these messages, they would be lost.
    #[error(
        "topic {topic} holds messages compressed with a codec that this build cannot read: \
         configure its producers to use zstd, lz4, snappy or gzip"
    )]
    Codec {
        /// The topic.
        topic: String,
        /// The error of librdkafka.
        #[source]
        source: KafkaError,
    },
    /// The topic has lost messages that bronze holds, and different messages now have the same offsets.
    #[error(
        "topic {topic} has lost messages that bronze holds, and has other messages at their offsets: a partition has lost its newest \
         messages and grown again, as after an unclean leader election. Stop its producers, give the topic an empty lake (another --lake) and run \
         `candleflight gold --rebuild`; bronze of the old lake keeps what the topic has lost"
    )]
    TopicReplaced {
        /// The topic.
        topic: String,
    },
    /// The Flight server does not name the topic of its bronze, because its version is 0.1.
    #[error(
        "the Flight server does not name the topic of its bronze: upgrade the server, and ingest will go on"
    )]
    ServerOutdated,
    /// The Flight server's bronze holds a different topic, or a deleted topic of the same name.
    #[error(
        "the Flight server's bronze holds topic {held}, but this ingest reads topic {read}: {}",
        advice(read, held)
    )]
    OtherTopic {
        /// The topic that is read.
        read: Topic,
        /// The topic that bronze holds.
        held: Topic,
    },
    /// The topic ends below bronze's position, so it has lost its newest messages.
    #[error(
        "topic {topic}, partition {partition} ends at offset {high}, but bronze has read it up to {position}: the topic was deleted and \
         created again, or Kafka has lost its newest messages. Restore the topic, or give this one an empty lake (another --lake) and \
         run `candleflight gold --rebuild`"
    )]
    TopicRecreated {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Next offset of bronze.
        position: i64,
        /// Next offset of the topic.
        high: i64,
    },
    /// Kafka had lost the end of a partition, which was written back from bronze. The next session continues.
    #[error("wrote {lost} back to the topic from bronze: Kafka had lost it")]
    Refilled {
        /// Offsets that were written back.
        lost: OffsetRange,
    },
    /// The topic ends below bronze's position, and other producers have written to it since. So its offsets are ambiguous.
    #[error(
        "topic {topic} has lost {lost}, and its messages before or at these offsets differ from bronze: another producer has written to it \
         since. Stop its producers, give the topic an empty lake (another --lake) and run `candleflight gold --rebuild`; bronze of the \
         old lake keeps what the topic has lost"
    )]
    TopicDiffers {
        /// The topic.
        topic: String,
        /// Offsets that the topic has lost.
        lost: OffsetRange,
    },
    /// The topic begins above bronze's position, so it has lost messages that bronze never got.
    #[error(
        "topic {topic}, partition {partition} begins at offset {low}, but bronze has read it only up to {position}: {} messages \
         between are gone. Restore the topic with them (and raise its retention), or accept the loss: give the topic an empty lake \
         (another --lake) and run `candleflight gold --rebuild`", low - position
    )]
    TopicTruncated {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Next offset of bronze.
        position: i64,
        /// First offset of the topic.
        low: i64,
    },
}

impl Error {
    /// Returns true if a new session may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Kafka(error) => error.is_transient(),
            // The server rejects a batch at an unexpected offset. The next session starts at the expected offset.
            Error::Flight(ClientError::Status { status, .. })
                if status.code() == Code::FailedPrecondition =>
            {
                true
            }
            Error::Flight(error) => error.is_transient(),
            Error::DeadLetter { source, .. } => !kafka::is_fatal(source),
            Error::PutEnded
            | Error::Rebalanced
            | Error::ReaderStopped
            | Error::ServerOutdated
            | Error::OffsetLost { .. }
            | Error::LeadersReturned
            | Error::Refilled { .. } => true,
            Error::PutResult(_)
            | Error::Encode(_)
            | Error::Codec { .. }
            | Error::OtherTopic { .. }
            | Error::TopicReplaced { .. }
            | Error::TopicRecreated { .. }
            | Error::TopicDiffers { .. }
            | Error::TopicTruncated { .. } => false,
        }
    }

    pub(crate) fn put(status: tonic::Status) -> Self {
        Error::Flight(ClientError::Status { action: "put bronze batches", status: Box::new(status) })
    }
}

/// Returns advice for a server whose bronze holds a different topic.
fn advice(read: &Topic, held: &Topic) -> String {
    let name = &read.name;
    if *name == held.name {
        format!(
            "topic {name} was deleted and created again. Give the new one an empty lake (the server's --lake) and run \
             `candleflight gold --rebuild`; the old lake stays as it is"
        )
    } else {
        format!("connect to the Flight server of {name}, or read topic {} (--topic)", held.name)
    }
}
