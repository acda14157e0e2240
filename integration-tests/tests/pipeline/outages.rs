//! Outages of the servers that the pipeline uses, and rebalances. The pipeline waits and continues, and the results show no trace of it.

use std::time::Duration;

use anyhow::ensure;
use integration_tests::check::{drained, gold_is_exact, offsets_tile};
use integration_tests::environment::Environment;
use integration_tests::input::{self, Input, synthetic};
use integration_tests::pipeline::Pipeline;
use integration_tests::process::Process;
use integration_tests::server::Server;
use integration_tests::wait::eventually;
use service::metrics::names;

/// Length of the object store's outage: longer than the retries of every request.
const OUTAGE: Duration = Duration::from_secs(20);
/// Longest time for the pipeline to continue after an outage.
const RECOVERY_DEADLINE: Duration = Duration::from_mins(3);

fn produce(pipeline: &Pipeline, inputs: &[Input], rate: &str) -> anyhow::Result<Process> {
    pipeline.start(&input::producer(inputs, &["--rate", rate, "--quiet", "--resume"]))
}

async fn gold_rows(pipeline: &Pipeline) -> Option<i64> {
    let database = pipeline.database().await.ok()?;
    Some(database.query_one("SELECT count(*) FROM bitcoin_gold_data", &[]).await.ok()?.get(0))
}

/// Waits until gold in PostgreSQL has some new rows.
async fn goes_on(pipeline: &Pipeline, after: &str) {
    let mut first = None;
    eventually(&format!("gold continues after {after}"), RECOVERY_DEADLINE, async || {
        let rows = gold_rows(pipeline).await?;
        (rows > *first.get_or_insert(rows) + 100).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_minio_and_postgresql_may_go_and_come_back() -> anyhow::Result<()> {
    let Some(mut environment) = Environment::get() else { return Ok(()) };
    let kafka = Server::start(&environment, "kafka")?;
    let minio = Server::start(&environment, "minio")?;
    let postgres = Server::start(&environment, "postgres")?;
    environment.kafka = kafka.address();
    environment.postgres = format!("postgres://postgres:postgres@{}", postgres.address());
    let mut pipeline = Pipeline::new(&environment).await?;
    pipeline.set("AWS_ENDPOINT_URL", &format!("http://{}", minio.address()));
    let inputs =
        [synthetic(&pipeline, "ONE-USD", 40, 1).await?, synthetic(&pipeline, "TWO-USD", 40, 2).await?];

    let _flight = pipeline.start(&["flight", "--flush-interval", "500ms"])?;
    let _gold = pipeline.start(&["gold", "--flush-interval", "500ms"])?;
    let mut producer = produce(&pipeline, &inputs, "700/s")?;
    let _ingest = pipeline.start(&["ingest"])?;
    goes_on(&pipeline, "the start").await;
    postgres.stop()?;
    postgres.restart()?;
    goes_on(&pipeline, "a restart of PostgreSQL").await;
    kafka.stop()?;
    kafka.restart()?;
    goes_on(&pipeline, "a restart of Kafka").await;
    minio.stop()?;
    // The length of the outage is the purpose here, not a wait for a condition.
    tokio::time::sleep(OUTAGE).await;
    minio.restart()?;
    goes_on(&pipeline, "an outage of MinIO").await;

    producer.kill().await?;
    // The rest is sent at once.
    let mut rest = produce(&pipeline, &inputs, "max")?;
    ensure!(rest.ended().await?.success(), "the producer ends well");
    drained(&pipeline, &environment.kafka).await?;
    offsets_tile(&pipeline, &environment.kafka, 0).await?;
    gold_is_exact(&pipeline, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flight_server_waits_for_a_store_that_is_away_or_refuses_it() -> anyhow::Result<()> {
    let Some(environment) = Environment::get() else { return Ok(()) };
    let minio = Server::start(&environment, "minio")?;
    let mut pipeline = Pipeline::new(&environment).await?;
    pipeline.set("AWS_ENDPOINT_URL", &format!("http://{}", minio.address()));
    minio.stop()?;
    let mut early = pipeline.start(&["flight"])?;
    waits_for_the_lake(&mut early).await;
    minio.restart()?;
    early.ready().await;
    ensure!(early.terminate().await?.success(), "a drain ends with exit code 0");

    pipeline.set("AWS_SECRET_ACCESS_KEY", "another");
    let mut refused = pipeline.start(&["flight"])?;
    waits_for_the_lake(&mut refused).await;
    ensure!(refused.terminate().await?.success(), "one that waits can be stopped");
    Ok(())
}

/// Waits until a Flight server logs that it waits for the lake.
async fn waits_for_the_lake(flight: &mut Process) {
    eventually("the Flight server waits for the lake", RECOVERY_DEADLINE, async || {
        assert!(flight.is_running().unwrap_or(false), "the server ended");
        flight.log().ok()?.contains("open the lake, trying again").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ingest_instances_share_four_partitions_through_rebalances() -> anyhow::Result<()> {
    let Some(environment) = Environment::get() else { return Ok(()) };
    let pipeline = Pipeline::new(&environment).await?;
    let symbols = ["ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX"];
    let mut inputs = Vec::new();
    for (seed, symbol) in (0..).zip(symbols) {
        inputs.push(synthetic(&pipeline, symbol, 10, seed).await?);
    }
    let _flight = pipeline.start(&["flight", "--flush-interval", "500ms"])?;
    let _gold = pipeline.start(&["gold", "--flush-interval", "500ms"])?;
    let mut producer = produce(&pipeline, &inputs, "1500/s")?;
    let mut first = pipeline.start(&["ingest"])?;
    goes_on(&pipeline, "the start").await;
    let mut second = pipeline.start(&["ingest"])?;
    eventually("the second instance has partitions", RECOVERY_DEADLINE, async || {
        (second.metric(names::INGEST_RECORDS, &[]).await.ok()? > 0.0).then_some(())
    })
    .await;
    goes_on(&pipeline, "the second instance came").await;
    first.kill().await?;
    goes_on(&pipeline, "the first instance was killed").await;
    first.restart()?;
    goes_on(&pipeline, "the first instance came back").await;
    ensure!(second.terminate().await?.success(), "a drain ends with exit code 0");
    producer.ended().await?;
    drained(&pipeline, &environment.kafka).await?;
    offsets_tile(&pipeline, &environment.kafka, 0).await?;
    gold_is_exact(&pipeline, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_flight_server_on_the_same_lake_is_fenced() -> anyhow::Result<()> {
    let Some(environment) = Environment::get() else { return Ok(()) };
    let pipeline = Pipeline::new(&environment).await?;
    let inputs = [synthetic(&pipeline, "ONE-USD", 10, 1).await?];
    let mut first = pipeline.start(&["flight", "--flush-interval", "200ms"])?;
    first.ready().await;
    let listen = format!("127.0.0.1:{}", integration_tests::process::free_port()?);
    let mut second = pipeline.start(&["flight", "--flush-interval", "200ms", "--listen", &listen])?;
    let _gold = pipeline.start(&["gold", "--flush-interval", "500ms"])?;
    let _ingest = pipeline.start(&["ingest"])?;
    let mut producer = produce(&pipeline, &inputs, "1000/s")?;
    let status = second.ended().await?;
    ensure!(!status.success(), "the server that is behind ends with an error");
    let log = second.log()?;
    ensure!(log.contains("another writer"), "the log contains the reason: {log}");
    ensure!(first.is_running()?, "the first server keeps running");
    producer.ended().await?;
    drained(&pipeline, &environment.kafka).await?;
    offsets_tile(&pipeline, &environment.kafka, 0).await?;
    gold_is_exact(&pipeline, &[]).await
}
