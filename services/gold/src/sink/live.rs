//! Gold for those who follow it: what PostgreSQL has committed is put to the Flight server, which hands it on.
//!
//! Only what is committed, so that no follower sees a row that a crash takes back. And only as far as it goes by itself: nothing waits for
//! the server, and what cannot be sent at once is left out, since followers find it in the gold table after its next flush.

use futures::{SinkExt, StreamExt};
use service::backoff::Backoff;
use tokio_util::sync::CancellationToken;
use transport::client::{self, ClientError};
use transport::descriptor::put_gold;
use transport::stream::{encode_schema, encode_upserts};

use crate::error::Error;
use crate::queue;
use crate::sink::Computed;
use crate::source::Connection;

/// Most rows of one transaction that are sent: more is a backlog, where gold has better to do. At 200 bytes a row they fit in one message,
/// as the server wants it.
const ROWS_MAX: usize = 4096;
/// Most rows that wait to be sent: 3 MB, and minutes of a live stream.
const QUEUE_ROWS_MAX: u32 = 16_384;

/// The end that takes batches.
#[derive(Debug)]
pub(crate) struct Sender(queue::Sender<Computed>);

/// The sink.
#[derive(Debug)]
pub(crate) struct Sink {
    batches: queue::Receiver<Computed>,
    connection: Connection,
}

/// Makes the sink and the end that feeds it.
pub(crate) fn open(connection: Connection) -> (Sender, Sink) {
    let (sender, batches) = queue::bounded(QUEUE_ROWS_MAX);
    (Sender(sender), Sink { batches, connection })
}

impl Sender {
    /// Hands over what one transaction has committed, or leaves it out; never waits.
    pub(crate) fn offer(&self, committed: Vec<Computed>) {
        if committed.iter().map(|computed| computed.rows.num_rows()).sum::<usize>() > ROWS_MAX {
            return;
        }
        for computed in committed {
            // A full queue and a sink that has ended are the same to gold.
            if !self.0.try_send(computed.rows.num_rows(), computed) {
                return;
            }
        }
    }
}

impl Sink {
    /// Sends what is offered, over any number of the server's restarts, until gold ends or `stop`.
    ///
    /// # Errors
    ///
    /// None: followers then read from the files.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        let mut backoff = Backoff::default();
        loop {
            match stop.run_until_cancelled(self.put(&mut backoff)).await {
                None | Some(Ok(())) => return Ok(()),
                Some(Err(error)) if error.is_transient() => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "put live gold, trying again");
                }
                Some(Err(error)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the Flight server does not take live gold; its followers read from the gold table"
                    );
                }
            }
            self.connection.close();
            if !backoff.pause(&stop).await {
                return Ok(());
            }
        }
    }

    /// Puts until gold ends or the put does.
    async fn put(&mut self, backoff: &mut Backoff) -> Result<(), ClientError> {
        let schema = encode_schema(&schema::gold::schema()).with_descriptor(put_gold());
        let (mut messages, queued) = futures::channel::mpsc::channel(1);
        messages.send(schema).await.map_err(|_| ClientError::Ended)?;
        let mut answers = client::put(self.connection.client().await?, queued).await?;
        loop {
            let waiting = tokio::select! {
                // The server says nothing but why it ends.
                ended = answers.next() => return ended.transpose().and(Err(ClientError::Ended)),
                waiting = self.batches.recv_all() => waiting,
            };
            if waiting.is_empty() {
                return Ok(());
            }
            for Computed { range, rows, .. } in waiting {
                for message in
                    encode_upserts(&rows, range).map_err(|error| ClientError::Stream(error.into()))?
                {
                    messages.send(message).await.map_err(|_| ClientError::Ended)?;
                }
            }
            backoff.reset();
        }
    }
}
