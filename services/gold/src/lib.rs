//! Bronze to gold. Follows bronze on the Flight server and computes each candle's moving averages and volatilities. Writes them to
//! PostgreSQL and to the gold Delta table, each of which has its own position.

mod source;

mod aside;
mod candle;
mod compute;
mod rows;
mod run;
pub mod state;
mod window;

mod connection;
pub mod sink;
mod sqlstate;

mod dead_letters;

mod config;
mod error;
pub mod metrics;
mod queue;
pub mod verify;
mod walk;

use futures::future::BoxFuture;
use kafka::dead_letter::topic_of;
use service::Context;
use service::backoff::Backoff;
use service::error::sentence;

pub use crate::aside::Aside;
pub use crate::config::Config;
pub use crate::connection::{Postgres, PostgresUrl};
pub use crate::error::Error;
use crate::metrics::Metrics;
use crate::source::Connection;
use crate::walk::{Stage, Walk};

/// Name of the service.
pub(crate) const NAME: &str = "gold";

/// Follows bronze and writes gold until `context.shutdown`. Then writes the rows already read, and returns.
///
/// # Errors
///
/// [`Error`] that is not transient. A transient error restarts the session from the positions of the sinks.
// Boxed, so that the service is compiled in its own crate and not in each crate that awaits it.
pub fn run(config: Config, context: Context) -> BoxFuture<'static, Result<(), Error>> {
    Box::pin(async move {
        let metrics = Metrics::register(&context.metrics);
        let dead_letters = topic_of(&config.kafka.topic, config.dead_letter_topic.as_deref())?;
        tokio::select! {
            result = sessions(&config, &context, &metrics) => result,
            never = dead_letters::run(&config, &dead_letters, &metrics) => match never {},
        }
    })
}

/// Runs sessions until shutdown.
async fn sessions(config: &Config, context: &Context, metrics: &Metrics) -> Result<(), Error> {
    let mut rebuild = config.rebuild;
    context.metrics.set_ready(NAME, Err("opening PostgreSQL and the lake".to_owned()));
    let mut backoff = Backoff::default();
    let is_retried = |error: &Error| error.is_transient() && !context.shutdown.is_cancelled();
    let report = |error: &Error| {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "restarting gold from the positions of its sinks"
        );
        context.metrics.set_ready(NAME, Err(sentence(error)));
    };
    while let Err(error) = session(config, context, metrics, &mut rebuild, &mut backoff).await {
        if let Err(gave_up) = backoff.after(error, is_retried, report, &context.shutdown).await {
            return gave_up.unless_stopped();
        }
    }
    Ok(())
}

/// Opens the sinks, lets the sink that is behind catch up, and then runs the walk from their common position. With `rebuild`, empties both
/// sinks first.
///
/// A row may depend on several partitions, and is correct at one position only. So a sink accepts only rows that were computed from its own
/// position. If the two positions differ, each sink advances alone to the greater of the two.
async fn session(
    config: &Config,
    context: &Context,
    metrics: &Metrics,
    rebuild: &mut bool,
    backoff: &mut Backoff,
) -> Result<(), Error> {
    let mut connection = Connection::new(&config.flight, &context.access.client);
    let open = async {
        let origin = source::origin(&mut connection, &config.kafka.topic).await?;
        let (frame, rebuild) = (config.frame, *rebuild);
        let postgres =
            sink::postgres::Sink::open(&config.postgres, &origin, rebuild, frame, metrics.clone()).await?;
        let lake =
            sink::lake::Sink::open(config, &origin, rebuild, postgres.state(), metrics.clone()).await?;
        Ok::<_, Error>((origin, postgres, lake))
    };
    let Some(opened) = context.shutdown.run_until_cancelled(open).await else { return Ok(()) };
    let (origin, postgres, lake) = opened?;
    *rebuild = false;
    backoff.reset();
    tracing::info!(postgres = %postgres.state().position, lake = %lake.state().position, "gold continues from the positions of its sinks");
    let reach = postgres.state().position.greater(&lake.state().position);
    let mut walk = Walk::new(config, context, metrics, origin.table, &postgres);
    let mut stages = Vec::new();
    for stage in [Stage::Postgres(postgres), Stage::Lake(lake)] {
        if stage.state().position.has_reached(&reach) {
            stages.push(stage);
        } else {
            stages.extend(walk.run(vec![stage], Some(&reach)).await?);
        }
        if context.shutdown.is_cancelled() {
            return Ok(());
        }
    }
    walk.run(stages, None).await?;
    Ok(())
}
