//! Limits of a client. Nothing that a client sends, holds or drops may harm the server.

use std::collections::BTreeMap;
use std::time::Duration;

use access::Identity;
use anyhow::{Context as _, ensure};
use arrow::array::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, Any, CommandGetTables,
    CommandPreparedStatementQuery, CommandStatementQuery, CommandStatementSubstraitPlan,
    ProstMessageExt as _, SubstraitPlan, TicketStatementQuery,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightData, FlightDescriptor,
    FlightInfo, Ticket,
};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use integration_tests::check::pipeline;
use integration_tests::pipeline::Pipeline;
use integration_tests::process::Process;
use integration_tests::wait::eventually;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use service::metrics::names;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{self, StdError};
use tonic::{Code, Status};
use transport::client::Client;

/// Longest wait of these tests, enough for every machine that runs them.
const DEADLINE: Duration = Duration::from_mins(1);
/// A query that runs for hours in little memory.
const ENDLESS: &str = "SELECT max(x) FROM generate_series(1, 1000000000000) s(x) WHERE x % 7 = 8";
/// Another query that runs for hours: a join with an empty result.
const STUBBORN: &str = "SELECT count(*) FROM generate_series(1, 10000000) a(x), generate_series(1, 10000000) b(y) WHERE x * y % 7 = 8";
/// Number of connections that are opened and dropped, and how many of them at once.
const CONNECTIONS: usize = 3_000;
const CONNECTIONS_AT_ONCE: usize = 200;
/// Number of random messages of each kind.
const MESSAGES: usize = 400;

/// Starts a Flight server with `flags`. These tests need no other service.
async fn server(pipeline: &Pipeline, flags: &[&str]) -> anyhow::Result<Process> {
    let mut flight = pipeline.start(&[&["flight"][..], flags].concat())?;
    flight.ready().await;
    Ok(flight)
}

async fn connect(pipeline: &Pipeline) -> anyhow::Result<Client> {
    Ok(transport::client::connect(&pipeline.flight, &Identity::default()).await?)
}

/// Runs a query to its end. Returns its batches, or the status of its error.
async fn run(client: &Client, query: &str) -> Result<Vec<RecordBatch>, Box<Status>> {
    let mut client = FlightSqlServiceClient::new_from_inner(client.clone());
    let status = |error| match error {
        FlightError::Tonic(status) => status,
        other => Box::new(Status::unknown(other.to_string())),
    };
    let info = client.execute(query.to_owned(), None).await.map_err(status)?;
    read(client, info).await.map_err(status)
}

async fn read<T>(
    mut client: FlightSqlServiceClient<T>,
    info: FlightInfo,
) -> Result<Vec<RecordBatch>, FlightError>
where
    T: GrpcService<
            Body,
            Error: Into<StdError>,
            ResponseBody: codegen::Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
        >,
{
    let ticket = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket);
    client.do_get(ticket.ok_or_else(|| FlightError::protocol("no ticket"))?).await?.try_collect().await
}

async fn refusal(client: &Client, query: &str) -> anyhow::Result<(Code, String)> {
    let status = run(client, query).await.err().with_context(|| format!("{query} must be refused"))?;
    Ok((status.code(), status.message().to_owned()))
}

async fn running(flight: &Process) -> anyhow::Result<f64> {
    flight.metric(names::QUERIES_RUNNING, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_takes_too_much_is_told_which_limit_it_met() -> anyhow::Result<()> {
    let Some((_, pipeline)) = pipeline().await? else { return Ok(()) };
    let limits = ["--query-memory-max", "64MiB", "--query-time-max", "10s", "--result-bytes-max", "32MiB"];
    let flight = server(&pipeline, &limits).await?;
    let client = connect(&pipeline).await?;

    // The result has 3,000,000 numbers and as many texts, which is more than the query's memory.
    let spilled = "SELECT x, concat('number ', x) AS t FROM generate_series(1, 3000000) s(x) ORDER BY t DESC OFFSET 2999999";
    let rows = run(&client, spilled).await.map_err(|status| anyhow::anyhow!("{status}"))?;
    ensure!(rows.iter().map(RecordBatch::num_rows).sum::<usize>() == 1, "a sort goes to disk");
    let hungry = "SELECT count(*) FROM generate_series(1, 30000000) a(x) JOIN generate_series(1, 30000000) b(y) ON a.x = b.y";
    let (code, sentence) = refusal(&client, hungry).await?;
    ensure!(
        code == Code::ResourceExhausted && sentence.contains("--query-memory-max"),
        "{code:?} {sentence}"
    );
    let (code, sentence) = refusal(&client, "SELECT * FROM generate_series(1, 20000000)").await?;
    ensure!(
        code == Code::ResourceExhausted && sentence.contains("--result-bytes-max"),
        "{code:?} {sentence}"
    );
    for query in [ENDLESS, STUBBORN] {
        let (code, sentence) = refusal(&client, query).await?;
        ensure!(
            code == Code::DeadlineExceeded && sentence.contains("--query-time-max"),
            "{code:?} {sentence}"
        );
        eventually("it stops", DEADLINE, async || (running(&flight).await.ok()? == 0.0).then_some(())).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_can_be_cancelled_and_its_place_is_free() -> anyhow::Result<()> {
    let Some((_, pipeline)) = pipeline().await? else { return Ok(()) };
    let flight = server(&pipeline, &["--queries-max", "1"]).await?;
    let client = connect(&pipeline).await?;
    let mut sql = FlightSqlServiceClient::new_from_inner(client.clone());
    for query in [ENDLESS, STUBBORN] {
        let info = sql.execute(query.to_owned(), None).await?;
        let mut tasks = JoinSet::new();
        let (reader, described) = (FlightSqlServiceClient::new_from_inner(client.clone()), info.clone());
        tasks.spawn(async move { read(reader, described).await });
        eventually("the query runs", DEADLINE, async || (running(&flight).await.ok()? == 1.0).then_some(()))
            .await;

        let (code, sentence) = refusal(&client, "SELECT 1").await?;
        ensure!(code == Code::ResourceExhausted && sentence.contains("--queries-max"), "{code:?} {sentence}");

        let cancel = Action::new("CancelFlightInfo", CancelFlightInfoRequest::new(info).encode_to_vec());
        for expected in [CancelStatus::Cancelled, CancelStatus::NotCancellable] {
            let results: Vec<_> =
                client.clone().do_action(cancel.clone()).await?.into_inner().try_collect().await?;
            let result = CancelFlightInfoResult::decode(results[0].body.clone())?;
            ensure!(result.status() == expected, "{result:?}, expected {expected:?}");
            if expected == CancelStatus::Cancelled {
                let ended = tasks.join_next().await.context("it ends")??.err().context("by an error")?;
                let FlightError::Tonic(status) = ended else { anyhow::bail!("{ended}") };
                ensure!(status.code() == Code::Cancelled, "{status}");
                eventually("it has ended", DEADLINE, async || {
                    (running(&flight).await.ok()? == 0.0).then_some(())
                })
                .await;
            }
        }
    }
    ensure!(run(&client, "SELECT 1").await.is_ok(), "the place is free again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_nobody_takes_does_not_keep_a_server_that_stops() -> anyhow::Result<()> {
    let Some((_, pipeline)) = pipeline().await? else { return Ok(()) };
    let mut flight = server(&pipeline, &[]).await?;
    let mut sql = FlightSqlServiceClient::new_from_inner(connect(&pipeline).await?);
    let info = sql.execute("SELECT * FROM generate_series(1, 20000000)".to_owned(), None).await?;
    let ticket = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket);
    let mut batches = sql.do_get(ticket.context("a ticket")?).await?;
    ensure!(batches.try_next().await?.is_some(), "it has begun");
    let status = flight.terminate().await?;
    ensure!(status.success(), "a drain ends with exit code 0, not {status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_leaves_nothing_running() -> anyhow::Result<()> {
    let Some((_, pipeline)) = pipeline().await? else { return Ok(()) };
    let flight = server(&pipeline, &["--user-followers-max", "20"]).await?;
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let client = connect(&pipeline).await?;
        clients.spawn(async move { run(&client, ENDLESS).await.map(drop) });
    }
    for _ in 0..20 {
        let mut client = connect(&pipeline).await?;
        clients.spawn(async move {
            let mut stream = client.do_get(Ticket::new(r#"{"read":"bronze"}"#)).await?.into_inner();
            while stream.next().await.transpose()?.is_some() {}
            Ok(())
        });
    }
    let followers = async || flight.metric(names::FOLLOWERS, &[]).await.ok();
    eventually("all of them are served", DEADLINE, async || {
        (running(&flight).await.ok()? == 4.0 && followers().await? == 20.0).then_some(())
    })
    .await;
    let more = connect(&pipeline).await?.do_get(Ticket::new(r#"{"read":"gold"}"#)).await;
    let refused = more.err().context("one follower more is refused")?;
    ensure!(
        refused.code() == Code::ResourceExhausted && refused.message().contains("--user-followers-max"),
        "{refused}"
    );
    // Each aborted client drops its connection without a message.
    clients.shutdown().await;
    eventually("nothing runs any more", DEADLINE, async || {
        (running(&flight).await.ok()? == 0.0 && followers().await? == 0.0).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_connections_come_and_go() -> anyhow::Result<()> {
    let Some((_, pipeline)) = pipeline().await? else { return Ok(()) };
    let mut flight = server(&pipeline, &[]).await?;
    let files =
        |flight: &Process| Some(std::fs::read_dir(format!("/proc/{}/fd", flight.id()?)).ok()?.count());
    let client = connect(&pipeline).await?;
    run(&client, "SELECT 1").await.map_err(|status| anyhow::anyhow!("{status}"))?;
    let before = files(&flight).context("it runs")?;
    let address = pipeline.flight.trim_start_matches("grpc://").to_owned();
    let visits = futures::stream::iter(0..CONNECTIONS).map(|visit| {
        let (address, pipeline) = (address.clone(), &pipeline);
        async move {
            match visit % 4 {
                // The clients send nothing, use a different protocol, stop after an HTTP/2 handshake, or behave correctly.
                0 => drop(TcpStream::connect(&address).await?),
                1 => TcpStream::connect(&address).await?.write_all(b"GET / HTTP/1.0\r\n\r\n").await?,
                2 => {
                    TcpStream::connect(&address)
                        .await?
                        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                        .await?;
                }
                _ => drop(transport::client::progress(&mut connect(pipeline).await?).await?),
            }
            anyhow::Ok(())
        }
    });
    visits.buffer_unordered(CONNECTIONS_AT_ONCE).try_for_each(async |()| Ok(())).await?;
    ensure!(flight.is_running()?, "it still runs");
    eventually("their files are closed", DEADLINE, async || (files(&flight)? <= before + 5).then_some(()))
        .await;
    run(&client, "SELECT 1").await.map_err(|status| anyhow::anyhow!("{status}"))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_is_so_deep_that_the_stack_overflows() -> anyhow::Result<()> {
    let Some((_, pipeline)) = pipeline().await? else { return Ok(()) };
    let mut flight = server(&pipeline, &[]).await?;
    let client = connect(&pipeline).await?;
    let chains = [
        ("SELECT 1", " + 1"),
        ("SELECT true", " OR true"),
        ("SELECT 1", " UNION ALL SELECT 1"),
        ("SELECT 1", "::int"),
    ];
    for (begin, link) in chains {
        for count in [450, 100_000] {
            let answer = run(&client, &format!("{begin}{}", link.repeat(count))).await;
            let is_expected = if count == 450 {
                answer.is_ok()
            } else {
                answer.is_err_and(|status| status.code() == Code::InvalidArgument)
            };
            ensure!(is_expected && flight.is_running()?, "{count} times {link:?}");
        }
    }
    Ok(())
}

/// Returns valid messages, from which random ones are made.
fn valid_messages() -> Vec<Vec<u8>> {
    let statement = CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None };
    let tables = CommandGetTables { include_schema: true, ..CommandGetTables::default() };
    let prepared =
        CommandPreparedStatementQuery { prepared_statement_handle: vec![b'q', 8, 0, 0, 0, b'S'].into() };
    let ticket = TicketStatementQuery { statement_handle: vec![7; 40].into() };
    let create = ActionCreatePreparedStatementRequest { query: "SELECT ?".to_owned(), transaction_id: None };
    let close =
        ActionClosePreparedStatementRequest { prepared_statement_handle: vec![b'q', 0, 0, 0, 0].into() };
    let plan = SubstraitPlan { plan: vec![0x1a, 2, 0x12, 0].into(), version: "0.63.0".to_owned() };
    let plan = CommandStatementSubstraitPlan { plan: Some(plan), transaction_id: None };
    let cancel = CancelFlightInfoRequest::new(FlightInfo::new());
    let any = |any: Any| any.encode_to_vec();
    vec![
        any(statement.as_any()),
        any(tables.as_any()),
        any(prepared.as_any()),
        any(ticket.as_any()),
        any(create.as_any()),
        any(close.as_any()),
        any(plan.as_any()),
        cancel.encode_to_vec(),
        br#"{"read":"bronze","from":{"0":128},"until":{"0":256}}"#.to_vec(),
        br#"{"read":"history","symbol":"A","below":{"0":0},"first_micros":0,"last_micros":9,"margin":{"rows":3}}"#.to_vec(),
    ]
}

/// Returns a random message: any bytes, or a valid message with some bytes changed, cut or repeated.
fn made_up(random: &mut StdRng) -> Vec<u8> {
    let valid = valid_messages();
    let mut message = valid[random.random_range(0..valid.len())].clone();
    match random.random_range(0..4) {
        0 => message = (0..random.random_range(0..200)).map(|_| random.random()).collect(),
        1 => message.truncate(random.random_range(0..=message.len())),
        2 => message.extend_from_within(random.random_range(0..message.len())..),
        _ => {}
    }
    for _ in 0..random.random_range(0..4) {
        if !message.is_empty() {
            let index = random.random_range(0..message.len());
            message[index] = random.random();
        }
    }
    message
}

/// Sends one random message as `kind`. Returns the status of the answer.
async fn send(mut client: Client, kind: &str, message: Vec<u8>) -> Result<(), Status> {
    match kind {
        "ticket" => {
            let mut answers = client.do_get(Ticket::new(message)).await?.into_inner();
            // A ticket that still follows bronze never ends, so its first message is sufficient.
            answers.message().await.map(drop)
        }
        "command" => client.get_flight_info(FlightDescriptor::new_cmd(message)).await.map(drop),
        "schema" => client.get_schema(FlightDescriptor::new_cmd(message)).await.map(drop),
        "path" => {
            let path = vec![String::from_utf8_lossy(&message).into_owned()];
            client.get_flight_info(FlightDescriptor::new_path(path)).await.map(drop)
        }
        "put by command" => {
            let put = FlightData::new()
                .with_descriptor(FlightDescriptor::new_cmd(message.clone()))
                .with_data_body(message);
            client.do_put(futures::stream::iter([put])).await?.into_inner().message().await.map(drop)
        }
        "put" => {
            let schema = transport::stream::encode_schema(&schema::bronze::schema());
            let schema = schema.with_descriptor(FlightDescriptor::new_path(vec!["bronze".to_owned()]));
            let bent = FlightData::new()
                .with_data_header(message.clone())
                .with_app_metadata(message.clone())
                .with_data_body(message);
            client.do_put(futures::stream::iter([schema, bent])).await?.into_inner().message().await.map(drop)
        }
        action => {
            client.do_action(Action::new(action, message)).await?.into_inner().message().await.map(drop)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_survives_malformed_messages() -> anyhow::Result<()> {
    let Some((_, pipeline)) = pipeline().await? else { return Ok(()) };
    let mut flight = server(&pipeline, &[]).await?;
    let client = connect(&pipeline).await?;
    let seed = integration_tests::environment::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let kinds = [
        "ticket",
        "command",
        "schema",
        "path",
        "put by command",
        "put",
        "CreatePreparedStatement",
        "ClosePreparedStatement",
        "CreatePreparedSubstraitPlan",
        "CancelFlightInfo",
        "SetSessionOptions",
        "report",
        "RenewFlightEndpoint",
        "none",
    ];
    let mut codes: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for kind in kinds {
        let messages: Vec<Vec<u8>> = (0..MESSAGES).map(|_| made_up(&mut random)).collect();
        let mut answers = futures::stream::iter(messages)
            .map(|message| {
                let client = client.clone();
                async move {
                    let sent = tokio::time::timeout(DEADLINE, send(client, kind, message.clone())).await;
                    (message, sent)
                }
            })
            .buffer_unordered(16);
        while let Some((message, sent)) = answers.next().await {
            let sent = sent.with_context(|| format!("{kind} hangs, seed {seed}: {message:02x?}"))?;
            let code = sent.err().map_or(Code::Ok, |status| {
                eprintln!("{kind}: {status}");
                status.code()
            });
            ensure!(
                !matches!(code, Code::Internal | Code::Unknown),
                "{kind} {code:?}, seed {seed}: {message:02x?}"
            );
            *codes.entry((kind, format!("{code:?}"))).or_default() += 1;
        }
    }
    eprintln!("{codes:?}");
    ensure!(
        flight.is_running()? && run(&client, "SELECT 1").await.is_ok(),
        "the server goes on, seed {seed}"
    );
    let log = flight.log()?;
    let mut panics = log.lines().filter(|line| line.contains("panicked"));
    // A panic for incomplete plans is expected.
    ensure!(panics.all(|line| line.contains("datafusion-substrait")), "nothing else panicked, seed {seed}");
    Ok(())
}
