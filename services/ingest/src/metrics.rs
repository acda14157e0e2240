//! The metrics of ingest.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use service::metrics::names;

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
            records: metrics.register(names::INGEST_RECORDS, Counter::default()),
            bytes: metrics.register(names::INGEST_BYTES, Counter::default()),
            batches: metrics.register(names::INGEST_BATCHES, Counter::default()),
            restarts: metrics.register(names::INGEST_RESTARTS, Counter::default()),
            dead_letters: metrics.register(names::INGEST_DEAD_LETTERS, Family::default()),
            lag_records: metrics.register(names::INGEST_LAG_RECORDS, Family::default()),
            end_offset: metrics.register(names::INGEST_END_OFFSET, Family::default()),
        }
    }
}
