//! The lake: bronze and gold as Delta tables of Parquet files, in a folder or an S3 bucket. The only crate that knows any of these.
//!
//! A commit is one put-if-absent of one log entry that adds and removes files and carries the position they reach, so rows and
//! position are one. `deltalake-core` reads the log, creates tables and writes checkpoints; commits and files are written here,
//! because a single writer that knows its own files pays one request a commit instead of a log replay.

mod changes;
mod encoders;
mod error;
mod file;
mod history;
mod log;
mod maintain;
mod properties;
mod provider;
mod read;
mod scan;
mod snapshot;
mod store;
mod table;
mod transactions;
mod upsert;
mod verdict;
mod write;

pub use changes::Changes;
pub use error::LakeError;
pub use history::Version;
pub use maintain::Maintenance;
pub use provider::provider;
pub use snapshot::Snapshot;
pub use store::Lake;
pub use table::{Order, Table, TableSpec, bronze, gold};
