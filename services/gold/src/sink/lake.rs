//! Gold in the lake. Rows are buffered, and a flush commits them with the position that they reach.

use std::time::Duration;

use ::lake::{Lake, LakeError, Maintenance, Snapshot, Table};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::prelude::SessionContext;
use position::Origin;
use schema::RangedBatch;
use service::backoff::{Backoff, GaveUp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::queue;
use crate::state::{GoldBatch, NewestBySymbol, SinkState};

/// Minimum number of rows that are flushed as soon as no more arrive for [`QUIET`]. They are a processed backlog, whose end need not wait
/// for the interval.
const QUIET_ROWS_MIN: usize = 10_000;
/// Pause in the input that ends a backlog: far longer than the pause between two batches of a backlog.
const QUIET: Duration = Duration::from_millis(500);
/// Longest time that a replaced file stays for readers of older versions.
const VACUUM_RETENTION: Duration = Duration::from_hours(1);
/// Name of this sink in errors.
const SINK: &str = "the lake";
/// Name of the gold table in queries.
const TABLE: &str = "gold";

/// Gold in the lake at a position, and the rows that wait for the next flush.
#[derive(Debug)]
pub(crate) struct Sink {
    table: Table,
    state: SinkState,
    flush_interval: Duration,
    flush_rows_max: usize,
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    /// Time at which the first waiting row arrived.
    waiting_since: Option<Instant>,
    maintenance: Maintenance,
    metrics: Metrics,
}

impl Sink {
    /// Opens the gold table, or creates it if it does not exist, and reads its position. Checks that its rows were computed from `origin`,
    /// or empties the table if `rebuild` is set. The state of `postgres` may save reading the newest event times.
    ///
    /// # Errors
    ///
    /// [`Error::OtherBronze`], [`Error::Lake`], [`Error::Query`].
    pub(crate) async fn open(
        config: &Config,
        origin: &Origin,
        rebuild: bool,
        postgres: &SinkState,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let failed = Error::lake("open");
        let lake = Lake::open(&config.lake).await.map_err(&failed)?;
        let mut table = Table::open(&lake, ::lake::gold(&config.kafka.topic)).await.map_err(&failed)?;
        table.set_bronze_id(&origin.table);
        if rebuild {
            table.empty().await.map_err(Error::lake("empty"))?;
        }
        let snapshot = table.snapshot();
        if let Some(found) = snapshot.bronze_id().filter(|found| *found != origin.table)
            && !snapshot.position().is_empty()
        {
            return Err(Error::OtherBronze { sink: SINK, found: found.to_owned(), server: origin.clone() });
        }
        let state =
            SinkState { position: snapshot.position().clone(), newest: newest(snapshot, postgres).await? };
        metrics.lake.observe_position(&state.position);
        Ok(Sink {
            table,
            state,
            flush_interval: config.flush_interval,
            flush_rows_max: usize::try_from(config.flush_rows_max).unwrap_or(usize::MAX),
            waiting: Vec::new(),
            waiting_rows: 0,
            waiting_since: None,
            maintenance: Maintenance::new(VACUUM_RETENTION),
            metrics,
        })
    }

    /// Returns the position of the sink and its newest rows.
    pub(crate) fn state(&self) -> &SinkState {
        &self.state
    }

    /// Buffers the rows from `queue` and flushes them by number or by age. When the queue ends, flushes the rest and returns the sink.
    ///
    /// # Errors
    ///
    /// [`Error::Lake`] that is not transient, such as a commit of another writer, or the last transient one before `shutdown`.
    pub(crate) async fn run(
        mut self,
        mut queue: queue::Receiver<GoldBatch>,
        shutdown: CancellationToken,
    ) -> Result<Self, Error> {
        loop {
            let due = self.waiting_since.map(|since| {
                let due = since + self.flush_interval;
                if self.waiting_rows < QUIET_ROWS_MIN { due } else { due.min(Instant::now() + QUIET) }
            });
            let computed = match due {
                None => Some(queue.recv_all().await),
                Some(due) => tokio::time::timeout_at(due, queue.recv_all()).await.ok(),
            };
            match computed {
                None => self.flush(&shutdown).await?,
                Some(computed) if computed.is_empty() => {
                    self.flush(&shutdown).await?;
                    return Ok(self);
                }
                Some(computed) => {
                    self.push(computed);
                    if self.waiting_rows >= self.flush_rows_max {
                        self.flush(&shutdown).await?;
                    }
                }
            }
        }
    }

    fn push(&mut self, computed: Vec<GoldBatch>) {
        for computed in computed {
            if computed.is_held(&self.state.position) {
                continue;
            }
            let RangedBatch { range, rows } = computed.batch;
            self.state.position.advance(range);
            self.waiting_since.get_or_insert_with(Instant::now);
            if rows.num_rows() > 0 {
                self.waiting_rows += rows.num_rows();
                self.waiting.push(rows);
            }
        }
    }

    /// Commits the waiting rows. If all are later than the table's rows of their symbol, they are appended. If at least one is not, the
    /// files that may contain the same keys are rewritten.
    async fn flush(&mut self, shutdown: &CancellationToken) -> Result<(), Error> {
        if self.waiting_since.take().is_none() {
            return Ok(());
        }
        let batches = std::mem::take(&mut self.waiting);
        let rows = std::mem::take(&mut self.waiting_rows);
        let all_new = self.state.newest.split(&batches).updates.is_empty();
        failpoint::pass("gold.lake_before_flush");
        let begun = Instant::now();
        let mut backoff = Backoff::default();
        let report = |error: &Error| {
            tracing::warn!(error = error as &dyn std::error::Error, "flush gold, trying again");
        };
        while let Err(error) = self.commit(&batches, all_new).await.map_err(Error::lake("flush rows to")) {
            let retried = backoff.after(error, Error::is_transient, report, shutdown).await;
            retried.map_err(GaveUp::into_error)?;
        }
        self.metrics.lake.rows.inc_by(u64::try_from(rows).unwrap_or(u64::MAX));
        self.metrics.lake.observe_commit(&self.state.position);
        self.metrics.lake_flush_seconds.observe(begun.elapsed().as_secs_f64());
        tracing::debug!(rows, position = %self.state.position, all_new, "flushed gold to the lake");
        if !shutdown.is_cancelled() {
            self.maintenance.pass(&mut self.table, schema::date_of(service::clock::now_micros())).await;
        }
        Ok(())
    }

    async fn commit(&mut self, batches: &[RecordBatch], all_new: bool) -> Result<Snapshot, LakeError> {
        if all_new {
            self.table.append(batches, &self.state.position).await
        } else {
            self.table.upsert(batches, &self.state.position).await
        }
    }
}

/// Returns a query session that contains one version of the gold table, and the name of the table in it.
pub(crate) fn session(snapshot: Snapshot) -> Result<(SessionContext, &'static str), Error> {
    let session = SessionContext::new();
    session.register_table(TABLE, ::lake::provider(snapshot, Vec::new()))?;
    Ok((session, TABLE))
}

/// Returns the newest event time of each symbol.
///
/// If PostgreSQL is at or past the position of the lake, it has all symbols of the lake. The log then gives an upper bound for their event
/// times, and no file is read.
async fn newest(snapshot: Snapshot, postgres: &SinkState) -> Result<NewestBySymbol, Error> {
    if !postgres.position.covers(snapshot.position()) {
        return read_newest(snapshot).await;
    }
    let newest = postgres.newest.iter().filter_map(|(symbol, newest)| {
        let at_most = snapshot.newest_at_most(symbol)?;
        Some((symbol.to_owned(), at_most.min(newest)))
    });
    Ok(newest.collect())
}

/// Reads the newest event time of each symbol from two columns of the whole table.
async fn read_newest(snapshot: Snapshot) -> Result<NewestBySymbol, Error> {
    let (session, table) = session(snapshot)?;
    let (symbol, event_time) = (schema::SYMBOL, schema::EVENT_TIME);
    let query = format!("SELECT arrow_cast({symbol}, 'Utf8'), max({event_time}) FROM {table} GROUP BY 1");
    let batches = session.sql(&query).await?.collect().await?;
    let newest = batches.iter().flat_map(|batch| {
        let symbols = batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned);
        symbols.zip(batch.column(1).as_primitive::<TimestampMicrosecondType>().values().iter().copied())
    });
    Ok(newest.collect())
}
