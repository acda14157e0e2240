//! Tests behind PgBouncer, in each of its modes.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use gold::metrics::Metrics;
use gold::sink::postgres::Sink;
use gold::{Error, Postgres};
use kernel::Frame;
use tokio_util::sync::CancellationToken;

use super::{at, computed, connect_to, database, eventually, gold, numbered, origin};

/// Path of PgBouncer on Debian, which is not on the path of ordinary users.
const PGBOUNCER: &str = "/usr/sbin/pgbouncer";

/// A PgBouncer in front of the database of a test. It ends with the test.
struct Pooler {
    process: Child,
    folder: PathBuf,
    postgres: Postgres,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _ended = self.process.wait();
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}

/// Starts a PgBouncer in front of database `name`. Returns `None` and prints a note if it is not installed, which CI does not allow.
async fn pooler(name: &str, mode: &str) -> Result<Option<Pooler>> {
    if !Path::new(PGBOUNCER).exists() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{PGBOUNCER} must be there in CI");
        eprintln!("skipped: {PGBOUNCER} is not installed");
        return Ok(None);
    }
    let server: tokio_postgres::Config = std::env::var("CANDLEFLIGHT_TEST_POSTGRES")?.parse()?;
    let password = String::from_utf8_lossy(server.get_password().context("a password")?).into_owned();
    let (user, port) = (server.get_user().context("a user")?, server.get_ports().first().context("a port")?);
    let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let config = folder.join("pgbouncer.ini");
    write!(
        std::fs::File::create(&config)?,
        "[databases]\n{name} = host=127.0.0.1 port={port} user={user} password={password}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {listen}\nunix_socket_dir =\nauth_type = any\n\
         pool_mode = {mode}\ndefault_pool_size = 2\n"
    )?;
    let mut command = Command::new(PGBOUNCER);
    // PgBouncer does not run as root.
    if Command::new("id").arg("-u").output()?.stdout == b"0\n" {
        command.args(["-u", "postgres"]);
    }
    let process = command.arg("-q").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let postgres = at(&format!("postgres://{user}:{password}@127.0.0.1:{listen}/{name}"));
    let pooler = Pooler { process, folder, postgres };
    eventually("PgBouncer listens", async || TcpStream::connect(("127.0.0.1", listen)).ok()).await;
    Ok(Some(pooler))
}

async fn open(postgres: &Postgres) -> Result<Sink, Error> {
    Sink::open(
        postgres,
        &origin(),
        false,
        Frame::Time,
        Metrics::register(&service::metrics::Metrics::default()),
    )
    .await
}

/// Runs several gold instances after and beside each other, each with a COPY, corrections and a second transaction.
async fn check(name: &str, mode: &str) -> Result<()> {
    let Some(database) = database(name).await? else { return Ok(()) };
    let Some(pooler) = pooler(name, mode).await? else { return Ok(()) };
    let shutdown = CancellationToken::new();
    let mut other = open(&pooler.postgres).await?;
    for start in 0..4 {
        let mut sink = open(&pooler.postgres).await?;
        let first = 4 * start;
        let rows = numbered(1000 * start..1000 * (start + 1), 1.0);
        sink.write(&[computed(0, first, first + 2, gold("BTC-USD", &rows))], &shutdown).await?;
        sink.write(&[computed(0, first + 2, first + 4, gold("BTC-USD", &rows[..10]))], &shutdown).await?;
        other.write(&[computed(1, start, start + 1, gold("ETH-USD", &[(start, 1.0)]))], &shutdown).await?;
    }
    assert_eq!(database.row_count().await?, 4004);
    // Gold leaves nothing in the sessions that other clients get next.
    let left = "SELECT name FROM pg_prepared_statements UNION ALL \
                SELECT name FROM pg_settings WHERE name LIKE 'idle_in%' AND source = 'session'";
    let client = connect_to(&pooler.postgres).await?;
    let left = client.simple_query(left).await?;
    assert!(
        !left.iter().any(|message| matches!(message, tokio_postgres::SimpleQueryMessage::Row(_))),
        "{left:?}"
    );
    Ok(())
}

#[tokio::test]
async fn sessions_may_be_pooled() -> Result<()> {
    check("gold_pool_session", "session").await
}

#[tokio::test]
async fn transactions_may_be_pooled() -> Result<()> {
    check("gold_pool_transaction", "transaction").await
}

#[tokio::test]
async fn a_pooler_that_splits_transactions_is_refused_at_the_first_start() -> Result<()> {
    let Some(_database) = database("gold_pool_statement").await? else { return Ok(()) };
    let Some(pooler) = pooler("gold_pool_statement", "statement").await? else { return Ok(()) };
    let error = open(&pooler.postgres).await.map(drop).unwrap_err();
    assert!(
        !error.is_transient() && error.to_string().contains("session or transaction pooling"),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_parameter_that_a_pooler_does_not_know_is_named() -> Result<()> {
    let Some(_database) = database("gold_pool_options").await? else { return Ok(()) };
    let Some(pooler) = pooler("gold_pool_options", "session").await? else { return Ok(()) };
    let config = pooler.postgres.url.parse()?;
    let port = config.get_ports()[0];
    let url = format!(
        "postgres://postgres:postgres@127.0.0.1:{port}/gold_pool_options?options=-c%20work_mem%3D8MB"
    );
    let error = open(&at(&url)).await.map(drop).unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("ignore_startup_parameters"), "{error:?}");
    Ok(())
}
