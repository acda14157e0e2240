//! Changes of gold since a position: the rows of the files that were written since then.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use deltalake_core::kernel::Action;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
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
#[derive(Debug)]
pub struct Changes {
    state: Arc<State>,
    /// Sorted by date and event time, ascending.
    files: Vec<Arc<DataFile>>,
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
            files.sort_by_key(|file| (file.date, file.event_time));
            Ok(Changes { state: Arc::clone(&self.0), files })
        })
    }
}

impl Changes {
    /// Returns the number of files.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// Reads the rows file by file, as the reader requests them.
    ///
    /// # Errors
    ///
    /// An item is [`LakeError::Expired`] if the snapshot is older than vacuum's retention. For other errors, see
    /// [`LakeError::is_transient`].
    pub fn read(self) -> BoxStream<'static, Result<RecordBatch, LakeError>> {
        let Changes { state, files } = self;
        futures::stream::iter(files)
            .then(move |file| read_file(Arc::clone(&state.spec), state.store.clone(), file, None))
            .map_ok(|batches| futures::stream::iter(batches).map(Ok))
            .try_flatten()
            .boxed()
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
