//! The `app_metadata` of batches and put results.

use position::{OffsetRange, Origin, Position, Topic};
use serde::{Deserialize, Serialize};

use crate::Message;
use crate::v1;

/// Maximum number of offsets that one batch on DoPut may stand for, with rows or without: a wrong range moves a position no further. A
/// correct range can be longer, for example if Kafka has compacted a partition: it goes in several batches.
pub const RANGE_OFFSETS_MAX: i64 = 1 << 24;

/// The offsets of a batch on DoPut and DoGet: `{"range":{"partition":0,"first":128,"next":256}}`.
///
/// An empty batch with an empty range is a keep-alive. An empty batch with a range that is not empty stands for offsets without rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchMetadata {
    /// The offsets that the batch stands for.
    pub range: OffsetRange,
}

/// The position of bronze. It travels with every `PutResult` and answers the `progress` action:
/// `{"received":{"0":256},"durable":{"0":128},"origin":{"topic":{"name":"bitcoin_data","id":"9Z…"},"table":"5f0c…"}}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The rows that queries and followers see. A server that dies loses those that are not durable, and ingest sends them again.
    pub received: Position,
    /// The rows in the bronze table: they survive everything. Offsets up to here may be committed to Kafka.
    pub durable: Position,
    /// The topic and the table that both positions count in. Put results and servers of version 0.1 leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

impl Message for BatchMetadata {
    type Protobuf = v1::BatchMetadata;

    const NAME: &'static str = "batch metadata";

    fn to_protobuf(&self) -> v1::BatchMetadata {
        let OffsetRange { partition, first, next } = self.range;
        v1::BatchMetadata { range: Some(v1::OffsetRange { partition, first, next }) }
    }
}

impl TryFrom<v1::BatchMetadata> for BatchMetadata {
    type Error = String;

    fn try_from(metadata: v1::BatchMetadata) -> Result<Self, String> {
        let v1::OffsetRange { partition, first, next } = metadata.range.ok_or("the metadata has no range")?;
        Ok(BatchMetadata { range: OffsetRange { partition, first, next } })
    }
}

impl Message for Progress {
    type Protobuf = v1::Progress;

    const NAME: &'static str = "progress";

    fn to_protobuf(&self) -> v1::Progress {
        let origin = self.origin.clone();
        let origin = origin.map(|Origin { topic, table }| v1::Origin { topic: Some(topic.into()), table });
        v1::Progress {
            received: Some((&self.received).into()),
            durable: Some((&self.durable).into()),
            origin,
        }
    }
}

impl TryFrom<v1::Progress> for Progress {
    type Error = String;

    fn try_from(progress: v1::Progress) -> Result<Self, String> {
        let origin = |v1::Origin { topic, table }| {
            let topic = topic.ok_or("the origin has no topic")?.into();
            Ok::<_, String>(Origin { topic, table })
        };
        Ok(Progress {
            received: position_of(progress.received.ok_or("the progress has no position `received`")?)?,
            durable: position_of(progress.durable.ok_or("the progress has no position `durable`")?)?,
            origin: progress.origin.map(origin).transpose()?,
        })
    }
}

impl From<&Position> for v1::Position {
    fn from(position: &Position) -> Self {
        v1::Position { next: position.iter().collect() }
    }
}

impl From<Topic> for v1::Topic {
    fn from(Topic { name, id }: Topic) -> Self {
        v1::Topic { name, id }
    }
}

impl From<v1::Topic> for Topic {
    fn from(v1::Topic { name, id }: v1::Topic) -> Self {
        Topic { name, id }
    }
}

/// Reads a position, whose partitions and offsets are not negative.
pub(crate) fn position_of(position: v1::Position) -> Result<Position, String> {
    match position.next.iter().find(|(partition, next)| **partition < 0 || **next < 0) {
        Some((partition, next)) => {
            Err(format!("partition {partition}, offset {next}: neither is ever negative"))
        }
        None => Ok(position.next.into_iter().collect()),
    }
}
