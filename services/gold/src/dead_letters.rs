//! Copies the dead-letter topic to PostgreSQL, where people and dashboards read it. The copy is independent of the walk: nothing waits for
//! it, and its failures stop nothing. It keeps a limited number of letters, so that they do not fill the disk that gold needs.

mod letter;
mod table;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use service::backoff::Backoff;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::dead_letters::letter::Letter;
use crate::dead_letters::table::{Bounds, Table};
use crate::error::Error;
use crate::metrics::Metrics;

/// Pause between two checks for the topic, which is created with its first letter.
const TOPIC_PAUSE: Duration = Duration::from_secs(2);
/// Period of the checks for letters that are too old, while no new ones arrive.
const AGE_PAUSE: Duration = Duration::from_hours(1);
/// Maximum number of letters in one transaction: about a megabyte.
const LETTERS_MAX: usize = 500;
/// Group id of the consumer. The group has no members and commits nothing, since the position is in PostgreSQL.
const GROUP: &str = "candleflight-gold-dead-letters";

/// A consumer that does not delay a shutdown when it is dropped.
type Consumer = kafka::Closing<StreamConsumer<kafka::Logs>>;

/// Copies dead letters and never returns. Each failure is retried and logged once.
pub(crate) async fn run(config: &Config, topic: &str, metrics: &Metrics) -> Infallible {
    let never = CancellationToken::new();
    let mut backoff = Backoff::default();
    let mut last_logged = String::new();
    loop {
        let Err(error) = copy(config, topic, metrics, &mut backoff, &mut last_logged).await;
        let reason = error.to_string();
        if reason != last_logged {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "copy dead letters to PostgreSQL, trying again; the letters stay in their topic"
            );
        }
        last_logged = reason;
        backoff.pause(&never).await;
    }
}

/// Copies dead letters from the position in PostgreSQL until something fails.
async fn copy(
    config: &Config,
    topic: &str,
    metrics: &Metrics,
    backoff: &mut Backoff,
    last_logged: &mut String,
) -> Result<Infallible, Error> {
    let bounds = Bounds { count_max: config.dead_letters_max, age_max: config.dead_letters_age_max };
    let mut table = Table::open(&config.postgres, topic, bounds).await?;
    let failed = || kafka::Error::new(format!("read dead letters from topic {topic}"));
    let consumer = StreamConsumer::from_config_and_context(
        // Letters that retention removed, or a recreated topic, must not stop the copy.
        config.kafka.consumer(GROUP).set("auto.offset.reset", "earliest"),
        kafka::Logs,
    );
    let consumer: Arc<Consumer> = Arc::new(kafka::Closing::new(consumer.map_err(failed())?));
    let partitions = partitions(&config.kafka, &consumer, topic).await?;
    let position = table.position().await?;
    let mut assigned = TopicPartitionList::new();
    for partition in partitions {
        let offset = position.next(partition).map_or(Offset::Beginning, Offset::Offset);
        assigned.add_partition_offset(topic, partition, offset).map_err(failed())?;
    }
    consumer.assign(&assigned).map_err(failed())?;
    table.delete_surplus().await?;
    loop {
        let Ok(first) = tokio::time::timeout(AGE_PAUSE, consumer.recv()).await else {
            table.delete_surplus().await?;
            continue;
        };
        let mut letters = vec![Letter::of(&first.map_err(failed())?)];
        while letters.len() < LETTERS_MAX
            && let Some(message) = consumer.recv().now_or_never()
        {
            letters.push(Letter::of(&message.map_err(failed())?));
        }
        table.write(&letters).await?;
        metrics.dead_letters.inc_by(letters.len() as u64);
        backoff.reset();
        last_logged.clear();
    }
}

/// Waits until `topic` exists and returns its partitions.
async fn partitions(args: &kafka::Args, consumer: &Arc<Consumer>, topic: &str) -> Result<Vec<i32>, Error> {
    loop {
        let (consumer, name) = (Arc::clone(consumer), topic.to_owned());
        // This call blocks until the broker answers.
        let fetch = move || consumer.fetch_metadata(Some(&name), kafka::REQUEST_MAX);
        let answer = async {
            let fetched = tokio::task::spawn_blocking(fetch).await?;
            Ok::<_, Error>(fetched.map_err(kafka::Error::new(format!("look for topic {topic}")))?)
        };
        let metadata = kafka::unless_refused(args, answer).await?;
        let partitions = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
        let partitions: Vec<i32> = partitions.map(rdkafka::metadata::MetadataPartition::id).collect();
        if !partitions.is_empty() {
            return Ok(partitions);
        }
        tokio::time::sleep(TOPIC_PAUSE).await;
    }
}
