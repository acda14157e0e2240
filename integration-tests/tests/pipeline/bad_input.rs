//! Bad input. Each unusable message goes to the dead-letter topic with its reason, the other rows are exact, and the pipeline continues.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use integration_tests::check::{drained, gold_is_exact, offsets_tile, pipeline};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use service::metrics::names;
use tokio::time::Instant;

/// Size limit above the largest message below.
const MESSAGE_BYTES_MAX: &str = "12000000";
/// Longest time for a message to arrive.
const DEADLINE: Duration = Duration::from_mins(1);
/// Longest wait of one poll.
const POLL_MAX: Duration = Duration::from_millis(200);

fn candle(minute: i64, field: &str, value: &str) -> String {
    let mut fields = BTreeMap::from([
        ("symbol", "\"BTC-USD\"".to_owned()),
        ("timestamp", (1_700_000_000 + 60 * minute).to_string()),
        ("open", "100.5".to_owned()),
        ("high", "101.5".to_owned()),
        ("low", "99.5".to_owned()),
        ("close", "100.25".to_owned()),
        ("volume", "1.5".to_owned()),
    ]);
    match value {
        "" => drop(fields.remove(field)),
        _ => drop(fields.insert(field, value.to_owned())),
    }
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// Returns every kind of bad message with its expected reason. `None` is a null value.
fn bad() -> Vec<(Option<Vec<u8>>, &'static str)> {
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let with = |field: &str, value: &str| text(&candle(0, field, value));
    let huge = format!("{{\"symbol\":\"BTC-USD\",\"padding\":\"{}\"}}", "x".repeat(10_000_000));
    vec![
        (None, "null_value"),
        (text(""), "null_value"),
        (Some(vec![0xff, 0x00, 0x9f, 0x92]), "not_json"),
        (text("{\"symbol\":"), "not_json"),
        (text("[1,2,3]"), "not_an_object"),
        (with("close", ""), "missing_field"),
        (text(&huge), "missing_field"),
        (with("close", "\"100\""), "not_a_number"),
        (with("volume", "null"), "not_a_number"),
        (with("close", "NaN"), "not_json"),
        (with("close", "1e300"), "number_out_of_range"),
        (with("close", "-1e16"), "number_out_of_range"),
        (with("timestamp", "-60"), "time_out_of_range"),
        (with("timestamp", "4000000000"), "time_out_of_range"),
        (with("timestamp", "1e30"), "time_out_of_range"),
        (with("high", "1"), "high_below_low"),
        (with("volume", "-0.5"), "negative_volume"),
        (with("symbol", "\"\""), "bad_symbol"),
        (with("symbol", "\"BTC\\u0000USD\""), "bad_symbol"),
        (with("symbol", "\"BTC-USD\\n\""), "bad_symbol"),
        (with("symbol", "\"BTC-USD\u{7f}\""), "bad_symbol"),
        (with("symbol", "\"\\udc00\""), "not_json"),
    ]
}

async fn create_topic(kafka: &str, topic: &str) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create()?;
    let topic =
        NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set("max.message.bytes", MESSAGE_BYTES_MAX);
    for result in admin.create_topics([&topic], &AdminOptions::new()).await? {
        result.map_err(|(topic, code)| anyhow::anyhow!("create {topic}: {code}"))?;
    }
    Ok(())
}

/// Reads (reason, source offset) of the dead letters until there are `count` of them.
fn dead_letters(kafka: &str, topic: &str, count: usize) -> anyhow::Result<Vec<(String, i64)>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", topic)
        .set("auto.offset.reset", "earliest")
        .set("topic.metadata.refresh.interval.ms", "500")
        .create()?;
    consumer.subscribe(&[topic])?;
    let mut letters = Vec::new();
    let end = Instant::now() + DEADLINE;
    while letters.len() < count {
        ensure!(Instant::now() < end, "only {} dead letters of {count}: {letters:?}", letters.len());
        // The first dead letter creates the topic. Until then each poll fails.
        let Some(Ok(message)) = consumer.poll(POLL_MAX) else { continue };
        let headers = message.headers().context("a dead letter has headers")?;
        let header = |name: &str| {
            let header = headers.iter().find(|header| header.key == name)?;
            Some(String::from_utf8_lossy(header.value?).into_owned())
        };
        ensure!(header("source_partition").as_deref() == Some("0"), "the source partition is in a header");
        let offset = header("source_offset").context("source_offset")?.parse()?;
        letters.push((header("reason").context("reason")?, offset));
    }
    letters.sort_by_key(|(_, offset)| *offset);
    Ok(letters)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_message_is_a_dead_letter_with_its_reason_and_the_rest_is_exact() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    create_topic(&environment.kafka, &pipeline.topic).await?;
    let _flight = pipeline.start(&["flight", "--flush-interval", "500ms"])?;
    let ingest = pipeline.start(&["ingest"])?;
    let _gold = pipeline.start(&["gold", "--flush-interval", "500ms"])?;

    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &environment.kafka)
        .set("message.max.bytes", MESSAGE_BYTES_MAX)
        // A topic may use this compression, which needs its own library.
        .set("compression.type", "zstd")
        .create()?;
    let mut expected = Vec::new();
    for (minute, (payload, reason)) in (0..).zip(bad()) {
        // A good message comes before each bad one. The capitalised names of the CSV are also valid.
        let good = candle(minute, "", "").replace("\"close\"", "\"Close\"");
        let record = FutureRecord::to(&pipeline.topic).key("BTC-USD").payload(&good);
        producer.send(record, DEADLINE).await.map_err(|(error, _)| error)?;
        let mut record = FutureRecord::to(&pipeline.topic).key("BTC-USD");
        record.payload = payload.as_ref();
        let delivery = producer.send(record, DEADLINE).await.map_err(|(error, _)| error)?;
        expected.push((reason.to_owned(), delivery.offset));
    }
    let count = expected.len();
    let (kafka, topic) = (environment.kafka.clone(), format!("{}_dlq", pipeline.topic));
    let letters = tokio::task::spawn_blocking(move || dead_letters(&kafka, &topic, count)).await??;
    ensure!(letters == expected, "dead letters: {letters:#?}\nexpected: {expected:#?}");
    let what = "all dead letters are in PostgreSQL, each once";
    integration_tests::wait::eventually(what, DEADLINE, async || {
        let query = "SELECT reason, kafka_offset FROM bitcoin_dead_letters ORDER BY kafka_offset";
        let rows = pipeline.database().await.ok()?.query(query, &[]).await.ok()?;
        let found: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        (found == expected).then_some(())
    })
    .await;
    let told =
        pipeline.sql("SELECT count(*) > 0 FROM system.dead_letters WHERE reason = 'null_value'").await?;
    ensure!(told.ends_with("true\n"), "system.dead_letters shows them: {told}");
    let counted = ingest.metric(names::INGEST_DEAD_LETTERS, &[]).await?;
    ensure!(counted >= 22.0, "the dead letters are counted: {counted}");
    drained(&pipeline, &environment.kafka).await?;
    offsets_tile(&pipeline, &environment.kafka, i64::try_from(count)?).await?;
    gold_is_exact(&pipeline, &[]).await
}
