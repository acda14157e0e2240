//! The flusher: makes the hot buffer durable and keeps the bronze table in shape. It owns the table; nobody else commits.

use std::sync::Arc;

use lake::{LakeError, Maintenance, Table};
use service::backoff::Backoff;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::Error;
use crate::hot::Hot;
use crate::metrics::Metrics;
use crate::status::sentence;

/// Flushes until `shutdown`, and once more then.
///
/// # Errors
///
/// [`Error::Lake`] when the lake refuses for good, such as another writer's fence; what was hot is then not durable and ingest sends it
/// again. Transient errors are retried for as long as it takes: meanwhile the buffer fills, and then puts wait.
pub(crate) async fn run(
    mut table: Table,
    hot: Arc<Hot>,
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
            _ = ticks.tick() => look(&mut table, &hot, metrics).await?,
            () = full => {}
        }
        flush(&mut table, &hot, metrics, &shutdown).await?;
        if maintenance.pass(&mut table, schema::date_of(service::clock::now_micros())).await {
            hot.set_durable(table.snapshot());
        }
    }
    flush(&mut table, &hot, metrics, &CancellationToken::new()).await
}

fn is_full(hot: &Hot, config: &Config) -> bool {
    let size = hot.size();
    // At half, so that puts go on while the flush is under way.
    size.rows >= config.flush_rows_max || size.bytes >= config.hot_bytes_max / 2
}

/// Looks whether someone else has moved the position: a server without anything to flush would never learn that it is fenced.
async fn look(table: &mut Table, hot: &Hot, metrics: &Metrics) -> Result<(), LakeError> {
    let known = table.snapshot();
    match table.refresh().await {
        Ok(latest) if latest.position() != known.position() => {
            Err(LakeError::Fenced { table: "bronze", version: latest.version() })
        }
        Ok(latest) => {
            metrics.set_ready(Ok(()));
            // Other engines compact and vacuum.
            if latest.version() != known.version() {
                metrics.observe_durable(&latest);
                hot.set_durable(latest);
            }
            Ok(())
        }
        // The next flush or look tries again.
        Err(error) if error.is_transient() => {
            tracing::warn!(error = &error as &dyn std::error::Error, "look at bronze failed, trying again");
            metrics.set_ready(Err(sentence(&error)));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

async fn flush(
    table: &mut Table,
    hot: &Hot,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let Some((batches, position)) = hot.to_flush() else { return Ok(()) };
    if let Some(id) = hot.origin().topic.id {
        table.set_topic_id(&id);
    }
    let started = Instant::now();
    let mut backoff = Backoff::default();
    let durable = loop {
        match table.append(&batches, &position).await {
            Ok(durable) => break durable,
            Err(error) if error.is_transient() => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "flush of bronze failed, trying again"
                );
                metrics.set_ready(Err(sentence(&error)));
                if !backoff.pause(shutdown).await {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
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
