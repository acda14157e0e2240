//! A data folder of the previous version, after a power failure, on a machine where other programs use the ports.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context as _, ensure};
use integration_tests::environment::Environment;
use integration_tests::pipeline::connect;
use integration_tests::wait::eventually;
use tokio::process::{Child, Command};

use crate::machine::{DEADLINE, Machine};

/// Objects that the previous version created in `crypto_db` as the superuser `postgres`.
const GOLD: [&str; 4] = [
    include_str!("../../../services/gold/src/sink/migrations/001_gold.sql"),
    include_str!("../../../services/gold/src/sink/migrations/002_dead_letters.sql"),
    include_str!("../../../services/gold/src/sink/migrations/003_dashboard.sql"),
    include_str!("../../../services/gold/src/sink/migrations/004_symbols.sql"),
];
const GOLD_VERSION: &str = "CREATE TABLE candleflight_version (version integer PRIMARY KEY, since timestamptz NOT NULL DEFAULT now());
    INSERT INTO candleflight_version SELECT generate_series(1, 4)";
/// Objects of every kind that Superset and people create.
const OTHERS: &str = "CREATE TABLE candleflight_dashboard (fingerprint text NOT NULL);
    CREATE TYPE mood AS ENUM ('up', 'down'); CREATE DOMAIN price AS float8; CREATE TYPE pair AS (x int, y int); CREATE SCHEMA \"their schema\";
    CREATE TABLE \"their schema\".\"a 'table'\" (id serial PRIMARY KEY, kept int GENERATED ALWAYS AS IDENTITY, mood mood);
    CREATE SEQUENCE own; CREATE MATERIALIZED VIEW seen AS SELECT 1 AS x; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'";
/// Objects in a database that still belong to the superuser, except those of the system.
const LEFT_OVER: &str = "SELECT relname::text FROM pg_class WHERE relowner = 10 AND oid >= 16384 AND relkind <> 't'
    UNION ALL SELECT proname::text FROM pg_proc WHERE proowner = 10 AND oid >= 16384
    UNION ALL SELECT typname::text FROM pg_type WHERE typowner = 10 AND oid >= 16384
    UNION ALL SELECT nspname::text FROM pg_namespace WHERE nspowner = 10 AND oid >= 16384 AND nspname !~ '^pg_'";

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_the_last_version_goes_on_after_a_power_cut_beside_other_servers() -> anyhow::Result<()> {
    let Some((environment, machine)) = Machine::new()? else { return Ok(()) };
    let cluster = machine.data().join("postgres/cluster");
    last_versions_cluster(&environment, &cluster).await?;
    // An unrelated process now has the process ids of servers that are gone. The id is in the files of `up` and in PostgreSQL's own lock,
    // whose user also owns the process.
    let mut bystander = bystander()?;
    let id = bystander.id().context("it runs")?;
    fs::create_dir(machine.data().join("kafka"))?;
    for server in ["kafka", "postgres"] {
        fs::write(machine.data().join(server).join("pid"), id.to_string())?;
    }
    let lock = format!("{id}\n{}\n1700000000\n5432\n\n127.0.0.1\n", cluster.display());
    fs::write(cluster.join("postmaster.pid"), lock)?;
    let taken = ["kafka", "kafka controller", "postgres", "flight"].map(|server| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        Ok((server, listener.local_addr()?.port(), listener))
    });
    let taken = taken.into_iter().collect::<std::io::Result<Vec<_>>>()?;
    let ports: serde_json::Map<_, _> =
        taken.iter().map(|(server, port, _)| ((*server).to_owned(), (*port).into())).collect();
    fs::write(machine.data().join("ports.json"), serde_json::to_vec(&ports)?)?;

    let (file, rows) = machine.candles("sample.csv", 1).await?;
    let mut up = machine.up(&[(&file, "SAMPLE-USD")], &["--rate", "max"])?;
    up.ready().await;
    machine.is_exact(rows).await?;
    ensure!(bystander.try_wait()?.is_none(), "up ended a process that it did not start");
    everything_is_handed_over(&machine).await?;
    ensure!(up.terminate().await?.success(), "{}", up.log()?);

    // The second start is a normal one and uses the recorded ports.
    let before = fs::read(machine.data().join("ports.json"))?;
    up.restart()?;
    up.ready().await;
    ensure!(before == fs::read(machine.data().join("ports.json"))?, "the addresses have changed");
    ensure!(up.terminate().await?.success(), "{}", up.log()?);
    bystander.kill().await?;
    Ok(())
}

/// Creates a cluster as the previous version did, with databases. Its superuser has the published name and password.
async fn last_versions_cluster(environment: &Environment, cluster: &Path) -> anyhow::Result<()> {
    let made = tempfile::Builder::new()
        .prefix("candleflight-test.")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o711))
        .tempdir_in("/var/tmp")?;
    let stack = async |action: &str| {
        let output =
            Command::new(&environment.stack).args([action, "postgres"]).arg(made.path()).output().await?;
        ensure!(output.status.success(), "{action}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    stack("start").await?;
    let url = format!("postgres://postgres:postgres@127.0.0.1:{}", stack("port").await?);
    let maintenance = connect(&format!("{url}/postgres")).await?;
    maintenance.batch_execute("CREATE DATABASE crypto_db").await?;
    maintenance.batch_execute("CREATE DATABASE superset").await?;
    maintenance.batch_execute("CREATE DATABASE \"their \"\"own\"\"\"").await?;
    let gold = connect(&format!("{url}/crypto_db")).await?;
    for step in GOLD.iter().chain([&GOLD_VERSION]) {
        gold.batch_execute(step).await?;
    }
    connect(&format!("{url}/superset")).await?.batch_execute(OTHERS).await?;
    stack("stop").await?;
    let parent = cluster.parent().context("a folder of the server")?;
    fs::create_dir_all(parent)?;
    // The program mv keeps owners and modes, also across file systems.
    let moved = Command::new("mv").arg("-T").arg(made.path().join("data")).arg(cluster).status().await?;
    ensure!(moved.success(), "move the cluster");
    Ok(())
}

/// Starts an unrelated process. It runs as PostgreSQL's user if this process is root.
fn bystander() -> anyhow::Result<Child> {
    let sleep = ["sleep", "1000"];
    let is_root = fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
    let mut command = if is_root {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "--"]).args(sleep);
        command
    } else {
        let mut command = Command::new(sleep[0]);
        command.arg(sleep[1]);
        command
    };
    Ok(command.kill_on_drop(true).spawn()?)
}

/// Checks that only system objects still belong to the superuser, and that Superset's database has its new name.
async fn everything_is_handed_over(machine: &Machine) -> anyhow::Result<()> {
    let database = machine.database().await?;
    let owners = "SELECT datname::text FROM pg_database WHERE datdba = 'postgres'::regrole ORDER BY datname";
    let owned: Vec<String> = database.query(owners, &[]).await?.iter().map(|row| row.get(0)).collect();
    let expected = ["candleflight_superset", "crypto_db", "postgres", "their \"own\""];
    ensure!(owned == expected, "databases of role postgres: {owned:?}");
    let superset = eventually("Superset's database takes connections", DEADLINE, async || {
        connect(&machine.postgres_at("candleflight_superset").ok()?).await.ok()
    })
    .await;
    for database in [&database, &superset] {
        let left: Vec<String> = database.query(LEFT_OVER, &[]).await?.iter().map(|row| row.get(0)).collect();
        ensure!(left.is_empty(), "the superuser still has {left:?}");
    }
    superset.batch_execute("ALTER TABLE \"their schema\".\"a 'table'\" ADD COLUMN x int").await?;
    let roles = "SELECT rolname::text FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1";
    let roles: Vec<String> = database.query(roles, &[]).await?.iter().map(|row| row.get(0)).collect();
    ensure!(roles == ["candleflight_superuser", "postgres"], "roles: {roles:?}");
    Ok(())
}
