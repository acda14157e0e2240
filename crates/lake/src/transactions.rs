//! The position in the Delta log: one application transaction per partition. Its name is `kafka/TOPIC/PARTITION`, and its version is the
//! last offset.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::schema::{DataType, SchemaRef, StructField, StructType};
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::{Action, CommitInfo, Transaction};
use position::Position;

use crate::LakeError;
use crate::clock::now_millis;
use crate::entry::read_entry;
use crate::file::DataFile;
use crate::spec::{Order, TableSpec};
use crate::store::TableStore;

/// First part of the names of our application transactions.
const APPLICATION: &str = "kafka";
/// Delta's name of the operation that restores a table's files, but not its position, to an older version.
const RESTORE: &str = "RESTORE";

/// The contents of the log about positions.
#[derive(Debug, Default)]
struct Replayed {
    position: Position,
    /// Other topics that transactions name.
    others: Vec<String>,
    /// True if an entry after the checkpoint restored an older version.
    is_restored: bool,
    /// Version of the checkpoint at which the replay begins. 0 if there is no checkpoint.
    checkpoint: u64,
}

/// Reads the position at `version` and checks that it belongs to the table.
///
/// # Errors
///
/// [`LakeError::OtherTopic`] or [`LakeError::Restored`]. For other errors, see [`LakeError::is_transient`].
pub(crate) async fn read_position(
    spec: &TableSpec,
    store: &TableStore,
    version: u64,
) -> Result<Position, LakeError> {
    let replayed = replay(spec, store, version).await?;
    if let Some(other) = replayed.others.first() {
        return Err(LakeError::other_topic(spec, other));
    }
    if replayed.is_restored {
        for version in (replayed.checkpoint..=version).rev() {
            let Some(actions) = read_entry(spec, store, version).await? else { break };
            if restored(&actions).is_some() {
                check_restore(spec, store, version, &actions).await?;
                break;
            }
        }
    }
    Ok(replayed.position)
}

/// Checks an entry that may restore an older version. The table's position must not have moved since that version.
///
/// # Errors
///
/// [`LakeError::Restored`] if it has moved. For other errors, see [`LakeError::is_transient`].
pub(crate) async fn check_restore(
    spec: &TableSpec,
    store: &TableStore,
    version: u64,
    actions: &[Action],
) -> Result<(), LakeError> {
    let Some(info) = restored(actions) else { return Ok(()) };
    let to = info.operation_parameters.as_ref().and_then(|parameters| parameters.get("version"));
    let to = to.and_then(|to| to.as_u64().or_else(|| to.as_str()?.parse().ok()));
    if let Some(to) = to {
        let (before, after) = (replay(spec, store, to).await?, replay(spec, store, version).await?);
        if before.position == after.position {
            return Ok(());
        }
    }
    Err(LakeError::Restored { table: spec.name, version, before: version.saturating_sub(1) })
}

/// Checks that no file holds rows at or above the position. A table with a lost position must not look like a new table.
///
/// # Errors
///
/// [`LakeError::PositionLost`] if a file does.
pub(crate) fn check_files<'a>(
    spec: &TableSpec,
    position: &Position,
    files: impl IntoIterator<Item = &'a Arc<DataFile>>,
) -> Result<(), LakeError> {
    let lost = |file: &DataFile, holds: String| LakeError::PositionLost {
        table: spec.name,
        file: file.path.to_string(),
        holds,
        position: position.clone(),
    };
    for file in files {
        match spec.order {
            Order::Offset => {
                let (Some((least, greatest)), Some((_, last))) = (file.partition, file.offset) else {
                    continue;
                };
                let reached = position.iter().filter(|(partition, _)| (least..=greatest).contains(partition));
                if reached.map(|(_, next)| next).max().is_none_or(|next| last >= next) {
                    return Err(lost(file, format!("offset {last} of partition {greatest}")));
                }
            }
            Order::Key if position.is_empty() && file.rows != Some(0) => {
                return Err(lost(file, "rows".to_owned()));
            }
            Order::Key => {}
        }
    }
    Ok(())
}

/// Removes partitions that have not been read, because the log cannot express them.
pub(crate) fn committable(position: &Position) -> Position {
    position.iter().filter(|(_, next)| *next > 0).collect()
}

/// Returns the application transactions that move one position to another. A partition that is absent from `to` moves to its beginning.
pub(crate) fn transactions(topic: &str, from: &Position, to: &Position) -> Vec<Transaction> {
    let now = now_millis();
    let partitions: HashSet<i32> = from.iter().chain(to.iter()).map(|(partition, _)| partition).collect();
    let mut partitions: Vec<i32> = partitions.into_iter().collect();
    partitions.sort_unstable();
    let moved = partitions.into_iter().filter(|partition| from.next(*partition) != to.next(*partition));
    let step = |partition| {
        let last = to.next(partition).unwrap_or(0) - 1;
        let application = format!("{APPLICATION}/{topic}/{partition}");
        Transaction::new_with_last_update(application, last, Some(now))
    };
    moved.map(step).collect()
}

/// Applies an application transaction to the position, if it belongs to `topic`.
pub(crate) fn apply(topic: &str, transaction: &Transaction, position: &mut Position) {
    if let Some((of, Some(partition))) = parse(&transaction.app_id)
        && of == topic
    {
        position.set(partition, transaction.version.saturating_add(1));
    }
}

/// Returns the partition whose position a transaction holds, if it belongs to `topic`.
pub(crate) fn partition_of(topic: &str, transaction: &Transaction) -> Option<i32> {
    parse(&transaction.app_id).filter(|(of, _)| *of == topic)?.1
}

/// Splits the name of a transaction into topic and partition. Version 0.1 wrote a transaction without a partition, whose version was the
/// number of partitions.
fn parse(application: &str) -> Option<(&str, Option<i32>)> {
    let rest = application.strip_prefix(APPLICATION)?.strip_prefix('/')?;
    match rest.split_once('/') {
        Some((topic, partition)) => Some((topic, Some(partition.parse().ok()?))),
        None => Some((rest, None)),
    }
}

fn restored(actions: &[Action]) -> Option<&CommitInfo> {
    actions.iter().find_map(|action| match action {
        Action::CommitInfo(info) if info.operation.as_deref() == Some(RESTORE) => Some(info),
        _ => None,
    })
}

/// Reads all transactions in one pass over the log, newest first.
async fn replay(spec: &TableSpec, store: &TableStore, version: u64) -> Result<Replayed, LakeError> {
    let (store, topic) = (store.clone(), spec.topic.clone());
    // Delta's kernel blocks its thread on requests that the runtime's threads must drive.
    let replayed = tokio::task::spawn_blocking(move || replay_blocking(&store, &topic, version));
    let replayed = replayed.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    replayed.map_err(LakeError::delta(format!("read the position of the {} table", spec.name)))
}

fn replay_blocking(store: &TableStore, topic: &str, version: u64) -> Result<Replayed, DeltaTableError> {
    let engine = store.log.engine(None);
    let log = delta_kernel::Snapshot::builder_for(store.log.root_url());
    let log = log.at_version(version).build(engine.as_ref())?;
    let mut replayed =
        Replayed { checkpoint: log.log_segment().checkpoint_version.unwrap_or(0), ..Replayed::default() };
    let mut replayed_ids = HashSet::new();
    for actions in log.log_segment().read_actions(engine.as_ref(), replayed_schema())? {
        let batch = ArrowEngineData::try_from_engine_data(actions?.actions)?;
        replayed.take(batch.record_batch(), topic, &mut replayed_ids);
    }
    Ok(replayed)
}

impl Replayed {
    fn take(&mut self, batch: &RecordBatch, topic: &str, replayed_ids: &mut HashSet<String>) {
        let field = |of: &str, name: &str| batch.column_by_name(of)?.as_struct_opt()?.column_by_name(name);
        if let Some(operations) =
            field("commitInfo", "operation").and_then(|column| column.as_string_opt::<i32>())
        {
            self.is_restored |= operations.iter().flatten().any(|operation| operation == RESTORE);
        }
        let applications = field("txn", "appId").and_then(|column| column.as_string_opt::<i32>());
        let versions = field("txn", "version").and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (Some(applications), Some(versions)) = (applications, versions) else { return };
        for (application, version) in applications.iter().zip(versions) {
            let (Some(application), Some(version)) = (application, version) else { continue };
            let Some((of, partition)) = parse(application) else { continue };
            if of != topic {
                self.others.push(of.to_owned());
            } else if let Some(partition) = partition
                && replayed_ids.insert(application.to_owned())
                && version >= 0
            {
                self.position.set(partition, version.saturating_add(1));
            }
        }
    }
}

fn replayed_schema() -> SchemaRef {
    let text = |name: &str| StructField::nullable(name, DataType::STRING);
    let txn = [text("appId"), StructField::nullable("version", DataType::LONG)];
    let action = |name: &str, fields: Vec<StructField>| {
        StructField::nullable(name, DataType::from(StructType::try_new(fields).expect("the names differ")))
    };
    let actions = [action("txn", txn.into()), action("commitInfo", vec![text("operation")])];
    Arc::new(StructType::try_new(actions).expect("the names differ"))
}
