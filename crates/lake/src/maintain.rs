//! What keeps a table fast and small: compaction, vacuum, checkpoints.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use arrow::array::RecordBatch;
use deltalake_core::checkpoints::cleanup_expired_logs_for;
use deltalake_core::kernel::Add;
use deltalake_core::protocol::DeltaOperation;
use deltalake_core::table::config::TablePropertiesExt as _;
use deltalake_core::{DeltaTable, DeltaTableError};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use tokio::time::Instant;

use crate::LakeError;
use crate::file::DataFile;
use crate::log::{CHECKPOINT_INTERVAL, load_table};
use crate::read::read_files;
use crate::snapshot::Snapshot;
use crate::table::{Change, Order, Table, now_millis};
use crate::write::{is_ours, put_files, split};

/// Rows of a file that compaction makes: two row groups, so that merging holds little in memory.
const FILE_ROWS_MAX: u64 = 131_072;
/// Rows that one call of compact rewrites, half a second of work.
const CALL_ROWS_MAX: u64 = 524_288;
/// Files that one call of compact rewrites.
const CALL_FILES_MAX: usize = 1_024;
/// Offsets that may lie between two bronze files that are merged. A file that spans far more offsets than it holds rows would be
/// read again by every step of a follower; this keeps apart what was ingested at different times.
const OFFSET_GAP_MAX: i64 = 1_048_576;
/// Small files that a date must have to be merged while rows still come: merged at once, its rows would be rewritten all the time;
/// never merged, a day of flushes would be thousands of files.
const OPEN_FILES_MIN: usize = 32;
/// Files that are read at once.
const FILES_AT_ONCE: usize = 8;
/// How old a file must be that is in no entry of the log, to be removed: another engine may be about to commit it. Delta's default.
const UNKNOWN_RETENTION: Duration = Duration::from_hours(7 * 24);

/// How long entries stay in a log whose table does not say it: Delta's default.
const LOG_RETENTION: Duration = Duration::from_hours(30 * 24);

/// Time between two passes of [`Maintenance`].
const PASS_INTERVAL: Duration = Duration::from_mins(1);
/// How soon compaction goes on where one pass was not enough.
const COMPACTION_PAUSE: Duration = Duration::from_secs(1);
/// Time between two passes that vacuum, too: each reads the whole log and lists all files.
const VACUUM_INTERVAL: Duration = Duration::from_mins(10);
/// Rests so many times as long as a pass takes, so that nine tenths of the time are left to what comes, such as a backlog.
const REST_TIMES: u32 = 9;

/// Keeps a table fast and small, between two commits of its owner.
#[derive(Debug)]
pub struct Maintenance {
    due: Instant,
    vacuum_due: Instant,
    retention: Duration,
}

impl Maintenance {
    /// Plans the first pass; replaced files stay readable for `retention`.
    pub fn new(retention: Duration) -> Self {
        let due = Instant::now() + PASS_INTERVAL;
        Maintenance { due, vacuum_due: due, retention }
    }

    /// Compacts some small files as of `today` (see [`Table::compact`]) if it is time to, and now and then removes unused ones. A failure
    /// costs only tidiness, and a later pass tries again. Returns whether the table has a new version.
    pub fn pass<'a>(&'a mut self, table: &'a mut Table, today: i32) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let begun = Instant::now();
            if begun < self.due {
                return false;
            }
            let name = table.spec.name;
            let compacted = table.compact(today).await.unwrap_or_else(|error| {
                tracing::warn!(table = name, error = &error as &dyn std::error::Error, "no compaction");
                false
            });
            if begun >= self.vacuum_due {
                self.vacuum_due = begun + VACUUM_INTERVAL;
                if let Err(error) = table.vacuum(self.retention).await {
                    tracing::warn!(table = name, error = &error as &dyn std::error::Error, "no vacuum");
                }
            }
            self.due = Instant::now() + pause(compacted, begun.elapsed());
            compacted
        })
    }
}

/// Returns how long to wait after a pass, which has compacted something or not, and what time it took.
fn pause(compacted: bool, took: Duration) -> Duration {
    let least = if compacted { COMPACTION_PAUSE } else { PASS_INTERVAL };
    least.max(took * REST_TIMES)
}

impl Table {
    /// Merges small files of a date that hold neighbouring rows; from `today` (days since the epoch) on only where there are dozens, and
    /// a bounded part of them a call. Returns whether there was something to merge. Rows, position and snapshots taken before stay as
    /// they are.
    ///
    /// # Errors
    ///
    /// [`LakeError::Fenced`] when another writer has moved the position, else see [`LakeError::is_transient`].
    pub fn compact(&mut self, today: i32) -> BoxFuture<'_, Result<bool, LakeError>> {
        Box::pin(async move {
            self.settle().await?;
            let merges = merges(&self.snapshot, today);
            if merges.is_empty() {
                return Ok(false);
            }
            let mut added = Vec::new();
            for merge in &merges {
                added.extend(self.merge(merge).await?);
            }
            let operation =
                DeltaOperation::Optimize { predicate: None, target_size: FILE_ROWS_MAX.cast_signed() };
            let (removed, position) =
                (merges.into_iter().flatten().collect(), self.snapshot.position().clone());
            // When another engine's maintenance was first, the next call plans anew.
            self.commit(Change { operation, removed, added, position }).await?;
            Ok(true)
        })
    }

    /// Deletes the data files that were replaced longer than `retention` ago, and those that no entry of the log names: our own when
    /// they are older than it, as a crash has left them, those of other engines after a week, as their commit may be to come. Returns
    /// how many. With the next commit the log, and so each other engine, remembers replaced files for that long.
    ///
    /// # Errors
    ///
    /// See [`LakeError::is_transient`].
    pub fn vacuum(&mut self, retention: Duration) -> BoxFuture<'_, Result<usize, LakeError>> {
        Box::pin(async move {
            // The files of a commit whose outcome is open must not look unused.
            self.settle().await?;
            let name = self.spec.name;
            let doing = || format!("vacuum the {name} table");
            let now = now_millis();
            let before =
                |age: Duration| now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
            let table = load_table(&self.store).await.map_err(LakeError::delta(doing()))?;
            let known = known_files(&table, before(retention)).await.map_err(LakeError::delta(doing()))?;
            if known.remembered < retention {
                self.claim_retention(retention);
            }
            let foreign = before(retention.max(UNKNOWN_RETENTION));
            // A log that forgets earlier than that cannot tell a replaced file from one that never was in it.
            let own = if known.remembered >= retention { before(retention) } else { foreign };
            let files = self.store.data_files().await.map_err(LakeError::store(doing()))?;
            let unused = files.into_iter().filter(|file| {
                let oldest = if is_ours(&file.location) { own } else { foreign };
                let is_unknown = !known.kept.contains(&file.location);
                known.replaced.contains(&file.location)
                    || is_unknown && file.last_modified.timestamp_millis() <= oldest
            });
            let unused = unused.map(|file| file.location).collect();
            let deleted = self.store.delete(unused).await.map_err(LakeError::store(doing()))?;
            let now = UNIX_EPOCH + Duration::from_millis(now.cast_unsigned());
            let staged = self.store.remove_staged(now).await.map_err(LakeError::store(doing()))?;
            Ok(deleted + staged)
        })
    }

    async fn merge(&self, files: &[Arc<DataFile>]) -> Result<Vec<Add>, LakeError> {
        let reads = read_files(&self.spec, &self.store, files.to_vec(), FILES_AT_ONCE);
        let batches: Vec<Vec<RecordBatch>> = reads.map_ok(|(_, batches)| batches).try_collect().await?;
        let batches = batches.concat();
        let files = split(&self.spec, &batches, false)?;
        put_files(&self.spec, &self.store, batches, files, false).await
    }
}

/// Writes a checkpoint and drops expired log entries when enough commits were made. A failure costs readers some speed, no more.
pub(crate) async fn checkpoint_if_due(snapshot: &Snapshot) {
    let (version, table) = (snapshot.version(), snapshot.0.spec.name);
    if !version.is_multiple_of(CHECKPOINT_INTERVAL) {
        return;
    }
    // The checkpoint writer blocks its thread on requests that the runtime's threads must drive.
    let (runtime, snapshot) = (tokio::runtime::Handle::current(), snapshot.clone());
    let written = tokio::task::spawn_blocking(move || runtime.block_on(checkpoint(&snapshot)));
    let error = match written.await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(error) => DeltaTableError::GenericError { source: error.into() },
    };
    let error = &error as &dyn std::error::Error;
    tracing::warn!(
        table,
        version,
        error,
        "no checkpoint; the next one is tried after {CHECKPOINT_INTERVAL} commits"
    );
}

async fn checkpoint(snapshot: &Snapshot) -> Result<(), DeltaTableError> {
    let (store, version) = (&snapshot.0.store, snapshot.version());
    let engine = store.log.engine(None);
    // Without a table of `deltalake-core`, which would hold all files with their statistics: the writer streams them.
    let log = delta_kernel::Snapshot::builder_for(store.log.root_url())
        .at_version(version)
        .build(engine.as_ref())?;
    log.checkpoint(engine.as_ref(), None)?;
    let retention = log.table_properties().log_retention_duration.unwrap_or(LOG_RETENTION);
    let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let oldest = now_millis().saturating_sub(retention);
    cleanup_expired_logs_for(version, store.log.as_ref(), oldest, None).await?;
    Ok(())
}

/// The files that the log names.
struct Known {
    /// In the latest version, or replaced but a short while ago.
    kept: HashSet<Path>,
    /// Replaced long ago.
    replaced: HashSet<Path>,
    /// How long the log names a replaced file.
    remembered: Duration,
}

/// Reads which files the latest version holds, and which were replaced up to `oldest` and after it.
async fn known_files(table: &DeltaTable, oldest: i64) -> Result<Known, DeltaTableError> {
    let (state, log) = (table.snapshot()?, table.log_store());
    let mut kept: HashSet<Path> = state.log_data().iter().map(|file| file.object_store_path()).collect();
    let mut replaced = HashSet::new();
    let mut tombstones = state.all_tombstones(&log);
    while let Some(file) = tombstones.try_next().await? {
        let path = Path::from(file.path().as_ref());
        match file.deletion_timestamp() {
            Some(deleted) if deleted <= oldest => replaced.insert(path),
            _ => kept.insert(path),
        };
    }
    replaced.retain(|path| !kept.contains(path));
    Ok(Known { kept, replaced, remembered: state.table_config().deleted_file_retention_duration() })
}

/// Plans which files to merge into one each: neighbours of one date (and Kafka partition), the longest rows of small files first.
fn merges(snapshot: &Snapshot, today: i32) -> Vec<Vec<Arc<DataFile>>> {
    let mut groups: BTreeMap<(i32, Option<i32>), Vec<&Arc<DataFile>>> = BTreeMap::new();
    for file in snapshot.0.files.iter().filter(|file| file.rows.is_some_and(|rows| rows < FILE_ROWS_MAX)) {
        let partition = match snapshot.0.spec.order {
            Order::Offset => {
                file.partition.filter(|(least, greatest)| least == greatest).map(|(partition, _)| partition)
            }
            Order::Key => None,
        };
        groups.entry((file.date, partition)).or_default().push(file);
    }
    let mut merges = Vec::new();
    for files in groups.values_mut() {
        files.sort_by_key(|file| (file.offset, file.event_time));
        let (mut merge, mut rows) = (Vec::<Arc<DataFile>>::new(), 0);
        for file in files.iter() {
            let apart = merge.last().is_some_and(|last| gap(last, file) > OFFSET_GAP_MAX);
            let more = file.rows.unwrap_or(FILE_ROWS_MAX);
            if apart || rows + more > FILE_ROWS_MAX {
                merges.push(std::mem::take(&mut merge));
                rows = 0;
            }
            merge.push(Arc::clone(file));
            rows += more;
        }
        merges.push(merge);
    }
    // A file of another engine is rewritten also alone: it may mix partitions and has no order.
    merges.retain(|merge| {
        let files_min = if merge.first().is_some_and(|file| file.date < today) { 2 } else { OPEN_FILES_MIN };
        merge.len() >= files_min || merge.iter().any(|file| !file.ordered)
    });
    merges.sort_by_key(|merge| std::cmp::Reverse(merge.len()));
    let (mut rows, mut files) = (0, 0);
    merges.retain(|merge| {
        rows += merge.iter().filter_map(|file| file.rows).sum::<u64>();
        files += merge.len();
        rows <= CALL_ROWS_MAX && (files <= CALL_FILES_MAX || files == merge.len())
    });
    merges
}

fn gap(left: &DataFile, right: &DataFile) -> i64 {
    match (left.offset, right.offset) {
        (Some((_, last)), Some((first, _))) => first.saturating_sub(last),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maintenance_rests_while_it_has_nothing_to_do_and_nine_times_as_long_as_it_works() {
        let seconds = Duration::from_secs;
        assert_eq!(pause(true, Duration::from_millis(10)), seconds(1));
        assert_eq!(pause(true, seconds(2)), seconds(18));
        assert_eq!(pause(false, seconds(2)), seconds(60));
        assert_eq!(pause(false, seconds(10)), seconds(90));
    }
}
