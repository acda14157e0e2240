//! Checkpoints of the log.

use std::time::Duration;

use deltalake_core::DeltaTableError;
use deltalake_core::checkpoints::cleanup_expired_logs_for;

use crate::clock::now_millis;
use crate::log::CHECKPOINT_INTERVAL;
use crate::snapshot::Snapshot;

/// Retention of log entries if the table does not set one: Delta's default.
const LOG_RETENTION: Duration = Duration::from_hours(30 * 24);

/// Writes a checkpoint and drops expired log entries if enough commits were made. A failure only makes readers slower.
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
        "cannot write a checkpoint; the next attempt follows after {CHECKPOINT_INTERVAL} commits"
    );
}

async fn checkpoint(snapshot: &Snapshot) -> Result<(), DeltaTableError> {
    let (store, version) = (&snapshot.0.store, snapshot.version());
    let engine = store.log.engine(None);
    // This avoids a table of `deltalake-core`, which would hold all files with their statistics. The checkpoint writer streams them.
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
