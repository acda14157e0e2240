//! `producer --resume` continues after any outage and with a file that has grown, and fails if it would have to guess.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use integration_tests::check::{pipeline, topic_ends};
use integration_tests::environment::Environment;
use integration_tests::input::{self, Input, synthetic};
use integration_tests::pipeline::Pipeline;
use integration_tests::server::Server;
use integration_tests::wait::eventually;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// Longest wait of these tests.
const DEADLINE: Duration = Duration::from_mins(1);

/// Replays a file. Returns the number of records that the topic has ever had, or the producer's error.
async fn replay(
    pipeline: &Pipeline,
    kafka: &str,
    file: &Path,
    flags: &[&str],
) -> anyhow::Result<Result<i64, String>> {
    let input = Input { file: file.to_owned(), symbol: "X".to_owned() };
    let flags = [&["--rate", "max", "--quiet", "--resume"], flags].concat();
    let output = pipeline.run(&input::producer(&[input], &flags)).await?;
    if output.status.success() {
        return Ok(Ok(topic_ends(kafka, &pipeline.topic).await?.iter().map(|(_, end)| end).sum()));
    }
    Ok(Err(String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// Removes all records of the topic and keeps its offsets, as retention does.
async fn expire(kafka: &str, topic: &str) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create()?;
    let mut offsets = TopicPartitionList::new();
    for (partition, _) in topic_ends(kafka, topic).await? {
        offsets.add_partition_offset(topic, partition, Offset::End)?;
    }
    admin.delete_records(&offsets, &AdminOptions::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_may_grow_and_a_topic_expire() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let kafka = &environment.kafka;
    let file = pipeline.folder.path().join("growing.csv");
    let begun = "Timestamp,Open,High,Low,Close,Volume\n60,1,1,1,1,5\n120,1,1,1,1,277.4";
    fs::write(&file, begun)?;
    ensure!(replay(&pipeline, kafka, &file, &[]).await? == Ok(2));
    ensure!(replay(&pipeline, kafka, &file, &[]).await? == Ok(2), "nothing is sent twice");
    // The last line was incomplete. It comes again in full and replaces the record that was sent. The next line follows.
    fs::write(&file, format!("{begun}48\n180,1,1,1,1,6\n"))?;
    ensure!(replay(&pipeline, kafka, &file, &[]).await? == Ok(4));
    ensure!(replay(&pipeline, kafka, &file, &[]).await? == Ok(4));

    expire(kafka, &pipeline.topic).await?;
    let refused = replay(&pipeline, kafka, &file, &[]).await?;
    ensure!(refused.as_ref().is_err_and(|error| error.contains("--start-over")), "{refused:?}");
    ensure!(replay(&pipeline, kafka, &file, &["--start-over"]).await? == Ok(7));
    ensure!(
        replay(&pipeline, kafka, &file, &["--start-over"]).await? == Ok(7),
        "what is found is gone on with"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_a_record_may_wait_is_waited_out() -> anyhow::Result<()> {
    let Some(mut environment) = Environment::get() else { return Ok(()) };
    let kafka = Server::start(&environment, "kafka")?;
    environment.kafka = kafka.address();
    let pipeline = Pipeline::new(&environment).await?;
    let input = synthetic(&pipeline, "ONE-USD", 2, 1).await?;
    let rows = i64::try_from(input.row_count()?)?;
    // By default this takes five minutes.
    let flags = ["--resume", "--quiet", "--rate", "500/s", "--kafka-option", "message.timeout.ms=1500"];
    let mut producer = pipeline.start(&input::producer(&[input], &flags))?;
    let sent = async || -> i64 {
        let ends = topic_ends(&environment.kafka, &pipeline.topic).await.unwrap_or_default();
        ends.iter().map(|(_, end)| end).sum()
    };
    eventually("records arrive", DEADLINE, async || (sent().await > 0).then_some(())).await;
    kafka.kill()?;
    eventually("the client gives up and Kafka is waited for", DEADLINE, async || {
        let log = producer.log().ok()?;
        assert!(producer.is_running().unwrap_or(false), "the producer ended: {log}");
        (log.contains("going on after the last record") && log.contains("trying again")).then_some(())
    })
    .await;
    kafka.restart()?;
    ensure!(producer.ended().await?.success(), "{}", producer.log()?);
    let sent = sent().await;
    ensure!(sent == rows, "{sent} records of {rows} lines");
    Ok(())
}
