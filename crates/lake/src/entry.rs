//! The entries of a table's log.

use deltalake_core::kernel::Action;
use deltalake_core::logstore::get_actions;

use crate::LakeError;
use crate::spec::TableSpec;
use crate::store::TableStore;

/// Reads the actions of a log entry. Returns `None` if the entry was cleaned up.
pub(crate) async fn read_entry(
    spec: &TableSpec,
    store: &TableStore,
    version: u64,
) -> Result<Option<Vec<Action>>, LakeError> {
    let entry = async {
        let entry = store.log.read_commit_entry(version).await?;
        entry.map(|entry| get_actions(version, &entry)).transpose()
    };
    entry.await.map_err(LakeError::delta(format!("read version {version} of the {} table", spec.name)))
}
