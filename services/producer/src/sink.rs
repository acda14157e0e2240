//! Candles to the topic: each acknowledged by all replicas, once and in order.

use std::time::Duration;

use position::Position;
use rdkafka::Message;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};
use schema::candle::Candle;
use service::Context;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::deliveries::{Acknowledged, Deliveries, Failure};
use crate::unsent::Appended;
use crate::{Error, SERVICE, answered, resume};

/// Header with the file's name.
pub(crate) const SOURCE: &str = "source";
/// Header with the line's number.
pub(crate) const LINE: &str = "line";

/// How long a record waits for others when records come faster than [`PACED_MIN`]; librdkafka's own default.
const LINGER: Duration = Duration::from_millis(5);
/// Records further apart than this are sent one by one: waiting for others would only delay them.
const PACED_MIN: Duration = Duration::from_millis(1);
/// Acknowledgements are taken in after so many records at the latest.
const POLL_RECORDS: u64 = 256;
/// How long to wait for room in librdkafka's queue before looking again.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(1);
/// How long the last records may take to be acknowledged after Ctrl-C; less than a service's whole drain.
const DRAIN_MAX: Duration = Duration::from_secs(8);
/// How often a flush looks at failures and for Ctrl-C.
const FLUSH_STEP: Duration = Duration::from_millis(50);
/// How long a client may take to give its records back; it asks nobody.
const PURGE_MAX: Duration = Duration::from_secs(5);
/// How long the start may wait for the brokers' answers; about as long as librdkafka would wait without them.
const ID_WAIT_MAX: Duration = Duration::from_millis(500);
/// Room for a candle's JSON, in bytes; grows for longer symbols.
const JSON_BYTES: usize = 256;

/// Sends candles; counts them once they are acknowledged.
pub(crate) struct Sink {
    producer: BaseProducer<Deliveries>,
    args: kafka::Args,
    linger: Duration,
    acknowledged: Acknowledged,
    context: Context,
    sent: usize,
    payload: Vec<u8>,
}

impl Sink {
    /// Opens a producer for records that come every `interval`, while the topic ends at `position`.
    pub(crate) fn open(
        args: &kafka::Args,
        interval: Duration,
        position: Position,
        context: &Context,
    ) -> Result<Self, kafka::Error> {
        let linger = if interval > PACED_MIN { Duration::ZERO } else { LINGER };
        let acknowledged = Acknowledged::register(&context.metrics);
        Ok(Sink {
            producer: open(args, linger, Deliveries::new(&acknowledged, position))?,
            args: args.clone(),
            linger,
            acknowledged,
            context: context.clone(),
            sent: 0,
            payload: Vec::with_capacity(JSON_BYTES),
        })
    }

    /// Hands one candle to librdkafka, waiting for room in its queue; false when shutdown came first.
    pub(crate) fn send(&mut self, candle: &Candle<'_>, source: &str, line: u64) -> Result<bool, Error> {
        self.payload.clear();
        serde_json::to_writer(&mut self.payload, candle)
            .expect("a Vec takes any JSON and a valid candle is finite");
        let line = line.to_string();
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: SOURCE, value: Some(source) })
            .insert(Header { key: LINE, value: Some(&line) });
        let mut headers = Some(headers);
        loop {
            let mut record = BaseRecord::with_opaque_to(&self.args.topic, self.sent)
                .key(candle.symbol.as_ref())
                .payload(&self.payload);
            record.headers = headers;
            headers = match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => record.headers,
                Err((source, _)) => {
                    self.failure()?;
                    return Err(self.delivery(String::from_utf8_lossy(&self.payload).into_owned(), source));
                }
            };
            if self.context.shutdown.is_cancelled() {
                return Ok(false);
            }
            self.poll(QUEUE_FULL_WAIT)?;
        }
        failpoint::pass("producer.sent");
        self.sent += 1;
        if (self.sent as u64).is_multiple_of(POLL_RECORDS) {
            self.poll(Duration::ZERO)?;
        }
        Ok(true)
    }

    /// Takes in acknowledgements, then waits.
    pub(crate) fn poll(&mut self, wait: Duration) -> Result<(), Error> {
        self.producer.poll(Duration::ZERO);
        self.look()?;
        // Not in the poll, which spends the last millisecond of any wait in a busy loop.
        std::thread::sleep(wait);
        Ok(())
    }

    /// Waits until everything is acknowledged, or failed for good; after shutdown at most [`DRAIN_MAX`].
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        let mut deadline = None;
        while self.producer.flush(FLUSH_STEP).is_err() {
            self.look()?;
            let now = Instant::now();
            if self.context.shutdown.is_cancelled() && now >= *deadline.get_or_insert(now + DRAIN_MAX) {
                return Err(self.unacknowledged(self.producer.in_flight_count(), DRAIN_MAX));
            }
        }
        self.failure()
    }

    /// Returns how many records were handed over.
    pub(crate) fn sent(&self) -> u64 {
        self.sent as u64
    }

    /// Looks at what the last poll has brought.
    fn look(&mut self) -> Result<(), Error> {
        self.failure()?;
        match self.producer.context().brokers.check() {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "opening another one");
                self.reopen()
            }
        }
    }

    /// Opens another client in place of one without brokers: it sends, in the same order, what that one had not heard to be
    /// acknowledged and what is not in the topic either.
    fn reopen(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        self.producer.purge(PurgeConfig::default().queue().inflight());
        if self.producer.flush(PURGE_MAX).is_err() {
            return Err(self.unacknowledged(self.producer.in_flight_count(), started.elapsed()));
        }
        self.failure()?;
        let (position, mut returned) = {
            let mut told = self.producer.context().told();
            (std::mem::take(&mut told.position), std::mem::take(&mut told.returned))
        };
        returned.sort_unstable_by_key(|(number, _)| *number);
        let found = Handle::current().block_on(answered(&self.context, &self.args.brokers, || async {
            let mut appended = Appended::default();
            let shutdown = &self.context.shutdown;
            let end = resume::read_on(&self.args, &position, shutdown, |record| appended.add(record))?;
            Ok((end, appended))
        }))?;
        let Some((end, appended)) = found else {
            let count = i32::try_from(returned.len()).unwrap_or(i32::MAX);
            return if count == 0 { Ok(()) } else { Err(self.unacknowledged(count, started.elapsed())) };
        };
        let (appended, unsent) = appended.split(returned);
        for (_, record) in &appended {
            self.acknowledged.count(record);
        }
        tracing::info!(unsent = unsent.len(), appended = appended.len(), "goes on with another Kafka client");
        self.producer = open(&self.args, self.linger, Deliveries::new(&self.acknowledged, end))?;
        for (number, record) in unsent {
            self.send_again(number, &record)?;
        }
        self.context.metrics.set_ready(SERVICE, Ok(()));
        Ok(())
    }

    /// Hands over a record for a second time: an empty queue has room for what another had.
    fn send_again(&self, number: usize, record: &OwnedMessage) -> Result<(), Error> {
        let (key, payload) = (record.key().unwrap_or_default(), record.payload().unwrap_or_default());
        let mut again = BaseRecord::with_opaque_to(&self.args.topic, number).key(key).payload(payload);
        again.headers = record.headers().cloned();
        let failed = |(source, _)| self.delivery(String::from_utf8_lossy(payload).into_owned(), source);
        self.producer.send(again).map_err(failed)
    }

    fn failure(&self) -> Result<(), Error> {
        match self.producer.context().told().failure.take() {
            Some(Failure { record, error }) => Err(self.delivery(record, error)),
            None => Ok(()),
        }
    }

    fn delivery(&self, record: String, source: KafkaError) -> Error {
        Error::Delivery { topic: self.args.topic.clone(), record, source }
    }

    fn unacknowledged(&self, count: i32, waited: Duration) -> Error {
        Error::Unacknowledged { topic: self.args.topic.clone(), count, seconds: waited.as_secs() }
    }
}

fn open(
    args: &kafka::Args,
    linger: Duration,
    deliveries: Deliveries,
) -> Result<BaseProducer<Deliveries>, kafka::Error> {
    let producer = BaseProducer::from_config_and_context(&args.producer(linger), deliveries)
        .map_err(kafka::Error::new("open a Kafka producer"))?;
    ask_for_an_id(&producer, &args.topic);
    Ok(producer)
}

/// Makes librdkafka ask for its producer id as soon as it can, without which nothing is sent.
///
/// It tries with each answer about the brokers, else twice a second. The first answer comes before the broker that it names is connected,
/// so it takes two. One that does not come is no loss: librdkafka goes on trying.
fn ask_for_an_id(producer: &BaseProducer<Deliveries>, topic: &str) {
    for _ in 0..2 {
        if let Err(error) = producer.client().fetch_metadata(Some(topic), ID_WAIT_MAX) {
            tracing::debug!(%error, "brokers are slow to answer");
            return;
        }
    }
}
