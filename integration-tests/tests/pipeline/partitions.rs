//! A symbol in several partitions: another producer's partitioner, no key, or added partitions. Gold uses all candles, is exact, and
//! reports the partitions.

use std::time::Duration;

use anyhow::ensure;
use integration_tests::check::{drained, gold_is_exact, offsets_tile, pipeline};
use integration_tests::pipeline::Pipeline;
use integration_tests::wait::eventually;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};

/// Longest time for a message or a warning to arrive.
const DEADLINE: Duration = Duration::from_mins(1);
/// Kafka time of the first message, in milliseconds.
const KAFKA_MILLIS: i64 = 1_700_000_000_000;

/// Returns a candle of `symbol` at a minute, with a close.
fn candle(symbol: &str, minute: i64, close: f64) -> String {
    let timestamp = 1_600_000_000 / 60 * 60 + 60 * minute;
    format!(
        r#"{{"symbol":"{symbol}","timestamp":{timestamp},"open":{close},"high":1000,"low":1,"close":{close},"volume":2}}"#
    )
}

/// Sends candles (partition, minute, close, milliseconds after the first message), one after the other.
async fn send(
    producer: &FutureProducer,
    pipeline: &Pipeline,
    symbol: &str,
    candles: &[(i32, i64, f64, i64)],
) -> anyhow::Result<()> {
    for (partition, minute, close, millis) in candles {
        let payload = candle(symbol, *minute, *close);
        let record = FutureRecord::to(&pipeline.topic)
            .key(symbol)
            .payload(&payload)
            .partition(*partition)
            .timestamp(KAFKA_MILLIS + millis);
        producer.send(record, DEADLINE).await.map_err(|(error, _)| error)?;
    }
    Ok(())
}

/// Returns (minute, close, samples of five minutes) of a symbol in PostgreSQL.
async fn gold(pipeline: &Pipeline, symbol: &str) -> anyhow::Result<Vec<(i64, f64, i32)>> {
    let query = "SELECT (extract(epoch FROM event_time)::int8 - 1600000000 / 60 * 60) / 60, close, samples_5m \
                 FROM bitcoin_gold_data WHERE symbol = $1 ORDER BY event_time";
    let rows = pipeline.database().await?.query(query, &[&symbol]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symbol_in_several_partitions_is_exact_and_partitions_can_be_added() -> anyhow::Result<()> {
    check("time").await
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_several_partitions_are_counted_as_one_series() -> anyhow::Result<()> {
    check("rows").await
}

/// Checks one frame. The minutes have no gaps, so both frames have the same expected values.
async fn check(frame: &str) -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &environment.kafka).create()?;
    let topic = NewTopic::new(&pipeline.topic, 2, TopicReplication::Fixed(1));
    for made in admin.create_topics([&topic], &AdminOptions::new()).await? {
        made.map_err(|(topic, code)| anyhow::anyhow!("create {topic}: {code}"))?;
    }
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &environment.kafka)
        .set("topic.metadata.refresh.interval.ms", "500")
        .create()?;
    let _flight = pipeline.start(&["flight", "--flush-interval", "200ms"])?;
    let _ingest = pipeline.start(&["ingest"])?;
    let mut gold_service = pipeline.start(&["gold", "--frame", frame, "--flush-interval", "500ms"])?;

    // One minute is in a partition other than that of the rest. Then minute 1 comes again, where the later Kafka time counts in either
    // partition.
    send(&producer, &pipeline, "A", &[(0, 0, 10.0, 0), (0, 1, 11.0, 1), (1, 2, 12.0, 2), (0, 3, 13.0, 3)])
        .await?;
    drained(&pipeline, &environment.kafka).await?;
    send(&producer, &pipeline, "A", &[(1, 1, 21.0, 0), (1, 3, 23.0, 9)]).await?;
    drained(&pipeline, &environment.kafka).await?;
    let expected = [(0, 10.0, 1), (1, 11.0, 2), (2, 12.0, 3), (3, 23.0, 4)];
    ensure!(gold(&pipeline, "A").await? == expected, "{:?}", gold(&pipeline, "A").await?);
    gold_is_exact(&pipeline, &[]).await?;
    let query =
        "SELECT count(*) FROM system.events WHERE message LIKE '%partitioner%' AND detail LIKE '%symbol=A%'";
    eventually("a warning names the partitioner", DEADLINE, async || {
        pipeline.sql(query).await.ok()?.ends_with("\n1\n").then_some(())
    })
    .await;

    // The key of the symbol now leads to a different partition. Late candles meet those of the old partitions, also after a crash.
    let grown =
        admin.create_partitions([&NewPartitions::new(&pipeline.topic, 4)], &AdminOptions::new()).await?;
    for grown in grown {
        grown.map_err(|(topic, code)| anyhow::anyhow!("add partitions to {topic}: {code}"))?;
    }
    let candles: Vec<_> = (4..200).map(|minute| (3, minute, 30.0, 10)).collect();
    eventually("the new partitions take messages", DEADLINE, async || {
        send(&producer, &pipeline, "A", &candles[..1]).await.ok()
    })
    .await;
    send(&producer, &pipeline, "A", &candles[1..]).await?;
    drained(&pipeline, &environment.kafka).await?;
    gold_service.kill().await?;
    send(&producer, &pipeline, "A", &[(0, 2, 42.0, 20), (3, 0, 40.0, 20), (2, 100, 50.0, 5)]).await?;
    gold_service.restart()?;
    drained(&pipeline, &environment.kafka).await?;
    let rows = gold(&pipeline, "A").await?;
    ensure!(rows[..4] == [(0, 40.0, 1), (1, 11.0, 2), (2, 42.0, 3), (3, 23.0, 4)], "{rows:?}");
    ensure!(rows.len() == 200 && rows[100] == (100, 30.0, 5), "{rows:?}");
    offsets_tile(&pipeline, &environment.kafka, 0).await?;
    gold_is_exact(&pipeline, &[]).await
}
