//! The producer: sends candles from CSV files to the topic, at the pace of a market or as fast as Kafka accepts them.
//!
//! The headers of every record name its file and line. With `--resume`, the producer reads the headers back from the end of the topic. It
//! checks that the file still has the same candle in that line, and continues with the next line. So a producer that was stopped or killed
//! sends each candle exactly once.

mod csv;
mod error;
mod input;
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
pub use crate::input::{Input, Inputs, default_input};
pub use crate::pace::Rate;

use crate::pace::Pace;
use crate::report::Report;
use crate::resume::{Returned, Start};
use crate::sink::{Acknowledged, Origin, Sink};
use crate::source::{Next, Source};

/// Name of the service in the readiness report.
const SERVICE: &str = "producer";
/// Longest wait before acknowledgements are polled again.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// Shortest wait: the resolution of tokio's clock. Records that are due within this time are sent together.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Flags of `candleflight producer`.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "producer")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Config {
    /// Kafka and the topic, which is created if it is missing.
    #[command(flatten)]
    pub kafka: kafka::Args,
    /// CSV file (plain, .gz or .zip) and the symbol of its candles. For several inputs, repeat the flag or separate them by commas. They
    /// are merged by timestamp [default: `data/bitcoin_data.csv` as BTC-USD, or if it is missing, `data/sample.csv` as SAMPLE-USD].
    #[arg(long = "input", env = "CANDLEFLIGHT_INPUT", value_name = "FILE=SYMBOL")]
    pub inputs: Vec<Inputs>,
    /// Time between two records.
    #[arg(long, env = "CANDLEFLIGHT_INTERVAL", default_value = "100ms", value_parser = service::duration)]
    pub interval: Duration,
    /// Records a second, such as 500/s, or `max`. This overrides --interval.
    #[arg(long, env = "CANDLEFLIGHT_RATE")]
    pub rate: Option<Rate>,
    /// Stop after this number of records.
    #[arg(long, env = "CANDLEFLIGHT_LIMIT")]
    pub limit: Option<u64>,
    /// Start again from the first line at the end of the input.
    #[arg(long, env = "CANDLEFLIGHT_REPEAT")]
    pub repeat: bool,
    /// Continue each input after its last line that is already in the topic.
    #[arg(long, env = "CANDLEFLIGHT_RESUME")]
    pub resume: bool,
    /// With --resume: send an input from its first line, even if it may have been sent before. The producer cannot check this if the topic
    /// has lost its oldest records and has no record of the input.
    #[arg(long, env = "CANDLEFLIGHT_START_OVER")]
    pub start_over: bool,
    /// Number of partitions of the topic, if it is created. All candles of a symbol go to the same partition.
    #[arg(long, env = "CANDLEFLIGHT_PARTITIONS", default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// Flight server that receives the status of the producer every second, for the status pages.
    #[arg(long, env = "CANDLEFLIGHT_FLIGHT", value_name = "URL", default_value = "grpc://127.0.0.1:50051")]
    pub flight: String,
    /// Do not show progress.
    #[arg(long, short, env = "CANDLEFLIGHT_QUIET")]
    pub quiet: bool,
    /// Service of this process that must be ready before the producer reads and writes an existing topic.
    #[arg(skip)]
    pub resume_after: Option<&'static str>,
}

/// Sends all records of the inputs, or as many as the limit allows. Returns when all are acknowledged, or earlier on shutdown.
///
/// With `resume`, it survives an outage of any length. It replaces a client that has given up, and continues after the last record in the
/// topic.
///
/// # Errors
///
/// [`Error`]: an input failed, which is returned after the other inputs have been sent; or Kafka failed permanently. A line that cannot
/// be used is not an error: it is counted and logged.
pub async fn run(config: Config, context: Context) -> Result<(), Error> {
    let mut inputs: Vec<Input> = config.inputs.iter().flat_map(|inputs| inputs.0.clone()).collect();
    if inputs.is_empty() {
        inputs.push(default_input(&[Path::new("data")]));
    }
    for (index, input) in inputs.iter().enumerate() {
        let is_same = |other: &Input| other.name() == input.name() && other.symbol == input.symbol;
        if inputs[..index].iter().any(is_same) {
            return Err(Error::SameInput { name: input.name(), symbol: input.symbol.clone() });
        }
        // A missing file is reported now, not after the wait for Kafka.
        input.check()?;
    }
    let mut run = Box::new(Run::new(config, inputs, context));
    loop {
        let Some(starts) = run.prepare().await? else { return Ok(()) };
        let thread = tokio::task::spawn_blocking(move || {
            let sent = run.send_all(starts);
            (run, sent)
        });
        let sent;
        (run, sent) = thread.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        match sent {
            Err(error) if run.config.resume && error.passes() && !run.context.shutdown.is_cancelled() => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "going on after the last record in the topic"
                );
            }
            sent => return sent,
        }
    }
}

struct Run {
    config: Config,
    inputs: Vec<Input>,
    context: Context,
    names: Vec<String>,
    interval: Duration,
    now_micros: i64,
    acknowledged: Acknowledged,
    report: Report,
    /// Error of the first input that has failed.
    failed: Option<Error>,
    /// Candles of each input that the topic holds without headers.
    returned: Vec<Returned>,
}

impl Run {
    fn new(config: Config, inputs: Vec<Input>, context: Context) -> Self {
        let byte_count = |input: &Input| input.path.metadata().map_or(0, |metadata| metadata.len());
        let bytes = inputs.iter().map(byte_count).sum();
        Run {
            names: inputs.iter().map(Input::name).collect(),
            interval: config.rate.map_or(config.interval, Rate::interval),
            now_micros: service::clock::now_micros(),
            acknowledged: Acknowledged::new(&context.metrics),
            report: Report::new(config.quiet, bytes, &context.metrics, Instant::now()),
            failed: None,
            returned: vec![Returned::default(); inputs.len()],
            config,
            inputs,
            context,
        }
    }

    /// Creates the topic if needed, and finds the start of each input. Retries until Kafka answers. Returns `None` if shutdown came first.
    async fn prepare(&mut self) -> Result<Option<Vec<Start>>, Error> {
        let mut backoff = Backoff::default();
        loop {
            let error = match self.ask_kafka().await {
                Ok(starts) => return Ok(Some(starts)),
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

    async fn ask_kafka(&mut self) -> Result<Vec<Start>, kafka::Error> {
        let kafka = self.config.kafka.clone();
        let created = kafka::ensure_topic(&kafka, &kafka.topic, self.config.partitions).await?;
        if created || !self.config.resume {
            return Ok(self.beginnings());
        }
        if let Some(service) = self.config.resume_after {
            self.context.shutdown.run_until_cancelled(self.context.metrics.until_ready(service)).await;
        }
        let inputs = self.inputs.clone();
        let shutdown = self.context.shutdown.clone();
        let lookup = tokio::task::spawn_blocking(move || resume::starts(&kafka, &inputs, &shutdown));
        let (mut starts, returned) =
            lookup.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        self.returned = returned;
        for (name, start) in self.names.iter().zip(&mut starts) {
            match start {
                Start::After(sent) => {
                    tracing::info!(file = name, line = sent.line, "resuming after this line");
                }
                Start::Unknown if self.config.start_over => *start = Start::Beginning,
                Start::Beginning | Start::Unknown => (),
            }
        }
        Ok(starts)
    }

    /// Sends candles until the inputs end, the limit is reached or shutdown begins. Then waits for the acknowledgements.
    fn send_all(&mut self, starts: Vec<Start>) -> Result<(), Error> {
        let shutdown = self.context.shutdown.clone();
        let mut is_whole_pass = starts == self.beginnings();
        let mut source = self.source(starts);
        let sent_earlier = self.acknowledged.records();
        let mut sink = Sink::open(&self.config.kafka, self.interval, &self.acknowledged)?;
        self.context.metrics.set_ready(SERVICE, Ok(()));
        let now = Instant::now();
        if sent_earlier == 0 {
            self.report.begin(now);
        }
        let mut pace = Pace::new(self.interval, now);
        let limit = self.config.limit.map(|limit| limit.saturating_sub(sent_earlier));
        let mut sent_before = 0;
        while !shutdown.is_cancelled() && limit.is_none_or(|limit| sink.sent() < limit) {
            let now = Instant::now();
            self.report.progress(now, sent_earlier + sink.sent(), source.bytes_read());
            let wait = pace.wait(now);
            if !wait.is_zero() {
                sink.wait(wait.clamp(WAIT_MIN, WAIT_MAX), &shutdown)?;
                continue;
            }
            match source.next() {
                Some(Next::Candle { input, candle, .. }) if self.returned[input].takes(&candle) => {}
                Some(Next::Candle { input, line, is_cut, candle }) => {
                    let origin = Origin { source: &self.names[input], line, is_cut };
                    if sink.send(&candle, origin, &shutdown)? {
                        pace.advance(now);
                    }
                }
                Some(Next::Rejected { input, line, reason }) => {
                    self.report.reject(&self.names[input], line, reason);
                }
                Some(Next::Failed { input, error }) => self.end_badly(input, error),
                // A whole pass that sent nothing is not repeated: the loop would never end.
                None if self.config.repeat && !(is_whole_pass && sink.sent() == sent_before) => {
                    (is_whole_pass, sent_before) = (true, sink.sent());
                    source = self.source(self.beginnings());
                }
                None => break,
            }
        }
        sink.flush(&shutdown)?;
        self.report.finish(Instant::now(), sent_earlier + sink.sent());
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Continues without a failed input. The run returns the first such error at its end. If there are several inputs, each error is
    /// logged.
    fn end_badly(&mut self, input: usize, error: Error) {
        if self.inputs.len() > 1 {
            let name = &self.names[input];
            tracing::error!(
                input = name,
                error = &error as &dyn std::error::Error,
                "an input ends badly; going on without it"
            );
        }
        self.failed.get_or_insert(error);
    }

    fn source(&self, starts: Vec<Start>) -> Source {
        Source::open(&self.inputs, starts, &self.config.kafka.topic, self.now_micros)
    }

    fn beginnings(&self) -> Vec<Start> {
        vec![Start::Beginning; self.inputs.len()]
    }
}
