//! Bronze to gold: follows bronze on the Flight server, computes each candle's moving averages and volatilities, and writes them to
//! PostgreSQL and to the gold Delta table, each at its own position.

mod source;

mod candle;
pub mod kernel;
mod rows;
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

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use kafka::dead_letter::topic_of;
use proto::ticket::History;
use schema::bronze::column;
use service::Context;
use service::backoff::Backoff;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use crate::config::Config;
pub use crate::connection::{Postgres, PostgresUrl};
pub use crate::error::Error;
use crate::metrics::Metrics;
use crate::rows::Rows;
use crate::sink::Computed;
use crate::source::{Batch, Connection, Histories, Source};
use crate::window::{Arrivals, Change, Run, Window};

/// Most rows between two stages: a backlog is worked off in transactions of this size, and three such queues are 40 MB.
const QUEUE_ROWS_MAX: u32 = 65_536;
/// Histories that are read at once: after a restart each symbol needs one, and most of it is waiting.
const HISTORIES_AT_ONCE: usize = 8;
/// Name of the service.
pub(crate) const NAME: &str = "gold";

/// Follows bronze and writes gold until `context.shutdown`; then writes what was read and returns.
///
/// # Errors
///
/// [`Error`] that is not transient. Transient ones start the session again, from the positions of the sinks.
// Boxed, so that the service is compiled in its own crate and not into whatever awaits it.
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
    let mut backoff = Backoff::default();
    let mut rebuild = config.rebuild;
    let mut unready = "opening PostgreSQL and the lake".to_owned();
    loop {
        context.metrics.set_ready(NAME, Err(unready.clone()));
        let session = session(config, context, metrics, &mut rebuild, &mut backoff).await;
        match session {
            Err(error) if error.is_transient() && !context.shutdown.is_cancelled() => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "gold starts again from its sinks' positions"
                );
                unready = error.in_full();
                context.metrics.set_ready(NAME, Err(unready.clone()));
                if !backoff.pause(&context.shutdown).await {
                    return Ok(());
                }
            }
            result => return result,
        }
    }
}

/// Opens the sinks, emptied first if gold is to be computed again, and runs the walk from the lesser of their positions.
async fn session(
    config: &Config,
    context: &Context,
    metrics: &Metrics,
    rebuild: &mut bool,
    backoff: &mut Backoff,
) -> Result<(), Error> {
    let connection = || Connection::new(&config.flight, &context.access.client);
    let open = async {
        let origin = source::origin(&mut connection(), &config.kafka.topic).await?;
        let postgres =
            sink::postgres::Sink::open(&config.postgres, &origin, *rebuild, metrics.clone()).await?;
        let lake =
            sink::lake::Sink::open(config, &origin, *rebuild, postgres.state(), metrics.clone()).await?;
        Ok::<_, Error>((origin, postgres, lake))
    };
    let Some(opened) = context.shutdown.run_until_cancelled(open).await else { return Ok(()) };
    let (origin, postgres, lake) = opened?;
    *rebuild = false;
    backoff.reset();
    let cursor = postgres.state().position.lesser(&lake.state().position);
    let newest = postgres.state().newest.lesser(&lake.state().newest);
    tracing::info!(postgres = %postgres.state().position, lake = %lake.state().position, "gold goes on from its sinks' positions");

    // Shutdown and failure alike stop the source; what it has sent then drains, stage after stage.
    let stop = context.shutdown.child_token();
    let _stop_if_dropped = stop.clone().drop_guard();
    let (to_compute, batches) = queue::bounded(QUEUE_ROWS_MAX);
    let (to_postgres, for_postgres) = queue::bounded(QUEUE_ROWS_MAX);
    let (to_lake, for_lake) = queue::bounded(QUEUE_ROWS_MAX);
    let (to_live, live) = sink::live::open(connection());
    let (reached, committed) = watch::channel(postgres.state().position.clone());
    let computing = Computing {
        batches,
        histories: Histories::new(connection(), &origin.table, stop.clone()),
        window: Window::new(config.frame, newest, postgres.partitions().clone()),
        to_postgres,
        to_lake,
        metrics: metrics.clone(),
    };

    let mut tasks = JoinSet::new();
    let source = Source::new(connection(), &origin.table, context.metrics.clone());
    tasks.spawn(source.follow(cursor, to_compute, stop.clone()));
    tasks.spawn(postgres.run(for_postgres, reached, to_live, stop.clone()));
    tasks.spawn(live.run(stop.clone()));
    // Threads of their own, since these two compute, sort and encode for many milliseconds at a time.
    let runtime = tokio::runtime::Handle::current();
    tasks.spawn_blocking(move || runtime.block_on(computing.run()));
    let (runtime, shutdown) = (tokio::runtime::Handle::current(), stop.clone());
    tasks.spawn_blocking(move || runtime.block_on(lake.run(for_lake, shutdown)));
    tasks.spawn(source::measure_lag(connection(), committed, metrics.lag_offsets.clone(), stop.clone()));
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended.map_err(Error::from).flatten() {
            stop.cancel();
            result = result.and(Err(error));
        }
    }
    result
}

/// The stage between the source and the sinks.
#[derive(Debug)]
struct Computing {
    batches: queue::Receiver<Batch>,
    histories: Histories,
    window: Window,
    to_postgres: queue::Sender<Computed>,
    to_lake: queue::Sender<Computed>,
    metrics: Metrics,
}

impl Computing {
    /// Computes what comes from the source, all that waits of a partition together, until the source ends or a sink does.
    async fn run(mut self) -> Result<(), Error> {
        loop {
            let batches = self.batches.recv_all().await;
            if batches.is_empty() {
                return Ok(());
            }
            for run in join(batches) {
                let Some(computed) = self.compute(&run).await? else { return Ok(()) };
                failpoint::pass("gold.computed");
                let rows = computed.rows.num_rows();
                let sent = self.to_postgres.send(rows, computed.clone()).await;
                if sent.and(self.to_lake.send(rows, computed).await).is_err() {
                    // A sink has failed, and says so itself.
                    return Ok(());
                }
            }
        }
    }

    /// Computes the gold rows that a run changes; `None` when the service shuts down before their history is read.
    async fn compute(&mut self, run: &Run) -> Result<Option<Computed>, Error> {
        let arrivals = Arrivals::of(run);
        let histories = &self.histories;
        let read = async |history: History| Ok::<_, Error>((histories.read(&history).await?, history));
        let mut reads =
            futures::stream::iter(self.window.unread(&arrivals)).map(read).buffered(HISTORIES_AT_ONCE);
        while let Some((candles, history)) = reads.try_next().await? {
            let Some(candles) = candles else { return Ok(None) };
            self.window.remember(history, &candles);
        }
        let mut rows = Rows::default();
        let read = async |change: Change| {
            let Some(history) = change.history() else { return Ok((Some(Vec::new()), change)) };
            self.metrics.late_reads.inc();
            Ok::<_, Error>((histories.read(history).await?, change))
        };
        let mut reads =
            futures::stream::iter(self.window.apply(arrivals)?).map(read).buffered(HISTORIES_AT_ONCE);
        while let Some((candles, change)) = reads.try_next().await? {
            let Some(candles) = candles else { return Ok(None) };
            self.window.compute(&change, &candles, &mut rows);
        }
        let arrived = run.batches.iter().flat_map(|batch| {
            batch
                .column(column::KAFKA_TIME)
                .as_primitive::<TimestampMicrosecondType>()
                .values()
                .iter()
                .copied()
        });
        let rows = rows.finish(service::clock::now_micros());
        Ok(Some(Computed { range: run.range, rows, arrived: arrived.collect::<Arc<[i64]>>() }))
    }
}

/// Joins batches into one run a partition.
fn join(batches: Vec<Batch>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (range, batch) in batches {
        match runs.iter_mut().find(|run| run.range.partition == range.partition) {
            Some(run) => {
                run.range.next = range.next;
                run.batches.push(batch);
            }
            None => runs.push(Run { range, batches: vec![batch] }),
        }
    }
    runs
}
