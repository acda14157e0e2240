//! The numbers of gold.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// Label of the rows counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SinkLabel {
    sink: &'static str,
}

/// Label of the lag gauge.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PartitionLabel {
    pub(crate) partition: i32,
}

/// The metrics of gold; clones share.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) postgres_rows: Counter,
    pub(crate) lake_rows: Counter,
    pub(crate) corrections: Counter,
    pub(crate) late_reads: Counter,
    pub(crate) postgres_commit_seconds: Histogram,
    pub(crate) lake_flush_seconds: Histogram,
    pub(crate) freshness_seconds: Histogram,
    pub(crate) lag_offsets: Family<PartitionLabel, Gauge>,
}

impl Metrics {
    /// Registers the metrics; once a process.
    pub fn register(metrics: &service::metrics::Metrics) -> Self {
        let rows: Family<SinkLabel, Counter> =
            metrics.register("gold_rows", "Gold rows committed", Family::default());
        let rows = |sink| rows.get_or_create_owned(&SinkLabel { sink });
        let histogram = |name, help| {
            // 1 ms to 3 minutes: 30 % apart, since p99 is read off the bucket bounds.
            metrics.register(name, help, Histogram::new(exponential_buckets(0.001, 1.3, 47)))
        };
        Metrics {
            postgres_rows: rows("postgres"),
            lake_rows: rows("lake"),
            corrections: metrics.register(
                "gold_corrections",
                "Gold rows recomputed in PostgreSQL",
                Counter::default(),
            ),
            late_reads: metrics.register(
                "gold_late_reads",
                "Reads of history for late candles",
                Counter::default(),
            ),
            postgres_commit_seconds: histogram(
                "gold_postgres_commit_seconds",
                "Time of a transaction in PostgreSQL",
            ),
            lake_flush_seconds: histogram(
                "gold_lake_flush_seconds",
                "Time of a commit to the gold Delta table",
            ),
            freshness_seconds: histogram(
                "freshness_seconds",
                "Candle produced to gold row committed in PostgreSQL",
            ),
            lag_offsets: metrics.register(
                "gold_lag_offsets",
                "Offsets received by bronze, not yet in PostgreSQL",
                Family::default(),
            ),
        }
    }
}
