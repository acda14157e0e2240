//! The contract of Candleflight: the messages that travel on Flight beside Arrow data.
//!
//! The schema is in `candleflight/v1/*.proto`, beside this crate, and [`v1`] is generated from it. Each message has two encodings:
//! Protobuf, which our services speak, and JSON, which people and notebooks write. The first byte tells them apart. A server answers in
//! the encoding of the question.
//!
//! This crate holds messages only: it opens no connection and knows no Arrow data.
//!
//! ```
//! use proto::{Encoding, Message as _};
//! use proto::ticket::{Follow, Start, Ticket};
//!
//! let ticket = Ticket::Gold(Follow { from: Start::Now, ..Follow::default() });
//! let json = ticket.encode(Encoding::Json);
//! assert_eq!(json, r#"{"read":"gold","from":"now"}"#);
//! assert_eq!(Ticket::decode(&json).unwrap(), ticket);
//! let protobuf = ticket.encode(Encoding::Protobuf);
//! assert_eq!(Ticket::decode(&protobuf).unwrap(), ticket);
//! assert_eq!(Encoding::of(&protobuf), Encoding::Protobuf);
//! ```

mod message;
pub mod metadata;
pub mod put;
pub mod ticket;
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::allow_attributes_without_reason, reason = "generated code")]
pub mod v1;

pub use crate::message::{DecodeError, Encoding, Message};

/// Path of the DoPut descriptor that takes bronze batches.
pub const BRONZE: &str = "bronze";
/// Path of the DoPut descriptor that takes gold batches, for the followers of gold.
pub const GOLD: &str = "gold";
/// Names of the tables that tickets, puts and queries can name.
pub const TABLES: [&str; 2] = [BRONZE, GOLD];
/// DoAction type that returns a [`metadata::Progress`].
pub const PROGRESS_ACTION: &str = "progress";
/// DoAction type that takes a process's report of itself and returns the reports of all processes, one a result.
pub const REPORT_ACTION: &str = "report";
/// Version of the contract, as in [`v1::ProgressRequest`].
pub const VERSION: u32 = 1;

/// Returns the byte with which a Protobuf message begins whose first field has this number and is a message.
const fn tag(field: u8) -> u8 {
    field << 3 | 2
}
