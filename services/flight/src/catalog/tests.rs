//! Tests of queries as clients write them, on a server with its own tables.

use std::sync::Arc;

use access::{Caller, Role};
use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt as _;
use lake::Lake;
use position::OffsetRange;
use schema::RangedBatch;
use service::status::Status;
use uuid::Uuid;

use super::Catalog;
use crate::bronze::buffer::HotBuffer;
use crate::bronze::buffer::tests::{rows, table};
use crate::error::CallError;
use crate::gold::table::GoldTable;
use crate::metrics::Metrics;
use crate::queries::{Purpose, Queries};
use crate::request::RequestContext;
use crate::sql::prepared::Query;
use crate::sql::session::Session;
use crate::sql::{Sql, names};

/// A server with three candles in bronze and none in gold.
pub(crate) struct Server {
    _folder: tempfile::TempDir,
    pub(crate) sql: Sql,
}

impl Server {
    pub(crate) async fn new() -> Server {
        let folder = tempfile::tempdir().unwrap();
        let hot = Arc::new(HotBuffer::new(table(&folder).await.snapshot()));
        let range = OffsetRange { partition: 0, first: 0, next: 3 };
        hot.push(&RangedBatch { range, rows: rows(0, &[0, 1, 2]) }).unwrap();
        let lake = Lake::open(folder.path().to_str().unwrap()).await.unwrap();
        let gold = Arc::new(GoldTable::new(lake, "candles".to_owned()));
        let metrics = service::metrics::Metrics::default();
        let queries = Queries::new(service::defaults().unwrap(), Metrics::new(&metrics)).unwrap();
        let status = Status::new("flight", metrics, service::status::Events::default());
        let catalog = Arc::new(Catalog::new(hot, gold, status, queries.clone()));
        Server { _folder: folder, sql: Sql { catalog, queries } }
    }

    async fn query(&self, text: &str) -> Result<(Vec<String>, Vec<RecordBatch>), CallError> {
        let caller = Caller { user: "ada".into(), role: Role::Reader };
        let context = RequestContext { caller: caller.clone(), session: Session::default() };
        let (catalog, query) = (Arc::clone(&self.sql.catalog), Query::Sql(text.to_owned()));
        let plan = Box::pin(async move { Ok(catalog.plan(&context, &query).await?.into()) });
        let answer = self.sql.queries.run(Purpose::Query, &caller, Uuid::new_v4(), text, plan).await?;
        let names = answer.schema.fields().iter().map(|field| field.name().clone()).collect();
        Ok((names, answer.batches.try_collect().await?))
    }
}

/// Returns each row as a line, its values joined by spaces.
pub(crate) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default();
    let line = |batch: &RecordBatch, row: usize| {
        let values = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).unwrap().value(row).to_string());
        values.collect::<Vec<_>>().join(" ")
    };
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| line(batch, row))).collect()
}

/// The expected names and first rows are those of PostgreSQL 17.
#[tokio::test]
async fn columns_of_a_result_may_have_one_name() {
    let server = Server::new().await;
    for (text, names, first) in [
        ("SELECT 1, 1", "?column? ?column?", Some("1 1")),
        ("SELECT close, close FROM bronze", "close close", Some("1.0 1.0")),
        ("SELECT avg(close), avg(close) FROM bronze", "avg avg", Some("1.0 1.0")),
        ("SELECT count(*), count(*) FROM bronze", "count count", Some("3 3")),
        ("SELECT close, CAST(close AS decimal(18,2)) FROM bronze LIMIT 5", "close close", Some("1.0 1.00")),
        (
            "SELECT kafka_offset, close AS kafka_offset FROM bronze",
            "kafka_offset kafka_offset",
            Some("0 1.0"),
        ),
        (
            "SELECT CAST(kafka_offset AS varchar), close FROM bronze ORDER BY kafka_offset DESC LIMIT 5",
            "kafka_offset close",
            Some("2 1.0"),
        ),
        (
            "SELECT symbol::text, sum(volume) AS volume FROM bronze GROUP BY symbol ORDER BY symbol",
            "symbol volume",
            Some("BTC-USD 3.0"),
        ),
        (
            "SELECT CAST(event_time AS varchar), close FROM gold ORDER BY event_time DESC LIMIT 5",
            "event_time close",
            None,
        ),
        (
            "SELECT a.close, b.close FROM bronze a JOIN bronze b USING (kafka_offset)",
            "close close",
            Some("1.0 1.0"),
        ),
        (
            "SELECT * FROM (SELECT kafka_offset, kafka_offset FROM bronze) t ORDER BY 1 DESC",
            "kafka_offset kafka_offset",
            Some("2 2"),
        ),
        ("WITH t AS (SELECT 1 AS a, 2 AS a) SELECT * FROM t", "a a", Some("1 2")),
        ("SELECT 1, 1 UNION ALL SELECT 2, 2 ORDER BY 1", "?column? ?column?", Some("1 1")),
        (
            "SELECT event_time::date FROM bronze ORDER BY date_trunc('hour', event_time) DESC",
            "event_time",
            Some("1970-01-01"),
        ),
        ("SELECT close FROM (SELECT close::int FROM bronze) t", "close", Some("1")),
        ("SELECT max(close)::int, max(close) FROM bronze HAVING max(close) > 0", "max max", Some("1 1.0")),
        (
            "SELECT symbol, upper(symbol), upper(symbol) FROM bronze",
            "symbol upper upper",
            Some("BTC-USD BTC-USD BTC-USD"),
        ),
    ] {
        let (given, rows) = server.query(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(given.join(" "), names, "{text}");
        assert_eq!(lines(&rows).first().map(String::as_str), first, "{text}");
    }
}

#[tokio::test]
async fn a_column_may_stand_beside_all() {
    let server = Server::new().await;
    let bronze =
        schema::bronze::schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    for (text, more) in [
        ("SELECT *, close FROM bronze LIMIT 5", vec!["close"]),
        ("SELECT *, close AS open FROM bronze ORDER BY kafka_offset", vec!["open"]),
        ("SELECT *, close * 2 AS double FROM bronze ORDER BY double", vec!["double"]),
        ("SELECT a.*, a.close, a.close FROM bronze a", vec!["close", "close"]),
    ] {
        let (given, rows) = server.query(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            given,
            [&bronze[..], &more.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()].concat()
        );
        assert_eq!(lines(&rows).len(), 3, "{text}");
    }
    let (given, rows) =
        server.query("SELECT a.*, b.* FROM bronze a JOIN bronze b USING (kafka_offset)").await.unwrap();
    assert_eq!((given, lines(&rows).len()), ([&bronze[..], &bronze[..]].concat(), 3));
}

/// Names that differ keep their meaning.
#[tokio::test]
async fn names_that_differ_are_left_alone() {
    let server = Server::new().await;
    for (text, names) in [
        ("SELECT avg(close), avg(open) FROM bronze", "avg(bronze.close) avg(bronze.open)"),
        ("SELECT a.close, b.open FROM bronze a, bronze b", "close open"),
        (
            "SELECT symbol, count(*) AS n FROM bronze GROUP BY symbol HAVING count(*) > 1 ORDER BY n",
            "symbol n",
        ),
    ] {
        assert_eq!(server.query(text).await.unwrap().0.join(" "), names, "{text}");
    }
    assert!(!format!("{:?}", names::given(&schema::gold::schema())).contains('\u{1}'));
}

#[tokio::test]
async fn a_function_refuses_to_make_what_would_fill_the_memory() {
    let server = Server::new().await;
    for text in [
        "SELECT repeat('x', 2000000000)",
        "SELECT length(repeat(symbol, 100000000)) FROM bronze",
        "SELECT lpad(symbol, 2000000000, 'ab') FROM bronze",
        "SELECT rpad('x', 1000000000)",
        "SELECT replace(repeat('x', 100000), 'x', repeat('y', 100000))",
        "SELECT levenshtein(repeat('x', 100000), repeat('y', 100000))",
        "SELECT regexp_replace(repeat('x', 100000), 'x', repeat('y', 100000), 'g')",
        "SELECT repeat(arrow_cast(symbol, 'Dictionary(Int32, Utf8)'), 100000000) FROM bronze",
    ] {
        let error = server.query(text).await.err().unwrap_or_else(|| panic!("{text}: it is answered"));
        assert!(error.to_string().contains("are allowed"), "{text}: {error}");
    }
    let text = "SELECT length(repeat(symbol, 1000)), lpad('7', 3, '0'), replace(symbol, '-', '/'), levenshtein('ab', 'b') FROM bronze";
    let (_, rows) = server.query(text).await.unwrap();
    assert_eq!(lines(&rows)[0], "7000 007 BTC/USD 1");
}

/// Each text would need a plan of gigabytes, or of more steps than planning can finish.
#[tokio::test]
async fn a_short_text_may_not_stand_for_a_plan_without_end() {
    let server = Server::new().await;
    let many =
        |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(", ");
    let laughs = (1..16).map(|level| {
        let tables = many(10, &|number| format!("t{} a{number}", level - 1));
        format!(", t{level} AS (SELECT a0.n FROM {tables})")
    });
    for (text, what) in [
        (format!("SELECT 1 FROM {}", many(20_000, &|number| format!("bronze a{number}"))), "tables"),
        (format!("SELECT {}", many(100_000, &|number| format!("1 a{number}"))), "columns in its lists"),
        (
            format!("WITH t0 AS (SELECT 1 AS n){} SELECT count(*) FROM t15", laughs.collect::<String>()),
            "tables",
        ),
        (
            format!(
                "SELECT count(*) FROM bronze GROUP BY CUBE ({})",
                many(12, &|number| format!("close + {number}"))
            ),
            "grouping sets",
        ),
    ] {
        let error = server.query(&text).await.err().unwrap_or_else(|| panic!("{text:.60}: it is answered"));
        assert!(error.to_string().contains(what), "{text:.60}: {error}");
    }
}

/// The engine once allocated memory for each of these numbers.
#[tokio::test]
async fn a_large_number_allocates_nothing() {
    let server = Server::new().await;
    for text in [
        "SELECT symbol, max(close) FROM bronze GROUP BY symbol ORDER BY max(close) DESC LIMIT 100000000000000",
        "SELECT DISTINCT symbol FROM bronze ORDER BY symbol LIMIT 100000000000000",
        "SELECT close FROM bronze ORDER BY close LIMIT 100000000000000",
        "SELECT lag(close, 100000000000000) OVER (ORDER BY kafka_offset) FROM bronze",
        "SELECT nth_value(close, 100000000000000) OVER (ORDER BY kafka_offset) FROM bronze",
        "SELECT ntile(100000000000000) OVER (ORDER BY kafka_offset) FROM bronze",
    ] {
        server.query(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    let text = "SELECT approx_percentile_cont(close, 0.5, 1000000 * 10000000) FROM bronze";
    let Err(error) = server.query(text).await else { panic!("it must be refused: {text}") };
    assert!(error.to_string().contains("centroids"), "{error}");
}
