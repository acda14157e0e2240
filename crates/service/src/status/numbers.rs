//! The numbers of the pipeline, read from the same text that Prometheus gets.

use serde::{Deserialize, Serialize};

use super::Report;
use crate::metrics::{Buckets, Samples, names};

/// Progress of each stage of the pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// Records acknowledged by Kafka since the producer's start.
    pub produced: f64,
    /// Rows received by bronze since the Flight server's start.
    pub received: f64,
    /// Gold rows committed in PostgreSQL since gold's start.
    pub gold: f64,
    /// Messages of the topic that are not read yet.
    pub lag: f64,
    /// Rows in bronze that are visible but not yet durable.
    pub hot: f64,
    /// Rows in bronze that are durable.
    pub durable: f64,
    /// Messages that could not be used, since ingest's start.
    pub dead_letters: f64,
    /// Time of the last flush of bronze to the lake, in seconds since the epoch. 0 if there was no flush.
    pub bronze_flushed: f64,
    /// Time of the last commit of gold to PostgreSQL, in the form of `bronze_flushed`.
    pub postgres_committed: f64,
    /// Time of the last commit of gold to the lake, in the form of `bronze_flushed`.
    pub lake_committed: f64,
    /// Positions, ascending by partition.
    pub partitions: Vec<Partition>,
    /// Seconds from the production of a candle to the commit of its gold row in PostgreSQL.
    #[serde(skip)]
    pub freshness: Buckets,
}

/// Progress of each stage in one partition of the topic, as the stage's next offset. `None` if no process has reported it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Partition {
    /// Number of the partition.
    pub partition: i32,
    /// Next offset that the topic will assign.
    pub end: Option<i64>,
    /// Next offset after the rows that bronze has received.
    pub received: Option<i64>,
    /// Next offset after the rows that are durable in bronze.
    pub durable: Option<i64>,
    /// Next offset after the rows whose gold is committed to PostgreSQL.
    pub postgres: Option<i64>,
    /// Next offset after the rows whose gold is committed to the lake.
    pub lake: Option<i64>,
}

impl Numbers {
    /// Adds up the numbers in the reports of all processes that are not silent.
    pub fn of(reports: &[Report]) -> Numbers {
        let now_micros = reports.iter().map(|report| report.at_micros).max().unwrap_or_default();
        let reports = reports.iter().filter(|report| !report.is_silent(now_micros));
        Numbers::read(&reports.map(|report| report.metrics.as_str()).collect::<String>())
    }

    /// Reads the metrics of one process, or the joined texts of several.
    pub fn read(text: &str) -> Numbers {
        let samples = Samples::new(text);
        let sum = |name| samples.sum(name, &[]);
        Numbers {
            produced: sum(names::PRODUCER_RECORDS),
            received: sum(names::BRONZE_ROWS),
            gold: samples.sum(names::GOLD_ROWS, &[r#"sink="postgres""#]),
            lag: sum(names::INGEST_LAG_RECORDS),
            hot: sum(names::BRONZE_HOT_ROWS),
            durable: sum(names::BRONZE_DURABLE_ROWS),
            dead_letters: sum(names::INGEST_DEAD_LETTERS),
            bronze_flushed: sum(names::BRONZE_FLUSH_TIMESTAMP_SECONDS),
            postgres_committed: samples.sum(names::GOLD_COMMIT_TIMESTAMP_SECONDS, &[r#"sink="postgres""#]),
            lake_committed: samples.sum(names::GOLD_COMMIT_TIMESTAMP_SECONDS, &[r#"sink="lake""#]),
            partitions: partitions(&samples),
            freshness: samples.buckets(names::FRESHNESS_SECONDS),
        }
    }

    /// Returns true if a gold row has been committed since the start.
    pub fn has_gold(&self) -> bool {
        self.gold > 0.0
    }
}

fn partitions(samples: &Samples<'_>) -> Vec<Partition> {
    let mut partitions: Vec<Partition> = Vec::new();
    let mut read = |name, labels: &[&str], set: fn(&mut Partition, i64)| {
        for (partition, offset) in samples.labelled(name, labels, "partition") {
            let Ok(partition) = partition.parse() else { continue };
            let index = partitions.binary_search_by_key(&partition, |known| known.partition).unwrap_or_else(
                |index| {
                    partitions.insert(index, Partition { partition, ..Partition::default() });
                    index
                },
            );
            #[expect(clippy::cast_possible_truncation, reason = "offsets are far below 2^53")]
            set(&mut partitions[index], offset as i64);
        }
    };
    read(names::INGEST_END_OFFSET, &[], |partition, offset| partition.end = Some(offset));
    read(names::BRONZE_RECEIVED_OFFSET, &[], |partition, offset| partition.received = Some(offset));
    read(names::BRONZE_DURABLE_OFFSET, &[], |partition, offset| partition.durable = Some(offset));
    let gold = names::GOLD_POSITION_OFFSET;
    read(gold, &[r#"sink="postgres""#], |partition, offset| partition.postgres = Some(offset));
    read(gold, &[r#"sink="lake""#], |partition, offset| partition.lake = Some(offset));
    partitions
}
