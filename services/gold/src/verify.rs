//! `candleflight verify`: computes gold again from bronze and compares both sinks with it, bit by bit.
//!
//! Each sink is read in one snapshot, with the position that it says it has reached, and bronze up to exactly there: so it works on
//! a pipeline that runs.

mod bronze;
mod compare;
mod report;

use arrow::array::{ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use deadpool_postgres::{Object, Transaction};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt, TryStreamExt};
use lake::{Lake, Table};
use position::Position;
use schema::gold::COMPUTED_AT;
use schema::{DATE, EVENT_TIME, SYMBOL};
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::connection::{Postgres, connect};
use crate::error::Error;
use crate::kernel::Frame;
use crate::sink::{lake as lake_sink, postgres};
use crate::verify::bronze::Bronze;
pub use crate::verify::report::{Difference, Report, TableReport};

/// Rows that are taken from PostgreSQL together.
const BATCH_ROWS: usize = 8192;

/// The flags of `candleflight verify`.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "verify")]
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
    /// The Kafka topic that bronze comes from.
    #[arg(long, env = "CANDLEFLIGHT_TOPIC", default_value = "bitcoin_data")]
    pub topic: String,
    /// What a window of length w counts [default: as gold has recorded it]
    #[arg(long, env = "CANDLEFLIGHT_FRAME", value_enum)]
    pub frame: Option<Frame>,
    /// Who it is to the Flight server.
    #[command(flatten)]
    pub access: access::Client,
}

/// Compares PostgreSQL and the lake with what bronze says they should hold.
///
/// # Errors
///
/// [`Error`] when one of them cannot be read; differences are no error.
pub fn run(config: &Config) -> BoxFuture<'_, Result<Report, Error>> {
    Box::pin(async move {
        let mut client = connect(&config.postgres.pool()?).await?;
        let frame = frame(config, &mut client).await?;
        let postgres = verify_postgres(config, frame, &mut client).await?;
        Ok(Report { tables: vec![postgres, verify_lake(config, frame).await?] })
    })
}

/// Returns the frame that gold's rows are of.
async fn frame(config: &Config, client: &mut Object) -> Result<Frame, Error> {
    match (postgres::frame::read(client, &config.topic).await?, config.frame) {
        (Some(recorded), Some(given)) if recorded != given => Err(Error::Frame { recorded, given }),
        (recorded, given) => Ok(recorded.or(given).unwrap_or(Frame::Time)),
    }
}

async fn verify_postgres(config: &Config, frame: Frame, client: &mut Object) -> Result<TableReport, Error> {
    let transaction = postgres::snapshot(client).await?;
    let position = postgres::read_position(&transaction, &config.topic).await?;
    let bronze = Bronze::read(&config.flight, &config.access, &position).await?;
    let found = read_postgres(&transaction).await?;
    report("PostgreSQL", frame, position, bronze, found).await
}

async fn verify_lake(config: &Config, frame: Frame) -> Result<TableReport, Error> {
    let failed = Error::lake("open");
    let lake = Lake::open(&config.lake).await.map_err(&failed)?;
    let snapshot = Table::open(&lake, lake::gold(&config.topic)).await.map_err(&failed)?.snapshot();
    let position = snapshot.position().clone();
    let bronze = Bronze::read(&config.flight, &config.access, &position).await?;
    let (session, table) = lake_sink::session(snapshot)?;
    let query = format!("SELECT {} FROM {table} ORDER BY {SYMBOL}, {EVENT_TIME}", columns().join(", "));
    let found = session.sql(&query).await?.execute_stream().await?.map_err(Error::from);
    report("lake", frame, position, bronze, found).await
}

async fn report(
    name: &'static str,
    frame: Frame,
    position: Position,
    bronze: Bronze,
    found: impl Stream<Item = Result<RecordBatch, Error>> + Send,
) -> Result<TableReport, Error> {
    let mut report =
        TableReport { name, position, offset_faults: bronze.faults.clone(), ..TableReport::default() };
    report.bronze_rows = bronze.rows;
    report.aside_rows = bronze.asides;
    compare::compare(bronze.into_gold(frame), found, &mut report).await?;
    Ok(report)
}

/// Names the columns that are compared: all but the time of computing, and the date, which is made of the event time.
fn columns() -> Vec<String> {
    let schema = schema::gold::schema();
    let names = schema.fields().iter().map(|field| field.name().clone());
    names.filter(|name| name != COMPUTED_AT && name != DATE).collect()
}

/// Keeps the columns of a gold batch that are compared.
fn project(batch: &RecordBatch) -> RecordBatch {
    let indices: Vec<usize> =
        columns().iter().filter_map(|name| batch.schema_ref().index_of(name).ok()).collect();
    batch.project(&indices).expect("the indices are the batch's own")
}

async fn read_postgres<'a>(
    transaction: &'a Transaction<'_>,
) -> Result<impl Stream<Item = Result<RecordBatch, Error>> + Send + use<'a>, Error> {
    let failed = Error::postgres("read gold");
    let table = postgres::TABLE;
    let query = format!("SELECT {} FROM {table} ORDER BY {SYMBOL}, {EVENT_TIME}", columns().join(", "));
    let rows =
        transaction.query_typed_raw(&query, std::iter::empty::<(&str, Type)>()).await.map_err(&failed)?;
    Ok(rows.try_chunks(BATCH_ROWS).map(move |rows| match rows {
        Ok(rows) => decode(&rows).map_err(&failed),
        Err(error) => Err(failed(error.1)),
    }))
}

fn decode(rows: &[Row]) -> Result<RecordBatch, tokio_postgres::Error> {
    let expected = project(&RecordBatch::new_empty(schema::gold::schema())).schema();
    let column =
        |(index, field): (usize, &arrow::datatypes::FieldRef)| -> Result<ArrayRef, tokio_postgres::Error> {
            Ok(match field.data_type() {
                DataType::Utf8 => {
                    Arc::new(rows.iter().map(|row| row.try_get::<_, Option<&str>>(index)).collect::<Result<
                        StringArray,
                        _,
                    >>(
                    )?)
                }
                DataType::Int32 => {
                    Arc::new(rows.iter().map(|row| row.try_get::<_, Option<i32>>(index)).collect::<Result<
                        Int32Array,
                        _,
                    >>(
                    )?)
                }
                DataType::Float64 => {
                    Arc::new(rows.iter().map(|row| row.try_get::<_, Option<f64>>(index)).collect::<Result<
                        Float64Array,
                        _,
                    >>(
                    )?)
                }
                DataType::Timestamp(..) => {
                    let micros = rows.iter().map(|row| {
                        Ok(row.try_get::<_, Option<postgres::Micros>>(index)?.map(|micros| micros.0))
                    });
                    Arc::new(
                        micros
                            .collect::<Result<TimestampMicrosecondArray, tokio_postgres::Error>>()?
                            .with_timezone("UTC"),
                    )
                }
                other => unreachable!("gold has no column of type {other}"),
            })
        };
    let columns = expected.fields().iter().enumerate().map(column).collect::<Result<_, _>>()?;
    Ok(RecordBatch::try_new(expected, columns)
        .expect("the columns are those of the schema, none of them nullable but as declared"))
}
