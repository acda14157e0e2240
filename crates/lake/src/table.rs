//! A table and its only writer. Every change is one commit of one log entry.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::CommitData;
use deltalake_core::kernel::{Action, Add, Metadata};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use futures::future::BoxFuture;
use position::Position;
use schema::DATE;
use uuid::Uuid;

use crate::LakeError;
use crate::checkpoint;
use crate::clock::now_millis;
use crate::file::DataFile;
use crate::log::{self, PutCommit};
use crate::properties::{BRONZE, Claims, FILE_RETENTION, TOPIC_ID, with_claims};
use crate::snapshot::Snapshot;
use crate::spec::TableSpec;
use crate::store::{Lake, TableStore};
use crate::transactions::{check_files, committable, transactions};
use crate::write::{put_files, split};

/// Maximum number of times that one change is put again on top of a newer version. Another engine's maintenance makes such a version
/// every few minutes, and a commit takes milliseconds.
const REBASES_MAX: usize = 10;
/// Mean time between two of these puts.
const REBASE_PAUSE: Duration = Duration::from_millis(50);

/// A table, for its only writer or for a reader.
///
/// After a transient error the table stays usable: repeat the call with the same arguments. If the failed commit has arrived after all, the
/// call finds it in the log and counts it as done. To change the arguments instead, first call [`Table::refresh`] and read the position.
#[derive(Debug)]
pub struct Table {
    pub(crate) spec: Arc<TableSpec>,
    pub(crate) store: TableStore,
    pub(crate) snapshot: Snapshot,
    pending: Option<Pending>,
    /// Properties that the next commit sets.
    claims: Claims,
}

/// A commit whose put has no answer yet.
#[derive(Debug)]
struct Pending {
    /// A unique id, which identifies this commit in the log.
    id: String,
    entry: Bytes,
    /// The snapshot of the table if the commit arrives.
    next: Snapshot,
    /// True if the commit carries rows or a position. Commits of maintenance do not.
    moves: bool,
}

/// The changes of a commit.
pub(crate) struct Change {
    pub(crate) operation: DeltaOperation,
    pub(crate) removed: Vec<Arc<DataFile>>,
    pub(crate) added: Vec<Add>,
    pub(crate) position: Position,
}

impl Table {
    /// Opens the table, and creates it if it does not exist. Another process may create it at the same time.
    ///
    /// # Errors
    ///
    /// [`LakeError::Schema`], [`LakeError::Protocol`], [`LakeError::AppendOnly`] or [`LakeError::OtherTopic`] if this crate cannot use the
    /// table. [`LakeError::PositionLost`], [`LakeError::TransactionRetention`] or [`LakeError::Restored`] if another engine has lost the
    /// position, or may lose it. For other errors, see [`LakeError::is_transient`].
    pub fn open(lake: &Lake, spec: TableSpec) -> BoxFuture<'_, Result<Table, LakeError>> {
        Box::pin(async move {
            let (store, spec) = (lake.table(spec.prefix)?, Arc::new(spec));
            log::ensure(&spec, &store).await?;
            let snapshot = log::load(&spec, &store).await?;
            Ok(Table { spec, store, snapshot, pending: None, claims: Claims::new() })
        })
    }

    /// Returns the latest version that this table has read or written.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// Sets the topic's id. The next commit makes it durable.
    pub fn set_topic_id(&mut self, id: &str) {
        self.claims.insert(TOPIC_ID, id.to_owned());
    }

    /// Sets the id of the bronze table that this table is computed from. The next commit makes it durable.
    pub fn set_bronze_id(&mut self, id: &str) {
        self.claims.insert(BRONZE, id.to_owned());
    }

    /// Sets the retention of replaced files. The next commit makes it durable.
    pub(crate) fn claim_retention(&mut self, retention: Duration) {
        self.claims.insert(FILE_RETENTION, format!("interval {} seconds", retention.as_secs()));
    }

    /// Removes all rows from the table and moves its position to the beginning, in one commit. Older versions stay readable until vacuum.
    ///
    /// # Errors
    ///
    /// [`LakeError::Fenced`] if another writer has moved the position. For other errors, see [`LakeError::is_transient`].
    pub fn empty(&mut self) -> BoxFuture<'_, Result<Snapshot, LakeError>> {
        Box::pin(async move {
            self.settle().await?;
            for _ in 0..=REBASES_MAX {
                let change = Change {
                    operation: DeltaOperation::Delete { predicate: None },
                    removed: self.snapshot.0.files.clone(),
                    added: Vec::new(),
                    position: Position::default(),
                };
                if self.commit(change).await? {
                    return Ok(self.snapshot());
                }
            }
            Err(LakeError::Busy { table: self.spec.name })
        })
    }

    /// Reads the commits of others, and the outcome of an own commit that failed. Returns the latest version.
    ///
    /// # Errors
    ///
    /// See [`LakeError::is_transient`].
    pub fn refresh(&mut self) -> BoxFuture<'_, Result<Snapshot, LakeError>> {
        Box::pin(async move {
            self.settle().await?;
            self.snapshot = log::advance(&self.snapshot).await?;
            Ok(self.snapshot())
        })
    }

    /// Adds rows and moves the position in one commit, which is durable on return. The caller has removed duplicates. Without rows, the
    /// commit moves only the position.
    ///
    /// # Errors
    ///
    /// [`LakeError::Fenced`] if another writer has moved the position. [`LakeError::Moved`] if the table is already past `position`.
    /// [`LakeError::Rows`] if the rows have another schema. For other errors, see [`LakeError::is_transient`].
    pub fn append<'a>(
        &'a mut self,
        batches: &'a [RecordBatch],
        position: &'a Position,
    ) -> BoxFuture<'a, Result<Snapshot, LakeError>> {
        Box::pin(async move {
            let Some(position) = self.begin(batches, position).await? else { return Ok(self.snapshot()) };
            let files = split(&self.spec, batches, false)?;
            let added = put_files(&self.spec, &self.store, batches.to_vec(), files, true).await?;
            for _ in 0..=REBASES_MAX {
                let change = Change {
                    operation: write_operation(),
                    removed: Vec::new(),
                    added: added.clone(),
                    position: position.clone(),
                };
                if self.commit(change).await? {
                    return Ok(self.snapshot());
                }
            }
            Err(LakeError::Busy { table: self.spec.name })
        })
    }

    /// Adds rows like [`Table::append`]. A row whose (symbol, event time) is already in the table replaces the old row. Within `batches`,
    /// the last row of a key wins. Rewrites only the files that hold replaced rows.
    ///
    /// # Errors
    ///
    /// The errors of [`Table::append`].
    pub fn upsert<'a>(
        &'a mut self,
        batches: &'a [RecordBatch],
        position: &'a Position,
    ) -> BoxFuture<'a, Result<Snapshot, LakeError>> {
        Box::pin(async move {
            let Some(position) = self.begin(batches, position).await? else { return Ok(self.snapshot()) };
            for _ in 0..=REBASES_MAX {
                let (removed, added) = self.plan_upsert(batches).await?;
                let change =
                    Change { operation: write_operation(), removed, added, position: position.clone() };
                if self.commit(change).await? {
                    return Ok(self.snapshot());
                }
            }
            Err(LakeError::Busy { table: self.spec.name })
        })
    }

    /// Commits on top of the current snapshot. Returns false if another engine's maintenance came first. The snapshot is then the newer
    /// one, and the caller must plan the change again.
    pub(crate) async fn commit(&mut self, change: Change) -> Result<bool, LakeError> {
        let moves = !matches!(change.operation, DeltaOperation::Optimize { .. });
        let id = Uuid::new_v4().to_string();
        let added = change.added.iter().map(|add| log::data_file(&self.spec, add));
        let added = added.collect::<Result<Vec<Arc<DataFile>>, _>>()?;
        check_files(&self.spec, &change.position, &added)?;
        let removed: HashSet<_> = change.removed.iter().map(|file| file.path.clone()).collect();
        let mut next =
            self.snapshot.after(self.snapshot.version() + 1, change.position.clone(), &removed, added);
        let claimed = with_claims(&self.snapshot.0.metadata, &self.claims).map_err(self.entry_failed())?;
        let entry = self.entry(change, &id, claimed.as_ref())?;
        if let Some(metadata) = claimed {
            next = next.with_metadata(metadata);
        }
        if moves {
            failpoint::pass(&format!("{}.written", self.spec.name));
        }
        self.pending = Some(Pending { id, entry, next, moves });
        if !self.settle().await? {
            return Ok(false);
        }
        if moves {
            failpoint::pass(&format!("{}.committed", self.spec.name));
        }
        checkpoint::checkpoint_if_due(&self.snapshot).await;
        Ok(true)
    }

    /// Puts the pending commit, several times if needed, until the log holds it or another commit of its version. Returns true if the log
    /// holds the pending commit.
    pub(crate) async fn settle(&mut self) -> Result<bool, LakeError> {
        let Some(pending) = &self.pending else { return Ok(false) };
        let landed =
            log::put_commit(&self.store, pending.next.version(), &pending.entry, &pending.id).await?;
        let pending = self.pending.take().expect("the pending commit was found above");
        match landed {
            PutCommit::Landed => self.snapshot = pending.next,
            PutCommit::Taken => {
                let newer = log::advance(&self.snapshot).await?;
                if newer.position() != self.snapshot.position() {
                    return Err(LakeError::Fenced { table: self.spec.name, version: pending.next.version() });
                }
                tracing::warn!(
                    table = self.spec.name,
                    version = newer.version(),
                    "another engine changed the table; continuing from its version"
                );
                self.snapshot = newer;
                tokio::time::sleep(REBASE_PAUSE.mul_f64(rand::random_range(0.5..=1.5))).await;
            }
        }
        Ok(matches!(landed, PutCommit::Landed))
    }

    /// Returns the position that a write commits. Returns `None` if nothing is left to do, because the write is already in the log or has
    /// nothing new.
    async fn begin(
        &mut self,
        batches: &[RecordBatch],
        position: &Position,
    ) -> Result<Option<Position>, LakeError> {
        let position = committable(position);
        if self.has_landed(&position).await? || self.is_idle(batches, &position) {
            return Ok(None);
        }
        self.check_forward(&position)?;
        Ok(Some(position))
    }

    /// Returns true if an earlier call with this position failed but its commit is in the log.
    async fn has_landed(&mut self, position: &Position) -> Result<bool, LakeError> {
        let moves = self.pending.as_ref().is_some_and(|pending| pending.moves);
        Ok(self.settle().await? && moves && self.snapshot.position() == position)
    }

    fn is_idle(&self, batches: &[RecordBatch], position: &Position) -> bool {
        self.snapshot.position() == position && batches.iter().all(|batch| batch.num_rows() == 0)
    }

    fn check_forward(&self, position: &Position) -> Result<(), LakeError> {
        let reached = self.snapshot.position();
        if position.covers(reached) {
            return Ok(());
        }
        Err(LakeError::Moved { table: self.spec.name, reached: reached.clone(), requested: position.clone() })
    }

    fn entry(&self, change: Change, id: &str, claimed: Option<&Metadata>) -> Result<Bytes, LakeError> {
        let data_change = !matches!(change.operation, DeltaOperation::Optimize { .. });
        let now = now_millis();
        let removes = change.removed.iter().map(|file| Action::Remove(file.to_remove(now, data_change)));
        let metadata = claimed.map(|metadata| Action::Metadata(metadata.clone()));
        let actions =
            metadata.into_iter().chain(removes).chain(change.added.into_iter().map(Action::Add)).collect();
        // Other engines may then commit a DELETE or MERGE that was planned before this append.
        let is_blind = data_change && change.removed.is_empty();
        let info =
            [("candleflightCommit".to_owned(), id.into()), ("isBlindAppend".to_owned(), is_blind.into())];
        let info = info.into();
        let transactions = transactions(&self.spec.topic, self.snapshot.position(), &change.position);
        let entry = CommitData::new(actions, change.operation, info, transactions).get_bytes();
        entry.map_err(|error| self.entry_failed()(error.into()))
    }

    fn entry_failed(&self) -> impl FnOnce(DeltaTableError) -> LakeError + use<> {
        LakeError::delta(format!("write a log entry of the {} table", self.spec.name))
    }
}

fn write_operation() -> DeltaOperation {
    DeltaOperation::Write {
        mode: SaveMode::Append,
        partition_by: Some(vec![DATE.to_owned()]),
        predicate: None,
    }
}

#[cfg(test)]
mod tests;
