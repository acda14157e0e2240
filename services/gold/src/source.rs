//! Reads bronze from the Flight server: the stream of all new batches, and the history around late candles.

use std::pin::pin;
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use position::{Origin, Position};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use proto::ticket::{Follow, History, Ticket};
use schema::RangedBatch;
use service::backoff::Backoff;
use service::metrics::Metrics;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use transport::client::{self, Client, ClientError};

use crate::error::Error;
use crate::metrics::PartitionLabel;
use crate::{NAME, queue};

/// Period of the lag measurement: scrapes are at least a few seconds apart.
const LAG_PERIOD: Duration = Duration::from_secs(1);

/// A connection to the Flight server. It opens when first needed, and again after a failure.
#[derive(Debug)]
pub(crate) struct Connection {
    address: String,
    identity: access::Identity,
    client: Option<Client>,
}

/// The stream of bronze.
#[derive(Debug)]
pub(crate) struct Source {
    connection: Connection,
    /// Bronze table whose offsets the cursor counts.
    table: String,
    metrics: Metrics,
}

/// The side that ended a stream without a failure.
enum Ended {
    Server,
    NextStage,
}

impl Connection {
    pub(crate) fn new(address: &str, identity: &access::Identity) -> Self {
        Connection { address: address.to_owned(), identity: identity.clone(), client: None }
    }

    pub(crate) async fn client(&mut self) -> Result<&mut Client, ClientError> {
        match &mut self.client {
            Some(client) => Ok(client),
            none => Ok(none.insert(client::connect(&self.address, &self.identity).await?)),
        }
    }

    pub(crate) fn close(&mut self) {
        self.client = None;
    }
}

impl Source {
    pub(crate) fn new(connection: Connection, table: &str, metrics: Metrics) -> Self {
        Source { connection, table: table.to_owned(), metrics }
    }

    /// Follows bronze from `cursor` until `until`, if given, or `stop`, and reconnects after each restart of the server.
    ///
    /// # Errors
    ///
    /// [`Error::Flight`] that is not transient, [`Error::Gap`], [`Error::Schema`].
    pub(crate) async fn follow(
        mut self,
        mut cursor: Position,
        until: Option<Position>,
        batches: queue::Sender<RangedBatch>,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let mut backoff = Backoff::default();
        loop {
            let follow = self.follow_once(&mut cursor, until.as_ref(), &batches, &mut backoff);
            match stop.run_until_cancelled(follow).await {
                None | Some(Ok(Ended::NextStage)) => return Ok(()),
                Some(Ok(Ended::Server)) if until.as_ref().is_some_and(|until| cursor.has_reached(until)) => {
                    return Ok(());
                }
                Some(Ok(Ended::Server)) => {
                    tracing::info!(%cursor, "the Flight server ended the stream, following it again");
                }
                Some(Err(error)) if error.is_transient() => warn(&error, "follow bronze, trying again"),
                Some(Err(error)) => return Err(error),
            }
            self.metrics.set_ready(NAME, Err("waiting for the Flight server".to_owned()));
            self.connection.close();
            if !backoff.pause(&stop).await {
                return Ok(());
            }
        }
    }

    async fn follow_once(
        &mut self,
        cursor: &mut Position,
        until: Option<&Position>,
        batches: &queue::Sender<RangedBatch>,
        backoff: &mut Backoff,
    ) -> Result<Ended, Error> {
        let follow = Follow { until: until.cloned(), ..Follow::from(cursor.clone()) };
        let ticket = Ticket::Bronze(follow.of_table(self.table.clone()));
        let mut stream = pin!(client::read(self.connection.client().await?, &ticket).await?);
        self.metrics.set_ready(NAME, Ok(()));
        while let Some(batch) = stream.try_next().await? {
            backoff.reset();
            check(cursor, &batch)?;
            let range = batch.range;
            if batches.send(batch.rows.num_rows(), batch).await.is_err() {
                return Ok(Ended::NextStage);
            }
            cursor.advance(range);
        }
        Ok(Ended::Server)
    }
}

/// Requests the topic and the bronze table of the Flight server's positions.
///
/// # Errors
///
/// [`Error::Flight`], [`Error::ServerOutdated`], [`Error::OtherTopic`].
pub(crate) async fn origin(connection: &mut Connection, topic: &str) -> Result<Origin, Error> {
    let progress = client::progress(connection.client().await?).await?;
    match progress.origin {
        None => Err(Error::ServerOutdated),
        Some(origin) if origin.topic.name == topic => Ok(origin),
        Some(origin) => Err(Error::OtherTopic { found: origin.topic.name, expected: topic.to_owned() }),
    }
}

/// Checks that a batch has the bronze schema and begins at the cursor.
pub(crate) fn check(cursor: &Position, RangedBatch { range, rows }: &RangedBatch) -> Result<(), Error> {
    let range = *range;
    if rows.schema_ref().fields() != schema::bronze::schema().fields() {
        return Err(Error::Schema { range });
    }
    match cursor.next(range.partition) {
        Some(expected) if expected != range.first => Err(Error::Gap { expected, range }),
        _ => Ok(()),
    }
}

/// Reads histories, several of them concurrently.
#[derive(Debug)]
pub(crate) struct Histories {
    connection: Mutex<Connection>,
    table: String,
    stop: CancellationToken,
}

impl Histories {
    pub(crate) fn new(connection: Connection, table: &str, stop: CancellationToken) -> Self {
        Histories { connection: Mutex::new(connection), table: table.to_owned(), stop }
    }

    /// Reads one history and retries transient failures. Returns `None` if stopped first.
    ///
    /// # Errors
    ///
    /// [`Error::Flight`] that is not transient.
    pub(crate) async fn read(&self, history: &History) -> Result<Option<Vec<RecordBatch>>, Error> {
        let mut backoff = Backoff::default();
        loop {
            let error = match self.stop.run_until_cancelled(self.read_once(history)).await {
                None => return Ok(None),
                Some(Ok(batches)) => return Ok(Some(batches)),
                Some(Err(error)) => error,
            };
            self.connection.lock().await.close();
            let report = |error: &Error| warn(error, "read history, trying again");
            if let Err(gave_up) = backoff.after(error, Error::is_transient, report, &self.stop).await {
                return gave_up.unless_stopped().map(|()| None);
            }
        }
    }

    async fn read_once(&self, history: &History) -> Result<Vec<RecordBatch>, Error> {
        let mut client = self.connection.lock().await.client().await?.clone();
        let history = History { table: Some(self.table.clone()), ..history.clone() };
        let stream = client::read(&mut client, &Ticket::History(history)).await?;
        Ok(stream.map_ok(|batch| batch.rows).try_collect().await?)
    }
}

/// Measures the number of offsets that bronze has received and `committed` has not reached, until `stop`.
///
/// # Errors
///
/// None, because the follower reports an unreachable server. The gauge then keeps its last value.
pub(crate) async fn measure_lag(
    mut connection: Connection,
    committed: watch::Receiver<Position>,
    lag: Family<PartitionLabel, Gauge>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut ticks = tokio::time::interval(LAG_PERIOD);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let progress = async { client::progress(connection.client().await?).await };
        match stop.run_until_cancelled(progress).await {
            None => break,
            Some(Err(_)) => connection.close(),
            Some(Ok(progress)) => {
                for (partition, next) in progress.received.iter() {
                    let reached = committed.borrow().next(partition).unwrap_or(0);
                    lag.get_or_create(&PartitionLabel { partition }).set((next - reached).max(0));
                }
            }
        }
    }
    Ok(())
}

fn warn(error: &Error, doing: &str) {
    tracing::warn!(error = error as &dyn std::error::Error, "{doing}");
}
