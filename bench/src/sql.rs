//! Queries on bronze and its hot rows through Flight SQL, compared with engines that read the same Parquet files.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use arrow::array::{
    ArrayRef, AsArray, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Float64Type};
use arrow::error::ArrowError;
use arrow_flight::FlightDescriptor;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt as _;
use futures::future::LocalBoxFuture;
use integration_tests::process::{Process, free_port};
use lake::{Lake, Table};
use position::{OffsetRange, Position};
use schema::RangedBatch;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use transport::client::{Client, Login};
use transport::stream::{encode_batch, encode_schema};

use crate::Setting;
use crate::engines::Engines;
use crate::figure::{Aim, Figure};
use crate::kernel::Candles;

const NAME: &str = "sql";
const ENGINES: [&str; 2] = ["DuckDB", "DataFusion"];
/// Topic whose offsets the table counts. No process reads it.
const TOPIC: &str = "bitcoin_data";
/// Symbols in the files. Their candles alternate in one partition.
const SYMBOLS: [&str; 4] = ["BTC-USD", "ETH-USD", "SOL-USD", "XRP-USD"];
/// Symbol of the hot rows. Its own name lets the queries read these rows, and the comparison of the results leave them out.
const HOT_SYMBOL: &str = "HOT-USD";
const HOT_ROWS: usize = 5000;
/// Rows of a commit: about as many as the Flight server flushes at once in a backlog.
const COMMIT_ROWS: usize = 500_000;
/// Runs of a query for each run of the scale. Most queries take milliseconds.
const REPEATS: usize = 5;
/// Longest wait for the hot rows to arrive.
const DEADLINE: Duration = Duration::from_mins(1);
/// Pause between two checks for the hot rows.
const CHECK_PAUSE: Duration = Duration::from_millis(20);
/// Largest relative difference between sums in different orders.
const DIFFERENCE_MAX: f64 = 1e-9;

type SqlClient = FlightSqlServiceClient<InterceptedService<Channel, Login>>;

/// Measures a day's VWAP per hour, a symbol's last rows, and aggregates of all rows.
pub fn measure(setting: &Setting) -> LocalBoxFuture<'_, anyhow::Result<Vec<Figure>>> {
    Box::pin(async move {
        let folder = tempfile::tempdir()?;
        let lake = folder.path().join("lake");
        let bronze = Bronze::generate(setting.scale.rows);
        bronze.commit(lake.to_string_lossy().into_owned()).await.context("write bronze")?;
        let listen = format!("127.0.0.1:{}", free_port()?);
        let variables = [
            ("CANDLEFLIGHT_LAKE", lake.to_string_lossy().into_owned()),
            ("CANDLEFLIGHT_TOPIC", TOPIC.to_owned()),
            ("CANDLEFLIGHT_LISTEN", listen.clone()),
            ("CANDLEFLIGHT_FLIGHT", format!("grpc://{listen}")),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        let arguments = ["flight", "--flush-interval", "1h"];
        let mut flight = Process::start(&arguments, &variables, folder.path().join("flight.log"))?;
        // Its future is not proven to be `Send`, because it polls with an async closure.
        tokio::task::block_in_place(|| Handle::current().block_on(flight.ready()));
        let mut client =
            transport::client::connect(&format!("grpc://{listen}"), &access::Identity::default()).await?;
        bronze.put_hot(&mut client).await.context("put hot rows")?;
        let mut ours = FlightSqlServiceClient::new_from_inner(client);
        let mut engines = Engines::start(&setting.environment)?;
        engines.open(&lake.join("streaming_raw")).await?;

        let mut figures = Vec::new();
        for (what, query) in bronze.queries() {
            let what = format!("SQL on {} rows: {what}", setting.scale.rows);
            figures.push(compare(&mut ours, &mut engines, what, query, setting.scale.runs).await?);
        }
        Ok(figures)
    })
}

fn compare<'a>(
    ours: &'a mut SqlClient,
    engines: &'a mut Engines,
    what: String,
    query: String,
    runs: usize,
) -> LocalBoxFuture<'a, anyhow::Result<Figure>> {
    Box::pin(async move {
        // The first run of each engine also warms its caches.
        let result = run(ours, query.clone()).await.with_context(|| query.clone())?;
        for engine in ENGINES {
            let expected = engines.query(engine, &query).await?.rows;
            check_same(&result, &expected).with_context(|| format!("{engine}: {query}"))?;
        }
        let mut seconds = Vec::new();
        let mut theirs = [Vec::new(), Vec::new()];
        for _ in 0..runs * REPEATS {
            let begun = Instant::now();
            run(ours, query.clone()).await?;
            seconds.push(begun.elapsed().as_secs_f64());
            for (engine, seconds) in ENGINES.iter().zip(&mut theirs) {
                seconds.push(engines.query(engine, &query).await?.seconds);
            }
        }
        let figure = Figure::new(NAME, what, "s", seconds).aim(Aim::TimesLeast(1.2)).note(
            "Ours runs through Flight and reads hot rows as well. Theirs run in process and read only the files. All caches are warm.",
        );
        Ok(ENGINES
            .iter()
            .zip(theirs)
            .fold(figure, |figure, (engine, seconds)| figure.beside(*engine, seconds)))
    })
}

/// Content of bronze: the candles of each symbol.
struct Bronze {
    symbols: Vec<Candles>,
    rows: usize,
}

/// Future row: a symbol, its candles, and an index into them.
type Row<'a> = (&'a str, &'a Candles, usize);

impl Bronze {
    fn generate(rows: usize) -> Bronze {
        let each = rows.div_ceil(SYMBOLS.len());
        let symbols = (0..).take(SYMBOLS.len()).map(|seed| Candles::generate(each, seed)).collect();
        Bronze { symbols, rows }
    }

    /// Writes all rows as the Flight server does in a backlog.
    fn commit(&self, lake: String) -> LocalBoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            let mut table = Table::open(&Lake::open(&lake).await?, lake::bronze(TOPIC)).await?;
            for first in (0..self.rows).step_by(COMMIT_ROWS) {
                let next = (first + COMMIT_ROWS).min(self.rows);
                let batch = self.durable(first..next)?;
                table.append(&[batch], &Position::from_iter([(0, i64::try_from(next)?)])).await?;
            }
            Ok(())
        })
    }

    /// Creates the rows of a range of offsets. The symbols alternate.
    fn durable(&self, offsets: Range<usize>) -> anyhow::Result<RecordBatch> {
        let row = |offset: usize| {
            let symbol = offset % SYMBOLS.len();
            (SYMBOLS[symbol], &self.symbols[symbol], offset / SYMBOLS.len())
        };
        batch(offsets.start, &offsets.map(row).collect::<Vec<_>>())
    }

    /// Creates the hot rows: the newest candles of the first symbol, under a different symbol.
    fn hot(&self) -> anyhow::Result<RecordBatch> {
        let candles = &self.symbols[0];
        let rows = candles.event_times.len().saturating_sub(HOT_ROWS)..candles.event_times.len();
        batch(self.rows, &rows.map(|row| (HOT_SYMBOL, candles, row)).collect::<Vec<_>>())
    }

    /// Puts the hot rows and waits until they have arrived.
    fn put_hot<'a>(&'a self, client: &'a mut Client) -> LocalBoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            let rows = self.hot()?;
            let (first, next) = (i64::try_from(self.rows)?, i64::try_from(self.rows + rows.num_rows())?);
            let descriptor = FlightDescriptor::new_path(vec![proto::BRONZE.to_owned()]);
            let mut messages = vec![encode_schema(&rows.schema()).with_descriptor(descriptor)];
            let range = OffsetRange { partition: 0, first, next };
            messages.extend(encode_batch(&RangedBatch { range, rows })?);
            let _answers = transport::client::put(client, futures::stream::iter(messages)).await?;
            let deadline = Instant::now() + DEADLINE;
            while transport::client::progress(client).await?.received.next(0) != Some(next) {
                ensure!(Instant::now() < deadline, "the hot rows have not arrived");
                sleep(CHECK_PAUSE).await;
            }
            Ok(())
        })
    }

    fn queries(&self) -> [(&'static str, String); 3] {
        let symbol = SYMBOLS[0];
        let times = &self.symbols[0].event_times;
        let date = Date32Type::to_naive_date_opt(schema::date_of(times[times.len() / 2]));
        let date = date.expect("a random walk does not leave the calendar");
        [
            (
                "a day's VWAP per hour",
                format!(
                    "SELECT date_trunc('hour', event_time) AS hour, sum(close * volume) / sum(volume) AS vwap FROM bronze \
                     WHERE symbol = '{symbol}' AND date = DATE '{date}' GROUP BY 1 ORDER BY 1"
                ),
            ),
            (
                "the last 1,000 rows of a symbol",
                format!(
                    "SELECT event_time, close, volume FROM bronze WHERE symbol = '{symbol}' ORDER BY event_time DESC LIMIT 1000"
                ),
            ),
            (
                "aggregates of all rows by symbol",
                "SELECT symbol, count(*), min(low), max(high), avg(close), sum(volume) FROM bronze GROUP BY symbol ORDER BY symbol"
                    .to_owned(),
            ),
        ]
    }
}

fn batch(first_offset: usize, rows: &[Row<'_>]) -> anyhow::Result<RecordBatch> {
    let float = |of: fn(&Candles, usize) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|(_, candles, row)| of(candles, *row))))
    };
    let time = || rows.iter().map(|(_, candles, row)| candles.event_times[*row]);
    let micros =
        || -> ArrayRef { Arc::new(TimestampMicrosecondArray::from_iter_values(time()).with_timezone("UTC")) };
    let open = |candles: &Candles, row: usize| candles.closes[row.saturating_sub(1)];
    let first = i64::try_from(first_offset)?;
    let offsets = (first..).take(rows.len());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(symbol, ..)| symbol))),
        micros(),
        float(open),
        float(|candles, row| candles.closes[row].max(candles.closes[row.saturating_sub(1)])),
        float(|candles, row| candles.closes[row].min(candles.closes[row.saturating_sub(1)])),
        float(|candles, row| candles.closes[row]),
        float(|candles, row| candles.volumes[row]),
        Arc::new(Int32Array::from_value(0, rows.len())),
        Arc::new(Int64Array::from_iter_values(offsets)),
        micros(),
        Arc::new(Date32Array::from_iter_values(time().map(schema::date_of))),
    ];
    Ok(RecordBatch::try_new(schema::bronze::schema(), columns)?)
}

fn run(client: &mut SqlClient, query: String) -> LocalBoxFuture<'_, anyhow::Result<Vec<RecordBatch>>> {
    Box::pin(async move {
        let info = client.execute(query, None).await?;
        let ticket = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket);
        Ok(client.do_get(ticket.context("an endpoint without a ticket")?).await?.try_collect().await?)
    })
}

/// Compares a result with the result of another engine, which has read only the files.
fn check_same(ours: &[RecordBatch], theirs: &[Vec<Value>]) -> anyhow::Result<()> {
    let mut rows = ours.iter().map(rows).collect::<anyhow::Result<Vec<_>>>()?.concat();
    rows.retain(|row| row[0] != HOT_SYMBOL);
    ensure!(rows.len() == theirs.len(), "{} rows, not {}", rows.len(), theirs.len());
    for (row, expected) in rows.iter().zip(theirs) {
        let is_same = |(ours, theirs): (&Value, &Value)| match (ours.as_f64(), theirs.as_f64()) {
            (Some(ours), Some(theirs)) => (ours - theirs).abs() <= DIFFERENCE_MAX * theirs.abs(),
            _ => ours == theirs,
        };
        ensure!(row.iter().zip(expected).all(is_same), "{row:?} is not {expected:?}");
    }
    Ok(())
}

/// Returns the rows with all numbers as floats, and times in microseconds.
fn rows(batch: &RecordBatch) -> anyhow::Result<Vec<Vec<Value>>> {
    let floats = |column: &ArrayRef| -> Result<Vec<Value>, ArrowError> {
        Ok(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().iter().map(Value::from).collect())
    };
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8 => Ok(column.as_string::<i32>().iter().map(Value::from).collect()),
        DataType::Timestamp(..) => floats(&cast(&cast(column, &schema::timestamp())?, &DataType::Int64)?),
        _ => floats(column),
    });
    let columns: Vec<Vec<Value>> = columns.collect::<Result<_, _>>()?;
    Ok((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect())
}
