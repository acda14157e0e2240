//! `up` and its servers die at any time, and the printed log-in cannot do harm.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, bail, ensure};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::machine::{Machine, kill};

/// Candles a second: slow enough that candles flow while processes die.
const RATE: &str = "100/s";

#[tokio::test(flavor = "multi_thread")]
async fn up_or_any_of_its_servers_may_be_killed() -> anyhow::Result<()> {
    let Some((_, machine)) = Machine::new()? else { return Ok(()) };
    let (file, rows) = machine.candles("candles.csv", 3).await?;
    let mut up = machine.up(&[(&file, "SAMPLE-USD")], &["--rate", RATE])?;
    let mut seen = machine.gold_beyond(&mut up, 0).await;
    the_published_role_is_harmless(&machine).await?;

    for server in ["kafka", "postgres"] {
        kill(machine.server_id(server)?).await?;
        let status = up.ended().await?;
        ensure!(!status.success() && up.log()?.contains("ended unexpectedly"), "{status}: {}", up.log()?);
        up.restart()?;
        seen = machine.gold_beyond(&mut up, seen).await;
    }
    for _ in 0..2 {
        up.kill().await?;
        up.restart()?;
        seen = machine.gold_beyond(&mut up, seen).await;
    }
    machine.is_exact(rows).await?;
    ensure!(up.terminate().await?.success(), "up drains and ends with exit code 0: {}", up.log()?);
    Ok(())
}

/// Checks that the published log-in can neither run programs nor read files on PostgreSQL's machine.
async fn the_published_role_is_harmless(machine: &Machine) -> anyhow::Result<()> {
    let database = machine.database().await?;
    for query in [
        "COPY (SELECT 1) TO PROGRAM 'cat'",
        "COPY dashboard_theft FROM PROGRAM 'id'",
        "COPY (SELECT 1) TO '/tmp/candleflight-theft'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "CREATE ROLE thief SUPERUSER",
        "ALTER ROLE postgres SUPERUSER",
        "GRANT pg_execute_server_program TO postgres",
        "CREATE EXTENSION plpython3u",
        "ALTER SYSTEM SET archive_command = 'id'",
    ] {
        let Err(error) = database.batch_execute(query).await else { bail!("allowed: {query}") };
        let refused = [
            SqlState::INSUFFICIENT_PRIVILEGE,
            SqlState::UNDEFINED_TABLE,
            SqlState::FEATURE_NOT_SUPPORTED, // The extension is not installed.
            SqlState::UNDEFINED_FILE,
        ];
        ensure!(error.code().is_some_and(|code| refused.contains(code)), "{query}: {error:?}");
    }
    owns_its_databases(&database).await?;
    let file = machine.data().join("postgres/superuser-password");
    let mode = file.metadata().context("the superuser's password")?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "{}: mode {mode:o}", file.display());
    Ok(())
}

/// Checks that the role for people may do everything that people and Superset need.
async fn owns_its_databases(database: &Client) -> anyhow::Result<()> {
    database.batch_execute("CREATE TABLE mine (x int); DROP TABLE mine").await?;
    database.batch_execute("CREATE DATABASE mine").await?;
    let superusers = "SELECT rolname FROM pg_roles WHERE rolsuper";
    let superusers: Vec<String> =
        database.query(superusers, &[]).await?.iter().map(|row| row.get(0)).collect();
    ensure!(superusers == ["candleflight_superuser"], "{superusers:?}");
    Ok(())
}
