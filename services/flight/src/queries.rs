//! Runs queries: on threads of their own, so many at once, each within its memory, its time and the size of its result.
//!
//! A query holds its place until its last batch is taken, not only until the call is answered; that is why the limits are here and not in a
//! layer around the calls.

mod engine;
mod running;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use access::Caller;
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use service::byte_count;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use self::engine::Engine;
use self::running::{Place, Places};
use crate::error::Refusal;
use crate::metrics::Metrics;

pub(crate) use self::running::{Following, Running};

/// Batches that are ready before the client takes them.
const BATCHES_READY_MAX: usize = 2;
/// How long a client may leave a batch untaken: a notebook that was left open must not keep others out for ever.
const UNTAKEN_MAX: Duration = Duration::from_mins(5);
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
    /// Memory of one query, beyond which sorts, joins and groups go to disk.
    #[arg(long, env = "CANDLEFLIGHT_QUERY_MEMORY_MAX", default_value = "256MiB", value_parser = byte_count)]
    pub query_memory_max: usize,
    /// Disk that all queries together may use for that.
    #[arg(long, env = "CANDLEFLIGHT_QUERY_DISK_MAX", default_value = "8GiB", value_parser = byte_count)]
    pub query_disk_max: usize,
    /// How long a query may work; the time that its client takes does not count.
    #[arg(long, env = "CANDLEFLIGHT_QUERY_TIME_MAX", default_value = "5m", value_parser = service::duration)]
    pub query_time_max: Duration,
    /// Bytes of one result.
    #[arg(long, env = "CANDLEFLIGHT_RESULT_BYTES_MAX", default_value = "16GiB", value_parser = byte_count)]
    pub result_bytes_max: usize,
}

/// Runs queries; clones share.
#[derive(Clone, Debug)]
pub(crate) struct Queries {
    limits: Limits,
    places: Places,
    engine: Arc<Engine>,
    /// What all queries share: caches, and the disk.
    shared: Arc<RuntimeEnv>,
    metrics: Metrics,
}

/// What a query runs in: its memory, and what it shares with others.
pub(crate) type Environment = Arc<RuntimeEnv>;
/// Makes the plans of a query, executed one after the other, in its environment.
pub(crate) type Plan =
    Box<dyn FnOnce(Environment) -> BoxFuture<'static, Result<Vec<DataFrame>, Refusal>> + Send>;

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
        Ok(Queries { limits, places, engine: Arc::new(Engine::start()), shared, metrics })
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

    /// Plans on the queries' threads, for who only asks what a query's result looks like.
    ///
    /// # Errors
    ///
    /// What planning fails with, or that it took too long.
    pub(crate) async fn plan<T: Send + 'static>(
        &self,
        plan: impl FnOnce(Environment) -> BoxFuture<'static, Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let planning = AbortOnDropHandle::new(self.engine.spawn(plan(self.environment()?)));
        match timeout(PLANNING_MAX, planning).await {
            Ok(planned) => planned.map_err(|_| Refusal::Panicked)?,
            Err(_) => Err(Refusal::TooLong { limit: PLANNING_MAX }),
        }
    }

    /// Runs a query of `caller` as soon as there is a place for it; returns once it has begun.
    ///
    /// # Errors
    ///
    /// No place became free in time, or the query failed before its first batch. Later failures are the last item of the batches.
    pub(crate) async fn run(
        &self,
        caller: &Caller,
        id: Uuid,
        text: &str,
        plan: Plan,
    ) -> Result<Answer, Refusal> {
        let place = self.places.take(caller, id, text).await?;
        self.metrics.queries.inc();
        let (sender, mut pieces) = mpsc::channel(BATCHES_READY_MAX);
        let query = Query { limits: self.limits.clone(), left: self.limits.query_time_max, place, sender };
        let mut working = AbortOnDropHandle::new(self.engine.spawn(query.run(plan(self.environment()?))));
        match pieces.recv().await {
            Some(Ok(Piece::Schema(schema))) => {
                let batches = ReceiverStream::new(pieces).filter_map(async |piece| match piece {
                    Ok(Piece::Rows(rows)) => Some(Ok(rows)),
                    Ok(Piece::Schema(_)) => None,
                    Err(refusal) => Some(Err(refusal)),
                });
                // The end of the pieces is the end of the result only if the query came to its own.
                let end = async move { (&mut working).await.err().map(|_| Err(Refusal::Panicked)) };
                let end = futures::stream::once(end).filter_map(futures::future::ready);
                Ok(Answer { schema, batches: batches.chain(end).boxed() })
            }
            Some(Err(refusal)) => Err(refusal),
            Some(Ok(Piece::Rows(_))) | None => Err(Refusal::Panicked),
        }
    }

    fn environment(&self) -> Result<Environment, Refusal> {
        let pool = TrackConsumersPool::new(FairSpillPool::new(self.limits.query_memory_max), CONSUMERS_NAMED);
        Ok(RuntimeEnvBuilder::from_runtime_env(&self.shared).with_memory_pool(Arc::new(pool)).build_arc()?)
    }
}

/// A query at work, on the engine's threads.
struct Query {
    limits: Limits,
    /// What is left of its time.
    left: Duration,
    place: Place,
    sender: mpsc::Sender<Result<Piece, Refusal>>,
}

impl Query {
    async fn run(mut self, plan: BoxFuture<'static, Result<Vec<DataFrame>, Refusal>>) {
        let (sender, running) = (self.sender.clone(), Arc::clone(&self.place.running));
        let outcome = tokio::select! {
            // Nobody waits for it any more.
            () = sender.closed() => return,
            () = running.cancelled() => Err(Refusal::Cancelled),
            outcome = self.execute(plan) => outcome,
        };
        if let Err(refusal) = outcome {
            // Whoever has gone needs no reason.
            let _gone = timeout(UNTAKEN_MAX, sender.send(Err(refusal))).await;
        }
    }

    async fn execute(
        &mut self,
        plan: BoxFuture<'static, Result<Vec<DataFrame>, Refusal>>,
    ) -> Result<(), Refusal> {
        let plans = self.within_time(plan).await??;
        let schema =
            plans.first().map_or_else(|| Arc::new(Schema::empty()), |plan| Arc::clone(plan.schema().inner()));
        let mut schema = Some(schema);
        for plan in plans {
            let mut batches = self.within_time(plan.execute_stream()).await??;
            // Said only now, so that what fails at once is the call's error and not the stream's.
            if let Some(schema) = schema.take() {
                self.send(Piece::Schema(schema)).await?;
            }
            while let Some(batch) = self.within_time(batches.next()).await? {
                let batch = batch?;
                let bytes = self.place.running.count(&batch);
                if bytes > self.limits.result_bytes_max {
                    return Err(Refusal::TooLarge { limit: self.limits.result_bytes_max });
                }
                self.send(Piece::Rows(batch)).await?;
            }
        }
        Ok(())
    }

    async fn within_time<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Refusal> {
        let begun = Instant::now();
        let done = timeout(self.left, work).await;
        self.left = self.left.saturating_sub(begun.elapsed());
        done.map_err(|_| Refusal::TooLong { limit: self.limits.query_time_max })
    }

    async fn send(&self, piece: Piece) -> Result<(), Refusal> {
        match timeout(UNTAKEN_MAX, self.sender.send(Ok(piece))).await {
            Ok(sent) => sent.map_err(|_| Refusal::Cancelled),
            Err(_) => Err(Refusal::Untaken { limit: UNTAKEN_MAX }),
        }
    }
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
