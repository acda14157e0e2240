//! Bronze and gold as Delta tables of Parquet files, in a folder or an S3 bucket.
//!
//! This is the only crate that uses Parquet, object stores and Delta. A [`Table`] has one writer. Each commit puts one log entry, which
//! must not exist yet. The entry adds and removes files, and it carries the position that they reach, so rows and position always agree.
//! [`Snapshot`] reads one version, and [`provider()`] makes it a table of SQL.
//!
//! `deltalake-core` reads the log, creates tables and writes checkpoints. This crate writes commits and data files itself. A single writer
//! knows its own files, so a commit takes one request and no replay of the log.
//!
//! This crate is not a general Delta writer. It supports tables with the two schemas of Candleflight, and no newer Delta features such as
//! deletion vectors. It does not decide which rows to write: callers remove duplicates and compute gold.
//!
//! ```
//! use lake::{Lake, Table};
//! use position::Position;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let lake = Lake::open(&folder.path().display().to_string()).await?;
//! let mut bronze = Table::open(&lake, lake::bronze("bitcoin_data")).await?;
//!
//! // A commit without rows moves only the position.
//! let position = Position::from_iter([(0, 128)]);
//! bronze.append(&[], &position).await?;
//!
//! let reopened = Table::open(&lake, lake::bronze("bitcoin_data")).await?;
//! assert_eq!(reopened.snapshot().position(), &position);
//! assert_eq!(reopened.snapshot().row_count(), 0);
//! # Ok(())
//! # }
//! ```

mod causes;
mod changes;
mod checkpoint;
mod clock;
mod encoders;
mod entry;
mod error;
mod file;
mod history;
mod log;
mod maintain;
mod outcome;
mod properties;
mod provider;
mod read;
mod scan;
mod snapshot;
mod spec;
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
pub use spec::{Order, TableSpec, bronze, gold};
pub use store::Lake;
pub use table::Table;
