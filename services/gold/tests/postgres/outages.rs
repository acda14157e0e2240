//! Transient errors are retried, and all other errors end gold with advice.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::Result;
use gold::Error;
use gold::metrics::Metrics;
use gold::sink::postgres::Sink;
use kernel::Frame;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{Database, at, computed, database, eventually, gold, numbered, origin};

/// Longest wait for the other side of a channel.
const SIGNAL_MAX: Duration = Duration::from_mins(1);

/// Starts a write of one row that runs beside the test.
fn write(mut sink: Sink) -> JoinSet<Result<(), Error>> {
    let mut writes = JoinSet::new();
    writes.spawn(async move {
        sink.write(&[computed(0, 0, 1, gold("BTC-USD", &[(1, 1.0)]))], &CancellationToken::new()).await
    });
    writes
}

/// Waits until gold is not ready for a reason that contains `text`.
async fn unready(metrics: &service::metrics::Metrics, text: &str) {
    let what = format!("gold is not ready: {text}");
    eventually(&what, async || metrics.readiness().1.contains(text).then_some(())).await;
}

impl Database {
    /// Returns the process id of a gold that waits for a lock, other than `than`.
    async fn waiting(&self, than: Option<i32>) -> i32 {
        eventually("gold waits for a lock", async || {
            let query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' \
                         AND application_name = 'candleflight gold' AND pid IS DISTINCT FROM $1";
            self.client.query_opt(query, &[&than]).await.unwrap().map(|row| row.get(0))
        })
        .await
    }

    /// Locks the gold table for all writers until the transaction of the returned client ends. Queries on activity must use another client.
    async fn lock(&self) -> Result<Client> {
        let holder = self.connect().await?;
        holder.batch_execute("BEGIN; LOCK TABLE bitcoin_gold_data IN EXCLUSIVE MODE").await?;
        Ok(holder)
    }

    async fn end_of_others(&self) -> Result<()> {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        self.client.query(end, &[]).await?;
        Ok(())
    }

    async fn read_only(&self, is_read_only: bool) -> Result<()> {
        let change = if is_read_only {
            "SET default_transaction_read_only = on"
        } else {
            "RESET default_transaction_read_only"
        };
        self.client.batch_execute(&format!("ALTER DATABASE {} {change}", self.name)).await?;
        self.end_of_others().await
    }
}

#[tokio::test]
async fn a_server_that_takes_no_writes_for_a_while_is_waited_out() -> Result<()> {
    let Some(database) = database("gold_read_only").await? else { return Ok(()) };
    let service = service::metrics::Metrics::default();
    let sink =
        Sink::open(&database.postgres, &origin(), false, Frame::Time, Metrics::register(&service)).await?;
    database.read_only(true).await?;
    let mut writes = write(sink);
    unready(&service, "read-only transaction").await;
    let opened = database.open().await.map(drop);
    assert!(matches!(&opened, Err(error) if error.is_transient()), "a start waits, too: {opened:?}");
    database.read_only(false).await?;
    writes.join_next().await.unwrap()??;
    assert_eq!(database.rows().await?, ["BTC-USD 1 1"]);
    assert!(service.readiness().0, "{}", service.readiness().1);
    Ok(())
}

#[tokio::test]
async fn a_cancelled_statement_is_tried_again() -> Result<()> {
    let Some(database) = database("gold_cancelled").await? else { return Ok(()) };
    let service = service::metrics::Metrics::default();
    let sink =
        Sink::open(&database.postgres, &origin(), false, Frame::Time, Metrics::register(&service)).await?;
    let holder = database.lock().await?;
    let mut writes = write(sink);
    let first = database.waiting(None).await;
    database.client.query("SELECT pg_cancel_backend($1)", &[&first]).await?;
    unready(&service, "canceling statement").await;
    database.waiting(Some(first)).await;
    holder.batch_execute("ROLLBACK").await?;
    writes.join_next().await.unwrap()??;
    assert_eq!(database.rows().await?, ["BTC-USD 1 1"]);
    assert!(service.readiness().0, "{}", service.readiness().1);
    Ok(())
}

#[tokio::test]
async fn a_time_limit_for_statements_is_no_reason_to_end() -> Result<()> {
    let Some(database) = database("gold_statement_timeout").await? else { return Ok(()) };
    let service = service::metrics::Metrics::default();
    let sink =
        Sink::open(&database.postgres, &origin(), false, Frame::Time, Metrics::register(&service)).await?;
    let limit = format!("ALTER DATABASE {} SET statement_timeout = '100ms'", database.name);
    database.client.batch_execute(&limit).await?;
    database.end_of_others().await?;
    let holder = database.lock().await?;
    let mut writes = write(sink);
    unready(&service, "statement timeout").await;
    holder.batch_execute("ROLLBACK").await?;
    writes.join_next().await.unwrap()??;
    assert_eq!(database.rows().await?, ["BTC-USD 1 1"]);
    Ok(())
}

#[tokio::test]
async fn a_gold_that_stands_still_in_a_transaction_leaves_its_locks_to_the_next() -> Result<()> {
    let Some(database) = database("gold_stopped").await? else { return Ok(()) };
    let sink = database.open().await?;
    let holder = database.lock().await?;
    let (stop, stopping) = oneshot::channel::<()>();
    let (stopped, is_stopped) = oneshot::channel();
    let (end, ending) = mpsc::channel::<()>();
    let postgres = database.postgres.clone();
    // The runtime stops in the middle of a write, as a process does on SIGSTOP: its sockets stay open, and nothing reads them.
    let still = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let metrics = Metrics::register(&service::metrics::Metrics::default());
        let mut sink =
            runtime.block_on(Sink::open(&postgres, &origin(), false, Frame::Time, metrics)).unwrap();
        let shutdown = CancellationToken::new();
        let work = [computed(0, 0, 1, gold("BTC-USD", &[(1, 2.0)]))];
        let mut write = Box::pin(sink.write(&work, &shutdown));
        runtime.block_on(async {
            tokio::select! {
                written = &mut write => panic!("the table is locked, and yet: {written:?}"),
                _ = stopping => (),
            }
        });
        stopped.send(()).unwrap();
        let _ended = ending.recv_timeout(SIGNAL_MAX);
    });
    let still_process = database.waiting(None).await;
    stop.send(()).unwrap();
    is_stopped.await?;
    holder.batch_execute("ROLLBACK").await?;
    let mut writes = write(sink);
    database.waiting(Some(still_process)).await;
    writes.join_next().await.unwrap()??;
    assert_eq!(database.rows().await?, ["BTC-USD 1 1"]);
    end.send(())?;
    still.join().unwrap();
    Ok(())
}

#[tokio::test]
async fn a_time_limit_that_the_operator_has_set_stays() -> Result<()> {
    let Some(database) = database("gold_settings").await? else { return Ok(()) };
    let limit = format!("ALTER DATABASE {} SET idle_in_transaction_session_timeout = '7min'", database.name);
    database.client.batch_execute(&limit).await?;
    // A trigger reads the settings that apply in the transaction.
    let sink = database.open().await?;
    database
        .client
        .batch_execute(
            "CREATE TABLE seen (idle text, probe text);
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO seen VALUES (current_setting('idle_in_transaction_session_timeout'), current_setting('tcp_keepalives_idle'));
                 RETURN NULL;
             END $$;
             CREATE TRIGGER see AFTER INSERT ON bitcoin_gold_data EXECUTE FUNCTION see()",
        )
        .await?;
    write(sink).join_next().await.unwrap()??;
    let row = database.client.query_one("SELECT idle, probe FROM seen", &[]).await?;
    assert_eq!((row.get::<_, String>(0), row.get::<_, String>(1)), ("7min".to_owned(), "10".to_owned()));
    Ok(())
}

/// Checks that gold ends at once with an error that contains `advice`.
fn ends(opened: Result<Sink, Error>, advice: &str) {
    let error = opened.map(drop).unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains(advice), "{error}: {error:?}");
}

#[tokio::test]
async fn what_only_a_person_can_mend_ends_with_what_to_do() -> Result<()> {
    let Some(database) = database("gold_ends").await? else { return Ok(()) };
    let server = std::env::var("CANDLEFLIGHT_TEST_POSTGRES")?;
    let metrics = || Metrics::register(&service::metrics::Metrics::default());
    let (base, _) = server.rsplit_once('/').unwrap();
    ends(
        Sink::open(&at(&format!("{base}/gold_of_nobody")), &origin(), false, Frame::Time, metrics()).await,
        "create the database",
    );

    let role = "DROP ROLE IF EXISTS gold_reader; CREATE ROLE gold_reader LOGIN PASSWORD 'reader'";
    database.client.batch_execute(role).await?;
    let (_, host) = base.rsplit_once('@').unwrap();
    let reader = at(&format!("postgres://gold_reader:reader@{host}/{}", database.name));
    ends(Sink::open(&reader, &origin(), false, Frame::Time, metrics()).await, "GRANT");
    database.client.batch_execute("DROP ROLE gold_reader").await?;

    let mut sink = database.open().await?;
    database.client.batch_execute("DROP TABLE bitcoin_gold_data CASCADE").await?;
    ends(database.open().await, "dropped by hand");
    let lost = sink
        .write(&[computed(0, 0, 1, gold("BTC-USD", &numbered(0..2, 1.0)))], &CancellationToken::new())
        .await;
    assert!(matches!(&lost, Err(error) if error.to_string().contains("dropped by hand")), "{lost:?}");
    Ok(())
}
