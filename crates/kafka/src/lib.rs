//! The only crate that knows how a Kafka client is configured: every option that decides durability, size or time is set here.

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

/// Header of a record that was lost at the end of a topic and written back from bronze.
pub const REFILLED: &str = "refilled_from";

/// How long a question to a broker (metadata, watermarks, creating a topic) may take: several leader elections.
pub const REQUEST_MAX: Duration = Duration::from_secs(10);
/// How long a record waits for its acknowledgement while brokers are away, then the producer fails: a long restart of a cluster.
const DELIVERY_MAX: Duration = Duration::from_mins(5);
/// Largest record that can be read, in bytes: well above the 10 MB that brokers are at times configured for.
const RECORD_BYTES_MAX: usize = 64 << 20;
/// Records that wait in a producer to be acknowledged: a third of a second at the fastest rate.
const PRODUCER_RECORDS_MAX: usize = 100_000;
/// Bytes that wait in a producer, in KiB.
const PRODUCER_KIB_MAX: usize = 64 << 10;
/// Bytes that a consumer holds ready ahead of poll, in KiB: a fifth of a second at the fastest rate.
const CONSUMER_KIB_MAX: usize = 16 << 10;
/// Records that a consumer wants ready in each partition before it fetches less eagerly.
const CONSUMER_RECORDS_MIN: usize = 20_000;
/// After so long without a heartbeat a member is dead and its partitions go to others: the least that brokers allow by default.
const SESSION_MAX: Duration = Duration::from_secs(6);

/// Where Kafka is, which topic, and how to get in.
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
    /// Passed on to librdkafka as it is, such as `security.protocol=SASL_SSL`; repeatable. What exactly once rests on is refused. Passwords are better set by the variable, one
    /// option a line, which other users of the machine do not see.
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
    /// Returns the options of a producer whose records are in the topic once and in order, whatever brokers or networks do.
    ///
    /// `linger` is how long a record waits for others to share its batch.
    pub fn producer(&self, linger: Duration) -> ClientConfig {
        let mut config = self.client();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            // Of two requests at once to a partition that was just made a broker may refuse the first and take the second (KAFKA-15591):
            // then the first one's records are missing for good. It costs nothing that could be measured, 300,000 records/s either way.
            .set("max.in.flight.requests.per.connection", "1")
            .set("compression.type", "lz4")
            // As Java clients do: a symbol's candles are in one partition whoever sends them.
            .set("partitioner", "murmur2_random")
            .set("linger.ms", linger.as_millis().to_string())
            // A broker that comes back may have no leader for us at first, and librdkafka may then not ask again: by default for 5 minutes.
            .set("topic.metadata.refresh.interval.ms", "1000")
            .set("message.timeout.ms", DELIVERY_MAX.as_millis().to_string())
            .set("queue.buffering.max.messages", PRODUCER_RECORDS_MAX.to_string())
            .set("queue.buffering.max.kbytes", PRODUCER_KIB_MAX.to_string());
        self.with_options(config)
    }

    /// Returns the options of a consumer that is told where to start, and never commits or skips by itself.
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
            // New topics and partitions are seen within this time.
            .set("topic.metadata.refresh.interval.ms", "250")
            // A broker answers a fetch at the first byte; the wait only bounds how long a newly assigned partition is held up.
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.error.backoff.ms", "100")
            // A partition's share of an answer and the whole: JSON unpacks to several times as much, which comes on top of the queue.
            .set("fetch.message.max.bytes", (1 << 20).to_string())
            .set("fetch.max.bytes", (4 << 20).to_string())
            .set("queued.min.messages", CONSUMER_RECORDS_MIN.to_string())
            .set("queued.max.messages.kbytes", CONSUMER_KIB_MAX.to_string());
        self.with_options(config)
    }

    /// Returns the options that all clients have.
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

    /// Adds the user's options, which win; those that may not are refused by their parser.
    fn with_options(&self, mut config: ClientConfig) -> ClientConfig {
        for option in &self.options {
            option.set(&mut config);
        }
        config
    }
}

/// A client's log to ours.
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

/// Writes a line of librdkafka's log to ours, a level lower: connections that come and go are its daily business.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        // Said of the gapless guarantee at every start.
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

/// Writes an error that librdkafka gets over by itself; its log has it too, in more words.
pub fn log_error(error: &KafkaError, reason: &str) {
    // Said of no broker, so that the log has it not.
    if reason.starts_with("Failed to acquire SASL") {
        tracing::warn!(%error, reason, "a Kafka client is trying again");
    } else {
        tracing::debug!(%error, reason, "a Kafka client is trying again");
    }
}
