//! The Delta log: creating a table, reading its contents, and putting one entry.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deltalake_core::arrow::datatypes::Schema;
use deltalake_core::kernel::engine::arrow_conversion::{TryIntoArrow, TryIntoKernel};
use deltalake_core::kernel::transaction::CommitProperties;
use deltalake_core::kernel::{Action, Add, StructType};
use deltalake_core::logstore::commit_uri_from_version;
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::SaveMode;
use deltalake_core::table::config::TablePropertiesExt as _;
use deltalake_core::table::state::DeltaTableState;
use deltalake_core::{DeltaTable, DeltaTableError};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStoreExt, PutMode};
use schema::DATE;

use crate::LakeError;
use crate::entry::read_entry;
use crate::file::DataFile;
use crate::snapshot::{Snapshot, State};
use crate::spec::{Order, TableSpec};
use crate::store::TableStore;
use crate::transactions::committable;
use crate::verdict::verdict;
use crate::{properties, transactions};

/// Commits between two checkpoints. A reader replays at most this many entries.
pub(crate) const CHECKPOINT_INTERVAL: u64 = 100;
/// Maximum number of entries that are read one by one to follow the log. Beyond this, reading the last checkpoint is cheaper.
const ADVANCE_MAX: u64 = 2 * CHECKPOINT_INTERVAL;
/// Log entries that are read at once.
const ENTRIES_AT_ONCE: usize = 8;
/// Maximum number of puts of one commit within a call, if a time-out or a broken connection hides the outcome.
const PUTS_MAX: usize = 3;
/// Mean time between two of these puts.
const PUT_PAUSE: Duration = Duration::from_millis(200);
/// Highest protocol versions that this crate supports: plain files with partition values and statistics.
const READER_VERSION_MAX: i32 = 1;
const WRITER_VERSION_MAX: i32 = 2;

/// The outcome of putting a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PutCommit {
    /// The entry is in the log.
    Landed,
    /// Another writer's entry has this version.
    Taken,
}

/// Creates the table if it does not exist.
pub(crate) async fn ensure(spec: &TableSpec, store: &TableStore) -> Result<(), LakeError> {
    let doing = || format!("create the {} table", spec.name);
    if store.log.is_delta_table_location().await.map_err(LakeError::delta(doing()))? {
        return Ok(());
    }
    let columns: StructType = spec
        .schema
        .as_ref()
        .try_into_kernel()
        .map_err(|error| LakeError::delta(doing())(DeltaTableError::Arrow { source: error }))?;
    let created = CreateBuilder::new()
        .with_log_store(Arc::clone(&store.log))
        .with_columns(columns.fields().cloned())
        .with_partition_columns([DATE])
        .with_configuration(properties::at_creation(spec, CHECKPOINT_INTERVAL))
        .with_raise_if_key_not_exists(false)
        .with_save_mode(SaveMode::Ignore)
        // Without this, the loser of a race would write its metadata over the winner's.
        .with_commit_properties(CommitProperties::default().with_max_retries(0))
        .await;
    match created {
        Ok(_) => Ok(()),
        // Another process came first. Its table is checked like any other.
        Err(_) if store.log.is_delta_table_location().await.is_ok_and(|exists| exists) => Ok(()),
        Err(error) => Err(LakeError::delta(doing())(error)),
    }
}

/// Reads the latest version: the last checkpoint and the entries after it.
pub(crate) async fn load(spec: &Arc<TableSpec>, store: &TableStore) -> Result<Snapshot, LakeError> {
    load_version(spec, store, None).await
}

/// Reads a version, or the latest one if `version` is `None`.
pub(crate) async fn load_version(
    spec: &Arc<TableSpec>,
    store: &TableStore,
    version: Option<u64>,
) -> Result<Snapshot, LakeError> {
    let doing = || format!("read the log of the {} table", spec.name);
    let mut table = DeltaTable::new(Arc::clone(&store.log));
    table.update_incremental(version).await.map_err(LakeError::delta(doing()))?;
    let state = table.snapshot().map_err(LakeError::delta(doing()))?;
    check_protocol(spec, state)?;
    let schema: Schema = state
        .schema()
        .as_ref()
        .try_into_arrow()
        .map_err(|error| LakeError::delta(doing())(DeltaTableError::Arrow { source: error }))?;
    check_schema(spec, &schema)?;
    properties::check(spec, state.metadata())?;
    #[expect(deprecated, reason = "the view has no other access to the tags")]
    let files: Vec<_> =
        state.log_data().iter().map(|view| data_file(spec, &view.add_action())).collect::<Result<_, _>>()?;
    let position = transactions::read_position(spec, store, state.version()).await?;
    transactions::check_files(spec, &position, &files)?;
    let (spec, store, version) = (Arc::clone(spec), store.clone(), state.version());
    let metadata = Arc::new(state.metadata().clone());
    Ok(Snapshot(Arc::new(State { spec, store, version, metadata, position, files })))
}

/// Reads the log with all files by `deltalake-core`, for vacuum.
pub(crate) async fn load_table(store: &TableStore) -> Result<DeltaTable, DeltaTableError> {
    let mut table = DeltaTable::new(Arc::clone(&store.log));
    table.load().await?;
    Ok(table)
}

/// Follows the log from `snapshot` to the latest version. This takes one list request if nothing is new.
pub(crate) async fn advance(snapshot: &Snapshot) -> Result<Snapshot, LakeError> {
    let State { spec, store, version, .. } = snapshot.0.as_ref();
    let doing = || format!("follow the log of the {} table", spec.name);
    let latest = latest_version(store, *version).await.map_err(LakeError::store(doing()))?;
    if latest - version > ADVANCE_MAX {
        return load(spec, store).await;
    }
    let entries = futures::stream::iter(version + 1..=latest).map(|version| read_entry(spec, store, version));
    let entries: Vec<_> = entries.buffered(ENTRIES_AT_ONCE).try_collect().await?;
    let mut snapshot = snapshot.clone();
    for (version, actions) in (version + 1..).zip(entries) {
        match actions {
            Some(actions)
                if !actions
                    .iter()
                    .any(|action| matches!(action, Action::Protocol(_) | Action::Metadata(_))) =>
            {
                transactions::check_restore(spec, store, version, &actions).await?;
                snapshot = apply(&snapshot, version, &actions)?;
            }
            // The table itself was altered, or the entries after this old snapshot were cleaned up.
            _ => return load(spec, store).await,
        }
    }
    Ok(snapshot)
}

/// Puts a commit as `version`. The result shows whether the entry of that version is this commit, whatever the store answered.
pub(crate) async fn put_commit(
    store: &TableStore,
    version: u64,
    entry: &Bytes,
    id: &str,
) -> Result<PutCommit, LakeError> {
    let path = commit_uri_from_version(Some(version));
    let doing = || format!("put the log entry {path}");
    for puts in 1.. {
        let error = match store.put(&path, entry.clone(), PutMode::Create).await {
            Ok(()) => return Ok(PutCommit::Landed),
            // An earlier put may have arrived although it failed here.
            Err(object_store::Error::AlreadyExists { .. }) => match winner(store, &path).await {
                Ok(winner) if contains(&winner, id) => return Ok(PutCommit::Landed),
                Ok(_) => return Ok(PutCommit::Taken),
                // S3 also answers this while another put of the name is in progress. That put may still fail.
                Err(object_store::Error::NotFound { .. }) => under_way(),
                Err(error) => error,
            },
            Err(error) => error,
        };
        if puts == PUTS_MAX || !verdict(&error).passes {
            return Err(LakeError::store(doing())(error));
        }
        tokio::time::sleep(PUT_PAUSE.mul_f64(rand::random_range(0.5..=1.5))).await;
    }
    unreachable!("the last put returns")
}

async fn winner(store: &TableStore, path: &object_store::path::Path) -> object_store::Result<Bytes> {
    store.objects.get(path).await?.bytes().await
}

fn contains(entry: &Bytes, id: &str) -> bool {
    std::str::from_utf8(entry).is_ok_and(|entry| entry.contains(id))
}

fn under_way() -> object_store::Error {
    object_store::Error::Generic { store: "S3", source: "another put of this object is in progress".into() }
}

/// Returns the version of the last entry, by one list request. `deltalake-core` has such a function too, but that function hides the
/// store's answer.
async fn latest_version(store: &TableStore, current: u64) -> Result<u64, object_store::Error> {
    let entry = commit_uri_from_version(Some(current));
    let newer = store.objects.list_with_offset(Some(store.log.log_path()), &entry);
    let version =
        |object: object_store::ObjectMeta| object.location.filename()?.strip_suffix(".json")?.parse().ok();
    newer
        .try_fold(current, |latest, object| std::future::ready(Ok(version(object).unwrap_or(0).max(latest))))
        .await
}

/// Returns the version after `snapshot`: the result of applying the entry `actions` to it.
pub(crate) fn apply(snapshot: &Snapshot, version: u64, actions: &[Action]) -> Result<Snapshot, LakeError> {
    let spec = &snapshot.0.spec;
    let (mut removed, mut added, mut position) = (HashSet::new(), Vec::new(), snapshot.position().clone());
    for action in actions {
        match action {
            Action::Add(add) => added.push(data_file(spec, add)?),
            Action::Remove(remove) => {
                removed.insert(object_store::path::Path::from(remove.path.as_str()));
            }
            Action::Txn(transaction) => transactions::apply(&spec.topic, transaction, &mut position),
            Action::Metadata(_)
            | Action::Protocol(_)
            | Action::Cdc(_)
            | Action::CommitInfo(_)
            | Action::DomainMetadata(_) => (),
        }
    }
    let position = committable(&position);
    transactions::check_files(spec, &position, &added)?;
    Ok(snapshot.after(version, position, &removed, added))
}

pub(crate) fn data_file(spec: &TableSpec, add: &Add) -> Result<Arc<DataFile>, LakeError> {
    DataFile::from_add(add).ok_or_else(|| {
        let error = DeltaTableError::Generic(format!("the file {} has no date or no size", add.path));
        LakeError::delta(format!("read the log of the {} table", spec.name))(error)
    })
}

fn check_protocol(spec: &TableSpec, state: &DeltaTableState) -> Result<(), LakeError> {
    let (reader, writer) = (state.protocol().min_reader_version(), state.protocol().min_writer_version());
    if reader > READER_VERSION_MAX || writer > WRITER_VERSION_MAX {
        return Err(LakeError::Protocol { table: spec.name, reader, writer });
    }
    if spec.order == Order::Key && state.table_config().append_only() {
        return Err(LakeError::AppendOnly { table: spec.name });
    }
    Ok(())
}

fn check_schema(spec: &TableSpec, found: &Schema) -> Result<(), LakeError> {
    let differs = |column: &str, found: String, expected: String| {
        Err(LakeError::Schema { table: spec.name, column: column.to_owned(), found, expected })
    };
    let describe = |field: &arrow::datatypes::Field| {
        format!("{}{}", field.data_type(), if field.is_nullable() { ", nullable" } else { "" })
    };
    for expected in spec.schema.fields() {
        match found.field_with_name(expected.name()) {
            Err(_) => return differs(expected.name(), "missing".to_owned(), describe(expected)),
            Ok(column)
                if column.data_type() != expected.data_type()
                    || column.is_nullable() != expected.is_nullable() =>
            {
                return differs(expected.name(), describe(column), describe(expected));
            }
            Ok(_) => (),
        }
    }
    match found.fields().iter().find(|column| spec.schema.field_with_name(column.name()).is_err()) {
        Some(extra) => differs(extra.name(), describe(extra), "absent".to_owned()),
        None => Ok(()),
    }
}
