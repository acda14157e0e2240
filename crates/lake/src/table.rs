//! A table and its single writer: every change is one commit of one log entry.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
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
use crate::file::DataFile;
use crate::log::{self, PutCommit};
use crate::maintain;
use crate::properties::{BRONZE, Claims, FILE_RETENTION, TOPIC_ID, with_claims};
use crate::snapshot::Snapshot;
use crate::store::{Lake, TableStore};
use crate::transactions::{check_files, transactions};
use crate::write::{put_files, split};

/// How often one change is put on top of a newer version that another engine's maintenance has made meanwhile: it comes by
/// minutes, a commit takes milliseconds.
const REBASES_MAX: usize = 10;
/// Mean time between two of them.
const REBASE_PAUSE: Duration = Duration::from_millis(50);

/// What a table is called, where it is and what it holds.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// `bronze` or `gold`: its name in errors and failpoints.
    pub name: &'static str,
    /// Its folder in the lake.
    pub prefix: &'static str,
    /// Schema of its rows.
    pub schema: SchemaRef,
    /// The Kafka topic whose offsets its position is made of.
    pub topic: String,
    /// How its rows are dealt out to files and ordered there.
    pub order: Order,
}

/// The order of the rows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A file holds one date and one Kafka partition, ordered by offset: the log's statistics then say which offsets it holds.
    Offset,
    /// A file holds one date, ordered by symbol and event time.
    Key,
}

/// Returns the bronze table of `topic`: `streaming_raw`.
pub fn bronze(topic: &str) -> TableSpec {
    let topic = topic.to_owned();
    TableSpec {
        name: "bronze",
        prefix: "streaming_raw",
        schema: schema::bronze::schema(),
        topic,
        order: Order::Offset,
    }
}

/// Returns the gold table of `topic`: `gold_aggregates`.
pub fn gold(topic: &str) -> TableSpec {
    let topic = topic.to_owned();
    TableSpec {
        name: "gold",
        prefix: "gold_aggregates",
        schema: schema::gold::schema(),
        topic,
        order: Order::Key,
    }
}

/// A table, for its one writer or for a reader.
///
/// After a transient error the table stays usable: call the same method with the same arguments again. If the failed commit had
/// arrived after all, that call finds it in the log and counts it as done. To change the arguments instead, [`Table::refresh`]
/// first and look at the position.
#[derive(Debug)]
pub struct Table {
    pub(crate) spec: Arc<TableSpec>,
    pub(crate) store: TableStore,
    pub(crate) snapshot: Snapshot,
    pending: Option<Pending>,
    /// Properties that the next commit sets.
    claims: Claims,
}

/// A commit whose put has not been answered.
#[derive(Debug)]
struct Pending {
    /// Found in the log entry if it is ours.
    id: String,
    entry: Bytes,
    /// The table if it arrives.
    next: Snapshot,
    /// Whether it carries rows or a position; maintenance does not.
    moves: bool,
}

/// What a commit changes.
pub(crate) struct Change {
    pub(crate) operation: DeltaOperation,
    pub(crate) removed: Vec<Arc<DataFile>>,
    pub(crate) added: Vec<Add>,
    pub(crate) position: Position,
}

impl Table {
    /// Opens the table, creating it when absent. Losing the race to create it is fine.
    ///
    /// # Errors
    ///
    /// [`LakeError::Schema`], [`LakeError::Protocol`] and [`LakeError::OtherTopic`] when the table is not ours to use,
    /// [`LakeError::PositionLost`], [`LakeError::TransactionRetention`] and [`LakeError::Restored`] when another engine has lost its
    /// position, otherwise see [`LakeError::is_transient`].
    pub fn open(lake: &Lake, spec: TableSpec) -> BoxFuture<'_, Result<Table, LakeError>> {
        Box::pin(async move {
            let (store, spec) = (lake.table(spec.prefix)?, Arc::new(spec));
            log::ensure(&spec, &store).await?;
            let snapshot = log::load(&spec, &store).await?;
            Ok(Table { spec, store, snapshot, pending: None, claims: Claims::new() })
        })
    }

    /// Returns the latest version that this table knows of.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// Names the topic's id; the next commit makes it durable.
    pub fn set_topic_id(&mut self, id: &str) {
        self.claims.insert(TOPIC_ID, id.to_owned());
    }

    /// Names the bronze table that this one is computed from; the next commit makes it durable.
    pub fn set_bronze_id(&mut self, id: &str) {
        self.claims.insert(BRONZE, id.to_owned());
    }

    /// Names how long replaced files stay; the next commit makes it durable.
    pub(crate) fn claim_retention(&mut self, retention: Duration) {
        self.claims.insert(FILE_RETENTION, format!("interval {} seconds", retention.as_secs()));
    }

    /// Takes all rows out of the table and its position back to the beginning, in one commit. Older versions stay readable until vacuum.
    ///
    /// # Errors
    ///
    /// [`LakeError::Fenced`] when another writer has moved the position, otherwise see [`LakeError::is_transient`].
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

    /// Learns what others have committed, and the outcome of an own commit that failed; returns the latest version.
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

    /// Adds rows and moves the position in one commit, durable on return. The caller has deduplicated; no rows moves only the position.
    ///
    /// # Errors
    ///
    /// [`LakeError::Fenced`] when another writer has moved the position, [`LakeError::Moved`] when the table is already past
    /// `position`, [`LakeError::Rows`] when the rows have another schema, else see [`LakeError::is_transient`].
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

    /// Adds rows like [`Table::append`], but a row whose (symbol, event time) is in the table already replaces the old one, and
    /// within `batches` the last row of a key wins. Rewrites just the files that hold such old rows.
    ///
    /// # Errors
    ///
    /// As [`Table::append`].
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

    /// Commits on top of the current snapshot. `false` when another engine's maintenance was first: the snapshot is then the newer
    /// one, and the change must be planned again on it.
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
        maintain::checkpoint_if_due(&self.snapshot).await;
        Ok(true)
    }

    /// Puts the pending commit, again if need be, until it is known whether it or another one is in the log; tells whether ours is.
    pub(crate) async fn settle(&mut self) -> Result<bool, LakeError> {
        let Some(pending) = &self.pending else { return Ok(false) };
        let landed =
            log::put_commit(&self.store, pending.next.version(), &pending.entry, &pending.id).await?;
        let pending = self.pending.take().expect("it was there a moment ago");
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
                    "another engine changed the table; going on from there"
                );
                self.snapshot = newer;
                tokio::time::sleep(REBASE_PAUSE.mul_f64(rand::random_range(0.5..=1.5))).await;
            }
        }
        Ok(matches!(landed, PutCommit::Landed))
    }

    /// Returns what a write commits as its position; `None` where nothing is left to do: it is in the log already, or nothing has come.
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

    /// Tells whether an earlier call with this position failed, but its commit is in the log.
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
        Err(LakeError::Moved { table: self.spec.name, reached: reached.clone(), asked: position.clone() })
    }

    fn entry(&self, change: Change, id: &str, claimed: Option<&Metadata>) -> Result<Bytes, LakeError> {
        let data_change = !matches!(change.operation, DeltaOperation::Optimize { .. });
        let now = now_millis();
        let removes = change.removed.iter().map(|file| Action::Remove(file.to_remove(now, data_change)));
        let metadata = claimed.map(|metadata| Action::Metadata(metadata.clone()));
        let actions =
            metadata.into_iter().chain(removes).chain(change.added.into_iter().map(Action::Add)).collect();
        let info = [("candleflightCommit".to_owned(), id.into())].into();
        let transactions = transactions(&self.spec.topic, self.snapshot.position(), &change.position);
        let entry = CommitData::new(actions, change.operation, info, transactions).get_bytes();
        entry.map_err(|error| self.entry_failed()(error.into()))
    }

    fn entry_failed(&self) -> impl FnOnce(DeltaTableError) -> LakeError + use<> {
        LakeError::delta(format!("write a log entry of the {} table", self.spec.name))
    }
}

/// Reads the clock, for what the Delta format wants stamped: log entries, files and tombstones. Nothing here decides by it but vacuum.
#[expect(clippy::disallowed_methods, reason = "the lake is an edge")]
pub(crate) fn now_millis() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// Drops partitions of which nothing was read: the log has no word for them.
pub(crate) fn committable(position: &Position) -> Position {
    position.iter().filter(|(_, next)| *next > 0).collect()
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
