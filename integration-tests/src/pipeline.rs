//! The topic, lake and database of one test, and the services that use them.

use std::process::{Output, Stdio};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::process::Command;
use tokio_postgres::{Client, NoTls};

use crate::environment::Environment;
use crate::process::{Process, free_port, program};

/// Maximum number of logs of one service in one test.
const LOGS_MAX: usize = 1000;
/// Bucket of all tests. Each test has its own prefix.
const BUCKET: &str = "candleflight-test";

/// A pipeline that no other test uses.
#[derive(Debug)]
pub struct Pipeline {
    /// Its topic. The first service that needs it creates it.
    pub topic: String,
    /// Its lake, a prefix in MinIO.
    pub lake: String,
    /// URL of its database.
    pub postgres: String,
    /// Address of its Flight server.
    pub flight: String,
    /// Folder of the services' logs and of other files of the test.
    pub folder: TempDir,
    variables: Vec<(String, String)>,
}

impl Pipeline {
    /// Creates unused names and the database.
    ///
    /// # Errors
    ///
    /// PostgreSQL rejects a request.
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

    /// Sets an environment variable for every process that starts from now on: flags for all, or a server of this test.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Starts a service, such as `["flight", "--flush-interval", "50ms"]`. The log has the name of the service.
    ///
    /// # Errors
    ///
    /// The program does not exist.
    pub fn start(&self, arguments: &[impl AsRef<str>]) -> anyhow::Result<Process> {
        let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        let service = arguments.first().context("a service has a name")?;
        let log = (1..=LOGS_MAX)
            .map(|count| self.folder.path().join(format!("{service}-{count}.log")))
            .find(|log| !log.exists());
        Process::start(&arguments, &self.variables, log.context("a name is free")?)
    }

    /// Runs a command until it ends, such as `["verify"]` or `["sql", "SELECT 1", "--format", "csv"]`.
    ///
    /// # Errors
    ///
    /// The program does not exist.
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
    /// PostgreSQL rejects the request.
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
/// The server does not answer, or rejects the connection.
pub async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("connect to PostgreSQL")?;
    #[expect(clippy::disallowed_methods, reason = "it ends with its client; a test has no JoinSet")]
    tokio::spawn(connection);
    Ok(client)
}
