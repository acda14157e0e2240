//! Tests of the PostgreSQL sink on a real PostgreSQL. In `CANDLEFLIGHT_TEST_POSTGRES=postgres://…`, the user must be able to create
//! databases.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod outages;
mod poolers;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;
use gold::metrics::Metrics;
use gold::sink::postgres::Sink;
use gold::state::{GoldBatch, SymbolPartitions};
use gold::{Aside, Error, Postgres};
use kernel::Frame;
use position::{OffsetRange, Origin, Position, Topic};
use schema::RangedBatch;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

const TOPIC: &str = "bitcoin_data";
const MINUTE: i64 = 60_000_000;
/// Longest wait for a condition.
const DEADLINE: Duration = Duration::from_mins(2);
/// Pause between two checks of a condition.
const CHECK_PAUSE: Duration = Duration::from_millis(20);

/// A separate database for one test.
struct Database {
    name: String,
    postgres: Postgres,
    client: Client,
}

/// Creates the database `name`. Returns `None` and prints a note if there is no PostgreSQL for tests, which CI does not allow.
async fn database(name: &str) -> Result<Option<Database>> {
    database_with(name, "").await
}

/// Creates the database `name` with `options` of CREATE DATABASE.
async fn database_with(name: &str, options: &str) -> Result<Option<Database>> {
    let Ok(server) = std::env::var("CANDLEFLIGHT_TEST_POSTGRES") else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CANDLEFLIGHT_TEST_POSTGRES must be set in CI");
        eprintln!("skipped: CANDLEFLIGHT_TEST_POSTGRES is not set");
        return Ok(None);
    };
    let admin = connect(&server).await?;
    admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
    admin.batch_execute(&format!("CREATE DATABASE {name} {options}")).await?;
    let (base, _) = server.rsplit_once('/').context("the URL names a database")?;
    let url = format!("{base}/{name}");
    let client = connect(&url).await?;
    Ok(Some(Database { name: name.to_owned(), postgres: at(&url), client }))
}

/// PostgreSQL at `url`, without certificates.
fn at(url: &str) -> Postgres {
    let Ok(url) = url.parse();
    Postgres { url, postgres_ca: None, postgres_cert: None, postgres_key: None }
}

/// Waits until `condition` returns a value.
async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < end, "in time: {what}");
        tokio::time::sleep(CHECK_PAUSE).await;
    }
}

async fn connect(url: &str) -> Result<Client> {
    connect_to(&at(url)).await
}

async fn connect_to(postgres: &Postgres) -> Result<Client> {
    let (client, connection) = postgres.url.parse()?.connect(NoTls).await?;
    #[expect(clippy::disallowed_methods, reason = "ends with the client")]
    tokio::spawn(connection);
    Ok(client)
}

/// Returns the origin of the positions in these tests.
fn origin() -> Origin {
    Origin { topic: Topic::named(TOPIC), table: "bronze".to_owned() }
}

impl Database {
    /// Opens another connection.
    async fn connect(&self) -> Result<Client> {
        connect_to(&self.postgres).await
    }

    async fn open(&self) -> Result<Sink, Error> {
        self.open_from("bronze", false, Frame::Time).await
    }

    async fn open_with(&self, frame: Frame) -> Result<Sink, Error> {
        self.open_from("bronze", false, frame).await
    }

    async fn open_from(&self, bronze: &str, rebuild: bool, frame: Frame) -> Result<Sink, Error> {
        let metrics = Metrics::register(&service::metrics::Metrics::default());
        let origin = Origin { table: bronze.to_owned(), ..origin() };
        Sink::open(&self.postgres, &origin, rebuild, frame, metrics).await
    }

    /// Returns all rows as "symbol minute volume", ordered by key.
    async fn rows(&self) -> Result<Vec<String>> {
        let query = "SELECT format('%s %s %s', symbol, (extract(epoch FROM event_time) / 60)::int, volume) \
                     FROM bitcoin_gold_data ORDER BY symbol, event_time";
        Ok(self.client.query(query, &[]).await?.iter().map(|row| row.get(0)).collect())
    }

    async fn row_count(&self) -> Result<i64> {
        Ok(self.client.query_one("SELECT count(*) FROM bitcoin_gold_data", &[]).await?.get(0))
    }
}

/// Returns gold rows of one symbol from (minute, volume). Every other column has a value that is easy to recognize.
fn gold(symbol: &str, rows: &[(i64, f64)]) -> RecordBatch {
    let schema = schema::gold::schema();
    let column = |(index, field): (usize, &arrow::datatypes::FieldRef)| -> ArrayRef {
        let name = field.name().as_str();
        let micros = |of: fn(&(i64, f64)) -> i64| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(of)).with_timezone("UTC"))
        };
        match field.data_type() {
            DataType::Utf8 => Arc::new(StringArray::from(vec![symbol; rows.len()])),
            DataType::Timestamp(..) if name == schema::EVENT_TIME => micros(|row| row.0 * MINUTE),
            DataType::Timestamp(..) => micros(|row| row.0 * MINUTE + 1),
            DataType::Date32 => Arc::new(Date32Array::from(vec![0; rows.len()])),
            DataType::Int32 => Arc::new(Int32Array::from(vec![i32::try_from(index).unwrap(); rows.len()])),
            DataType::Float64 if name == schema::VOLUME => {
                Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.1)))
            }
            DataType::Float64 if field.is_nullable() => {
                Arc::new(rows.iter().map(|row| (row.0 > 0).then_some(0.1)).collect::<Float64Array>())
            }
            DataType::Float64 => {
                Arc::new(Float64Array::from(vec![f64::from(u32::try_from(index).unwrap()); rows.len()]))
            }
            other => panic!("gold has no column of type {other}"),
        }
    };
    let columns = schema.fields().iter().enumerate().map(column).collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

fn computed(partition: i32, first: i64, next: i64, rows: RecordBatch) -> GoldBatch {
    let range = OffsetRange { partition, first, next };
    GoldBatch { batch: RangedBatch { range, rows }, asides: [].into(), arrived: [0].into() }
}

fn position(pairs: &[(i32, i64)]) -> Position {
    pairs.iter().copied().collect()
}

fn numbered(rows: std::ops::Range<i64>, volume: f64) -> Vec<(i64, f64)> {
    rows.map(|minute| (minute, volume)).collect()
}

#[tokio::test]
async fn rows_and_position_are_there_after_a_write_and_after_opening_again() -> Result<()> {
    let Some(database) = database("gold_write").await? else { return Ok(()) };
    let mut sink = database.open().await?;
    assert!(sink.state().position.is_empty());
    let shutdown = CancellationToken::new();
    let work = [
        computed(0, 5, 7, gold("BTC-USD", &[(1, 0.5), (2, 1.5)])),
        computed(1, 0, 9, gold("ETH-USD", &[(1, 2.5)])),
        computed(0, 7, 8, gold("BTC-USD", &[(2, 3.5), (3, 4.5)])),
        computed(0, 8, 10, gold("BTC-USD", &[])),
    ];
    sink.write(&work, &shutdown).await?;
    assert_eq!(database.rows().await?, ["BTC-USD 1 0.5", "BTC-USD 2 3.5", "BTC-USD 3 4.5", "ETH-USD 1 2.5"]);
    let state = database.open().await?.state().clone();
    assert_eq!(state.position, position(&[(0, 10), (1, 9)]));
    assert_eq!(
        [state.newest.get("BTC-USD"), state.newest.get("ETH-USD"), state.newest.get("A")],
        [Some(3 * MINUTE), Some(MINUTE), None]
    );
    Ok(())
}

#[tokio::test]
async fn a_symbols_partitions_are_known_after_its_first_rows_from_each() -> Result<()> {
    let Some(database) = database("gold_partitions").await? else { return Ok(()) };
    let mut sink = database.open().await?;
    let shutdown = CancellationToken::new();
    sink.write(&[computed(1, 0, 1, gold("BTC-USD", &[(1, 0.5)]))], &shutdown).await?;
    let work = [
        computed(1, 1, 2, gold("BTC-USD", &[(2, 0.5)])),
        computed(0, 0, 1, gold("ETH-USD", &[(1, 2.5)])),
        computed(3, 0, 1, gold("BTC-USD", &[(2, 0.5)])),
    ];
    sink.write(&work, &shutdown).await?;
    let expected = [("BTC-USD", 1), ("BTC-USD", 3), ("ETH-USD", 0)];
    let expected: SymbolPartitions =
        expected.into_iter().map(|(symbol, partition)| (symbol.to_owned(), partition)).collect();
    assert_eq!(*sink.partitions(), expected);
    assert_eq!(*database.open().await?.partitions(), expected);
    Ok(())
}

#[tokio::test]
async fn every_value_arrives_as_it_is() -> Result<()> {
    let Some(database) = database("gold_values").await? else { return Ok(()) };
    let mut sink = database.open().await?;
    // This covers both ways into the table: COPY and INSERT.
    let mut many = numbered(1..2000, 0.1);
    many.insert(0, (0, 1e-300));
    sink.write(&[computed(0, 0, 1, gold("COPY", &many))], &CancellationToken::new()).await?;
    sink.write(&[computed(0, 1, 2, gold("INSERT", &many[..2]))], &CancellationToken::new()).await?;
    for symbol in ["COPY", "INSERT"] {
        let query = "SELECT volume, open, price_volatility_5m, samples_30m, price_volatility_30m, \
                     (extract(epoch FROM event_time) * 1000000)::int8, (extract(epoch FROM kafka_time) * 1000000)::int8 \
                     FROM bitcoin_gold_data WHERE symbol = $1 ORDER BY event_time LIMIT 2";
        let rows = database.client.query(query, &[&symbol]).await?;
        let values = |row: &tokio_postgres::Row| -> (f64, f64, Option<f64>, i32, Option<f64>, i64, i64) {
            (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(5), row.get(6))
        };
        assert_eq!(values(&rows[0]), (1e-300, 2.0, None, 18, None, 0, 1));
        assert_eq!(values(&rows[1]), (0.1, 2.0, Some(0.1), 18, Some(0.1), MINUTE, MINUTE + 1));
    }
    assert_eq!(database.row_count().await?, 2002);
    Ok(())
}

#[tokio::test]
async fn what_the_table_holds_already_is_left_out() -> Result<()> {
    let Some(database) = database("gold_held").await? else { return Ok(()) };
    let mut sink = database.open().await?;
    let shutdown = CancellationToken::new();
    sink.write(&[computed(0, 0, 10, gold("BTC-USD", &[(1, 1.0)]))], &shutdown).await?;
    // A slower sink makes gold start at a lower position. Rows below the sink's position are skipped, and a run across it is written.
    let again = [
        computed(0, 0, 5, gold("BTC-USD", &[(1, 0.25)])),
        computed(0, 5, 10, gold("BTC-USD", &[(1, 0.75)])),
        computed(0, 5, 12, gold("BTC-USD", &[(2, 2.0)])),
    ];
    sink.write(&again, &shutdown).await?;
    assert_eq!(database.rows().await?, ["BTC-USD 1 1", "BTC-USD 2 2"]);
    assert_eq!(sink.state().position, position(&[(0, 12)]));
    Ok(())
}

#[tokio::test]
async fn a_large_transaction_copies_new_rows_and_replaces_old_ones() -> Result<()> {
    let Some(database) = database("gold_large").await? else { return Ok(()) };
    let mut sink = database.open().await?;
    let shutdown = CancellationToken::new();
    sink.write(&[computed(0, 0, 1, gold("BTC-USD", &numbered(0..30_000, 1.0)))], &shutdown).await?;
    let again = [
        computed(0, 1, 2, gold("BTC-USD", &numbered(10_000..40_000, 2.0))),
        computed(0, 2, 3, gold("BTC-USD", &numbered(39_999..40_000, 3.0))),
    ];
    sink.write(&again, &shutdown).await?;
    let query = "SELECT volume::text, count(*) FROM bitcoin_gold_data GROUP BY 1 ORDER BY 1";
    let counts: Vec<(String, i64)> =
        database.client.query(query, &[]).await?.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(counts, [("1".to_owned(), 10_000), ("2".to_owned(), 29_999), ("3".to_owned(), 1)]);
    Ok(())
}

#[tokio::test]
async fn a_position_that_another_process_has_moved_stops_the_write_and_undoes_it() -> Result<()> {
    let Some(database) = database("gold_moved").await? else { return Ok(()) };
    let (mut ours, mut theirs) = (database.open().await?, database.open().await?);
    let shutdown = CancellationToken::new();
    theirs.write(&[computed(0, 0, 2, gold("BTC-USD", &[(1, 1.0)]))], &shutdown).await?;
    // The first pass has no position in memory, the second an older one.
    for first in [0, 2] {
        let lost = ours
            .write(&[computed(0, first, first + 1, gold("BTC-USD", &numbered(5..2000, 9.0)))], &shutdown)
            .await;
        assert!(matches!(lost, Err(Error::Moved)), "{lost:?}");
        ours = database.open().await?;
        theirs.write(&[computed(0, first + 2, first + 3, gold("BTC-USD", &[(1, 2.0)]))], &shutdown).await?;
    }
    assert_eq!(database.rows().await?, ["BTC-USD 1 2"]);
    Ok(())
}

#[tokio::test]
async fn rows_that_are_unexpectedly_there_are_replaced() -> Result<()> {
    let Some(database) = database("gold_unexpected").await? else { return Ok(()) };
    let mut sink = database.open().await?;
    let shutdown = CancellationToken::new();
    sink.write(&[computed(0, 0, 1, gold("BTC-USD", &numbered(0..10, 1.0)))], &shutdown).await?;
    database
        .client
        .execute(
            "UPDATE bitcoin_gold_data SET event_time = event_time + interval '1 hour' WHERE volume = 1",
            &[],
        )
        .await?;
    sink.write(&[computed(0, 1, 2, gold("BTC-USD", &numbered(10..1000, 2.0)))], &shutdown).await?;
    let query = "SELECT count(*) FILTER (WHERE volume = 2), count(*) FROM bitcoin_gold_data";
    let row = database.client.query_one(query, &[]).await?;
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (990, 990));
    Ok(())
}

#[tokio::test]
async fn a_lost_connection_is_made_again() -> Result<()> {
    let Some(database) = database("gold_lost").await? else { return Ok(()) };
    let mut sink = database.open().await?;
    let shutdown = CancellationToken::new();
    for round in 0..3 {
        sink.write(&[computed(0, round, round + 1, gold("BTC-USD", &[(round, 1.0)]))], &shutdown).await?;
        let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                    WHERE datname = current_database() AND pid <> pg_backend_pid()";
        assert!(database.client.query_one(kill, &[]).await?.get::<_, i64>(0) > 0);
    }
    assert_eq!(database.row_count().await?, 3);
    Ok(())
}

#[tokio::test]
async fn gold_of_another_bronze_is_refused_and_a_rebuild_begins_again() -> Result<()> {
    let Some(database) = database("gold_source").await? else { return Ok(()) };
    let shutdown = CancellationToken::new();
    // Nothing was computed from the first one.
    database.open_from("first", false, Frame::Time).await?;
    let mut sink = database.open_from("second", false, Frame::Time).await?;
    sink.write(&[computed(0, 0, 9, gold("BTC-USD", &[(1, 1.0)]))], &shutdown).await?;
    let refused = database.open_from("third", false, Frame::Time).await;
    assert!(matches!(&refused, Err(Error::OtherBronze { found, .. }) if found == "second"), "{refused:?}");
    assert_eq!(database.rows().await?, ["BTC-USD 1 1"]);
    let mut sink = database.open_from("third", true, Frame::Time).await?;
    assert!(sink.state().position.is_empty() && *sink.partitions() == SymbolPartitions::default());
    assert_eq!(database.row_count().await?, 0);
    sink.write(&[computed(1, 0, 1, gold("BTC-USD", &[(2, 2.0)]))], &shutdown).await?;
    assert_eq!(database.open_from("third", false, Frame::Time).await?.state().position, position(&[(1, 1)]));
    Ok(())
}

#[tokio::test]
async fn a_database_with_gold_of_another_topic_is_refused() -> Result<()> {
    let Some(database) = database("gold_other_topic").await? else { return Ok(()) };
    database.open().await?;
    for table in ["candleflight_source SET topic = 'other'", "candleflight_symbol SET topic = 'other'"] {
        // Version 0.1 recorded only the topics of symbols.
        let symbol =
            "INSERT INTO candleflight_symbol (topic, symbol, partition) VALUES ('bitcoin_data', 'A', 0)";
        database.client.execute(symbol, &[]).await?;
        database.client.execute(&format!("UPDATE {table}"), &[]).await?;
        let refused = database.open().await;
        assert!(matches!(&refused, Err(Error::OtherTopic { found, .. }) if found == "other"), "{refused:?}");
        database
            .client
            .batch_execute("DELETE FROM candleflight_source; DELETE FROM candleflight_symbol")
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_table_has_the_columns_of_the_schema_without_the_date() -> Result<()> {
    let Some(database) = database("gold_columns").await? else { return Ok(()) };
    database.open().await?;
    let query = "SELECT column_name, is_nullable = 'YES' FROM information_schema.columns \
                 WHERE table_name = 'bitcoin_gold_data' ORDER BY ordinal_position";
    let found: Vec<(String, bool)> =
        database.client.query(query, &[]).await?.iter().map(|row| (row.get(0), row.get(1))).collect();
    let schema = schema::gold::schema();
    let fields = schema.fields().iter().filter(|field| field.name() != schema::DATE);
    let expected: Vec<(String, bool)> =
        fields.map(|field| (field.name().clone(), field.is_nullable())).collect();
    assert_eq!(found, expected);
    Ok(())
}

/// Reverts the tables to version 6, which had one partition for each symbol and did not record the frame.
const VERSION_6: &str = "ALTER TABLE candleflight_symbol DROP CONSTRAINT candleflight_symbol_pkey, ADD PRIMARY KEY (topic, symbol); \
    DROP TABLE candleflight_frame; DELETE FROM candleflight_version WHERE version > 6";

#[tokio::test]
async fn a_symbol_of_an_older_version_may_be_in_any_partition_that_was_read() -> Result<()> {
    let Some(database) = database("gold_older").await? else { return Ok(()) };
    let shutdown = CancellationToken::new();
    let work =
        [computed(1, 0, 1, gold("BTC-USD", &[(1, 0.5)])), computed(0, 0, 1, gold("ETH-USD", &[(1, 2.5)]))];
    database.open().await?.write(&work, &shutdown).await?;
    database.client.batch_execute(VERSION_6).await?;
    database.client.execute("DELETE FROM candleflight_symbol WHERE symbol = 'BTC-USD'", &[]).await?;
    let expected = [("BTC-USD", 0), ("BTC-USD", 1), ("ETH-USD", 0)];
    let expected: SymbolPartitions =
        expected.into_iter().map(|(symbol, partition)| (symbol.to_owned(), partition)).collect();
    assert_eq!(*database.open().await?.partitions(), expected);
    assert_eq!(database.rows().await?, ["BTC-USD 1 0.5", "ETH-USD 1 2.5"]);
    Ok(())
}

#[tokio::test]
async fn another_frame_is_refused_once_there_are_rows() -> Result<()> {
    let Some(database) = database("gold_frame").await? else { return Ok(()) };
    database.open_with(Frame::Rows).await?;
    let mut sink = database.open_with(Frame::Time).await?;
    sink.write(&[computed(0, 0, 1, gold("BTC-USD", &[(1, 0.5)]))], &CancellationToken::new()).await?;
    let refused = database.open_with(Frame::Rows).await;
    let Err(error @ Error::Frame { .. }) = refused else { panic!("{refused:?}") };
    assert!(!error.is_transient() && error.to_string().contains("give --frame time"), "{error}");
    database.open_with(Frame::Time).await?;
    // A table of an older version gets the frame with which it is first opened.
    database.client.batch_execute(VERSION_6).await?;
    database.open_with(Frame::Rows).await?;
    assert!(matches!(database.open_with(Frame::Time).await, Err(Error::Frame { .. })));
    Ok(())
}

#[tokio::test]
async fn a_database_that_does_not_hold_every_character_is_refused() -> Result<()> {
    let options = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    let Some(database) = database_with("gold_latin", options).await? else { return Ok(()) };
    let refused = database.open().await;
    assert!(
        matches!(&refused, Err(Error::PostgresEncoding { encoding }) if encoding == "LATIN1"),
        "{refused:?}"
    );
    assert!(!refused.unwrap_err().is_transient());
    Ok(())
}

#[tokio::test]
async fn what_is_set_aside_is_a_dead_letter_from_the_moment_that_the_position_passes_it() -> Result<()> {
    let Some(database) = database("gold_aside").await? else { return Ok(()) };
    let mut sink = database.open().await?;
    let aside = |offset| Aside {
        partition: 0,
        offset,
        reason: "bad_symbol",
        symbol: "A\\0".to_owned(),
        candle: "close NaN".to_owned(),
        kafka_time: *schema::gold::TIMES.end(),
    };
    let asides: Arc<[Aside]> = (1..10_000).map(aside).collect();
    let work = GoldBatch { asides, ..computed(0, 0, 10_000, gold("BTC-USD", &[(1, 0.5)])) };
    // At the second attempt the position already covers the rows.
    for _ in 0..2 {
        sink.write(std::slice::from_ref(&work), &CancellationToken::new()).await?;
    }
    let query = "SELECT count(*), min(kafka_offset), max(kafka_offset), min(topic), min(reason), min(key), min(message), \
                 min(kafka_time)::text FROM bitcoin_dead_letters WHERE kafka_partition = 0";
    let row = database.client.query_one(query, &[]).await?;
    assert_eq!((row.get(0), row.get(1), row.get(2)), (9999_i64, 1_i64, 9999_i64));
    let texts: Vec<String> = (3..8).map(|column| row.get(column)).collect();
    assert_eq!(texts[..4], [TOPIC, "bad_symbol", "A\\0", "close NaN"]);
    assert!(texts[4].starts_with("9999-12-31 "), "{}", texts[4]);
    assert_eq!(database.open().await?.state().position, position(&[(0, 10_000)]));
    Ok(())
}

#[tokio::test]
async fn a_transaction_that_takes_longer_than_a_statement_may_is_done_once() -> Result<()> {
    let Some(database) = database("gold_slow").await? else { return Ok(()) };
    let mut sink = database.open().await?.statement_time_max(Duration::from_millis(50));
    let shutdown = CancellationToken::new();
    // Each row takes a millisecond, so a statement with all rows takes much longer than the first limit.
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
                'BEGIN PERFORM pg_sleep(0.001); RETURN NEW; END'; \
                CREATE TRIGGER slow BEFORE INSERT ON bitcoin_gold_data FOR EACH ROW EXECUTE FUNCTION slow()";
    database.client.batch_execute(slow).await?;
    sink.write(&[computed(0, 0, 1, gold("BTC-USD", &numbered(0..400, 1.0)))], &shutdown).await?;
    sink.write(&[computed(0, 1, 2, gold("BTC-USD", &numbered(0..400, 2.0)))], &shutdown).await?;
    let query = "SELECT count(*) FILTER (WHERE volume = 2), count(*) FROM bitcoin_gold_data";
    let row = database.client.query_one(query, &[]).await?;
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (400, 400));
    assert_eq!(sink.state().position, position(&[(0, 2)]));
    Ok(())
}

#[tokio::test]
async fn a_newer_version_of_the_tables_is_refused() -> Result<()> {
    let Some(database) = database("gold_version").await? else { return Ok(()) };
    database.open().await?;
    database.client.execute("INSERT INTO candleflight_version (version) VALUES (1000)", &[]).await?;
    assert!(matches!(database.open().await, Err(Error::PostgresVersion { found: 1000, .. })));
    Ok(())
}

#[tokio::test]
async fn two_processes_may_create_the_tables_at_once() -> Result<()> {
    let Some(database) = database("gold_race").await? else { return Ok(()) };
    let opened = futures::future::join_all((0..4).map(|_| database.open())).await;
    assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    Ok(())
}

#[tokio::test]
async fn a_table_of_the_same_name_that_is_not_ours_is_left_alone() -> Result<()> {
    let Some(database) = database("gold_taken").await? else { return Ok(()) };
    database.client.batch_execute("CREATE TABLE bitcoin_gold_data (price float8)").await?;
    assert!(matches!(database.open().await, Err(Error::PostgresTaken(_))));
    Ok(())
}
