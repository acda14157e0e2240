//! Other compute engines, as their users run them. They live in one Python process for the whole measurement, so that their runs and ours
//! alternate and only the work is counted.

use std::path::Path;
use std::process::Stdio;
use std::thread::available_parallelism;

use anyhow::Context as _;
use integration_tests::environment::Environment;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Python process of the engines. Dropping it ends the process.
#[derive(Debug)]
pub struct Engines {
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

/// Comparison of an engine's windows with exact arithmetic.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Verdict {
    /// Largest relative error of the checked metrics.
    pub error: f64,
    /// Number of wrong values: not a number, not 0 where all prices are equal, or a wrong number of samples.
    pub wrong: u32,
}

/// Run over the windows of all candles.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct KernelRun {
    /// Duration in seconds.
    pub seconds: f64,
    /// Exactness of the result.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Run of a query.
#[derive(Clone, Debug, Deserialize)]
pub struct QueryRun {
    /// Duration in seconds.
    pub seconds: f64,
    /// Result, with times in microseconds.
    pub rows: Vec<Vec<Value>>,
}

#[derive(Deserialize)]
struct Checked {
    rows: Vec<usize>,
}

impl Engines {
    /// Starts the process. Each engine gets [`threads`] threads, like the pipeline.
    ///
    /// # Errors
    ///
    /// There is no Python, or it lacks a package: `script/setup python` installs both.
    pub fn start(environment: &Environment) -> anyhow::Result<Engines> {
        let mut process = Command::new(&environment.python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/engines.py"))
            .arg(threads().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start Python")?;
        let requests = process.stdin.take().expect("it is piped");
        let answers = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        Ok(Engines { requests, answers, _process: process })
    }

    /// Loads candles (Parquet: event time, close and volume, ascending) into every engine. Returns the rows at which results are checked.
    ///
    /// # Errors
    ///
    /// An engine failed. Its message is on standard error.
    pub async fn load(&mut self, candles: &Path) -> anyhow::Result<Vec<usize>> {
        let checked: Checked = self.ask(json!({ "do": "candles", "file": candles })).await?;
        Ok(checked.rows)
    }

    /// Runs an engine over the windows of all candles.
    ///
    /// # Errors
    ///
    /// The errors of [`Engines::load`].
    pub async fn kernel(&mut self, engine: &str) -> anyhow::Result<KernelRun> {
        self.ask(json!({ "do": "kernel", "engine": engine })).await
    }

    /// Compares the pipeline's metrics of the checked rows with exact ones.
    ///
    /// # Errors
    ///
    /// The errors of [`Engines::load`].
    pub async fn judge(&mut self, rows: Vec<Vec<f64>>) -> anyhow::Result<Verdict> {
        self.ask(json!({ "do": "judge", "rows": rows })).await
    }

    /// Registers the files of a Delta table as the table `bronze`.
    ///
    /// # Errors
    ///
    /// The errors of [`Engines::load`].
    pub async fn open(&mut self, table: &Path) -> anyhow::Result<()> {
        let _files: Value = self.ask(json!({ "do": "lake", "folder": table })).await?;
        Ok(())
    }

    /// Runs a query on an engine.
    ///
    /// # Errors
    ///
    /// The errors of [`Engines::load`].
    pub async fn query(&mut self, engine: &str, query: &str) -> anyhow::Result<QueryRun> {
        self.ask(json!({ "do": "sql", "engine": engine, "query": query })).await
    }

    async fn ask<T: DeserializeOwned>(&mut self, request: Value) -> anyhow::Result<T> {
        let doing = || format!("send a request to Python: {}", request["do"]);
        self.requests.write_all(format!("{request}\n").as_bytes()).await.with_context(doing)?;
        let answer = self.answers.next_line().await.with_context(doing)?;
        let answer = answer.context("the process ended; see its output above").with_context(doing)?;
        serde_json::from_str(&answer).with_context(doing)
    }
}

/// Returns the number of threads for each engine and for the pipeline.
pub fn threads() -> usize {
    available_parallelism().map_or(1, usize::from)
}
