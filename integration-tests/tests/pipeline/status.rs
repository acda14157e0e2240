//! The status of a pipeline of several processes. Each process reports all of them, including one that is gone.

use std::time::Duration;

use anyhow::ensure;
use integration_tests::check::pipeline;
use integration_tests::input::{Input, producer};
use integration_tests::process::Process;
use integration_tests::wait::eventually;
use service::http;
use service::status::View;

/// Longest time until all processes have the status of all others. Reports are a second apart, and a start takes a few seconds.
const DEADLINE: Duration = Duration::from_mins(1);

async fn view(process: &Process) -> Option<View> {
    serde_json::from_str(
        &http::get(process.address(), "/status.json", &access::Identity::default()).await.ok()?.1,
    )
    .ok()
}

/// Returns the ready services in the view of a process.
fn ready(view: &View) -> Vec<&str> {
    let heard = view.processes.iter().filter(|seen| !seen.is_silent);
    let services = heard.flat_map(|seen| &seen.services).filter(|(_, reason)| reason.is_none());
    let mut names: Vec<&str> = services.map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_tells_of_all_and_of_one_that_was_killed() -> anyhow::Result<()> {
    let Some((_, pipeline)) = pipeline().await? else { return Ok(()) };
    let flight = pipeline.start(&["flight", "--flush-interval", "500ms"])?;
    let mut ingest = pipeline.start(&["ingest"])?;
    let gold = pipeline.start(&["gold", "--flush-interval", "500ms"])?;
    let sample = Input { file: integration_tests::input::sample()?, symbol: "SAMPLE-USD".to_owned() };
    let producer = pipeline.start(&producer(&[sample], &["--rate", "100/s", "--repeat"]))?;

    for process in [&flight, &gold, &producer] {
        eventually("a process reports all four services, with numbers", DEADLINE, async || {
            let view = view(process).await?;
            let moves = view.now.gold_per_second > 0.0 && view.now.produced_per_second > 0.0;
            let is_placed = view.numbers.partitions.iter().any(|partition| {
                partition.end.is_some() && partition.postgres > Some(0) && partition.lake > Some(0)
            });
            (ready(&view) == ["flight", "gold", "ingest", "producer"] && moves && is_placed).then_some(())
        })
        .await;
    }
    let services = pipeline.sql("SELECT service FROM system.services WHERE is_ready ORDER BY 1").await?;
    ensure!(services == "service\nflight\ngold\ningest\nproducer\n", "over Flight SQL: {services}");
    let lag =
        pipeline.sql("SELECT max(received_offset) >= max(durable_offset) AS fits FROM system.lag").await?;
    ensure!(lag == "fits\ntrue\n", "positions over Flight SQL: {lag}");

    ingest.kill().await?;
    eventually("gold reports that ingest is silent", DEADLINE, async || {
        let view = view(&gold).await?;
        let silent = view.processes.iter().find(|seen| seen.is_silent)?;
        silent.services.contains_key("ingest").then_some(())
    })
    .await;
    let told = pipeline.run(&["status", gold.address()]).await?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    ensure!(told.contains("SILENT") && told.contains("gold: ready"), "in a terminal: {told}");
    ingest.restart()?;
    eventually("ingest is back", DEADLINE, async || {
        (ready(&view(&gold).await?) == ["flight", "gold", "ingest", "producer"]).then_some(())
    })
    .await;
    Ok(())
}
