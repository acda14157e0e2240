//! Superset's metadata in a database that also holds the tables of another Superset, and Superset's published password.

use std::process::Output;

use anyhow::{Context as _, ensure};
use integration_tests::check;
use integration_tests::environment::Environment;
use integration_tests::pipeline::{Pipeline, connect};
use tempfile::TempDir;
use tokio::process::Command;

/// First tables of another Superset's database.
const FOREIGN: &str = "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL); INSERT INTO alembic_version VALUES ('abc');
    CREATE TABLE ab_user (id int PRIMARY KEY, username text); INSERT INTO ab_user VALUES (1, 'ada')";
/// Query for all tables with their content.
const CONTENT: &str =
    "SELECT query_to_xml('SELECT * FROM ' || quote_ident(relname), true, true, '')::text, relname::text
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname";

/// Serves the dashboard as `up` does, with its metadata in `database`, until it ends by itself.
async fn serve(
    environment: &Environment,
    pipeline: &Pipeline,
    database: &str,
    listen: &str,
) -> anyhow::Result<Output> {
    let program =
        std::env::var("CANDLEFLIGHT_TEST_DASHBOARD").context("script/test sets the dashboard's program")?;
    let (_, server) = environment.postgres.split_once("://").context("a URL")?;
    let home = TempDir::new()?;
    let mut command = Command::new(program);
    command
        .env("CANDLEFLIGHT_POSTGRES", &pipeline.postgres)
        .env("SUPERSET_DATABASE_URL", format!("postgresql+psycopg2://{server}/{database}"))
        .env("SUPERSET_HOME", home.path())
        .env("SUPERSET_LISTEN", listen)
        .env_remove("SUPERSET_ADMIN_PASSWORD")
        .kill_on_drop(true);
    Ok(tokio::time::timeout(crate::machine::DEADLINE, command.output())
        .await
        .context("the dashboard serves instead of ending")??)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_of_another_superset_is_left_as_it_is() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = check::pipeline().await? else { return Ok(()) };
    let foreign = connect(&pipeline.postgres).await?;
    foreign.batch_execute(FOREIGN).await?;
    let content = async || -> anyhow::Result<Vec<(String, String)>> {
        let rows = foreign.query(CONTENT, &[]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    };
    let before = content().await?;
    let (_, database) = pipeline.postgres.rsplit_once('/').context("a database")?;
    let output = serve(&environment, &pipeline, database, "127.0.0.1:0").await?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = [database, "ab_user", "nothing was changed", "SUPERSET_DATABASE_URL"];
    ensure!(!output.status.success() && told.iter().all(|told| error.contains(told)), "{error}");
    ensure!(content().await? == before, "the database was changed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_password_is_for_this_machine_alone() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = check::pipeline().await? else { return Ok(()) };
    let output = serve(&environment, &pipeline, "no_such_database", "0.0.0.0:0").await?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && error.contains("set SUPERSET_ADMIN_PASSWORD"), "{error}");

    let up = ["up", "--dashboard-addr", "0.0.0.0:0", "--data-dir", "/nowhere"];
    let output = pipeline.run(&up).await?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && error.contains("set CANDLEFLIGHT_DASHBOARD_PASSWORD"), "{error}");
    Ok(())
}
