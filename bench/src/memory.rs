//! Memory of the pipeline: idle, and at its peak in a backfill.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::LocalBoxFuture;
use integration_tests::check::drained;
use integration_tests::input::synthetic;
use integration_tests::pipeline::Pipeline;
use integration_tests::process::Process;
use integration_tests::wait::eventually;

use crate::Setting;
use crate::figure::{Aim, Figure};
use crate::input;

const NAME: &str = "memory";
/// Maximum memory of the idle pipeline, in MB.
const IDLE_MB_MAX: f64 = 150.0;
/// Maximum memory of the backfill, in MB.
const BACKFILL_MB_MAX: f64 = 600.0;
/// Longest wait for the first gold row.
const FIRST_ROW_MAX: Duration = Duration::from_mins(1);

/// Measures memory.
pub fn measure(setting: &Setting) -> LocalBoxFuture<'_, anyhow::Result<Vec<Figure>>> {
    Box::pin(async move {
        let services: &[&[&str]] = &[&["flight"], &["gold"], &["ingest"], &["producer", "--quiet"]];
        let up: &[&[&str]] = &[&["up", "--no-dashboard"]];
        let mut figures = idle(setting, services, "idle at 10 records/s, four processes").await?;
        figures.extend(idle(setting, up, "idle at 10 records/s, `candleflight up`").await?);
        figures.push(backfill(setting).await?);
        Ok(figures)
    })
}

async fn idle(setting: &Setting, services: &[&[&str]], what: &str) -> anyhow::Result<Vec<Figure>> {
    let (mut proportional, mut resident) = (Vec::new(), Vec::new());
    let mut note = String::new();
    for _ in 0..setting.scale.runs {
        let mut pipeline = Pipeline::new(&setting.environment).await?;
        pipeline.set("CANDLEFLIGHT_DATA_DIR", &pipeline.folder.path().join("data").to_string_lossy());
        let input = synthetic(&pipeline, "IDLE-USD", 2, 1).await?;
        pipeline.set("CANDLEFLIGHT_INPUT", &input.flag());
        let processes = start(&pipeline, services)?;
        let database = pipeline.database().await?;
        eventually("the first gold row", FIRST_ROW_MAX, async || {
            database.query_opt("SELECT FROM bitcoin_gold_data LIMIT 1", &[]).await.ok().flatten()
        })
        .await;
        tokio::time::sleep(Duration::from_secs(setting.scale.seconds)).await;
        let (pss, text) = total(&processes, "smaps_rollup", "Pss:")?;
        proportional.push(pss);
        resident.push(total(&processes, "smaps_rollup", "Rss:")?.0);
        note = text;
    }
    note = format!("Proportional set size, after {} s: {note}.", setting.scale.seconds);
    Ok(vec![
        Figure::new(NAME, what, "MB", proportional).aim(Aim::AtMost(IDLE_MB_MAX)).note(note),
        Figure::new(NAME, format!("{what}, resident"), "MB", resident)
            .note("Counts shared pages of the program once for each process."),
    ])
}

async fn backfill(setting: &Setting) -> anyhow::Result<Figure> {
    let mut peaks = Vec::new();
    let mut note = String::new();
    for _ in 0..setting.scale.runs {
        let pipeline = Pipeline::new(&setting.environment).await?;
        input::fill(&pipeline, setting.scale.rows).await?;
        let processes = start(&pipeline, &[&["flight"], &["gold"], &["ingest"]])?;
        drained(&pipeline, &setting.environment.kafka).await?;
        let (peak, text) = total(&processes, "status", "VmHWM:")?;
        peaks.push(peak);
        note = text;
        drop(processes);
        pipeline.drop_database(&setting.environment).await?;
    }
    note = format!(
        "Sum of the peak resident memory of each process. The peaks are not at the same time: {note}."
    );
    Ok(Figure::new(NAME, "peak of a backfill", "MB", peaks).aim(Aim::AtMost(BACKFILL_MB_MAX)).note(note))
}

fn start(pipeline: &Pipeline, services: &[&[&str]]) -> anyhow::Result<Vec<(String, Process)>> {
    let start = |service: &[&str]| Ok::<_, anyhow::Error>((service[0].to_owned(), pipeline.start(service)?));
    services.iter().map(|service| start(service)).collect()
}

/// Sums one line of a file of `/proc` over all processes. Returns the sum in MB, and a text with the value of each process.
fn total(processes: &[(String, Process)], file: &str, line: &str) -> anyhow::Result<(f64, String)> {
    let (mut sum, mut parts) = (0.0, Vec::new());
    for (name, process) in processes {
        let megabytes = read(process, file, line).with_context(|| format!("memory of {name}"))?;
        sum += megabytes;
        parts.push(format!("{name} {megabytes:.0}"));
    }
    Ok((sum, parts.join(", ")))
}

/// Reads the proportional set size of a process in MB.
///
/// # Errors
///
/// The process does not run.
pub(crate) fn proportional(process: &Process) -> anyhow::Result<f64> {
    read(process, "smaps_rollup", "Pss:")
}

/// Reads a line of a file of `/proc`, in MB.
fn read(process: &Process, file: &str, line: &str) -> anyhow::Result<f64> {
    let id = process.id().context("the process has ended")?;
    let text = fs::read_to_string(format!("/proc/{id}/{file}"))?;
    let value = text
        .lines()
        .find_map(|text| text.strip_prefix(line))
        .and_then(|value| value.trim().strip_suffix("kB"));
    let kib: f64 = value.with_context(|| format!("find {line} in {file}"))?.trim().parse()?;
    Ok(kib * 1024.0 / 1e6)
}
