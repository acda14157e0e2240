//! The `candleflight` command. It composes the services and contains no logic of the walk.

#[cfg(test)]
mod absences;
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

/// Longest wait for threads to end after the command has ended.
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);

/// Real-time market data on Apache Arrow Flight: Kafka → bronze (Delta) → gold (PostgreSQL and Delta), exactly once.
#[derive(Parser)]
#[command(
    version,
    after_help = "Start with `candleflight up`. `candleflight COMMAND --help` shows each flag and its environment variable"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the whole pipeline in one process, with a private Kafka and a private PostgreSQL. Needs no configuration.
    #[command(after_help = UP_EXAMPLES)]
    Up(Box<up::Args>),
    /// Sends candles from CSV files to the topic.
    #[command(after_help = PRODUCER_EXAMPLES)]
    Producer(Service<producer::Config>),
    /// Writes a synthetic sample of candles as CSV.
    Sample(producer::sample::Config),
    /// Copies the topic to bronze, exactly once.
    Ingest(Service<ingest::Config>),
    /// Serves bronze and gold over Arrow Flight and Flight SQL. Is the only writer of the bronze table.
    Flight(Service<flight::Config>),
    /// Computes gold from bronze and writes it to PostgreSQL and to the gold table.
    Gold(Service<gold::Config>),
    /// Compares bronze with the topic, and gold in PostgreSQL and in the lake with the gold that follows from bronze. Exits with 1 if
    /// anything differs.
    #[command(after_help = VERIFY_INDEPENDENCE)]
    Verify(gold::verify::Config),
    /// Runs a Flight SQL query on the tables `bronze`, `gold` and `system.*`, and prints the result.
    #[command(after_help = SQL_EXAMPLES)]
    Sql(sql::Args),
    /// Prints the status of a running pipeline: its stages, its processes, and the latest warnings and errors.
    Status(status::Args),
    /// Adds, changes and removes users in a users file.
    #[command(subcommand)]
    Users(users::Command),
    /// Checks that services are ready. Exits with 1 if any is not.
    Health(probe::Args),
}

const UP_EXAMPLES: &str = "Examples:
  candleflight up
  candleflight up --input btc.csv.gz=BTC-USD --input eth.csv=ETH-USD --rate 500/s
  candleflight up --kafka broker:9092 --lake s3://bitcoin-data --postgres postgres://user:password@host/crypto_db";

const PRODUCER_EXAMPLES: &str = "Examples:
  candleflight producer --input data/sample.csv=SAMPLE-USD
  candleflight producer --input archive.zip=BTC-USD --rate max --resume";

const VERIFY_INDEPENDENCE: &str =
    "verify is a second implementation, which shares no decoding and no arithmetic with ingest and gold:
  topic              each message must be a row of bronze with the same values, or a dead letter
  PostgreSQL, lake   each row must equal, bit by bit, the gold that verify computes from bronze
verify reads bronze through the Flight server. The comparison with the topic checks the server's answers.";

const SQL_EXAMPLES: &str = "Examples:
  candleflight sql 'SELECT symbol, count(*) FROM bronze GROUP BY symbol'
  candleflight sql 'SELECT * FROM gold ORDER BY event_time DESC LIMIT 10' --format json
  candleflight sql 'SELECT * FROM bronze' --format parquet --output bronze.parquet";

/// Flags of a service, and the flags that all services share.
#[derive(clap::Args)]
struct Service<T: clap::Args> {
    #[command(flatten)]
    config: T,
    #[command(flatten)]
    service: service::Args,
}

/// Runs a service other than the Flight server, and reports its status to the Flight server until the service ends.
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
        // The chain of causes goes on one line. A backtrace would not help a person who mistyped a query.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    });
    // The drain has its own time limit. A thread that is stuck after it must not keep the process alive.
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
