//! What became of each record: acknowledged, failed for good, or given back by a client that is closed.

use std::sync::{Mutex, MutexGuard};

use position::Position;
use prometheus_client::metrics::counter::Counter;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, Message};
use service::metrics::Metrics;

/// Counts what is acknowledged, whichever client sent it.
#[derive(Clone)]
pub(crate) struct Acknowledged {
    records: Counter,
    bytes: Counter,
}

/// Takes in what a client tells of its records.
pub(crate) struct Deliveries {
    acknowledged: Acknowledged,
    told: Mutex<Told>,
    /// The brokers that the client knows.
    pub(crate) brokers: kafka::Brokers,
}

/// What was told so far.
pub(crate) struct Told {
    /// After the last acknowledged record of each partition; at first, where the topic ended when the client was opened.
    pub(crate) position: Position,
    /// The records that the client gave back, each with its number in sending order.
    pub(crate) returned: Vec<(usize, OwnedMessage)>,
    /// The first record that will never be acknowledged.
    pub(crate) failure: Option<Failure>,
}

/// A record and why it failed.
pub(crate) struct Failure {
    pub(crate) record: String,
    pub(crate) error: KafkaError,
}

impl Acknowledged {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        Acknowledged {
            records: metrics.register(
                "producer_records",
                "Records that Kafka has acknowledged",
                Counter::default(),
            ),
            bytes: metrics.register("producer_bytes", "Bytes of their values", Counter::default()),
        }
    }

    /// Counts one record.
    pub(crate) fn count(&self, record: &impl Message) {
        self.records.inc();
        self.bytes.inc_by(record.payload().map_or(0, <[u8]>::len) as u64);
    }
}

impl Deliveries {
    /// Starts for a client that is opened while the topic ends at `position`.
    pub(crate) fn new(acknowledged: &Acknowledged, position: Position) -> Self {
        let told = Told { position, returned: Vec::new(), failure: None };
        let brokers = kafka::Brokers::default();
        Deliveries { acknowledged: acknowledged.clone(), told: Mutex::new(told), brokers }
    }

    /// Returns what was told.
    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("no holder of the lock panics")
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka::log_error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.brokers.look(&statistics);
    }
}

impl ProducerContext for Deliveries {
    /// The record's number in sending order.
    type DeliveryOpaque = usize;

    fn delivery(&self, delivery: &DeliveryResult<'_>, number: usize) {
        let mut told = self.told();
        match delivery {
            Ok(message) => {
                self.acknowledged.count(message);
                // None is known of a record that had been acknowledged before, unheard.
                if message.offset() >= told.position.next(message.partition()).unwrap_or(0) {
                    told.position.set(message.partition(), message.offset() + 1);
                }
            }
            Err((error, message)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) => {
                    told.returned.push((number, message.detach()));
                }
                _ => {
                    let record = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
                    told.failure.get_or_insert(Failure { record, error: error.clone() });
                }
            },
        }
    }
}
