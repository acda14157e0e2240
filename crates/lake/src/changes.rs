//! Changes of gold since a position: the rows of the files that were written since then.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use deltalake_core::kernel::Action;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use position::Position;

use crate::LakeError;
use crate::entry::read_entry;
use crate::file::DataFile;
use crate::log::data_file;
use crate::read::read_file;
use crate::snapshot::{Snapshot, State};
use crate::transactions::partition_of;

/// Log entries that are read at once.
const ENTRIES_AT_ONCE: usize = 8;

/// The files of a snapshot that hold every row that changed since some position. They also hold other rows.
///
/// Files of an append hold new rows. Files of an upsert hold corrected rows, and other rows of the files that it replaced. Files of a
/// compaction hold older rows. A reader at that position reaches the snapshot's position by upserting all these rows, in any order.
///
/// The newest files come first, because they are the first that maintenance replaces.
#[derive(Debug)]
pub struct Changes {
    state: Arc<State>,
    /// Files that are not read yet. Sorted by date and event time, descending.
    files: VecDeque<Arc<DataFile>>,
    /// Paths of the files that were read.
    read: HashSet<Path>,
}

impl Snapshot {
    /// Returns the files that were written since the table was at `position`. Returns all files if the log does not reach back that far.
    ///
    /// Reads the log's entries backwards until that point.
    ///
    /// # Errors
    ///
    /// See [`LakeError::is_transient`].
    pub fn changed_since<'a>(&'a self, position: &'a Position) -> BoxFuture<'a, Result<Changes, LakeError>> {
        Box::pin(async move {
            let written = written_since(self, position).await?;
            let is_changed =
                |file: &&Arc<DataFile>| written.as_ref().is_none_or(|written| written.contains(&file.path));
            let mut files: Vec<_> = self.0.files.iter().filter(is_changed).map(Arc::clone).collect();
            files.sort_by_key(|file| Reverse((file.date, file.event_time)));
            Ok(Changes { state: Arc::clone(&self.0), files: files.into(), read: HashSet::new() })
        })
    }
}

impl Changes {
    /// Returns the snapshot that a reader of all files reaches.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(Arc::clone(&self.state))
    }

    /// Returns the number of files that are not read yet.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// Reads the next file, or returns `None` after the last one. After an error, the next call reads the same file again.
    ///
    /// # Errors
    ///
    /// [`LakeError::Expired`] if the snapshot is older than vacuum's retention: continue with [`Changes::continue_on`]. For other errors, see
    /// [`LakeError::is_transient`].
    pub async fn next(&mut self) -> Result<Option<Vec<RecordBatch>>, LakeError> {
        let Some(file) = self.files.front() else { return Ok(None) };
        let (spec, store) = (Arc::clone(&self.state.spec), self.state.store.clone());
        let rows = read_file(spec, store, Arc::clone(file), None).await?;
        self.read.extend(self.files.pop_front().map(|file| file.path.clone()));
        Ok(Some(rows))
    }

    /// Continues with the changes of a later snapshot since the same position, without the files that were already read.
    ///
    /// In each snapshot, one file holds a key. So a file that was read and is still there holds the latest values of its keys, and a file
    /// that is new comes after those that it replaces.
    pub fn continue_on(&mut self, later: Changes) {
        self.state = later.state;
        self.files = later.files;
        self.files.retain(|file| !self.read.contains(&file.path));
    }
}

/// Returns the paths of the files that were added after the last version at or below `position`. Returns `None` if the log cannot show
/// them.
async fn written_since(snapshot: &Snapshot, position: &Position) -> Result<Option<HashSet<Path>>, LakeError> {
    let State { spec, store, version, .. } = snapshot.0.as_ref();
    // Partitions where the table is ahead of `position`. The walk goes back through the log, and removes a partition once it reaches an
    // entry at or below `position`.
    let is_ahead = |(partition, next): &(i32, i64)| position.next(*partition).unwrap_or(0) < *next;
    let mut ahead: HashMap<i32, i64> = HashMap::new();
    for (partition, _) in snapshot.position().iter().filter(is_ahead) {
        // No log entry shows where a partition begins.
        let Some(next) = position.next(partition).filter(|next| *next > 0) else { return Ok(None) };
        ahead.insert(partition, next);
    }
    let mut written = HashSet::new();
    if ahead.is_empty() {
        return Ok(Some(written));
    }
    let entries = (1..=*version).rev().map(|version| read_entry(spec, store, version));
    let mut entries = futures::stream::iter(entries).buffered(ENTRIES_AT_ONCE);
    while let Some(actions) = entries.try_next().await? {
        let Some(actions) = actions else { return Ok(None) };
        for action in &actions {
            if let Action::Txn(transaction) = action
                && let Some(partition) = partition_of(&spec.topic, transaction)
                && ahead.get(&partition).is_some_and(|next| transaction.version < *next)
            {
                ahead.remove(&partition);
            }
        }
        if ahead.is_empty() {
            return Ok(Some(written));
        }
        for action in &actions {
            match action {
                Action::Add(add) => _ = written.insert(data_file(spec, add)?.path.clone()),
                Action::Metadata(_) | Action::Protocol(_) => return Ok(None),
                _ => (),
            }
        }
    }
    Ok(None)
}
