//! Command-line flags of the Flight server.

use std::net::SocketAddr;
use std::time::Duration;

use crate::queries::Limits;

/// Flags of the Flight server.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "flight")]
pub struct Config {
    /// Address that Flight and Flight SQL clients connect to.
    #[arg(long, env = "CANDLEFLIGHT_LISTEN", default_value = "127.0.0.1:50051")]
    pub listen: SocketAddr,
    /// Location of the lake: a folder, or <s3://bucket> with the usual AWS_… variables.
    #[arg(long, env = "CANDLEFLIGHT_LAKE", default_value = "s3://bitcoin-data")]
    pub lake: String,
    /// Kafka topic of the candles. Positions of the tables are offsets in this topic.
    #[arg(long, env = "CANDLEFLIGHT_TOPIC", default_value = "bitcoin_data")]
    pub topic: String,
    /// Longest time that a row stays hot before it is flushed to the bronze table.
    #[arg(long, env = "CANDLEFLIGHT_BRONZE_FLUSH_INTERVAL", default_value = "10s", value_parser = service::duration)]
    pub flush_interval: Duration,
    /// Number of hot rows that starts a flush at once.
    #[arg(long, env = "CANDLEFLIGHT_BRONZE_FLUSH_ROWS_MAX", default_value_t = 500_000)]
    pub flush_rows_max: usize,
    /// Limit of the hot rows in bytes; a row takes about a hundred. A flush starts at half the limit, and puts wait at the limit. Takes
    /// KiB, MiB or GiB.
    #[arg(long, env = "CANDLEFLIGHT_HOT_BYTES_MAX", default_value = "64MiB", value_parser = service::byte_count)]
    pub hot_bytes_max: usize,
    /// Time that replaced files stay readable for queries and `gold_at`. It must be longer than the longest query.
    #[arg(long, env = "CANDLEFLIGHT_VACUUM_RETENTION", default_value = "1h", value_parser = service::duration)]
    pub vacuum_retention: Duration,
    /// Limits of queries.
    #[command(flatten)]
    pub limits: Limits,
}
