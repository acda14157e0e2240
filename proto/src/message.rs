//! One schema, two encodings.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The first byte of a message in JSON. It begins no message in Protobuf: it would be a group, which proto3 does not have.
const JSON_BEGIN: u8 = b'{';

/// The encoding of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// JSON, for people and notebooks.
    #[default]
    Json,
    /// Protobuf, as [`crate::v1`] declares it.
    Protobuf,
}

/// A message with both encodings.
pub trait Message: Serialize + DeserializeOwned {
    /// The message in Protobuf.
    type Protobuf: prost::Message + Default + TryInto<Self, Error = String>;

    /// The name of the message in errors.
    const NAME: &'static str;

    /// Returns the message in Protobuf.
    fn to_protobuf(&self) -> Self::Protobuf;

    /// Writes the message.
    fn encode(&self, encoding: Encoding) -> Bytes {
        match encoding {
            Encoding::Json => serde_json::to_vec(self).expect("a message has string keys").into(),
            Encoding::Protobuf => prost::Message::encode_to_vec(&self.to_protobuf()).into(),
        }
    }

    /// Reads the message in either encoding.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the bytes are no such message: an error of the peer, which a retry does not heal.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let error = |reason| DecodeError { message: Self::NAME, reason };
        match Encoding::of(bytes) {
            Encoding::Json => serde_json::from_slice(bytes).map_err(|source| error(Reason::Json(source))),
            Encoding::Protobuf => {
                let message = <Self::Protobuf as prost::Message>::decode(bytes);
                let message = message.map_err(|source| error(Reason::Protobuf(source)))?;
                message.try_into().map_err(|reason| error(Reason::Value(reason)))
            }
        }
    }
}

impl Encoding {
    /// Returns the encoding of a message. The encoding of an empty message is JSON.
    pub fn of(bytes: &[u8]) -> Encoding {
        match bytes.first() {
            None | Some(&JSON_BEGIN) => Encoding::Json,
            Some(_) => Encoding::Protobuf,
        }
    }
}

/// The reason why a message cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read {message} {reason}")]
pub struct DecodeError {
    message: &'static str,
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("as JSON: {0}")]
    Json(serde_json::Error),
    #[error("as Protobuf: {0}")]
    Protobuf(prost::DecodeError),
    #[error("as Protobuf: {0}")]
    Value(String),
}

#[cfg(test)]
mod tests;
