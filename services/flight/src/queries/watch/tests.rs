//! Queries that would compute for hours. A test stops each one while it computes.

use std::sync::Arc;
use std::time::Duration;

use access::{Caller, Role};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{CatalogProvider as _, CatalogProviderList as _};
use datafusion::catalog::{MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider};
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::catalog::schemas::{CATALOG, PUBLIC};
use crate::catalog::template;
use crate::error::CallError;
use crate::metrics::Metrics;
use crate::queries::{Plan, Purpose, Queries};

/// Rows of `small`: one batch, so that the table is read before the query computes anything.
const SMALL: i64 = 8_192;
/// Rows of `large`.
const LARGE: i64 = 128 * SMALL;
/// Longest time for a query to start its computation, and to end after it is stopped. On an idle machine the end takes a fraction of a
/// second.
const DEADLINE: Duration = Duration::from_mins(1);

/// Table of numbers that counts the batches read from all tables of a query.
#[derive(Debug)]
struct Numbers {
    rows: i64,
    schema: SchemaRef,
    read: watch::Sender<usize>,
}

impl PartitionStream for Numbers {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (rows, schema, read) = (self.rows, Arc::clone(&self.schema), self.read.clone());
        let batches = (0..rows).step_by(usize::try_from(SMALL).unwrap()).map(move |first| {
            let numbers = first..first + SMALL;
            let ones = Int64Array::from_iter_values(numbers.clone().map(|_| 1));
            let texts = StringArray::from_iter_values(numbers.clone().map(|number| number.to_string()));
            let columns: [ArrayRef; 3] =
                [Arc::new(Int64Array::from_iter_values(numbers)), Arc::new(ones), Arc::new(texts)];
            read.send_modify(|read| *read += 1);
            Ok(RecordBatch::try_new(Arc::clone(&schema), columns.into()).unwrap())
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), futures::stream::iter(batches)))
    }
}

fn queries() -> Queries {
    Queries::new(service::defaults().unwrap(), Metrics::new(&service::metrics::Metrics::default())).unwrap()
}

/// Returns a session as clients have it, with the tables `large` and `small`, and a receiver of the number of batches read.
fn session(queries: &Queries) -> (SessionContext, watch::Receiver<usize>) {
    let (read, receiver) = watch::channel(0);
    let fields = [("n", DataType::Int64), ("one", DataType::Int64), ("text", DataType::Utf8)];
    let schema: SchemaRef =
        Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, true)).to_vec()));
    let public = MemoryCatalogProvider::new();
    public.register_schema(PUBLIC, Arc::new(MemorySchemaProvider::new())).unwrap();
    let catalogs = MemoryCatalogProviderList::new();
    catalogs.register_catalog(CATALOG.to_owned(), Arc::new(public));
    let mut state = template(queries);
    state.register_catalog_list(Arc::new(catalogs));
    let session = SessionContext::new_with_state(state);
    for (name, rows) in [("large", LARGE), ("small", SMALL)] {
        let numbers = Numbers { rows, schema: Arc::clone(&schema), read: read.clone() };
        let table = StreamingTable::try_new(Arc::clone(&schema), vec![Arc::new(numbers)]).unwrap();
        session.register_table(name, Arc::new(table)).unwrap();
    }
    (session, receiver)
}

fn plan(session: SessionContext, text: &'static str) -> Plan {
    Box::pin(async move { Ok(session.sql(text).await?.into()) })
}

fn caller() -> Caller {
    Caller { user: "ada".into(), role: Role::Reader }
}

/// Queries: the number of batches read before the query computes, a name, and the SQL text.
const SHAPES: [(usize, &str, &str); 22] = [
    (129, "a join that finds nothing", "SELECT count(*) FROM large a JOIN small b ON a.n + b.n < 0"),
    (129, "an outer join of nothing", "SELECT count(*) FROM large a FULL JOIN small b ON a.n + b.n < 0"),
    (
        129,
        "rows without others",
        "SELECT count(*) FROM large a WHERE NOT EXISTS (SELECT 1 FROM small b WHERE a.n + b.n < 0)",
    ),
    (129, "a filter on all pairs", "SELECT a.n FROM large a, small b WHERE abs(a.n - b.n) < 0"),
    (129, "all pairs", "SELECT sum(a.n * b.n) FROM large a CROSS JOIN small b"),
    (129, "all triples", "SELECT count(*) FROM large a, small b, small c WHERE a.n + b.n + c.n < 0"),
    (
        129,
        "equal keys and a filter",
        "SELECT count(*) FROM large a JOIN small b ON a.one = b.one AND a.n + b.n < 0",
    ),
    (129, "equal keys", "SELECT max(a.n + b.n) FROM large a JOIN small b ON a.one = b.one"),
    (129, "rows in others", "SELECT * FROM large WHERE one IN (SELECT one FROM small)"),
    (2, "few rows in others", "SELECT count(*) FROM small WHERE one IN (SELECT one FROM large)"),
    (2, "rows not in others", "SELECT count(*) FROM small WHERE one NOT IN (SELECT one FROM large)"),
    (2, "rows in others, or not", "SELECT count(*) FROM small WHERE one IN (SELECT one FROM large) OR n = 5"),
    (129, "all pairs, sorted", "SELECT a.n FROM large a, small b ORDER BY a.n * b.n"),
    (129, "all pairs, grouped", "SELECT (a.n * b.n) % 7, count(*) FROM large a, small b GROUP BY 1"),
    (
        128,
        "a window of many rows",
        "SELECT median(n) OVER (ORDER BY one, n ROWS BETWEEN 500000 PRECEDING AND CURRENT ROW) FROM large",
    ),
    (129, "a window over all pairs", "SELECT sum(a.n) OVER (ORDER BY a.one) FROM large a, small b"),
    (
        1,
        "recursion",
        "WITH RECURSIVE t(n) AS (SELECT max(n) FROM small UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
    ),
    (1, "a series", "SELECT sum(value * n) FROM small, generate_series(1, 1000000000000) s(value)"),
    (
        1,
        "patterns",
        "SELECT count(*) FROM small WHERE regexp_like(text, concat('^(\\pL{1,8}){1,12}', text, '$'))",
    ),
    (
        1,
        "operators on patterns",
        "SELECT count(*) FROM small WHERE text ~ ('^(\\pL{1,8}){1,12}' || text || '$')",
    ),
    (1, "texts compared", "SELECT sum(levenshtein(repeat(text, 2000), repeat('x', 8000))) FROM small"),
    (129, "long texts", "SELECT max(length(repeat(concat(a.text, b.text), 1000))) FROM large a, small b"),
];

/// Runs a query to its end.
async fn drain(queries: Queries, session: SessionContext, text: &'static str) -> Result<(), CallError> {
    let plan = plan(session, text);
    let answer = queries.run(Purpose::Query, &caller(), Uuid::new_v4(), text, plan).await?;
    answer.batches.try_for_each(async |_| Ok(())).await
}

async fn stop(batches: usize, name: &str, text: &'static str) {
    let queries = queries();
    let (session, mut read) = session(&queries);
    let running = SpawnedTask::spawn(drain(queries.clone(), session, text));
    let begun = timeout(DEADLINE, read.wait_for(|read| *read >= batches)).await;
    begun.unwrap_or_else(|_| panic!("{name}: its tables are not read")).unwrap();
    let begun = Instant::now();
    queries.running().first().unwrap_or_else(|| panic!("{name}: it has ended by itself")).cancel();
    let ended: Result<(), CallError> = running.join().await.unwrap();
    assert!(matches!(ended, Err(CallError::Cancelled)), "{name}: {ended:?}");
    let free = async {
        while queries.engine.tasks() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, free).await.unwrap_or_else(|_| panic!("{name}: it goes on"));
    eprintln!("{:8.1} ms  {name}", begun.elapsed().as_secs_f64() * 1e3);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_query_computes_it_stops_when_it_is_cancelled() {
    for (batches, name, text) in SHAPES {
        stop(batches, name, text).await;
    }
}

#[tokio::test]
async fn a_query_whose_client_is_gone_or_whose_time_is_up_stops() {
    let (batches, _, text) = SHAPES[0];
    let queries = queries();
    let (session, mut read) = session(&queries);
    tokio::select! {
        _ = drain(queries.clone(), session, text) => panic!("it ends by itself"),
        begun = timeout(DEADLINE, read.wait_for(|read| *read >= batches)) => {
            begun.unwrap().unwrap();
        }
    }
    let free = async {
        while queries.engine.tasks() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, free).await.unwrap();
}

#[tokio::test]
async fn rows_that_a_window_collects_count_as_memory() {
    let mut limits: crate::queries::Limits = service::defaults().unwrap();
    limits.query_memory_max = 8 << 20;
    let queries = Queries::new(limits, Metrics::new(&service::metrics::Metrics::default())).unwrap();
    for text in [
        "SELECT sum(n) OVER () FROM large",
        "SELECT count(array) FROM (SELECT array_agg(n) OVER (ORDER BY n) AS array FROM small)",
    ] {
        let (session, _) = session(&queries);
        let ended = drain(queries.clone(), session, text).await;
        assert!(matches!(ended, Err(CallError::NoMemory(_))), "{text}: {ended:?}");
    }
}
