//! Status of the pipeline: the one source of the status page, `candleflight status` and `system.*`.
//!
//! A report holds the metrics of a process, as Prometheus gets them, its readiness and its latest warnings. The Flight server is the hub:
//! every process sends it a report each second and receives the reports of all others. So each process can show the whole pipeline.

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
pub use self::view::{ProcessEvent, ProcessStatus, View};

use self::history::History;
use crate::clock::now_micros;
use crate::metrics::Metrics;

/// Interval at which a process samples its numbers and sends its report.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Age at which a report no longer counts, because its process is silent and perhaps dead.
const SILENT_AFTER: Duration = Duration::from_secs(4);
/// Age at which a report is removed.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(1);
/// Maximum number of other processes whose reports are kept: many times the number in one pipeline.
const PROCESSES_MAX: usize = 64;

/// Report of one process about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The process.
    pub process: Process,
    /// Time of the report, in microseconds UTC.
    pub at_micros: i64,
    /// Its services: ready (`null`), or the reason why not.
    pub services: BTreeMap<String, Option<String>>,
    /// All its metrics, in Prometheus' text format.
    pub metrics: String,
    /// Its latest warnings and errors, oldest first.
    pub events: Vec<Event>,
    /// Its latest dead letters, oldest first.
    pub dead_letters: Vec<Event>,
}

/// Identity of a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Unique name: service, host and process id, such as `ingest@host:4711`.
    pub id: String,
    /// Version of the program.
    pub version: String,
    /// Start time, in microseconds UTC.
    pub started_micros: i64,
    /// Address of its status page, as the process itself sees it.
    pub address: Option<SocketAddr>,
}

/// Status of this process and of the others. Clones share it.
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
    /// Creates the status of the process that runs `service`, with its metrics in `metrics` and its warnings in `events`.
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

    /// Sets the address of the status page, which is part of the report.
    pub(crate) fn set_address(&self, address: SocketAddr) {
        // Only the first listener counts.
        let _already_set = self.0.address.set(address);
    }

    /// Returns the metrics of this process.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Returns the current report of this process.
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

    /// Stores the report of another process, in place of its previous one.
    pub fn record(&self, report: Report) {
        if report.process.id == self.0.process.id {
            return;
        }
        let mut others = lock(&self.0.others);
        if others.len() < PROCESSES_MAX || others.contains_key(&report.process.id) {
            others.insert(report.process.id.clone(), report);
        }
    }

    /// Returns all reports, that of this process first. Removes those that are too old.
    pub fn reports(&self) -> Vec<Report> {
        let own = self.own();
        let mut others = lock(&self.0.others);
        others.retain(|_, report| report.age(own.at_micros) < FORGOTTEN_AFTER);
        std::iter::once(own).chain(others.values().cloned()).collect()
    }

    /// Adds the current numbers to the history. Call it every [`INTERVAL`].
    pub fn sample(&self) {
        let reports = self.reports();
        lock(&self.0.history).push(now_micros(), Numbers::of(&reports));
    }

    /// Returns the view of the whole pipeline.
    pub fn view(&self) -> View {
        let reports = self.reports();
        View::new(&reports, &lock(&self.0.history))
    }

    /// Returns the current numbers. Their freshness covers only the last minute.
    ///
    /// The first rows after a start have waited for the start. In a total, their freshness would hide the freshness of all later rows.
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

    /// Returns true if the report is so old that its process counts as silent.
    fn is_silent(&self, now_micros: i64) -> bool {
        self.age(now_micros) > SILENT_AFTER
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
