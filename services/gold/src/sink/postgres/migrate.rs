//! Creates and migrates the tables in PostgreSQL.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::connection::end_with_us;
use crate::error::Error;

/// Steps from an empty database to the current tables. Step n leads to version n + 1. The SQL of a released step never changes.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/001_gold.sql"),
    include_str!("../migrations/002_dead_letters.sql"),
    include_str!("../migrations/003_dashboard.sql"),
    include_str!("../migrations/004_symbols.sql"),
    include_str!("../migrations/005_source.sql"),
    include_str!("../migrations/006_dead_letters.sql"),
    include_str!("../migrations/007_gold.sql"),
];
/// Advisory lock for migrations, so that one process migrates at a time: "candlefl" in ASCII.
const LOCK: i64 = 0x6361_6e64_6c65_666c;

/// Migrates the tables to the current version. Does nothing if the tables already have that version.
///
/// # Errors
///
/// [`Error::PostgresVersion`] if the tables are newer, [`Error::PostgresTaken`], or [`Error::Postgres`].
pub(crate) async fn migrate(client: &mut Client) -> Result<(), Error> {
    let failed = Error::postgres("create or migrate the tables");
    let transaction = client.transaction().await.map_err(&failed)?;
    end_with_us(&transaction).await?;
    let lock = transaction.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)]).await;
    lock.map_err(&failed)?;
    // The setting hides the notice at each start that the table already exists.
    let version_table = "SET LOCAL client_min_messages = warning; CREATE TABLE IF NOT EXISTS candleflight_version \
         (version integer PRIMARY KEY, since timestamptz NOT NULL DEFAULT now())";
    transaction.batch_execute(version_table).await.map_err(&failed)?;
    let row = transaction
        .query_typed_one("SELECT coalesce(max(version), 0) FROM candleflight_version", &[])
        .await
        .map_err(&failed)?;
    let found: i32 = row.get(0);
    let known = i32::try_from(MIGRATIONS.len()).expect("there are few migrations");
    if found > known {
        return Err(Error::PostgresVersion { found, known });
    }
    for version in found + 1..=known {
        let step = MIGRATIONS[usize::try_from(version - 1).expect("versions count from 1")];
        transaction.batch_execute(step).await.map_err(|error| match error.code() {
            Some(&SqlState::DUPLICATE_TABLE) => Error::PostgresTaken(error),
            _ => failed(error),
        })?;
        transaction
            .execute_typed(
                "INSERT INTO candleflight_version (version) VALUES ($1)",
                &[(&version, Type::INT4)],
            )
            .await
            .map_err(&failed)?;
        tracing::info!(version, "migrated the tables in PostgreSQL");
    }
    transaction.commit().await.map_err(&failed)
}
