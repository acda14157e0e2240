//! The dead-letter topic after actions of operators: it is deleted to empty it, created with small limits, or flooded.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use integration_tests::check::pipeline;
use integration_tests::pipeline::Pipeline;
use integration_tests::wait::eventually;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// Longest time for a letter. The sink detects a deleted topic after some failed sends.
const DEADLINE: Duration = Duration::from_mins(2);
/// Longest wait of one poll or one request.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Message limit of a small dead-letter topic, in bytes.
const SMALL_BYTES: usize = 3_000;
/// A Kafka time that is easy to recognize, in Unix milliseconds.
const PRODUCED_MILLIS: i64 = 1_700_000_000_123;

struct Kafka {
    address: String,
    admin: AdminClient<DefaultClientContext>,
    producer: FutureProducer,
}

/// A dead letter: reason, source offset and time, whether it is truncated, and the length of its payload.
#[derive(Debug, PartialEq)]
struct Letter {
    reason: String,
    offset: i64,
    millis: i64,
    is_truncated: bool,
    bytes: usize,
}

impl Kafka {
    fn new(address: &str) -> anyhow::Result<Kafka> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", address);
        Ok(Kafka { address: address.to_owned(), admin: config.create()?, producer: config.create()? })
    }

    async fn create(&self, topic: &str, bytes_max: usize) -> anyhow::Result<()> {
        let bytes_max = bytes_max.to_string();
        let topic = NewTopic::new(topic, 1, TopicReplication::Fixed(1))
            .set("max.message.bytes", &bytes_max)
            // The records are years old, and retention would remove them during a test.
            .set("retention.ms", "-1");
        for result in self.admin.create_topics([&topic], &AdminOptions::new()).await? {
            result.map_err(|(topic, code)| anyhow::anyhow!("create {topic}: {code}"))?;
        }
        Ok(())
    }

    async fn send(&self, topic: &str, payload: &str) -> anyhow::Result<i64> {
        let record = FutureRecord::to(topic).key("BTC-USD").payload(payload).timestamp(PRODUCED_MILLIS);
        Ok(self.producer.send(record, DEADLINE).await.map_err(|(error, _)| error)?.offset)
    }

    /// Reads a dead-letter topic from its beginning until it has `count` letters.
    async fn letters(&self, topic: &str, count: usize) -> anyhow::Result<Vec<Letter>> {
        let what = format!("{topic} has {count} letters");
        let letters = eventually(&what, DEADLINE, async || {
            let letters = self.read(topic).ok()?;
            (letters.len() >= count).then_some(letters)
        });
        Ok(letters.await)
    }

    fn read(&self, topic: &str) -> anyhow::Result<Vec<Letter>> {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.address).set("group.id", topic).create()?;
        let (_, end) = consumer.fetch_watermarks(topic, 0, ANSWER_MAX)?;
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(topic, 0, Offset::Beginning)?;
        consumer.assign(&partitions)?;
        let mut letters = Vec::new();
        while i64::try_from(letters.len())? < end {
            let message = consumer.poll(ANSWER_MAX).context("a letter in time")??;
            let headers = message.headers().context("a dead letter has headers")?;
            let header = |name: &str| {
                let value = headers.iter().find(|header| header.key == name).and_then(|header| header.value);
                value.map(|value| String::from_utf8_lossy(value).into_owned()).context(name.to_owned())
            };
            letters.push(Letter {
                reason: header("reason")?,
                offset: header("source_offset")?.parse()?,
                millis: header("source_timestamp")?.parse()?,
                is_truncated: header("truncated")?.parse()?,
                bytes: message.payload().map_or(0, <[u8]>::len),
            });
        }
        Ok(letters)
    }
}

fn letter(offset: i64, bytes: usize) -> Letter {
    Letter { reason: "not_json".to_owned(), offset, millis: PRODUCED_MILLIS, is_truncated: false, bytes }
}

/// Starts the services that process messages.
async fn start(pipeline: &Pipeline) -> anyhow::Result<[integration_tests::process::Process; 2]> {
    let flight = pipeline.start(&["flight", "--flush-interval", "200ms"])?;
    let mut ingest = pipeline.start(&["ingest"])?;
    ingest.ready().await;
    Ok([flight, ingest])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_topic_that_was_deleted_is_made_again() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let kafka = Kafka::new(&environment.kafka)?;
    kafka.create(&pipeline.topic, 1_000_000).await?;
    let dead_letters = format!("{}_dlq", pipeline.topic);
    let _services = start(&pipeline).await?;
    let first = kafka.send(&pipeline.topic, "not JSON").await?;
    ensure!(kafka.letters(&dead_letters, 1).await? == [letter(first, 8)]);
    for result in kafka.admin.delete_topics(&[&dead_letters], &AdminOptions::new()).await? {
        result.map_err(|(topic, code)| anyhow::anyhow!("delete {topic}: {code}"))?;
    }
    let second = kafka.send(&pipeline.topic, "nor this").await?;
    let letters = kafka.letters(&dead_letters, 1).await?;
    ensure!(letters == [letter(second, 8)], "{letters:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_topic_with_a_small_limit_gets_shorter_letters() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let kafka = Kafka::new(&environment.kafka)?;
    kafka.create(&pipeline.topic, 1_000_000).await?;
    let dead_letters = format!("{}_dlq", pipeline.topic);
    kafka.create(&dead_letters, SMALL_BYTES).await?;
    // All messages go in one batch: one that is too large, and more of the others than the topic accepts at once. The size of a batch is
    // measured after compression, and random digits hardly compress.
    let digits: String = (0..3_000).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
    let huge = kafka.send(&pipeline.topic, &digits).await?;
    let mut expected = Vec::new();
    for _ in 0..50 {
        expected.push(letter(kafka.send(&pipeline.topic, "not JSON").await?, 8));
    }
    let _services = start(&pipeline).await?;
    let mut letters = kafka.letters(&dead_letters, 51).await?;
    letters.sort_by_key(|letter| letter.offset);
    let cut = letters.remove(0);
    ensure!(cut.offset == huge && cut.is_truncated && (500..SMALL_BYTES).contains(&cut.bytes), "{cut:?}");
    ensure!(letters == expected, "{letters:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_dead_letters_leaves_the_newest_in_postgresql() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let kafka = Kafka::new(&environment.kafka)?;
    kafka.create(&pipeline.topic, 1_000_000).await?;
    let _services = start(&pipeline).await?;
    let _gold = pipeline.start(&["gold", "--dead-letters-max", "20"])?;
    let mut last = 0;
    for _ in 0..200 {
        last = kafka.send(&pipeline.topic, "not JSON").await?;
    }
    eventually("PostgreSQL has the newest, and few others", DEADLINE, async || {
        let query = "SELECT count(*), max(kafka_offset), min(kafka_offset), \
                     bool_and(message_time = to_timestamp($1::int8 / 1000.0)) FROM bitcoin_dead_letters";
        let row = pipeline.database().await.ok()?.query_one(query, &[&PRODUCED_MILLIS]).await.ok()?;
        let (count, newest, oldest): (i64, Option<i64>, Option<i64>) = (row.get(0), row.get(1), row.get(2));
        let is_bounded = count <= 22 && newest? == last && oldest? > last - 40;
        (is_bounded && row.get::<_, Option<bool>>(3)?).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_topic_is_its_own_dead_letter_topic() -> anyhow::Result<()> {
    let Some((_, pipeline)) = pipeline().await? else { return Ok(()) };
    for service in ["ingest", "gold"] {
        let mut process = pipeline.start(&[service, "--dead-letter-topic", &pipeline.topic])?;
        ensure!(!process.ended().await?.success(), "{service} must not start");
        let log = process.log()?;
        ensure!(log.contains("name another one by --dead-letter-topic"), "{service}: {log}");
    }
    Ok(())
}
