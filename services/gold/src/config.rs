//! The flags of gold and of verify.

use std::time::Duration;

use crate::connection::Postgres;
use crate::kernel::Frame;

/// The flags of `candleflight gold`.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "gold")]
pub struct Config {
    /// Address of the Flight server.
    #[arg(long, env = "CANDLEFLIGHT_FLIGHT", default_value = "grpc://127.0.0.1:50051")]
    pub flight: String,
    /// PostgreSQL.
    #[command(flatten)]
    pub postgres: Postgres,
    /// The lake: a folder, or <s3://bucket> with the usual AWS_… variables.
    #[arg(long, env = "CANDLEFLIGHT_LAKE", default_value = "s3://bitcoin-data")]
    pub lake: String,
    /// The topic that bronze comes from, and the Kafka that has its dead letters.
    #[command(flatten)]
    pub kafka: kafka::Args,
    /// Topic of the messages that could not be used; by default the topic's name with _dlq.
    #[arg(long, env = "CANDLEFLIGHT_DEAD_LETTER_TOPIC", value_name = "TOPIC")]
    pub dead_letter_topic: Option<String>,
    /// How many dead letters are kept in PostgreSQL, give or take a tenth; older ones are in their topic only.
    #[arg(long, env = "CANDLEFLIGHT_DEAD_LETTERS_MAX", default_value_t = 100_000, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub dead_letters_max: u32,
    /// How long dead letters are kept in PostgreSQL.
    #[arg(long, env = "CANDLEFLIGHT_DEAD_LETTERS_AGE_MAX", default_value = "30d", value_parser = service::duration)]
    pub dead_letters_age_max: Duration,
    /// What a window of length w counts: minutes of event time, or rows as Spark's rowsBetween does. Not to be changed for a table
    /// that has rows.
    #[arg(long, env = "CANDLEFLIGHT_FRAME", value_enum, default_value = "time")]
    pub frame: Frame,
    /// Empty gold in PostgreSQL and in the lake, each in one transaction, and compute it again from bronze. Readers see it grow.
    #[arg(long)]
    pub rebuild: bool,
    /// How long a gold row waits at most for its commit to the lake.
    #[arg(long = "flush-interval", env = "CANDLEFLIGHT_FLUSH_INTERVAL", default_value = "10s",
        value_parser = service::duration)]
    pub flush_interval: Duration,
    /// How many gold rows wait at most for their commit to the lake.
    #[arg(long = "flush-rows-max", env = "CANDLEFLIGHT_FLUSH_ROWS_MAX", default_value_t = 150_000,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub flush_rows_max: u32,
}
