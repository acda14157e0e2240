//! The metrics of ingest.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Metrics of ingest.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) records: Counter,
    pub(crate) bytes: Counter,
    pub(crate) batches: Counter,
    pub(crate) restarts: Counter,
    pub(crate) dead_letters: Family<[(&'static str, &'static str); 1], Counter>,
    pub(crate) lag_records: Family<[(&'static str, i32); 1], Gauge>,
    pub(crate) end_offset: Family<[(&'static str, i32); 1], Gauge>,
}

impl Metrics {
    pub(crate) fn register(metrics: &service::metrics::Metrics) -> Self {
        Metrics {
            records: metrics.register(
                "ingest_records",
                "Rows put to the Flight server, including those put again after a restart of the session",
                Counter::default(),
            ),
            bytes: metrics.register(
                "ingest_bytes",
                "Bytes of the batches put to the Flight server",
                Counter::default(),
            ),
            batches: metrics.register(
                "ingest_batches",
                "Batches put to the Flight server",
                Counter::default(),
            ),
            restarts: metrics.register(
                "ingest_restarts",
                "Restarts of the session after an error or a rebalance",
                Counter::default(),
            ),
            dead_letters: metrics.register(
                "ingest_dead_letters",
                "Messages that could not be used",
                Family::default(),
            ),
            lag_records: metrics.register(
                "ingest_lag_records",
                "Messages of the topic that are not read yet",
                Family::default(),
            ),
            end_offset: metrics.register(
                "ingest_end_offset",
                "Next offset that the topic will assign",
                Family::default(),
            ),
        }
    }
}
