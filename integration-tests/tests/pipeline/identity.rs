//! The identity of positions: a different topic, a recreated topic, a different bronze, and a topic that has lost its end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use integration_tests::check::{drained, gold_is_exact, offsets_tile, pipeline, topic_ends};
use integration_tests::environment::Environment;
use integration_tests::input::{self, synthetic};
use integration_tests::pipeline::Pipeline;
use integration_tests::process::Process;
use integration_tests::server::Server;
use integration_tests::wait::eventually;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};

/// Longest time for a request to Kafka.
const DEADLINE: Duration = Duration::from_mins(1);

fn admin(kafka: &str) -> anyhow::Result<AdminClient<DefaultClientContext>> {
    Ok(ClientConfig::new().set("bootstrap.servers", kafka).create()?)
}

async fn create_topic(kafka: &str, topic: &str) -> anyhow::Result<()> {
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    for result in admin(kafka)?.create_topics([&new], &AdminOptions::new()).await? {
        result.map_err(|(topic, code)| anyhow::anyhow!("create {topic}: {code}"))?;
    }
    Ok(())
}

/// Deletes the topic and creates it again.
async fn recreate_topic(kafka: &str, topic: &str) -> anyhow::Result<()> {
    admin(kafka)?.delete_topics(&[topic], &AdminOptions::new()).await?;
    eventually("the topic is gone and made again", DEADLINE, async || create_topic(kafka, topic).await.ok())
        .await;
    Ok(())
}

/// Produces one candle for each minute, all of one symbol.
async fn produce(kafka: &str, topic: &str, minutes: std::ops::Range<i64>) -> anyhow::Result<()> {
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", kafka).create()?;
    for minute in minutes {
        let seconds = 1_700_000_000 + 60 * minute;
        let candle = format!(
            r#"{{"symbol":"BTC-USD","timestamp":{seconds},"open":1,"high":3,"low":1,"close":2,"volume":{minute}}}"#
        );
        let record = FutureRecord::to(topic).key("BTC-USD").payload(&candle);
        producer.send(record, DEADLINE).await.map_err(|(error, _)| error)?;
    }
    Ok(())
}

/// Waits until a service has ended with an error, and returns its log.
async fn refused(process: &mut Process) -> anyhow::Result<String> {
    let status = process.ended().await?;
    ensure!(!status.success(), "the service must not continue");
    process.log()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_recreated_is_refused_and_what_the_error_advises_loses_nothing() -> anyhow::Result<()>
{
    let Some((environment, mut pipeline)) = pipeline().await? else { return Ok(()) };
    let (kafka, topic) = (environment.kafka.clone(), pipeline.topic.clone());
    create_topic(&kafka, &topic).await?;
    produce(&kafka, &topic, 0..10).await?;
    let mut flight = pipeline.start(&["flight", "--flush-interval", "200ms"])?;
    let mut ingest = pipeline.start(&["ingest"])?;
    let mut gold = pipeline.start(&["gold", "--flush-interval", "500ms"])?;
    drained(&pipeline, &kafka).await?;
    ensure!(ingest.terminate().await?.success(), "a drain ends with exit code 0");
    ensure!(flight.terminate().await?.success(), "a drain ends with exit code 0");
    let mut flight = pipeline.start(&["flight", "--flush-interval", "200ms"])?;

    // The new topic is as long as the old one or longer, so its offsets alone show nothing.
    recreate_topic(&kafka, &topic).await?;
    produce(&kafka, &topic, 100..120).await?;
    ingest.restart()?;
    let log = refused(&mut ingest).await?;
    ensure!(log.contains("deleted and created again") && log.contains("(id "), "the log names both: {log}");

    // This follows the advice: an empty lake for the new topic. Gold detects that its rows came from the old one.
    ensure!(flight.terminate().await?.success(), "a drain ends with exit code 0");
    ensure!(gold.terminate().await?.success(), "a drain ends with exit code 0");
    pipeline.set("CANDLEFLIGHT_LAKE", &format!("{}_new", pipeline.lake));
    let _flight = pipeline.start(&["flight", "--flush-interval", "200ms"])?;
    let mut gold = pipeline.start(&["gold", "--flush-interval", "500ms"])?;
    let log = refused(&mut gold).await?;
    ensure!(log.contains("candleflight gold --rebuild"), "the log contains the advice: {log}");
    let _gold = pipeline.start(&["gold", "--rebuild", "--flush-interval", "500ms"])?;
    let _ingest = pipeline.start(&["ingest"])?;
    drained(&pipeline, &kafka).await?;
    offsets_tile(&pipeline, &kafka, 0).await?;
    ensure!(gold_rows(&pipeline).await? == 20, "the rows of the old topic are gone");
    gold_is_exact(&pipeline, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_of_another_topic_is_refused_by_name() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let other = format!("{}_other", pipeline.topic);
    create_topic(&environment.kafka, &other).await?;
    let _flight = pipeline.start(&["flight"])?;
    let mut ingest = pipeline.start(&["ingest", "--topic", &other, "--group", &other])?;
    let log = refused(&mut ingest).await?;
    ensure!(log.contains(&pipeline.topic) && log.contains(&other), "the log names both: {log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_of_another_topic_is_refused_by_name() -> anyhow::Result<()> {
    let Some((_environment, mut pipeline)) = pipeline().await? else { return Ok(()) };
    let mut flight = pipeline.start(&["flight"])?;
    flight.ready().await;
    ensure!(flight.terminate().await?.success(), "a drain ends with exit code 0");
    let first = pipeline.topic.clone();
    pipeline.set("CANDLEFLIGHT_TOPIC", "other_data");
    let mut flight = pipeline.start(&["flight"])?;
    let log = refused(&mut flight).await?;
    ensure!(log.contains(&first) && log.contains("other_data"), "the log names both: {log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_loses_in_a_power_cut_comes_back_from_bronze() -> anyhow::Result<()> {
    let Some(mut environment) = Environment::get() else { return Ok(()) };
    let kafka = Server::start(&environment, "kafka")?;
    environment.kafka = kafka.address();
    let pipeline = Pipeline::new(&environment).await?;
    let inputs = [synthetic(&pipeline, "ONE-USD", 2, 1).await?, synthetic(&pipeline, "TWO-USD", 2, 2).await?];
    let producer = |flags: &[&str]| input::producer(&inputs, &[&["--resume", "--quiet"], flags].concat());
    let _flight = pipeline.start(&["flight", "--flush-interval", "200ms"])?;
    let mut ingest = pipeline.start(&["ingest"])?;
    let _gold = pipeline.start(&["gold", "--flush-interval", "500ms"])?;
    let half = pipeline.run(&producer(&["--rate", "max", "--limit", "3000"])).await?;
    ensure!(half.status.success(), "producer: {}", String::from_utf8_lossy(&half.stderr));
    drained(&pipeline, &environment.kafka).await?;
    let ends = topic_ends(&environment.kafka, &pipeline.topic).await?;

    ingest.kill().await?;
    kafka.kill()?;
    lose_ends(kafka.folder(), &pipeline.topic)?;
    kafka.restart()?;
    ensure!(topic_ends(&environment.kafka, &pipeline.topic).await? != ends, "Kafka has lost something");
    ingest.restart()?;
    eventually("the topic is as long as before", DEADLINE, async || {
        // Readiness is read first. A client that waits for it must not take an offset that ingest is still to restore.
        let is_ready = ingest.is_ready().await;
        let is_whole = topic_ends(&environment.kafka, &pipeline.topic).await.ok()? == ends;
        assert!(is_whole || !is_ready, "ingest is ready before the topic is whole");
        is_whole.then_some(())
    })
    .await;
    ingest.ready().await;

    // The producer continues after the restored messages.
    let rest = pipeline.run(&producer(&["--rate", "max"])).await?;
    ensure!(rest.status.success(), "producer: {}", String::from_utf8_lossy(&rest.stderr));
    drained(&pipeline, &environment.kafka).await?;
    offsets_tile(&pipeline, &environment.kafka, 0).await?;
    gold_is_exact(&pipeline, &[]).await?;
    let candles = input::Input::row_count(&inputs[0])? + input::Input::row_count(&inputs[1])?;
    let messages: i64 =
        topic_ends(&environment.kafka, &pipeline.topic).await?.iter().map(|(_, end)| end).sum();
    ensure!(messages == i64::try_from(candles)?, "the topic has {messages} messages of {candles} candles");
    Ok(())
}

async fn gold_rows(pipeline: &Pipeline) -> anyhow::Result<i64> {
    let database = pipeline.database().await?;
    Ok(database.query_one("SELECT count(*) FROM bitcoin_gold_data", &[]).await?.get(0))
}

/// Removes the last quarter of each partition's log, as if its pages had not been written before a power failure.
fn lose_ends(kafka: &Path, topic: &str) -> anyhow::Result<()> {
    let logs = data_folders(kafka)?;
    for folder in &logs {
        let is_partition = |name: &str| name.strip_prefix(topic).is_some_and(|rest| rest.starts_with('-'));
        for partition in fs::read_dir(folder)? {
            let partition = partition?;
            if !is_partition(&partition.file_name().to_string_lossy()) {
                continue;
            }
            for file in fs::read_dir(partition.path())? {
                let path = file?.path();
                if path.extension().is_some_and(|extension| extension == "log") {
                    let log = File::options().write(true).open(&path)?;
                    log.set_len(log.metadata()?.len() * 3 / 4)?;
                }
            }
        }
        // Kafka then reads the logs as they are.
        for checkpoint in ["recovery-point-offset-checkpoint", "replication-offset-checkpoint"] {
            fs::remove_file(folder.join(checkpoint))?;
        }
    }
    Ok(())
}

/// Returns the folders of Kafka's logs below `folder`.
fn data_folders(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == "meta.properties") {
            found.push(folder.to_owned());
        } else if path.is_dir() {
            found.extend(data_folders(&path)?);
        }
    }
    Ok(found)
}
