//! Why the lake could not do what was asked.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use deltalake_core::DeltaTableError;
use position::Position;

use crate::table::TableSpec;
use crate::verdict::{Verdict, cause, verdict};

/// Why an operation on the lake failed.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The lake's address or the environment it needs is wrong; a person must correct it.
    #[error("open the lake at {url:?}: {reason}")]
    Location {
        /// What was given.
        url: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The object store refused or failed; what to do is in the message.
    #[error("{doing}{}", Advice(Some(verdict(source))))]
    Store {
        /// What was being done, to which object.
        doing: String,
        /// The store's answer.
        #[source]
        source: object_store::Error,
    },
    /// The object store lets two writers create the same object, so a commit could be overwritten: unusable for Delta tables.
    #[error(
        "{url} lets an object that exists be created again (it ignores If-None-Match): commits could be lost, use another store"
    )]
    NoPutIfAbsent {
        /// The lake.
        url: String,
    },
    /// The table exists with another schema.
    #[error(
        "the {table} table has another schema: column {column} is {found}, should be {wanted}; move the table away or use another lake"
    )]
    Schema {
        /// Name of the table.
        table: &'static str,
        /// The first column that differs.
        column: String,
        /// What the table has.
        found: String,
        /// What it should have.
        wanted: String,
    },
    /// The table uses Delta features that this crate does not, such as deletion vectors or column mapping.
    #[error(
        "the {table} table needs Delta reader version {reader} and writer version {writer}, supported are 1 and 2"
    )]
    Protocol {
        /// Name of the table.
        table: &'static str,
        /// The table's minimum reader version.
        reader: i32,
        /// The table's minimum writer version.
        writer: i32,
    },
    /// A table property forbids what corrections need.
    #[error(
        "the {table} table has delta.appendOnly = true, but a late candle replaces rows of it: take that away (ALTER TABLE … UNSET \
         TBLPROPERTIES ('delta.appendOnly')) and start again"
    )]
    AppendOnly {
        /// Name of the table.
        table: &'static str,
    },
    /// The table holds the rows of another topic.
    #[error(
        "the {table} table holds topic {found}, not {wanted}: use the lake of {wanted}, another --lake, or --topic {found}. \
         Nothing was changed"
    )]
    OtherTopic {
        /// Name of the table.
        table: &'static str,
        /// The topic whose offsets its position counts.
        found: String,
        /// The topic that was asked for.
        wanted: String,
    },
    /// A table property lets an engine drop the application transactions that hold the position.
    #[error(
        "the {table} table has delta.setTransactionRetentionDuration = {found}, which lets an engine drop the table's position: \
         take it away (ALTER TABLE … UNSET TBLPROPERTIES ('delta.setTransactionRetentionDuration')) and start again"
    )]
    TransactionRetention {
        /// Name of the table.
        table: &'static str,
        /// The property's value.
        found: String,
    },
    /// The table holds rows that its position does not know: the position was lost.
    #[error(
        "the {table} table holds {holds} in {file}, but its position is {{{position}}}: another engine has lost the position (a CLONE, \
         or a checkpoint without application transactions). Nothing was changed. Bring back the table's _delta_log, or start with an \
         empty lake (another --lake) and `candleflight gold --rebuild`"
    )]
    PositionLost {
        /// Name of the table.
        table: &'static str,
        /// The first file with such rows.
        file: String,
        /// Rows that the file holds.
        holds: String,
        /// The table's position.
        position: Position,
    },
    /// Another engine took the table's files back to an older version, but not its position.
    #[error(
        "version {version} of the {table} table restores an older version, whose rows end below the table's position: rows would be \
         missing. Restore version {before} (RESTORE TABLE … TO VERSION AS OF {before}) and start again"
    )]
    Restored {
        /// Name of the table.
        table: &'static str,
        /// The version that did it.
        version: u64,
        /// The version before.
        before: u64,
    },
    /// Someone else moved the table's position: this writer must stop. Nothing is lost or doubled.
    #[error(
        "another writer took over the {table} table at version {version}: let only one run, then start again; nothing is lost"
    )]
    Fenced {
        /// Name of the table.
        table: &'static str,
        /// The version that the other writer committed.
        version: u64,
    },
    /// Another engine changes the table without pause, and each of its commits was first; the position has not moved. Try again.
    #[error("the {table} table is busy: another engine commits all the time; trying again")]
    Busy {
        /// Name of the table.
        table: &'static str,
    },
    /// The table is already past the position of this commit: deduplicate against the snapshot and call again.
    #[error("the {table} table is at {reached}, a commit must not take it back to {asked}")]
    Moved {
        /// Name of the table.
        table: &'static str,
        /// The table's position.
        reached: Position,
        /// The position of the refused commit.
        asked: Position,
    },
    /// A file of the snapshot was removed by vacuum: take a new snapshot and call again.
    #[error("the snapshot is too old, its file {path} was vacuumed")]
    Expired {
        /// The file.
        path: String,
    },
    /// A failure that several callers share, since they waited together.
    #[error(transparent)]
    Shared(Arc<LakeError>),
    /// There is no such version of the table, or its log entries were cleaned up.
    #[error("the {table} table has no version {asked}: there are versions {first} to {last}")]
    Version {
        /// Name of the table.
        table: &'static str,
        /// The version that was asked for.
        asked: u64,
        /// The first that can be read.
        first: u64,
        /// The last that can be read.
        last: u64,
    },
    /// The Delta log could not be read or written.
    #[error("{doing}{}", Advice(of_store(source.as_ref())))]
    Delta {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: Box<DeltaTableError>,
    },
    /// A data file cannot be encoded or decoded.
    #[error("read or write the Parquet file {path}{}", Advice(of_store(source)))]
    Parquet {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// Rows do not have the table's schema.
    #[error("arrange rows for the {table} table")]
    Rows {
        /// Name of the table.
        table: &'static str,
        /// What does not fit.
        #[source]
        source: arrow::error::ArrowError,
    },
}

impl LakeError {
    /// Returns true if the same call may succeed later: the store is unreachable, overloaded, out of space, or does not let us in (yet,
    /// or any more), which all are in one table. The table stays usable.
    pub fn is_transient(&self) -> bool {
        match self {
            LakeError::Store { source, .. } => verdict(source).passes,
            LakeError::Delta { source, .. } => {
                of_store(source.as_ref()).is_some_and(|verdict| verdict.passes)
            }
            LakeError::Parquet { source, .. } => of_store(source).is_some_and(|verdict| verdict.passes),
            LakeError::Busy { .. } => true,
            LakeError::Shared(error) => error.is_transient(),
            LakeError::Location { .. }
            | LakeError::NoPutIfAbsent { .. }
            | LakeError::Schema { .. }
            | LakeError::Protocol { .. }
            | LakeError::AppendOnly { .. }
            | LakeError::OtherTopic { .. }
            | LakeError::TransactionRetention { .. }
            | LakeError::PositionLost { .. }
            | LakeError::Restored { .. }
            | LakeError::Fenced { .. }
            | LakeError::Moved { .. }
            | LakeError::Expired { .. }
            | LakeError::Version { .. }
            | LakeError::Rows { .. } => false,
        }
    }

    pub(crate) fn other_topic(spec: &TableSpec, found: &str) -> LakeError {
        LakeError::OtherTopic { table: spec.name, found: found.to_owned(), wanted: spec.topic.clone() }
    }

    pub(crate) fn store(doing: impl Into<String>) -> impl FnOnce(object_store::Error) -> LakeError {
        let doing = doing.into();
        move |source| LakeError::Store { doing, source }
    }

    pub(crate) fn delta(doing: impl Into<String>) -> impl FnOnce(DeltaTableError) -> LakeError {
        let doing = doing.into();
        move |source| LakeError::Delta { doing, source: Box::new(source) }
    }
}

/// Advice on an error, behind a colon.
struct Advice(Option<Verdict>);

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_ref().and_then(|verdict| verdict.advice.as_ref()) {
            Some(advice) => write!(f, ": {advice}"),
            None => Ok(()),
        }
    }
}

/// Says what the store's error below another means, if there is one.
fn of_store(error: &(dyn Error + 'static)) -> Option<Verdict> {
    cause(error).map(verdict)
}
