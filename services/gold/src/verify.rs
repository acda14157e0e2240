//! `candleflight verify`: compares bronze with the topic, and both sinks with the gold that follows from bronze, bit by bit.
//!
//! Each sink and its recorded position are read in one snapshot. Bronze is read up to exactly that position, so verify works on a running
//! pipeline. Separate code computes the expected rows. Verify shares only two parts with the services: the reading of Flight streams, Delta
//! tables and PostgreSQL, and the names and bounds of [`schema`].

mod bronze;
mod compare;
pub(crate) mod reference;
mod report;
mod topic;

use arrow::array::{ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use deadpool_postgres::{Object, Transaction};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use lake::{Lake, Table};
use position::Position;
use schema::gold::COMPUTED_AT;
use schema::{DATE, EVENT_TIME, SYMBOL};
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::connection::{Postgres, connect};
use crate::error::Error;
use crate::sink::{lake as lake_sink, postgres};
use crate::verify::bronze::Bronze;
use crate::verify::reference::Reference;
pub use crate::verify::report::{Difference, Report, TableReport, TopicReport};
use kernel::Frame;

/// Maximum number of rows that are fetched from PostgreSQL at once.
const BATCH_ROWS: usize = 8192;

/// Flags of `candleflight verify`.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "verify")]
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
    /// The source topic of bronze, and the Kafka cluster that holds it.
    #[command(flatten)]
    pub kafka: kafka::Args,
    /// Topic of the dead letters (unusable messages) [default: the name of the topic with the suffix _dlq].
    #[arg(long, env = "CANDLEFLIGHT_DEAD_LETTER_TOPIC", value_name = "TOPIC")]
    pub dead_letter_topic: Option<String>,
    /// Do not read the topic, for example because Kafka is gone. Rows that are missing from bronze are then not detected.
    #[arg(long)]
    pub no_topic: bool,
    /// Window definition. Must match the running gold service [default: the one that gold has recorded].
    #[arg(long, env = "CANDLEFLIGHT_FRAME", value_enum)]
    pub frame: Option<Frame>,
    /// Longest time that bronze may make no progress before verify reports a sink that is ahead of it.
    #[arg(long, env = "CANDLEFLIGHT_VERIFY_PATIENCE", default_value = "30s", value_parser = service::duration)]
    pub patience: Duration,
    /// Credentials for the Flight server.
    #[command(flatten)]
    pub access: access::Identity,
}

/// Compares bronze with the topic, and PostgreSQL and the lake with the gold that follows from bronze.
///
/// # Errors
///
/// [`Error`] if one of them cannot be read. Differences are not errors.
pub fn run(config: &Config) -> BoxFuture<'_, Result<Report, Error>> {
    Box::pin(async move {
        let mut client = connect(&config.postgres.pool()?).await?;
        let frame = frame(config, &mut client).await?;
        let mut bronze = Bronze::connect(config).await?;
        let topic = if config.no_topic { None } else { Some(topic::compare(config, &mut bronze).await?) };
        let postgres = verify_postgres(config, frame, &mut bronze, &mut client).await?;
        let lake = verify_lake(config, frame, &mut bronze).await?;
        Ok(Report { topic, tables: vec![postgres, lake] })
    })
}

/// Returns the frame of gold's rows.
async fn frame(config: &Config, client: &mut Object) -> Result<Frame, Error> {
    match (postgres::frame::read(client, &config.kafka.topic).await?, config.frame) {
        (Some(recorded), Some(given)) if recorded != given => Err(Error::Frame { recorded, given }),
        (recorded, given) => Ok(recorded.or(given).unwrap_or(Frame::Time)),
    }
}

async fn verify_postgres(
    config: &Config,
    frame: Frame,
    bronze: &mut Bronze,
    client: &mut Object,
) -> Result<TableReport, Error> {
    let transaction = postgres::snapshot(client).await?;
    let position = postgres::read_position(&transaction, &config.kafka.topic).await?;
    let report = TableReport { name: "PostgreSQL", position, ..TableReport::default() };
    verify(bronze, frame, report, async || Ok(read_postgres(&transaction).await?.boxed())).await
}

async fn verify_lake(config: &Config, frame: Frame, bronze: &mut Bronze) -> Result<TableReport, Error> {
    let failed = Error::lake("open");
    let lake = Lake::open(&config.lake).await.map_err(&failed)?;
    let snapshot = Table::open(&lake, lake::gold(&config.kafka.topic)).await.map_err(&failed)?.snapshot();
    let position = snapshot.position().clone();
    let report = TableReport { name: "lake", position, ..TableReport::default() };
    verify(bronze, frame, report, async || {
        let (session, table) = lake_sink::session(snapshot)?;
        let query = format!("SELECT {} FROM {table} ORDER BY {SYMBOL}, {EVENT_TIME}", columns().join(", "));
        Ok(session.sql(&query).await?.execute_stream().await?.map_err(Error::from).boxed())
    })
    .await
}

/// Compares a sink with the gold that follows from bronze up to the sink's position.
async fn verify<'a>(
    bronze: &mut Bronze,
    frame: Frame,
    mut report: TableReport,
    read: impl AsyncFnOnce() -> Result<BoxStream<'a, Result<RecordBatch, Error>>, Error>,
) -> Result<TableReport, Error> {
    if let Some(received) = bronze.await_position(&report.position).await? {
        report.behind = Some(received);
        return Ok(report);
    }
    let mut reference = Reference::default();
    let until = report.position.clone();
    let reading = bronze.read(&Position::default(), &until, |batch| reference.push(batch)).await?;
    (report.bronze_rows, report.offset_faults) = (reading.rows, reading.faults);
    report.aside_rows = reference.asides;
    compare::compare(reference.into_gold(frame), read().await?, &mut report).await?;
    Ok(report)
}

/// Returns the names of the compared columns: all but the computing time and the date, which derives from the event time.
fn columns() -> Vec<String> {
    let schema = schema::gold::schema();
    let names = schema.fields().iter().map(|field| field.name().clone());
    names.filter(|name| name != COMPUTED_AT && name != DATE).collect()
}

/// Projects a gold batch to the compared columns.
pub(crate) fn project(batch: &RecordBatch) -> RecordBatch {
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
