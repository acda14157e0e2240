//! Order of the starts: the engine's events while a project comes up.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::compose::Compose;

/// Longest time until an event can be read after it has happened.
const DEADLINE: Duration = Duration::from_secs(30);
/// For each service, the services that must be healthy before it starts.
const NEEDS: &[(&str, &[&str])] = &[
    ("flight", &["minio"]),
    ("ingest", &["kafka", "flight"]),
    ("gold", &["postgres", "flight"]),
    ("producer", &["kafka", "flight"]),
    ("superset", &["postgres", "gold"]),
];

/// A reader of the events of one project.
#[derive(Debug)]
pub(crate) struct StartOrder {
    events: Lines<BufReader<ChildStdout>>,
    _docker: Child,
}

impl StartOrder {
    /// Starts reading. Must be called before any service starts.
    pub(crate) fn watch(compose: &Compose) -> anyhow::Result<StartOrder> {
        let label = compose.label();
        let format = r#"{{.Status}} {{index .Actor.Attributes "com.docker.compose.service"}}"#;
        let filters = ["type=container", "event=start", "event=health_status", &label];
        let mut command = compose.docker_command(&["events", "--format", format]);
        for filter in filters {
            command.args(["--filter", filter]);
        }
        let mut docker = command.stdout(Stdio::piped()).spawn()?;
        let output = docker.stdout.take().context("its output is piped")?;
        Ok(StartOrder { events: BufReader::new(output).lines(), _docker: docker })
    }

    /// Reads the events up to the start of each service, and checks that the services that it needs were healthy by then.
    pub(crate) async fn check(mut self) -> anyhow::Result<()> {
        let mut healthy = Vec::new();
        let mut waiting: Vec<&str> = NEEDS.iter().map(|(service, _)| *service).collect();
        while !waiting.is_empty() {
            let line = timeout(DEADLINE, self.events.next_line()).await;
            let line =
                line.with_context(|| format!("no start of {waiting:?}"))??.context("docker events ended")?;
            if let Some(service) = line.strip_prefix("health_status: healthy ") {
                healthy.push(service.to_owned());
            } else if let Some(service) = line.strip_prefix("start ") {
                waiting.retain(|other| *other != service);
                let needs =
                    NEEDS.iter().find(|(other, _)| *other == service).map_or(&[][..], |(_, needs)| *needs);
                for need in needs {
                    ensure!(
                        healthy.iter().any(|other| other == need),
                        "{service} started before {need} was healthy"
                    );
                }
            }
        }
        Ok(())
    }
}
