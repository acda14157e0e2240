//! One `up` with its own data folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use integration_tests::environment::Environment;
use integration_tests::pipeline::connect;
use integration_tests::process::{Process, free_port, program};
use integration_tests::wait::eventually;
use tempfile::TempDir;
use tokio::process::Command;
use tokio_postgres::Client;

/// Longest wait of a test for `up`: many times what it takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(3);
/// A folder name full of characters that are special in some configuration, URL or shell.
const NAME: &str = "Jos\u{e9}'s, \"data\" #1 %41 \\";

/// A folder in which `up` runs, and the files beside its data.
pub(crate) struct Machine {
    folder: TempDir,
    kafka_home: (String, String),
}

impl Machine {
    /// Creates the folder. Returns `None` if the tests must be skipped.
    pub(crate) fn new() -> anyhow::Result<Option<(Environment, Machine)>> {
        let Some(environment) = Environment::get() else { return Ok(None) };
        // PostgreSQL's user must be able to reach this folder.
        let folder = tempfile::Builder::new()
            .prefix("candleflight-test.")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o711))
            .tempdir_in("/var/tmp")?;
        fs::create_dir(folder.path().join(NAME))?;
        let home = std::env::var("CANDLEFLIGHT_TEST_KAFKA_HOME").context("script/test sets Kafka's home")?;
        let kafka_home = ("CANDLEFLIGHT_KAFKA_HOME".to_owned(), home);
        Ok(Some((environment, Machine { folder, kafka_home })))
    }

    /// Returns the path of a file beside the data folder.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.folder.path().join(NAME).join(name)
    }

    /// Returns the data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.join("data")
    }

    /// Writes `days` of synthetic candles. Returns the file and the number of candles.
    pub(crate) async fn candles(&self, name: &str, days: u32) -> anyhow::Result<(PathBuf, i64)> {
        let file = self.join(name);
        let sample = ["sample", "--days", &days.to_string(), "--output"].map(str::to_owned);
        let output = Command::new(program()?).args(sample).arg(&file).output().await?;
        ensure!(output.status.success(), "sample: {}", String::from_utf8_lossy(&output.stderr));
        let lines = fs::read_to_string(&file)?.lines().count();
        Ok((file, i64::try_from(lines)? - 1))
    }

    /// Starts `up` without a dashboard on `inputs`, with additional `flags`.
    pub(crate) fn up(&self, inputs: &[(&Path, &str)], flags: &[&str]) -> anyhow::Result<Process> {
        self.choose_ports()?;
        let data = self.data().display().to_string();
        let inputs = inputs.iter().map(|(file, symbol)| format!("--input={}={symbol}", file.display()));
        let inputs: Vec<String> = inputs.collect();
        let arguments = ["up", "--no-dashboard", "--data-dir", &data];
        let arguments = arguments.iter().copied().chain(inputs.iter().map(String::as_str));
        let arguments: Vec<&str> = arguments.chain(flags.iter().copied()).collect();
        Process::start(&arguments, std::slice::from_ref(&self.kafka_home), self.join("up.log"))
    }

    /// Gives `up` ports that no other test has, unless it already has some. Tests run concurrently.
    fn choose_ports(&self) -> anyhow::Result<()> {
        let file = self.data().join("ports.json");
        if file.exists() {
            return Ok(());
        }
        let mut ports = serde_json::Map::new();
        for server in ["kafka", "kafka controller", "postgres", "flight", "dashboard"] {
            ports.insert(server.to_owned(), free_port()?.into());
        }
        fs::create_dir_all(self.data())?;
        Ok(fs::write(file, serde_json::to_vec(&ports)?)?)
    }

    /// Returns the process id of the server in the folder of `server`.
    pub(crate) fn server_id(&self, server: &str) -> anyhow::Result<u32> {
        let record = fs::read_to_string(self.data().join(server).join("pid"))?;
        Ok(record.split_whitespace().next().context("a process")?.parse()?)
    }

    /// Connects to PostgreSQL with the log-in that `up` prints.
    pub(crate) async fn database(&self) -> anyhow::Result<Client> {
        connect(&self.postgres()?).await
    }

    /// Waits until gold has more than `rows` rows, and returns their number.
    pub(crate) async fn gold_beyond(&self, up: &mut Process, rows: i64) -> i64 {
        eventually(&format!("more than {rows} gold rows"), DEADLINE, async || {
            assert!(up.is_running().unwrap_or(false), "up ended: {}", up.log().unwrap_or_default());
            let count = self.gold_rows().await.ok()?;
            (count > rows).then_some(count)
        })
        .await
    }

    /// Checks that gold has exactly `rows` rows, that they follow from bronze, and that bronze has each candle once.
    pub(crate) async fn is_exact(&self, rows: i64) -> anyhow::Result<()> {
        eventually(&format!("gold has all {rows} rows"), DEADLINE, async || {
            (self.gold_rows().await.ok()? == rows).then_some(())
        })
        .await;
        let query = "SELECT count(*), count(DISTINCT (symbol || event_time::text)) FROM bronze";
        let counts = self.run(&["sql", "--format", "csv", query]).await?;
        ensure!(counts.lines().nth(1) == Some(&format!("{rows},{rows}")), "bronze: {counts}");
        eprintln!("{}", self.run(&["verify"]).await?);
        Ok(())
    }

    async fn gold_rows(&self) -> anyhow::Result<i64> {
        let query = "SELECT count(*) FROM bitcoin_gold_data";
        Ok(self.database().await?.query_one(query, &[]).await?.get(0))
    }

    /// Runs a command on the servers of `up` and returns its output.
    async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(program()?)
            .args(arguments)
            .env("CANDLEFLIGHT_FLIGHT", format!("grpc://127.0.0.1:{}", self.port("flight")?))
            .env("CANDLEFLIGHT_POSTGRES", self.postgres()?)
            .env("CANDLEFLIGHT_KAFKA", format!("127.0.0.1:{}", self.port("kafka")?))
            .env("CANDLEFLIGHT_LAKE", self.data().join("lake"))
            .output()
            .await?;
        let (said, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{arguments:?}: {said}{error}");
        Ok(said.into_owned())
    }

    fn postgres(&self) -> anyhow::Result<String> {
        self.postgres_at("crypto_db")
    }

    /// Returns the URL of another database.
    pub(crate) fn postgres_at(&self, database: &str) -> anyhow::Result<String> {
        Ok(format!("postgres://postgres:postgres@127.0.0.1:{}/{database}", self.port("postgres")?))
    }

    fn port(&self, server: &str) -> anyhow::Result<u64> {
        let ports: serde_json::Value = serde_json::from_slice(&fs::read(self.data().join("ports.json"))?)?;
        ports[server].as_u64().with_context(|| format!("a port of {server}: {ports}"))
    }
}

/// Sends SIGKILL to a process that is not a child of the test.
pub(crate) async fn kill(id: u32) -> anyhow::Result<()> {
    let status = Command::new("kill").args(["-s", "KILL", &id.to_string()]).status().await?;
    ensure!(status.success(), "kill {id}");
    Ok(())
}
