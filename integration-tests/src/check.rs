//! Conditions that must hold once a pipeline has drained, after any sequence of events.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::metadata::MetadataTopic;

use crate::environment::Environment;
use crate::pipeline::Pipeline;
use crate::wait::eventually;

/// Longest time for a pipeline to process the input of a test.
pub const DRAIN_DEADLINE: Duration = Duration::from_mins(3);
/// Longest time for an answer of the broker.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns, for each partition of `topic`, the offset after its last message.
///
/// # Errors
///
/// The client cannot be created.
///
/// # Panics
///
/// Kafka does not return them within [`DRAIN_DEADLINE`]: on a busy machine a new topic has no leader for some seconds.
pub async fn topic_ends(kafka: &str, topic: &str) -> anyhow::Result<Vec<(i32, i64)>> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", kafka).create()?;
    let ends = || {
        let metadata = consumer.fetch_metadata(Some(topic), KAFKA_TIMEOUT)?;
        let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
        let ends = partitions.map(|partition| {
            let (_, high) = consumer.fetch_watermarks(topic, partition.id(), KAFKA_TIMEOUT)?;
            Ok((partition.id(), high))
        });
        ends.collect::<KafkaResult<Vec<_>>>()
    };
    let what = format!("Kafka returns the ends of {topic:?}");
    Ok(eventually(&what, DRAIN_DEADLINE, async || ends().ok().filter(|ends| !ends.is_empty())).await)
}

/// Waits until PostgreSQL and the lake have gold for every message of the topic.
///
/// # Errors
///
/// Kafka does not answer.
///
/// # Panics
///
/// The sinks do not reach the end within [`DRAIN_DEADLINE`].
pub async fn drained(pipeline: &Pipeline, kafka: &str) -> anyhow::Result<()> {
    let ends: Vec<(i32, i64)> =
        topic_ends(kafka, &pipeline.topic).await?.into_iter().filter(|(_, end)| *end > 0).collect();
    let what = format!("gold in PostgreSQL reaches {ends:?}");
    eventually(&what, DRAIN_DEADLINE, async || {
        (postgres_position(pipeline).await.ok()? == ends).then_some(())
    })
    .await;
    eventually("gold in the lake has as many rows", DRAIN_DEADLINE, async || {
        let lake = pipeline.sql("SELECT count(*) FROM gold").await.ok()?;
        let postgres = pipeline
            .database()
            .await
            .ok()?
            .query_one("SELECT count(*) FROM bitcoin_gold_data", &[])
            .await
            .ok()?;
        (count(&lake)? == postgres.get::<_, i64>(0)).then_some(())
    })
    .await;
    Ok(())
}

async fn postgres_position(pipeline: &Pipeline) -> anyhow::Result<Vec<(i32, i64)>> {
    let query =
        "SELECT partition, next_offset FROM candleflight_position WHERE topic = $1 ORDER BY partition";
    let rows = pipeline.database().await?.query(query, &[&pipeline.topic]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Reads the number in the second line of a CSV result.
pub fn count(csv: &str) -> Option<i64> {
    csv.lines().nth(1)?.trim().parse().ok()
}

/// Checks that bronze covers every offset of the topic once. Of these, `dead_letters` have no row.
///
/// # Errors
///
/// A partition has a gap or an overlap.
pub async fn offsets_tile(pipeline: &Pipeline, kafka: &str, dead_letters: i64) -> anyhow::Result<()> {
    let total: i64 = topic_ends(kafka, &pipeline.topic).await?.iter().map(|(_, end)| end).sum();
    let query = "SELECT count(*) FROM (SELECT DISTINCT kafka_partition, kafka_offset FROM bronze)";
    let distinct = count(&pipeline.sql(query).await?).context("a count")?;
    let rows = count(&pipeline.sql("SELECT count(*) FROM bronze").await?).context("a count")?;
    ensure!(rows == distinct, "bronze holds {rows} rows of {distinct} offsets: some came twice");
    ensure!(
        rows + dead_letters == total,
        "bronze holds {rows} rows of {total} messages, {dead_letters} of them dead letters"
    );
    Ok(())
}

/// Checks with `candleflight verify` that gold in PostgreSQL and in the lake follows from bronze, bit by bit.
///
/// # Errors
///
/// Gold differs. The message is the report.
pub async fn gold_is_exact(pipeline: &Pipeline, flags: &[&str]) -> anyhow::Result<()> {
    let output = pipeline.run(&[&["verify"], flags].concat()).await?;
    let report = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "verify: {report}{}", String::from_utf8_lossy(&output.stderr));
    eprintln!("{report}");
    Ok(())
}

/// Reads the environment and creates a pipeline. Returns `None` if the test must be skipped.
///
/// # Errors
///
/// PostgreSQL rejects a request.
pub async fn pipeline() -> anyhow::Result<Option<(Environment, Pipeline)>> {
    let Some(environment) = Environment::get() else { return Ok(None) };
    let pipeline = Pipeline::new(&environment).await?;
    Ok(Some((environment, pipeline)))
}
