//! Consumer that only reads, with the options of ingest.
//!
//! librdkafka allocates each message on one thread and frees it on another. glibc's allocator takes a lock for this, so this program's
//! jemalloc is faster. Most consumers use glibc's allocator, so a separate program measures that as well.

use std::env;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use integration_tests::check::topic_ends;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::process::Command;
use tokio::time::Instant;

/// Longest wait for a message.
const MESSAGE_MAX: Duration = Duration::from_secs(10);

/// Arguments of the consumer.
#[derive(Clone, Debug, Parser)]
pub struct Args {
    /// Kafka and the topic.
    #[command(flatten)]
    pub kafka: kafka::Args,
}

/// Reads the whole topic in a process with glibc's allocator. Returns messages per second.
///
/// # Errors
///
/// The program is missing, or fails like [`consume`].
pub async fn run(kafka: &str, topic: &str) -> anyhow::Result<f64> {
    let program = env::current_exe()?.with_file_name("consumer");
    let output = Command::new(&program).args(flags(kafka, topic)).output().await;
    let output = output.with_context(|| format!("run {}", program.display()))?;
    ensure!(output.status.success(), "consumer: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Reads the whole topic in this process. Returns messages per second.
///
/// # Errors
///
/// Kafka does not answer, or sends nothing for [`MESSAGE_MAX`].
pub async fn consume(kafka: &str, topic: &str) -> anyhow::Result<f64> {
    read(Args::try_parse_from([&["bench"], &flags(kafka, topic)[..]].concat())?).await
}

/// Reads the whole topic of `args`. Returns messages per second, counted from the first message.
///
/// # Errors
///
/// The errors of [`consume`].
pub async fn read(args: Args) -> anyhow::Result<f64> {
    let topic = args.kafka.topic.clone();
    let ends = topic_ends(&args.kafka.brokers, &topic).await?;
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = args.kafka.consumer("bench").create()?;
        let mut partitions = TopicPartitionList::new();
        for (partition, _) in &ends {
            partitions.add_partition_offset(&topic, *partition, Offset::Beginning)?;
        }
        consumer.assign(&partitions)?;
        let count: i64 = ends.iter().map(|(_, end)| end).sum();
        let (mut read, mut bytes, mut started) = (0, 0, None);
        while read < count {
            let message = consumer.poll(MESSAGE_MAX);
            let message = message.with_context(|| format!("no message after {read} of {count}"))??;
            started.get_or_insert_with(Instant::now);
            bytes += std::hint::black_box(message.payload()).map_or(0, <[u8]>::len);
            read += 1;
        }
        std::hint::black_box(bytes);
        let seconds = started.map_or(f64::NAN, |started| started.elapsed().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "some millions of messages")]
        Ok(count as f64 / seconds)
    })
    .await?
}

fn flags<'a>(kafka: &'a str, topic: &'a str) -> [&'a str; 4] {
    ["--kafka", kafka, "--topic", topic]
}
