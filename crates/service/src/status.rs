//! What a process tells of itself and has heard of the others: the one source of the status page, `candleflight status` and `system.*`.
//!
//! A report is the process's metrics as Prometheus gets them, its readiness and its latest warnings. The Flight server is the hub: every
//! process sends it its report once a second and is answered with those of all others, so that each knows the whole pipeline.

mod events;
mod history;
mod message;
mod numbers;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::events::{DEAD_LETTER_TARGET, Event, Events};
pub use self::history::Sample;
pub use self::numbers::{Numbers, Partition};
pub use self::view::{Said, Seen, View};

use self::history::History;
use crate::clock::now_micros;
use crate::metrics::Metrics;

/// How often a process samples its numbers and reports them.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Age at which a report counts for nothing any more: its process is silent, perhaps dead.
const SILENT_AFTER: Duration = Duration::from_secs(4);
/// Age at which it is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(1);
/// Most processes that are remembered: many times what one pipeline has.
const PROCESSES_MAX: usize = 64;

/// One process's word of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Who.
    pub process: Process,
    /// When, microseconds UTC.
    pub at_micros: i64,
    /// Its services: each ready (`null`), or why it is not.
    pub services: BTreeMap<String, Option<String>>,
    /// All its metrics in Prometheus' text format.
    pub metrics: String,
    /// Its latest warnings and errors, oldest first.
    pub events: Vec<Event>,
    /// Its latest dead letters, oldest first.
    pub dead_letters: Vec<Event>,
}

/// A process among others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Name that no other process has: `ingest@host:4711`.
    pub id: String,
    /// Version of the program.
    pub version: String,
    /// When it started, microseconds UTC.
    pub started_micros: i64,
    /// Where its status page is, as it sees itself.
    pub address: Option<SocketAddr>,
}

/// What is known of this process and the others; clones share.
#[derive(Clone)]
pub struct Status(Arc<Shared>);

struct Shared {
    process: Process,
    address: OnceLock<SocketAddr>,
    metrics: Metrics,
    events: Events,
    others: Mutex<BTreeMap<String, Report>>,
    history: Mutex<History>,
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status").field("process", &self.0.process).finish_non_exhaustive()
    }
}

impl Status {
    /// Starts for the process of `service`, whose numbers are in `metrics` and whose warnings in `events`.
    pub fn new(service: &str, metrics: Metrics, events: Events) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let process = Process {
            id: format!("{service}@{}:{}", host.trim(), std::process::id()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_micros: now_micros(),
            address: None,
        };
        let (others, history) = (Mutex::default(), Mutex::default());
        Status(Arc::new(Shared { process, address: OnceLock::new(), metrics, events, others, history }))
    }

    /// Says where the status page is, for others to know.
    pub(crate) fn set_address(&self, address: SocketAddr) {
        // The first listener is the one.
        let _already_set = self.0.address.set(address);
    }

    /// Returns where this process's numbers are.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Returns this process's own report.
    pub fn own(&self) -> Report {
        let process = Process { address: self.0.address.get().copied(), ..self.0.process.clone() };
        let (events, dead_letters) = self.0.events.latest();
        let services = self.0.metrics.services();
        Report {
            process,
            at_micros: now_micros(),
            services,
            metrics: self.0.metrics.encode(),
            events,
            dead_letters,
        }
    }

    /// Takes in another process's report.
    pub fn hear(&self, report: Report) {
        if report.process.id == self.0.process.id {
            return;
        }
        let mut others = lock(&self.0.others);
        if others.len() < PROCESSES_MAX || others.contains_key(&report.process.id) {
            others.insert(report.process.id.clone(), report);
        }
    }

    /// Returns all reports, this process's first, without those that are forgotten.
    pub fn reports(&self) -> Vec<Report> {
        let own = self.own();
        let mut others = lock(&self.0.others);
        others.retain(|_, report| report.age(own.at_micros) < FORGOTTEN_AFTER);
        std::iter::once(own).chain(others.values().cloned()).collect()
    }

    /// Adds the present numbers to the history; to be called every [`INTERVAL`].
    pub fn sample(&self) {
        let reports = self.reports();
        lock(&self.0.history).push(now_micros(), Numbers::of(&reports));
    }

    /// Returns the whole picture.
    pub fn view(&self) -> View {
        let reports = self.reports();
        View::new(&reports, &lock(&self.0.history))
    }

    /// Returns the present numbers, with the freshness of the last minute: the first rows of a start, which waited for it, would hide
    /// the rest.
    pub fn numbers(&self) -> Numbers {
        let numbers = Numbers::of(&self.reports());
        lock(&self.0.history).recent(numbers)
    }
}

impl Default for Status {
    fn default() -> Self {
        Status::new("candleflight", Metrics::default(), Events::default())
    }
}

impl Report {
    fn age(&self, now_micros: i64) -> Duration {
        Duration::from_micros(u64::try_from(now_micros - self.at_micros).unwrap_or(0))
    }

    /// Tells whether nothing has been heard of the process for a while.
    fn is_silent(&self, now_micros: i64) -> bool {
        self.age(now_micros) > SILENT_AFTER
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
