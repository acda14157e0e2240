//! Access: users and roles, tokens, certificates, and the messages for rejected clients.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use access::{Identity, Secret};
use anyhow::{Context as _, ensure};
use arrow_flight::{FlightData, FlightDescriptor};
use futures::StreamExt as _;
use integration_tests::check::{count, drained, pipeline};
use integration_tests::input::{self, synthetic};
use integration_tests::pipeline::Pipeline;
use integration_tests::process::program;
use integration_tests::wait::eventually;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use service::http;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tonic::Code;

/// Longest time until a change of the users file takes effect.
const DEADLINE: Duration = Duration::from_secs(20);
const PASSWORD: &str = "the-pipeline's-own";

/// Creates an authority and its certificate for loopback, as files.
pub(crate) struct Certificates {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificates {
    pub(crate) fn make(folder: &Path, name: &str) -> anyhow::Result<Certificates> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // The name must differ from that of the signed certificate, or OpenSSL treats the certificate as self-signed.
        authority.distinguished_name.push(DnType::CommonName, "an authority of our own");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        leaf.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = leaf.signed_by(&key, &authority)?;
        let write = |what: &str, pem: String| {
            let path = folder.join(format!("{name}-{what}.pem"));
            std::fs::write(&path, pem).map(|()| path)
        };
        Ok(Certificates {
            authority: write("authority", authority.pem())?,
            certificate: write("certificate", leaf.pem())?,
            key: write("key", key.serialize_pem())?,
        })
    }
}

/// Adds a user as an operator does.
pub(crate) async fn add_user(
    pipeline: &Pipeline,
    users: &Path,
    name: &str,
    role: &str,
    password: &str,
) -> anyhow::Result<()> {
    let mut set = Command::new(program()?);
    set.args(["users", "set", name, "--role", role, "--users"]).arg(users).stdin(Stdio::piped());
    let mut set = set.spawn()?;
    set.stdin.take().context("a pipe")?.write_all(password.as_bytes()).await?;
    ensure!(set.wait().await?.success(), "{name} is added to {}", pipeline.folder.path().display());
    Ok(())
}

fn login(user: &str, password: &str) -> Identity {
    Identity {
        user: user.to_owned(),
        password: Some(Secret::from(password.to_owned())),
        ..Identity::default()
    }
}

/// Runs a query with `flags`. Returns the output of the program, or its error.
async fn ask(pipeline: &Pipeline, flags: &[&str]) -> anyhow::Result<Result<String, String>> {
    let query = ["sql", "SELECT count(*) FROM bronze", "--format", "csv"];
    let output = pipeline.run(&[&query[..], flags].concat()).await?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) })
}

#[tokio::test(flavor = "multi_thread")]
async fn users_do_what_their_roles_allow_and_others_get_a_sentence() -> anyhow::Result<()> {
    let Some((environment, mut pipeline)) = pipeline().await? else { return Ok(()) };
    let users = pipeline.folder.path().join("users.json");
    add_user(&pipeline, &users, "ada", "reader", "lovelace").await?;
    pipeline.set("CANDLEFLIGHT_PASSWORD", PASSWORD);
    pipeline.set("CANDLEFLIGHT_USERS", &users.display().to_string());
    let flight = pipeline.start(&["flight", "--flush-interval", "300ms"])?;
    let gold = pipeline.start(&["gold", "--flush-interval", "300ms"])?;
    let ingest = pipeline.start(&["ingest"])?;
    let input = synthetic(&pipeline, "ONE-USD", 1, 1).await?;
    let arguments = input::producer(&[input], &["--rate", "max", "--quiet"]);
    ensure!(pipeline.run(&arguments).await?.status.success(), "the producer ends well");
    drained(&pipeline, &environment.kafka).await?;

    let rows = count(&pipeline.sql("SELECT count(*) FROM bronze").await?).context("a count")?;
    ensure!(rows > 0);
    let as_ada = ["--user", "ada", "--password", "lovelace"];
    ensure!(count(&ask(&pipeline, &as_ada).await?.unwrap_or_default()) == Some(rows), "a reader reads");
    let token = pipeline.run(&["users", "token", "ada"]).await?.stdout;
    let token = String::from_utf8(token)?.trim().to_owned();
    // The server checks the file every second. An argument takes precedence over the password in the environment.
    let identity = Identity { token: Some(Secret::from(token)), ..Identity::default() };
    eventually("the token of the users file lets in", DEADLINE, async || {
        let mut client = transport::client::connect(&pipeline.flight, &identity).await.ok()?;
        transport::client::progress(&mut client).await.ok()
    })
    .await;
    let refused = ask(&pipeline, &["--password", "guess"]).await?.err().context("a guess is refused")?;
    ensure!(refused.contains("user or password is wrong (Unauthenticated)"), "{refused}");

    let mut reader = transport::client::connect(&pipeline.flight, &login("ada", "lovelace")).await?;
    let put = FlightData::new().with_descriptor(FlightDescriptor::new_path(vec!["bronze".to_owned()]));
    let refused = reader.do_put(futures::stream::iter([put])).await.err().context("a reader puts nothing")?;
    ensure!(refused.code() == Code::PermissionDenied && refused.message().contains("reader"), "{refused}");
    let report = transport::client::report(&mut reader, "{}".into())
        .await
        .err()
        .context("a reader does not report")?;
    ensure!(report.to_string().contains("writer"), "{report}");

    for address in [flight.address(), gold.address(), ingest.address()] {
        ensure!(http::get(address, "/ready", &Identity::default()).await?.0 == 200, "health is for everyone");
        let (status, sentence) = http::get(address, "/status.json", &Identity::default()).await?;
        ensure!(status == 401 && sentence.contains("log in"), "{sentence}");
        ensure!(
            http::get(address, "/status.json", &login("ada", "lovelace")).await?.0 == 200,
            "a reader looks"
        );
    }

    for _ in 0..5 {
        let refused = http::get(flight.address(), "/", &login("ada", "guess")).await?;
        ensure!(refused.0 == 401, "{refused:?}");
    }
    let refused = http::get(flight.address(), "/", &login("ada", "lovelace")).await?;
    ensure!(refused.0 == 429 && refused.1.contains("try again"), "{refused:?}");
    let refused = ask(&pipeline, &as_ada).await?.err().context("HTTP and Flight share the guard")?;
    ensure!(refused.contains("try again"), "{refused}");

    for process in [&flight, &gold, &ingest] {
        let log = process.log()?;
        ensure!(!log.contains(PASSWORD) && !log.contains("lovelace"), "no password is logged");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_certificates_only_those_of_the_authority_come_in() -> anyhow::Result<()> {
    let Some((environment, mut pipeline)) = pipeline().await? else { return Ok(()) };
    let ours = Certificates::make(pipeline.folder.path(), "ours")?;
    let others = Certificates::make(pipeline.folder.path(), "others")?;
    pipeline.flight = pipeline.flight.replace("grpc://", "grpc+tls://");
    pipeline.set("CANDLEFLIGHT_FLIGHT", &pipeline.flight.clone());
    pipeline.set("CANDLEFLIGHT_TLS_CA", &ours.authority.display().to_string());
    pipeline.set("CANDLEFLIGHT_TLS_CERT", &ours.certificate.display().to_string());
    pipeline.set("CANDLEFLIGHT_TLS_KEY", &ours.key.display().to_string());
    let authority = ours.authority.display().to_string();
    let flight = pipeline.start(&["flight", "--flush-interval", "300ms", "--tls-client-ca", &authority])?;
    let _gold = pipeline.start(&["gold", "--flush-interval", "300ms"])?;
    let _ingest = pipeline.start(&["ingest"])?;
    let input = synthetic(&pipeline, "ONE-USD", 1, 1).await?;
    let arguments = input::producer(&[input], &["--rate", "max", "--quiet"]);
    ensure!(pipeline.run(&arguments).await?.status.success(), "the producer ends well");
    drained(&pipeline, &environment.kafka).await?;
    ensure!(pipeline.run(&["verify"]).await?.status.success(), "gold follows from bronze");

    let stranger = Identity { tls_ca: Some(ours.authority.clone()), ..Identity::default() };
    let with = |certificates: &Certificates| Identity {
        tls_ca: Some(ours.authority.clone()),
        tls_cert: Some(certificates.certificate.clone()),
        tls_key: Some(certificates.key.clone()),
        ..Identity::default()
    };
    let status_page = format!("https://{}", flight.address());
    for (who, identity, comes_in) in
        [("of ours", with(&ours), true), ("without", stranger, false), ("of others", with(&others), false)]
    {
        // With TLS 1.3 a server rejects a certificate after the handshake, so the error comes with the first call.
        let asked = async {
            let mut client = transport::client::connect(&pipeline.flight, &identity).await?;
            transport::client::progress(&mut client).await
        };
        ensure!(asked.await.is_ok() == comes_in, "a client with a certificate {who}");
        ensure!(
            http::get(&status_page, "/ready", &identity).await.is_ok() == comes_in,
            "and at the status page"
        );
    }
    let distrustful = Identity { tls_ca: Some(others.authority.clone()), ..with(&ours) };
    let refused = transport::client::connect(&pipeline.flight, &distrustful)
        .await
        .err()
        .context("the server is not trusted")?;
    let sentence = format!("{:#}", anyhow::Error::from(refused));
    ensure!(sentence.contains("certificate"), "{sentence}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_others_can_reach_needs_a_password() -> anyhow::Result<()> {
    let Some((_, pipeline)) = pipeline().await? else { return Ok(()) };
    for arguments in [["--listen", "0.0.0.0:0"], ["--status-addr", "0.0.0.0:0"]] {
        let output = pipeline.run(&[&["flight"][..], &arguments].concat()).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains("no password is set"), "{arguments:?}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_outlives_the_server_that_gave_it() -> anyhow::Result<()> {
    let Some((_, mut pipeline)) = pipeline().await? else { return Ok(()) };
    pipeline.set("CANDLEFLIGHT_PASSWORD", PASSWORD);
    let key = pipeline.folder.path().join("token.key").display().to_string();
    let mut flight = pipeline.start(&["flight", "--token-key", &key])?;
    flight.ready().await;
    let mut client = transport::client::connect(&pipeline.flight, &login("candleflight", PASSWORD)).await?;
    let answer = client.handshake(futures::stream::empty()).await?;
    let header =
        answer.metadata().get("authorization").context("a token in the header")?.to_str()?.to_owned();
    let payload = answer.into_inner().next().await.context("one answer")??.payload;
    ensure!(
        header == format!("Bearer {}", String::from_utf8(payload.to_vec())?),
        "header and payload say the same"
    );
    let token = header.trim_start_matches("Bearer ").to_owned();
    ensure!(flight.terminate().await?.success());
    flight.restart()?;
    flight.ready().await;
    let identity = Identity { token: Some(Secret::from(token)), ..Identity::default() };
    let mut client = transport::client::connect(&pipeline.flight, &identity).await?;
    transport::client::progress(&mut client).await?;
    Ok(())
}
