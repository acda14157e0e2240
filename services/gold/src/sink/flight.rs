//! Gold for live followers. Rows that PostgreSQL has committed are put to the Flight server, which sends them to its followers.
//!
//! Only committed rows are sent, so no follower sees a row that a crash undoes. Sending is best effort: nothing waits for the server, and
//! rows that cannot be sent at once are dropped. Followers read the dropped rows from the gold table after its next flush.

use futures::{SinkExt, StreamExt};
use service::backoff::Backoff;
use tokio_util::sync::CancellationToken;
use transport::client::{self, ClientError};
use transport::descriptor::put_gold;
use transport::stream::{encode_schema, encode_upserts};

use crate::error::Error;
use crate::queue;
use crate::source::Connection;
use crate::state::GoldBatch;

/// Maximum number of rows of one transaction that are sent. More rows are a backlog, and gold then works on that first. At 200 bytes a row
/// they fit in one message of the Flight server.
const ROWS_MAX: usize = 4096;
/// Maximum number of rows that wait to be sent: 3 MB, or several minutes of a live stream.
const QUEUE_ROWS_MAX: u32 = 16_384;

/// The end that accepts batches.
#[derive(Debug)]
pub(crate) struct Sender(queue::Sender<GoldBatch>);

/// The sink.
#[derive(Debug)]
pub(crate) struct Sink {
    batches: queue::Receiver<GoldBatch>,
    connection: Connection,
}

/// Creates the sink and its sending end.
pub(crate) fn open(connection: Connection) -> (Sender, Sink) {
    let (sender, batches) = queue::bounded(QUEUE_ROWS_MAX);
    (Sender(sender), Sink { batches, connection })
}

impl Sender {
    /// Offers the rows that one transaction has committed. Drops the rows if the queue is full. Never waits.
    pub(crate) fn offer(&self, committed: Vec<GoldBatch>) {
        if committed.iter().map(|computed| computed.batch.rows.num_rows()).sum::<usize>() > ROWS_MAX {
            return;
        }
        for computed in committed {
            // Gold treats a full queue and an ended sink alike.
            if !self.0.try_send(computed.batch.rows.num_rows(), computed) {
                return;
            }
        }
    }
}

impl Sink {
    /// Sends the offered rows until gold ends or `stop`, and reconnects after each restart of the server.
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
                        "the Flight server does not accept live gold; its followers read from the gold table"
                    );
                }
            }
            self.connection.close();
            if !backoff.pause(&stop).await {
                return Ok(());
            }
        }
    }

    /// Puts rows until gold or the put ends.
    async fn put(&mut self, backoff: &mut Backoff) -> Result<(), ClientError> {
        let schema = encode_schema(&schema::gold::schema()).with_descriptor(put_gold());
        let (mut messages, queued) = futures::channel::mpsc::channel(1);
        messages.send(schema).await.map_err(|_| ClientError::Ended)?;
        let mut answers = client::put(self.connection.client().await?, queued).await?;
        loop {
            let waiting = tokio::select! {
                // The server sends only the error that ends the put.
                ended = answers.next() => return ended.transpose().and(Err(ClientError::Ended)),
                waiting = self.batches.recv_all() => waiting,
            };
            if waiting.is_empty() {
                return Ok(());
            }
            for GoldBatch { batch, .. } in waiting {
                for message in encode_upserts(&batch).map_err(|error| ClientError::Stream(error.into()))? {
                    messages.send(message).await.map_err(|_| ClientError::Ended)?;
                }
            }
            backoff.reset();
        }
    }
}
