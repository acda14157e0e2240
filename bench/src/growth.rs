//! Cost of each operation as the tables grow, in rows and in Delta versions. A cost that is neither flat nor logarithmic stops working one
//! day.

use anyhow::ensure;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use integration_tests::input::{Input, producer};
use integration_tests::pipeline::Pipeline;
use integration_tests::process::Process;
use service::metrics::Samples;
use service::metrics::names::{self, Description};
use tokio::process::Command;
use tokio::time::Instant;

use crate::Setting;
use crate::figure::Figure;
use crate::{input, memory, watch};

/// Partitions of the topic.
const PARTITIONS: usize = 4;
/// Records per second while freshness is measured.
const RATE: u32 = 10;
/// Records per second while versions are created, and the time between two versions. Each version has a few rows.
const VERSION_RATE: u32 = 400;
const VERSION_INTERVAL: &str = "10ms";
/// Time between two flushes of bronze while flushes are measured.
const FLUSH_INTERVAL: &str = "1s";
/// Records before the measured part. The first records of a restarted producer wait.
const WARM_UP_RECORDS: u32 = 30;
/// Runs of each query, of which the median counts. The queries are those of dashboards and users.
const QUERY_RUNS: usize = 5;
const QUERIES: [(&str, &str); 2] = [
    (
        "newest 1,000 rows of a symbol",
        "SELECT * FROM bronze WHERE symbol = 'BTC-USD' ORDER BY event_time DESC LIMIT 1000",
    ),
    ("count(*)", "SELECT count(*) FROM bronze"),
];

/// Metric of gold's position, and its labels by sink.
const POSITION: Description = names::GOLD_POSITION_OFFSET;
const POSTGRES: &str = "sink=\"postgres\"";
const LAKE: &str = "sink=\"lake\"";

/// Pipeline whose services are restarted.
struct Site {
    pipeline: Pipeline,
    inputs: Vec<Input>,
    flight: Process,
    gold: Process,
    ingest: Process,
}

/// Measures an empty pipeline, then one with more and more rows, then one with more and more versions.
pub fn measure(setting: &Setting) -> LocalBoxFuture<'_, anyhow::Result<Vec<Figure>>> {
    async {
        let pipeline = Pipeline::new(&setting.environment).await?;
        let largest = setting.scale.growth_rows.iter().max().copied().unwrap_or(0);
        // These are more rows than are ever sent: files have gaps, and each measurement takes some rows.
        let inputs = input::files(&pipeline, largest + largest / 4 + 100_000, PARTITIONS).await?;
        input::send(&pipeline, &inputs, PARTITIONS, Some(1)).await?;
        let mut site = Site {
            flight: pipeline.start(&["flight", "--flush-interval", FLUSH_INTERVAL])?,
            gold: pipeline.start(&["gold"])?,
            ingest: pipeline.start(&["ingest"])?,
            pipeline,
            inputs,
        };
        site.ready().await;
        let mut figures = Vec::new();
        for rows in &setting.scale.growth_rows {
            site.grow(setting, *rows).await?;
            figures.extend(site.measure(setting, &format!("{rows} rows")).await?);
        }
        for versions in &setting.scale.growth_versions {
            site.age(setting, *versions).await?;
            figures.extend(site.measure(setting, &format!("{versions} versions")).await?);
        }
        Ok(figures)
    }
    .boxed_local()
}

impl Site {
    async fn ready(&mut self) {
        for process in [&mut self.flight, &mut self.gold, &mut self.ingest] {
            process.ready().await;
        }
    }

    /// Fills both tables up to `rows` rows.
    async fn grow(&self, setting: &Setting, rows: usize) -> anyhow::Result<()> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of messages")]
        let sent = input::count(setting, &self.pipeline.topic).await? as usize;
        if rows > sent {
            input::send(&self.pipeline, &self.inputs, PARTITIONS, Some(rows - sent)).await?;
        }
        self.drained(setting).await
    }

    /// Waits until both sinks hold gold for every message.
    async fn drained(&self, setting: &Setting) -> anyhow::Result<()> {
        let sent = input::count(setting, &self.pipeline.topic).await?;
        for sink in [POSTGRES, LAKE] {
            watch::reaches(&self.gold, POSITION, &[sink], sent).await?;
        }
        Ok(())
    }

    /// Creates versions of the bronze table until it has `versions`.
    async fn age(&mut self, setting: &Setting, versions: u32) -> anyhow::Result<()> {
        self.flight.terminate().await?;
        self.flight = self.pipeline.start(&["flight", "--flush-interval", VERSION_INTERVAL])?;
        self.ready().await;
        let rate = format!("{VERSION_RATE}/s");
        let flags = ["--quiet", "--resume", "--rate", &rate];
        let producer = self.pipeline.start(&producer(&self.inputs, &flags))?;
        watch::reaches(&self.flight, names::BRONZE_TABLE_VERSION, &[], f64::from(versions)).await?;
        drop(producer);
        self.flight.terminate().await?;
        self.flight = self.pipeline.start(&["flight", "--flush-interval", FLUSH_INTERVAL])?;
        self.ready().await;
        self.drained(setting).await
    }

    /// Measures everything once.
    async fn measure(&mut self, setting: &Setting, at: &str) -> anyhow::Result<Vec<Figure>> {
        let figure =
            |what: &str, unit, value| Figure::new("growth", format!("{at}: {what}"), unit, vec![value]);
        let mut figures = Vec::new();
        for process in [&mut self.ingest, &mut self.gold, &mut self.flight] {
            process.terminate().await?;
        }
        // Unsynced data of earlier steps would delay the servers' own syncs.
        ensure!(Command::new("sync").status().await?.success(), "sync the written data to the disks");
        let started = Instant::now();
        self.flight.restart()?;
        self.flight.ready().await;
        figures.push(figure("Flight server's start", "ms", millis(started)));
        let started = Instant::now();
        self.gold.restart()?;
        self.gold.ready().await;
        figures.push(figure("gold's start", "ms", millis(started)));
        self.ingest.restart()?;
        self.ingest.ready().await;

        let begin = input::count(setting, &self.pipeline.topic).await?;
        let records = WARM_UP_RECORDS + RATE * u32::try_from(setting.scale.seconds)?;
        let (rate, limit) = (format!("{RATE}/s"), records.to_string());
        let flags = ["--quiet", "--resume", "--rate", &rate, "--limit", &limit];
        let _producer = self.pipeline.start(&producer(&self.inputs, &flags))?;
        watch::reaches(&self.gold, POSITION, &[POSTGRES], begin + f64::from(WARM_UP_RECORDS)).await?;
        let before = self.histograms().await?;
        watch::reaches(&self.gold, POSITION, &[POSTGRES], begin + f64::from(records)).await?;
        let after = self.histograms().await?;
        let at_quantile =
            |index: usize, q| after[index].since(&before[index]).quantile(q).unwrap_or(f64::NAN) * 1e3;
        figures.push(figure("freshness p50", "ms", at_quantile(0, 0.5)));
        figures.push(figure("freshness p99", "ms", at_quantile(0, 0.99)));
        figures.push(figure("bronze flush p50", "ms", at_quantile(1, 0.5)));
        for (what, query) in QUERIES {
            let mut times = Vec::new();
            for _ in 0..QUERY_RUNS {
                let started = Instant::now();
                self.pipeline.sql(query).await?;
                times.push(millis(started));
            }
            figures.push(figure(what, "ms", crate::figure::median(&times)));
        }
        figures.push(figure("Flight server's memory", "MB", memory::proportional(&self.flight)?));
        figures.push(figure("gold's memory", "MB", memory::proportional(&self.gold)?));
        Ok(figures)
    }

    async fn histograms(&self) -> anyhow::Result<[service::metrics::Buckets; 2]> {
        let (gold, flight) = (self.gold.metrics().await?, self.flight.metrics().await?);
        Ok([
            Samples::new(&gold).buckets(names::FRESHNESS_SECONDS),
            Samples::new(&flight).buckets(names::BRONZE_FLUSH_SECONDS),
        ])
    }
}

fn millis(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}
