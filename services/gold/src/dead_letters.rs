//! The dead-letter topic to PostgreSQL, where people and dashboards find it. Beside the walk: nothing waits for it, and its failures
//! stop nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Object;
use futures::FutureExt as _;
use kafka::dead_letter::{
    ERROR, REASON, SOURCE_KEY, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC, topic_of,
};
use position::Position;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use service::backoff::Backoff;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::connection::connect;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::sink::postgres::{migrate, read_position, snapshot};

/// Pause between two looks for the topic, which is made with its first letter.
const TOPIC_PAUSE: Duration = Duration::from_secs(2);
/// Most letters in one transaction: about a megabyte.
const LETTERS_MAX: usize = 500;
/// How much of a message is kept for people to look at, in characters.
const TEXT_CHARS_MAX: usize = 1000;
/// The group that brokers know us by; it has no members and commits nothing, since the position is in PostgreSQL.
const GROUP: &str = "candleflight-gold-dead-letters";

const INSERT: &str = "INSERT INTO bitcoin_dead_letters \
    (topic, kafka_partition, kafka_offset, reason, detail, key, message, kafka_time) \
    SELECT topic, partition, next, reason, detail, key, message, to_timestamp(millis / 1000.0) \
    FROM unnest($1::text[], $2::int4[], $3::int8[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int8[]) \
    AS letter (topic, partition, next, reason, detail, key, message, millis) ON CONFLICT DO NOTHING";
const MOVE: &str = "INSERT INTO candleflight_position (topic, partition, next_offset) VALUES ($1, $2, $3) \
    ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset";

/// A consumer whose drop does not hold up a shutdown.
type Consumer = kafka::Closing<StreamConsumer<kafka::Logs>>;

/// Copies dead letters for ever; whatever goes wrong is tried again, and told once.
pub(crate) async fn run(config: &Config, metrics: &Metrics) -> Infallible {
    let never = CancellationToken::new();
    let mut backoff = Backoff::default();
    let mut told = String::new();
    loop {
        let Err(error) = copy(config, metrics, &mut backoff, &mut told).await;
        let what = error.to_string();
        if what != told {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "dead letters do not reach PostgreSQL for now; they stay in their topic");
        }
        told = what;
        backoff.pause(&never).await;
    }
}

/// Copies dead letters from where PostgreSQL is until something fails.
async fn copy(
    config: &Config,
    metrics: &Metrics,
    backoff: &mut Backoff,
    told: &mut String,
) -> Result<Infallible, Error> {
    let topic = topic_of(&config.kafka.topic, config.dead_letter_topic.as_deref());
    let mut client = connect(&config.postgres.pool()?).await?;
    migrate::migrate(&mut client).await?;
    let failed = || kafka::Error::new(format!("read dead letters from topic {topic}"));
    let consumer = StreamConsumer::from_config_and_context(
        // What retention has removed, or a topic made anew, is no reason to stop.
        config.kafka.consumer(GROUP).set("auto.offset.reset", "earliest"),
        kafka::Logs,
    );
    let consumer: Arc<Consumer> = Arc::new(kafka::Closing::new(consumer.map_err(failed())?));
    let partitions = partitions(&config.kafka, &consumer, &topic).await?;
    let position = read_position(&snapshot(&mut client).await?, &topic).await?;
    let mut assigned = TopicPartitionList::new();
    for partition in partitions {
        let offset = position.next(partition).map_or(Offset::Beginning, Offset::Offset);
        assigned.add_partition_offset(&topic, partition, offset).map_err(failed())?;
    }
    consumer.assign(&assigned).map_err(failed())?;
    loop {
        let mut letters = vec![Letter::of(&consumer.recv().await.map_err(failed())?)];
        while letters.len() < LETTERS_MAX
            && let Some(message) = consumer.recv().now_or_never()
        {
            letters.push(Letter::of(&message.map_err(failed())?));
        }
        write(&mut client, &topic, &letters).await?;
        metrics.dead_letters.inc_by(letters.len() as u64);
        backoff.reset();
        told.clear();
    }
}

/// Returns the partitions of `topic`, once there is such a topic.
async fn partitions(args: &kafka::Args, consumer: &Arc<Consumer>, topic: &str) -> Result<Vec<i32>, Error> {
    loop {
        let (consumer, wanted) = (Arc::clone(consumer), topic.to_owned());
        // It blocks for as long as the broker takes.
        let asked = move || consumer.fetch_metadata(Some(&wanted), kafka::REQUEST_MAX);
        let answer = async {
            let asked = tokio::task::spawn_blocking(asked).await?;
            Ok::<_, Error>(asked.map_err(kafka::Error::new(format!("look for topic {topic}")))?)
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

/// Writes letters, which may be there already, and moves the position, in one transaction.
async fn write(client: &mut Object, topic: &str, letters: &[Letter]) -> Result<(), Error> {
    let failed = Error::postgres("commit dead letters");
    let transaction = client.transaction().await.map_err(&failed)?;
    let insert = transaction.prepare_cached(INSERT).await.map_err(&failed)?;
    let topics: Vec<&str> = letters.iter().map(|letter| letter.source.topic.as_str()).collect();
    let partitions: Vec<i32> = letters.iter().map(|letter| letter.source.partition).collect();
    let offsets: Vec<i64> = letters.iter().map(|letter| letter.source.offset).collect();
    let [reasons, details, keys, messages] =
        [0, 1, 2, 3].map(|text| letters.iter().map(|letter| letter.texts[text].as_str()).collect::<Vec<_>>());
    let millis: Vec<i64> = letters.iter().map(|letter| letter.millis).collect();
    transaction
        .execute(&insert, &[&topics, &partitions, &offsets, &reasons, &details, &keys, &messages, &millis])
        .await
        .map_err(&failed)?;
    let moved = transaction.prepare_cached(MOVE).await.map_err(&failed)?;
    // Offsets ascend, so the last of a partition stays.
    let position: Position =
        letters.iter().map(|letter| (letter.place.partition, letter.place.offset + 1)).collect();
    for (partition, next) in position.iter() {
        transaction.execute(&moved, &[&topic, &partition, &next]).await.map_err(&failed)?;
    }
    transaction.commit().await.map_err(&failed)
}

/// A message's place.
struct Place {
    topic: String,
    partition: i32,
    offset: i64,
}

/// A dead letter as PostgreSQL keeps it.
struct Letter {
    /// Where the letter is.
    place: Place,
    /// Where the message was that it holds.
    source: Place,
    /// Reason, detail, key and message.
    texts: [String; 4],
    millis: i64,
}

impl Letter {
    /// Reads a letter; one that others wrote, without our headers, stands for itself.
    fn of(message: &BorrowedMessage<'_>) -> Letter {
        let header = |name: &str| {
            let headers = message.headers()?;
            headers.iter().find(|header| header.key == name)?.value
        };
        let number = |name| std::str::from_utf8(header(name)?).ok()?.parse::<i64>().ok();
        let place = || Place {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
        };
        let source = || {
            Some(Place {
                topic: text(header(SOURCE_TOPIC)),
                partition: number(SOURCE_PARTITION)?.try_into().ok()?,
                offset: number(SOURCE_OFFSET)?,
            })
        };
        let source = source().filter(|source| !source.topic.is_empty()).unwrap_or_else(place);
        let texts = [header(REASON), header(ERROR), header(SOURCE_KEY), message.payload()].map(text);
        Letter { place: place(), source, texts, millis: message.timestamp().to_millis().unwrap_or(0) }
    }
}

/// Returns the beginning of what may be text, without the character that PostgreSQL cannot hold.
fn text(bytes: Option<&[u8]>) -> String {
    // Four bytes a character at most; cutting first keeps a large message from being looked through.
    let bytes = bytes.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * TEXT_CHARS_MAX)]);
    text.chars().take(TEXT_CHARS_MAX).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect()
}
