//! Execution of queries: on separate threads, a limited number at once, each with limits for memory, time and result size.
//!
//! A query keeps its place until the client has taken its last batch, not only until the call is answered. So the limits are here and not
//! in a layer around the calls.

mod engine;
mod running;
pub(crate) mod watch;

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
use crate::error::CallError;
use crate::follow::turn::Turns;
use crate::metrics::Metrics;
use crate::sql::names;

pub(crate) use self::running::{Following, Purpose, Running};
pub(crate) use self::watch::bound_functions;

/// Maximum number of batches that are ready before the client takes them.
const BATCHES_READY_MAX: usize = 2;
/// Longest time that a client may leave a batch untaken. A notebook that stays open must not block others indefinitely.
pub(crate) const UNTAKEN_MAX: Duration = Duration::from_mins(5);
/// Longest planning time of a query that is only described or prepared.
const PLANNING_MAX: Duration = Duration::from_secs(30);
/// Number of memory consumers that an out-of-memory error lists.
const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(3).unwrap();

/// Limits of queries.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "limits")]
#[command(next_help_heading = "Limits of queries")]
pub struct Limits {
    /// Maximum number of concurrent queries. Further queries wait briefly and are then rejected.
    #[arg(long, env = "CANDLEFLIGHT_QUERIES_MAX", default_value_t = 16)]
    pub queries_max: usize,
    /// Maximum number of concurrent queries of one user.
    #[arg(long, env = "CANDLEFLIGHT_USER_QUERIES_MAX", default_value_t = 8)]
    pub user_queries_max: usize,
    /// Maximum number of concurrent streams of one user that follow a table.
    #[arg(long, env = "CANDLEFLIGHT_USER_FOLLOWERS_MAX", default_value_t = 100)]
    pub user_followers_max: usize,
    /// Memory of all followers that read files. Followers that may write have the same amount again. Further followers wait for their turn.
    #[arg(long, env = "CANDLEFLIGHT_FOLLOWERS_MEMORY_MAX", default_value = "512MiB", value_parser = byte_count)]
    pub followers_memory_max: usize,
    /// Memory limit of one query. Sorts, joins and groups that exceed it spill to disk.
    #[arg(long, env = "CANDLEFLIGHT_QUERY_MEMORY_MAX", default_value = "256MiB", value_parser = byte_count)]
    pub query_memory_max: usize,
    /// Disk space that sorts, joins and groups of all queries together may use.
    #[arg(long, env = "CANDLEFLIGHT_QUERY_DISK_MAX", default_value = "8GiB", value_parser = byte_count)]
    pub query_disk_max: usize,
    /// Longest working time of a query. The time that its client takes does not count.
    #[arg(long, env = "CANDLEFLIGHT_QUERY_TIME_MAX", default_value = "5m", value_parser = service::duration)]
    pub query_time_max: Duration,
    /// Maximum size of a query's text or Substrait plan, in bytes.
    #[arg(long, env = "CANDLEFLIGHT_QUERY_TEXT_MAX", default_value = "1MiB", value_parser = byte_count)]
    pub query_text_max: usize,
    /// Maximum size of one result, in bytes.
    #[arg(long, env = "CANDLEFLIGHT_RESULT_BYTES_MAX", default_value = "16GiB", value_parser = byte_count)]
    pub result_bytes_max: usize,
}

/// Executor of queries. Clones share its state.
#[derive(Clone, Debug)]
pub(crate) struct Queries {
    limits: Limits,
    places: Places,
    turns: Turns,
    engine: Arc<Engine>,
    /// Environment that all queries share: caches and the disk.
    shared: Arc<RuntimeEnv>,
    metrics: Metrics,
}

/// Future that plans a query.
pub(crate) type Plan = BoxFuture<'static, Result<Planned, CallError>>;

/// Planned query, and the parameters of each execution. The executions run one after the other.
pub(crate) struct Planned {
    pub(crate) query: DataFrame,
    pub(crate) executions: Vec<Vec<ScalarValue>>,
}

/// Result of a query that has started.
pub(crate) struct Answer {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: BoxStream<'static, Result<RecordBatch, CallError>>,
}

/// Message from a running query to the call that waits for it.
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

    /// Returns the running queries.
    pub(crate) fn running(&self) -> Vec<Arc<Running>> {
        self.places.running()
    }

    /// Takes one of the caller's places for streams that follow a table.
    ///
    /// # Errors
    ///
    /// The caller has no free place.
    pub(crate) fn follow(&self, caller: &Caller) -> Result<Following, CallError> {
        self.places.follow(caller)
    }

    /// Returns the turns of the followers.
    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Plans a query that is only described, on the query threads, as soon as a place is free.
    ///
    /// # Errors
    ///
    /// No place became free in time, planning took too long, or planning failed.
    pub(crate) async fn plan<T: Send + 'static>(
        &self,
        caller: &Caller,
        plan: impl Future<Output = Result<T, CallError>> + Send + 'static,
    ) -> Result<T, CallError> {
        let place = self.places.plan(caller).await?;
        self.prepare(async move {
            // The work keeps its place while it computes, even if no caller waits for it any more.
            let _place = place;
            plan.await
        })
        .await
    }

    /// Runs preparatory work for queries on the query threads, such as opening a table.
    ///
    /// # Errors
    ///
    /// The work took too long or failed.
    pub(crate) async fn prepare<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, CallError>> + Send + 'static,
    ) -> Result<T, CallError> {
        let working = AbortOnDropHandle::new(self.engine.spawn(work));
        match timeout(PLANNING_MAX, working).await {
            Ok(done) => done.map_err(|_| CallError::Panicked)?,
            Err(_) => Err(CallError::TooLong { limit: PLANNING_MAX }),
        }
    }

    /// Checks the length of a query's text before the text is processed.
    ///
    /// # Errors
    ///
    /// The text is too long.
    pub(crate) fn check_text(&self, bytes: usize) -> Result<(), CallError> {
        let limit = self.limits.query_text_max;
        if bytes > limit { Err(CallError::TooLongText { bytes, limit }) } else { Ok(()) }
    }

    /// Runs a query of `caller` as soon as a place is free. Returns once the query has started.
    ///
    /// # Errors
    ///
    /// No place became free in time, or the query failed before its first batch. A later failure is the last item of the batches.
    pub(crate) async fn run(
        &self,
        purpose: Purpose,
        caller: &Caller,
        id: Uuid,
        text: &str,
        plan: Plan,
    ) -> Result<Answer, CallError> {
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
                        Err(error) => Some((Err(error), None)),
                    }
                });
                Ok(Answer { schema, batches: batches.boxed() })
            }
            Some(Err(error)) => Err(error),
            Some(Ok(Piece::Rows(_))) | None => Err(CallError::Panicked),
        }
    }

    /// Returns the shared environment, in which queries are planned.
    pub(crate) fn shared(&self) -> &Arc<RuntimeEnv> {
        &self.shared
    }

    /// Creates the environment of one query: the shared one with its own memory.
    fn environment(&self, watch: &Watch) -> Result<Arc<RuntimeEnv>, CallError> {
        let pool = TrackConsumersPool::new(FairSpillPool::new(self.limits.query_memory_max), CONSUMERS_NAMED);
        let builder = RuntimeEnvBuilder::from_runtime_env(&self.shared);
        Ok(builder.with_memory_pool(watch.pool(pool)).build_arc()?)
    }
}

/// Pieces of a running query, as the call takes them. The call ends in time whatever the query computes, and then stops the query.
struct Pieces {
    receiver: mpsc::Receiver<Result<Piece, CallError>>,
    /// Task of the query. Dropping this value aborts it wherever it waits.
    working: AbortOnDropHandle<()>,
    running: Arc<Running>,
    limit: Duration,
    /// Remaining time of the query.
    left: Duration,
}

impl Pieces {
    async fn next(&mut self) -> Option<Result<Piece, CallError>> {
        let begun = Instant::now();
        let piece = tokio::select! {
            piece = timeout(self.left, self.receiver.recv()) => piece,
            () = self.running.cancelled() => return Some(Err(CallError::Cancelled)),
        };
        self.left = self.left.saturating_sub(begun.elapsed());
        match piece {
            Ok(Some(piece)) => Some(piece),
            // The result is complete only if the query's task ended without an error.
            Ok(None) => (&mut self.working).await.err().map(|_| Err(CallError::Panicked)),
            Err(_) => Some(Err(CallError::TooLong { limit: self.limit })),
        }
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        // The query is out of time, was cancelled, has lost its client, or has ended.
        self.running.watch.stop();
    }
}

/// Query that runs on the engine's threads.
struct Query {
    environment: Arc<RuntimeEnv>,
    result_bytes_max: usize,
    place: Place,
    sender: mpsc::Sender<Result<Piece, CallError>>,
}

impl Query {
    async fn run(self, plan: Plan) {
        if let Err(error) = self.execute(plan).await {
            // A client that is gone needs no reason.
            let _gone = timeout(UNTAKEN_MAX, self.sender.send(Err(error))).await;
        }
    }

    async fn execute(&self, plan: Plan) -> Result<(), CallError> {
        let mut is_described = false;
        let Planned { query, executions } = plan.await?;
        for parameters in executions {
            let plan = bind(query.clone(), parameters)?;
            let schema = names::given(plan.schema().inner());
            let context = plan.task_ctx().with_runtime(Arc::clone(&self.environment));
            let plan = self.place.running.watch.plan(plan, &self.environment).await?;
            let mut batches = execute_stream(plan, Arc::new(context))?;
            // The schema is sent only now, so that an immediate failure is the error of the call and not of the stream.
            if !std::mem::replace(&mut is_described, true) {
                self.send(Piece::Schema(schema)).await?;
            }
            while let Some(batch) = batches.next().await.transpose()? {
                let batch = names::rename(batch)?;
                if self.place.running.count(&batch)? > self.result_bytes_max {
                    return Err(CallError::TooLarge { limit: self.result_bytes_max });
                }
                self.send(Piece::Rows(batch)).await?;
            }
        }
        Ok(())
    }

    async fn send(&self, piece: Piece) -> Result<(), CallError> {
        match timeout(UNTAKEN_MAX, self.sender.send(Ok(piece))).await {
            Ok(sent) => sent.map_err(|_| CallError::Cancelled),
            Err(_) => Err(CallError::Untaken { limit: UNTAKEN_MAX }),
        }
    }
}

impl From<DataFrame> for Planned {
    fn from(query: DataFrame) -> Self {
        Planned { query, executions: vec![Vec::new()] }
    }
}

/// Returns a query with its parameters bound, if it has any.
///
/// # Errors
///
/// The parameters do not fit the query.
pub(crate) fn bind(query: DataFrame, parameters: Vec<ScalarValue>) -> Result<DataFrame, DataFusionError> {
    if parameters.is_empty() { Ok(query) } else { query.with_param_values(parameters) }
}

impl Answer {
    /// Returns the schema and the batches. `map` converts each error.
    pub(crate) fn map_err<E>(
        self,
        map: impl Fn(CallError) -> E + Send + 'static,
    ) -> (SchemaRef, impl Stream<Item = Result<RecordBatch, E>> + Send) {
        (self.schema, self.batches.map(move |batch| batch.map_err(&map)))
    }
}
