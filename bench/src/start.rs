//! Start-up time of the pipeline: the first start from nothing, and a restart after a backfill.

use std::time::Duration;

use futures::future::LocalBoxFuture;
use integration_tests::check::drained;
use integration_tests::input::{synthetic, synthetic_from};
use integration_tests::pipeline::Pipeline;
use integration_tests::process::Process;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::Setting;
use crate::figure::{Aim, Figure};
use crate::input;

const NAME: &str = "start";
/// Longest start from nothing, in seconds.
const FIRST_MAX: f64 = 1.0;
/// Longest start after a backfill, in seconds.
const AGAIN_MAX: f64 = 2.0;
/// Pause between two checks. A figure may be too long by this much.
const CHECK_PAUSE: Duration = Duration::from_millis(2);
/// Longest wait for a start before the measurement fails.
const START_MAX: Duration = Duration::from_mins(1);
/// Symbol of the first start.
const SYMBOL: &str = "NEW";
/// Year of the candles after the first restart. Each later restart uses the next year, so that its candles are new rows.
const YEAR: u32 = 2010;

/// Measures starts and restarts.
pub fn measure(setting: &Setting) -> LocalBoxFuture<'_, anyhow::Result<Vec<Figure>>> {
    Box::pin(async move {
        let mut figures = vec![from_nothing(setting).await?];
        figures.extend(again(setting).await?);
        Ok(figures)
    })
}

async fn from_nothing(setting: &Setting) -> anyhow::Result<Figure> {
    let mut seconds = Vec::new();
    for _ in 0..setting.scale.runs {
        let pipeline = Pipeline::new(&setting.environment).await?;
        let input = synthetic(&pipeline, SYMBOL, 1, 1).await?;
        let database = pipeline.database().await?;
        let started = Instant::now();
        let _services = [
            pipeline.start(&["flight"])?,
            pipeline.start(&["gold"])?,
            pipeline.start(&["ingest"])?,
            pipeline.start(&["producer", "--quiet", "--input", &input.flag()])?,
        ];
        first_row(&database, SYMBOL, "-infinity").await?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    Ok(Figure::new(NAME, "all services on an empty topic, lake and database → first gold row", "s", seconds)
        .aim(Aim::AtMost(FIRST_MAX))
        .note("From the start of the first process to the row's commit in PostgreSQL. This includes the creation of the topic, both Delta tables and the database's tables."))
}

async fn again(setting: &Setting) -> anyhow::Result<Vec<Figure>> {
    let mut pipeline = Pipeline::new(&setting.environment).await?;
    // Ingest has a fixed name in its group, as in a deployment. Otherwise the partitions of a killed member wait until the group detects
    // its absence.
    pipeline.set("CANDLEFLIGHT_GROUP_INSTANCE", "one");
    input::fill(&pipeline, setting.scale.rows).await?;
    let mut services =
        [pipeline.start(&["flight"])?, pipeline.start(&["gold"])?, pipeline.start(&["ingest"])?];
    drained(&pipeline, &setting.environment.kafka).await?;
    let database = pipeline.database().await?;
    let (mut stopped, mut killed) = (Vec::new(), Vec::new());
    let (mut flight_ready, mut gold_ready) = (Vec::new(), Vec::new());
    let mut starts = (YEAR..).map(|year| format!("{year}-01-01T00:00:00Z"));
    let mut start = || starts.next().expect("there is always a next year");
    for _ in 0..setting.scale.runs {
        for service in &mut services {
            service.terminate().await?;
        }
        stopped.push(first_new_row(&pipeline, &database, &mut services, &start()).await?);
        for service in &mut services {
            service.kill().await?;
        }
        killed.push(first_new_row(&pipeline, &database, &mut services, &start()).await?);

        let [flight, gold, _] = &mut services;
        for (service, seconds) in [(flight, &mut flight_ready), (gold, &mut gold_ready)] {
            service.kill().await?;
            let started = Instant::now();
            service.restart()?;
            service.ready().await;
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    let what = format!("again, {} rows in bronze and gold", setting.scale.rows);
    Ok(vec![
        Figure::new(NAME, format!("all services {what}, after SIGTERM → first new gold row"), "s", stopped)
            .aim(Aim::AtMost(AGAIN_MAX)),
        Figure::new(NAME, format!("all services {what}, after SIGKILL → first new gold row"), "s", killed)
            .aim(Aim::AtMost(AGAIN_MAX))
            .note("Ingest has a --group-instance. Without one, Kafka waits 6 s, the session timeout, for the dead member."),
        Figure::new(NAME, format!("the Flight server alone {what}, after SIGKILL → ready"), "s", flight_ready),
        Figure::new(NAME, format!("gold alone {what}, after SIGKILL → ready"), "s", gold_ready),
    ])
}

/// Restarts `services` and starts a producer that sends candles from `start` on, for a symbol that gold already has. Gold must first read
/// that symbol's history from bronze. Returns the seconds until the first new gold row.
async fn first_new_row(
    pipeline: &Pipeline,
    database: &Client,
    services: &mut [Process],
    start: &str,
) -> anyhow::Result<f64> {
    let [symbol, ..] = input::SYMBOLS;
    let input = synthetic_from(pipeline, symbol, start, 1, 1).await?;
    let started = Instant::now();
    for service in services {
        service.restart()?;
    }
    let _producer = pipeline.start(&["producer", "--quiet", "--input", &input.flag()])?;
    first_row(database, symbol, start).await?;
    Ok(started.elapsed().as_secs_f64())
}

/// Waits for a gold row of `symbol` for a candle at `start` or later.
async fn first_row(database: &Client, symbol: &str, start: &str) -> anyhow::Result<()> {
    let query = format!(
        "SELECT FROM bitcoin_gold_data WHERE symbol = '{symbol}' AND event_time >= '{start}' LIMIT 1"
    );
    let deadline = Instant::now() + START_MAX;
    // The table does not exist at first.
    while database.query_opt(&query, &[]).await.ok().flatten().is_none() {
        anyhow::ensure!(Instant::now() < deadline, "no gold row of {symbol} within {START_MAX:?}");
        sleep(CHECK_PAUSE).await;
    }
    Ok(())
}
