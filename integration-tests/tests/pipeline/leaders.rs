//! A topic whose partitions are on two brokers, one of which stops.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use integration_tests::check::{drained, gold_is_exact};
use integration_tests::environment::Environment;
use integration_tests::pipeline::Pipeline;
use integration_tests::server::Server;
use integration_tests::wait::eventually;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::TopicPartitionList;

/// Longest time for brokers and pipeline to detect each other.
const DEADLINE: Duration = Duration::from_mins(2);
/// Longest wait for one request to a broker.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Symbols of partitions 0 and 1.
const SYMBOLS: [&str; 2] = ["ONE-USD", "TWO-USD"];

/// Writes the configuration of a second broker in the cluster whose controller is `first`.
fn join(extra: &Path, first: &Server, cluster: &str) -> anyhow::Result<()> {
    let address = first.address();
    let port: u16 = address.rsplit_once(':').context("host:port")?.1.parse()?;
    let properties = format!(
        "process.roles=broker\nnode.id=2\ncontroller.quorum.voters=1@127.0.0.1:{}\nlisteners=CLIENTS://127.0.0.1:@PORT@\n",
        port + 1
    );
    fs::write(extra.join("server.properties"), properties)?;
    // Its data folder must belong to the cluster of the first broker.
    let data = extra.parent().context("the server's folder")?.join("data");
    fs::create_dir(&data)?;
    Ok(fs::write(data.join("meta.properties"), format!("version=1\ncluster.id={cluster}\nnode.id=2\n"))?)
}

fn candle(symbol: &str, minute: i64) -> String {
    format!(
        "{{\"symbol\":\"{symbol}\",\"timestamp\":{},\"open\":1,\"high\":2,\"low\":1,\"close\":2,\"volume\":3}}",
        1_700_000_000 + 60 * minute
    )
}

async fn send(producer: &FutureProducer, topic: &str, partition: usize, minute: i64) -> anyhow::Result<()> {
    let (symbol, number) = (SYMBOLS[partition], i32::try_from(partition)?);
    let payload = candle(symbol, minute);
    let record = FutureRecord::to(topic).key(symbol).payload(&payload).partition(number);
    producer.send(record, DEADLINE).await.map_err(|(error, _)| error)?;
    Ok(())
}

async fn rows(pipeline: &Pipeline, symbol: &str, count: i64) {
    eventually(&format!("gold has {count} rows of {symbol}"), DEADLINE, async || {
        let query = "SELECT count(*) FROM bitcoin_gold_data WHERE symbol = $1";
        let row = pipeline.database().await.ok()?.query_one(query, &[&symbol]).await.ok()?;
        (row.get::<_, i64>(0) == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_a_leader_does_not_stop_the_others() -> anyhow::Result<()> {
    let Some(mut environment) = Environment::get() else { return Ok(()) };
    let first = Server::start(&environment, "kafka")?;
    environment.kafka = first.address();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &environment.kafka).set("group.id", "nobody");
    let consumer: BaseConsumer = config.create()?;
    // The offsets of the groups are created now, on the only broker.
    eventually("the consumer groups have their topic", DEADLINE, async || {
        let nothing = TopicPartitionList::new();
        consumer.committed_offsets(nothing, ANSWER_MAX).ok()
    })
    .await;
    let cluster = consumer.client().fetch_cluster_id(ANSWER_MAX).context("the cluster has an id")?;
    let second = Server::start_with(&environment, "kafka", |extra| join(extra, &first, &cluster))?;

    let pipeline = Pipeline::new(&environment).await?;
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let topic = NewTopic::new(&pipeline.topic, 2, TopicReplication::Variable(&[&[1], &[2]]));
    for result in admin.create_topics([&topic], &AdminOptions::new()).await? {
        result.map_err(|(topic, code)| anyhow::anyhow!("create {topic}: {code}"))?;
    }
    let producer: FutureProducer = config.create()?;
    let mut flight = pipeline.start(&["flight", "--flush-interval", "200ms"])?;
    let ingest = pipeline.start(&["ingest"])?;
    let _gold = pipeline.start(&["gold", "--flush-interval", "500ms"])?;
    for partition in [0, 1] {
        send(&producer, &pipeline.topic, partition, 0).await?;
        rows(&pipeline, SYMBOLS[partition], 1).await;
    }

    second.stop()?;
    eventually("partition 1 has no leader", DEADLINE, async || {
        let metadata = consumer.fetch_metadata(Some(&pipeline.topic), ANSWER_MAX).ok()?;
        let partitions = metadata.topics().first()?.partitions();
        partitions.iter().any(|partition| partition.id() == 1 && partition.leader() < 0).then_some(())
    })
    .await;
    // A new session now finds only one partition.
    flight.terminate().await?;
    flight.restart()?;
    send(&producer, &pipeline.topic, 0, 1).await?;
    rows(&pipeline, SYMBOLS[0], 2).await;
    assert!(ingest.log()?.contains("have no leader"), "ingest reports it");

    second.restart()?;
    send(&producer, &pipeline.topic, 1, 1).await?;
    rows(&pipeline, SYMBOLS[1], 2).await;
    drained(&pipeline, &environment.kafka).await?;
    gold_is_exact(&pipeline, &[]).await
}
