//! Real input: bronze has every candle, and every gold value equals an independent computation.

use anyhow::{Context as _, ensure};
use integration_tests::check::{count, drained, gold_is_exact, offsets_tile, pipeline};
use integration_tests::environment::Environment;
use integration_tests::input::{self, Input};
use integration_tests::pipeline::Pipeline;
use tokio::process::Command;

/// Sends the inputs through the whole pipeline, with gold in `frame`, and waits until all rows are durable.
async fn through(
    environment: &Environment,
    pipeline: &Pipeline,
    inputs: &[Input],
    frame: &str,
) -> anyhow::Result<()> {
    let mut flight = pipeline.start(&["flight", "--flush-interval", "1s"])?;
    let mut gold = pipeline.start(&["gold", "--frame", frame, "--flush-interval", "1s"])?;
    let produced = pipeline.run(&input::producer(inputs, &["--rate", "max"])).await?;
    ensure!(produced.status.success(), "producer: {}", String::from_utf8_lossy(&produced.stderr));
    let mut ingest = pipeline.start(&["ingest"])?;
    drained(pipeline, &environment.kafka).await?;
    for input in inputs {
        let query = format!("SELECT count(*) FROM bronze WHERE symbol = '{}'", input.symbol);
        let rows = count(&pipeline.sql(&query).await?).context("a count")?;
        ensure!(rows == i64::try_from(input.row_count()?)?, "{} has {rows} rows in bronze", input.symbol);
    }
    offsets_tile(pipeline, &environment.kafka, 0).await?;
    gold_is_exact(pipeline, &["--frame", frame]).await?;
    equals_the_independent_recomputation(environment, pipeline, inputs, frame).await?;
    one_wrong_bit_is_found(pipeline, frame).await?;
    for service in [&mut ingest, &mut gold, &mut flight] {
        let status = service.terminate().await?;
        ensure!(status.success(), "a drain ends with exit code 0, not {status}");
    }
    Ok(())
}

async fn equals_the_independent_recomputation(
    environment: &Environment,
    pipeline: &Pipeline,
    inputs: &[Input],
    frame: &str,
) -> anyhow::Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/check_gold.py");
    let output = Command::new(&environment.python)
        .args([script, "--postgres", &pipeline.postgres, "--lake", &pipeline.lake, "--frame", frame])
        .args(inputs.iter().map(Input::flag))
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    eprintln!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

async fn one_wrong_bit_is_found(pipeline: &Pipeline, frame: &str) -> anyhow::Result<()> {
    let database = pipeline.database().await?;
    let tamper = "UPDATE bitcoin_gold_data SET price_ma_5m = price_ma_5m + 1e-9 WHERE (symbol, event_time) = \
                  (SELECT symbol, min(event_time) FROM bitcoin_gold_data GROUP BY symbol ORDER BY symbol LIMIT 1)";
    let changed = database.execute(tamper, &[]).await?;
    ensure!(changed == 1, "one row was changed, not {changed}");
    let output = pipeline.run(&["verify", "--frame", frame]).await?;
    let report = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.code() == Some(1) && report.contains("price_ma_5m"),
        "verify must find the changed value: {report}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_gold_value_of_real_candles_equals_an_independent_recomputation() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    through(&environment, &pipeline, &input::all()?, "time").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_frame_counts_rows_as_the_spark_job_did() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    through(&environment, &pipeline, &input::all()?[..1], "rows").await
}
