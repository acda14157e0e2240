//! Other compute engines, as their users have them: in one Python process that lives as long as a measurement, so that their runs and
//! ours can take turns and nothing is counted but the work.

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

/// The process; ends when dropped.
#[derive(Debug)]
pub struct Engines {
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

/// How the windows of an engine compare with exact arithmetic.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Verdict {
    /// The largest relative error of the checked metrics.
    pub error: f64,
    /// Checked values that are no number, not 0 where all prices are the same, or another number of samples.
    pub wrong: u32,
}

/// A run over the windows of all candles.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct KernelRun {
    /// How long it took.
    pub seconds: f64,
    /// How exact it was.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// A query's run.
#[derive(Clone, Debug, Deserialize)]
pub struct QueryRun {
    /// How long it took.
    pub seconds: f64,
    /// Its result, times in microseconds.
    pub rows: Vec<Vec<Value>>,
}

#[derive(Deserialize)]
struct Checked {
    rows: Vec<usize>,
}

impl Engines {
    /// Starts the process; each engine gets as many threads as ours, [`threads`].
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

    /// Loads candles (Parquet: event time, close and volume, ascending) into every engine; returns the rows at which results are checked.
    ///
    /// # Errors
    ///
    /// An engine failed; it has said why on standard error.
    pub async fn load(&mut self, candles: &Path) -> anyhow::Result<Vec<usize>> {
        let checked: Checked = self.ask(json!({ "do": "candles", "file": candles })).await?;
        Ok(checked.rows)
    }

    /// Lets an engine compute the windows of all candles.
    ///
    /// # Errors
    ///
    /// As for [`Engines::load`].
    pub async fn kernel(&mut self, engine: &str) -> anyhow::Result<KernelRun> {
        self.ask(json!({ "do": "kernel", "engine": engine })).await
    }

    /// Compares our metrics of the checked rows with exact ones.
    ///
    /// # Errors
    ///
    /// As for [`Engines::load`].
    pub async fn judge(&mut self, rows: Vec<Vec<f64>>) -> anyhow::Result<Verdict> {
        self.ask(json!({ "do": "judge", "rows": rows })).await
    }

    /// Makes the files of a Delta table known as the table `bronze`.
    ///
    /// # Errors
    ///
    /// As for [`Engines::load`].
    pub async fn open(&mut self, table: &Path) -> anyhow::Result<()> {
        let _files: Value = self.ask(json!({ "do": "lake", "folder": table })).await?;
        Ok(())
    }

    /// Lets an engine answer a query.
    ///
    /// # Errors
    ///
    /// As for [`Engines::load`].
    pub async fn query(&mut self, engine: &str, query: &str) -> anyhow::Result<QueryRun> {
        self.ask(json!({ "do": "sql", "engine": engine, "query": query })).await
    }

    async fn ask<T: DeserializeOwned>(&mut self, request: Value) -> anyhow::Result<T> {
        let doing = || format!("ask Python: {}", request["do"]);
        self.requests.write_all(format!("{request}\n").as_bytes()).await.with_context(doing)?;
        let answer = self.answers.next_line().await.with_context(doing)?;
        let answer = answer.context("it ended; see above").with_context(doing)?;
        serde_json::from_str(&answer).with_context(doing)
    }
}

/// Returns the number of threads that each engine gets, and we.
pub fn threads() -> usize {
    available_parallelism().map_or(1, usize::from)
}
