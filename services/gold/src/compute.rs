//! The stage between the source and the sinks. Computes the rows that each run of offsets changes, in pieces that change a bounded number
//! of rows.
//!
//! A late candle changes every row of the next 30 minutes, so a run can change many times as many rows as it contains. The number depends
//! on the candles around the late ones and is not known in advance. If a piece changes too many rows, its result is dropped and the piece
//! is halved. The next piece starts with the size that worked.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use futures::{StreamExt, TryStreamExt};
use position::Position;
use prometheus_client::metrics::counter::Counter;
use proto::ticket::History;
use schema::RangedBatch;
use schema::bronze::column;

use crate::aside::Aside;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::queue;
use crate::rows::Rows;
use crate::run::{self, Run};
use crate::source::Histories;
use crate::state::GoldBatch;
use crate::window::{Arrivals, Change, Window};

/// Maximum number of gold rows that a piece of more than one candle changes: 25 MB. An ordered backlog changes half this number at once.
pub(crate) const CHANGED_ROWS_MAX: usize = 131_072;
/// Maximum number of histories that are read concurrently. After a restart each symbol needs one, and a read mostly waits for the server.
const HISTORIES_AT_ONCE: usize = 8;

/// The stage.
#[derive(Debug)]
pub(crate) struct Computing {
    pub(crate) batches: queue::Receiver<RangedBatch>,
    pub(crate) histories: Histories,
    pub(crate) pieces: Pieces,
    pub(crate) sinks: Vec<queue::Sender<GoldBatch>>,
    pub(crate) metrics: Metrics,
}

/// The window, and the largest size of the next piece of a run.
#[derive(Debug)]
pub(crate) struct Pieces {
    window: Window,
    changed_rows_max: usize,
    rows_max: usize,
}

/// Outcome of a piece.
enum Outcome {
    Computed(GoldBatch),
    /// The piece changes too many rows. The window is in the state before the piece.
    TooLarge,
    /// The service is shutting down.
    Stopped,
}

impl Computing {
    /// Computes the batches of the source until the source or a sink ends, and returns the window. All waiting batches of a partition are
    /// computed together.
    pub(crate) async fn run(mut self) -> Result<Pieces, Error> {
        let read = async |history: &History| self.histories.read(history).await;
        loop {
            let batches = self.batches.recv_all().await;
            if batches.is_empty() {
                return Ok(self.pieces);
            }
            for run in run::join(batches) {
                let mut rest = Some(run);
                while let Some(run) = rest {
                    let next = self.pieces.next(&run, &read, &self.metrics.late_reads).await?;
                    let Some((computed, behind)) = next else { return Ok(self.pieces) };
                    rest = behind;
                    failpoint::pass("gold.computed");
                    let rows = computed.batch.rows.num_rows().max(computed.asides.len());
                    for sink in &self.sinks {
                        if sink.send(rows, computed.clone()).await.is_err() {
                            // A sink has failed, and returns its own error.
                            return Ok(self.pieces);
                        }
                    }
                }
            }
        }
    }
}

impl Pieces {
    /// Starts with a window. No piece changes more than `changed_rows_max` rows, unless it has only one candle.
    pub(crate) fn new(window: Window, changed_rows_max: usize) -> Self {
        Pieces { window, changed_rows_max, rows_max: changed_rows_max }
    }

    /// Returns true if the window is at `position`.
    pub(crate) fn is_at(&self, position: &Position) -> bool {
        self.window.reached() == position
    }

    /// Computes the gold rows that the first part of a run changes. Returns these rows and the rest of the run, or `None` if the service
    /// shuts down before the history is read.
    #[expect(clippy::future_not_send, reason = "the stage has its own thread")]
    pub(crate) async fn next(
        &mut self,
        run: &Run,
        read: &impl AsyncFn(&History) -> Result<Option<Vec<RecordBatch>>, Error>,
        late_reads: &Counter,
    ) -> Result<Option<(GoldBatch, Option<Run>)>, Error> {
        loop {
            let (piece, rest) = run.split(self.rows_max);
            let row_count = piece.row_count();
            let most = if row_count > 1 { self.changed_rows_max } else { usize::MAX };
            match self.compute(&piece, most, read, late_reads).await? {
                Outcome::Stopped => return Ok(None),
                Outcome::TooLarge => self.rows_max = row_count / 2,
                Outcome::Computed(computed) => {
                    self.window.advance(piece.range);
                    report_split(&self.window.take_split());
                    if computed.batch.rows.num_rows() <= self.changed_rows_max / 2 {
                        self.rows_max = self.rows_max.saturating_mul(2).min(self.changed_rows_max);
                    }
                    return Ok(Some((computed, rest)));
                }
            }
        }
    }

    #[expect(clippy::future_not_send, reason = "the stage has its own thread")]
    async fn compute(
        &mut self,
        piece: &Run,
        most: usize,
        read: &impl AsyncFn(&History) -> Result<Option<Vec<RecordBatch>>, Error>,
        late_reads: &Counter,
    ) -> Result<Outcome, Error> {
        let window = &mut self.window;
        let arrivals = Arrivals::of(piece);
        let unread = async |history: History| Ok::<_, Error>((read(&history).await?, history));
        let mut reads =
            futures::stream::iter(window.unread(&arrivals)).map(unread).buffered(HISTORIES_AT_ONCE);
        while let Some((candles, history)) = reads.try_next().await? {
            let Some(candles) = candles else { return Ok(Outcome::Stopped) };
            window.remember(history, &candles);
        }
        let mut rows = Rows::default();
        let late = async |change: Change| {
            let Some(history) = change.history() else { return Ok((Some(Vec::new()), change)) };
            late_reads.inc();
            Ok::<_, Error>((read(history).await?, change))
        };
        let mut reads = futures::stream::iter(window.apply(arrivals)).map(late).buffered(HISTORIES_AT_ONCE);
        while let Some((candles, change)) = reads.try_next().await? {
            let Some(candles) = candles else { return Ok(Outcome::Stopped) };
            window.compute(&change, &candles, &mut rows);
            if rows.len() > most {
                window.forget(&Arrivals::of(piece));
                return Ok(Outcome::TooLarge);
            }
        }
        let arrived = piece.batches.iter().flat_map(|batch| {
            let times = batch.column(column::KAFKA_TIME).as_primitive::<TimestampMicrosecondType>();
            times.values().iter().copied()
        });
        let rows = rows.finish(service::clock::now_micros());
        Ok(Outcome::Computed(GoldBatch {
            batch: RangedBatch { range: piece.range, rows },
            asides: piece.batches.iter().flat_map(Aside::of).collect(),
            arrived: arrived.collect::<Arc<[i64]>>(),
        }))
    }
}

/// Logs the symbols that now come from more than one partition.
fn report_split(symbols: &[String]) {
    let Some(symbol) = symbols.first() else { return };
    tracing::warn!(
        symbol,
        count = symbols.len(),
        "symbols come from more than one partition: a producer does not use the symbol as key, producers use different partitioners, or partitions \
         were added; gold uses all candles, and for each event time the one that was produced last"
    );
}
