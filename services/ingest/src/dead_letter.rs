//! Sends unusable messages to the dead-letter topic, with their origin and the reason.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future;
use kafka::dead_letter::{
    ERROR, PAYLOAD_BYTES, REASON, SOURCE_KEY, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TIMESTAMP,
    SOURCE_TOPIC, TRUNCATED,
};
use position::OffsetRange;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::decoded_batch::DeadLetter;
use crate::metrics::Metrics;
use crate::{Config, Error};

/// Number of partitions of the dead-letter topic: dead letters are few, and people read them.
const PARTITIONS: i32 = 1;
/// Longest wait of a letter for others, to share a Kafka batch.
const LINGER: Duration = Duration::from_millis(5);
/// Largest letter, and largest batch of letters, that a topic with default limits accepts, in bytes.
const LETTER_BYTES_MAX: usize = 1_000_000;
/// Smallest size that is tried, in bytes: the headers alone need about this much.
const LETTER_BYTES_MIN: usize = 1_000;
/// Bytes of a letter in addition to key, headers and payload: its length fields and the batch around it.
const FRAME_BYTES: usize = 160;

type Producer = FutureProducer<kafka::Logs>;

/// Sender of dead letters. It connects when the first letter comes, and again after each failure.
///
/// The new connection creates the topic if it is missing: people delete the topic to empty it.
pub(crate) struct DeadLetters {
    config: Config,
    topic: String,
    metrics: Metrics,
    connection: Mutex<Connection>,
}

/// Current producer and size limit.
struct Connection {
    producer: Option<Producer>,
    /// Largest letter that the topic is expected to accept, in bytes.
    letter_bytes_max: usize,
}

impl DeadLetters {
    pub(crate) fn new(config: &Config, topic: String, metrics: &Metrics) -> Self {
        let connection = Mutex::new(Connection { producer: None, letter_bytes_max: LETTER_BYTES_MAX });
        DeadLetters { config: config.clone(), topic, metrics: metrics.clone(), connection }
    }

    /// Sends all letters of a batch, and returns when all replicas have acknowledged them.
    ///
    /// After a crash between this and the commit of the batch, the letters are delivered again under the same key.
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
            "sending dead letters"
        );
        let mut unsent: Vec<&DeadLetter> = letters.iter().collect();
        while !unsent.is_empty() {
            unsent = self.send_all(range.partition, unsent).await?;
        }
        for letter in letters {
            self.metrics.dead_letters.get_or_create(&[("reason", letter.unusable.reason)]).inc();
        }
        failpoint::pass("ingest.dead_letter");
        Ok(())
    }

    /// Sends letters. Returns those that the topic rejected as too large, to be sent again in a shorter form.
    async fn send_all<'a>(
        &self,
        partition: i32,
        letters: Vec<&'a DeadLetter>,
    ) -> Result<Vec<&'a DeadLetter>, Error> {
        let (producer, bytes_max) = self.open().await?;
        let send = |letter| self.send(&producer, bytes_max, partition, letter);
        let results = future::join_all(letters.iter().map(|letter| send(letter))).await;
        let failed: Vec<(&DeadLetter, KafkaError)> = letters
            .into_iter()
            .zip(results)
            .filter_map(|(letter, sent)| Some((letter, sent.err()?)))
            .collect();
        if failed.is_empty() {
            return Ok(Vec::new());
        }
        self.close(producer);
        let is_too_large = |(_, error): &(_, KafkaError)| is_too_large(error);
        let cause = failed.iter().position(is_too_large);
        if cause.is_some() && self.shorten(bytes_max) {
            return Ok(failed.into_iter().map(|(letter, _)| letter).collect());
        }
        let (_, source) = failed.into_iter().nth(cause.unwrap_or(0)).expect("one has failed");
        Err(Error::DeadLetter { topic: self.topic.clone(), source })
    }

    /// Returns the producer, which is opened if there is none, and the largest size of a letter.
    async fn open(&self) -> Result<(Producer, usize), Error> {
        let letter_bytes_max = {
            let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(producer) = &connection.producer {
                return Ok((producer.clone(), connection.letter_bytes_max));
            }
            connection.letter_bytes_max
        };
        kafka::ensure_topic(&self.config.kafka, &self.topic, PARTITIONS).await?;
        let mut options = self.config.kafka.producer(LINGER);
        // The topic applies its size limit to a whole batch.
        options.set("batch.size", letter_bytes_max.to_string());
        let producer = Producer::from_config_and_context(&options, kafka::Logs);
        let producer = producer.map_err(kafka::Error::new("open a Kafka producer"))?;
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).producer = Some(producer.clone());
        Ok((producer, letter_bytes_max))
    }

    /// Closes the producer. After a failed letter it may not work any more, and it may hold outdated metadata of the topic.
    fn close(&self, producer: Producer) {
        let last = self.connection.lock().unwrap_or_else(PoisonError::into_inner).producer.take();
        // The drop blocks until the producer's own thread has ended, so the drop runs on a separate thread.
        std::thread::spawn(move || drop((last, producer)));
    }

    /// Halves the largest size of a letter. Returns false if it is already the smallest.
    fn shorten(&self, bytes_max: usize) -> bool {
        let shorter = bytes_max / 2;
        if shorter < LETTER_BYTES_MIN {
            return false;
        }
        tracing::warn!(
            topic = self.topic,
            bytes = shorter,
            "the dead-letter topic rejects larger letters: shortening them"
        );
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).letter_bytes_max = shorter;
        true
    }

    async fn send(
        &self,
        producer: &Producer,
        bytes_max: usize,
        partition: i32,
        letter: &DeadLetter,
    ) -> Result<(), KafkaError> {
        let source = &self.config.kafka.topic;
        let key = format!("{source}/{partition}/{}", letter.offset);
        let (headers, payload) = contents(source, partition, letter, bytes_max.saturating_sub(key.len()));
        let record = FutureRecord {
            topic: &self.topic,
            partition: None,
            payload,
            key: Some(key.as_str()),
            timestamp: None,
            headers: Some(headers),
        };
        producer.send(record, kafka::REQUEST_MAX).await.map_err(|(error, _record)| error).map(drop)
    }
}

/// Returns headers and payload of a letter. The payload is truncated so that both fit into `bytes_max`.
fn contents<'a>(
    topic: &str,
    partition: i32,
    letter: &'a DeadLetter,
    bytes_max: usize,
) -> (OwnedHeaders, Option<&'a [u8]>) {
    let mut headers: Vec<(&str, Option<Vec<u8>>)> = vec![
        (SOURCE_TOPIC, Some(topic.into())),
        (SOURCE_PARTITION, Some(partition.to_string().into())),
        (SOURCE_OFFSET, Some(letter.offset.to_string().into())),
        (REASON, Some(letter.unusable.reason.into())),
        (ERROR, Some(letter.unusable.detail.clone().into())),
        (PAYLOAD_BYTES, Some(letter.payload_bytes.to_string().into())),
        (SOURCE_KEY, letter.key.clone()),
    ];
    if let Some(millis) = letter.kafka_millis {
        headers.push((SOURCE_TIMESTAMP, Some(millis.to_string().into())));
    }
    let bytes = |(key, value): &(&str, Option<Vec<u8>>)| key.len() + value.as_ref().map_or(0, Vec::len);
    let room = bytes_max.saturating_sub(FRAME_BYTES + headers.iter().map(bytes).sum::<usize>());
    let payload = letter.payload.as_deref().map(|payload| &payload[..payload.len().min(room)]);
    let is_truncated = payload.is_some_and(|payload| payload.len() < letter.payload_bytes);
    headers.push((TRUNCATED, Some(is_truncated.to_string().into())));
    let with = |owned: OwnedHeaders, (key, value): &(&str, Option<Vec<u8>>)| {
        owned.insert(Header { key, value: value.as_deref() })
    };
    (headers.iter().fold(OwnedHeaders::new(), with), payload)
}

fn is_too_large(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize)
    )
}
