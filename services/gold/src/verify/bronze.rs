//! Bronze as verify reads it from the Flight server. The offsets are checked, and every wait has a bound.

use std::pin::pin;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use futures::TryStreamExt;
use position::{Origin, Position};
use proto::ticket::{Follow, Ticket};
use schema::RangedBatch;
use schema::bronze::{KAFKA_OFFSET, KAFKA_PARTITION};
use tokio::time::{Instant, timeout};
use transport::client::{self, Client};

use super::Config;
use crate::error::Error;
use crate::source;

/// Pause between two requests for the position of bronze.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);

/// Bronze of a Flight server.
pub(super) struct Bronze {
    client: Client,
    /// Topic and table of its positions.
    pub(super) origin: Origin,
    /// Longest time without progress.
    patience: Duration,
}

/// Result of reading bronze.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Number of rows read.
    pub(super) rows: u64,
    /// Places where offsets are missing, duplicate or out of order.
    pub(super) faults: Vec<String>,
    reached: Position,
}

impl Bronze {
    /// Connects to the server, whose bronze must come from the topic.
    ///
    /// # Errors
    ///
    /// [`Error::Flight`], [`Error::ServerOutdated`], [`Error::OtherTopic`].
    pub(super) async fn connect(config: &Config) -> Result<Self, Error> {
        let mut connection = source::Connection::new(&config.flight, &config.access);
        let origin = source::origin(&mut connection, &config.kafka.topic).await?;
        Ok(Bronze { client: connection.client().await?.clone(), origin, patience: config.patience })
    }

    /// Returns the position that bronze has received.
    ///
    /// # Errors
    ///
    /// [`Error::Flight`].
    pub(super) async fn received(&mut self) -> Result<Position, Error> {
        Ok(client::progress(&mut self.client).await?.received)
    }

    /// Waits until bronze has all offsets below `until`. If bronze stops before that, returns the position at which it stopped.
    ///
    /// # Errors
    ///
    /// [`Error::Flight`].
    pub(super) async fn await_position(&mut self, until: &Position) -> Result<Option<Position>, Error> {
        let mut received = self.received().await?;
        let mut moved = Instant::now();
        while !received.has_reached(until) {
            if moved.elapsed() >= self.patience {
                return Ok(Some(received));
            }
            tokio::time::sleep(PROGRESS_PAUSE).await;
            let now = self.received().await?;
            if now != received {
                (received, moved) = (now, Instant::now());
            }
        }
        Ok(None)
    }

    /// Reads the offsets from `from` to `until` and passes on each batch.
    ///
    /// # Errors
    ///
    /// [`Error::Flight`], [`Error::Schema`], [`Error::BronzeSilent`].
    pub(super) async fn read(
        &mut self,
        from: &Position,
        until: &Position,
        mut each: impl FnMut(&RecordBatch),
    ) -> Result<Reading, Error> {
        let follow = Follow::from(from.clone()).until(until.clone());
        let ticket = Ticket::Bronze(follow.of_table(self.origin.table.clone()));
        let mut stream = pin!(client::read(&mut self.client, &ticket).await?);
        let mut reading = Reading::default();
        let silent = |_| Error::BronzeSilent { patience: self.patience };
        while let Some(batch) = timeout(self.patience, stream.try_next()).await.map_err(silent)?? {
            reading.push(&batch)?;
            each(&batch.rows);
        }
        reading.check_end(until);
        Ok(reading)
    }
}

impl Reading {
    fn push(&mut self, batch: &RangedBatch) -> Result<(), Error> {
        // A gap is a finding to report and not an error, so the cursor of this check is empty.
        source::check(&Position::default(), batch)?;
        let range = batch.range;
        if let Some(expected) = self.reached.next(range.partition).filter(|expected| *expected != range.first)
        {
            self.faults.push(format!("bronze sent {range} where offset {expected} was expected"));
        }
        if !has_own_offsets(batch) {
            self.faults.push(format!(
                "the rows of {range} have offsets that are duplicate, out of order or outside the range"
            ));
        }
        self.reached.advance(range);
        self.rows += batch.rows.num_rows() as u64;
        Ok(())
    }

    fn check_end(&mut self, until: &Position) {
        for (partition, next) in until.iter() {
            let reached = self.reached.next(partition).unwrap_or(0);
            if reached != next {
                self.faults.push(format!("partition {partition}: bronze ends at {reached}, not at {next}"));
            }
        }
    }
}

/// Returns true if the offsets of the rows ascend strictly and are in the range. A hole between two offsets is a dead letter or a missing
/// row: only the topic shows which.
fn has_own_offsets(RangedBatch { range, rows }: &RangedBatch) -> bool {
    let offsets = column(rows, KAFKA_OFFSET).as_primitive::<Int64Type>().values();
    let partitions = column(rows, KAFKA_PARTITION).as_primitive::<Int32Type>().values();
    offsets.windows(2).all(|pair| pair[0] < pair[1])
        && offsets.first().is_none_or(|first| *first >= range.first)
        && offsets.last().is_none_or(|last| *last < range.next)
        && partitions.iter().all(|partition| *partition == range.partition)
}

/// Returns the column of a bronze batch with this name.
pub(super) fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a dyn Array {
    batch.column_by_name(name).expect("the batch has the schema of bronze")
}
