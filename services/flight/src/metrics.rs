//! Metrics of the Flight server.

use std::sync::atomic::AtomicU64;

use position::Position;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use service::metrics::names;
use tokio::sync::watch;

use crate::bronze::buffer::HotBuffer;

/// Offsets by partition.
type Offsets = Family<[(&'static str, i32); 1], Gauge>;

/// Metrics of the Flight server. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) rows: Counter,
    pub(crate) queries: Counter,
    pub(crate) queries_refused: Counter,
    pub(crate) queries_running: Gauge,
    pub(crate) query_seconds: Histogram,
    pub(crate) followers: Gauge,
    pub(crate) denied: Counter,
    flush_seconds: Histogram,
    hot_rows: Gauge,
    hot_bytes: Gauge,
    durable_rows: Gauge,
    durable_files: Gauge,
    durable_bytes: Gauge,
    table_version: Gauge,
    received_offset: Offsets,
    durable_offset: Offsets,
    flush_timestamp: Gauge<f64, AtomicU64>,
    service: service::metrics::Metrics,
    ready: watch::Sender<bool>,
}

impl Metrics {
    /// Registers the metrics.
    pub(crate) fn new(service: &service::metrics::Metrics) -> Self {
        let gauge = |metric| service.register(metric, Gauge::default());
        // 1 ms to about 30 s.
        let seconds = || Histogram::new(exponential_buckets(0.001, 1.6, 23));
        Metrics {
            rows: service.register(names::BRONZE_ROWS, Counter::default()),
            queries_refused: service.register(names::QUERIES_REFUSED, Counter::default()),
            queries_running: gauge(names::QUERIES_RUNNING),
            query_seconds: service.register(names::QUERY_SECONDS, seconds()),
            followers: gauge(names::FOLLOWERS),
            denied: service.register(names::FLIGHT_CALLS_DENIED, Counter::default()),
            queries: service.register(names::QUERIES, Counter::default()),
            flush_seconds: service.register(names::BRONZE_FLUSH_SECONDS, seconds()),
            hot_rows: gauge(names::BRONZE_HOT_ROWS),
            hot_bytes: gauge(names::BRONZE_HOT_BYTES),
            durable_rows: gauge(names::BRONZE_DURABLE_ROWS),
            durable_files: gauge(names::BRONZE_DURABLE_FILES),
            durable_bytes: gauge(names::BRONZE_DURABLE_BYTES),
            table_version: gauge(names::BRONZE_TABLE_VERSION),
            received_offset: service.register(names::BRONZE_RECEIVED_OFFSET, Offsets::default()),
            durable_offset: service.register(names::BRONZE_DURABLE_OFFSET, Offsets::default()),
            flush_timestamp: service.register(names::BRONZE_FLUSH_TIMESTAMP_SECONDS, Gauge::default()),
            service: service.clone(),
            ready: watch::Sender::new(false),
        }
    }

    /// Sets whether the server is ready, with the reason if it is not.
    pub(crate) fn set_ready(&self, readiness: Result<(), String>) {
        self.ready.send_replace(readiness.is_ok());
        self.service.set_ready("flight", readiness);
    }

    /// Returns a receiver of the server's readiness.
    pub(crate) fn watch_ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Records the size of the hot buffer.
    pub(crate) fn observe_hot(&self, hot: &HotBuffer) {
        let size = hot.size();
        self.hot_rows.set(gauge_value(size.rows));
        self.hot_bytes.set(gauge_value(size.bytes));
        set_offsets(&self.received_offset, &hot.progress().received);
    }

    /// Records the size of the table.
    pub(crate) fn observe_durable(&self, durable: &lake::Snapshot) {
        self.durable_rows.set(gauge_value(durable.row_count()));
        self.durable_files.set(gauge_value(durable.file_count()));
        self.durable_bytes.set(gauge_value(durable.bytes()));
        self.table_version.set(gauge_value(durable.version()));
        set_offsets(&self.durable_offset, durable.position());
    }

    /// Records the duration of a flush that ends now.
    pub(crate) fn observe_flush(&self, seconds: f64) {
        self.flush_seconds.observe(seconds);
        self.flush_timestamp.set(service::clock::now_seconds());
    }
}

fn set_offsets(offsets: &Offsets, position: &Position) {
    for (partition, next) in position.iter() {
        offsets.get_or_create(&[("partition", partition)]).set(next);
    }
}

fn gauge_value(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
