//! A separate server, for tests that stop it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::environment::Environment;
use crate::process::log_end;

/// Parent folder of the servers' data: a place that PostgreSQL's user can reach.
const DATA_PARENT: &str = "/var/tmp";

/// A real Kafka (`kafka`), MinIO (`minio`) or PostgreSQL (`postgres`) that only this test uses. It is stopped when dropped.
#[derive(Debug)]
pub struct Server {
    kind: &'static str,
    stack: PathBuf,
    folder: TempDir,
    port: u16,
}

impl Server {
    /// Starts the server on a free port. Returns once it answers.
    ///
    /// # Errors
    ///
    /// The server does not start.
    pub fn start(environment: &Environment, kind: &'static str) -> anyhow::Result<Server> {
        Server::start_with(environment, kind, |_| Ok(()))
    }

    /// Starts the server with the files that `configure` has put into the folder `extra`. See `script/stack`.
    ///
    /// # Errors
    ///
    /// Those of `configure`, or the server does not start.
    pub fn start_with(
        environment: &Environment,
        kind: &'static str,
        configure: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Server> {
        let folder = tempfile::Builder::new()
            .prefix("candleflight-test.")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o711))
            .tempdir_in(DATA_PARENT)?;
        let extra = folder.path().join("extra");
        std::fs::create_dir(&extra)?;
        configure(&extra)?;
        let mut server = Server { kind, stack: environment.stack.clone(), folder, port: 0 };
        server.restart()?;
        server.port = server.stack("port")?.trim().parse()?;
        Ok(server)
    }

    /// Returns the address `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the folder of all data of the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the server again on the same port and data. Returns once it answers.
    ///
    /// # Errors
    ///
    /// The server does not start.
    pub fn restart(&self) -> anyhow::Result<()> {
        self.stack("start").map(drop)
    }

    /// Stops the server as an operator would.
    ///
    /// # Errors
    ///
    /// The server does not stop.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.stack("stop").map(drop)
    }

    /// Kills the server as a crash would.
    ///
    /// # Errors
    ///
    /// The server does not die.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.stack("kill").map(drop)
    }

    fn stack(&self, action: &str) -> anyhow::Result<String> {
        let context = || format!("{action} {}", self.kind);
        let arguments = [action.as_ref(), self.kind.as_ref(), self.folder.path().as_os_str()];
        let output = Command::new(&self.stack).args(arguments).output().with_context(context)?;
        ensure!(output.status.success(), "{}: {}", context(), String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: {}", self.kind, log_end(&self.folder.path().join("log")));
        }
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}
