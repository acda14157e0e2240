//! The `app_metadata` of batches and put results.

use bytes::Bytes;
use position::{OffsetRange, Origin, Position};
use serde::{Deserialize, Serialize};

use crate::DecodeError;

/// Most offsets that one batch on DoPut may stand for, rows or not: a wrong range takes a position no further, and one that is right but
/// longer, as where Kafka has compacted a partition, goes in several batches.
pub const RANGE_OFFSETS_MAX: i64 = 1 << 24;

/// Travels with every batch on DoPut and DoGet: `{"range":{"partition":0,"first":128,"next":256}}`.
///
/// An empty range with no rows is a keep-alive; an empty batch with a range that is not empty stands for offsets without usable rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchMetadata {
    /// The offsets that the batch stands for.
    pub range: OffsetRange,
}

/// How far bronze is; travels with every `PutResult` and answers the `progress` action:
/// `{"received":{"0":256},"durable":{"0":128},"origin":{"topic":{"name":"bitcoin_data","id":"9Z…"},"table":"5f0c…"}}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Visible to queries and followers, lost if the server dies (and then sent again).
    pub received: Position,
    /// Committed to the bronze table: survives everything. Offsets up to here may be committed to Kafka.
    pub durable: Position,
    /// What both positions count in. The `progress` action answers with it; put results and servers of version 0.1 leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

impl BatchMetadata {
    /// Writes the message.
    pub fn encode(&self) -> Bytes {
        crate::encode(self)
    }

    /// Reads the message.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the bytes are not this message: the peer's bug, not to be retried.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        crate::decode("batch metadata", bytes)
    }
}

impl Progress {
    /// Writes the message.
    pub fn encode(&self) -> Bytes {
        crate::encode(self)
    }

    /// Reads the message.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the bytes are not this message: the peer's bug, not to be retried.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        crate::decode("progress", bytes)
    }
}
