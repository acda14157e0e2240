//! Pages that people use, in a real Chromium: the dashboard and the status page of `candleflight up`, started as a new user does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use integration_tests::environment::Environment;
use integration_tests::process::Process;
use integration_tests::wait::eventually;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::process::Command;

/// Longest time to prepare Superset from nothing: several times what two busy cores need.
const DASHBOARD_DEADLINE: Duration = Duration::from_mins(8);
/// Longest time for everything else.
const DEADLINE: Duration = Duration::from_mins(1);

/// Addresses that `up` prints.
struct Addresses {
    kafka: String,
    postgres: String,
    dashboard: String,
}

/// Returns the word after `label` in the output of `up`.
fn word(log: &str, label: &str) -> anyhow::Result<String> {
    let line = log.lines().find_map(|line| line.trim_start().strip_prefix(label));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    Ok(word.with_context(|| format!("up prints {label:?}: {log}"))?.to_owned())
}

async fn send_bad_message(kafka: &str) -> anyhow::Result<()> {
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", kafka).create()?;
    let record = FutureRecord::to("bitcoin_data").key("BTC-USD").payload("<b>this is no candle</b>");
    producer.send(record, DEADLINE).await.map_err(|(error, _)| error)?;
    Ok(())
}

async fn check(environment: &Environment, script: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
    let output = Command::new(&environment.python).arg(&script).args(arguments).output().await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{}: {said}{}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    eprintln!("{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_sees_the_dashboard_and_the_status_page_with_the_right_numbers() -> anyhow::Result<()> {
    let Some(environment) = Environment::get() else { return Ok(()) };
    let program =
        std::env::var("CANDLEFLIGHT_TEST_DASHBOARD").context("script/test sets the dashboard's program")?;
    // PostgreSQL's user must be able to reach this folder.
    let folder = tempfile::Builder::new()
        .prefix("candleflight-test.")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o711))
        .tempdir_in("/var/tmp")?;
    let kept = std::env::var_os("CANDLEFLIGHT_TEST_SCREENSHOTS").map(PathBuf::from);
    let screenshots = kept.unwrap_or_else(|| folder.path().to_owned());
    let screenshot = |name: &str| screenshots.join(name).display().to_string();

    let sample = integration_tests::input::sample()?;
    let inputs = ["SAMPLE-USD", "ETH-USD"].map(|symbol| format!("{}={symbol}", sample.display()));
    let data = folder.path().join("data").display().to_string();
    let arguments = [
        "up",
        "--data-dir",
        &data,
        "--dashboard",
        &program,
        "--rate",
        "8/s",
        "--input",
        &inputs[0],
        "--input",
        &inputs[1],
    ];
    let kafka_home = ("CANDLEFLIGHT_KAFKA_HOME".to_owned(), std::env::var("CANDLEFLIGHT_TEST_KAFKA_HOME")?);
    let mut up = Process::start(&arguments, &[kafka_home], folder.path().join("up.log"))?;
    up.ready().await;
    let log = up.log()?;
    let addresses = Addresses {
        kafka: word(&log, "Kafka ")?,
        postgres: word(&log, "PostgreSQL  psql")?,
        dashboard: word(&log, "dashboard ")?,
    };
    send_bad_message(&addresses.kafka).await?;

    let url = format!("http://{}", up.address());
    check(&environment, "check_status_page.py", &[&url, &screenshot("status.png")]).await?;

    eventually("the dashboard is ready", DASHBOARD_DEADLINE, async || {
        let log = up.log().ok()?;
        assert!(!log.contains("no dashboard"), "{log}");
        log.contains("dashboard ready").then_some(())
    })
    .await;
    let (url, _) = addresses.dashboard.split_once("/superset").context("the dashboard's address")?;
    let arguments = [url, "admin", "admin", &addresses.postgres, &screenshot("dashboard.png")];
    check(&environment, "check_dashboard.py", &arguments).await?;

    ensure!(up.terminate().await?.success(), "up drains and ends with exit code 0: {}", up.log()?);
    ensure!(up.log()?.contains("drained"), "up reports it: {}", up.log()?);
    Ok(())
}
