//! Output of `up`: permanent lines, the metrics below them (redrawn in place in a terminal), and the log.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use service::status::{Events, Numbers};
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::MakeWriterExt as _;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt};

use super::logs::Log;
use crate::numbers::{line, table};

/// Interval at which the metrics are redrawn in a terminal: slow enough to read.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(500);
/// Interval at which one line of metrics is written to an output that is not a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The terminal, or any other standard output. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Screen {
    /// Draws the metrics. Hidden if there is no terminal.
    bar: ProgressBar,
}

impl Screen {
    pub(super) fn new() -> Screen {
        let is_terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
        let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{msg}").expect("the template is well-formed");
        Screen { bar: ProgressBar::with_draw_target(None, target).with_style(style) }
    }

    /// Writes a permanent line.
    pub(super) fn line(&self, line: impl Display) {
        // A closed output is no reason to stop.
        let write = || drop(writeln!(io::stdout(), "{line}"));
        if self.bar.is_finished() { write() } else { self.bar.suspend(write) }
    }

    /// Returns the period for calls of [`Screen::show`].
    pub(super) fn interval(&self) -> Duration {
        if self.bar.is_hidden() { LINE_INTERVAL } else { TERMINAL_INTERVAL }
    }

    /// Shows the metrics.
    pub(super) fn show(&self, numbers: &Numbers) {
        if self.bar.is_hidden() {
            self.line(line(numbers));
        } else {
            self.bar.set_message(format!("\n{}", table(numbers)));
        }
    }

    /// Keeps the last metrics on the screen and continues below them.
    pub(super) fn finish(&self) {
        self.bar.abandon();
    }

    /// Sends log lines to `file`, since they would break the drawn metrics, and shows warnings here too. Returns the list of the latest
    /// events.
    pub(super) fn init_telemetry(&self, file: &Path) -> anyhow::Result<Events> {
        let writer = Log::open(file).with_context(|| format!("open the log {}", file.display()))?;
        let log = fmt::layer()
            .with_ansi(false)
            .with_writer(Mutex::new(writer))
            .with_filter(service::log_filter("info"));
        // All layers have the same filter, and the writer applies the level. With different filters, `log_enabled!`, which every new Kafka
        // client calls, desynchronizes the state of the layers, and one layer drops the thread's next warning.
        let screen = self.clone().with_max_level(Level::WARN);
        let warnings = fmt::layer().with_writer(screen).with_filter(service::log_filter("info"));
        let events = Events::default();
        let kept = events.clone().with_filter(service::log_filter("info"));
        Registry::default().with(log).with(warnings).with(kept).try_init().context("start logging")?;
        Ok(events)
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bar.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Screen;

    fn make_writer(&'a self) -> Screen {
        self.clone()
    }
}
