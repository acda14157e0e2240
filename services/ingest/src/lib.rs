//! Ingest: reads the topic into bronze of the Flight server, exactly once, in sessions.
//!
//! A session starts at the position that the server reports. It ends at the first error. A rebalance counts as an error. Its buffers are
//! then dropped, and the next session starts at the position that the server reports then. There is no other recovery.

mod session;

mod source;

pub mod raw_batch;

pub mod decode;
pub mod decoded_batch;

mod dead_letter;
mod sink;

mod refill;

mod error;
mod metrics;

use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use futures::future::BoxFuture;
use service::Context;
use service::backoff::Backoff;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use crate::error::Error;

use crate::metrics::Metrics;
use crate::session::{SessionStage, Sessions};
use crate::source::Source;

/// Name of the service in `/ready`. It is ready when it reads the topic.
pub const SERVICE: &str = "ingest";

/// Flags of `candleflight ingest`.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "ingest")]
pub struct Config {
    /// Kafka and the topic.
    #[command(flatten)]
    pub kafka: kafka::Args,
    /// Address of the Flight server.
    #[arg(long, env = "CANDLEFLIGHT_FLIGHT", value_name = "URL", default_value = "grpc://127.0.0.1:50051")]
    pub flight: String,
    /// Consumer group. Its members share the partitions.
    #[arg(long, env = "CANDLEFLIGHT_GROUP", default_value = "candleflight-ingest")]
    pub group: String,
    /// Stable name of this member (Kafka static membership). After a restart or a crash, the member gets its partitions back without a
    /// rebalance.
    #[arg(long, env = "CANDLEFLIGHT_GROUP_INSTANCE", value_name = "NAME")]
    pub group_instance: Option<String>,
    /// Topic for messages that cannot be used [default: the name of the topic with _dlq].
    #[arg(long = "dead-letter-topic", env = "CANDLEFLIGHT_DEAD_LETTER_TOPIC", value_name = "TOPIC")]
    pub dead_letter_topic: Option<String>,
    /// Send the batches when one partition has this number of messages.
    #[arg(long, env = "CANDLEFLIGHT_BATCH_ROWS_MAX", default_value_t = 16_384, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub batch_rows_max: usize,
    /// Send the batches when together they hold this number of bytes.
    #[arg(long, env = "CANDLEFLIGHT_BATCH_BYTES_MAX", default_value = "8MiB", value_parser = service::byte_count)]
    pub batch_bytes_max: usize,
    /// Longest time that a message waits for its batch. If the topic is idle, batches are sent at once.
    #[arg(long, env = "CANDLEFLIGHT_AGE_MAX", default_value = "50ms", value_parser = service::duration)]
    pub age_max: Duration,
}

impl Config {
    /// Returns the dead-letter topic.
    ///
    /// # Errors
    ///
    /// [`kafka::Error::DeadLetterTopic`]: it is the topic itself.
    pub fn dead_letter_topic(&self) -> Result<String, kafka::Error> {
        kafka::dead_letter::topic_of(&self.kafka.topic, self.dead_letter_topic.as_deref())
    }
}

/// Feeds the Flight server until shutdown. It then puts all messages that it has read, and commits the durable position to Kafka.
///
/// # Errors
///
/// An error for which a person must act: [`Error::is_transient`] is false. After all other errors it retries.
// Boxed, so that the service is compiled in its own crate and not in each crate that awaits it.
pub fn run(config: Config, context: Context) -> BoxFuture<'static, Result<(), Error>> {
    Box::pin(async move {
        let metrics = Metrics::register(&context.metrics);
        let sessions = Sessions::new(&config, &metrics, context.clone())?;
        let mut backoff = Backoff::default();
        loop {
            match membership(&config, &sessions, &metrics, &context).await {
                Err(error) if !error.is_transient() => return Err(error),
                _ if context.shutdown.is_cancelled() => return Ok(()),
                Ok(()) => (),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "joining the group again");
                }
            }
            if !backoff.pause(&context.shutdown).await {
                return Ok(());
            }
        }
    })
}

/// Joins the consumer group and runs sessions, until shutdown or until the membership fails.
async fn membership(
    config: &Config,
    sessions: &Sessions,
    metrics: &Metrics,
    context: &Context,
) -> Result<(), Error> {
    let (mut source, thread) = source::open(config, metrics, context.shutdown.clone())?;
    let stop = CancellationToken::new();
    let _stop_on_return = stop.clone().drop_guard();
    let mut threads = JoinSet::new();
    let stopped = stop.clone();
    threads.spawn_blocking(move || thread.run(&stopped));
    let ended = tokio::select! {
        result = run_sessions(sessions, &mut source, metrics, context) => result,
        result = join(&mut threads) => return result,
    };
    stop.cancel();
    // Before the thread ends, it commits and leaves the group.
    ended.and(join(&mut threads).await)
}

/// Runs sessions until shutdown.
async fn run_sessions(
    sessions: &Sessions,
    source: &mut Source,
    metrics: &Metrics,
    context: &Context,
) -> Result<(), Error> {
    let mut backoff = Backoff::default();
    let mut last_logged = String::new();
    loop {
        let mut reached = SessionStage::default();
        let error = match sessions.run(source, &mut reached).await {
            Err(error) if !error.is_transient() => return Err(error),
            // Messages that a session could not put before the shutdown are read again at the next start.
            _ if context.shutdown.is_cancelled() => return Ok(()),
            Ok(()) => Error::ReaderStopped,
            Err(error) => error,
        };
        let reason = error.to_string();
        if reached == SessionStage::Waiting {
            if reason != last_logged {
                tracing::info!(error = &error as &dyn std::error::Error, "no session can start yet");
            }
        } else {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "starting again from the server's position"
            );
            metrics.restarts.inc();
        }
        if reached == SessionStage::Results {
            backoff.reset();
        }
        last_logged.clone_from(&reason);
        context.metrics.set_ready(SERVICE, Err(reason));
        if !backoff.pause(&context.shutdown).await {
            return Ok(());
        }
    }
}

async fn join(threads: &mut JoinSet<Result<(), Error>>) -> Result<(), Error> {
    match threads.join_next().await.expect("the thread was spawned") {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
