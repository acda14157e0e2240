//! Flags of `candleflight gold`.

use std::time::Duration;

use crate::connection::Postgres;
use kernel::Frame;

/// Flags of `candleflight gold`.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "gold")]
pub struct Config {
    /// Address of the Flight server.
    #[arg(long, env = "CANDLEFLIGHT_FLIGHT", default_value = "grpc://127.0.0.1:50051")]
    pub flight: String,
    /// PostgreSQL and its TLS certificates.
    #[command(flatten)]
    pub postgres: Postgres,
    /// The lake: a folder, or <s3://bucket> with the usual AWS_… variables.
    #[arg(long, env = "CANDLEFLIGHT_LAKE", default_value = "s3://bitcoin-data")]
    pub lake: String,
    /// The source topic of bronze, and the Kafka cluster that also holds its dead letters.
    #[command(flatten)]
    pub kafka: kafka::Args,
    /// Topic of the dead letters (unusable messages) [default: the name of the topic with the suffix _dlq].
    #[arg(long, env = "CANDLEFLIGHT_DEAD_LETTER_TOPIC", value_name = "TOPIC")]
    pub dead_letter_topic: Option<String>,
    /// Number of dead letters to keep in PostgreSQL, within ten percent. Older ones stay in their topic only.
    #[arg(long, env = "CANDLEFLIGHT_DEAD_LETTERS_MAX", default_value_t = 100_000, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub dead_letters_max: u32,
    /// Longest time to keep a dead letter in PostgreSQL.
    #[arg(long, env = "CANDLEFLIGHT_DEAD_LETTERS_AGE_MAX", default_value = "30d", value_parser = service::duration)]
    pub dead_letters_age_max: Duration,
    /// Window definition: minutes of event time, or a number of rows as in Spark's rowsBetween. Do not change this once the table has rows.
    #[arg(long, env = "CANDLEFLIGHT_FRAME", value_enum, default_value = "time")]
    pub frame: Frame,
    /// Empty gold in PostgreSQL and in the lake, each in one transaction, and compute it again from bronze. Readers see the rows return
    /// gradually.
    #[arg(long)]
    pub rebuild: bool,
    /// Longest time a gold row waits for its commit to the lake.
    #[arg(long = "flush-interval", env = "CANDLEFLIGHT_GOLD_FLUSH_INTERVAL", default_value = "10s",
        value_parser = service::duration)]
    pub flush_interval: Duration,
    /// Maximum number of gold rows that wait for their commit to the lake.
    #[arg(long = "flush-rows-max", env = "CANDLEFLIGHT_GOLD_FLUSH_ROWS_MAX", default_value_t = 150_000,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub flush_rows_max: u32,
}
