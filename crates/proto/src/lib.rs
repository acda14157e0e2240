//! What travels on Flight besides Arrow: tickets, batch metadata and progress.
//!
//! All of it is JSON, not protobuf: any Flight client can write a ticket and read a batch's range without generated code, and both
//! can be read in a log. One such message a batch costs nothing beside the batch.

pub mod client;
pub mod descriptor;
pub mod metadata;
pub mod stream;
pub mod ticket;

/// Path of the DoPut descriptor that takes bronze batches.
pub const BRONZE: &str = "bronze";
/// Path of the DoPut descriptor that takes gold batches, for those who follow gold.
pub const GOLD: &str = "gold";
/// DoAction type that returns a [`metadata::Progress`].
pub const PROGRESS_ACTION: &str = "progress";
/// DoAction type that takes a process's report of itself and returns those of all, one a result.
pub const REPORT_ACTION: &str = "report";

/// Largest HTTP/2 frame that either side takes, in bytes: a batch is a few system calls then, not one for every 16 KiB.
pub const FRAME_BYTES_MAX: u32 = 1024 * 1024;

/// Why a ticket or an `app_metadata` could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read {what} as JSON")]
pub struct DecodeError {
    what: &'static str,
    #[source]
    source: serde_json::Error,
}

fn decode<T: serde::de::DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(bytes).map_err(|source| DecodeError { what, source })
}

fn encode(message: &impl serde::Serialize) -> bytes::Bytes {
    serde_json::to_vec(message).expect("our messages are plain structs with string keys").into()
}
