//! The pipeline as users deploy it: `deploy/compose.yaml` itself, on a Docker engine.

mod compose;
mod start_order;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use integration_tests::check::{count, topic_ends};
use integration_tests::environment::Environment;
use integration_tests::input::Input;
use integration_tests::pipeline::connect;
use integration_tests::process::program;
use integration_tests::wait::eventually;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use crate::compose::{Compose, checked, deploy};
use crate::start_order::StartOrder;

/// Longest time for the pipeline to show a result, on a machine that is busy with the test.
const DEADLINE: Duration = Duration::from_mins(2);
/// Time between two candles. The sample lasts a minute and a half, long enough to kill and scale services while it flows.
const INTERVAL: &str = "20ms";

#[tokio::test]
async fn the_image_is_built_from_a_whole_workspace() -> anyhow::Result<()> {
    let checkout = deploy().join("..");
    let context = tempfile::tempdir()?;
    let ignore = fs::read_to_string(checkout.join(".dockerignore"))?;
    let mut copy = Command::new("cp");
    copy.current_dir(&checkout).args(["--recursive", "--parents"]);
    copy.args(ignore.lines().filter_map(|line| line.strip_prefix('!'))).arg(context.path());
    checked("copy what .dockerignore leaves", copy.output().await?)?;
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(context.path());
    checked("cargo, where the image is built", metadata.output().await?)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn compose_brings_up_a_pipeline_that_survives_a_crash_and_leaves_nothing() -> anyhow::Result<()> {
    let Some(environment) = Environment::get() else { return Ok(()) };
    let data = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir()?;
    let sample = sample(data.path())?;
    let folder = data.path().display().to_string();
    let settings = [("CANDLEFLIGHT_DATA", folder.as_str()), ("CANDLEFLIGHT_INTERVAL", INTERVAL)];
    let Some(compose) = Compose::new(&settings).await? else { return Ok(()) };
    let begin = Instant::now();
    let say = |what: &str| eprintln!("{:6.1} s: {what}", begin.elapsed().as_secs_f64());

    let documented = compose.config(&fs::read_to_string(deploy().join(".env.example"))?).await?;
    ensure!(documented == compose.config("").await?, ".env.example contains the defaults");
    compose.build().await?;
    say("images built");
    let order = StartOrder::watch(&compose)?;
    compose.compose(&["up", "--detach"]).await?;
    compose.compose(&["--profile", "tools", "up", "--detach", "prometheus"]).await?;
    order.check().await?;
    say("all services started, each after those it needs");

    more_gold(&compose).await?;
    log_ins_are_ours(&compose).await?;
    say("gold grows");
    compose.crash("flight").await?;
    more_gold(&compose).await?;
    compose.healthy("flight", 1).await;
    ensure!(compose.inspect("flight", "{{.RestartCount}}").await? != "0", "Docker has restarted flight");
    say("flight was killed and has restarted, and gold grows");
    compose.compose(&["up", "--detach", "--no-recreate", "--scale", "ingest=2", "ingest"]).await?;
    compose.healthy("ingest", 2).await;
    say("two ingests are healthy");
    compose.healthy("prometheus", 1).await;
    panels_have_data(&compose).await?;
    say("Prometheus has data for every panel of Grafana's");

    compose.healthy("superset", 1).await;
    dashboard_is_imported(&compose).await?;
    say("Superset shows the dashboard");
    everything_arrives(&compose, &environment, i64::try_from(sample.row_count()?)?).await?;
    say("every candle is in PostgreSQL and in MinIO");
    eprintln!("{}", compose.compose(&["run", "--rm", "--no-deps", "-T", "gold", "verify"]).await?);
    say("verified");
    compose.down().await?;
    say("nothing is left");
    Ok(())
}

/// Puts the shipped sample into a separate folder, so that the producer finds nothing else, such as the whole Kaggle set.
fn sample(folder: &Path) -> anyhow::Result<Input> {
    let file = folder.join("sample.csv");
    fs::copy(deploy().join("../data/sample.csv"), &file)?;
    Ok(Input { file, symbol: "SAMPLE-USD".to_owned() })
}

fn postgres_url(compose: &Compose, user: &str, password: &str) -> String {
    format!("postgres://{user}:{password}@{}/crypto_db", compose.address("POSTGRES_PORT"))
}

/// Counts the gold rows, with the log-in of `.env`.
async fn gold_rows(compose: &Compose) -> anyhow::Result<i64> {
    let (user, password) = (compose.setting("POSTGRES_USER"), compose.setting("POSTGRES_PASSWORD"));
    let client = connect(&postgres_url(compose, user, password)).await?;
    Ok(client.query_one("SELECT count(*) FROM bitcoin_gold_data", &[]).await?.get(0))
}

async fn more_gold(compose: &Compose) -> anyhow::Result<()> {
    let before = gold_rows(compose).await?;
    eventually("gold grows", DEADLINE, async || gold_rows(compose).await.ok().filter(|rows| *rows > before))
        .await;
    Ok(())
}

/// Checks that the default log-ins, which `.env` replaces, are rejected. (The services use MinIO's keys: with wrong ones no row would
/// flow.)
async fn log_ins_are_ours(compose: &Compose) -> anyhow::Result<()> {
    let Err(error) = connect(&postgres_url(compose, "postgres", "postgres")).await else {
        bail!("PostgreSQL accepts its default password");
    };
    let code = error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
    ensure!(code == Some(&SqlState::INVALID_PASSWORD), "PostgreSQL rejects it for another reason: {error:#}");
    Ok(())
}

/// Checks that Prometheus, with its real configuration, has a number for each expression in a panel of Grafana's dashboard.
async fn panels_have_data(compose: &Compose) -> anyhow::Result<()> {
    let dashboard = fs::read_to_string(deploy().join("grafana/dashboards/candleflight.json"))?;
    let dashboard: Value = serde_json::from_str(&dashboard)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions: Vec<&str> = targets.filter_map(|target| target["expr"].as_str()).collect();
    ensure!(expressions.len() >= panels.len(), "each panel has an expression");
    let url = format!("http://{}/api/v1/query", compose.address("PROMETHEUS_PORT"));
    for expression in expressions {
        let query = format!("query={}", expression.replace("$__rate_interval", "1m"));
        eventually(expression, DEADLINE, async || {
            let answer = curl(&["--get", "--data-urlencode", &query, &url]).await.ok()?;
            let number: f64 = answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()?;
            number.is_finite().then_some(())
        })
        .await;
    }
    Ok(())
}

/// Checks that Superset has the dashboard, that its datasets read PostgreSQL, and that the log-in is that of `.env`.
async fn dashboard_is_imported(compose: &Compose) -> anyhow::Result<()> {
    let url = format!("http://{}/api/v1", compose.address("SUPERSET_PORT"));
    let log_in = async |user: &str, password: &str| {
        let body = json!({"username": user, "password": password, "provider": "db"}).to_string();
        curl(&["--json", &body, &format!("{url}/security/login")]).await
    };
    ensure!(log_in("admin", "admin").await.is_err(), "Superset accepts its default password");
    let answer = log_in(compose.setting("SUPERSET_USER"), compose.setting("SUPERSET_PASSWORD")).await?;
    let token = answer["access_token"].as_str().context("an access token")?;
    let header = format!("Authorization: Bearer {token}");
    let datasets = curl(&["--header", &header, &format!("{url}/dashboard/candleflight/datasets")]).await?;
    let datasets = datasets["result"].as_array().context("datasets")?;
    ensure!(!datasets.is_empty(), "the dashboard has datasets");
    for dataset in datasets {
        let count = json!({"expressionType": "SQL", "sqlExpression": "COUNT(*)", "label": "rows"});
        let source = json!({"id": dataset["id"], "type": "table"});
        let body =
            json!({"datasource": source, "queries": [{"columns": [], "metrics": [count]}]}).to_string();
        let answer = curl(&["--header", &header, "--json", &body, &format!("{url}/chart/data")]).await?;
        let rows = answer["result"][0]["data"][0]["rows"].as_i64().context("a count")?;
        eprintln!("Superset reads {rows} rows of {}", dataset["table_name"]);
    }
    Ok(())
}

/// Waits until all `rows` of the input are in the topic, in PostgreSQL and in both tables of the lake, and not one more.
async fn everything_arrives(compose: &Compose, environment: &Environment, rows: i64) -> anyhow::Result<()> {
    producer_ended(compose).await;
    compose.compose(&["start", "producer"]).await?; // As after a crash, it continues at the end of the input, and ends.
    producer_ended(compose).await;
    let topic = topic_ends(&compose.address("KAFKA_PORT"), "bitcoin_data").await?;
    ensure!(topic.iter().map(|(_, end)| end).sum::<i64>() == rows, "{rows} candles in the topic: {topic:?}");
    eventually("all gold in PostgreSQL", DEADLINE, async || {
        (gold_rows(compose).await.ok()? == rows).then_some(())
    })
    .await;
    let wanted = json!({"streaming_raw": rows, "gold_aggregates": rows});
    eventually("all rows in both tables of the lake", DEADLINE, async || {
        (lake_rows(compose, environment).await.ok()? == wanted).then_some(())
    })
    .await;
    let sql = ["sql", "--format", "csv", "SELECT count(*) FROM bronze"];
    let flight = format!("grpc://{}", compose.address("FLIGHT_PORT"));
    let log_in = ["CANDLEFLIGHT_USER", "CANDLEFLIGHT_PASSWORD"].map(|name| (name, compose.setting(name)));
    let answer =
        Command::new(program()?).args(sql).env("CANDLEFLIGHT_FLIGHT", flight).envs(log_in).output().await?;
    let answer = checked("sql", answer)?;
    ensure!(count(&answer) == Some(rows), "Flight SQL sees {rows} candles: {answer}");
    Ok(())
}

/// Returns the number of rows of each table of the lake, read from the files with the S3 API and the keys in `.env`.
async fn lake_rows(compose: &Compose, environment: &Environment) -> anyhow::Result<Value> {
    let output = Command::new(&environment.python)
        .args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/containers/rows.py"), "s3://bitcoin-data"])
        .env("AWS_ENDPOINT_URL", format!("http://{}", compose.address("MINIO_PORT")))
        .env("AWS_ACCESS_KEY_ID", compose.setting("MINIO_USER"))
        .env("AWS_SECRET_ACCESS_KEY", compose.setting("MINIO_PASSWORD"))
        .output()
        .await?;
    Ok(serde_json::from_str(&checked("rows.py", output)?)?)
}

async fn producer_ended(compose: &Compose) {
    eventually("the producer has sent its input, and ended", DEADLINE, async || {
        compose.containers("producer").await.ok()?.is_empty().then_some(())
    })
    .await;
}

/// Runs curl on a server, which must succeed and return JSON.
async fn curl(arguments: &[&str]) -> anyhow::Result<Value> {
    let bound = ["--silent", "--show-error", "--fail", "--max-time", "60"];
    let output = Command::new("curl").args(bound).args(arguments).output().await?;
    Ok(serde_json::from_str(&checked("curl", output)?)?)
}
