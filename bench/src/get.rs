//! Speed of DoGet of bronze, from the hot buffer and from files. The reference is a plain arrow-flight server in this process that has the
//! same batches in memory.

mod loopback;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::future::LocalBoxFuture;
use integration_tests::pipeline::Pipeline;
use integration_tests::process::Process;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use position::{OffsetRange, Position};
use proto::Message as _;
use proto::metadata::Progress;
use proto::ticket::{Follow, Ticket};
use schema::RangedBatch;
use tokio::time::Instant;
use transport::client::{Client, connect, progress, put, read};

use crate::Setting;
use crate::figure::{Aim, Figure};
use crate::objects::Files;

const NAME: &str = "get";
/// Rows of a batch: as many as ingest puts.
const BATCH_ROWS: usize = 16_384;
/// Minutes of a day.
const DAY_MINUTES: usize = 1440;
/// Symbols of the table with small files: each file holds a day of one market, 1,440 rows.
const SYMBOLS_FEW: usize = 1;
/// Symbols of the table with large files: each file holds a day of all markets, 72,000 rows.
const SYMBOLS_MANY: usize = 50;
/// Rows that a decoder returns at a time, as in the lake's reader.
const DECODED_ROWS: usize = 65_536;
/// Longest time for the puts.
const PUT_MAX: Duration = Duration::from_mins(5);

/// Measures DoGet.
pub fn measure(setting: &Setting) -> LocalBoxFuture<'_, anyhow::Result<Vec<Figure>>> {
    Box::pin(async move {
        let mut figures = vec![hot(setting).await?];
        for (symbols, what) in [
            (SYMBOLS_FEW, "DoGet from files of a day of one market"),
            (SYMBOLS_MANY, "DoGet from files of a day of 50 markets"),
        ] {
            figures.extend(files(setting, symbols, what).await?);
        }
        Ok(figures)
    })
}

/// Measures reads from the hot buffer: nothing is flushed.
async fn hot(setting: &Setting) -> anyhow::Result<Figure> {
    let batches = batches(setting.scale.rows, SYMBOLS_FEW);
    let gigabytes = gigabytes(&batches)?;
    let pipeline = Pipeline::new(&setting.environment).await?;
    let flags =
        ["flight", "--flush-interval", "1h", "--flush-rows-max", "1000000000", "--hot-bytes-max", "16GiB"];
    let (_flight, mut client) = serve(&pipeline, &flags).await?;
    let received = |progress: &Progress| progress.received.clone();
    put_all(&mut client, &batches, received).await?;

    let server = loopback::start(batches.clone()).await?;
    let (mut ours, mut loopback, mut tcp) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..setting.scale.runs {
        ours.push(gigabytes / get(&pipeline, setting.scale.rows).await?);
        loopback.push(gigabytes / server.get(setting.scale.rows).await?);
        tcp.push(gigabytes / loopback::raw_stream(gigabytes).await?);
    }
    let note = format!(
        "{gigabytes:.2} GB of Arrow data in batches of {BATCH_ROWS} rows, decoded by the client. A raw TCP stream of the same size runs at {:.1} GB/s.",
        crate::figure::median(&tcp)
    );
    Ok(Figure::new(NAME, "DoGet from the hot buffer", "GB/s", ours)
        .beside("arrow-flight from memory", loopback)
        .aim(Aim::TimesGreatest(0.8))
        .note(note))
}

/// Measures reads from Parquet files in the lake: nothing is hot.
async fn files(setting: &Setting, symbols: usize, what: &str) -> anyhow::Result<Vec<Figure>> {
    let batches = batches(setting.scale.rows, symbols);
    let gigabytes = gigabytes(&batches)?;
    let pipeline = Pipeline::new(&setting.environment).await?;
    let (_flight, mut client) = serve(&pipeline, &["flight", "--flush-interval", "1s"]).await?;
    put_all(&mut client, &batches, |progress| progress.durable.clone()).await?;
    let files = Files::list(&pipeline.lake).await?;

    let server = loopback::start(batches).await?;
    let (mut ours, mut loopback) = (Vec::new(), Vec::new());
    let (mut fetched, mut decoded, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..setting.scale.runs {
        ours.push(gigabytes / get(&pipeline, setting.scale.rows).await?);
        loopback.push(gigabytes / server.get(setting.scale.rows).await?);
        let (objects, seconds) = files.get().await?;
        fetched.push(gigabytes / seconds);
        bytes = objects.iter().map(Bytes::len).sum();
        decoded.push(gigabytes / tokio::task::spawn_blocking(move || decode(objects)).await??);
    }
    let note = format!("{} files, {} MB of Parquet in MinIO.", files.count(), bytes / 1_000_000);
    Ok(vec![
        Figure::new(NAME, what, "GB/s", ours.clone())
            .beside("arrow-flight from memory", loopback)
            .aim(Aim::TimesGreatest(0.8))
            .note(note),
        Figure::new(NAME, format!("{what}, beside its parts"), "GB/s", ours)
            .beside("GETs alone, 16 at once", fetched)
            .beside("parquet-rs, one thread, from memory", decoded)
            .note("Cost of these files before any of their bytes is sent."),
    ])
}

async fn serve(pipeline: &Pipeline, flags: &[&str]) -> anyhow::Result<(Process, Client)> {
    let mut flight = pipeline.start(flags)?;
    flight.ready().await;
    Ok((flight, connect(&pipeline.flight, &access::Identity::default()).await?))
}

/// Lowest price, in cents.
const PRICE_MIN: usize = 4_000_000;
/// Range of each price of a candle, in cents. The low is this much below the other prices, and the high this much above.
const PRICE_SPAN: usize = 50_021;

/// Creates candles of one partition, for `symbols` symbols. The candles of a symbol are one minute apart.
fn batches(rows: usize, symbols: usize) -> Vec<RecordBatch> {
    (0..rows).step_by(BATCH_ROWS).map(|first| batch(first, BATCH_ROWS.min(rows - first), symbols)).collect()
}

fn batch(first: usize, rows: usize, symbols: usize) -> RecordBatch {
    let offsets = || (first..first + rows).map(|offset| i64::try_from(offset).expect("a few million"));
    let minutes = || (first..first + rows).map(|row| row / symbols);
    let micros = || minutes().map(|minute| i64::try_from(minute).expect("a few million") * 60_000_000);
    // Prices change by cents, like real ones: they are neither constant nor noise.
    let price = |shift: usize, least: usize| -> ArrayRef {
        let cents = (first..first + rows).map(|row| least + (row * 7919 + shift * 104_729) % PRICE_SPAN);
        Arc::new(Float64Array::from_iter_values(
            cents.map(|cents| f64::from(u32::try_from(cents).expect("below 2^32")) / 100.0),
        ))
    };
    let names: Vec<String> = (0..symbols).map(|symbol| format!("SYM{symbol}-USD")).collect();
    let days = minutes().map(|minute| i32::try_from(minute / DAY_MINUTES).expect("a few thousand"));
    let time = || Arc::new(TimestampMicrosecondArray::from_iter_values(micros()).with_timezone("UTC"));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values((first..first + rows).map(|row| &names[row % symbols]))),
        time(),
        price(0, PRICE_MIN + PRICE_SPAN),
        price(1, PRICE_MIN + 2 * PRICE_SPAN),
        price(2, PRICE_MIN),
        price(3, PRICE_MIN + PRICE_SPAN),
        price(4, PRICE_MIN),
        Arc::new(Int32Array::from_value(0, rows)),
        Arc::new(Int64Array::from_iter_values(offsets())),
        time(),
        Arc::new(Date32Array::from_iter_values(days)),
    ];
    RecordBatch::try_new(schema::bronze::schema(), columns).expect("the columns are bronze's")
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn gigabytes(batches: &[RecordBatch]) -> anyhow::Result<f64> {
    let bytes: usize = batches.iter().map(transport::stream::batch_bytes).sum::<Result<usize, _>>()?;
    Ok(bytes as f64 / 1e9)
}

/// Puts all batches and waits until `reached` is after the last row.
async fn put_all(
    client: &mut Client,
    batches: &[RecordBatch],
    reached: fn(&Progress) -> Position,
) -> anyhow::Result<()> {
    let descriptor = FlightDescriptor::new_path(vec![proto::BRONZE.to_owned()]);
    let schema = transport::stream::encode_schema(&schema::bronze::schema()).with_descriptor(descriptor);
    let mut messages: Vec<FlightData> = vec![schema];
    let mut next = 0;
    for batch in batches {
        let first = next;
        next += i64::try_from(batch.num_rows())?;
        let range = OffsetRange { partition: 0, first, next };
        messages.extend(transport::stream::encode_batch(&RangedBatch { range, rows: batch.clone() })?);
    }
    let end: Position = [(0, next)].into_iter().collect();
    let mut answers = put(client, futures::stream::iter(messages)).await?;
    let taken = async {
        // The answers end once all rows are durable, which hot rows never are. Then the progress is sufficient.
        while let Some(answer) = answers.try_next().await? {
            if reached(&Progress::decode(&answer)?).covers(&end) {
                return Ok(());
            }
        }
        ensure!(reached(&progress(client).await?).covers(&end), "the put ended early");
        Ok(())
    };
    tokio::time::timeout(PUT_MAX, taken).await.context("put the batches")?
}

/// Reads all rows from the server. Returns the seconds.
async fn get(pipeline: &Pipeline, rows: usize) -> anyhow::Result<f64> {
    let mut client = connect(&pipeline.flight, &access::Identity::default()).await?;
    let whole = [(0, i64::try_from(rows)?)].into_iter().collect();
    let from: Position = [(0, 0)].into_iter().collect();
    let ticket = Ticket::Bronze(Follow::from(from).until(whole));
    let started = Instant::now();
    let mut stream = pin!(read(&mut client, &ticket).await?);
    let mut count = 0;
    while let Some(batch) = stream.try_next().await? {
        count += batch.rows.num_rows();
    }
    ensure!(count == rows, "{count} of {rows} rows came");
    Ok(started.elapsed().as_secs_f64())
}

/// Decodes files one after the other. Returns the seconds.
fn decode(objects: Vec<Bytes>) -> anyhow::Result<f64> {
    let started = Instant::now();
    for object in objects {
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(object)?.with_batch_size(DECODED_ROWS).build()?;
        for batch in reader {
            ensure!(batch?.num_rows() > 0, "a batch has rows");
        }
    }
    Ok(started.elapsed().as_secs_f64())
}
