//! One version of a table: its files, and the position that they reach. It is immutable and cheap to clone.

use std::collections::HashSet;
use std::sync::Arc;

use deltalake_core::kernel::Metadata;
use object_store::path::Path;
use position::{Position, Topic};

use crate::file::DataFile;
use crate::properties::{BRONZE, TOPIC_ID};
use crate::spec::TableSpec;
use crate::store::TableStore;

/// One version of a table. Clones share it. Its files stay readable until vacuum deletes them. Vacuum keeps replaced files for its
/// retention.
#[derive(Clone, Debug)]
pub struct Snapshot(pub(crate) Arc<State>);

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) spec: Arc<TableSpec>,
    pub(crate) store: TableStore,
    pub(crate) version: u64,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) position: Position,
    pub(crate) files: Vec<Arc<DataFile>>,
}

impl Snapshot {
    /// Returns the Delta version.
    pub fn version(&self) -> u64 {
        self.0.version
    }

    /// Returns the id that Delta Lake gave the table when it was created.
    pub fn table_id(&self) -> &str {
        self.0.metadata.id()
    }

    /// Returns the topic whose offsets the position counts. The topic has its id once a writer has set it.
    pub fn topic(&self) -> Topic {
        let id = self.0.metadata.configuration().get(TOPIC_ID).cloned();
        Topic { name: self.0.spec.topic.clone(), id }
    }

    /// Returns the id of the bronze table that gold is computed from. Returns `None` for bronze, and for gold of version 0.1.
    pub fn bronze_id(&self) -> Option<&str> {
        self.0.metadata.configuration().get(BRONZE).map(String::as_str)
    }

    /// Returns the position that the rows reach. A partition that has not been read is absent.
    pub fn position(&self) -> &Position {
        &self.0.position
    }

    /// Returns the number of rows, as far as the log records it. Files of other engines may have no count.
    pub fn row_count(&self) -> u64 {
        self.0.files.iter().filter_map(|file| file.rows).sum()
    }

    /// Returns the number of data files.
    pub fn file_count(&self) -> usize {
        self.0.files.len()
    }

    /// Returns the total size of the data files in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.files.iter().map(|file| file.bytes).sum()
    }

    /// Returns an upper bound of the event times of `symbol`, in microseconds UTC, from the log's statistics. Returns `None` if no file
    /// holds the symbol.
    pub fn newest_at_most(&self, symbol: &str) -> Option<i64> {
        let may_hold = |file: &&Arc<DataFile>| {
            file.symbol.as_ref().is_none_or(|(least, greatest)| (least.as_str()..=greatest).contains(&symbol))
        };
        let newest = |file: &Arc<DataFile>| file.event_time.map_or(i64::MAX, |(_, newest)| newest);
        self.0.files.iter().filter(may_hold).map(newest).max()
    }

    /// Returns the snapshot after a commit on top of this one.
    pub(crate) fn after(
        &self,
        version: u64,
        position: Position,
        removed: &HashSet<Path>,
        added: impl IntoIterator<Item = Arc<DataFile>>,
    ) -> Snapshot {
        let State { spec, store, metadata, files, .. } = self.0.as_ref();
        let kept = files.iter().filter(|file| !removed.contains(&file.path)).map(Arc::clone);
        let files = kept.chain(added).collect();
        let (spec, metadata) = (Arc::clone(spec), Arc::clone(metadata));
        Snapshot(Arc::new(State { spec, store: store.clone(), version, metadata, position, files }))
    }

    /// Returns the snapshot with other metadata.
    pub(crate) fn with_metadata(&self, metadata: Metadata) -> Snapshot {
        let State { spec, store, version, position, files, .. } = self.0.as_ref();
        let (spec, position) = (Arc::clone(spec), position.clone());
        let (store, metadata, files) = (store.clone(), Arc::new(metadata), files.clone());
        Snapshot(Arc::new(State { spec, store, version: *version, metadata, position, files }))
    }
}
