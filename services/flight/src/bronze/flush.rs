//! The flusher: makes the hot buffer durable and maintains the bronze table. It owns the table, and no other code commits to it.

use std::sync::Arc;

use lake::{LakeError, Maintenance, Table};
use service::backoff::{Backoff, GaveUp};
use service::error::sentence;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::bronze::buffer::HotBuffer;
use crate::config::Config;
use crate::error::Error;
use crate::metrics::Metrics;

/// Flushes until `shutdown`, then once more.
///
/// # Errors
///
/// [`Error::Lake`] if the lake fails permanently, for example because another writer has fenced this one. The hot rows are not durable
/// then, and ingest sends them again. Transient errors are retried until they pass. During the retries the buffer fills, and then puts
/// wait.
pub(crate) async fn run(
    mut table: Table,
    hot: Arc<HotBuffer>,
    config: &Config,
    metrics: &Metrics,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut changes = hot.changes();
    let mut ticks = tokio::time::interval(config.flush_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut maintenance = Maintenance::new(config.vacuum_retention);
    loop {
        let full = async {
            // The sender lives as long as `hot`.
            while !is_full(&hot, config) && changes.changed().await.is_ok() {}
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = ticks.tick() => check_fence(&mut table, &hot, metrics).await?,
            () = full => {}
        }
        flush(&mut table, &hot, metrics, &shutdown).await?;
        if maintenance.pass(&mut table, schema::date_of(service::clock::now_micros())).await {
            hot.set_durable(table.snapshot());
        }
    }
    flush(&mut table, &hot, metrics, &CancellationToken::new()).await
}

fn is_full(hot: &HotBuffer, config: &Config) -> bool {
    let size = hot.size();
    // A flush starts at half the limit, so that puts continue during the flush.
    size.rows >= config.flush_rows_max || size.bytes >= config.hot_bytes_max / 2
}

/// Checks whether another writer has moved the position. Without this check, a server with nothing to flush would never detect that it is
/// fenced.
async fn check_fence(table: &mut Table, hot: &HotBuffer, metrics: &Metrics) -> Result<(), LakeError> {
    let known = table.snapshot();
    match table.refresh().await {
        Ok(latest) if latest.position() != known.position() => {
            Err(LakeError::Fenced { table: "bronze", version: latest.version() })
        }
        Ok(latest) => {
            metrics.set_ready(Ok(()));
            // Other engines may have compacted or vacuumed the table.
            if latest.version() != known.version() {
                metrics.observe_durable(&latest);
                hot.set_durable(latest);
            }
            Ok(())
        }
        // The next flush or check tries again.
        Err(error) if error.is_transient() => {
            tracing::warn!(error = &error as &dyn std::error::Error, "checking bronze failed, trying again");
            metrics.set_ready(Err(sentence(&error)));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

async fn flush(
    table: &mut Table,
    hot: &HotBuffer,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let Some((batches, position)) = hot.to_flush() else { return Ok(()) };
    if let Some(id) = hot.origin().topic.id {
        table.set_topic_id(&id);
    }
    let started = Instant::now();
    let mut backoff = Backoff::default();
    let report = |error: &LakeError| {
        tracing::warn!(error = error as &dyn std::error::Error, "flushing bronze failed, trying again");
        metrics.set_ready(Err(sentence(error)));
    };
    let durable = loop {
        match table.append(&batches, &position).await {
            Ok(durable) => break durable,
            Err(error) => {
                let retried = backoff.after(error, LakeError::is_transient, report, shutdown).await;
                retried.map_err(GaveUp::into_error)?;
            }
        }
    };
    metrics.observe_durable(&durable);
    hot.set_durable(durable);
    metrics.observe_hot(hot);
    metrics.set_ready(Ok(()));
    metrics.observe_flush(started.elapsed().as_secs_f64());
    tracing::debug!(%position, seconds = started.elapsed().as_secs_f64(), "flushed bronze");
    Ok(())
}
