//! End of the walk: decodes messages, delivers dead letters, and puts the rows.

use arrow_flight::FlightData;
use position::Position;
use tokio::sync::mpsc;

use crate::dead_letter::DeadLetters;
use crate::decoded_batch::DecodedBatch;
use crate::metrics::Metrics;
use crate::raw_batch::RawBatch;
use crate::{Config, Error};

/// Sink of all sessions.
pub(crate) struct Sink {
    dead_letters: DeadLetters,
    metrics: Metrics,
}

impl Sink {
    pub(crate) fn new(config: &Config, metrics: &Metrics) -> Result<Self, Error> {
        let dead_letters = DeadLetters::new(config, config.dead_letter_topic()?, metrics);
        Ok(Sink { dead_letters, metrics: metrics.clone() })
    }

    /// Forwards messages to an open put. Dead letters are delivered before their batch is put. Returns the position of all that was put,
    /// when no more messages come.
    pub(crate) async fn forward(
        &self,
        mut polled: mpsc::Receiver<Result<RawBatch, Error>>,
        messages: mpsc::Sender<FlightData>,
    ) -> Result<Position, Error> {
        let mut put = Position::default();
        while let Some(raw) = polled.recv().await {
            let raw = raw?;
            // Decoding takes milliseconds of CPU time, too much for the thread that polls.
            let decoded =
                tokio::task::spawn_blocking(move || DecodedBatch::decode(raw.range(), raw.iter())).await;
            let DecodedBatch { batch, dead_letters } =
                decoded.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
            self.dead_letters.deliver(batch.range, &dead_letters).await?;
            for message in transport::stream::encode_put(&batch)? {
                self.metrics.bytes.inc_by(message.data_body.len() as u64);
                messages.send(message).await.map_err(|_closed| Error::PutEnded)?;
            }
            failpoint::pass("ingest.put");
            self.metrics.batches.inc();
            self.metrics.records.inc_by(batch.rows.num_rows() as u64);
            put.advance(batch.range);
        }
        Ok(put)
    }
}
