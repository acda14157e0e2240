//! Gold in PostgreSQL. Rows and position are written in one transaction, so after a crash the table has both or neither.

mod asides;
mod encode;
pub(crate) mod frame;
pub(crate) mod migrate;
mod read;
mod source;

use std::pin::pin;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::DataType;
use bytes::{Bytes, BytesMut};
use deadpool_postgres::{Object, Pool, Transaction};
use futures::{SinkExt, TryFutureExt};
use position::{Origin, Position};
use service::backoff::Backoff;
use service::error::sentence;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_util::sync::CancellationToken;

use crate::aside::Aside;
use crate::connection::{Postgres, connect, end_with_us};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::queue;
use crate::sink::flight;
use crate::state::{GoldBatch, SinkState, Split, SymbolPartitions};
use kernel::Frame;

pub(crate) use encode::Micros;
pub(crate) use read::{read_position, snapshot};

use read::{check_encoding, read_newest, read_partitions};

/// The gold table.
pub(crate) const TABLE: &str = "bitcoin_gold_data";

/// Minimum number of new rows for a COPY. A COPY takes two more round trips than an INSERT, but each row is several times cheaper.
const COPY_ROWS_MIN: usize = 512;
/// Maximum number of rows in one INSERT: about 1.5 MB of parameters, of which PostgreSQL keeps several copies in memory.
const UPSERT_ROWS_MAX: usize = 8192;
/// Moves the partitions of a topic from one position to the next and returns the number of partitions moved. A partition without a position
/// gets its first one.
const MOVE: &str = "WITH step AS (\
        SELECT * FROM unnest($2::int4[], $3::int8[], $4::int8[]) AS step (partition, first, next)\
    ), moved AS (\
        UPDATE candleflight_position held SET next_offset = step.next FROM step \
        WHERE held.topic = $1 AND held.partition = step.partition AND held.next_offset = step.first RETURNING 1\
    ), made AS (\
        INSERT INTO candleflight_position (topic, partition, next_offset) \
        SELECT $1, partition, next FROM step WHERE first IS NULL ON CONFLICT DO NOTHING RETURNING 1\
    ) SELECT (SELECT count(*) FROM moved) + (SELECT count(*) FROM made)";
/// Size of a piece of COPY data: less than a millisecond of encoding between two awaits.
const COPY_BYTES: usize = 128 * 1024;
/// Longest wait for one statement of at most [`UPSERT_ROWS_MAX`] rows, or for one piece of a COPY: a hundred times the usual time.
const STATEMENT_TIME_MAX: Duration = Duration::from_mins(1);
/// Maximum number of doublings of the wait when a transaction is retried after a time-out. The limit is about an hour, so that no work is
/// retried without end.
const DOUBLINGS_MAX: u32 = 6;

/// A parameter and its type. A statement without a name sends both in one message. Behind a pooler that shares a connection between
/// clients, a named statement of one client would conflict with those of the next.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Gold in PostgreSQL at a position.
#[derive(Debug)]
pub struct Sink {
    pool: Pool,
    topic: String,
    state: SinkState,
    partitions: SymbolPartitions,
    statements: Statements,
    statement_time_max: Duration,
    metrics: Metrics,
}

/// Statements that contain column names, built from the schema.
#[derive(Debug)]
struct Statements {
    copy: String,
    upsert: String,
}

/// One transaction: the rows to write and the moves of the position.
#[derive(Debug, Default)]
struct Work {
    moves: Vec<Move>,
    /// Symbols whose partition is not in the table yet.
    new_symbols: SymbolPartitions,
    asides: Vec<Aside>,
    rows: Split,
    insert_count: usize,
    update_count: usize,
}

/// Step of a partition from the position that this process last wrote to the next.
#[derive(Debug)]
struct Move {
    partition: i32,
    from: Option<i64>,
    to: i64,
}

impl Sink {
    /// Connects, creates or migrates the tables, and reads their position. Checks that the rows were computed from `origin`, or empties the
    /// tables if `rebuild` is set.
    ///
    /// # Errors
    ///
    /// [`Error::PostgresUrl`], [`Error::Access`], [`Error::PostgresVersion`], [`Error::PostgresEncoding`], [`Error::OtherTopic`],
    /// [`Error::OtherBronze`], [`Error::Frame`] or [`Error::Postgres`]. Transient if PostgreSQL is unreachable or rejects the log-in.
    pub async fn open(
        postgres: &Postgres,
        origin: &Origin,
        rebuild: bool,
        frame: Frame,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let topic = origin.topic.name.as_str();
        let pool = postgres.pool()?;
        let mut client = connect(&pool).await?;
        check_encoding(&client).await?;
        migrate::migrate(&mut client).await?;
        if rebuild {
            source::empty(&mut client, origin).await?;
        }
        source::claim(&mut client, origin).await?;
        frame::settle(&client, topic, frame).await?;
        let transaction = snapshot(&mut client).await?;
        let position = read_position(&transaction, topic).await?;
        let newest = read_newest(&transaction).await?;
        let partitions = read_partitions(&transaction, topic).await?;
        drop(transaction);
        drop(client);
        let state = SinkState { position, newest };
        metrics.postgres.observe_position(&state.position);
        Ok(Sink {
            pool,
            topic: topic.to_owned(),
            state,
            partitions,
            statements: Statements::new(),
            statement_time_max: STATEMENT_TIME_MAX,
            metrics,
        })
    }

    /// Sets the longest wait for a statement.
    #[must_use]
    pub fn statement_time_max(self, statement_time_max: Duration) -> Self {
        Sink { statement_time_max, ..self }
    }

    /// Returns the position of the sink and its newest rows.
    pub fn state(&self) -> &SinkState {
        &self.state
    }

    /// Returns the partitions of each symbol's rows.
    pub fn partitions(&self) -> &SymbolPartitions {
        &self.partitions
    }

    /// Writes the rows from `queue` until the queue ends, and returns the sink. All waiting rows go in one transaction. After each
    /// transaction, sends the position to `reached` and the rows to `followers`.
    pub(crate) async fn run(
        mut self,
        mut queue: queue::Receiver<GoldBatch>,
        reached: watch::Sender<Position>,
        followers: Option<flight::Sender>,
        shutdown: CancellationToken,
    ) -> Result<Self, Error> {
        loop {
            let computed = queue.recv_all().await;
            if computed.is_empty() {
                return Ok(self);
            }
            self.write(&computed, &shutdown).await?;
            reached.send_replace(self.state.position.clone());
            if let Some(followers) = &followers {
                followers.offer(computed);
            }
        }
    }

    /// Writes rows and moves the position in one transaction, which is durable on return. Skips rows that the table already holds. Retries
    /// after lost connections and server restarts until `shutdown`.
    ///
    /// # Errors
    ///
    /// [`Error::Moved`] if another process has moved the position. [`Error::Postgres`] that is not transient, or the last transient one
    /// before `shutdown`.
    pub async fn write(&mut self, computed: &[GoldBatch], shutdown: &CancellationToken) -> Result<(), Error> {
        let mut position = self.state.position.clone();
        let mut new = Vec::new();
        for computed in computed {
            if !computed.is_held(&position) {
                position.advance(computed.batch.range);
                new.push(computed);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let rows = self.state.newest.split(new.iter().map(|computed| &computed.batch.rows));
        let new_symbols = self.partitions.missing(&new);
        let asides = new.iter().flat_map(|computed| computed.asides.iter().cloned()).collect();
        let work = Work::new(&self.state.position, &position, new_symbols, asides, rows);
        let begun = Instant::now();
        self.commit(&work, shutdown).await?;
        self.state.position = position;
        self.observe(&work, begun, &new);
        self.partitions.extend(&work.new_symbols);
        Ok(())
    }

    async fn commit(&self, work: &Work, shutdown: &CancellationToken) -> Result<(), Error> {
        let mut backoff = Backoff::default();
        let mut copy = work.insert_count >= COPY_ROWS_MIN;
        let mut again = false;
        let mut time_max = self.statement_time_max;
        let time_most = time_max * 2_u32.pow(DOUBLINGS_MAX);
        loop {
            let attempt = self.attempt(work, copy, again, time_max).await;
            if again && attempt.is_ok() {
                self.metrics.set_ready(Ok(()));
            }
            match attempt {
                Err(error) if copy && is_unique_violation(&error) => {
                    tracing::warn!("rows that should be new are already in PostgreSQL, replacing them");
                    copy = false;
                }
                Err(error) if error.is_transient() && !matches!(error, Error::Moved) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "commit gold rows, trying again"
                    );
                    self.metrics.set_ready(Err(sentence(&error)));
                    if matches!(error, Error::PostgresTimeout { .. }) {
                        time_max = (2 * time_max).min(time_most);
                    }
                    if !backoff.pause(shutdown).await {
                        return Err(error);
                    }
                    again = true;
                }
                result => return result,
            }
        }
    }

    /// Tries the transaction once. If `again` is set, first checks whether the previous attempt was committed after all.
    async fn attempt(&self, work: &Work, copy: bool, again: bool, time_max: Duration) -> Result<(), Error> {
        let mut client = in_time(time_max, connect(&self.pool)).await?;
        let result = self.transact(&mut client, work, copy, again, time_max).await;
        if result.is_err() {
            // The connection does not return to the pool, since its state is unknown.
            drop(Object::take(client));
        }
        result
    }

    /// Runs the transaction. The limit `time_max` applies to each step, since a large transaction has many.
    async fn transact(
        &self,
        client: &mut Object,
        work: &Work,
        copy: bool,
        again: bool,
        time_max: Duration,
    ) -> Result<(), Error> {
        let failed = Error::postgres("commit gold rows");
        let transaction = in_time(time_max, client.transaction().map_err(&failed)).await?;
        if again {
            let position = in_time(time_max, read_position(&transaction, &self.topic)).await?;
            if work.has_landed(&position) {
                return Ok(());
            }
        }
        let first = async {
            // The statements are pipelined without waiting for an answer. If the position does not move, the transaction is rolled back
            // with its rows.
            futures::try_join!(
                end_with_us(&transaction),
                self.move_position(&transaction, work),
                self.insert_symbols(&transaction, work),
                asides::write(&transaction, &self.topic, &work.asides),
            )
        };
        futures::try_join!(in_time(time_max, first), self.write_rows(&transaction, work, copy, time_max))?;
        failpoint::pass("gold.postgres_before_commit");
        in_time(time_max, transaction.commit().map_err(&failed)).await?;
        failpoint::pass("gold.postgres_committed");
        Ok(())
    }

    async fn move_position(&self, transaction: &Transaction<'_>, work: &Work) -> Result<(), Error> {
        let partitions: Vec<i32> = work.moves.iter().map(|step| step.partition).collect();
        let from: Vec<Option<i64>> = work.moves.iter().map(|step| step.from).collect();
        let to: Vec<i64> = work.moves.iter().map(|step| step.to).collect();
        let parameters: [Parameter<'_>; 4] = [
            (&self.topic, Type::TEXT),
            (&partitions, Type::INT4_ARRAY),
            (&from, Type::INT8_ARRAY),
            (&to, Type::INT8_ARRAY),
        ];
        let moved = transaction.query_typed_one(MOVE, &parameters).await;
        let moved: i64 = moved.map_err(Error::postgres("move the position"))?.get(0);
        if usize::try_from(moved).is_ok_and(|moved| moved == work.moves.len()) {
            Ok(())
        } else {
            Err(Error::Moved)
        }
    }

    async fn insert_symbols(&self, transaction: &Transaction<'_>, work: &Work) -> Result<(), Error> {
        let (symbols, partitions): (Vec<&str>, Vec<i32>) = work.new_symbols.iter().unzip();
        if symbols.is_empty() {
            return Ok(());
        }
        let insert = "INSERT INTO candleflight_symbol (topic, symbol, partition) \
                      SELECT $1, * FROM unnest($2::text[], $3::int4[]) ON CONFLICT DO NOTHING";
        let parameters: [Parameter<'_>; 3] =
            [(&self.topic, Type::TEXT), (&symbols, Type::TEXT_ARRAY), (&partitions, Type::INT4_ARRAY)];
        let inserted = transaction.execute_typed(insert, &parameters).await;
        inserted.map_err(Error::postgres("write the partitions of symbols")).map(drop)
    }

    async fn write_rows(
        &self,
        transaction: &Transaction<'_>,
        work: &Work,
        copy: bool,
        time_max: Duration,
    ) -> Result<(), Error> {
        let Split { inserts, updates } = &work.rows;
        if copy {
            self.copy(transaction, inserts, time_max).await?;
        } else if let Some(first) = inserts.first() {
            let inserts = concat_batches(first.schema_ref(), inserts).expect("all are of the gold schema");
            self.upsert(transaction, &inserts, time_max).await?;
        }
        for batch in updates {
            self.upsert(transaction, batch, time_max).await?;
        }
        Ok(())
    }

    async fn copy(
        &self,
        transaction: &Transaction<'_>,
        batches: &[RecordBatch],
        time_max: Duration,
    ) -> Result<(), Error> {
        let failed = Error::postgres("copy gold rows");
        // `copy_in` prepares a named statement. The name exists only within the transaction, so poolers accept it.
        let begin =
            async { transaction.copy_in::<_, Bytes>(self.statements.copy.as_str()).await.map_err(&failed) };
        let mut data = pin!(in_time(time_max, begin).await?);
        let mut bytes = BytesMut::with_capacity(COPY_BYTES + 1024);
        bytes.extend_from_slice(encode::COPY_HEADER);
        for batch in batches {
            let columns = encode::columns(batch);
            for row in 0..batch.num_rows() {
                encode::write_row(&columns, row, &mut bytes);
                if bytes.len() >= COPY_BYTES {
                    in_time(time_max, data.send(bytes.split().freeze()).map_err(&failed)).await?;
                }
            }
        }
        bytes.extend_from_slice(encode::COPY_TRAILER);
        let end = async {
            data.send(bytes.freeze()).await.map_err(&failed)?;
            data.finish().await.map_err(&failed)
        };
        in_time(time_max, end).await?;
        Ok(())
    }

    async fn upsert(
        &self,
        transaction: &Transaction<'_>,
        batch: &RecordBatch,
        time_max: Duration,
    ) -> Result<(), Error> {
        let failed = Error::postgres("upsert gold rows");
        for first in (0..batch.num_rows()).step_by(UPSERT_ROWS_MAX) {
            let piece = batch.slice(first, UPSERT_ROWS_MAX.min(batch.num_rows() - first));
            let columns = encode::columns(&piece);
            let parameters: Vec<Parameter<'_>> =
                columns.iter().map(|column| (column as _, column.array_type())).collect();
            let statement = async {
                transaction.execute_typed(&self.statements.upsert, &parameters).await.map_err(&failed)
            };
            in_time(time_max, statement).await?;
        }
        Ok(())
    }

    fn observe(&self, work: &Work, begun: Instant, new: &[&GoldBatch]) {
        let count = |rows: usize| u64::try_from(rows).unwrap_or(u64::MAX);
        self.metrics.postgres.rows.inc_by(count(work.insert_count + work.update_count));
        self.metrics.postgres.observe_commit(&self.state.position);
        self.metrics.corrections.inc_by(count(work.update_count));
        asides::report(&self.topic, &work.asides, &self.metrics);
        self.metrics.postgres_commit_seconds.observe(begun.elapsed().as_secs_f64());
        let now = service::clock::now_micros();
        for produced in new.iter().flat_map(|computed| computed.arrived.iter()) {
            let age = Duration::from_micros(u64::try_from(now - produced).unwrap_or(0));
            self.metrics.freshness_seconds.observe(age.as_secs_f64());
        }
    }
}

impl Statements {
    fn new() -> Self {
        let schema = schema::gold::schema();
        let fields: Vec<_> = schema.fields().iter().filter(|field| field.name() != schema::DATE).collect();
        let columns = fields.iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
        let array = |(index, field): (usize, &&arrow::datatypes::FieldRef)| {
            let element = match field.data_type() {
                DataType::Utf8 => "text",
                DataType::Timestamp(..) => "timestamptz",
                DataType::Float64 => "float8",
                DataType::Int32 => "int4",
                other => unreachable!("gold has no column of type {other}"),
            };
            format!("${}::{element}[]", index + 1)
        };
        let arrays = fields.iter().enumerate().map(array).collect::<Vec<_>>().join(", ");
        let key = [schema::SYMBOL, schema::EVENT_TIME];
        let values = fields.iter().map(|field| field.name()).filter(|name| !key.contains(&name.as_str()));
        let values = values.map(|name| format!("{name} = excluded.{name}")).collect::<Vec<_>>().join(", ");
        let key = key.join(", ");
        Statements {
            copy: format!("COPY {TABLE} ({columns}) FROM STDIN (FORMAT binary)"),
            upsert: format!(
                "INSERT INTO {TABLE} ({columns}) SELECT * FROM unnest({arrays}) ON CONFLICT ({key}) DO UPDATE SET {values}"
            ),
        }
    }
}

impl Work {
    fn new(
        from: &Position,
        to: &Position,
        new_symbols: SymbolPartitions,
        asides: Vec<Aside>,
        rows: Split,
    ) -> Self {
        let moves = to.iter().map(|(partition, to)| Move { partition, from: from.next(partition), to });
        let count = |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).sum();
        Work {
            moves: moves.filter(|step| step.from != Some(step.to)).collect(),
            new_symbols,
            asides,
            insert_count: count(&rows.inserts),
            update_count: count(&rows.updates),
            rows,
        }
    }

    fn has_landed(&self, position: &Position) -> bool {
        self.moves.iter().all(|step| position.next(step.partition) == Some(step.to))
    }
}

/// Returns a time-out error if `action` takes longer than `time_max`.
async fn in_time<T>(time_max: Duration, action: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let result = tokio::time::timeout(time_max, action).await;
    result.unwrap_or(Err(Error::PostgresTimeout { action: "commit gold rows" }))
}

fn is_unique_violation(error: &Error) -> bool {
    matches!(error, Error::Postgres { source, .. } if source.code() == Some(&SqlState::UNIQUE_VIOLATION))
}
