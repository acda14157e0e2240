//! The producer: candles from CSV files to the topic, at the pace of a market or as fast as Kafka takes them.
//!
//! Every record carries the file and line it comes from in its headers; `--resume` reads them back from the topic's end and goes on
//! after them, so that a producer which was stopped or killed sends nothing twice and leaves nothing out.

mod csv;
mod error;
mod pace;
mod report;
mod resume;
pub mod sample;
mod sink;
mod source;

use std::path::Path;
use std::time::Duration;

use service::Context;
use service::backoff::Backoff;
use tokio::time::Instant;

pub use crate::error::Error;
pub use crate::pace::Rate;
pub use crate::source::Input;

use crate::pace::Pace;
use crate::report::Report;
use crate::sink::Sink;
use crate::source::{Next, Source};

/// Name of the service in `/ready`.
const SERVICE: &str = "producer";
/// Longest wait for the next record after which acknowledgements are taken in.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// Shortest wait, the resolution of tokio's clock; records due within it are sent together.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Name of the Kaggle set.
const FULL: &str = "bitcoin_data.csv";
/// Name of the sample that is shipped.
const SAMPLE: &str = "sample.csv";
/// Symbol of both.
const SYMBOL: &str = "BTC-USD";

/// The flags of `candleflight producer`.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "producer")]
pub struct Config {
    /// Kafka and the topic, which is created if need be.
    #[command(flatten)]
    pub kafka: kafka::Args,
    /// A CSV file (plain, .gz, or Kaggle's .zip) and the symbol of its candles; repeatable, then merged by timestamp [default:
    /// `data/bitcoin_data.csv` as BTC-USD, or `data/sample.csv` while that is not there].
    #[arg(long = "input", env = "CANDLEFLIGHT_INPUT", value_name = "FILE=SYMBOL", value_delimiter = ',')]
    pub inputs: Vec<Input>,
    /// Time between two records.
    #[arg(long, env = "CANDLEFLIGHT_INTERVAL", default_value = "100ms", value_parser = service::duration)]
    pub interval: Duration,
    /// Records a second such as 500/s, or `max`; wins over --interval.
    #[arg(long, env = "CANDLEFLIGHT_RATE")]
    pub rate: Option<Rate>,
    /// Stop after so many records.
    #[arg(long, env = "CANDLEFLIGHT_LIMIT")]
    pub limit: Option<u64>,
    /// Start over at the end of the input.
    #[arg(long, env = "CANDLEFLIGHT_REPEAT")]
    pub repeat: bool,
    /// Go on after the last line of each input that is already in the topic.
    #[arg(long, env = "CANDLEFLIGHT_RESUME")]
    pub resume: bool,
    /// Partitions of the topic, if it is created; a symbol's candles are always in one.
    #[arg(long, env = "CANDLEFLIGHT_PARTITIONS", default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// The Flight server, which is told every second how the producer is, for the status pages.
    #[arg(long, env = "CANDLEFLIGHT_FLIGHT", value_name = "URL", default_value = "grpc://127.0.0.1:50051")]
    pub flight: String,
    /// Show no progress.
    #[arg(long, short, env = "CANDLEFLIGHT_QUIET")]
    pub quiet: bool,
}

/// Sends all records of the inputs, or up to the limit; returns once all are acknowledged, or earlier on shutdown.
///
/// # Errors
///
/// [`Error`]: an input that cannot be read, or Kafka for good. A line that cannot be used is counted and reported, not an error.
pub async fn run(mut config: Config, context: Context) -> Result<(), Error> {
    if config.inputs.is_empty() {
        config.inputs.push(default_input(&[Path::new("data")]));
    }
    for (index, input) in config.inputs.iter().enumerate() {
        let same = |other: &Input| other.name() == input.name() && other.symbol == input.symbol;
        if config.inputs[..index].iter().any(same) {
            return Err(Error::SameInput { name: input.name(), symbol: input.symbol.clone() });
        }
    }
    // A missing file is told at once, not after Kafka has been waited for.
    let mut run = Run::open(config, context)?;
    let Some(after) = run.prepare().await? else { return Ok(()) };
    let thread = tokio::task::spawn_blocking(move || run.send_all(after));
    thread.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Returns what is replayed when nothing was said: the Kaggle set in the first of `folders` that has it, else the sample that is
/// shipped; the set where it is missed, if neither is there.
pub fn default_input(folders: &[&Path]) -> Input {
    let found = |name| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    let missed = || Path::new("data").join(FULL);
    let path = found(FULL).or_else(|| found(SAMPLE)).unwrap_or_else(missed);
    Input { path, symbol: SYMBOL.to_owned() }
}

struct Run {
    config: Config,
    context: Context,
    names: Vec<String>,
    interval: Duration,
    now_micros: i64,
}

impl Run {
    fn open(config: Config, context: Context) -> Result<Self, Error> {
        let now_micros = service::clock::now_micros();
        let names = config.inputs.iter().map(Input::name).collect();
        let interval = config.rate.map_or(config.interval, Rate::interval);
        let run = Run { config, context, names, interval, now_micros };
        run.source(&run.start_lines())?;
        Ok(run)
    }

    /// Creates the topic and finds where to go on, trying until Kafka answers; `None` when shutdown came first.
    async fn prepare(&mut self) -> Result<Option<Vec<u64>>, Error> {
        let mut backoff = Backoff::default();
        loop {
            let error = match self.ask_kafka().await {
                Ok(after) => return Ok(Some(after)),
                Err(error) if error.is_transient() => error,
                Err(error) => return Err(error.into()),
            };
            let reason = format!("waits for Kafka at {}: {error}", self.config.kafka.brokers);
            self.context.metrics.set_ready(SERVICE, Err(reason));
            tracing::warn!(error = &error as &dyn std::error::Error, "trying again");
            if !backoff.pause(&self.context.shutdown).await {
                return Ok(None);
            }
        }
    }

    async fn ask_kafka(&self) -> Result<Vec<u64>, kafka::Error> {
        let kafka = self.config.kafka.clone();
        let created = kafka::ensure_topic(&kafka, &kafka.topic, self.config.partitions).await?;
        if created || !self.config.resume {
            return Ok(self.start_lines());
        }
        let inputs = self.config.inputs.clone();
        let shutdown = self.context.shutdown.clone();
        let lookup = tokio::task::spawn_blocking(move || resume::last_lines(&kafka, &inputs, &shutdown));
        let after = lookup.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        for (name, line) in self.names.iter().zip(&after).filter(|(_, line)| **line > 0) {
            tracing::info!(file = name, line, "resuming after this line");
        }
        Ok(after)
    }

    /// Sends candles until the input ends, the limit is reached or shutdown comes; then waits for the acknowledgements.
    fn send_all(&self, after: Vec<u64>) -> Result<(), Error> {
        let shutdown = &self.context.shutdown;
        let mut source = self.source(&after)?;
        let mut sink = Sink::open(&self.config.kafka, self.interval, &self.context.metrics)?;
        let mut report =
            Report::new(self.config.quiet, self.byte_count(), &self.context.metrics, Instant::now());
        self.context.metrics.set_ready(SERVICE, Ok(()));
        let mut pace = Pace::new(self.interval, Instant::now());
        let (mut is_whole_pass, mut sent_before) = (after == self.start_lines(), 0);
        while !shutdown.is_cancelled() && self.config.limit.is_none_or(|limit| sink.sent() < limit) {
            let now = Instant::now();
            report.progress(now, sink.sent(), source.bytes_read());
            let wait = pace.wait(now);
            if !wait.is_zero() {
                sink.wait(wait.clamp(WAIT_MIN, WAIT_MAX), shutdown)?;
                continue;
            }
            match source.next()? {
                Some(Next { input, line, candle: Ok(candle) }) => {
                    if sink.send(&candle, &self.names[input], line, shutdown)? {
                        pace.advance(now);
                    }
                }
                Some(Next { input, line, candle: Err(reason) }) => {
                    report.reject(&self.names[input], line, reason);
                }
                // A whole pass that sent nothing would be repeated for ever.
                None if self.config.repeat && !(is_whole_pass && sink.sent() == sent_before) => {
                    (is_whole_pass, sent_before) = (true, sink.sent());
                    source = self.source(&self.start_lines())?;
                }
                None => break,
            }
        }
        sink.flush(shutdown)?;
        report.finish(Instant::now(), sink.sent());
        Ok(())
    }

    fn source(&self, after: &[u64]) -> Result<Source, Error> {
        Source::open(&self.config.inputs, after, self.now_micros)
    }

    fn start_lines(&self) -> Vec<u64> {
        vec![0; self.config.inputs.len()]
    }

    fn byte_count(&self) -> u64 {
        let byte_count = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
        self.config.inputs.iter().map(|input| byte_count(&input.path)).sum()
    }
}
