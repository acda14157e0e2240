//! What ends a session, and what ends the service.

use arrow::error::ArrowError;
use position::{OffsetRange, Topic};
use rdkafka::error::KafkaError;
use tonic::Code;
use transport::client::ClientError;

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
         and grown again, as after an unclean leader election. Stop its producers, give the topic an empty lake (another --lake) and run \
         `candleflight gold --rebuild`; bronze of the old lake keeps what the topic has lost"
    )]
    TopicReplaced {
        /// The topic.
        topic: String,
    },
    /// The Flight server does not name the topic of its bronze: it is of version 0.1.
    #[error(
        "the Flight server does not name the topic of its bronze: upgrade the server, then ingest goes on"
    )]
    ServerOutdated,
    /// The Flight server's bronze holds another topic, or an older life of this one.
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
    /// The topic ends below bronze's position: it has lost its end.
    #[error(
        "topic {topic}, partition {partition} ends at offset {high}, but bronze has read it up to {position}: the topic was deleted and \
         created again, or Kafka has lost its end. Bring the topic back as it was, or give this one an empty lake (another --lake) and \
         run `candleflight gold --rebuild`"
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
    /// Kafka had lost the end of a partition, and it was written back from bronze: the next session goes on.
    #[error("wrote {lost} back to the topic from bronze: Kafka had lost it")]
    Refilled {
        /// The offsets.
        lost: OffsetRange,
    },
    /// The topic ends below bronze's position and others have written to it since: its offsets mean two things.
    #[error(
        "topic {topic} has lost {lost}, and what it holds before or at these offsets is not what bronze holds: others have written to it \
         since. Stop its producers, give the topic an empty lake (another --lake) and run `candleflight gold --rebuild`; bronze of the \
         old lake keeps what the topic has lost"
    )]
    TopicDiffers {
        /// The topic.
        topic: String,
        /// The offsets that it has lost.
        lost: OffsetRange,
    },
    /// The topic begins above bronze's position: messages that bronze never got are gone.
    #[error(
        "topic {topic}, partition {partition} begins at offset {low}, but bronze has read it only up to {position}: {} messages \
         between are gone. Bring the topic back with them (and raise its retention), or accept the loss: give the topic an empty lake \
         (another --lake) and run `candleflight gold --rebuild`", low - position
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

/// Says what to do about a server of another topic.
fn advice(read: &Topic, held: &Topic) -> String {
    let name = &read.name;
    if *name == held.name {
        format!(
            "topic {name} was deleted and created again. Give the new one an empty lake (the server's --lake) and run \
             `candleflight gold --rebuild`; the old lake stays as it is"
        )
    } else {
        format!("connect it to the server of {name}, or read {} (--topic)", held.name)
    }
}
