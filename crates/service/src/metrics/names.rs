//! The names of all metrics, as Prometheus receives them. Services register them, and the status page, tests and benches read them.

/// Name and help of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// Full name, with the prefix, and with `_total` for a counter.
    pub name: &'static str,
    /// Help, without a full stop.
    pub help: &'static str,
}

impl Description {
    /// Returns the name that the registry takes: it adds the prefix, and `_total` to a counter.
    pub(super) fn registered(self) -> &'static str {
        let name = self.name.strip_prefix("candleflight_").unwrap_or(self.name);
        name.strip_suffix("_total").unwrap_or(name)
    }
}

const fn metric(name: &'static str, help: &'static str) -> Description {
    Description { name, help }
}

/// Records that Kafka has acknowledged.
pub const PRODUCER_RECORDS: Description =
    metric("candleflight_producer_records_total", "Records that Kafka has acknowledged");
/// Bytes of the values that Kafka has acknowledged.
pub const PRODUCER_BYTES: Description =
    metric("candleflight_producer_bytes_total", "Bytes of the values that Kafka has acknowledged");
/// Lines of the inputs without a usable candle.
pub const PRODUCER_REJECTED_LINES: Description =
    metric("candleflight_producer_rejected_lines_total", "Lines of the inputs without a usable candle");
/// Rows put to the Flight server, including those put again after a restart of the session.
pub const INGEST_RECORDS: Description = metric(
    "candleflight_ingest_records_total",
    "Rows put to the Flight server, including those put again after a restart of the session",
);
/// Bytes of the batches put to the Flight server.
pub const INGEST_BYTES: Description =
    metric("candleflight_ingest_bytes_total", "Bytes of the batches put to the Flight server");
/// Batches put to the Flight server.
pub const INGEST_BATCHES: Description =
    metric("candleflight_ingest_batches_total", "Batches put to the Flight server");
/// Restarts of the session after an error or a rebalance.
pub const INGEST_RESTARTS: Description =
    metric("candleflight_ingest_restarts_total", "Restarts of the session after an error or a rebalance");
/// Messages that could not be used.
pub const INGEST_DEAD_LETTERS: Description =
    metric("candleflight_ingest_dead_letters_total", "Messages that could not be used");
/// Messages of the topic that are not read yet.
pub const INGEST_LAG_RECORDS: Description =
    metric("candleflight_ingest_lag_records", "Messages of the topic that are not read yet");
/// Next offset that the topic will assign.
pub const INGEST_END_OFFSET: Description =
    metric("candleflight_ingest_end_offset", "Next offset that the topic will assign");
/// Rows that bronze received, without duplicates.
pub const BRONZE_ROWS: Description =
    metric("candleflight_bronze_rows_total", "Rows that bronze received, without duplicates");
/// Flight SQL queries rejected because too many others were running.
pub const QUERIES_REFUSED: Description = metric(
    "candleflight_queries_refused_total",
    "Flight SQL queries rejected because too many others were running",
);
/// Flight SQL queries that are running.
pub const QUERIES_RUNNING: Description =
    metric("candleflight_queries_running", "Flight SQL queries that are running");
/// Time from the start of a query until the client took its last batch.
pub const QUERY_SECONDS: Description = metric(
    "candleflight_query_seconds",
    "Time from the start of a query until the client took its last batch",
);
/// Streams that follow a table.
pub const FOLLOWERS: Description = metric("candleflight_followers", "Streams that follow a table");
/// Flight calls without a valid login.
pub const FLIGHT_CALLS_DENIED: Description =
    metric("candleflight_flight_calls_denied_total", "Flight calls without a valid login");
/// Flight SQL queries executed.
pub const QUERIES: Description = metric("candleflight_queries_total", "Flight SQL queries executed");
/// Time from taking the hot rows to their commit.
pub const BRONZE_FLUSH_SECONDS: Description =
    metric("candleflight_bronze_flush_seconds", "Time from taking the hot rows to their commit");
/// Rows that are visible but not yet durable.
pub const BRONZE_HOT_ROWS: Description =
    metric("candleflight_bronze_hot_rows", "Rows that are visible but not yet durable");
/// Bytes of the rows that are not yet durable.
pub const BRONZE_HOT_BYTES: Description =
    metric("candleflight_bronze_hot_bytes", "Bytes of the rows that are not yet durable");
/// Rows in the bronze table.
pub const BRONZE_DURABLE_ROWS: Description =
    metric("candleflight_bronze_durable_rows", "Rows in the bronze table");
/// Files of the bronze table.
pub const BRONZE_DURABLE_FILES: Description =
    metric("candleflight_bronze_durable_files", "Files of the bronze table");
/// Bytes of the bronze table's files.
pub const BRONZE_DURABLE_BYTES: Description =
    metric("candleflight_bronze_durable_bytes", "Bytes of the bronze table's files");
/// Delta version of the bronze table.
pub const BRONZE_TABLE_VERSION: Description =
    metric("candleflight_bronze_table_version", "Delta version of the bronze table");
/// Next offset that bronze expects.
pub const BRONZE_RECEIVED_OFFSET: Description =
    metric("candleflight_bronze_received_offset", "Next offset that bronze expects");
/// Next offset that is not durable in bronze.
pub const BRONZE_DURABLE_OFFSET: Description =
    metric("candleflight_bronze_durable_offset", "Next offset that is not durable in bronze");
/// Unix time of the last flush of bronze.
pub const BRONZE_FLUSH_TIMESTAMP_SECONDS: Description =
    metric("candleflight_bronze_flush_timestamp_seconds", "Unix time of the last flush of bronze");
/// Gold rows committed.
pub const GOLD_ROWS: Description = metric("candleflight_gold_rows_total", "Gold rows committed");
/// Time of the last gold commit.
pub const GOLD_COMMIT_TIMESTAMP_SECONDS: Description =
    metric("candleflight_gold_commit_timestamp_seconds", "Time of the last gold commit");
/// Next offset after those in the sink.
pub const GOLD_POSITION_OFFSET: Description =
    metric("candleflight_gold_position_offset", "Next offset after those in the sink");
/// Gold rows recomputed in PostgreSQL.
pub const GOLD_CORRECTIONS: Description =
    metric("candleflight_gold_corrections_total", "Gold rows recomputed in PostgreSQL");
/// Reads of history for late candles.
pub const GOLD_LATE_READS: Description =
    metric("candleflight_gold_late_reads_total", "Reads of history for late candles");
/// Dead letters copied to PostgreSQL.
pub const GOLD_DEAD_LETTERS: Description =
    metric("candleflight_gold_dead_letters_total", "Dead letters copied to PostgreSQL");
/// Bronze rows that gold cannot store and leaves out.
pub const GOLD_SET_ASIDE: Description =
    metric("candleflight_gold_set_aside_total", "Bronze rows that gold cannot store and leaves out");
/// Time of a transaction in PostgreSQL.
pub const GOLD_POSTGRES_COMMIT_SECONDS: Description =
    metric("candleflight_gold_postgres_commit_seconds", "Time of a transaction in PostgreSQL");
/// Time of a commit to the gold Delta table.
pub const GOLD_LAKE_FLUSH_SECONDS: Description =
    metric("candleflight_gold_lake_flush_seconds", "Time of a commit to the gold Delta table");
/// Time from producing a candle to committing its gold row in PostgreSQL.
pub const FRESHNESS_SECONDS: Description = metric(
    "candleflight_freshness_seconds",
    "Time from producing a candle to committing its gold row in PostgreSQL",
);
/// Offsets that bronze has received and PostgreSQL does not hold yet.
pub const GOLD_LAG_OFFSETS: Description = metric(
    "candleflight_gold_lag_offsets",
    "Offsets that bronze has received and PostgreSQL does not hold yet",
);

/// All metrics.
pub const ALL: &[Description] = &[
    PRODUCER_RECORDS,
    PRODUCER_BYTES,
    PRODUCER_REJECTED_LINES,
    INGEST_RECORDS,
    INGEST_BYTES,
    INGEST_BATCHES,
    INGEST_RESTARTS,
    INGEST_DEAD_LETTERS,
    INGEST_LAG_RECORDS,
    INGEST_END_OFFSET,
    BRONZE_ROWS,
    QUERIES_REFUSED,
    QUERIES_RUNNING,
    QUERY_SECONDS,
    FOLLOWERS,
    FLIGHT_CALLS_DENIED,
    QUERIES,
    BRONZE_FLUSH_SECONDS,
    BRONZE_HOT_ROWS,
    BRONZE_HOT_BYTES,
    BRONZE_DURABLE_ROWS,
    BRONZE_DURABLE_FILES,
    BRONZE_DURABLE_BYTES,
    BRONZE_TABLE_VERSION,
    BRONZE_RECEIVED_OFFSET,
    BRONZE_DURABLE_OFFSET,
    BRONZE_FLUSH_TIMESTAMP_SECONDS,
    GOLD_ROWS,
    GOLD_COMMIT_TIMESTAMP_SECONDS,
    GOLD_POSITION_OFFSET,
    GOLD_CORRECTIONS,
    GOLD_LATE_READS,
    GOLD_DEAD_LETTERS,
    GOLD_SET_ASIDE,
    GOLD_POSTGRES_COMMIT_SECONDS,
    GOLD_LAKE_FLUSH_SECONDS,
    FRESHNESS_SECONDS,
    GOLD_LAG_OFFSETS,
];
