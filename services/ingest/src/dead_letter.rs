//! Unusable messages to the dead-letter topic, with where they came from and why.

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

use crate::batch::DeadLetter;
use crate::metrics::Metrics;
use crate::{Config, Error};

/// Partitions of the dead-letter topic: there are few of them, and people read them.
const PARTITIONS: i32 = 1;
/// How long letters wait for others, in one batch of theirs.
const LINGER: Duration = Duration::from_millis(5);
/// Bytes of a letter, and of a batch of them, that a topic with default limits takes.
const LETTER_BYTES_MAX: usize = 1_000_000;
/// A topic that takes no letter of this size takes none: its headers alone need so much.
const LETTER_BYTES_MIN: usize = 1_000;
/// Bytes of a letter besides key, headers and payload: lengths, and the batch around it.
const FRAME_BYTES: usize = 160;

type Producer = FutureProducer<kafka::Logs>;

/// Delivers dead letters; connects when the first one comes, and again after each failure: the topic may have been deleted, which is how
/// it is emptied.
pub(crate) struct DeadLetters {
    config: Config,
    topic: String,
    metrics: Metrics,
    connection: Mutex<Connection>,
}

/// How letters are sent at present.
struct Connection {
    producer: Option<Producer>,
    /// Largest letter that the topic takes, as far as we know.
    letter_bytes_max: usize,
}

impl DeadLetters {
    pub(crate) fn new(config: &Config, topic: String, metrics: &Metrics) -> Self {
        let connection = Mutex::new(Connection { producer: None, letter_bytes_max: LETTER_BYTES_MAX });
        DeadLetters { config: config.clone(), topic, metrics: metrics.clone(), connection }
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

    /// Sends letters; returns those that the topic did not take, to be sent again in a shorter form.
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

    /// Returns the producer, a new one where there is none, and how large a letter may be.
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
        // What the topic takes, it takes of a whole batch.
        options.set("batch.size", letter_bytes_max.to_string());
        let producer = Producer::from_config_and_context(&options, kafka::Logs);
        let producer = producer.map_err(kafka::Error::new("open a Kafka producer"))?;
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).producer = Some(producer.clone());
        Ok((producer, letter_bytes_max))
    }

    /// Gives a producer up: after a letter that failed it may be of no more use, and it may know the topic by what it was.
    fn close(&self, producer: Producer) {
        let last = self.connection.lock().unwrap_or_else(PoisonError::into_inner).producer.take();
        // It waits for its thread.
        std::thread::spawn(move || drop((last, producer)));
    }

    /// Halves the size of letters; returns false if they are as short as they can be.
    fn shorten(&self, bytes_max: usize) -> bool {
        let shorter = bytes_max / 2;
        if shorter < LETTER_BYTES_MIN {
            return false;
        }
        tracing::warn!(
            topic = self.topic,
            bytes = shorter,
            "the dead-letter topic takes no letter of that size: cutting them shorter"
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

/// Returns headers and payload of a letter, the payload cut so that both fit into `bytes_max`.
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
