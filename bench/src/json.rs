//! JSON messages to columns on one thread: ingest's own reader, compared with the fastest libraries. A separate program holds the
//! libraries.

use std::collections::BTreeMap;
use std::env;
use std::process::Command;

use anyhow::{Context as _, ensure};
use arrow::array::RecordBatch;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use ingest::decoded_batch::DecodedBatch;
use ingest::raw_batch::Message;
use position::OffsetRange;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use schema::candle::Candle;

use crate::Setting;
use crate::figure::{Aim, Figure};

/// Messages of one column batch, as many as in ingest's largest batch.
const BATCH_ROWS: usize = 16_384;
/// Kafka time of the messages in milliseconds, later than all their candles.
const KAFKA_MILLIS: i64 = 4_000_000_000_000;
/// Maximum number of measured messages.
const MESSAGES_MAX: usize = 1_000_000;
/// Path of the program that reads them, in the target folder. It is built from `bench/json`.
const READERS: &str = "release/json-readers";

/// JSON candles, one on each line.
#[derive(Debug)]
pub struct Messages {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Messages {
    /// Creates `count` messages of a random walk. Prices have two decimals and volumes eight, as exchanges send them.
    pub fn generate(count: usize) -> Messages {
        let mut random = StdRng::seed_from_u64(1);
        let (mut bytes, mut ends, mut cents) = (Vec::new(), Vec::with_capacity(count), 10_000_000_i32);
        let mut timestamp = 1_600_000_000.0;
        for _ in 0..count {
            cents += random.random_range(-5_000..=5_000);
            timestamp += 60.0;
            let price = |cents: i32| f64::from(cents) / 100.0;
            let candle = Candle {
                symbol: "BTC-USD".into(),
                timestamp,
                open: price(cents),
                high: price(cents + random.random_range(0..10_000)),
                low: price(cents - random.random_range(0..10_000)),
                close: price(cents + random.random_range(-3..3)),
                volume: f64::from(random.random_range(0..2_000_000_000)) / 1e8,
            };
            serde_json::to_writer(&mut bytes, &candle)
                .expect("a Vec takes any JSON and the candle is finite");
            ends.push(bytes.len());
            bytes.push(b'\n');
        }
        Messages { bytes, ends }
    }

    /// Returns the messages in batches.
    pub fn batches(&self) -> impl Iterator<Item = Vec<&[u8]>> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|end| end + 1));
        let mut messages = starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end]);
        std::iter::from_fn(move || {
            let batch: Vec<_> = messages.by_ref().take(BATCH_ROWS).collect();
            (!batch.is_empty()).then_some(batch)
        })
    }
}

/// Reads messages into the eleven columns of bronze, as ingest does.
///
/// # Errors
///
/// A message is rejected. No message of [`Messages`] should be.
pub fn read(messages: &[&[u8]]) -> anyhow::Result<RecordBatch> {
    let range = OffsetRange { partition: 0, first: 0, next: i64::try_from(messages.len())? };
    let decoded = DecodedBatch::decode(
        range,
        (0..).zip(messages).map(|(offset, payload)| Message {
            offset,
            kafka_millis: Some(KAFKA_MILLIS),
            key: None,
            payload: Some(payload),
        }),
    );
    ensure!(decoded.dead_letters.is_empty(), "a message was rejected: {:?}", decoded.dead_letters[0]);
    Ok(decoded.batch.rows)
}

/// Measures every reader in turn. All must read the same prices.
pub fn measure(setting: &Setting) -> LocalBoxFuture<'_, anyhow::Result<Vec<Figure>>> {
    async {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("messages.json");
        std::fs::write(&file, Messages::generate(setting.scale.rows.min(MESSAGES_MAX)).bytes)?;
        let this = env::current_exe()?;
        let readers =
            this.ancestors().nth(2).context("find the target folder above this program")?.join(READERS);
        let output = Command::new(&readers).arg(&file).arg(setting.scale.runs.to_string()).output();
        let output = output.with_context(|| format!("run {}: script/bench builds it", readers.display()))?;
        ensure!(output.status.success(), "{READERS}: {}", String::from_utf8_lossy(&output.stderr));
        let mut rates: BTreeMap<String, Vec<f64>> = serde_json::from_slice(&output.stdout)?;
        let ours = rates.remove("ours").context("read the rates of ingest's own reader")?;
        let figure = Figure::new("json", "JSON → columns, one thread", "messages/s", ours)
            .aim(Aim::TimesGreatest(1.0));
        Ok(vec![rates.into_iter().fold(figure, |figure, (name, rates)| figure.beside(name, rates))])
    }
    .boxed_local()
}
