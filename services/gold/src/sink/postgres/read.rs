//! State of the tables in PostgreSQL, read in one snapshot.

use deadpool_postgres::{Object, Transaction};
use position::Position;
use tokio_postgres::IsolationLevel;
use tokio_postgres::types::Type;

use crate::error::Error;
use crate::sink::postgres::{Micros, TABLE};
use crate::state::{NewestBySymbol, SymbolPartitions};

/// Checks that the database can store every character, since a symbol may contain any.
pub(super) async fn check_encoding(client: &Object) -> Result<(), Error> {
    let failed = Error::postgres("read the encoding of the database");
    let row = client.query_typed_one("SHOW server_encoding", &[]).await.map_err(failed)?;
    let encoding: String = row.get(0);
    if encoding == "UTF8" { Ok(()) } else { Err(Error::PostgresEncoding { encoding }) }
}

/// Begins a transaction that reads one snapshot.
///
/// # Errors
///
/// [`Error::Postgres`].
pub(crate) async fn snapshot(client: &mut Object) -> Result<Transaction<'_>, Error> {
    let transaction =
        client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    transaction.start().await.map_err(Error::postgres("begin a snapshot"))
}

/// Reads the position of `topic`.
///
/// # Errors
///
/// [`Error::Postgres`].
pub(crate) async fn read_position(transaction: &Transaction<'_>, topic: &str) -> Result<Position, Error> {
    let query = "SELECT partition, next_offset FROM candleflight_position WHERE topic = $1";
    let rows = transaction.query_typed(query, &[(&topic, Type::TEXT)]).await;
    let rows = rows.map_err(Error::postgres("read the position"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Reads the newest event time of each symbol. It takes two steps in the primary key's index for each symbol, for a table of any length.
pub(super) async fn read_newest(transaction: &Transaction<'_>) -> Result<NewestBySymbol, Error> {
    let query = format!(
        "WITH RECURSIVE symbols AS (
             (SELECT symbol FROM {TABLE} ORDER BY symbol LIMIT 1)
             UNION ALL
             SELECT (SELECT next.symbol FROM {TABLE} next WHERE next.symbol > symbols.symbol ORDER BY next.symbol LIMIT 1)
             FROM symbols WHERE symbols.symbol IS NOT NULL
         )
         SELECT symbol, (SELECT max(event_time) FROM {TABLE} newest WHERE newest.symbol = symbols.symbol)
         FROM symbols WHERE symbol IS NOT NULL"
    );
    let rows = transaction.query_typed(&query, &[]).await.map_err(Error::postgres("read the newest rows"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get::<_, Micros>(1).0)).collect())
}

/// Reads the partitions of each symbol of `topic`.
pub(super) async fn read_partitions(
    transaction: &Transaction<'_>,
    topic: &str,
) -> Result<SymbolPartitions, Error> {
    let query = "SELECT symbol, partition FROM candleflight_symbol WHERE topic = $1";
    let failed = Error::postgres("read the partitions of symbols");
    let rows = transaction.query_typed(query, &[(&topic, Type::TEXT)]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
