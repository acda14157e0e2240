//! Running queries: their users, and the limits of their number.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use access::{Caller, Role};
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use transport::stream::batch_bytes;
use uuid::Uuid;

use crate::error::CallError;
use crate::metrics::Metrics;
use crate::queries::Limits;
use crate::queries::watch::Watch;

/// Longest wait of a query for a place. A dashboard sends the queries of all its charts at once, and each takes milliseconds.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Maximum number of histories that are read concurrently: as many as one gold service requests.
const HISTORIES_MAX: usize = 8;

/// Places for queries. Clones share them.
#[derive(Clone)]
pub(crate) struct Places(Arc<Shared>);

struct Shared {
    queries: Lane,
    plans: Lane,
    histories: Lane,
    followers: Shares,
    running: Mutex<HashMap<u64, Arc<Running>>>,
    count: AtomicU64,
    metrics: Metrics,
}

/// Places of one kind. No kind waits for another.
struct Lane {
    /// Name of the kind, for errors.
    what: &'static str,
    all: Arc<Semaphore>,
    all_max: usize,
    /// Shares of the users. `None` if one user may have all places.
    users: Option<Shares>,
    flags: [&'static str; 2],
}

/// Equal shares of the places, one for each user. All users are in the users file, so they are few.
struct Shares {
    max: usize,
    by_user: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
}

/// One running query.
#[derive(Debug)]
pub(crate) struct Running {
    /// Id of the query for its client. Two executions of one ticket share it.
    pub(crate) id: Uuid,
    pub(crate) user: Arc<str>,
    pub(crate) text: String,
    pub(crate) started_micros: i64,
    started: Instant,
    rows: AtomicUsize,
    bytes: AtomicUsize,
    cancelled: CancellationToken,
    /// Flag that stops the query wherever it computes.
    pub(super) watch: Watch,
}

/// Place of a query. Dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) running: Arc<Running>,
    key: u64,
    places: Places,
    _permits: Permits,
}

/// Place in a lane and in a user's share. Dropping it frees both.
#[derive(Debug)]
pub(super) struct Permits {
    _all: OwnedSemaphorePermit,
    _own: Option<OwnedSemaphorePermit>,
}

/// Purpose of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Query of a client.
    Query,
    /// History that another service of the pipeline waits for.
    History,
}

/// Place of a follower. Dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Following {
    followers: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(limits: &Limits, metrics: Metrics) -> Places {
        Places(Arc::new(Shared {
            queries: Lane {
                what: "queries",
                all: Arc::new(Semaphore::new(limits.queries_max)),
                all_max: limits.queries_max,
                users: Some(Shares::new(limits.user_queries_max)),
                flags: ["--queries-max", "--user-queries-max"],
            },
            plans: Lane {
                what: "plans of queries",
                all: Arc::new(Semaphore::new(limits.queries_max)),
                all_max: limits.queries_max,
                users: Some(Shares::new(limits.user_queries_max)),
                flags: ["--queries-max", "--user-queries-max"],
            },
            histories: Lane {
                what: "histories",
                all: Arc::new(Semaphore::new(HISTORIES_MAX)),
                all_max: HISTORIES_MAX,
                users: None,
                flags: ["a fixed number", ""],
            },
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
    /// [`CallError::Busy`] if none became free in time.
    pub(super) async fn take(
        &self,
        purpose: Purpose,
        caller: &Caller,
        id: Uuid,
        text: &str,
    ) -> Result<Place, CallError> {
        let lane = match purpose {
            Purpose::Query => &self.0.queries,
            Purpose::History => &self.0.histories,
        };
        let permits = self.permits(lane, caller).await?;
        let running = Arc::new(Running {
            id,
            user: Arc::clone(&caller.user),
            text: text.to_owned(),
            started_micros: service::clock::now_micros(),
            started: Instant::now(),
            rows: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            cancelled: CancellationToken::new(),
            watch: Watch::default(),
        });
        let key = self.0.count.fetch_add(1, Ordering::Relaxed);
        locked(&self.0.running).insert(key, Arc::clone(&running));
        self.0.metrics.queries_running.inc();
        Ok(Place { running, key, places: self.clone(), _permits: permits })
    }

    /// Waits for a place to plan a query.
    ///
    /// # Errors
    ///
    /// [`CallError::Busy`] if none became free in time.
    pub(super) async fn plan(&self, caller: &Caller) -> Result<Permits, CallError> {
        self.permits(&self.0.plans, caller).await
    }

    async fn permits(&self, lane: &Lane, caller: &Caller) -> Result<Permits, CallError> {
        lane.acquire(caller).await.inspect_err(|_| _ = self.0.metrics.queries_refused.inc())
    }

    /// Returns the running queries, the oldest first.
    pub(super) fn running(&self) -> Vec<Arc<Running>> {
        let mut running: Vec<_> =
            locked(&self.0.running).iter().map(|(key, running)| (*key, Arc::clone(running))).collect();
        running.sort_by_key(|(key, _)| *key);
        running.into_iter().map(|(_, running)| running).collect()
    }

    /// Takes one of the caller's places for followers. Does not wait for one, because followers rarely end.
    pub(super) fn follow(&self, caller: &Caller) -> Result<Following, CallError> {
        let Shared { followers, metrics, .. } = &*self.0;
        let permit = followers.of(caller).try_acquire_owned().map_err(|_| {
            CallError::Busy(format!(
                "{} followers of user {:?} (--user-followers-max)",
                followers.max, caller.user
            ))
        })?;
        metrics.followers.inc();
        Ok(Following { followers: metrics.followers.clone(), _permit: permit })
    }
}

impl Lane {
    async fn acquire(&self, caller: &Caller) -> Result<Permits, CallError> {
        let (what, max, [flag, user_flag]) = (self.what, self.all_max, self.flags);
        let until = Instant::now() + WAIT_MAX;
        let acquire = async |semaphore: Arc<Semaphore>, limit: String| {
            let permit = tokio::time::timeout_at(until, semaphore.acquire_owned()).await;
            let permit = permit.map_err(|_| CallError::Busy(limit))?;
            Ok::<_, CallError>(permit.expect("the semaphore is never closed"))
        };
        // Without authentication all callers are one user, and that user has no share.
        let own = match self.users.as_ref().filter(|_| !caller.is_anyone()) {
            None => None,
            Some(users) => {
                let limit = format!("{} {what} of user {:?} ({user_flag})", users.max, caller.user);
                Some(acquire(users.of(caller), limit).await?)
            }
        };
        let all = acquire(Arc::clone(&self.all), format!("{max} {what} ({flag})")).await?;
        Ok(Permits { _all: all, _own: own })
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
    /// Returns true if `caller` may see and cancel the query.
    pub(crate) fn is_open_to(&self, caller: &Caller) -> bool {
        self.user == caller.user || caller.role >= Role::Admin
    }

    /// Cancels the query. Its client receives an error.
    pub(crate) fn cancel(&self) {
        self.cancelled.cancel();
        self.watch.stop();
    }

    pub(super) async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Counts a batch of the result. Returns the bytes so far.
    ///
    /// # Errors
    ///
    /// [`ArrowError`] for a type with an unknown layout. No result has such a type.
    pub(super) fn count(&self, batch: &RecordBatch) -> Result<usize, ArrowError> {
        self.rows.fetch_add(batch.num_rows(), Ordering::Relaxed);
        // A large result often consists of slices of the same buffers. Each slice counts only its own part.
        let bytes = batch_bytes(batch)?;
        Ok(self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes)
    }

    /// Returns the number of result rows so far.
    pub(crate) fn rows(&self) -> usize {
        self.rows.load(Ordering::Relaxed)
    }

    /// Returns the time since the query started.
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
        f.debug_struct("Places").field("queries_max", &self.0.queries.all_max).finish_non_exhaustive()
    }
}

/// Locks the mutex. The value is consistent even after a panic, because no change takes several steps.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use access::{Caller, Role};
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use futures::FutureExt as _;
    use uuid::Uuid;

    use super::{HISTORIES_MAX, Places, Purpose};
    use crate::metrics::Metrics;
    use crate::queries::Limits;

    #[tokio::test]
    async fn histories_and_queries_do_not_take_each_others_places() {
        let metrics = Metrics::new(&service::metrics::Metrics::default());
        let limits: Limits = service::defaults().unwrap();
        let places = Places::new(&limits, metrics);
        let caller = Caller { user: "ada".into(), role: Role::Writer };
        let take = |purpose| places.take(purpose, &caller, Uuid::nil(), "").now_or_never();
        let mut taken = Vec::new();
        for (purpose, count, other) in [
            (Purpose::Query, limits.user_queries_max, Purpose::History),
            (Purpose::History, HISTORIES_MAX, Purpose::Query),
        ] {
            taken.clear();
            for _ in 0..count {
                taken.push(take(purpose).expect("it is free").unwrap());
            }
            assert!(take(purpose).is_none(), "{purpose:?}: there are no more");
            assert!(take(other).is_some(), "{other:?} is free");
            assert!(places.plan(&caller).now_or_never().is_some(), "a place for a plan is free");
        }
    }

    #[tokio::test]
    async fn slices_of_one_buffer_count_their_part_each() {
        let metrics = Metrics::new(&service::metrics::Metrics::default());
        let places = Places::new(&service::defaults().unwrap(), metrics);
        let caller = Caller { user: "ada".into(), role: Role::Reader };
        let place =
            places.take(Purpose::Query, &caller, Uuid::new_v4(), "SELECT n FROM numbers").await.unwrap();
        let numbers = Arc::new(Int64Array::from_iter_values(0..1000)) as ArrayRef;
        let rows = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        let slices = (0..10).map(|slice| rows.slice(100 * slice, 100));
        let counted: Vec<usize> = slices.map(|slice| place.running.count(&slice).unwrap()).collect();
        assert_eq!((counted[0], counted[9]), (800, 8000));
    }
}
