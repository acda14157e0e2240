//! Maintenance that keeps a table fast and small: compaction and vacuum.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use arrow::array::RecordBatch;
use deltalake_core::kernel::Add;
use deltalake_core::protocol::DeltaOperation;
use deltalake_core::table::config::TablePropertiesExt as _;
use deltalake_core::{DeltaTable, DeltaTableError};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use tokio::time::Instant;

use crate::LakeError;
use crate::clock::now_millis;
use crate::file::DataFile;
use crate::log::load_table;
use crate::read::read_files;
use crate::snapshot::Snapshot;
use crate::spec::Order;
use crate::table::{Change, Table};
use crate::write::{is_ours, put_files, split};

/// Maximum number of rows in a file that compaction writes: two row groups, so that a merge needs little memory.
const FILE_ROWS_MAX: u64 = 131_072;
/// Maximum number of rows that one call of `compact` rewrites: half a second of work.
const CALL_ROWS_MAX: u64 = 524_288;
/// Maximum number of files that one call of `compact` rewrites.
const CALL_FILES_MAX: usize = 1_024;
/// Offsets that may lie between two bronze files of one merge. A file that spans many more offsets than it has rows would be read again in
/// every step of a follower. The limit keeps apart rows that were ingested at different times.
const OFFSET_GAP_MAX: i64 = 1_048_576;
/// Small files that a date must have to be merged while it still gets rows. An immediate merge would rewrite its rows all the time. Without
/// merges, a day of flushes would leave thousands of files.
const OPEN_FILES_MIN: usize = 32;
/// Files that are read at once.
const FILES_AT_ONCE: usize = 8;
/// Age at which a file that no log entry names is removed. Another engine may be about to commit a younger file. This is Delta's default.
const UNKNOWN_RETENTION: Duration = Duration::from_hours(7 * 24);

/// Time between two passes of [`Maintenance`].
const PASS_INTERVAL: Duration = Duration::from_mins(1);
/// Pause before the next pass if a pass has compacted something, since there may be more.
const COMPACTION_PAUSE: Duration = Duration::from_secs(1);
/// Time between two passes that also vacuum. Each such pass reads the whole log and lists all files.
const VACUUM_INTERVAL: Duration = Duration::from_mins(10);
/// Length of the rest after a pass, as a multiple of the pass. It leaves nine tenths of the time to other work, such as a backlog.
const REST_TIMES: u32 = 9;

/// Maintenance of a table, which runs between two commits of its owner.
#[derive(Debug)]
pub struct Maintenance {
    due: Instant,
    vacuum_due: Instant,
    retention: Duration,
}

impl Maintenance {
    /// Schedules the first pass. Replaced files stay readable for `retention`.
    pub fn new(retention: Duration) -> Self {
        let due = Instant::now() + PASS_INTERVAL;
        Maintenance { due, vacuum_due: due, retention }
    }

    /// Compacts some small files as of `today` (see [`Table::compact`]) if a pass is due. Some passes also remove unused files. A failure
    /// only leaves the table untidy, and a later pass tries again. Returns true if the table has a new version.
    pub fn pass<'a>(&'a mut self, table: &'a mut Table, today: i32) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let begun = Instant::now();
            if begun < self.due {
                return false;
            }
            let name = table.spec.name;
            let compacted = table.compact(today).await.unwrap_or_else(|error| {
                tracing::warn!(
                    table = name,
                    error = &error as &dyn std::error::Error,
                    "cannot compact the table"
                );
                false
            });
            if begun >= self.vacuum_due {
                self.vacuum_due = begun + VACUUM_INTERVAL;
                if let Err(error) = table.vacuum(self.retention).await {
                    tracing::warn!(
                        table = name,
                        error = &error as &dyn std::error::Error,
                        "cannot vacuum the table"
                    );
                }
            }
            self.due = Instant::now() + pause(compacted, begun.elapsed());
            compacted
        })
    }
}

/// Returns the pause after a pass that took the time `took`.
fn pause(compacted: bool, took: Duration) -> Duration {
    let least = if compacted { COMPACTION_PAUSE } else { PASS_INTERVAL };
    least.max(took * REST_TIMES)
}

impl Table {
    /// Merges small files of a date that hold neighbouring rows. From `today` on (in days since the epoch), it merges only dates with
    /// dozens of small files. Each call merges a bounded number of rows.
    ///
    /// Rows, position and earlier snapshots stay unchanged. Returns true if there was something to merge.
    ///
    /// # Errors
    ///
    /// [`LakeError::Fenced`] if another writer has moved the position. For other errors, see [`LakeError::is_transient`].
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
            // If another engine's maintenance came first, the next call makes a new plan.
            self.commit(Change { operation, removed, added, position }).await?;
            Ok(true)
        })
    }

    /// Deletes unused data files and returns their number. Replaced files are deleted once their replacement is older than `retention`.
    ///
    /// Files that no log entry names are also deleted. Files of this crate, left by a crash, are deleted after `retention`. Files of other
    /// engines are deleted after a week, because their commit may still follow.
    ///
    /// If the log keeps replaced files for a shorter time, the next commit sets `retention` there, and other engines then keep these files
    /// as long.
    ///
    /// # Errors
    ///
    /// See [`LakeError::is_transient`].
    pub fn vacuum(&mut self, retention: Duration) -> BoxFuture<'_, Result<usize, LakeError>> {
        Box::pin(async move {
            // The files of a commit with an unknown outcome must not look unused.
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
            // A log that forgets replaced files sooner cannot distinguish them from files that it never named.
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

/// The files that the log names.
struct Known {
    /// Files of the latest version, and files that were replaced recently.
    kept: HashSet<Path>,
    /// Files that were replaced long ago.
    replaced: HashSet<Path>,
    /// Time for which the log names a replaced file.
    remembered: Duration,
}

/// Reads the files of the latest version, and the files that were replaced up to `oldest` and after it.
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

/// Plans the merges: lists of files that become one file each. The files of a merge are neighbours of one date, and in bronze of one Kafka
/// partition. The longest lists come first.
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
    // A file of another engine is rewritten even alone, because it may mix partitions and has no order.
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
