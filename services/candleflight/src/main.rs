//! The `candleflight` command: composes the services, holds no logic of the walk.

#[cfg(test)]
mod documents;
mod numbers;
mod probe;
mod report;
mod sql;
mod status;
mod up;
mod users;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// How long threads may take to end after the command has.
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);

/// Real-time market data on Apache Arrow Flight: Kafka → bronze (Delta) → gold (PostgreSQL and Delta), exactly once.
#[derive(Parser)]
#[command(
    version,
    after_help = "Start with `candleflight up`. Every flag has an environment variable CANDLEFLIGHT_…"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the whole pipeline in one process, with a private Kafka and PostgreSQL: nothing to configure.
    #[command(after_help = UP_EXAMPLES)]
    Up(Box<up::Args>),
    /// Sends candles from CSV files to the topic.
    #[command(after_help = PRODUCER_EXAMPLES)]
    Producer(Service<producer::Config>),
    /// Writes a synthetic sample of candles as CSV.
    Sample(producer::sample::Config),
    /// Puts the topic into bronze, exactly once.
    Ingest(Service<ingest::Config>),
    /// Serves bronze and gold over Arrow Flight and Flight SQL; the one writer of the bronze table.
    Flight(Service<flight::Config>),
    /// Computes gold from bronze, into PostgreSQL and the gold table.
    Gold(Service<gold::Config>),
    /// Compares bronze with the topic, and gold in PostgreSQL and the lake with what follows from bronze; exit code 1 where they differ.
    #[command(after_help = VERIFY_INDEPENDENCE)]
    Verify(gold::verify::Config),
    /// Runs a Flight SQL query on the tables `bronze`, `gold` and `system.*`, and prints the result.
    #[command(after_help = SQL_EXAMPLES)]
    Sql(sql::Args),
    /// Prints how a running pipeline is: each stage, its processes, what went wrong last.
    Status(status::Args),
    /// Adds, changes and removes those who may connect, in a users file.
    #[command(subcommand)]
    Users(users::Command),
    /// Asks whether services are ready; exit code 1 where one is not.
    Health(probe::Args),
}

const UP_EXAMPLES: &str = "Examples:
  candleflight up
  candleflight up --input btc.csv.gz=BTC-USD --input eth.csv=ETH-USD --rate 500/s
  candleflight up --kafka broker:9092 --lake s3://bitcoin-data --postgres postgres://user:password@host/crypto_db";

const PRODUCER_EXAMPLES: &str = "Examples:
  candleflight producer --input data/sample.csv=SAMPLE-USD
  candleflight producer --input archive.zip=BTC-USD --rate max --resume";

const VERIFY_INDEPENDENCE: &str = "Each finding comes from a second implementation, which shares no decoding and no arithmetic with ingest and gold:
  topic              each message is a row of bronze, value by value, or a dead letter
  PostgreSQL, lake   each row of gold is computed again from bronze, bit by bit
Bronze is read through the Flight server; the comparison with the topic shows whether it answers right.";

const SQL_EXAMPLES: &str = "Examples:
  candleflight sql 'SELECT symbol, count(*) FROM bronze GROUP BY symbol'
  candleflight sql 'SELECT * FROM gold ORDER BY event_time DESC LIMIT 10' --format json
  candleflight sql 'SELECT * FROM bronze' --format parquet --output bronze.parquet";

/// A service's own flags and those that every service has.
#[derive(clap::Args)]
struct Service<T: clap::Args> {
    #[command(flatten)]
    config: T,
    #[command(flatten)]
    service: service::Args,
}

/// Runs a service that is not the Flight server, and reports to that as long.
async fn reporting<F>(
    flight: String,
    context: service::Context,
    run: impl FnOnce(service::Context) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let reporter = context.clone();
    tokio::select! {
        result = run(context) => result,
        never = report::run(&flight, &reporter) => match never {},
    }
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = tokio::runtime::Runtime::new().expect("the system has threads to give");
    let exit_code = runtime.block_on(run(command)).unwrap_or_else(|error| {
        // The chain of causes in one line; a backtrace would say nothing to the person who mistyped a query.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    });
    // A drain has its own bound; a thread that is stuck after it must not keep the process.
    runtime.shutdown_timeout(SHUTDOWN_MAX);
    exit_code
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => up::run(*args).await?,
        Command::Producer(Service { config, service }) => {
            let flight = config.flight.clone();
            let run = |context| async { Ok(producer::run(config, context).await?) };
            service::run(service, "producer", |context| reporting(flight, context, run)).await?;
        }
        Command::Ingest(Service { config, service }) => {
            let flight = config.flight.clone();
            let run = |context| async { Ok(ingest::run(config, context).await?) };
            service::run(service, "ingest", |context| reporting(flight, context, run)).await?;
        }
        Command::Flight(Service { config, service }) => {
            service::run(service, "flight", async |context| Ok(flight::run(config, context).await?)).await?;
        }
        Command::Gold(Service { config, service }) => {
            let flight = config.flight.clone();
            let run = |context| async { Ok(gold::run(config, context).await?) };
            service::run(service, "gold", |context| reporting(flight, context, run)).await?;
        }
        Command::Sample(config) => drop(producer::sample::run(&config)?),
        Command::Verify(config) => {
            let report = gold::verify::run(&config).await?;
            write!(std::io::stdout(), "{report}")?;
            return Ok(if report.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Sql(args) => sql::run(args).await?,
        Command::Status(args) => status::run(args).await?,
        Command::Users(command) => users::run(command)?,
        Command::Health(args) => probe::health(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}
