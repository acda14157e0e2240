//! Common parts of every service: telemetry, signals, drain, metrics, and the HTTP endpoint with health and the status page.
//!
//! [`run`] runs one service as a separate process. It gives the service a [`Context`], which holds the shutdown token, the metrics, the
//! status and the access rules. The modules are usable alone:
//!
//! * [`metrics`] registers metrics and readiness, and reads samples back from Prometheus' text format;
//! * [`status`] combines the reports of all processes into one view of the pipeline;
//! * [`http`] serves health, readiness, metrics and the status page;
//! * [`backoff`] repeats attempts, [`error`] writes an error as text, and [`clock`] reads the wall clock.
//!
//! This crate contains no logic of the pipeline: it does not use Kafka, Arrow or Flight. It does not restart a service that fails.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//!
//! use service::metrics::Metrics;
//!
//! # fn main() -> Result<(), String> {
//! assert_eq!(service::duration("100ms")?, Duration::from_millis(100));
//! assert_eq!(service::byte_count("256MiB")?, 256 << 20);
//!
//! let metrics = Metrics::default();
//! metrics.set_ready("gold", Err("waits for the Flight server".to_owned()));
//! assert_eq!(metrics.readiness(), (false, "gold: waits for the Flight server\n".to_owned()));
//! metrics.set_ready("gold", Ok(()));
//! assert!(metrics.readiness().0);
//! # Ok(())
//! # }
//! ```

pub mod backoff;
pub mod clock;
pub mod error;
pub mod http;
pub mod metrics;
pub mod status;

use std::future::Future;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::time::Duration;

use access::Access;
use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::metrics::Metrics;
use crate::status::{Events, Status};

/// Environment of a service: the shutdown token, the metrics, the status of the pipeline and the access rules.
#[derive(Clone, Debug)]
pub struct Context {
    /// Token that is cancelled when the service must drain and return.
    pub shutdown: CancellationToken,
    /// Registry for the metrics and the readiness of the service.
    pub metrics: Metrics,
    /// Status of this process and the reports of the others.
    pub status: Status,
    /// Identity of this process and the authentication of its callers.
    pub access: Access,
}

impl Context {
    /// Creates the context of a process that runs `service` and keeps its warnings in `events`.
    pub fn new(service: &str, shutdown: CancellationToken, events: Events, access: Access) -> Self {
        let metrics = Metrics::default();
        Context { shutdown, status: Status::new(service, metrics.clone(), events), metrics, access }
    }
}

impl Default for Context {
    fn default() -> Self {
        Context::new("candleflight", CancellationToken::new(), Events::default(), Access::default())
    }
}

/// Flags that every service has.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Every service")]
pub struct Args {
    /// Address of the status page and of the health, readiness and Prometheus endpoints. Port 0 selects a free port, which the log shows.
    #[arg(long, alias = "metrics-addr", env = "CANDLEFLIGHT_STATUS_ADDR", default_value = "127.0.0.1:0")]
    pub status_addr: SocketAddr,
    /// Longest drain after SIGTERM or Ctrl-C. After it, the service stops at once, and the next start repeats work that is not durable.
    #[arg(long, env = "CANDLEFLIGHT_DRAIN_MAX", default_value = "10s", value_parser = duration)]
    pub drain_max: Duration,
    /// Access: the identity of the process and the authentication of its callers.
    #[command(flatten)]
    pub access: access::Args,
}

/// Parses a duration such as `100ms`, `10s` or `1m`, for clap.
///
/// # Errors
///
/// A sentence for the user if `text` is not a whole number with one of these units.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| format!("{text:?} is not a duration such as 100ms, 10s or 1m"))?;
    match unit {
        "us" => Ok(Duration::from_micros(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3600)),
        "d" => Ok(Duration::from_secs(number * 86_400)),
        _ => Err(format!("{text:?} needs a unit: us, ms, s, m, h or d")),
    }
}

/// Parses a number of bytes such as `256MiB`, `64KiB` or `1048576`, for clap.
///
/// # Errors
///
/// A sentence for the user if `text` is not a whole number with one of these units.
pub fn byte_count(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("{text:?} needs a unit: KiB, MiB or GiB, or none for bytes")),
    };
    let number: usize =
        number.parse().map_err(|_| format!("{text:?} is not a number of bytes such as 256MiB"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text:?} is too large"))
}

/// Returns the values of the flags `A` if none is given on the command line: from the environment, otherwise the defaults.
///
/// # Errors
///
/// An environment variable cannot be parsed.
pub fn defaults<A: clap::Args>() -> Result<A, clap::Error> {
    let command = A::augment_args(clap::Command::new("candleflight").no_binary_name(true));
    A::from_arg_matches(&command.try_get_matches_from(std::iter::empty::<&str>())?)
}

/// Sends log lines that pass [`log_filter`] to standard error. Returns the store that keeps the latest warnings and errors.
pub fn init_telemetry(default_level: &str) -> Events {
    let events = Events::default();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_filter(log_filter(default_level));
    let kept = events.clone().with_filter(log_filter(default_level));
    // A second call, as tests make, keeps the first subscriber.
    let _already_set = tracing_subscriber::registry().with(lines).with(kept).try_init();
    events
}

/// Returns the log filter that `RUST_LOG` sets.
///
/// Without that variable, the filter passes `default_level`, but only errors of libraries that log each step.
pub fn log_filter(default_level: &str) -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new(format!("{default_level},deltalake_core=error,buoyant_kernel=error"))
    })
}

/// Returns a token that SIGTERM, SIGINT (Ctrl-C) or SIGHUP cancels. A second signal ends the process at once.
pub fn shutdown_on_signal() -> CancellationToken {
    use tokio::signal::unix::{SignalKind, signal};
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let mut signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(|kind| signal(kind).expect("a Unix process can install signal handlers"));
    #[expect(clippy::disallowed_methods, reason = "signals outlive every service's JoinSet")]
    tokio::spawn(async move {
        let mut received = 0;
        loop {
            let [terminate, interrupt, hangup] = &mut signals;
            tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => (), _ = hangup.recv() => () }
            received += 1;
            if received > 1 {
                std::process::exit(130);
            }
            cancelled.cancel();
        }
    });
    token
}

/// Runs one service as a separate process. Starts telemetry, signal handling and the endpoint, then calls `run` and awaits its result.
///
/// The drain of the service takes at most `drain_max`.
///
/// # Errors
///
/// Returns an error if `run` fails, the address of the endpoint cannot be used, or the drain takes longer than `drain_max`.
pub async fn run<F, Fut>(args: Args, name: &'static str, run: F) -> anyhow::Result<()>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let events = init_telemetry("info");
    let access = Access::open(&args.access)?;
    access.check_listen(args.status_addr).context("--status-addr")?;
    let context = Context::new(name, shutdown_on_signal(), events, access.clone());
    let listener = tokio::net::TcpListener::bind(args.status_addr)
        .await
        .with_context(|| format!("listen on {} for health and metrics (--status-addr)", args.status_addr))?;
    tracing::info!(service = name, status = %http::url(&access, listener.local_addr()?), "starting");
    let endpoint = http::serve(listener, context.status.clone(), &access);
    let service = bounded_drain(context.shutdown.clone(), args.drain_max, run(context));
    tokio::select! {
        result = service => result,
        result = endpoint => result.context("serve health and metrics"),
    }
}

/// Awaits `service`, for at most `drain_max` after `shutdown` is cancelled.
///
/// # Errors
///
/// An error of `service`, or the drain took too long.
pub async fn bounded_drain(
    shutdown: CancellationToken,
    drain_max: Duration,
    service: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let expired = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain_max).await;
    };
    tokio::select! {
        result = service => result,
        () = expired => anyhow::bail!("the drain took longer than {drain_max:?} (--drain-max); the next start repeats work that is not durable"),
    }
}
