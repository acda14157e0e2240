//! `up`: the whole pipeline in one process, on a private Kafka, a private PostgreSQL and a folder, with nothing to configure.

mod child;
mod dashboard;
mod folder;
mod input;
mod kafka;
mod logs;
mod postgres;
mod process;
mod screen;
mod servers;
mod stages;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use access::Access;
use anyhow::Context as _;
use producer::{Input, Inputs};
use service::Context;
use service::metrics::Metrics;
use service::status::{Numbers, Status};
use tokio::net::TcpListener;
use tokio::time::{Instant, interval};

use self::dashboard::Dashboard;
use self::folder::Folder;
use self::screen::Screen;
use self::servers::Servers;
use self::stages::Stages;

/// Where health and metrics are, if the port is free; `health` and `status` look there.
pub(crate) const METRICS_ADDR: &str = "127.0.0.1:9464";
/// Where Flight is, if the port is free; `sql` looks there.
pub(crate) const FLIGHT_URL: &str = "grpc://127.0.0.1:50051";
/// Pause between two looks for the first gold row: what the time printed for it may be off by.
const FIRST_ROW_INTERVAL: Duration = Duration::from_millis(10);

/// The flags of `up`. The services' other flags are taken from their environment variables.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder that keeps everything: topic, database, lake, logs [default: /var/lib/candleflight for root, else ~/.local/share/candleflight].
    #[arg(long, env = "CANDLEFLIGHT_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Bootstrap servers of a Kafka to use instead of a private one.
    #[arg(long, env = "CANDLEFLIGHT_KAFKA", value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Passed on to the clients of --kafka, such as `security.protocol=SASL_SSL`; repeatable, in the variable one a line.
    #[arg(
        long = "kafka-option",
        env = "CANDLEFLIGHT_KAFKA_OPTIONS",
        hide_env_values = true,
        value_name = "KEY=VALUE",
        value_delimiter = '\n'
    )]
    kafka_options: Vec<String>,
    /// Folder of the private Kafka's jars [default: where script/setup puts them].
    #[arg(long, env = "CANDLEFLIGHT_KAFKA_HOME", value_name = "DIR")]
    kafka_home: Option<PathBuf>,
    /// Topic of the candles.
    #[arg(long, env = "CANDLEFLIGHT_TOPIC", default_value = "bitcoin_data")]
    topic: String,
    /// A PostgreSQL to use instead of a private one.
    #[arg(long, env = "CANDLEFLIGHT_POSTGRES", value_name = "URL", hide_env_values = true)]
    postgres: Option<String>,
    /// Certificates (PEM) of the authorities that the PostgreSQL of --postgres is trusted by [default: the system's].
    #[arg(long, env = "CANDLEFLIGHT_POSTGRES_CA", value_name = "FILE")]
    postgres_ca: Option<String>,
    /// The lake: a folder, or <s3://bucket> with the usual AWS_… variables [default: a folder in the data folder].
    #[arg(long, env = "CANDLEFLIGHT_LAKE")]
    lake: Option<String>,
    /// A CSV file (plain, .gz, or Kaggle's .zip) and the symbol of its candles; repeatable, or with commas between [default:
    /// `data/bitcoin_data.csv` as BTC-USD, or the shipped data/sample.csv as SAMPLE-USD while that is not there].
    #[arg(long = "input", env = "CANDLEFLIGHT_INPUT", value_name = "FILE=SYMBOL")]
    inputs: Vec<Inputs>,
    /// Time between two records.
    #[arg(long, env = "CANDLEFLIGHT_INTERVAL", default_value = "100ms")]
    interval: String,
    /// Records a second such as 500/s, or `max`; wins over --interval.
    #[arg(long, env = "CANDLEFLIGHT_RATE")]
    rate: Option<String>,
    /// Windows by event time, or by counting rows.
    #[arg(long, env = "CANDLEFLIGHT_FRAME", value_parser = ["time", "rows"], default_value = "time")]
    frame: String,
    /// Address of the health, readiness and Prometheus endpoints [default: 127.0.0.1:9464, or a free port].
    #[arg(long, env = "CANDLEFLIGHT_METRICS_ADDR")]
    metrics_addr: Option<SocketAddr>,
    #[command(flatten)]
    dashboard: dashboard::Args,
    /// How long the services may take to drain after Ctrl-C or SIGTERM.
    #[arg(long, env = "CANDLEFLIGHT_DRAIN_MAX", default_value = "10s", value_parser = service::duration)]
    drain_max: Duration,
    #[command(flatten)]
    access: access::Args,
}

/// Starts everything, shows it, and drains it on Ctrl-C or SIGTERM.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let started = Instant::now();
    args.dashboard.check()?;
    let shutdown = service::shutdown_on_signal();
    let mut folder = Folder::open(&args.data_dir.clone().map_or_else(folder::default_path, Ok)?)?;
    let screen = Screen::new();
    let events = screen.init_telemetry(&folder.join("candleflight.log"))?;
    let context = Context::new("up", shutdown.clone(), events, Access::open(&args.access)?);
    let inputs = input::choose(&args.inputs, &screen)?;

    let servers = Servers::start(&args, &mut folder, &screen);
    // Dropped half-started, servers are killed, which they survive.
    let Some(servers) = shutdown.run_until_cancelled(servers).await else { return Ok(()) };
    let mut servers = servers?;
    let ready = Instant::now();
    screen.line(format_args!("servers ready {:.1} s after the start", (ready - started).as_secs_f64()));

    let outcome = run_services(&args, &inputs, &mut folder, &mut servers, &screen, ready, context).await;
    screen.finish();
    let stopped = servers.stop().await;
    outcome.and(stopped)?;
    screen.line("drained; the next start goes on here");
    Ok(())
}

async fn run_services(
    args: &Args,
    inputs: &[Input],
    folder: &mut Folder,
    servers: &mut Servers,
    screen: &Screen,
    ready: Instant,
    context: Context,
) -> anyhow::Result<()> {
    let Context { shutdown, status, metrics, access } = &context;
    let listener = listen(args.metrics_addr, folder).await?;
    access.check_listen(listener.local_addr()?).context("--metrics-addr")?;
    let status_url = service::http::url(access, listener.local_addr()?);
    let mut stages = Stages::start(args, inputs, folder, servers, &context)?;
    let mut dashboard = Dashboard::start(&args.dashboard, &servers.postgres, servers.postgres_ca(), folder)?;
    let logs: Vec<PathBuf> = servers.log_files().into_iter().chain(dashboard.log_file()).collect();
    servers.describe(screen, &stages.flight_url, &status_url, &dashboard.describe(), access.is_open());

    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        error = stages.failure(screen) => Err(error),
        error = servers.unexpected_end() => Err(error),
        never = dashboard.watch(screen) => match never {},
        served = service::http::serve(listener, status.clone(), access) => served.context("serve health and metrics"),
        never = logs::keep_bounded(&logs) => match never {},
        never = show(screen, metrics, status, ready) => match never {},
    };
    screen.show(&status.numbers());
    let (drained, stopped) = tokio::join!(stages.drain(args.drain_max), dashboard.stop());
    // What went wrong first is what a person must know.
    outcome.and(drained).and(stopped)
}

/// Shows the numbers for ever, and once how long the first gold row took.
async fn show(screen: &Screen, metrics: &Metrics, status: &Status, ready: Instant) -> Infallible {
    let mut first_row = interval(FIRST_ROW_INTERVAL);
    let mut shown = interval(screen.interval());
    let mut has_gold = false;
    loop {
        tokio::select! {
            _ = first_row.tick(), if !has_gold => {
                has_gold = Numbers::read(&metrics.encode()).has_gold();
                if has_gold {
                    screen.line(format_args!("first gold row {:.1} s after the servers were ready", ready.elapsed().as_secs_f64()));
                }
            }
            _ = shown.tick() => screen.show(&status.numbers()),
        }
    }
}

async fn listen(chosen: Option<SocketAddr>, folder: &mut Folder) -> anyhow::Result<TcpListener> {
    let address = match chosen {
        Some(address) => address,
        None => folder.choose_address("metrics", METRICS_ADDR)?,
    };
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address} for health and metrics (--metrics-addr)"))
}
