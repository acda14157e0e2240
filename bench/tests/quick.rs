//! Runs every measurement on few rows. Their figures have no meaning.

use std::fs;
use std::process::Command;

use anyhow::ensure;
use bench::MEASUREMENTS;
use integration_tests::environment::Environment;
use serde_json::Value;

#[test]
fn every_measurement_runs_and_fills_its_lines() -> anyhow::Result<()> {
    if Environment::get().is_none() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (document, values) = (folder.path().join("performance.md"), folder.path().join("values.json"));
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/performance.md"), &document)?;
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .arg("--quick")
        .args(["--document".as_ref(), document.as_os_str(), "--values".as_ref(), values.as_os_str()])
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = fs::read_to_string(&document)?;
    let figures: Vec<Value> = serde_json::from_slice(&fs::read(&values)?)?;
    for (name, _) in MEASUREMENTS {
        let of_it = figures.iter().filter(|figure| figure["measurement"] == *name);
        ensure!(of_it.count() > 0, "{name} has no figure");
    }
    for figure in &figures {
        let others = figure["others"].as_array().into_iter().flatten().map(|other| &other["values"]);
        for values in [&figure["ours"]].into_iter().chain(others) {
            let values = values.as_array().map(Vec::as_slice).unwrap_or_default();
            ensure!(!values.is_empty() && values.iter().all(|value| value.as_f64().is_some()), "{figure}");
        }
        let what = figure["what"].as_str().unwrap_or_default();
        ensure!(table.contains(&format!(" {what} | ")), "{what} is not in the table:\n{table}");
    }
    Ok(())
}
