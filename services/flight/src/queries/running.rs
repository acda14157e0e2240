//! Which queries run, whose they are, and how many may.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use access::{Caller, Role};
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use prometheus_client::metrics::gauge::Gauge;
use proto::stream::batch_bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::Refusal;
use crate::metrics::Metrics;
use crate::queries::Limits;

/// How long a query waits for a place: a dashboard asks for all its charts at once, and each takes milliseconds.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The places for queries; clones share.
#[derive(Clone)]
pub(crate) struct Places(Arc<Shared>);

struct Shared {
    all: Arc<Semaphore>,
    all_max: usize,
    queries: Shares,
    followers: Shares,
    running: Mutex<HashMap<u64, Arc<Running>>>,
    count: AtomicU64,
    metrics: Metrics,
}

/// As many places for each user; users are in the users file, so they are few.
struct Shares {
    max: usize,
    by_user: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
}

/// One query that runs.
#[derive(Debug)]
pub(crate) struct Running {
    /// Names it to its client: two executions of one ticket share it.
    pub(crate) id: Uuid,
    pub(crate) user: Arc<str>,
    pub(crate) text: String,
    pub(crate) started_micros: i64,
    started: Instant,
    rows: AtomicUsize,
    bytes: AtomicUsize,
    cancelled: CancellationToken,
}

/// A query's place; free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) running: Arc<Running>,
    key: u64,
    places: Places,
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

/// A follower's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Following {
    followers: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(limits: &Limits, metrics: Metrics) -> Places {
        Places(Arc::new(Shared {
            all: Arc::new(Semaphore::new(limits.queries_max)),
            all_max: limits.queries_max,
            queries: Shares::new(limits.user_queries_max),
            followers: Shares::new(limits.user_followers_max),
            running: Mutex::default(),
            count: AtomicU64::default(),
            metrics,
        }))
    }

    /// Waits for a place.
    ///
    /// # Errors
    ///
    /// [`Refusal::Busy`]: none became free in time.
    pub(super) async fn take(&self, caller: &Caller, id: Uuid, text: &str) -> Result<Place, Refusal> {
        let Shared { all, all_max, queries, .. } = &*self.0;
        // Where nobody is asked who calls, nobody's share can be told.
        let user = (!caller.is_anyone()).then(|| queries.of(caller));
        let until = Instant::now() + WAIT_MAX;
        let acquire = async |semaphore: &Arc<Semaphore>, limit: String| {
            let permit = tokio::time::timeout_at(until, Arc::clone(semaphore).acquire_owned()).await;
            permit.map(|permit| permit.expect("it is never closed")).map_err(|_| {
                self.0.metrics.queries_refused.inc();
                Refusal::Busy(limit)
            })
        };
        let own = match &user {
            None => None,
            Some(user) => Some(
                acquire(
                    user,
                    format!("{} queries of user {:?} (--user-queries-max)", queries.max, caller.user),
                )
                .await?,
            ),
        };
        let permits = (acquire(all, format!("{all_max} queries (--queries-max)")).await?, own);
        let running = Arc::new(Running {
            id,
            user: Arc::clone(&caller.user),
            text: text.to_owned(),
            started_micros: service::clock::now_micros(),
            started: Instant::now(),
            rows: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            cancelled: CancellationToken::new(),
        });
        let key = self.0.count.fetch_add(1, Ordering::Relaxed);
        locked(&self.0.running).insert(key, Arc::clone(&running));
        self.0.metrics.queries_running.inc();
        Ok(Place { running, key, places: self.clone(), _permits: permits })
    }

    /// Returns the queries that run, the oldest first.
    pub(super) fn running(&self) -> Vec<Arc<Running>> {
        let mut running: Vec<_> =
            locked(&self.0.running).iter().map(|(key, running)| (*key, Arc::clone(running))).collect();
        running.sort_by_key(|(key, _)| *key);
        running.into_iter().map(|(_, running)| running).collect()
    }

    /// Takes one of the caller's places for followers, at once or not at all: a follower stays.
    pub(super) fn follow(&self, caller: &Caller) -> Result<Following, Refusal> {
        let Shared { followers, metrics, .. } = &*self.0;
        let permit = followers.of(caller).try_acquire_owned().map_err(|_| {
            Refusal::Busy(format!(
                "{} followers of user {:?} (--user-followers-max)",
                followers.max, caller.user
            ))
        })?;
        metrics.followers.inc();
        Ok(Following { followers: metrics.followers.clone(), _permit: permit })
    }
}

impl Shares {
    fn new(max: usize) -> Shares {
        Shares { max, by_user: Mutex::default() }
    }

    fn of(&self, caller: &Caller) -> Arc<Semaphore> {
        let mut by_user = locked(&self.by_user);
        Arc::clone(
            by_user.entry(Arc::clone(&caller.user)).or_insert_with(|| Arc::new(Semaphore::new(self.max))),
        )
    }
}

impl Running {
    /// Tells whether `caller` may see and cancel it.
    pub(crate) fn is_open_to(&self, caller: &Caller) -> bool {
        self.user == caller.user || caller.role >= Role::Admin
    }

    /// Ends it; its client is told.
    pub(crate) fn cancel(&self) {
        self.cancelled.cancel();
    }

    pub(super) async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Counts a batch of its result; returns the bytes so far.
    ///
    /// # Errors
    ///
    /// [`ArrowError`] for a type whose layout is not known, which no result has.
    pub(super) fn count(&self, batch: &RecordBatch) -> Result<usize, ArrowError> {
        self.rows.fetch_add(batch.num_rows(), Ordering::Relaxed);
        // A large result is often slices of the same buffers, of which each is only its part.
        let bytes = batch_bytes(batch)?;
        Ok(self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes)
    }

    /// Returns the rows of its result so far.
    pub(crate) fn rows(&self) -> usize {
        self.rows.load(Ordering::Relaxed)
    }

    /// Returns how long it has run.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.followers.dec();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Shared { running, metrics, .. } = &*self.places.0;
        locked(running).remove(&self.key);
        metrics.queries_running.dec();
        metrics.query_seconds.observe(self.running.elapsed().as_secs_f64());
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").field("all_max", &self.0.all_max).finish_non_exhaustive()
    }
}

/// Locks; what a panic left is whole, since nothing is changed in steps.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use access::{Caller, Role};
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use uuid::Uuid;

    use super::Places;
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn slices_of_one_buffer_count_their_part_each() {
        let metrics = Metrics::new(&service::metrics::Metrics::default());
        let places = Places::new(&service::defaults().unwrap(), metrics);
        let caller = Caller { user: "ada".into(), role: Role::Reader };
        let place = places.take(&caller, Uuid::new_v4(), "SELECT n FROM numbers").await.unwrap();
        let numbers = Arc::new(Int64Array::from_iter_values(0..1000)) as ArrayRef;
        let rows = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        let slices = (0..10).map(|slice| rows.slice(100 * slice, 100));
        let counted: Vec<usize> = slices.map(|slice| place.running.count(&slice).unwrap()).collect();
        assert_eq!((counted[0], counted[9]), (800, 8000));
    }
}
