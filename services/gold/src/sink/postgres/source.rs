//! The bronze table from which the rows in PostgreSQL are computed.

use deadpool_postgres::{Object, Transaction};
use position::Origin;
use tokio_postgres::types::{ToSql, Type};

use crate::error::Error;
use crate::sink::postgres::{TABLE, read_position};

/// Name of this sink in errors.
const SINK: &str = "PostgreSQL";

/// Checks that the rows were computed from `origin`. If there are no rows yet, records `origin`.
///
/// # Errors
///
/// [`Error::OtherTopic`], [`Error::OtherBronze`], [`Error::Postgres`].
pub(super) async fn claim(client: &mut Object, origin: &Origin) -> Result<(), Error> {
    let failed = Error::postgres("read the bronze table that the rows were computed from");
    let transaction = client.transaction().await.map_err(&failed)?;
    let topic = &origin.topic.name;
    // Version 0.1 recorded no source, but it recorded the topic of each symbol.
    let others = "SELECT topic FROM candleflight_source WHERE topic <> $1 \
                  UNION SELECT topic FROM candleflight_symbol WHERE topic <> $1 ORDER BY topic LIMIT 1";
    let others = transaction.query_typed(others, &[(topic, Type::TEXT)]).await.map_err(&failed)?;
    if let Some(other) = others.first() {
        return Err(Error::OtherTopic { found: other.get(0), expected: topic.clone() });
    }
    let source = "SELECT bronze FROM candleflight_source WHERE topic = $1 FOR UPDATE";
    let source = transaction.query_typed(source, &[(topic, Type::TEXT)]).await.map_err(&failed)?;
    let source: Option<String> = source.first().map(|row| row.get(0));
    if source.as_ref() == Some(&origin.table) {
        return Ok(());
    }
    if let Some(found) = source
        && !read_position(&transaction, topic).await?.is_empty()
    {
        return Err(Error::OtherBronze { sink: SINK, found, server: origin.clone() });
    }
    write(&transaction, origin).await?;
    transaction.commit().await.map_err(&failed)
}

/// Deletes all rows and positions of the topic in one transaction, and records `origin` for the next rows.
///
/// # Errors
///
/// [`Error::Postgres`].
pub(super) async fn empty(client: &mut Object, origin: &Origin) -> Result<(), Error> {
    let failed = Error::postgres("empty the gold table");
    let transaction = client.transaction().await.map_err(&failed)?;
    transaction.batch_execute(&format!("TRUNCATE {TABLE}")).await.map_err(&failed)?;
    for table in ["candleflight_position", "candleflight_symbol", "candleflight_frame"] {
        let delete = format!("DELETE FROM {table} WHERE topic = $1");
        transaction.execute_typed(&delete, &[(&origin.topic.name, Type::TEXT)]).await.map_err(&failed)?;
    }
    write(&transaction, origin).await?;
    transaction.commit().await.map_err(&failed)
}

async fn write(client: &Transaction<'_>, origin: &Origin) -> Result<(), Error> {
    let write = "INSERT INTO candleflight_source (topic, bronze) VALUES ($1, $2) \
                 ON CONFLICT (topic) DO UPDATE SET bronze = excluded.bronze";
    let values: [(&(dyn ToSql + Sync), Type); 2] =
        [(&origin.topic.name, Type::TEXT), (&origin.table, Type::TEXT)];
    let written = client.execute_typed(write, &values).await;
    written.map_err(Error::postgres("write the bronze table that the rows are computed from"))?;
    Ok(())
}
