//! The servers that the services use: private ones, unless others are given.

use std::future::pending;
use std::path::PathBuf;

use tokio::time::Instant;

use super::Args;
use super::child::{Child, end_stale};
use super::folder::Folder;
use super::screen::Screen;
use super::{dashboard, kafka, postgres};

/// Addresses of Kafka, PostgreSQL and the lake, and the private servers.
pub(super) struct Servers {
    /// Bootstrap servers.
    pub(super) kafka: String,
    /// URL of gold's database, with its password.
    pub(super) postgres: String,
    /// Options of Kafka's clients. For a private Kafka there are none.
    kafka_options: Vec<String>,
    /// Certificate file of the authorities to trust for PostgreSQL. Empty if there is no such file.
    postgres_ca: String,
    /// URL or folder of the lake.
    pub(super) lake: String,
    topic: String,
    log: String,
    kafka_child: Option<Child>,
    postgres_child: Option<Child>,
}

impl Servers {
    /// Starts the private servers concurrently, unless others are given. Returns once all answer.
    pub(super) async fn start(args: &Args, folder: &mut Folder, screen: &Screen) -> anyhow::Result<Servers> {
        let (kafka_folder, postgres_folder) = (folder.join("kafka"), folder.join("postgres"));
        let superset_folder = dashboard::home(folder);
        // Servers of an earlier run must end first: they would hold the databases and the ports that are chosen next.
        tokio::try_join!(
            end_stale(&kafka::KAFKA, &kafka_folder),
            end_stale(&postgres::POSTGRES, &postgres_folder),
            end_stale(&dashboard::SUPERSET, &superset_folder)
        )?;
        let kafka_ports = kafka::Ports {
            clients: folder.choose_port("kafka", 9092)?,
            controller: folder.choose_port("kafka controller", 9093)?,
        };
        let postgres_port = folder.choose_port("postgres", 5432)?;

        let start_kafka = async {
            if let Some(brokers) = &args.kafka {
                return Ok((brokers.clone(), None));
            }
            let home = args.kafka_home.clone().map_or_else(kafka::home, Ok)?;
            let started = Instant::now();
            let child = kafka::start(&kafka_folder, &home, kafka_ports).await?;
            screen.line(format_args!("Apache Kafka ready in {:.1} s", started.elapsed().as_secs_f64()));
            anyhow::Ok((format!("127.0.0.1:{}", kafka_ports.clients), Some(child)))
        };
        let start_postgres = async {
            if let Some(url) = &args.postgres {
                return Ok((url.clone(), None));
            }
            let started = Instant::now();
            let (child, url) = postgres::start(&postgres_folder, postgres_port).await?;
            screen.line(format_args!("PostgreSQL ready in {:.1} s", started.elapsed().as_secs_f64()));
            anyhow::Ok((url, Some(child)))
        };
        // The servers are joined and not spawned, since children belong to the main thread (see `Child::start`).
        let ((kafka, kafka_child), (postgres, postgres_child)) =
            tokio::try_join!(start_kafka, start_postgres)?;
        let kafka_options = if kafka_child.is_none() { args.kafka_options.clone() } else { Vec::new() };
        let postgres_ca = args.postgres_ca.clone().filter(|_| postgres_child.is_none());
        Ok(Servers {
            kafka,
            kafka_options,
            postgres,
            postgres_ca: postgres_ca.unwrap_or_default(),
            lake: args.lake.clone().unwrap_or_else(|| folder.join("lake").display().to_string()),
            topic: args.topic.clone(),
            log: folder.join("candleflight.log").display().to_string(),
            kafka_child,
            postgres_child,
        })
    }

    /// Returns the flags of Kafka's clients. The last option is empty. Its only effect is to override the variable, so that options for an
    /// external Kafka do not reach clients of a private Kafka.
    pub(super) fn kafka_flags(&self) -> Vec<(&str, &str)> {
        let options = self.kafka_options.iter().map(String::as_str).chain([""]);
        let options = options.map(|option| ("--kafka-option", option));
        [("--kafka", &*self.kafka), ("--topic", &*self.topic)].into_iter().chain(options).collect()
    }

    /// Returns the flags of PostgreSQL's clients.
    pub(super) fn postgres_flags(&self) -> Vec<(&str, &str)> {
        let mut flags = vec![("--postgres", &*self.postgres), ("--postgres-ca", &*self.postgres_ca)];
        if self.postgres_child.is_some() {
            flags.extend([("--postgres-cert", ""), ("--postgres-key", "")]);
        }
        flags
    }

    /// Returns the certificate file of the authorities to trust for PostgreSQL.
    pub(super) fn postgres_ca(&self) -> Option<&str> {
        Some(&*self.postgres_ca).filter(|file| !file.is_empty())
    }

    /// Returns the paths of the private servers' logs.
    pub(super) fn log_files(&self) -> Vec<PathBuf> {
        [&self.kafka_child, &self.postgres_child].into_iter().flatten().map(Child::log_file).collect()
    }

    /// Prints the addresses of all parts and the ways to log in.
    pub(super) fn describe(
        &self,
        screen: &Screen,
        flight: &str,
        status: &str,
        dashboard: &str,
        is_open: bool,
    ) {
        // The password of the private cluster is not secret, but the password of any other server is.
        let psql = if self.postgres_child.is_some() { &self.postgres } else { "(--postgres)" };
        let access = if is_open {
            "no password is set, so only this machine can connect"
        } else {
            "by password, token or certificate"
        };
        let Servers { kafka, lake, topic, log, .. } = self;
        screen.line(format_args!(
            "
  dashboard   {dashboard}
  status      {status}   also /metrics, /ready and /health
  Kafka       {kafka}   topic {topic}
  PostgreSQL  psql {psql} -c 'SELECT * FROM bitcoin_gold_data ORDER BY event_time DESC LIMIT 5'
  Flight SQL  candleflight sql --flight {flight} 'SELECT * FROM bronze ORDER BY event_time DESC LIMIT 5'
  lake        {lake}   Delta tables streaming_raw, gold_aggregates
  log         {log}
  access      {access}

Ctrl-C drains and stops; the next start continues where this one ends."
        ));
    }

    /// Waits until a private server ends by itself, and returns that end as an error.
    pub(super) async fn unexpected_end(&mut self) -> anyhow::Error {
        let end = async |child: &mut Option<Child>| match child {
            Some(child) => child.unexpected_end().await,
            None => pending().await,
        };
        tokio::select! {
            error = end(&mut self.kafka_child) => error,
            error = end(&mut self.postgres_child) => error,
        }
    }

    /// Stops the private servers in order, including those that failed.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let mut stopped = Ok(());
        for child in [self.postgres_child, self.kafka_child].into_iter().flatten() {
            stopped = stopped.and(child.stop().await);
        }
        stopped
    }
}
