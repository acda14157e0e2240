//! Errors of the lake.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use deltalake_core::DeltaTableError;
use position::Position;

use crate::causes::cause;
use crate::outcome::Verdict;
use crate::spec::TableSpec;
use crate::verdict::verdict;

/// An error of an operation on the lake.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The lake's address or its environment is wrong. A person must correct it.
    #[error("open the lake at {url:?}: {reason}")]
    Location {
        /// The given address.
        url: String,
        /// The mistake, and what to do.
        reason: String,
    },
    /// The object store rejected a request or failed. The message contains what to do.
    #[error("{doing}{}", Advice(Some(verdict(source))))]
    Store {
        /// The action that failed, and its object.
        doing: String,
        /// The store's answer.
        #[source]
        source: object_store::Error,
    },
    /// The object store lets two writers create the same object. A commit could then be overwritten, so the store cannot hold Delta tables.
    #[error(
        "{url} allows an object that exists to be created again (it ignores If-None-Match): commits could be lost, so use another store"
    )]
    NoPutIfAbsent {
        /// The address of the lake.
        url: String,
    },
    /// The table exists with a different schema.
    #[error(
        "the {table} table has another schema: column {column} is {found} but must be {expected}; move the table away or use another lake"
    )]
    Schema {
        /// Name of the table.
        table: &'static str,
        /// The first column that differs.
        column: String,
        /// The column in the table.
        found: String,
        /// The expected column.
        expected: String,
    },
    /// The table uses Delta features that this crate does not support, such as deletion vectors or column mapping.
    #[error(
        "the {table} table needs Delta reader version {reader} and writer version {writer}; versions 1 and 2 are supported"
    )]
    Protocol {
        /// Name of the table.
        table: &'static str,
        /// The table's minimum reader version.
        reader: i32,
        /// The table's minimum writer version.
        writer: i32,
    },
    /// A table property forbids corrections, because they replace rows.
    #[error(
        "the {table} table has delta.appendOnly = true, but a late candle replaces rows of it: remove the property (ALTER TABLE … UNSET \
         TBLPROPERTIES ('delta.appendOnly')) and start again"
    )]
    AppendOnly {
        /// Name of the table.
        table: &'static str,
    },
    /// The table holds the rows of a different topic.
    #[error(
        "the {table} table holds topic {found}, not {expected}: use the lake of {expected}, give another --lake, or give --topic {found}. \
         Nothing was changed"
    )]
    OtherTopic {
        /// Name of the table.
        table: &'static str,
        /// The topic whose offsets the table's position counts.
        found: String,
        /// The topic that the caller expects.
        expected: String,
    },
    /// A table property lets an engine drop application transactions, which hold the position.
    #[error(
        "the {table} table has delta.setTransactionRetentionDuration = {found}, which allows an engine to drop the table's position: \
         remove it (ALTER TABLE … UNSET TBLPROPERTIES ('delta.setTransactionRetentionDuration')) and start again"
    )]
    TransactionRetention {
        /// Name of the table.
        table: &'static str,
        /// The property's value.
        found: String,
    },
    /// The table holds rows at or above its position: the position was lost.
    #[error(
        "the {table} table holds {holds} in {file}, but its position is {{{position}}}: another engine has lost the position (a CLONE, \
         or a checkpoint without application transactions). Nothing was changed. Restore the table's _delta_log, or start with an \
         empty lake (another --lake) and `candleflight gold --rebuild`"
    )]
    PositionLost {
        /// Name of the table.
        table: &'static str,
        /// The first file with such rows.
        file: String,
        /// The rows that the file holds.
        holds: String,
        /// The table's position.
        position: Position,
    },
    /// Another engine restored an older version of the table's files, but the table's position is still the newer one.
    #[error(
        "version {version} of the {table} table restores an older version, whose rows end below the table's position: rows would be \
         missing. Restore version {before} (RESTORE TABLE … TO VERSION AS OF {before}) and start again"
    )]
    Restored {
        /// Name of the table.
        table: &'static str,
        /// The version that restored the files.
        version: u64,
        /// The version before.
        before: u64,
    },
    /// Another writer moved the table's position, so this writer must stop. No rows are lost or duplicated.
    #[error(
        "another writer took over the {table} table at version {version}: run only one writer, then start again; nothing is lost"
    )]
    Fenced {
        /// Name of the table.
        table: &'static str,
        /// The version that the other writer committed.
        version: u64,
    },
    /// Another engine commits to the table without pause, and each of its commits came first. The position has not moved. Try again.
    #[error("the {table} table is busy: another engine commits all the time; trying again")]
    Busy {
        /// Name of the table.
        table: &'static str,
    },
    /// The table is already past the position of this commit. Remove the rows that the snapshot holds, and call again.
    #[error("the {table} table is at {reached}; a commit must not move it back to {requested}")]
    Moved {
        /// Name of the table.
        table: &'static str,
        /// The table's position.
        reached: Position,
        /// The position of the rejected commit.
        requested: Position,
    },
    /// Vacuum has removed a file of the snapshot. Take a new snapshot and call again.
    #[error("the snapshot is too old: vacuum has removed its file {path}")]
    Expired {
        /// The file.
        path: String,
    },
    /// An error that several callers share, because they waited together.
    #[error(transparent)]
    Shared(Arc<LakeError>),
    /// The table has no such version, or its log entries were cleaned up.
    #[error("the {table} table has no version {requested}: there are versions {first} to {last}")]
    Version {
        /// Name of the table.
        table: &'static str,
        /// The requested version.
        requested: u64,
        /// The first version that can be read.
        first: u64,
        /// The last version that can be read.
        last: u64,
    },
    /// The Delta log could not be read or written.
    #[error("{doing}{}", Advice(of_store(source.as_ref())))]
    Delta {
        /// The action that failed.
        doing: String,
        /// The cause.
        #[source]
        source: Box<DeltaTableError>,
    },
    /// A data file cannot be encoded or decoded.
    #[error("read or write the Parquet file {path}{}", Advice(of_store(source)))]
    Parquet {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// Rows do not have the table's schema.
    #[error("arrange rows for the {table} table")]
    Rows {
        /// Name of the table.
        table: &'static str,
        /// The mismatch.
        #[source]
        source: arrow::error::ArrowError,
    },
}

impl LakeError {
    /// Returns true if the same call may succeed later: the store is unreachable, overloaded or full, or it denies access for now. The
    /// module `verdict` lists these cases in one table. The table in the lake stays usable.
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
        LakeError::OtherTopic { table: spec.name, found: found.to_owned(), expected: spec.topic.clone() }
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

/// Advice on an error, written after a colon.
struct Advice(Option<Verdict>);

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_ref().and_then(|verdict| verdict.advice.as_ref()) {
            Some(advice) => write!(f, ": {advice}"),
            None => Ok(()),
        }
    }
}

/// Returns the meaning of the store's error among the causes of `error`, if there is one.
fn of_store(error: &(dyn Error + 'static)) -> Option<Verdict> {
    cause(error).map(verdict)
}
