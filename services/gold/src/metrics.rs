//! Metrics of gold.

use std::sync::atomic::AtomicU64;

use position::Position;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use service::metrics::names;

/// Label of the rows counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SinkLabel {
    sink: &'static str,
}

/// Labels of the position gauge.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PositionLabel {
    sink: &'static str,
    partition: i32,
}

/// Label of the lag gauge.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PartitionLabel {
    pub(crate) partition: i32,
}

/// Label of the counter of rows that are set aside.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabel {
    pub(crate) reason: &'static str,
}

/// Metrics of each sink. Clones share their values.
#[derive(Clone, Debug)]
pub(crate) struct SinkMetrics {
    sink: &'static str,
    pub(crate) rows: Counter,
    commit_timestamp: Gauge<f64, AtomicU64>,
    position_offset: Family<PositionLabel, Gauge>,
}

impl SinkMetrics {
    /// Records the position of the sink when it is opened.
    pub(crate) fn observe_position(&self, position: &Position) {
        for (partition, next) in position.iter() {
            self.position_offset.get_or_create(&PositionLabel { sink: self.sink, partition }).set(next);
        }
    }

    /// Records the position of the sink and the time after a commit.
    pub(crate) fn observe_commit(&self, position: &Position) {
        self.observe_position(position);
        self.commit_timestamp.set(service::clock::now_seconds());
    }
}

/// Metrics of gold. Clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    service: service::metrics::Metrics,
    pub(crate) postgres: SinkMetrics,
    pub(crate) lake: SinkMetrics,
    pub(crate) corrections: Counter,
    pub(crate) late_reads: Counter,
    pub(crate) dead_letters: Counter,
    pub(crate) set_aside: Family<ReasonLabel, Counter>,
    pub(crate) postgres_commit_seconds: Histogram,
    pub(crate) lake_flush_seconds: Histogram,
    pub(crate) freshness_seconds: Histogram,
    pub(crate) lag_offsets: Family<PartitionLabel, Gauge>,
}

impl Metrics {
    /// Registers the metrics. Must be called once in a process.
    pub fn register(metrics: &service::metrics::Metrics) -> Self {
        let rows: Family<SinkLabel, Counter> = metrics.register(names::GOLD_ROWS, Family::default());
        let commit_timestamps: Family<SinkLabel, Gauge<f64, AtomicU64>> =
            metrics.register(names::GOLD_COMMIT_TIMESTAMP_SECONDS, Family::default());
        let position_offset = metrics.register(names::GOLD_POSITION_OFFSET, Family::default());
        let sink = |sink| SinkMetrics {
            sink,
            rows: rows.get_or_create_owned(&SinkLabel { sink }),
            commit_timestamp: commit_timestamps.get_or_create_owned(&SinkLabel { sink }),
            position_offset: Family::clone(&position_offset),
        };
        let histogram = |metric| {
            // Buckets from 1 ms to 3 minutes, 30 % apart, since p99 is read from the bucket bounds.
            metrics.register(metric, Histogram::new(exponential_buckets(0.001, 1.3, 47)))
        };
        Metrics {
            service: metrics.clone(),
            postgres: sink("postgres"),
            lake: sink("lake"),
            corrections: metrics.register(names::GOLD_CORRECTIONS, Counter::default()),
            late_reads: metrics.register(names::GOLD_LATE_READS, Counter::default()),
            dead_letters: metrics.register(names::GOLD_DEAD_LETTERS, Counter::default()),
            set_aside: metrics.register(names::GOLD_SET_ASIDE, Family::default()),
            postgres_commit_seconds: histogram(names::GOLD_POSTGRES_COMMIT_SECONDS),
            lake_flush_seconds: histogram(names::GOLD_LAKE_FLUSH_SECONDS),
            freshness_seconds: histogram(names::FRESHNESS_SECONDS),
            lag_offsets: metrics.register(names::GOLD_LAG_OFFSETS, Family::default()),
        }
    }

    /// Reports that gold is ready, or why it is not.
    pub(crate) fn set_ready(&self, readiness: Result<(), String>) {
        self.service.set_ready(crate::NAME, readiness);
    }
}
