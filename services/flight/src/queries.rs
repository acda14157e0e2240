//! Runs queries: on threads of their own, so many at once, each within its memory, its time and the size of its result.
//!
//! A query holds its place until its last batch is taken, not only until the call is answered; that is why the limits are here and not in a
//! layer around the calls.

mod engine;
mod running;
mod watch;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use access::Caller;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_plan::execute_stream;
use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use service::byte_count;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use self::engine::Engine;
use self::running::{Place, Places};
use self::watch::Watch;
use crate::error::Refusal;
use crate::follow::turn::Turns;
use crate::metrics::Metrics;
use crate::sql::names;

pub(crate) use self::running::{Following, Purpose, Running};
pub(crate) use self::watch::{Stopped, bound_functions};

/// Batches that are ready before the client takes them.
const BATCHES_READY_MAX: usize = 2;
/// How long a client may leave a batch untaken: a notebook that was left open must not keep others out for ever.
pub(crate) const UNTAKEN_MAX: Duration = Duration::from_mins(5);
/// How long planning may take that is not yet a query's own.
const PLANNING_MAX: Duration = Duration::from_secs(30);
/// Consumers of memory that the error of a query names that needs too much.
const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(3).unwrap();

/// What queries may take.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "limits")]
#[command(next_help_heading = "Limits of queries")]
pub struct Limits {
    /// Queries that run at once; the next ones wait for a moment, and are then refused.
    #[arg(long, env = "CANDLEFLIGHT_QUERIES_MAX", default_value_t = 16)]
    pub queries_max: usize,
    /// Queries of one user that run at once.
    #[arg(long, env = "CANDLEFLIGHT_USER_QUERIES_MAX", default_value_t = 8)]
    pub user_queries_max: usize,
    /// Streams of one user that follow a table at once.
    #[arg(long, env = "CANDLEFLIGHT_USER_FOLLOWERS_MAX", default_value_t = 100)]
    pub user_followers_max: usize,
    /// Memory of all followers together that read files, twice if some of them may write; the next ones wait for their turn.
    #[arg(long, env = "CANDLEFLIGHT_FOLLOWERS_MEMORY_MAX", default_value = "512MiB", value_parser = byte_count)]
    pub followers_memory_max: usize,
    /// Memory of one query, beyond which sorts, joins and groups go to disk.
    #[arg(long, env = "CANDLEFLIGHT_QUERY_MEMORY_MAX", default_value = "256MiB", value_parser = byte_count)]
    pub query_memory_max: usize,
    /// Disk that all queries together may use for that.
    #[arg(long, env = "CANDLEFLIGHT_QUERY_DISK_MAX", default_value = "8GiB", value_parser = byte_count)]
    pub query_disk_max: usize,
    /// How long a query may work; the time that its client takes does not count.
    #[arg(long, env = "CANDLEFLIGHT_QUERY_TIME_MAX", default_value = "5m", value_parser = service::duration)]
    pub query_time_max: Duration,
    /// Bytes of a query's text or Substrait plan.
    #[arg(long, env = "CANDLEFLIGHT_QUERY_TEXT_MAX", default_value = "1MiB", value_parser = byte_count)]
    pub query_text_max: usize,
    /// Bytes of one result.
    #[arg(long, env = "CANDLEFLIGHT_RESULT_BYTES_MAX", default_value = "16GiB", value_parser = byte_count)]
    pub result_bytes_max: usize,
}

/// Runs queries; clones share.
#[derive(Clone, Debug)]
pub(crate) struct Queries {
    limits: Limits,
    places: Places,
    turns: Turns,
    engine: Arc<Engine>,
    /// What all queries share: caches, and the disk.
    shared: Arc<RuntimeEnv>,
    metrics: Metrics,
}

/// Makes the plan of a query.
pub(crate) type Plan = BoxFuture<'static, Result<Planned, Refusal>>;

/// A query that is planned, and the parameters of each execution: they run one after the other.
pub(crate) struct Planned {
    pub(crate) query: DataFrame,
    pub(crate) executions: Vec<Vec<ScalarValue>>,
}

/// A query that has begun.
pub(crate) struct Answer {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: BoxStream<'static, Result<RecordBatch, Refusal>>,
}

/// What a running query sends to the call that waits for it.
enum Piece {
    Schema(SchemaRef),
    Rows(RecordBatch),
}

impl Queries {
    /// Starts the threads that queries run on.
    pub(crate) fn new(limits: Limits, metrics: Metrics) -> Result<Self, DataFusionError> {
        let disk = u64::try_from(limits.query_disk_max).unwrap_or(u64::MAX);
        let shared = RuntimeEnvBuilder::new().with_max_temp_directory_size(disk).build_arc()?;
        let places = Places::new(&limits, metrics.clone());
        let engine = Arc::new(Engine::start(limits.queries_max));
        let turns = Turns::new(limits.followers_memory_max);
        Ok(Queries { limits, places, turns, engine, shared, metrics })
    }

    /// Returns the queries that run.
    pub(crate) fn running(&self) -> Vec<Arc<Running>> {
        self.places.running()
    }

    /// Takes one of the caller's places for streams that follow a table.
    ///
    /// # Errors
    ///
    /// The caller has none left.
    pub(crate) fn follow(&self, caller: &Caller) -> Result<Following, Refusal> {
        self.places.follow(caller)
    }

    /// Returns the turns of those who follow a table.
    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Plans on the queries' threads what is only to be described, as soon as there is a place for it.
    ///
    /// # Errors
    ///
    /// No place became free in time, it took too long, or what planning fails with.
    pub(crate) async fn plan<T: Send + 'static>(
        &self,
        caller: &Caller,
        plan: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let place = self.places.plan(caller).await?;
        self.prepare(async move {
            // It keeps its place for as long as it computes, also when nobody waits for it any more.
            let _place = place;
            plan.await
        })
        .await
    }

    /// Does on the queries' threads what queries will need, such as opening a table.
    ///
    /// # Errors
    ///
    /// It took too long, or its own.
    pub(crate) async fn prepare<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let working = AbortOnDropHandle::new(self.engine.spawn(work));
        match timeout(PLANNING_MAX, working).await {
            Ok(done) => done.map_err(|_| Refusal::Panicked)?,
            Err(_) => Err(Refusal::TooLong { limit: PLANNING_MAX }),
        }
    }

    /// Checks the length of a query's text before anything is made of it.
    ///
    /// # Errors
    ///
    /// It is too long.
    pub(crate) fn check_text(&self, bytes: usize) -> Result<(), Refusal> {
        let limit = self.limits.query_text_max;
        if bytes > limit { Err(Refusal::TooLongText { bytes, limit }) } else { Ok(()) }
    }

    /// Runs a query of `caller` as soon as there is a place for it; returns once it has begun.
    ///
    /// # Errors
    ///
    /// No place became free in time, or the query failed before its first batch. Later failures are the last item of the batches.
    pub(crate) async fn run(
        &self,
        purpose: Purpose,
        caller: &Caller,
        id: Uuid,
        text: &str,
        plan: Plan,
    ) -> Result<Answer, Refusal> {
        let place = self.places.take(purpose, caller, id, text).await?;
        self.metrics.queries.inc();
        let (sender, receiver) = mpsc::channel(BATCHES_READY_MAX);
        let result_bytes_max = self.limits.result_bytes_max;
        let running = Arc::clone(&place.running);
        let query = Query { environment: self.environment(&running.watch)?, result_bytes_max, place, sender };
        let working = AbortOnDropHandle::new(self.engine.spawn(query.run(plan)));
        let limit = self.limits.query_time_max;
        let mut pieces = Pieces { receiver, working, running, limit, left: limit };
        match pieces.next().await {
            Some(Ok(Piece::Schema(schema))) => {
                let batches = futures::stream::unfold(Some(pieces), async |pieces| {
                    let mut pieces = pieces?;
                    match pieces.next().await? {
                        Ok(Piece::Rows(rows)) => Some((Ok(rows), Some(pieces))),
                        Ok(Piece::Schema(_)) => None,
                        Err(refusal) => Some((Err(refusal), None)),
                    }
                });
                Ok(Answer { schema, batches: batches.boxed() })
            }
            Some(Err(refusal)) => Err(refusal),
            Some(Ok(Piece::Rows(_))) | None => Err(Refusal::Panicked),
        }
    }

    /// Returns what all queries share, in which they are planned.
    pub(crate) fn shared(&self) -> &Arc<RuntimeEnv> {
        &self.shared
    }

    /// Makes what one query runs in: what all share, and memory of its own.
    fn environment(&self, watch: &Watch) -> Result<Arc<RuntimeEnv>, Refusal> {
        let pool = TrackConsumersPool::new(FairSpillPool::new(self.limits.query_memory_max), CONSUMERS_NAMED);
        let builder = RuntimeEnvBuilder::from_runtime_env(&self.shared);
        Ok(builder.with_memory_pool(watch.pool(pool)).build_arc()?)
    }
}

/// What the call takes of a query at work. The call ends in time whatever the query computes, and stops it.
struct Pieces {
    receiver: mpsc::Receiver<Result<Piece, Refusal>>,
    /// Ends when this is dropped, wherever it waits.
    working: AbortOnDropHandle<()>,
    running: Arc<Running>,
    limit: Duration,
    /// What is left of the query's time.
    left: Duration,
}

impl Pieces {
    async fn next(&mut self) -> Option<Result<Piece, Refusal>> {
        let begun = Instant::now();
        let piece = tokio::select! {
            piece = timeout(self.left, self.receiver.recv()) => piece,
            () = self.running.cancelled() => return Some(Err(Refusal::Cancelled)),
        };
        self.left = self.left.saturating_sub(begun.elapsed());
        match piece {
            Ok(Some(piece)) => Some(piece),
            // The end of the pieces is the end of the result only if the query came to its own.
            Ok(None) => (&mut self.working).await.err().map(|_| Err(Refusal::Panicked)),
            Err(_) => Some(Err(Refusal::TooLong { limit: self.limit })),
        }
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        // Its time is up, it was cancelled, or its client is gone; or it has ended.
        self.running.watch.stop();
    }
}

/// A query at work, on the engine's threads.
struct Query {
    environment: Arc<RuntimeEnv>,
    result_bytes_max: usize,
    place: Place,
    sender: mpsc::Sender<Result<Piece, Refusal>>,
}

impl Query {
    async fn run(self, plan: Plan) {
        if let Err(refusal) = self.execute(plan).await {
            // Whoever has gone needs no reason.
            let _gone = timeout(UNTAKEN_MAX, self.sender.send(Err(refusal))).await;
        }
    }

    async fn execute(&self, plan: Plan) -> Result<(), Refusal> {
        let mut is_described = false;
        let Planned { query, executions } = plan.await?;
        for parameters in executions {
            let plan = bind(query.clone(), parameters)?;
            let schema = names::given(plan.schema().inner());
            let context = plan.task_ctx().with_runtime(Arc::clone(&self.environment));
            let plan = self.place.running.watch.plan(plan, &self.environment).await?;
            let mut batches = execute_stream(plan, Arc::new(context))?;
            // Said only now, so that what fails at once is the call's error and not the stream's.
            if !std::mem::replace(&mut is_described, true) {
                self.send(Piece::Schema(schema)).await?;
            }
            while let Some(batch) = batches.next().await.transpose()? {
                let batch = names::rename(batch)?;
                if self.place.running.count(&batch)? > self.result_bytes_max {
                    return Err(Refusal::TooLarge { limit: self.result_bytes_max });
                }
                self.send(Piece::Rows(batch)).await?;
            }
        }
        Ok(())
    }

    async fn send(&self, piece: Piece) -> Result<(), Refusal> {
        match timeout(UNTAKEN_MAX, self.sender.send(Ok(piece))).await {
            Ok(sent) => sent.map_err(|_| Refusal::Cancelled),
            Err(_) => Err(Refusal::Untaken { limit: UNTAKEN_MAX }),
        }
    }
}

impl From<DataFrame> for Planned {
    fn from(query: DataFrame) -> Self {
        Planned { query, executions: vec![Vec::new()] }
    }
}

/// Returns a query with its parameters, if it has any.
///
/// # Errors
///
/// They do not fit.
pub(crate) fn bind(query: DataFrame, parameters: Vec<ScalarValue>) -> Result<DataFrame, DataFusionError> {
    if parameters.is_empty() { Ok(query) } else { query.with_param_values(parameters) }
}

impl Answer {
    /// Returns the batches, with errors as `map` has them.
    pub(crate) fn map_err<E>(
        self,
        map: impl Fn(Refusal) -> E + Send + 'static,
    ) -> (SchemaRef, impl Stream<Item = Result<RecordBatch, E>> + Send) {
        (self.schema, self.batches.map(move |batch| batch.map_err(&map)))
    }
}
