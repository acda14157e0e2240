//! Sends candles to the topic. Each is acknowledged by all replicas, once and in order.

use std::sync::Mutex;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Message};
use schema::candle::Candle;
use service::metrics::Metrics;
use service::metrics::names;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// Header with the name of the file.
pub(crate) const SOURCE: &str = "source";
/// Header with the number of the line.
pub(crate) const LINE: &str = "line";
/// Header of a line without a line end: the file may still have been growing, and the line may be incomplete.
pub(crate) const CUT: &str = "cut";

/// Longest time that a record waits for others, if records come faster than [`PACED_MIN`]. It is the default of librdkafka.
const LINGER: Duration = Duration::from_millis(5);
/// Interval above which records are sent one by one: a wait for others would only delay them.
const PACED_MIN: Duration = Duration::from_millis(1);
/// Number of records after which acknowledgements are polled.
const POLL_RECORDS: u64 = 256;
/// Longest poll for acknowledgements: a twentieth of the shortest wait.
const POLL_TIME: Duration = Duration::from_micros(50);
/// Wait between two tries to send while the queue of librdkafka is full.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(1);
/// Longest wait for the last acknowledgements after Ctrl-C. It is shorter than the default drain of a service.
const DRAIN_MAX: Duration = Duration::from_secs(8);
/// Interval at which a flush checks for failures and for Ctrl-C.
const FLUSH_STEP: Duration = Duration::from_millis(50);
/// Longest wait for an answer of the brokers at the start: about the time that librdkafka would wait without this limit.
const ID_WAIT_MAX: Duration = Duration::from_millis(500);
/// Initial size of the JSON buffer, in bytes. The buffer grows for long symbols.
const JSON_BYTES: usize = 256;

/// Kafka producer of candles, which counts them when they are acknowledged.
pub(crate) struct Sink {
    producer: BaseProducer<Deliveries>,
    topic: String,
    sent: u64,
    payload: Vec<u8>,
}

/// Counters of what Kafka has acknowledged, over all clients of this run.
#[derive(Clone)]
pub(crate) struct Acknowledged {
    records: Counter,
    bytes: Counter,
}

/// Handler of acknowledgements and failures.
struct Deliveries {
    acknowledged: Acknowledged,
    failure: Mutex<Option<Failure>>,
}

/// The place of a record in the input.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// Name of the file.
    pub(crate) source: &'a str,
    /// Number of the line.
    pub(crate) line: u64,
    /// True if the line has no line end.
    pub(crate) is_cut: bool,
}

/// The first record that will never be acknowledged.
struct Failure {
    record: String,
    error: KafkaError,
}

impl Acknowledged {
    /// Registers the counters.
    pub(crate) fn new(metrics: &Metrics) -> Acknowledged {
        let (records, bytes) = (Counter::default(), Counter::default());
        Acknowledged {
            records: metrics.register(names::PRODUCER_RECORDS, records),
            bytes: metrics.register(names::PRODUCER_BYTES, bytes),
        }
    }

    /// Returns the number of acknowledged records.
    pub(crate) fn records(&self) -> u64 {
        self.records.get()
    }
}

impl Sink {
    /// Opens a producer for records that come every `interval`.
    pub(crate) fn open(
        args: &kafka::Args,
        interval: Duration,
        acknowledged: &Acknowledged,
    ) -> Result<Self, kafka::Error> {
        let linger = if interval > PACED_MIN { Duration::ZERO } else { LINGER };
        let deliveries = Deliveries { acknowledged: acknowledged.clone(), failure: Mutex::default() };
        let producer = BaseProducer::from_config_and_context(&args.producer(linger), deliveries)
            .map_err(kafka::Error::new("open a Kafka producer"))?;
        ask_for_an_id(&producer, &args.topic);
        Ok(Sink { producer, topic: args.topic.clone(), sent: 0, payload: Vec::with_capacity(JSON_BYTES) })
    }

    /// Passes one candle to librdkafka and waits while its queue is full. Returns false if `shutdown` came first.
    pub(crate) fn send(
        &mut self,
        candle: &Candle<'_>,
        origin: Origin<'_>,
        shutdown: &CancellationToken,
    ) -> Result<bool, Error> {
        self.payload.clear();
        serde_json::to_writer(&mut self.payload, candle)
            .expect("a Vec takes any JSON and a valid candle is finite");
        let line = origin.line.to_string();
        let mut headers = OwnedHeaders::new_with_capacity(3)
            .insert(Header { key: SOURCE, value: Some(origin.source) })
            .insert(Header { key: LINE, value: Some(&line) });
        if origin.is_cut {
            headers = headers.insert(Header { key: CUT, value: Some("") });
        }
        let mut record =
            BaseRecord::to(&self.topic).key(candle.symbol.as_ref()).payload(&self.payload).headers(headers);
        loop {
            record = match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => record,
                Err((source, _)) => {
                    self.failure()?;
                    return Err(self.delivery(String::from_utf8_lossy(&self.payload).into_owned(), source));
                }
            };
            if shutdown.is_cancelled() {
                return Ok(false);
            }
            self.wait(QUEUE_FULL_WAIT, shutdown)?;
        }
        failpoint::pass("producer.sent");
        self.sent += 1;
        if self.sent.is_multiple_of(POLL_RECORDS) {
            self.take_in()?;
        }
        Ok(true)
    }

    /// Polls acknowledgements, then waits for the time `wait`, or until `shutdown` is cancelled.
    pub(crate) fn wait(&self, wait: Duration, shutdown: &CancellationToken) -> Result<(), Error> {
        self.take_in()?;
        let _over = Handle::current().block_on(timeout(wait, shutdown.cancelled()));
        Ok(())
    }

    fn take_in(&self) -> Result<(), Error> {
        // One poll handles either one event, or all events that arrive within the poll's time. The time is short, because librdkafka spends
        // the last millisecond of a longer poll in a busy loop.
        self.producer.poll(POLL_TIME);
        self.failure()
    }

    /// Waits until all records are acknowledged or one has failed permanently. After `shutdown`, it waits for at most [`DRAIN_MAX`].
    pub(crate) fn flush(&self, shutdown: &CancellationToken) -> Result<(), Error> {
        let mut deadline = None;
        while self.producer.flush(FLUSH_STEP).is_err() {
            self.failure()?;
            let now = Instant::now();
            if shutdown.is_cancelled() && now >= *deadline.get_or_insert(now + DRAIN_MAX) {
                let (topic, count) = (self.topic.clone(), self.producer.in_flight_count());
                return Err(Error::Unacknowledged { topic, count, seconds: DRAIN_MAX.as_secs() });
            }
        }
        self.failure()
    }

    /// Returns the number of records that were passed to librdkafka.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    fn failure(&self) -> Result<(), Error> {
        let failure = &self.producer.context().failure;
        match failure.lock().expect("no holder of the lock panics").take() {
            Some(Failure { record, error }) => Err(self.delivery(record, error)),
            None => Ok(()),
        }
    }

    fn delivery(&self, record: String, source: KafkaError) -> Error {
        Error::Delivery { topic: self.topic.clone(), record, source }
    }
}

/// Makes librdkafka request its producer id as early as possible. Without this id, librdkafka sends nothing.
///
/// librdkafka requests the id after each metadata answer, and otherwise twice a second. The first answer comes before the broker that it
/// names is connected, so two answers are needed. A missing answer is harmless, because librdkafka continues to try.
fn ask_for_an_id(producer: &BaseProducer<Deliveries>, topic: &str) {
    for _ in 0..2 {
        if let Err(error) = producer.client().fetch_metadata(Some(topic), ID_WAIT_MAX) {
            tracing::debug!(%error, "brokers do not answer in time");
            return;
        }
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka::log_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        match delivery {
            Ok(message) => {
                self.acknowledged.records.inc();
                self.acknowledged.bytes.inc_by(message.payload_len() as u64);
            }
            Err((error, message)) => {
                let value = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
                let failure = Failure { record: value, error: error.clone() };
                self.failure.lock().expect("no holder of the lock panics").get_or_insert(failure);
            }
        }
    }
}
