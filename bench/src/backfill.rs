//! Backfill of a topic into complete gold in PostgreSQL and in the lake, compared with a `COPY` of the same rows into the same table.

use std::pin::pin;

use anyhow::Context as _;
use bytes::Bytes;
use futures::future::LocalBoxFuture;
use futures::{FutureExt as _, SinkExt as _, TryStreamExt as _};
use integration_tests::pipeline::Pipeline;
use service::metrics::names;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_util::io::ReaderStream;

use crate::Setting;
use crate::figure::{Aim, Figure};
use crate::{input, watch};

/// Partitions of the topic.
const PARTITIONS: usize = 4;
/// Bytes of the copied rows that are written or read at a time.
const COPY_BYTES: usize = 256 << 10;

/// Measures the backfill of `scale.rows` candles.
pub fn measure(setting: &Setting) -> LocalBoxFuture<'_, anyhow::Result<Vec<Figure>>> {
    async {
        let source = Pipeline::new(&setting.environment).await?;
        let inputs = input::files(&source, setting.scale.rows, PARTITIONS).await?;
        input::send(&source, &inputs, PARTITIONS, None).await?;
        let (mut ours, mut copies, mut rows) = (Vec::new(), Vec::new(), 0.0);
        for _ in 0..setting.scale.runs {
            let mut pipeline = Pipeline::new(&setting.environment).await?;
            pipeline.set("CANDLEFLIGHT_TOPIC", &source.topic);
            rows = input::count(setting, &source.topic).await?;
            ours.push(backfill(&pipeline, rows).await?);
            copies.push(copy(&pipeline).await?);
            pipeline.drop_database(&setting.environment).await?;
        }
        let what = format!("backfill of {rows} candles: topic → gold in PostgreSQL and lake");
        Ok(vec![Figure::new("backfill", what, "s", ours).beside("COPY", copies).aim(Aim::TimesLeast(1.5))])
    }
    .boxed_local()
}

/// Runs the services until both sinks hold all rows. Returns the seconds since their start.
async fn backfill(pipeline: &Pipeline, rows: f64) -> anyhow::Result<f64> {
    let started = Instant::now();
    let _flight = pipeline.start(&["flight"])?;
    let gold = pipeline.start(&["gold"])?;
    let _ingest = pipeline.start(&["ingest"])?;
    for sink in ["sink=\"postgres\"", "sink=\"lake\""] {
        watch::reaches(&gold, names::GOLD_ROWS, &[sink], rows).await?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// Copies the pipeline's gold table to a file, and from there into a table with the same columns, keys and indexes. Returns the seconds of
/// the second step.
async fn copy(pipeline: &Pipeline) -> anyhow::Result<f64> {
    let database = pipeline.database().await?;
    let path = pipeline.folder.path().join("rows");
    let mut file = BufWriter::with_capacity(COPY_BYTES, File::create(&path).await?);
    let mut rows = pin!(database.copy_out("COPY bitcoin_gold_data TO STDOUT (FORMAT binary)").await?);
    while let Some(piece) = rows.try_next().await? {
        file.write_all(&piece).await?;
    }
    file.flush().await?;
    database.batch_execute("CREATE TABLE copied (LIKE bitcoin_gold_data INCLUDING ALL)").await?;

    let started = Instant::now();
    copy_in(&database, File::open(&path).await?).await.context("copy the rows")?;
    let seconds = started.elapsed().as_secs_f64();
    tokio::fs::remove_file(&path).await?;
    Ok(seconds)
}

async fn copy_in(database: &Client, file: File) -> anyhow::Result<()> {
    let copy = database.copy_in::<_, Bytes>("COPY copied FROM STDIN (FORMAT binary)").await?;
    let mut copy = pin!(copy);
    let mut pieces = ReaderStream::with_capacity(file, COPY_BYTES);
    while let Some(piece) = pieces.try_next().await? {
        copy.send(piece).await?;
    }
    copy.finish().await?;
    Ok(())
}
