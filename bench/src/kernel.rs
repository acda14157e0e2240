//! Gold's moving averages and volatilities, compared with engines that are commonly used for them.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use ::kernel::{Averages, Frame, Series, compute};
use anyhow::Context as _;
use arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampMicrosecondArray};
use futures::future::LocalBoxFuture;
use parquet::arrow::ArrowWriter;
use schema::MINUTE_MICROS;
use schema::gold::WINDOWS;
use tokio::time::Instant;

use crate::Setting;
use crate::engines::{Engines, Verdict, threads};
use crate::figure::{Aim, Figure};

const NAME: &str = "kernel";
/// Engines, the fastest first.
const ENGINES: [&str; 4] = ["Polars", "pandas", "DuckDB", "DataFusion"];
/// Longest run of an engine that is repeated, in seconds. A slower engine runs only once.
const RUN_SECONDS_MAX: f64 = 60.0;
/// Rows of a piece of the result: as many as gold computes at a time.
const PIECE_ROWS: usize = 65_536;
/// Largest relative error of 30 additions and of the differences and squares that are added. A root halves the error.
const ERROR_MAX: f64 = 30.0 * f64::EPSILON;

/// Candles in columns.
#[derive(Clone, Debug, Default)]
pub struct Candles {
    /// Event times in microseconds, ascending.
    pub event_times: Vec<i64>,
    /// Closing prices.
    pub closes: Vec<f64>,
    /// Volumes.
    pub volumes: Vec<f64>,
}

/// Durations of an engine's runs in seconds. Each time it runs twice in a row.
#[derive(Debug, Default)]
struct Times {
    first: Vec<f64>,
    again: Vec<f64>,
}

/// Result of the pipeline's kernel: pieces of [`PIECE_ROWS`] rows, except for the last.
type Pieces = Vec<[Averages; WINDOWS.len()]>;

/// Measures the time and the exactness of all windows over all candles.
pub fn measure(setting: &Setting) -> LocalBoxFuture<'_, anyhow::Result<Vec<Figure>>> {
    Box::pin(async move {
        let candles = Candles::generate(setting.scale.rows, 1);
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("candles.parquet");
        candles.write(&file).context("write the candles")?;
        let mut engines = Engines::start(&setting.environment)?;
        let checked = engines.load(&file).await?;

        let mut ours = Times::default();
        let mut verdict = Verdict { error: f64::NAN, wrong: 0 };
        let mut theirs = ENGINES.map(|engine| (engine, Times::default(), verdict));
        for _ in 0..setting.scale.runs {
            let begun = Instant::now();
            let pieces = candles.windows(threads(), Vec::new());
            ours.first.push(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            let pieces = candles.windows(threads(), pieces);
            ours.again.push(begun.elapsed().as_secs_f64());
            verdict = engines.judge(rows(&pieces, &checked)).await?;
            drop(pieces);
            for (engine, times, verdict) in &mut theirs {
                for times in [&mut times.first, &mut times.again] {
                    if times.last().is_none_or(|seconds| *seconds < RUN_SECONDS_MAX) {
                        let run = engines.kernel(engine).await?;
                        times.push(run.seconds);
                        *verdict = run.verdict;
                    }
                }
            }
        }

        let what = format!("gold kernel: nine metrics and the counts of {} candles", setting.scale.rows);
        let again = format!("{what}, again");
        let mut time = Figure::new(NAME, what, "s", ours.first).aim(Aim::TimesLeast(1.0 / 3.0)).note(format!(
            "{} threads each. Ours writes into new memory from the system, theirs into memory of their allocators. An engine that takes \
             over {RUN_SECONDS_MAX:.0} s ran once.",
            threads()
        ));
        let mut again = Figure::new(NAME, again, "s", ours.again)
            .aim(Aim::TimesLeast(1.0 / 3.0))
            .note("Directly after a run of the same engine, so that memory is ready. Ours reuses the memory of that run, theirs the memory of their allocators.");
        let mut error = Figure::new(NAME, "gold kernel: largest relative error", "", vec![verdict.error])
            .aim(Aim::AtMost(ERROR_MAX))
            .note(format!(
                "Compared with exact fractions at {} rows, without constant prices.",
                checked.len()
            ));
        let mut wrong = Figure::new(NAME, "gold kernel: wrong values", "", vec![f64::from(verdict.wrong)])
            .aim(Aim::AtMost(0.0))
            .note("Number of wrong values at the same rows: volatilities of constant prices that are not 0, values that are not numbers, and wrong counts.");
        for (engine, times, verdict) in theirs {
            time = time.beside(engine, times.first);
            again = again.beside(engine, times.again);
            error = error.beside(engine, vec![verdict.error]);
            wrong = wrong.beside(engine, vec![f64::from(verdict.wrong)]);
        }
        Ok(vec![time, again, error, wrong])
    })
}

impl Candles {
    /// Creates one-minute candles of a random walk around a six-figure price. There are some gaps, and some periods of constant price.
    pub fn generate(rows: usize, seed: u64) -> Candles {
        let mut random = Random(seed);
        let mut candles = Candles::default();
        let (mut event_time, mut cents, mut still) = (1_325_376_000_000_000, 10_000_000, 0_u64);
        for _ in 0..rows {
            let gap = if random.below(500) == 0 { random.below(90) } else { 0 };
            event_time += MINUTE_MICROS * (1 + i64::try_from(gap).expect("it is below 90"));
            if still == 0 && random.below(1000) == 0 {
                still = random.below(90);
            }
            still = still.saturating_sub(1);
            if still == 0 {
                let step = i32::try_from(random.below(4001)).expect("it is below 4001") - 2000;
                // The walk turns back where a price would no longer have five or six digits.
                cents += if (1_000_000..20_000_000).contains(&(cents + step)) { step } else { -step };
            }
            candles.event_times.push(event_time);
            candles.closes.push(f64::from(cents) / 100.0);
            // From 1e-8 to 1e4, as exchanges report them.
            let magnitude =
                [1e-8, 1e-6, 1e-4, 1e-2][usize::try_from(random.below(4)).expect("it is below 4")];
            candles.volumes.push(
                f64::from(u32::try_from(random.below(1_000_000)).expect("it is below 10⁶")) * magnitude,
            );
        }
        candles
    }

    /// Returns the candles as input of the kernel.
    pub fn series(&self) -> Series<'_> {
        Series { event_times: &self.event_times, closes: &self.closes, volumes: &self.volumes }
    }

    /// Computes all windows into the memory of `pieces`, which is an earlier result or empty.
    fn windows(&self, threads: usize, mut pieces: Pieces) -> Pieces {
        let rows = self.event_times.len();
        pieces.resize_with(rows.div_ceil(PIECE_ROWS), Default::default);
        let firsts: Vec<usize> = (0..rows).step_by(PIECE_ROWS).collect();
        let share = pieces.len().div_ceil(threads).max(1);
        thread::scope(|scope| {
            for (firsts, pieces) in firsts.chunks(share).zip(pieces.chunks_mut(share)) {
                scope.spawn(move || {
                    for (first, piece) in firsts.iter().zip(pieces) {
                        piece.iter_mut().for_each(clear);
                        compute(self.series(), Frame::Time, *first..(first + PIECE_ROWS).min(rows), piece);
                    }
                });
            }
        });
        pieces
    }

    fn write(&self, file: &Path) -> anyhow::Result<()> {
        let columns: [(_, ArrayRef); 3] = [
            (schema::EVENT_TIME, Arc::new(TimestampMicrosecondArray::from(self.event_times.clone()))),
            (schema::CLOSE, Arc::new(Float64Array::from(self.closes.clone()))),
            (schema::VOLUME, Arc::new(Float64Array::from(self.volumes.clone()))),
        ];
        let batch = RecordBatch::try_from_iter(columns)?;
        let mut writer = ArrowWriter::try_new(std::fs::File::create(file)?, batch.schema(), None)?;
        writer.write(&batch)?;
        writer.close()?;
        Ok(())
    }
}

/// Empties the columns and keeps their memory.
fn clear(averages: &mut Averages) {
    let Averages { price_ma, price_volatility, volume_ma, samples } = averages;
    [price_ma, price_volatility, volume_ma].into_iter().for_each(Vec::clear);
    samples.clear();
}

/// Returns the metrics of the `wanted` rows, ascending, in the order of the engines' columns.
fn rows(pieces: &Pieces, wanted: &[usize]) -> Vec<Vec<f64>> {
    let mut wanted = wanted.iter().copied().peekable();
    let (mut rows, mut first) = (Vec::new(), 0);
    for piece in pieces {
        let next = first + piece[0].samples.len();
        while let Some(row) = wanted.next_if(|row| *row < next) {
            let metrics = piece.iter().flat_map(|window| {
                let row = row - first;
                let samples = f64::from(window.samples[row]);
                [window.price_ma[row], window.price_volatility[row], window.volume_ma[row], samples]
            });
            rows.push(metrics.collect());
        }
        first = next;
    }
    rows
}

/// `SplitMix64` generator: the same seed gives the same candles on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (bits ^ (bits >> 31)) % bound
    }
}
