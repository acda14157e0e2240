//! Sessions: opens a put at the server's position, starts the source there, and receives the results. Many batches are in flight at the same
//! time.

use std::pin::pin;
use std::time::Duration;

use arrow_flight::{FlightData, PutResult};
use futures::StreamExt as _;
use position::{OffsetRange, Origin, Position, Topic};
use proto::Message as _;
use proto::metadata::Progress;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::metrics::Metrics;
use crate::refill::refill;
use crate::sink::Sink;
use crate::source::{Assignment, SessionStart, Source};
use crate::{Config, Error, SERVICE};

/// Maximum number of batches of messages that wait to be decoded and put. Together with those of the reader, they are about as much as the
/// network holds.
const BATCHES_QUEUED_MAX: usize = 4;
/// Maximum number of Flight messages that wait for the network.
const MESSAGES_QUEUED_MAX: usize = 4;
/// Longest wait during a drain for the server to confirm the last batch.
const RECEIVED_MAX: Duration = Duration::from_secs(4);
/// Longest wait for the error that explains a broken put stream.
const REASON_MAX: Duration = Duration::from_secs(1);

/// Stage that a session has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SessionStage {
    /// The session waits for partitions or the server.
    #[default]
    Waiting,
    /// The session puts batches.
    Open,
    /// The server has received batches.
    Results,
}

/// Runner of sessions, with the state that they share.
pub(crate) struct Sessions {
    config: Config,
    sink: Sink,
    context: service::Context,
}

/// A new put stream, with the state of the server.
struct Opened {
    assignment: Assignment,
    messages: mpsc::Sender<FlightData>,
    results: Streaming<PutResult>,
    progress: Progress,
    /// Origin of the server's bronze, if the topic id proves that it comes from the topic that is read.
    same: Option<Origin>,
}

impl Sessions {
    pub(crate) fn new(config: &Config, metrics: &Metrics, context: service::Context) -> Result<Self, Error> {
        Ok(Sessions { config: config.clone(), sink: Sink::new(config, metrics)?, context })
    }

    /// Runs a session until it is drained, and records its progress in `reached`.
    ///
    /// # Errors
    ///
    /// The error that ended the session. The next session reads again what was not durable.
    pub(crate) async fn run(&self, source: &mut Source, reached: &mut SessionStage) -> Result<(), Error> {
        let shutdown = &self.context.shutdown;
        let Some(opened) = shutdown.run_until_cancelled(self.open(source)).await else { return Ok(()) };
        let Opened { assignment, messages, results, progress, same } = opened?;
        source.commit(progress.durable.clone());

        let (polled_sender, polled) = mpsc::channel(BATCHES_QUEUED_MAX);
        let position = progress.received.clone();
        let start = source.start(SessionStart { assignment, position, polled: polled_sender });
        let Some(started) = shutdown.run_until_cancelled(start).await else { return Ok(()) };
        let ended = if let Err(error) = started {
            Err(error)
        } else {
            self.context.metrics.set_ready(SERVICE, Ok(()));
            *reached = SessionStage::Open;
            let forward = self.sink.forward(polled, messages);
            exchange(forward, results, progress, shutdown, |durable| {
                *reached = SessionStage::Results;
                source.commit(durable);
            })
            .await
        };
        match (ended, same) {
            (Err(Error::TopicRecreated { partition, position, high, .. }), Some(origin)) => {
                let lost = OffsetRange { partition, first: high, next: position };
                self.not_ready(format!(
                    "writes {lost} back to topic {}: Kafka has lost these messages",
                    origin.topic
                ));
                let mut client =
                    transport::client::connect(&self.config.flight, &self.context.access.client).await?;
                refill(&mut client, &self.config, &origin.table, lost, shutdown).await?;
                Err(Error::Refilled { lost })
            }
            (ended, _) => ended,
        }
    }

    /// Waits for partitions, opens a put stream and requests the position of the server.
    ///
    /// The order matters. If the server restarts between the last two steps, it loses its hot rows and its position goes back. But the
    /// stream is then also broken, so nothing can be put from the wrong position.
    async fn open(&self, source: &mut Source) -> Result<Opened, Error> {
        self.not_ready(format!("waits for partitions of topic {}", self.config.kafka.topic));
        let assignment = self.assignment(source).await?;
        let topic = kafka::describe_topic(&self.config.kafka).await?;
        self.not_ready(format!("waits for the Flight server at {}", self.config.flight));
        let mut client = transport::client::connect(&self.config.flight, &self.context.access.client).await?;
        let origin = check_origin(&topic, transport::client::progress(&mut client).await?.origin)?;
        let (messages, queued) = mpsc::channel(MESSAGES_QUEUED_MAX);
        let descriptor = transport::descriptor::put_bronze(&topic);
        let schema = transport::stream::encode_schema(&schema::bronze::schema()).with_descriptor(descriptor);
        messages.send(schema).await.map_err(|_closed| Error::PutEnded)?;
        let results = client.do_put(ReceiverStream::new(queued)).await.map_err(Error::put)?.into_inner();
        let progress = transport::client::progress(&mut client).await?;
        let same = (topic.id.is_some() && origin.topic.id == topic.id).then_some(origin);
        Ok(Opened { assignment, messages, results, progress, same })
    }

    /// Waits for partitions. If brokers reject the connection, the reason is logged and shown as the readiness.
    async fn assignment(&self, source: &mut Source) -> Result<Assignment, Error> {
        let mut last_logged = String::new();
        loop {
            let refused = tokio::select! {
                assignment = source.assignment() => return assignment,
                refused = kafka::refused(&self.config.kafka) => refused,
            };
            let reason = refused.to_string();
            if reason != last_logged {
                tracing::warn!("{reason}");
                self.not_ready(reason.clone());
            }
            last_logged = reason;
        }
    }

    fn not_ready(&self, reason: String) {
        self.context.metrics.set_ready(SERVICE, Err(reason));
    }
}

/// Checks that the server's bronze comes from the topic that is read, and returns its origin.
fn check_origin(topic: &Topic, origin: Option<Origin>) -> Result<Origin, Error> {
    match origin {
        None => Err(Error::ServerOutdated),
        Some(origin) if origin.topic.matches(topic) => Ok(origin),
        Some(origin) => Err(Error::OtherTopic { read: topic.clone(), held: origin.topic }),
    }
}

/// Puts batches and receives results. During a drain, returns when the server has received all that was put.
async fn exchange(
    forward: impl Future<Output = Result<Position, Error>>,
    mut results: Streaming<PutResult>,
    mut progress: Progress,
    shutdown: &CancellationToken,
    mut on_durable: impl FnMut(Position),
) -> Result<(), Error> {
    let mut forward = pin!(forward);
    let mut put: Option<Position> = None;
    let mut drained_by = Instant::now();
    while put.as_ref().is_none_or(|put| !progress.received.covers(put)) {
        let result = tokio::select! {
            result = results.next() => result,
            forwarded = &mut forward, if put.is_none() => match forwarded {
                Ok(_) if !shutdown.is_cancelled() => return Err(Error::ReaderStopped),
                Ok(position) => {
                    put = Some(position);
                    drained_by = Instant::now() + RECEIVED_MAX;
                    continue;
                }
                // The server has ended the stream. The results contain the error.
                Err(Error::PutEnded) => tokio::time::timeout(REASON_MAX, reason(&mut results)).await.unwrap_or(None),
                Err(error) => return Err(error),
            },
            () = tokio::time::sleep_until(drained_by), if put.is_some() => {
                tracing::warn!("the Flight server did not confirm the last batches in time: the next start reads them again");
                return Ok(());
            }
        };
        let result = result.ok_or(Error::PutEnded)?.map_err(Error::put)?;
        let durable = std::mem::take(&mut progress.durable);
        progress = Progress::decode(&result.app_metadata)?;
        if progress.durable != durable {
            failpoint::pass("ingest.acknowledged");
        }
        on_durable(progress.durable.clone());
    }
    Ok(())
}

/// Returns the error that ends the results, if one does.
async fn reason(results: &mut Streaming<PutResult>) -> Option<Result<PutResult, tonic::Status>> {
    while let Some(result) = results.next().await {
        if result.is_err() {
            return Some(result);
        }
    }
    None
}
