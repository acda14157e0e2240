//! Reads a file of JSON candles, one on each line, into columns: with ingest's own reader and with each library in turn. Prints messages
//! per second for each run as one JSON object.
//!
//!     json-readers FILE RUNS

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use schema::candle::Candle;
use serde::Deserialize;

/// Messages of one column batch, as many as in ingest's largest batch.
const BATCH_ROWS: usize = 16_384;
/// Kafka time of the messages in microseconds, later than all their candles.
const KAFKA_MICROS: i64 = 4_000_000_000_000_000;
/// Index of `close` in the columns.
const CLOSE: usize = 5;

/// Method to read JSON into columns.
#[derive(Clone, Copy)]
enum Reader {
    /// Reader of ingest. It also accepts capitalised names, reads numbers exactly, and checks every rule.
    Ours,
    /// Reads into a struct. Its numbers may be off by one bit.
    SerdeJson,
    /// Reads into a struct. It modifies its input, so the input is copied first.
    SimdJson,
    /// Reads into a struct.
    SonicRs,
    /// Reads directly into columns.
    ArrowJson,
}

#[derive(Deserialize)]
struct Plain<'a> {
    symbol: &'a str,
    timestamp: f64,
    open: f64,
    high: f64,
    low: f64,
    close: f64,
    volume: f64,
}

/// Columns under construction.
struct Columns {
    symbol: StringBuilder,
    numbers: [Vec<f64>; 6],
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().context("json-readers FILE RUNS")?;
    let runs: usize = arguments.next().context("json-readers FILE RUNS")?.parse()?;
    let text = std::fs::read(&file).with_context(|| format!("read {file}"))?;
    let messages: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let mut rates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..runs {
        let mut expected = None;
        for (name, reader) in Reader::ALL {
            let started = Instant::now();
            let mut sum = 0.0;
            for batch in messages.chunks(BATCH_ROWS) {
                let rows = black_box(reader.read(batch).with_context(|| format!("read by {name}"))?);
                sum += rows.column(CLOSE).as_primitive::<Float64Type>().values().iter().sum::<f64>();
            }
            rates.entry(name).or_default().push(messages.len() as f64 / started.elapsed().as_secs_f64());
            let expected: f64 = *expected.get_or_insert(sum);
            ensure!((sum - expected).abs() <= 1e-12 * expected.abs(), "{name} reads other prices than ours");
        }
    }
    println!("{}", serde_json::to_string(&rates)?);
    Ok(())
}

impl Reader {
    const ALL: [(&'static str, Reader); 5] = [
        ("ours", Reader::Ours),
        ("serde_json", Reader::SerdeJson),
        ("simd-json", Reader::SimdJson),
        ("sonic-rs", Reader::SonicRs),
        ("arrow-json", Reader::ArrowJson),
    ];

    fn read(self, messages: &[&[u8]]) -> anyhow::Result<RecordBatch> {
        let mut columns = Columns::new();
        match self {
            Reader::Ours => {
                for message in messages {
                    let candle = Candle::from_json(message)?;
                    candle.validate(KAFKA_MICROS).map_err(|rejection| anyhow::anyhow!(rejection.reason()))?;
                    let Candle { symbol, timestamp, open, high, low, close, volume } = candle;
                    columns.push(&Plain { symbol: &symbol, timestamp, open, high, low, close, volume });
                }
            }
            Reader::SerdeJson => {
                for message in messages {
                    columns.push(&serde_json::from_slice(message)?);
                }
            }
            Reader::SimdJson => {
                let (mut copy, mut buffers) = (Vec::new(), simd_json::Buffers::default());
                for message in messages {
                    copy.clear();
                    copy.extend_from_slice(message);
                    columns.push(&simd_json::serde::from_slice_with_buffers(&mut copy, &mut buffers)?);
                }
            }
            Reader::SonicRs => {
                for message in messages {
                    columns.push(&sonic_rs::from_slice(message)?);
                }
            }
            Reader::ArrowJson => {
                let builder = arrow::json::ReaderBuilder::new(Columns::schema());
                let mut decoder = builder.with_batch_size(messages.len()).build_decoder()?;
                for message in messages {
                    decoder.decode(message)?;
                }
                return decoder.flush()?.context("there are messages");
            }
        }
        Ok(columns.finish()?)
    }
}

impl Columns {
    fn new() -> Columns {
        Columns { symbol: StringBuilder::new(), numbers: Default::default() }
    }

    fn push(&mut self, plain: &Plain<'_>) {
        self.symbol.append_value(plain.symbol);
        let numbers = [plain.timestamp, plain.open, plain.high, plain.low, plain.close, plain.volume];
        for (column, number) in self.numbers.iter_mut().zip(numbers) {
            column.push(number);
        }
    }

    fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let numbers = self.numbers.into_iter().map(|values| Arc::new(Float64Array::from(values)) as ArrayRef);
        let columns = std::iter::once(Arc::new(self.symbol.finish()) as ArrayRef).chain(numbers).collect();
        RecordBatch::try_new(Columns::schema(), columns)
    }

    fn schema() -> SchemaRef {
        let numbers = ["timestamp", "open", "high", "low", "close", "volume"];
        let numbers = numbers.map(|name| Field::new(name, DataType::Float64, false));
        Arc::new(Schema::new([&[Field::new("symbol", DataType::Utf8, false)], &numbers[..]].concat()))
    }
}
