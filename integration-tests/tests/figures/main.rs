//! Prints two figures: the freshness at the replay's own pace, and a backfill with each service's peak memory. Only one value is a test:
//! queries must not slow down the walk. This is a separate program, so that nothing else runs at the same time. `script/test` shows its
//! output.

use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use anyhow::ensure;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use bytes::Bytes;
use futures::TryStreamExt as _;
use integration_tests::check::{drained, gold_is_exact, pipeline};
use integration_tests::input::{Input, synthetic};
use integration_tests::pipeline::Pipeline;
use integration_tests::process::Process;
use integration_tests::wait::eventually;
use service::metrics::Samples;
use service::metrics::names;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::StdError;

/// Records of the freshness run: 35 s at 10 records a second.
const FRESHNESS_RECORDS: f64 = 350.0;
/// Records of the freshness run that are not measured.
const WARM_UP_RECORDS: f64 = 50.0;
/// Clients that query while candles flow.
const STORM_QUERIES: usize = 16;
/// A query that keeps all cores busy for some seconds.
const HEAVY_QUERY: &str = "SELECT x % 1000 AS k, count(*), sum(x), avg(sqrt(x)) FROM generate_series(1, 5000000) s(x) GROUP BY k ORDER BY k";
/// Largest factor by which these queries may slow down a candle.
const SLOWDOWN_MAX: f64 = 10.0;
/// Days of one symbol in the backfill. With all [`SYMBOLS`], these are 2,000,000 candles.
const DAYS: u32 = 348;
/// Symbols of the backfill.
const SYMBOLS: u64 = 4;
/// Longest time for the backfill.
const BACKFILL_DEADLINE: Duration = Duration::from_mins(5);

/// Prints a figure directly, since the test harness hides the output of tests that pass.
fn figure(text: &str) {
    // A closed standard error is no reason to fail.
    let _closed = writeln!(std::io::stderr(), "FIGURE {text}");
}

/// Returns the peak memory of a process, in MB.
fn peak_memory(process: &Process) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()?)).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib / 1024)
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_printed_and_gold_is_exact() -> anyhow::Result<()> {
    freshness_at_ten_records_a_second().await?;
    a_backfill_of_two_million_candles().await
}

async fn freshness_at_ten_records_a_second() -> anyhow::Result<()> {
    let Some((_environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let input = synthetic(&pipeline, "BTC-USD", 3, 1).await?;
    let mut flight = pipeline.start(&["flight"])?;
    let mut gold = pipeline.start(&["gold"])?;
    let mut ingest = pipeline.start(&["ingest"])?;
    for service in [&mut flight, &mut gold] {
        service.ready().await;
    }
    // The producer creates the topic, and ingest has found it once a first candle has gone through.
    let first = ["producer", "--input", &input.flag(), "--limit", "1", "--quiet"];
    ensure!(pipeline.run(&first).await?.status.success(), "the producer ends well");
    ingest.ready().await;
    let rows = async |process: &Process| process.metric(names::GOLD_ROWS, &["sink=\"postgres\""]).await.ok();
    eventually("the first gold row", BACKFILL_DEADLINE, async || {
        rows(&gold).await.filter(|rows| *rows >= 1.0)
    })
    .await;

    let idle = freshness_of_a_replay(&pipeline, &gold, &input, FRESHNESS_RECORDS).await?;
    figure(&format!("freshness at 10 records/s, produced to committed in PostgreSQL: {idle}"));

    let mut storm = JoinSet::new();
    for _ in 0..STORM_QUERIES {
        let client = transport::client::connect(&pipeline.flight, &access::Identity::default()).await?;
        storm.spawn(query_for_ever(FlightSqlServiceClient::new_from_inner(client)));
    }
    let stormy = freshness_of_a_replay(&pipeline, &gold, &input, 2.0 * FRESHNESS_RECORDS).await?;
    let queries = flight.metric(names::QUERIES, &[]).await?;
    figure(&format!(
        "freshness while {STORM_QUERIES} clients query without a pause ({queries} queries): {stormy}"
    ));
    ensure!(storm.try_join_next().is_none(), "no query failed");
    ensure!(
        stormy.p99 < SLOWDOWN_MAX * idle.p99,
        "queries hold up the walk: {idle} idle, {stormy} in the storm"
    );
    Ok(())
}

/// Age of a gold row when it is committed to PostgreSQL, in milliseconds.
struct Freshness {
    p50: f64,
    p99: f64,
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.1} ms, p99 {:.1} ms", self.p50, self.p99)
    }
}

/// Continues the replay until `limit` records have been sent in total. Measures the records after the warm-up.
async fn freshness_of_a_replay(
    pipeline: &Pipeline,
    gold: &Process,
    input: &Input,
    limit: f64,
) -> anyhow::Result<Freshness> {
    let rows = async || gold.metric(names::GOLD_ROWS, &["sink=\"postgres\""]).await.ok();
    let freshness = async || {
        Ok::<_, anyhow::Error>(Samples::new(&gold.metrics().await?).buckets(names::FRESHNESS_SECONDS))
    };
    let _producer = pipeline.start(&[
        "producer",
        "--input",
        &input.flag(),
        "--resume",
        "--limit",
        &FRESHNESS_RECORDS.to_string(),
        "--quiet",
    ])?;
    // A producer's first records wait a second for its idempotence. Only the replay after that is measured.
    let warm = limit - FRESHNESS_RECORDS + WARM_UP_RECORDS;
    eventually("the replay is under way", BACKFILL_DEADLINE, async || {
        rows().await.filter(|rows| *rows > warm)
    })
    .await;
    let before = freshness().await?;
    eventually("all gold rows", BACKFILL_DEADLINE, async || rows().await.filter(|rows| *rows > limit)).await;
    let replay = freshness().await?.since(&before);
    let quantile = |q: f64| replay.quantile(q).map_or(f64::NAN, |seconds| seconds * 1e3);
    Ok(Freshness { p50: quantile(0.5), p99: quantile(0.99) })
}

/// Runs one heavy query after the other. Returns when one fails.
async fn query_for_ever<T>(mut client: FlightSqlServiceClient<T>) -> Option<FlightError>
where
    T: GrpcService<
            Body,
            Error: Into<StdError>,
            ResponseBody: tonic::codegen::Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
        >,
{
    loop {
        let run = async {
            let info = client.execute(HEAVY_QUERY.to_owned(), None).await?;
            let ticket = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket);
            let ticket = ticket.ok_or_else(|| FlightError::protocol("an endpoint without a ticket"))?;
            client.do_get(ticket).await?.try_collect::<Vec<_>>().await
        };
        if let Err(error) = run.await {
            return Some(error);
        }
    }
}

async fn a_backfill_of_two_million_candles() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let mut flags = Vec::new();
    for seed in 0..SYMBOLS {
        let input = synthetic(&pipeline, &format!("SYM{seed}-USD"), DAYS, seed).await?;
        flags.extend(["--input".to_owned(), input.flag()]);
    }
    let arguments =
        ["producer", "--rate", "max", "--quiet"].into_iter().chain(flags.iter().map(String::as_str));
    let started = Instant::now();
    ensure!(pipeline.run(&arguments.collect::<Vec<_>>()).await?.status.success(), "the producer ends well");
    let produced = started.elapsed();

    let started = Instant::now();
    let services = [pipeline.start(&["flight"])?, pipeline.start(&["gold"])?, pipeline.start(&["ingest"])?];
    drained(&pipeline, &environment.kafka).await?;
    let elapsed = started.elapsed().as_secs_f64();
    let rows: i64 =
        pipeline.database().await?.query_one("SELECT count(*) FROM bitcoin_gold_data", &[]).await?.get(0);
    figure(&format!("backfill: {rows} candles produced in {:.1} s", produced.as_secs_f64()));
    let rate = f64::from(u32::try_from(rows)?) / elapsed;
    figure(&format!("backfill: complete gold in PostgreSQL and lake after {elapsed:.1} s, {rate:.0} rows/s"));
    for (service, process) in ["flight", "gold", "ingest"].iter().zip(&services) {
        figure(&format!("backfill: peak memory of {service} {} MB", peak_memory(process).unwrap_or(0)));
    }
    gold_is_exact(&pipeline, &[]).await
}
