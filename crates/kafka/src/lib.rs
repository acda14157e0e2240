//! Configuration and errors of Kafka clients.
//!
//! This is the only crate that configures a Kafka client. [`Args`] sets every option that decides durability, size or time. The user may
//! not change the options that exactly-once delivery depends on. [`Error`] separates failures that pass by themselves from failures that
//! a person must correct.
//!
//! This crate is not a client library: services use `rdkafka` with the options from here. It neither encodes nor decodes candles.
//!
//! ```
//! use std::time::Duration;
//!
//! let args = kafka::Args {
//!     brokers: "127.0.0.1:9092".to_owned(),
//!     topic: "bitcoin_data".to_owned(),
//!     options: Vec::new(),
//! };
//! let producer = args.producer(Duration::from_millis(5));
//! assert_eq!(producer.get("acks"), Some("all"));
//! let consumer = args.consumer("candleflight-ingest");
//! assert_eq!(consumer.get("isolation.level"), Some("read_committed"));
//! ```

mod closing;
mod code;
pub mod dead_letter;
mod error;
mod fixed;
mod option;
mod refusal;
mod run;
mod topic;

use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, ClientContext};

pub use crate::closing::Closing;
pub use crate::error::{Error, is_fatal, what_to_do};
pub use crate::option::ClientOption;
pub use crate::refusal::{refused, unless_refused};

use crate::refusal::{ADVICE, refusal};
pub use crate::run::RunReader;
pub use crate::topic::{describe_topic, ensure_topic};

/// Header of a record that was lost at the end of a topic and restored from bronze.
pub const REFILLED: &str = "refilled_from";

/// Longest time for one request to a broker (metadata, watermarks, topic creation): enough for several leader elections.
pub const REQUEST_MAX: Duration = Duration::from_secs(10);
/// Longest wait for a record's acknowledgement while brokers are away: a long restart of a cluster. Then the producer fails.
const DELIVERY_MAX: Duration = Duration::from_mins(5);
/// Largest record that can be read, in bytes: well above the 10 MB that some brokers are configured for.
const RECORD_BYTES_MAX: usize = 64 << 20;
/// Records that may wait in a producer for their acknowledgement: a third of a second at the fastest rate.
const PRODUCER_RECORDS_MAX: usize = 100_000;
/// Bytes that may wait in a producer, in KiB.
const PRODUCER_KIB_MAX: usize = 64 << 10;
/// Bytes that a consumer keeps ready for poll, in KiB: a fifth of a second at the fastest rate.
const CONSUMER_KIB_MAX: usize = 16 << 10;
/// Records that a consumer keeps ready per partition before it fetches less eagerly.
const CONSUMER_RECORDS_MIN: usize = 20_000;
/// Longest time without a heartbeat before a member counts as dead and its partitions go to others. Brokers allow no shorter time by
/// default.
const SESSION_MAX: Duration = Duration::from_secs(6);

/// The address of Kafka, the topic, and the options of the clients.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "kafka")]
pub struct Args {
    /// Bootstrap servers, separated by commas.
    #[arg(
        long = "kafka",
        env = "CANDLEFLIGHT_KAFKA",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9092"
    )]
    pub brokers: String,
    /// Topic of the candles.
    #[arg(long, env = "CANDLEFLIGHT_TOPIC", default_value = "bitcoin_data")]
    pub topic: String,
    /// librdkafka option, passed on unchanged, such as `security.protocol=SASL_SSL`; repeatable. Options that exactly-once delivery depends
    /// on are rejected. Set passwords in the variable, one option per line: other users of the machine cannot read the variable.
    #[arg(
        long = "kafka-option",
        env = "CANDLEFLIGHT_KAFKA_OPTIONS",
        hide_env_values = true,
        value_name = "KEY=VALUE",
        value_delimiter = '\n',
        value_parser = option::Parser
    )]
    pub options: Vec<ClientOption>,
}

impl Args {
    /// Returns the options of a producer that writes each record to the topic once and in order, despite failures of brokers and networks.
    ///
    /// `linger` is the time that a record waits for others to share its batch.
    pub fn producer(&self, linger: Duration) -> ClientConfig {
        let mut config = self.client();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            // With two requests in flight to a new partition, a broker may reject the first and accept the second (KAFKA-15591). The
            // records of the first request are then lost. The limit has no measurable cost: 300,000 records/s either way.
            .set("max.in.flight.requests.per.connection", "1")
            .set("compression.type", "lz4")
            // Java clients use the same partitioner, so a symbol's candles are in one partition whichever client sends them.
            .set("partitioner", "murmur2_random")
            .set("linger.ms", linger.as_millis().to_string())
            // When a broker comes back, its partitions may have no leader at first. librdkafka may then wait, by default for 5 minutes,
            // before it requests metadata again.
            .set("topic.metadata.refresh.interval.ms", "1000")
            .set("message.timeout.ms", DELIVERY_MAX.as_millis().to_string())
            .set("queue.buffering.max.messages", PRODUCER_RECORDS_MAX.to_string())
            .set("queue.buffering.max.kbytes", PRODUCER_KIB_MAX.to_string());
        self.with_options(config)
    }

    /// Returns the options of a consumer that starts at a given offset and never commits or skips by itself.
    pub fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", group)
            .set("session.timeout.ms", SESSION_MAX.as_millis().to_string())
            .set("heartbeat.interval.ms", (SESSION_MAX / 4).as_millis().to_string())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            .set("allow.auto.create.topics", "false")
            // The consumer sees new topics and partitions within this time.
            .set("topic.metadata.refresh.interval.ms", "250")
            // A broker answers a fetch at the first byte. The wait only bounds the delay of a newly assigned partition.
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.error.backoff.ms", "100")
            // These options limit one partition's part of an answer, and the whole answer. Compressed JSON unpacks to several times this
            // size, in addition to the queue.
            .set("fetch.message.max.bytes", (1 << 20).to_string())
            .set("fetch.max.bytes", (4 << 20).to_string())
            .set("queued.min.messages", CONSUMER_RECORDS_MIN.to_string())
            .set("queued.max.messages.kbytes", CONSUMER_KIB_MAX.to_string());
        self.with_options(config)
    }

    /// Returns the options that all clients share.
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "candleflight")
            .set("receive.message.max.bytes", RECORD_BYTES_MAX.to_string())
            .set("socket.nagle.disable", "true")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "1000")
            .set("log.connection.close", "false")
            .set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    /// Adds the user's options, which override ours. The parser has already rejected options that may not be set.
    fn with_options(&self, mut config: ClientConfig) -> ClientConfig {
        for option in &self.options {
            option.set(&mut config);
        }
        config
    }
}

/// A client context that writes librdkafka's log to ours.
#[derive(Clone, Copy, Debug)]
pub struct Logs;

impl ClientContext for Logs {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Logs {}

/// Writes a line of librdkafka's log to ours, one level lower: for librdkafka, lost and new connections are routine.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        // librdkafka logs this about the gapless guarantee at every start.
        _ if facility == "CONFWARN" => tracing::debug!(facility, "{message}"),
        _ if refusal(message).is_some() => tracing::warn!(facility, "{message}; {ADVICE}"),
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::warn!(facility, "{message}"),
        RDKafkaLogLevel::Warning => tracing::info!(facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(facility, "{message}");
        }
    }
}

/// Writes an error that librdkafka recovers from by itself. Its log describes the same error in more detail.
pub fn log_error(error: &KafkaError, reason: &str) {
    // No broker causes this error, so librdkafka's log does not contain it.
    if reason.starts_with("Failed to acquire SASL") {
        tracing::warn!(%error, reason, "a Kafka client retries");
    } else {
        tracing::debug!(%error, reason, "a Kafka client retries");
    }
}
