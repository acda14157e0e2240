//! One project of `deploy/compose.yaml` on a Docker engine: its settings, its containers and its removal.

use std::borrow::Cow;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as BlockingCommand, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use integration_tests::process::{free_port, free_ports, program};
use integration_tests::wait::eventually;
use tempfile::TempDir;
use tokio::process::Command;

/// Longest time for a service to be healthy, or an image to be built. Superset, the slowest, takes a minute on an idle machine.
const DEADLINE: Duration = Duration::from_mins(5);
/// Number of consecutive ports that are published for the members of a scaled service.
const SCALE_MAX: u16 = 4;
/// Number of lines of each container's log that a failed test shows.
const LOG_LINES: &str = "40";

/// Image of the services, with the binary that `cargo build` has put beside the tests.
const IMAGE: &str = "candleflight:test";
/// Arguments that remove a project with its volumes.
const DOWN: &[&str] = &["--profile", "tools", "down", "--volumes"];
/// Settings that a user changes in `.env`: every log-in.
const LOG_INS: &[(&str, &str)] = &[
    ("CANDLEFLIGHT_USER", "lamplighter"),
    ("CANDLEFLIGHT_PASSWORD", "trimmed-wick-3"),
    ("POSTGRES_USER", "chandler"),
    ("POSTGRES_PASSWORD", "tallow-1.2_3~"),
    ("MINIO_USER", "chandlery"),
    ("MINIO_PASSWORD", "beeswax-and-wick"),
    ("SUPERSET_USER", "keeper"),
    ("SUPERSET_PASSWORD", "snuffer-9"),
];
/// Published ports of services with one container.
const PORTS: &[&str] = &[
    "SUPERSET_PORT",
    "MINIO_PORT",
    "MINIO_CONSOLE_PORT",
    "POSTGRES_PORT",
    "KAFKA_PORT",
    "FLIGHT_PORT",
    "FLIGHT_STATUS_PORT",
    "GOLD_STATUS_PORT",
    "PRODUCER_STATUS_PORT",
    "PROMETHEUS_PORT",
    "GRAFANA_PORT",
];

/// A project that no other test uses. Its remains are removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Compose {
    docker_host: String,
    program: &'static [&'static str],
    project: String,
    folder: TempDir,
    settings: Vec<(String, String)>,
    is_down: bool,
}

impl Compose {
    /// Writes the `.env` of a project, with its own log-ins and ports and `more` settings. Returns `None` and prints a note if no engine is
    /// given.
    pub(crate) async fn new(more: &[(&str, &str)]) -> anyhow::Result<Option<Compose>> {
        let Ok(docker_host) = env::var("CANDLEFLIGHT_TEST_DOCKER_HOST") else {
            eprintln!("SKIPPED: CANDLEFLIGHT_TEST_DOCKER_HOST is not set to a Docker engine");
            return Ok(None);
        };
        let v2 = Command::new("docker").args(["compose", "version"]).output().await;
        let program: &[&str] = if v2.is_ok_and(|output| output.status.success()) {
            &["docker", "compose"]
        } else {
            &["docker-compose"]
        };
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut settings: Vec<(String, String)> = LOG_INS.iter().chain(more).map(owned).collect();
        for name in PORTS {
            settings.push(((*name).to_owned(), free_port()?.to_string()));
        }
        let first = free_ports(SCALE_MAX)?;
        settings.push(("INGEST_STATUS_PORTS".to_owned(), format!("{first}-{}", first + SCALE_MAX - 1)));
        settings.push(("CANDLEFLIGHT_IMAGE".to_owned(), IMAGE.to_owned()));
        settings.push(("SUPERSET_IMAGE".to_owned(), "candleflight-superset:test".to_owned()));
        let folder = tempfile::tempdir()?;
        let lines: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        fs::write(folder.path().join(".env"), lines.concat())?;
        let project = format!("candleflight-{}", uuid::Uuid::new_v4().simple());
        Ok(Some(Compose { docker_host, program, project, folder, settings, is_down: false }))
    }

    /// Returns a setting, such as a published port.
    pub(crate) fn setting(&self, name: &str) -> &str {
        let found = self.settings.iter().find(|(other, _)| other == name);
        &found.expect("the test reads a setting that it has made").1
    }

    /// Returns `127.0.0.1:port`.
    pub(crate) fn address(&self, port: &str) -> String {
        format!("127.0.0.1:{}", self.setting(port))
    }

    /// Returns the file as compose interprets it if `.env` contains only `settings`.
    pub(crate) async fn config(&self, settings: &str) -> anyhow::Result<String> {
        let file = self.folder.path().join("settings");
        fs::write(&file, settings)?;
        let mut command = Command::new(self.program[0]);
        command
            .args(&self.program[1..])
            .arg("--env-file")
            .arg(file)
            .arg("--file")
            .arg(deploy().join("compose.yaml"));
        checked("compose config", command.args(["--profile", "tools", "config"]).output().await?)
    }

    /// Builds the image of the services, by the stage that takes a binary, and the image of Superset.
    pub(crate) async fn build(&self) -> anyhow::Result<()> {
        let context = self.folder.path().join("image");
        fs::create_dir(&context)?;
        fs::copy(program()?, context.join("candleflight"))?;
        let dockerfile = deploy().join("Dockerfile").display().to_string();
        let context = context.display().to_string();
        let build =
            ["build", "-q", "--build-arg", "BINARY=prebuilt", "-f", &dockerfile, "-t", IMAGE, &context];
        self.docker(&build).await?;
        self.compose(&["build", "superset"]).await?;
        Ok(())
    }

    /// Runs `docker compose` with `arguments` and returns its output.
    pub(crate) async fn compose(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::from(self.compose_command());
        let output = command.args(arguments).kill_on_drop(true).output();
        let output = tokio::time::timeout(DEADLINE, output).await.context("compose does not end")??;
        checked(&format!("compose {}", arguments.join(" ")), output)
    }

    fn compose_command(&self) -> BlockingCommand {
        let mut command = BlockingCommand::new(self.program[0]);
        command
            .args(&self.program[1..])
            .args(["--project-name", &self.project, "--env-file"])
            .arg(self.folder.path().join(".env"))
            .arg("--file")
            .arg(deploy().join("compose.yaml"))
            .env("DOCKER_HOST", &self.docker_host)
            .envs([("DOCKER_BUILDKIT", "1"), ("COMPOSE_DOCKER_CLI_BUILD", "1")])
            .stdin(Stdio::null());
        command
    }

    /// Runs `docker` with `arguments` and returns its output.
    pub(crate) async fn docker(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.docker_command(arguments).output();
        let output = tokio::time::timeout(DEADLINE, output).await.context("docker does not end")??;
        checked(&format!("docker {}", arguments.join(" ")), output)
    }

    /// Returns `docker` with `arguments`, killed when dropped.
    pub(crate) fn docker_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        let variables = [("DOCKER_HOST", self.docker_host.as_str()), ("DOCKER_BUILDKIT", "1")];
        command.args(arguments).envs(variables).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Returns the filter that selects this project's containers, volumes and networks.
    pub(crate) fn label(&self) -> String {
        format!("label=com.docker.compose.project={}", self.project)
    }

    /// Removes the project, and checks that nothing of it is left.
    pub(crate) async fn down(mut self) -> anyhow::Result<()> {
        self.compose(DOWN).await?;
        self.is_down = true;
        for list in [&["ps", "--all"][..], &["volume", "ls"], &["network", "ls"]] {
            let left = self.docker(&[list, &["--quiet", "--filter", &self.label()]].concat()).await?;
            ensure!(left.is_empty(), "after down -v, {list:?} shows {left}");
        }
        Ok(())
    }

    /// Returns the ids of a service's running containers.
    pub(crate) async fn containers(&self, service: &str) -> anyhow::Result<Vec<String>> {
        let service = format!("label=com.docker.compose.service={service}");
        let ids = self.docker(&["ps", "-q", "--filter", &self.label(), "--filter", &service]).await?;
        Ok(ids.lines().map(str::to_owned).collect())
    }

    /// Returns the output of `docker inspect` for a service's only container.
    pub(crate) async fn inspect(&self, service: &str, format: &str) -> anyhow::Result<String> {
        let ids = self.containers(service).await?;
        let [id] = ids.as_slice() else { bail!("{} containers of {service} run", ids.len()) };
        Ok(self.docker(&["inspect", "--format", format, id]).await?.trim().to_owned())
    }

    /// Waits until `count` containers of a service run and are healthy.
    pub(crate) async fn healthy(&self, service: &str, count: usize) {
        let what = format!("{count} of {service} healthy");
        eventually(&what, DEADLINE, async || {
            let ids = self.containers(service).await.ok()?;
            let mut arguments = vec!["inspect", "--format", "{{.State.Health.Status}}"];
            arguments.extend(ids.iter().map(String::as_str));
            let states = if ids.is_empty() { String::new() } else { self.docker(&arguments).await.ok()? };
            let healthy = states.lines().all(|state| state == "healthy");
            (healthy && states.lines().count() == count).then_some(())
        })
        .await;
    }

    /// Kills a service's process from outside Docker, since Docker does not restart a container that Docker itself was told to kill.
    pub(crate) async fn crash(&self, service: &str) -> anyhow::Result<()> {
        let kill = format!("kill -9 {}", self.inspect(service, "{{.State.Pid}}").await?);
        let run = [
            "run",
            "--rm",
            "--pid",
            "host",
            "--user",
            "0",
            "--no-healthcheck",
            "--entrypoint",
            "sh",
            IMAGE,
            "-c",
            &kill,
        ];
        self.docker(&run).await.map(drop)
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if self.is_down {
            return;
        }
        for arguments in [&["ps"][..], &["logs", "--no-color", "--tail", LOG_LINES], DOWN] {
            match self.compose_command().args(arguments).output() {
                Ok(output) => eprintln!("{}{}", text(&output.stdout), text(&output.stderr)),
                Err(error) => eprintln!("compose {arguments:?}: {error}"),
            }
        }
    }
}

/// Returns the folder `deploy/` of the checkout.
pub(crate) fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// Returns the standard output of a command, which must have succeeded.
pub(crate) fn checked(what: &str, output: Output) -> anyhow::Result<String> {
    ensure!(output.status.success(), "{what}: {}{}", text(&output.stdout), text(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
