//! A server that runs as a child process and never outlives its parent.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::logs;
use super::process::{Process, names_folder};

/// Longest wait until a server answers: many times what a slow machine needs to recover from a crash.
const START_MAX: Duration = Duration::from_mins(1);
/// Longest wait for a server to end after a signal. The server is then killed. Kafka and PostgreSQL both recover from a kill.
const STOP_MAX: Duration = Duration::from_secs(20);
/// Pause between two checks of a condition that sends no event. It adds at most this time to the start.
const CHECK_PAUSE: Duration = Duration::from_millis(20);
/// Pause between two checks of a server that starts slowly. No other server waits for its start.
pub(super) const HEALTH_INTERVAL: Duration = Duration::from_millis(500);
/// Log file in the folder of a server, which receives its output.
const LOG: &str = "log";
/// File in the folder of a server that identifies its process.
const PID: &str = "pid";
/// Maximum number of lines of a server's log that an error shows.
const LOG_LINES_MAX: usize = 15;

/// Properties of one kind of server.
#[derive(Debug)]
pub(super) struct Kind {
    /// Name for people.
    pub(super) name: &'static str,
    /// Signal for an orderly end.
    pub(super) stop_signal: &'static str,
    /// Signal that the kernel sends to the server when this process dies.
    pub(super) death_signal: &'static str,
    /// User that runs the server if this process runs as root. It is set for servers that refuse to run as root.
    pub(super) user: Option<&'static str>,
    /// Environment variables of the server.
    pub(super) variables: &'static [(&'static str, &'static str)],
}

/// A running server. It is killed when dropped without [`Child::stop`].
#[derive(Debug)]
pub(super) struct Child {
    kind: &'static Kind,
    process: tokio::process::Child,
    folder: PathBuf,
}

impl Child {
    /// Starts `program` in `folder`, with its output in [`LOG`]. The caller must make sure that no other server runs there.
    ///
    /// Arguments and configuration use paths relative to `folder`, because some servers use a character as separator that the folder's path
    /// may contain.
    ///
    /// Must be called on the main thread: the kernel binds a child's death signal to the *thread* that started it.
    pub(super) fn start<S: AsRef<OsStr>>(
        kind: &'static Kind,
        folder: &Path,
        program: &Path,
        arguments: &[S],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Child> {
        let context = || format!("start {} ({})", kind.name, program.display());
        let log = logs::begin(&folder.join(LOG)).with_context(context)?;
        let process = command(kind, folder, program, arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(context)?;
        let started = process.id().and_then(Process::with_id).with_context(context)?;
        fs::write(folder.join(PID), started.to_string()).with_context(context)?;
        Ok(Child { kind, process, folder: folder.to_owned() })
    }

    /// Waits until `answers` returns true.
    pub(super) async fn until_ready(
        &mut self,
        mut answers: impl AsyncFnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_MAX;
        while !answers().await? {
            if let Some(status) = self.process.try_wait()? {
                return Err(self.ended(status));
            }
            if Instant::now() > deadline {
                bail!("{} does not answer after {START_MAX:?}; {}", self.kind.name, self.log_end());
            }
            sleep(CHECK_PAUSE).await;
        }
        Ok(())
    }

    /// Waits until the server ends by itself, and returns that end as an error.
    pub(super) async fn unexpected_end(&mut self) -> anyhow::Error {
        match self.process.wait().await {
            Ok(status) => self.ended(status),
            Err(error) => anyhow::Error::new(error).context(format!("wait for {}", self.kind.name)),
        }
    }

    /// Sends the server its stop signal and waits for it to end.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let context = || format!("stop {}", self.kind.name);
        if let Some(pid) = self.process.id() {
            signal(self.kind.stop_signal, pid).await.with_context(context)?;
            if timeout(STOP_MAX, self.process.wait()).await.is_err() {
                tracing::warn!(server = self.kind.name, "server did not end after {STOP_MAX:?}, killing it");
                self.process.kill().await.with_context(context)?;
            }
        }
        fs::remove_file(self.folder.join(PID)).with_context(context)
    }

    /// Returns the server's log.
    pub(super) fn log(&self) -> String {
        fs::read(self.log_file()).map_or_else(
            |error| format!("(unreadable: {error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Returns the path of the server's log.
    pub(super) fn log_file(&self) -> PathBuf {
        self.folder.join(LOG)
    }

    fn ended(&self, status: ExitStatus) -> anyhow::Error {
        anyhow::anyhow!("{} ended unexpectedly ({status}); {}", self.kind.name, self.log_end())
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().rev().take(LOG_LINES_MAX).collect();
        let tail: Vec<&str> = lines.into_iter().rev().collect();
        format!("the end of {}:\n{}", self.log_file().display(), tail.join("\n"))
    }
}

/// Runs a short-lived program in `folder`, as the user of `kind`. Fails if the program fails.
pub(super) async fn run_to_end<S: AsRef<OsStr> + Sync>(
    kind: &'static Kind,
    folder: &Path,
    program: &Path,
    arguments: &[S],
) -> anyhow::Result<()> {
    let output = command(kind, folder, program, arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("run {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} failed ({}):\n{}{}",
        program.display(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Returns true if this process runs as root.
pub(super) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn command<S: AsRef<OsStr>>(kind: &'static Kind, folder: &Path, program: &Path, arguments: &[S]) -> Command {
    // setpriv (util-linux) changes the user first and then sets the death signal, because a change of the user clears the signal.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", kind.death_signal]);
    if let Some(user) = kind.user.filter(|_| is_root()) {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command.arg("--").arg(program).args(arguments);
    // The child has its own process group. Ctrl-C goes to the terminal's group, and servers end after the services.
    command.process_group(0).current_dir(folder).envs(kind.variables.iter().copied()).kill_on_drop(true);
    command
}

/// Ends a server that a killed run may have left on `folder`. Two servers on one folder would destroy its data.
pub(super) async fn end_stale(kind: &Kind, folder: &Path) -> anyhow::Result<()> {
    let Ok(record) = fs::read_to_string(folder.join(PID)) else { return Ok(()) };
    if let Some(server) = recorded(&record, folder) {
        tracing::info!(server = kind.name, pid = server.id, "ending a server that an earlier run left");
        signal(kind.stop_signal, server.id).await?;
        let deadline = Instant::now() + STOP_MAX;
        while server.exists() {
            if Instant::now() > deadline {
                signal("KILL", server.id).await?;
                sleep(CHECK_PAUSE * 10).await;
                ensure!(!server.exists(), "process {} of an earlier run does not end", server.id);
            }
            sleep(CHECK_PAUSE).await;
        }
    }
    fs::remove_file(folder.join(PID))?;
    Ok(())
}

/// Returns the running server in `record`. The first version recorded only the process id.
fn recorded(record: &str, folder: &Path) -> Option<Process> {
    let server = Process::parse(record).or_else(|| {
        let id = record.trim().parse().ok().filter(|id| names_folder(*id, folder))?;
        Process::with_id(id)
    });
    server.filter(Process::exists)
}

/// Sends a signal. The standard library can only send SIGKILL, while every shell can send all signals.
async fn signal(name: &str, pid: u32) -> anyhow::Result<()> {
    let arguments = ["-c", r#"kill -s "$0" "$1" 2>/dev/null || :"#, name, &pid.to_string()];
    Command::new("sh").args(arguments).status().await.with_context(|| format!("send SIG{name} to {pid}"))?;
    Ok(())
}
