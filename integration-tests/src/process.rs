//! A `candleflight` process that a test starts, kills and restarts.

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use access::Identity;
use anyhow::{Context as _, anyhow, bail, ensure};
use service::http;
use service::metrics::Samples;
use service::metrics::names::Description;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::wait::eventually;

/// Longest time for a process to be ready, or to end after a signal: far more than it takes on a busy machine.
const DEADLINE: Duration = Duration::from_mins(1);
/// Maximum number of lines of a process's log that a failed test shows.
const LOG_LINES_MAX: usize = 40;

/// A service in its own process, with its log in a file. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    log: PathBuf,
    status_addr: String,
    child: Option<Child>,
}

impl Process {
    /// Starts `candleflight` with `arguments` (the command and flags of a service) and environment `variables`, with its log in `log`.
    ///
    /// # Errors
    ///
    /// The program does not exist: `cargo build` creates it.
    pub fn start(
        arguments: &[&str],
        variables: &[(String, String)],
        log: PathBuf,
    ) -> anyhow::Result<Process> {
        let mut process = Process {
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            variables: variables.to_vec(),
            log,
            status_addr: format!("127.0.0.1:{}", free_port()?),
            child: None,
        };
        process.restart()?;
        Ok(process)
    }

    /// Starts the process again with the same arguments. It appends to the same log.
    ///
    /// # Errors
    ///
    /// The process still runs, or the program does not exist.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.restart_with(&[])
    }

    /// Starts the process again, with more environment variables for this run only, such as a failpoint.
    ///
    /// # Errors
    ///
    /// Those of [`Process::restart`].
    pub fn restart_with(&mut self, variables: &[(&str, &str)]) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "{} still runs", self.name());
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(program()?)
            .args(&self.arguments)
            .envs(self.variables.iter().cloned())
            .env("CANDLEFLIGHT_STATUS_ADDR", &self.status_addr)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.name()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Kills the process with SIGKILL. Returns once it has ended.
    ///
    /// # Errors
    ///
    /// The error of the system, which does not occur for a child process.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Sends SIGTERM and returns the exit status.
    ///
    /// # Errors
    ///
    /// The process did not run, or did not end within the deadline.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        let pid = self.child.as_ref().and_then(Child::id).context("the process does not run")?;
        let sent = Command::new("sh").args(["-c", r#"kill -s TERM "$0""#, &pid.to_string()]).status().await?;
        ensure!(sent.success(), "cannot send SIGTERM to {pid}");
        self.ended().await
    }

    /// Waits until the process ends by itself, for example at a failpoint, and returns the exit status.
    ///
    /// # Errors
    ///
    /// The process did not run, or did not end within the deadline.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let child = self.child.as_mut().context("the process does not run")?;
        let status = timeout(DEADLINE, child.wait()).await;
        let status = status
            .with_context(|| format!("{} does not end; {}", self.arguments[0], log_end(&self.log)))??;
        self.child = None;
        Ok(status)
    }

    /// Waits until the process ends by SIGABRT, which means that it passed a failpoint.
    ///
    /// # Errors
    ///
    /// The process ended in another way, or not within the deadline.
    pub async fn hit_failpoint(&mut self) -> anyhow::Result<()> {
        let status = self.ended().await?;
        // 6 is SIGABRT.
        ensure!(status.signal() == Some(6), "{} ended with {status}; {}", self.name(), log_end(&self.log));
        Ok(())
    }

    /// Returns true if the process still runs.
    ///
    /// # Errors
    ///
    /// The error of the system, which does not occur for a child process.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?.is_none()),
            None => Ok(false),
        }
    }

    /// Returns the address of its status page, `host:port`.
    pub fn address(&self) -> &str {
        &self.status_addr
    }

    /// Returns true if `/ready` now reports that the process is ready.
    pub async fn is_ready(&self) -> bool {
        let answer = http::get(&self.status_addr, "/ready", &Identity::default()).await;
        answer.is_ok_and(|(status, _)| status == 200)
    }

    /// Waits until `/ready` reports that the process is ready.
    pub async fn ready(&mut self) {
        let what = format!("{} is ready", self.name());
        eventually(&what, DEADLINE, async || {
            assert!(self.is_running().unwrap_or(false), "{} ended; {}", self.name(), log_end(&self.log));
            http::get(&self.status_addr, "/ready", &Identity::default())
                .await
                .ok()
                .filter(|(status, _)| *status == 200)
        })
        .await;
    }

    /// Reads the sum of a metric, by its full name, such as `candleflight_gold_rows_total`, and labels such as `sink="lake"`.
    ///
    /// # Errors
    ///
    /// The process does not answer.
    pub async fn metric(&self, metric: Description, labels: &[&str]) -> anyhow::Result<f64> {
        Ok(Samples::new(&self.metrics().await?).sum(metric, labels))
    }

    /// Reads all its metrics in Prometheus' text format.
    ///
    /// # Errors
    ///
    /// The process does not answer.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        Ok(http::get(&self.status_addr, "/metrics", &Identity::default()).await?.1)
    }

    /// Returns the process id while it runs, to read values from `/proc`, such as its peak memory.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Reads its log of all runs so far.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    fn name(&self) -> &str {
        &self.arguments[0]
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: {}", self.name(), log_end(&self.log));
        }
    }
}

/// Returns the path of the `candleflight` that `cargo build` has put beside this program, or beside the folder of the tests.
///
/// # Errors
///
/// The program does not exist.
pub fn program() -> anyhow::Result<PathBuf> {
    let this = env::current_exe()?;
    let programs = this.ancestors().skip(1).take(2).map(|folder| folder.join("candleflight"));
    let program = programs.into_iter().find(|program| program.is_file());
    program.with_context(|| format!("candleflight is missing near {}: run cargo build", this.display()))
}

/// Returns an unused port of the loopback interface that no other call of this process returns.
///
/// # Errors
///
/// None is left.
pub fn free_port() -> anyhow::Result<u16> {
    free_ports(1)
}

/// Returns the first of `count` consecutive ports that are unused in the same way.
///
/// They are below the ports of `script/stack`, whose servers return to them. They are also below the ports that the system gives to
/// outgoing connections, which could take a port before its server listens.
///
/// # Errors
///
/// None are left.
pub fn free_ports(count: u16) -> anyhow::Result<u16> {
    const PORTS: Range<u16> = 10_000..20_000;
    static NEXT: LazyLock<Mutex<u16>> = LazyLock::new(|| {
        let skipped = u16::try_from(process::id() % u32::from(PORTS.end - PORTS.start));
        Mutex::new(PORTS.start + skipped.unwrap_or_default())
    });
    let mut next = NEXT.lock().map_err(|_poisoned| anyhow!("another test panicked while choosing a port"))?;
    for _try in PORTS {
        let first = if PORTS.end - *next < count { PORTS.start } else { *next };
        *next = first + count;
        if (first..first + count).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return Ok(first);
        }
    }
    bail!("no {count} consecutive ports from {} to {} of 127.0.0.1 are free", PORTS.start, PORTS.end - 1)
}

pub(crate) fn log_end(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = &lines[lines.len().saturating_sub(LOG_LINES_MAX)..];
    format!("the end of {}:\n{}", log.display(), end.join("\n"))
}
