//! What changed in gold since a position: the rows of the files that were written since.

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
use crate::file::DataFile;
use crate::log::{self, data_file};
use crate::read::read_file;
use crate::snapshot::{Snapshot, State};
use crate::transactions::partition_of;

/// Entries of the log that are read at once.
const ENTRIES_AT_ONCE: usize = 8;

/// The files of a snapshot that hold every row which changed since some position, and other rows beside.
///
/// An append's files hold new rows, an upsert's corrections and what else was in the files it replaced, compaction's what was there
/// before: as upserts, in any order, all bring a reader from that position to the snapshot's.
#[derive(Debug)]
pub struct Changes {
    state: Arc<State>,
    /// Ascending by date and event time.
    files: Vec<Arc<DataFile>>,
}

impl Snapshot {
    /// Finds the files that were written since the table was at `position`; all where the log does not reach back so far.
    ///
    /// Reads the log's entries backwards until then.
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
    /// Counts the files.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// Reads the rows, one file after the other as the taker asks for it.
    ///
    /// # Errors
    ///
    /// An item may be [`LakeError::Expired`] when the snapshot is older than vacuum's retention, else see [`LakeError::is_transient`].
    pub fn read(self) -> BoxStream<'static, Result<RecordBatch, LakeError>> {
        let Changes { state, files } = self;
        futures::stream::iter(files)
            .then(move |file| read_file(Arc::clone(&state.spec), state.store.clone(), file, None))
            .map_ok(|batches| futures::stream::iter(batches).map(Ok))
            .try_flatten()
            .boxed()
    }
}

/// Returns the paths of the files that were added after the last version at or below `position`; `None` when the log does not say.
async fn written_since(snapshot: &Snapshot, position: &Position) -> Result<Option<HashSet<Path>>, LakeError> {
    let State { spec, store, version, .. } = snapshot.0.as_ref();
    // Partitions of which later offsets are in the table, until the walk back comes to where they were not.
    let is_ahead = |(partition, next): &(i32, i64)| position.next(*partition).unwrap_or(0) < *next;
    let mut ahead: HashMap<i32, i64> = HashMap::new();
    for (partition, _) in snapshot.position().iter().filter(is_ahead) {
        // No entry says that a partition begins.
        let Some(next) = position.next(partition).filter(|next| *next > 0) else { return Ok(None) };
        ahead.insert(partition, next);
    }
    let mut written = HashSet::new();
    if ahead.is_empty() {
        return Ok(Some(written));
    }
    let entries = (1..=*version).rev().map(|version| log::read_entry(spec, store, version));
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
