//! The clients that people use, with every call they have. One server is open, and one has TLS, users and tokens.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt as _;
use futures::future::join_all;
use integration_tests::check::{count, drained, pipeline};
use integration_tests::environment::Environment;
use integration_tests::input::{self, synthetic};
use integration_tests::pipeline::Pipeline;
use integration_tests::process::Process;
use integration_tests::wait::eventually;
use tokio::process::Command;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::access::{Certificates, add_user};

/// Longest time for a server to return after a restart, and for cancelled queries to end.
const DEADLINE: Duration = Duration::from_mins(1);
/// Password of every user.
const PASSWORD: &str = "correct horse: battery, staple?";

/// Clients, which are also the names of their users. So failed log-ins of one client do not lock out another.
const CLIENTS: [&str; 5] = ["adbc-python", "adbc-go", "pyarrow", "jdbc", "arrow-rs"];

/// Credentials of a client, and the authority that it trusts.
#[derive(Clone, Copy, Debug, Default)]
struct Login<'a> {
    /// Authority that the client trusts. If set, the client uses TLS.
    authority: Option<&'a Path>,
    /// Certificate of the client, and its key.
    certificate: Option<(&'a Path, &'a Path)>,
    /// Password. The name of the client is the user.
    password: Option<&'a str>,
    token: Option<&'a str>,
}

impl Login<'_> {
    /// Returns the arguments for `client`, since each client has different names for the options.
    fn options(&self, client: &str) -> Vec<String> {
        let [authority, certificate, key, user, password, token] = match client {
            "jdbc" => ["tlsRootCerts=", "clientCertificate=", "clientKey=", "user", "password", "token="],
            "pyarrow" => ["tls_root_certs=@", "cert_chain=@", "private_key=@", "user", "password", "token="],
            _ => [
                "adbc.flight.sql.client_option.tls_root_certs=@",
                "adbc.flight.sql.client_option.mtls_cert_chain=@",
                "adbc.flight.sql.client_option.mtls_private_key=@",
                "username",
                "password",
                "adbc.flight.sql.authorization_header=Bearer ",
            ],
        };
        let mut options = Vec::new();
        if client == "jdbc" {
            options.push(format!("useEncryption={}", self.authority.is_some()));
        }
        options.extend(self.authority.map(|path| format!("{authority}{}", path.display())));
        if let Some((certificate_path, key_path)) = self.certificate {
            options.push(format!("{certificate}{}", certificate_path.display()));
            options.push(format!("{key}{}", key_path.display()));
        }
        if let Some(text) = self.password {
            options.extend([format!("{user}={client}"), format!("{password}={text}")]);
        }
        options.extend(self.token.map(|text| format!("{token}{text}")));
        options
    }
}

/// Returns the programs that act as `client`. JDBC has one for each version of its driver.
fn programs(environment: &Environment, client: &str) -> Vec<Command> {
    let python = |script: &str| {
        let mut command = Command::new(&environment.python);
        command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script));
        command
    };
    let java = |driver: &String| {
        let mut command = Command::new("java");
        // With less compilation the program ends sooner. In a time zone other than UTC, this driver's getTimestamp() is wrong by twice the
        // difference, whatever the server sends.
        command
            .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
            .args(["-Duser.timezone=UTC", "--add-opens=java.base/java.nio=ALL-UNNAMED", "-cp", driver])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/java/CheckJdbc.java"));
        command
    };
    match client {
        "adbc-python" => vec![python("check_flight_sql.py")],
        "pyarrow" => vec![python("check_pyarrow_flight.py")],
        "adbc-go" => vec![Command::new(&environment.go_check)],
        "jdbc" => environment.jdbc_drivers.iter().map(java).collect(),
        // The tests themselves use this client.
        _ => Vec::new(),
    }
}

/// Runs the check `what` (`full`, `count` or `refused`) with the clients in all other languages, concurrently, and returns their results.
/// An open server is checked with every version of a client, a secured server with the first version.
async fn ask(
    environment: &Environment,
    pipeline: &Pipeline,
    login: Login<'_>,
    [what, expected]: [&str; 2],
) -> Vec<anyhow::Result<()>> {
    let versions_max = if login.authority.is_none() { usize::MAX } else { 1 };
    let asked = CLIENTS.into_iter().flat_map(|client| {
        let address = match client {
            "jdbc" => pipeline.flight.rsplit("//").next().unwrap_or_default(),
            _ => &pipeline.flight,
        };
        programs(environment, client).into_iter().take(versions_max).map(move |mut program| {
            program.args([address, what, expected]).args(login.options(client)).kill_on_drop(true);
            passes(client, program)
        })
    });
    join_all(asked).await
}

/// Returns the first failure.
fn all(results: Vec<anyhow::Result<()>>) -> anyhow::Result<()> {
    results.into_iter().collect()
}

async fn passes(client: &str, mut program: Command) -> anyhow::Result<()> {
    let output = program.output().await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{client}: {said}{}", String::from_utf8_lossy(&output.stderr));
    eprint!("{said}");
    Ok(())
}

/// Connects with arrow-rs, logs in and counts the rows.
async fn ask_arrow_rs(pipeline: &Pipeline, login: Login<'_>) -> anyhow::Result<i64> {
    let url = pipeline.flight.replace("grpc+tls://", "https://").replace("grpc://", "http://");
    let mut endpoint = Endpoint::from_shared(url)?;
    if let Some(authority) = login.authority {
        access::install_provider();
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(std::fs::read(authority)?));
        if let Some((certificate, key)) = login.certificate {
            tls = tls.identity(Identity::from_pem(std::fs::read(certificate)?, std::fs::read(key)?));
        }
        endpoint = endpoint.tls_config(tls)?;
    }
    let channel: Channel = endpoint.connect().await?;
    let mut client = FlightSqlServiceClient::new_from_inner(FlightServiceClient::new(channel));
    if let Some(password) = login.password {
        client.handshake("arrow-rs", password).await?;
    }
    if let Some(token) = login.token {
        client.set_token(token.to_owned());
    }
    let info = client.execute("SELECT count(*) FROM bronze".to_owned(), None).await?;
    let endpoint = info.endpoint.into_iter().next().context("an endpoint")?;
    let batches: Vec<_> = client.do_get(endpoint.ticket.context("a ticket")?).await?.try_collect().await?;
    let batch = batches.first().context("a batch")?;
    Ok(arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(batch.column(0)).value(0))
}

/// Starts the services that fill bronze and gold, and fills them. Returns the number of candles in each.
async fn filled(environment: &Environment, pipeline: &Pipeline) -> anyhow::Result<([Process; 3], i64)> {
    let services = [
        pipeline.start(&["flight", "--flush-interval", "300ms"])?,
        pipeline.start(&["gold", "--flush-interval", "300ms"])?,
        pipeline.start(&["ingest"])?,
    ];
    let input = synthetic(pipeline, "ONE-USD", 3, 1).await?;
    let arguments = input::producer(&[input], &["--rate", "max", "--quiet"]);
    ensure!(pipeline.run(&arguments).await?.status.success(), "the producer ends well");
    drained(pipeline, &environment.kafka).await?;
    let rows = count(&pipeline.sql("SELECT count(*) FROM bronze").await?).context("a count")?;
    Ok((services, rows))
}

/// Waits until no query runs except the one that checks.
async fn nothing_is_left_running(pipeline: &Pipeline) {
    let query = "SELECT count(*) FROM system.queries WHERE query NOT LIKE '%system.queries%'";
    eventually("the cancelled queries have ended", DEADLINE, async || {
        (count(&pipeline.sql(query).await.ok()?)? == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_gets_all_it_asks_for() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let (_services, rows) = filled(&environment, &pipeline).await?;
    all(ask(&environment, &pipeline, Login::default(), ["full", &rows.to_string()]).await)?;
    nothing_is_left_running(&pipeline).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_logs_in_over_tls_by_password_token_and_certificate() -> anyhow::Result<()> {
    let Some((environment, mut pipeline)) = pipeline().await? else { return Ok(()) };
    let files = Certificates::make(pipeline.folder.path(), "ours")?;
    let users = pipeline.folder.path().join("users.json");
    let address = pipeline.flight.replace("grpc://", "grpc+tls://");
    pipeline.flight.clone_from(&address);
    for (name, value) in [
        ("CANDLEFLIGHT_FLIGHT", address.as_str()),
        ("CANDLEFLIGHT_PASSWORD", "the services' own"),
        ("CANDLEFLIGHT_USERS", &users.to_string_lossy()),
        ("CANDLEFLIGHT_TLS_CA", &files.authority.to_string_lossy()),
        ("CANDLEFLIGHT_TLS_CERT", &files.certificate.to_string_lossy()),
        ("CANDLEFLIGHT_TLS_KEY", &files.key.to_string_lossy()),
    ] {
        pipeline.set(name, value);
    }
    for client in CLIENTS {
        add_user(&pipeline, &users, client, "reader", PASSWORD).await?;
    }
    let token = pipeline.run(&["users", "token", "jdbc"]).await?;
    let token = String::from_utf8(token.stdout)?.trim().to_owned();
    let ([mut flight, _gold, _ingest], rows) = filled(&environment, &pipeline).await?;
    let rows_text = rows.to_string();
    let counted = ["count", rows_text.as_str()];

    let nobody = Login { authority: Some(&files.authority), ..Login::default() };
    let password = Login { password: Some(PASSWORD), ..nobody };
    let token = Login { token: Some(&token), ..nobody };
    all(ask(&environment, &pipeline, password, ["full", &rows_text]).await)?;
    ensure!(ask_arrow_rs(&pipeline, password).await? == rows);
    all(ask(&environment, &pipeline, token, counted).await)?;
    ensure!(ask_arrow_rs(&pipeline, token).await? == rows);

    let wrong = Login { password: Some("guess"), ..nobody };
    for (login, sentence) in [
        (wrong, "user or password is wrong"),
        (Login { token: Some("guess"), ..nobody }, "log in again"),
        (nobody, "log in: this server requires a user and a password"),
    ] {
        all(ask(&environment, &pipeline, login, ["refused", sentence]).await)?;
        let refused = ask_arrow_rs(&pipeline, login).await.err().context("arrow-rs must be refused")?;
        ensure!(format!("{refused:#}").contains(sentence), "{refused:#}");
    }

    // From now on only clients with a certificate of this authority can connect.
    ensure!(flight.terminate().await?.success(), "the server ends well");
    flight.restart_with(&[("CANDLEFLIGHT_TLS_CLIENT_CA", &files.authority.to_string_lossy())])?;
    eventually("the server is back", DEADLINE, async || pipeline.sql("SELECT 1").await.ok()).await;
    let certified = Login { certificate: Some((&files.certificate, &files.key)), ..password };
    all(ask(&environment, &pipeline, certified, counted).await)?;
    ensure!(ask_arrow_rs(&pipeline, certified).await? == rows);
    let uncertified = ask(&environment, &pipeline, password, counted).await;
    ensure!(uncertified.iter().all(Result::is_err), "let in without a certificate: {uncertified:?}");
    ensure!(ask_arrow_rs(&pipeline, password).await.is_err(), "arrow-rs was let in without a certificate");
    Ok(())
}
