//! One walk: the source, the computation and the sinks. Each is a task, and a bounded queue connects each pair.

use position::Position;
use service::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::compute::{CHANGED_ROWS_MAX, Computing, Pieces};
use crate::config::Config;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::queue;
use crate::sink;
use crate::source::{self, Connection, Histories, Source};
use crate::state::{GoldBatch, NewestBySymbol, SinkState, SymbolPartitions};
use crate::window::Window;

/// Maximum number of rows between two stages. A backlog is processed in transactions of this size, and three such queues take 40 MB.
const QUEUE_ROWS_MAX: u32 = 65_536;

/// A durable sink, the last stage of a walk.
#[derive(Debug)]
pub(crate) enum Stage {
    Postgres(sink::postgres::Sink),
    Lake(sink::lake::Sink),
}

/// Result of a task of a walk.
#[expect(clippy::large_enum_variant, reason = "a walk leaves three of them")]
enum Ended {
    Sink(Stage),
    Computing(Pieces),
    Other,
}

/// State that the walks of a session share.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    config: &'a Config,
    context: &'a Context,
    metrics: &'a Metrics,
    /// The bronze table whose offsets the positions count.
    table: String,
    /// Position of PostgreSQL.
    reached: watch::Sender<Position>,
    /// Partitions of the symbols, at the position of PostgreSQL or later.
    partitions: SymbolPartitions,
    /// The window of the last walk.
    pieces: Option<Pieces>,
}

impl Stage {
    /// Returns the position of the sink and its newest rows.
    pub(crate) fn state(&self) -> &SinkState {
        match self {
            Stage::Postgres(postgres) => postgres.state(),
            Stage::Lake(lake) => lake.state(),
        }
    }

    /// Starts the sink, which reads from `queue`. Rows that PostgreSQL has committed go to followers over the connection `followers`.
    fn start(
        self,
        tasks: &mut JoinSet<Result<Ended, Error>>,
        queue: queue::Receiver<GoldBatch>,
        reached: watch::Sender<Position>,
        followers: Option<Connection>,
        stop: CancellationToken,
    ) {
        match self {
            Stage::Postgres(postgres) => {
                let (to_followers, followers) = followers.map(sink::flight::open).unzip();
                if let Some(followers) = followers {
                    let followers = followers.run(stop.clone());
                    tasks.spawn(async { followers.await.map(|()| Ended::Other) });
                }
                let postgres = postgres.run(queue, reached, to_followers, stop);
                tasks.spawn(async { Ok(Ended::Sink(Stage::Postgres(postgres.await?))) });
            }
            Stage::Lake(lake) => {
                // The lake has its own thread, since it sorts and encodes for many milliseconds at a time.
                let runtime = tokio::runtime::Handle::current();
                let lake = lake.run(queue, stop);
                tasks.spawn_blocking(move || Ok(Ended::Sink(Stage::Lake(runtime.block_on(lake)?))));
            }
        }
    }
}

impl<'a> Walk<'a> {
    /// Prepares the walks of a session that has opened `postgres`.
    pub(crate) fn new(
        config: &'a Config,
        context: &'a Context,
        metrics: &'a Metrics,
        table: String,
        postgres: &sink::postgres::Sink,
    ) -> Self {
        let reached = watch::Sender::new(postgres.state().position.clone());
        let partitions = postgres.partitions().clone();
        Walk { config, context, metrics, table, reached, partitions, pieces: None }
    }

    /// Walks from the sinks' common position until `until` or until shutdown, and returns the sinks.
    ///
    /// # Errors
    ///
    /// [`Error`] of the first stage that fails.
    pub(crate) async fn run(
        &mut self,
        sinks: Vec<Stage>,
        until: Option<&Position>,
    ) -> Result<Vec<Stage>, Error> {
        let Walk { config, context, metrics, ref reached, ref table, .. } = *self;
        let (cursor, newest) = common(&sinks);
        // A window that already is at the start of this walk has read all history that it needs.
        let pieces = self.pieces.take().filter(|pieces| pieces.is_at(&cursor)).unwrap_or_else(|| {
            let window = Window::new(config.frame, cursor.clone(), newest, self.partitions.clone());
            Pieces::new(window, CHANGED_ROWS_MAX)
        });
        // Shutdown and failure both stop the source. The stages then drain one after the other.
        let stop = context.shutdown.child_token();
        let _stop_if_dropped = stop.clone().drop_guard();
        let identity = &context.access.client;
        let connection = || Connection::new(&config.flight, identity);
        let (to_compute, batches) = queue::bounded(QUEUE_ROWS_MAX);

        let mut tasks: JoinSet<Result<Ended, Error>> = JoinSet::new();
        let source = Source::new(connection(), table, context.metrics.clone());
        let source = source.follow(cursor, until.cloned(), to_compute, stop.clone());
        tasks.spawn(async { source.await.map(|()| Ended::Other) });
        let mut to_sinks = Vec::new();
        for sink in sinks {
            let (to_sink, for_sink) = queue::bounded(QUEUE_ROWS_MAX);
            to_sinks.push(to_sink);
            // Catch-up rows are not sent to followers, who read these rows from the gold table.
            let followers = until.is_none().then(connection);
            sink.start(&mut tasks, for_sink, reached.clone(), followers, stop.clone());
        }
        let computing = Computing {
            batches,
            histories: Histories::new(connection(), table, stop.clone()),
            pieces,
            sinks: to_sinks,
            metrics: metrics.clone(),
        };
        let runtime = tokio::runtime::Handle::current();
        tasks.spawn_blocking(move || runtime.block_on(computing.run()).map(Ended::Computing));
        // These tasks end with the walk.
        let mut beside = JoinSet::new();
        let lag = metrics.lag_offsets.clone();
        beside.spawn(source::measure_lag(connection(), reached.subscribe(), lag, stop.clone()));

        let mut ended = Vec::new();
        let mut result = Ok(());
        while let Some(task) = tasks.join_next().await {
            match task.map_err(Error::from).flatten() {
                Ok(Ended::Other) => {}
                Ok(Ended::Computing(pieces)) => self.pieces = Some(pieces),
                Ok(Ended::Sink(sink)) => {
                    if let Stage::Postgres(postgres) = &sink {
                        self.partitions.extend(postgres.partitions());
                    }
                    ended.push(sink);
                }
                Err(error) => {
                    stop.cancel();
                    result = result.and(Err(error));
                }
            }
        }
        result.map(|()| ended)
    }
}

/// Returns the position from which all sinks can continue, and the newest event times that all of them have there.
fn common(sinks: &[Stage]) -> (Position, NewestBySymbol) {
    let states = sinks.iter().map(|sink| (sink.state().position.clone(), sink.state().newest.clone()));
    let lesser = |(position, newest): (Position, NewestBySymbol),
                  (other, others): (Position, NewestBySymbol)| {
        (position.lesser(&other), newest.lesser(&others))
    };
    states.reduce(lesser).unwrap_or_default()
}
