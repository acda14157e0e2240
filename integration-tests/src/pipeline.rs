//! One test's own topic, lake and database, and the services on them.

use std::process::{Output, Stdio};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::process::Command;
use tokio_postgres::{Client, NoTls};

use crate::environment::Environment;
use crate::process::{Process, free_port, program};

/// Most logs of one service in one test.
const LOGS_MAX: usize = 1000;
/// Bucket of all tests; each has a prefix of its own.
const BUCKET: &str = "candleflight-test";

/// A pipeline that nobody else uses.
#[derive(Debug)]
pub struct Pipeline {
    /// Its topic; made by the first service that needs it.
    pub topic: String,
    /// Its lake: a prefix in MinIO.
    pub lake: String,
    /// URL of its database.
    pub postgres: String,
    /// Address of its Flight server.
    pub flight: String,
    /// Holds the services' logs, and whatever else the test writes.
    pub folder: TempDir,
    variables: Vec<(String, String)>,
}

impl Pipeline {
    /// Makes names that are used by nobody else, and the database.
    ///
    /// # Errors
    ///
    /// PostgreSQL refuses.
    pub async fn new(environment: &Environment) -> anyhow::Result<Pipeline> {
        let id = format!("test_{}", uuid::Uuid::new_v4().simple());
        let admin = connect(&format!("{}/postgres", environment.postgres)).await?;
        admin.batch_execute(&format!("CREATE DATABASE {id}")).await.context("create the test's database")?;
        let listen = format!("127.0.0.1:{}", free_port()?);
        let mut pipeline = Pipeline {
            topic: id.clone(),
            lake: format!("s3://{BUCKET}/{id}"),
            postgres: format!("{}/{id}", environment.postgres),
            flight: format!("grpc://{listen}"),
            folder: tempfile::tempdir()?,
            variables: Vec::new(),
        };
        pipeline.set("CANDLEFLIGHT_KAFKA", &environment.kafka.clone());
        pipeline.set("CANDLEFLIGHT_GROUP", &id);
        pipeline.set("CANDLEFLIGHT_TOPIC", &pipeline.topic.clone());
        pipeline.set("CANDLEFLIGHT_LAKE", &pipeline.lake.clone());
        pipeline.set("CANDLEFLIGHT_POSTGRES", &pipeline.postgres.clone());
        pipeline.set("CANDLEFLIGHT_FLIGHT", &pipeline.flight.clone());
        pipeline.set("CANDLEFLIGHT_LISTEN", &listen);
        Ok(pipeline)
    }

    /// Sets an environment variable of every process that is started from now on: flags for all, or a server of the test's own.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Starts a service, such as `["flight", "--flush-interval", "50ms"]`; its log is named after it.
    ///
    /// # Errors
    ///
    /// The program is missing.
    pub fn start(&self, arguments: &[impl AsRef<str>]) -> anyhow::Result<Process> {
        let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        let service = arguments.first().context("a service has a name")?;
        let log = (1..=LOGS_MAX)
            .map(|count| self.folder.path().join(format!("{service}-{count}.log")))
            .find(|log| !log.exists());
        Process::start(&arguments, &self.variables, log.context("a name is free")?)
    }

    /// Runs a command that ends by itself, such as `["verify"]` or `["sql", "SELECT 1", "--format", "csv"]`.
    ///
    /// # Errors
    ///
    /// The program is missing.
    pub async fn run(&self, arguments: &[impl AsRef<str> + Sync]) -> anyhow::Result<Output> {
        let mut command = Command::new(program()?);
        command
            .args(arguments.iter().map(AsRef::as_ref))
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command.output().await?)
    }

    /// Runs a query on the Flight server and returns its result as CSV with a header.
    ///
    /// # Errors
    ///
    /// The query fails.
    pub async fn sql(&self, query: &str) -> anyhow::Result<String> {
        let output = self.run(&["sql", query, "--format", "csv"]).await?;
        ensure!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Drops the database, which may be large.
    ///
    /// # Errors
    ///
    /// PostgreSQL refuses.
    pub async fn drop_database(&self, environment: &Environment) -> anyhow::Result<()> {
        let admin = connect(&format!("{}/postgres", environment.postgres)).await?;
        let (_, name) = self.postgres.rsplit_once('/').context("a URL with a database")?;
        Ok(admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await?)
    }

    /// Connects to the database.
    ///
    /// # Errors
    ///
    /// PostgreSQL does not answer.
    pub async fn database(&self) -> anyhow::Result<Client> {
        connect(&self.postgres).await
    }
}

/// Connects to a PostgreSQL.
///
/// # Errors
///
/// It does not answer, or refuses.
pub async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("connect to PostgreSQL")?;
    #[expect(clippy::disallowed_methods, reason = "it ends with its client; a test has no JoinSet")]
    tokio::spawn(connection);
    Ok(client)
}
