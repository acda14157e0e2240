//! Unusable messages to the dead-letter topic, with where they came from and why.

use futures::future;
use kafka::dead_letter::{
    ERROR, PAYLOAD_BYTES, REASON, SOURCE_KEY, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC, TRUNCATED,
};
use position::OffsetRange;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::message::{Header, OwnedHeaders, ToBytes};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::sync::OnceCell;

use crate::batch::DeadLetter;
use crate::metrics::Metrics;
use crate::{Config, Error};

/// Partitions of the dead-letter topic: there are few of them, and people read them.
const PARTITIONS: i32 = 1;
/// How long letters wait for others, in one batch of theirs.
const LINGER: std::time::Duration = std::time::Duration::from_millis(5);

/// Delivers dead letters; connects when the first one comes.
pub(crate) struct DeadLetters {
    config: Config,
    topic: String,
    metrics: Metrics,
    producer: OnceCell<FutureProducer<kafka::Logs>>,
}

impl DeadLetters {
    pub(crate) fn new(config: &Config, metrics: &Metrics) -> Self {
        let (topic, metrics) = (config.dead_letter_topic(), metrics.clone());
        DeadLetters { config: config.clone(), topic, metrics, producer: OnceCell::new() }
    }

    /// Returns once all letters of a batch are acknowledged by all replicas.
    ///
    /// A crash after that and before the batch is durable delivers them again, under the same key.
    pub(crate) async fn deliver(&self, range: OffsetRange, letters: &[DeadLetter]) -> Result<(), Error> {
        let Some(first) = letters.first() else { return Ok(()) };
        let (offset, count) = (first.offset, letters.len());
        let (reason, detail) = (first.unusable.reason, first.unusable.detail.as_str());
        tracing::warn!(
            target: service::status::DEAD_LETTER_TARGET,
            topic = self.config.kafka.topic,
            partition = range.partition,
            offset,
            reason,
            detail,
            count,
            "dead letters"
        );
        let producer = self.producer.get_or_try_init(|| self.open()).await?;
        future::try_join_all(letters.iter().map(|letter| self.send(producer, range.partition, letter)))
            .await?;
        for letter in letters {
            self.metrics.dead_letters.get_or_create(&[("reason", letter.unusable.reason)]).inc();
        }
        failpoint::pass("ingest.dead_letter");
        Ok(())
    }

    async fn open(&self) -> Result<FutureProducer<kafka::Logs>, Error> {
        kafka::ensure_topic(&self.config.kafka, &self.topic, PARTITIONS).await?;
        let producer =
            FutureProducer::from_config_and_context(&self.config.kafka.producer(LINGER), kafka::Logs);
        Ok(producer.map_err(kafka::Error::new("open a Kafka producer"))?)
    }

    async fn send(
        &self,
        producer: &FutureProducer<kafka::Logs>,
        partition: i32,
        letter: &DeadLetter,
    ) -> Result<(), Error> {
        let source = &self.config.kafka.topic;
        let key = format!("{source}/{partition}/{}", letter.offset);
        let record = FutureRecord {
            topic: &self.topic,
            partition: None,
            payload: letter.payload.as_deref(),
            key: Some(key.as_str()),
            timestamp: None,
            headers: Some(headers(source, partition, letter)),
        };
        match producer.send(record, kafka::REQUEST_MAX).await {
            Ok(_delivery) => Ok(()),
            Err((source, _record)) => Err(Error::DeadLetter { topic: self.topic.clone(), source }),
        }
    }
}

fn headers(topic: &str, partition: i32, letter: &DeadLetter) -> OwnedHeaders {
    let is_truncated = letter.payload.as_ref().is_some_and(|payload| payload.len() < letter.payload_bytes);
    let headers = [
        (SOURCE_TOPIC, topic.to_owned()),
        (SOURCE_PARTITION, partition.to_string()),
        (SOURCE_OFFSET, letter.offset.to_string()),
        (REASON, letter.unusable.reason.to_owned()),
        (ERROR, letter.unusable.detail.clone()),
        (PAYLOAD_BYTES, letter.payload_bytes.to_string()),
        (TRUNCATED, is_truncated.to_string()),
    ];
    let with = |owned: OwnedHeaders, (key, value): &(&str, String)| insert(owned, key, Some(value.as_str()));
    insert(headers.iter().fold(OwnedHeaders::new(), with), SOURCE_KEY, letter.key.as_deref())
}

fn insert<V: ToBytes + ?Sized>(headers: OwnedHeaders, key: &str, value: Option<&V>) -> OwnedHeaders {
    headers.insert(Header { key, value })
}
