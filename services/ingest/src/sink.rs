//! One session: from the server's position, batches into a put stream and results out of it, many batches in flight.

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

use crate::batch::Batch;
use crate::dead_letter::DeadLetters;
use crate::messages::Messages;
use crate::metrics::Metrics;
use crate::refill::refill;
use crate::source::{Assignment, Source, Start};
use crate::{Config, Error, SERVICE};

/// Batches of messages that wait to be read and put: with the poller's own about as much as the network holds.
const BATCHES_QUEUED_MAX: usize = 4;
/// Messages that wait for the network.
const MESSAGES_QUEUED_MAX: usize = 4;
/// How long a drain waits for the server to say that it has received the last batch.
const RECEIVED_MAX: Duration = Duration::from_secs(4);
/// How long the reason of a broken stream may take to come after the break.
const REASON_MAX: Duration = Duration::from_secs(1);

/// How far a session came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reached {
    /// It waits for partitions or the server.
    #[default]
    Waiting,
    /// It puts batches.
    Open,
    /// The server has received some.
    Results,
}

/// What sessions share.
pub(crate) struct Sink {
    config: Config,
    dead_letters: DeadLetters,
    metrics: Metrics,
    context: service::Context,
}

/// A put stream that nothing was put to yet.
struct Opened {
    assignment: Assignment,
    messages: mpsc::Sender<FlightData>,
    results: Streaming<PutResult>,
    progress: Progress,
    /// The server's bronze, where it is certain to be of the very topic that is read, by its id.
    same: Option<Origin>,
}

impl Sink {
    pub(crate) fn new(config: &Config, metrics: &Metrics, context: service::Context) -> Result<Self, Error> {
        let dead_letters = DeadLetters::new(config, config.dead_letter_topic()?, metrics);
        Ok(Sink { config: config.clone(), dead_letters, metrics: metrics.clone(), context })
    }

    /// Runs a session until it is drained; `reached` tells how far it came.
    ///
    /// # Errors
    ///
    /// What ended it before. What it had not put durably is read again by the next one.
    pub(crate) async fn session(&self, source: &mut Source, reached: &mut Reached) -> Result<(), Error> {
        let shutdown = &self.context.shutdown;
        let Some(opened) = shutdown.run_until_cancelled(self.open(source)).await else { return Ok(()) };
        let Opened { assignment, messages, results, progress, same } = opened?;
        source.commit(progress.durable.clone());

        let (polled_sender, polled) = mpsc::channel(BATCHES_QUEUED_MAX);
        let position = progress.received.clone();
        let start = source.start(Start { assignment, position, polled: polled_sender });
        let Some(started) = shutdown.run_until_cancelled(start).await else { return Ok(()) };
        let ended = if let Err(error) = started {
            Err(error)
        } else {
            self.context.metrics.set_ready(SERVICE, Ok(()));
            *reached = Reached::Open;
            let forward = self.forward(polled, messages);
            exchange(forward, results, progress, shutdown, |durable| {
                *reached = Reached::Results;
                source.commit(durable);
            })
            .await
        };
        match (ended, same) {
            (Err(Error::TopicRecreated { partition, position, high, .. }), Some(origin)) => {
                let lost = OffsetRange { partition, first: high, next: position };
                self.not_ready(format!("writes {lost} back to topic {}, which Kafka has lost", origin.topic));
                let mut client =
                    transport::client::connect(&self.config.flight, &self.context.access.client).await?;
                refill(&mut client, &self.config, &origin.table, lost, shutdown).await?;
                Err(Error::Refilled { lost })
            }
            (ended, _) => ended,
        }
    }

    /// Waits for partitions, opens a put stream and asks the server how far it is.
    ///
    /// In this order: should the server die and come back in between, having lost its hot rows, then the stream is broken, and
    /// nothing can be put to it from a position that is no longer its own.
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

    /// Waits for partitions; says meanwhile if brokers refuse us.
    async fn assignment(&self, source: &mut Source) -> Result<Assignment, Error> {
        let mut told = String::new();
        loop {
            let refused = tokio::select! {
                assignment = source.assignment() => return assignment,
                refused = kafka::refused(&self.config.kafka) => refused,
            };
            let reason = refused.to_string();
            if reason != told {
                tracing::warn!("{reason}");
                self.not_ready(reason.clone());
            }
            told = reason;
        }
    }

    /// Reads messages, delivers dead letters, then puts; returns what was put, once there is no more.
    async fn forward(
        &self,
        mut polled: mpsc::Receiver<Result<Messages, Error>>,
        messages: mpsc::Sender<FlightData>,
    ) -> Result<Position, Error> {
        let mut put = Position::default();
        while let Some(unread) = polled.recv().await {
            let unread = unread?;
            // Milliseconds of a core, which the thread that polls cannot spare.
            let read = tokio::task::spawn_blocking(move || Batch::read(unread.range(), unread.iter()));
            let Batch { range, rows, dead_letters } =
                read.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
            self.dead_letters.deliver(range, &dead_letters).await?;
            for message in transport::stream::encode_put(&rows, range)? {
                self.metrics.bytes.inc_by(message.data_body.len() as u64);
                messages.send(message).await.map_err(|_closed| Error::PutEnded)?;
            }
            failpoint::pass("ingest.put");
            self.metrics.batches.inc();
            self.metrics.records.inc_by(rows.num_rows() as u64);
            put.advance(range);
        }
        Ok(put)
    }

    fn not_ready(&self, reason: String) {
        self.context.metrics.set_ready(SERVICE, Err(reason));
    }
}

/// Checks that the server's bronze is of the topic that is read, and returns what it is.
fn check_origin(topic: &Topic, origin: Option<Origin>) -> Result<Origin, Error> {
    match origin {
        None => Err(Error::ServerOutdated),
        Some(origin) if origin.topic.matches(topic) => Ok(origin),
        Some(origin) => Err(Error::OtherTopic { read: topic.clone(), held: origin.topic }),
    }
}

/// Puts batches and takes results until all that was put before a drain is received.
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
                // The server has ended the stream: its results say why.
                Err(Error::PutEnded) => tokio::time::timeout(REASON_MAX, reason(&mut results)).await.unwrap_or(None),
                Err(error) => return Err(error),
            },
            () = tokio::time::sleep_until(drained_by), if put.is_some() => {
                tracing::warn!("the server did not confirm the last batches in time: they are read again at the next start");
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
