//! The table's properties in its Delta metadata. They name the topic and the bronze table whose offsets its position counts.

use std::collections::HashMap;

use deltalake_core::kernel::{Metadata, MetadataExt as _};
use deltalake_core::{DeltaTableError, TableProperty};

use crate::LakeError;
use crate::spec::TableSpec;

/// Property that holds the name of the Kafka topic.
pub(crate) const TOPIC: &str = "candleflight.topic";
/// Property that holds the topic's Kafka id. The first writer that has the id sets this property in its first commit.
pub(crate) const TOPIC_ID: &str = "candleflight.topicId";
/// Property of gold that holds the id of the bronze table it is computed from.
pub(crate) const BRONZE: &str = "candleflight.bronze";
/// Delta's property for the retention of replaced files.
pub(crate) const FILE_RETENTION: &str = "delta.deletedFileRetentionDuration";
/// Delta's property that lets an engine drop application transactions, and the position with them.
const TRANSACTION_RETENTION: &str = "delta.setTransactionRetentionDuration";

/// Properties that the next commit sets.
pub(crate) type Claims = HashMap<&'static str, String>;

/// Returns the properties of a new table.
pub(crate) fn at_creation(spec: &TableSpec, checkpoint_interval: u64) -> Vec<(String, Option<String>)> {
    let delta = [
        (TableProperty::CheckpointInterval, checkpoint_interval.to_string()),
        (TableProperty::EnableExpiredLogCleanup, "true".to_owned()),
        (TableProperty::LogRetentionDuration, "interval 1 days".to_owned()),
        (TableProperty::DeletedFileRetentionDuration, "interval 1 hours".to_owned()),
    ];
    let delta = delta.map(|(property, value)| (property.as_ref().to_owned(), Some(value)));
    delta.into_iter().chain([(TOPIC.to_owned(), Some(spec.topic.clone()))]).collect()
}

/// Checks that the table belongs to the right topic and keeps its position.
///
/// # Errors
///
/// [`LakeError::OtherTopic`] or [`LakeError::TransactionRetention`].
pub(crate) fn check(spec: &TableSpec, metadata: &Metadata) -> Result<(), LakeError> {
    let properties = metadata.configuration();
    if let Some(found) = properties.get(TOPIC).filter(|found| **found != spec.topic) {
        return Err(LakeError::other_topic(spec, found));
    }
    match properties.get(TRANSACTION_RETENTION) {
        Some(found) => Err(LakeError::TransactionRetention { table: spec.name, found: found.clone() }),
        None => Ok(()),
    }
}

/// Returns the metadata with the claimed properties. Returns `None` if the metadata already has them all.
///
/// # Errors
///
/// The metadata cannot be written again. No table that this crate opens can cause this.
pub(crate) fn with_claims(metadata: &Metadata, claims: &Claims) -> Result<Option<Metadata>, DeltaTableError> {
    let held = metadata.configuration();
    let missing: Vec<_> = claims.iter().filter(|(key, value)| held.get(**key) != Some(*value)).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let mut claimed = metadata.clone();
    for (key, value) in missing {
        claimed = claimed.add_config_key((*key).to_owned(), value.clone())?;
    }
    Ok(Some(claimed))
}
