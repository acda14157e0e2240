//! `candleflight verify` finds every difference between the topic and bronze, and its waits are bounded.

use std::time::Duration;

use anyhow::ensure;
use arrow::array::RecordBatch;
use integration_tests::bronze::{candle, connect, put_run};
use integration_tests::check::{drained, gold_is_exact, pipeline};
use integration_tests::environment::Environment;
use integration_tests::pipeline::Pipeline;
use integration_tests::process::free_port;
use position::OffsetRange;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};

/// Longest time for the delivery of a message.
const DEADLINE: Duration = Duration::from_mins(1);
/// Seconds from the epoch to the beginning of 2024, the minute of offset 0 in [`candle`].
const START_SECONDS: i64 = 19_723 * 86_400;

/// Creates the topic with one partition, and a producer.
async fn producer(environment: &Environment, pipeline: &Pipeline) -> anyhow::Result<FutureProducer> {
    let (brokers, topic) = (environment.kafka.clone(), pipeline.topic.clone());
    let args = kafka::Args { brokers, topic, options: Vec::new() };
    kafka::ensure_topic(&args, &args.topic, 1).await?;
    Ok(ClientConfig::new().set("bootstrap.servers", &environment.kafka).create()?)
}

/// Sends the candle of an offset with a volume, or an unusable message.
async fn send(
    producer: &FutureProducer,
    topic: &str,
    offset: i64,
    volume: Option<f64>,
) -> anyhow::Result<()> {
    let seconds = START_SECONDS + 60 * offset;
    let payload = volume.map_or_else(
        || "not a candle".to_owned(),
        |volume| {
            format!(
                r#"{{"symbol":"PUT-USD","timestamp":{seconds},"open":1,"high":1,"low":1,"close":1,"volume":{volume}}}"#
            )
        },
    );
    let record = FutureRecord::to(topic).partition(0).key("PUT-USD").payload(&payload);
    let sent = producer.send(record.timestamp(seconds * 1000), DEADLINE).await.map_err(|(error, _)| error)?;
    ensure!(sent.offset == offset, "offset {}, not {offset}", sent.offset);
    Ok(())
}

/// Returns the output of verify, which must exit with 1.
async fn findings(pipeline: &Pipeline) -> anyhow::Result<String> {
    let output = pipeline.run(&["verify", "--patience", "2s"]).await?;
    let report = String::from_utf8(output.stdout)?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1) && error.is_empty(),
        "verify must find something: {report}{error}"
    );
    eprintln!("{report}");
    Ok(report)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_bronze_lacks_or_changes_is_found() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let mut flight = pipeline.start(&["flight", "--flush-interval", "200ms"])?;
    let _gold = pipeline.start(&["gold", "--flush-interval", "200ms"])?;
    flight.ready().await;
    let producer = producer(&environment, &pipeline).await?;
    for (offset, volume) in [(0, Some(1.0)), (1, None), (2, Some(1.0))] {
        send(&producer, &pipeline.topic, offset, volume).await?;
    }
    let mut ingest = pipeline.start(&["ingest"])?;
    drained(&pipeline, &environment.kafka).await?;
    gold_is_exact(&pipeline, &[]).await?;
    ensure!(ingest.terminate().await?.success(), "ingest drains");

    // Bronze has no row at offset 3, a different volume at offset 4, and a candle at offset 5, where the message is not a candle.
    for (offset, volume) in [(3, Some(1.0)), (4, Some(2.0)), (5, None)] {
        send(&producer, &pipeline.topic, offset, volume).await?;
    }
    let mut client = connect(&pipeline).await?;
    let nothing = RecordBatch::new_empty(schema::bronze::schema());
    let run = |first| OffsetRange { partition: 0, first, next: first + 1 };
    for (offset, rows) in [(3, nothing), (4, candle(4)), (5, candle(5))] {
        put_run(&mut client, &rows, run(offset)).await?;
    }
    drained(&pipeline, &environment.kafka).await?;
    let report = findings(&pipeline).await?;
    for finding in [
        "DIFFERENT; 6 messages below 0:6, 4 in bronze, 1 dead letters; 1 missing, 3 findings",
        "offset 3: neither in bronze nor a dead letter",
        "offset 4: the message is \"PUT-USD\"",
        "offset 5: the message is no candle",
        "PostgreSQL: ok; 4 rows at 0:6",
        "lake: ok; 4 rows at 0:6",
    ] {
        ensure!(report.contains(finding), "{finding:?} is not in {report}");
    }
    // Gold follows from bronze, even from a wrong bronze.
    gold_is_exact(&pipeline, &["--no-topic"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_ahead_of_bronze_is_reported_and_not_waited_for() -> anyhow::Result<()> {
    let Some((environment, mut pipeline)) = pipeline().await? else { return Ok(()) };
    let mut flight = pipeline.start(&["flight", "--flush-interval", "200ms"])?;
    let mut gold = pipeline.start(&["gold", "--flush-interval", "200ms"])?;
    flight.ready().await;
    let producer = producer(&environment, &pipeline).await?;
    send(&producer, &pipeline.topic, 0, Some(1.0)).await?;
    let mut ingest = pipeline.start(&["ingest"])?;
    drained(&pipeline, &environment.kafka).await?;
    for service in [&mut ingest, &mut gold, &mut flight] {
        ensure!(service.terminate().await?.success(), "the services drain");
    }

    let listen = format!("127.0.0.1:{}", free_port()?);
    pipeline.flight = format!("grpc://{listen}");
    pipeline.set("CANDLEFLIGHT_FLIGHT", &pipeline.flight.clone());
    pipeline.set("CANDLEFLIGHT_LISTEN", &listen);
    pipeline.set("CANDLEFLIGHT_LAKE", &format!("{}_new", pipeline.lake));
    let mut other = pipeline.start(&["flight"])?;
    other.ready().await;
    let report = findings(&pipeline).await?;
    let finding = "PostgreSQL: NOT COMPARED; it is at 0:1, but bronze stopped at the beginning";
    ensure!(report.contains(finding) && report.contains("gold --rebuild"), "{report}");
    Ok(())
}
