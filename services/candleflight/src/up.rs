//! `up`: runs the whole pipeline in one process, on a private Kafka, a private PostgreSQL and a folder. Needs no configuration.

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

/// Address of the health and metrics endpoints if the port is free. It is the default of `health` and `status`.
pub(crate) const STATUS_ADDR: &str = "127.0.0.1:9464";
/// Address of the Flight server if the port is free. It is the default of `sql`.
pub(crate) const FLIGHT_URL: &str = "grpc://127.0.0.1:50051";
/// Pause between two checks for the first gold row. It bounds the error of the printed time.
const FIRST_ROW_INTERVAL: Duration = Duration::from_millis(10);

/// Flags of `up`. The services read their other flags from their environment variables.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder for all data: topic, database, lake and logs [default: /var/lib/candleflight for root, ~/.local/share/candleflight for other
    /// users].
    #[arg(long, env = "CANDLEFLIGHT_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Bootstrap servers of an external Kafka [default: a private Kafka].
    #[arg(long, env = "CANDLEFLIGHT_KAFKA", value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// librdkafka option for the external Kafka given by --kafka, such as `security.protocol=SASL_SSL`. Repeatable; the variable takes one
    /// option per line.
    #[arg(
        long = "kafka-option",
        env = "CANDLEFLIGHT_KAFKA_OPTIONS",
        hide_env_values = true,
        value_name = "KEY=VALUE",
        value_delimiter = '\n'
    )]
    kafka_options: Vec<String>,
    /// Folder with the jars of the private Kafka [default: the one that script/setup creates].
    #[arg(long, env = "CANDLEFLIGHT_KAFKA_HOME", value_name = "DIR")]
    kafka_home: Option<PathBuf>,
    /// Topic of the candles.
    #[arg(long, env = "CANDLEFLIGHT_TOPIC", default_value = "bitcoin_data")]
    topic: String,
    /// URL of an external PostgreSQL [default: a private PostgreSQL].
    #[arg(long, env = "CANDLEFLIGHT_POSTGRES", value_name = "URL", hide_env_values = true)]
    postgres: Option<String>,
    /// Certificates (PEM) of the authorities to trust for the PostgreSQL given by --postgres [default: those of the system].
    #[arg(long, env = "CANDLEFLIGHT_POSTGRES_CA", value_name = "FILE")]
    postgres_ca: Option<String>,
    /// The lake: a folder, or <s3://bucket> with the usual AWS_… variables [default: a folder in the data folder].
    #[arg(long, env = "CANDLEFLIGHT_LAKE")]
    lake: Option<String>,
    /// A CSV file (plain, .gz, or Kaggle's .zip) and the symbol of its candles. Repeatable, or separated by commas [default:
    /// `data/bitcoin_data.csv` as BTC-USD, or the shipped data/sample.csv as SAMPLE-USD if that file does not exist].
    #[arg(long = "input", env = "CANDLEFLIGHT_INPUT", value_name = "FILE=SYMBOL")]
    inputs: Vec<Inputs>,
    /// Time between two records.
    #[arg(long, env = "CANDLEFLIGHT_INTERVAL", default_value = "100ms")]
    interval: String,
    /// Records per second such as 500/s, or `max`. Takes precedence over --interval.
    #[arg(long, env = "CANDLEFLIGHT_RATE")]
    rate: Option<String>,
    /// Window definition: event time, or a number of rows.
    #[arg(long, env = "CANDLEFLIGHT_FRAME", value_parser = ["time", "rows"], default_value = "time")]
    frame: String,
    /// Address of the health, readiness and Prometheus endpoints [default: 127.0.0.1:9464, or a free port].
    #[arg(long, alias = "metrics-addr", env = "CANDLEFLIGHT_STATUS_ADDR")]
    status_addr: Option<SocketAddr>,
    #[command(flatten)]
    dashboard: dashboard::Args,
    /// Longest time for the services to drain after Ctrl-C or SIGTERM.
    #[arg(long, env = "CANDLEFLIGHT_DRAIN_MAX", default_value = "10s", value_parser = service::duration)]
    drain_max: Duration,
    #[command(flatten)]
    access: access::Args,
}

/// Starts everything, shows the progress, and drains on Ctrl-C or SIGTERM.
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
    // If the start is cancelled, the servers are dropped and killed. Kafka and PostgreSQL both recover from a kill.
    let Some(servers) = shutdown.run_until_cancelled(servers).await else { return Ok(()) };
    let mut servers = servers?;
    let ready = Instant::now();
    screen.line(format_args!("servers ready {:.1} s after the start", (ready - started).as_secs_f64()));

    let outcome = run_services(&args, &inputs, &mut folder, &mut servers, &screen, ready, context).await;
    screen.finish();
    let stopped = servers.stop().await;
    outcome.and(stopped)?;
    screen.line("drained; the next start continues here");
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
    let listener = listen(args.status_addr, folder).await?;
    access.check_listen(listener.local_addr()?).context("--status-addr")?;
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
    // The first error is the one that a person needs.
    outcome.and(drained).and(stopped)
}

/// Shows the metrics without end, and once the time until the first gold row.
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
        None => folder.choose_address("metrics", STATUS_ADDR)?,
    };
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address} for health and metrics (--status-addr)"))
}
