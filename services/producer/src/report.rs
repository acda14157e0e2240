//! Output of a run for a person: the progress, and the lines that could not be used.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use service::metrics::Metrics;
use service::metrics::names;
use tokio::time::Instant;

/// Number of unusable lines that are logged one by one. Further lines are only counted.
const EXAMPLES_MAX: u64 = 10;
/// Time between two updates of the progress bar: an eye cannot follow more.
const BAR_INTERVAL: Duration = Duration::from_millis(100);
/// Time between two progress lines in the log, when there is no bar.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Progress and rejected lines of one run.
pub(crate) struct Report {
    bar: Option<ProgressBar>,
    interval: Duration,
    started: Instant,
    last_logged: Instant,
    rejected: BTreeMap<&'static str, u64>,
    rejected_lines: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Report {
    /// Creates the report. It uses a progress bar on a terminal and log lines elsewhere. `quiet` turns both off.
    pub(crate) fn new(quiet: bool, byte_count: u64, metrics: &Metrics, now: Instant) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| bar(byte_count));
        let interval = match bar {
            _ if quiet => Duration::MAX,
            Some(_) => BAR_INTERVAL,
            None => LINE_INTERVAL,
        };
        let rejected_lines = metrics.register(names::PRODUCER_REJECTED_LINES, Family::default());
        Report { bar, interval, started: now, last_logged: now, rejected: BTreeMap::new(), rejected_lines }
    }

    /// Restarts the clock of the run, because the time before was spent waiting.
    pub(crate) fn begin(&mut self, now: Instant) {
        (self.started, self.last_logged) = (now, now);
    }

    /// Shows the progress of the run if the last update is old enough.
    pub(crate) fn progress(&mut self, now: Instant, sent: u64, bytes_read: u64) {
        if now.duration_since(self.last_logged) < self.interval {
            return;
        }
        self.last_logged = now;
        match &self.bar {
            Some(bar) => {
                bar.set_position(bytes_read);
                bar.set_message(format!("{sent} records, {:.0}/s", self.rate(now, sent)));
            }
            None => tracing::info!(sent, rate = self.rate(now, sent).round(), "producing"),
        }
    }

    /// Counts a line without a usable candle, and logs the first ones.
    pub(crate) fn reject(&mut self, file: &str, line: u64, reason: &'static str) {
        *self.rejected.entry(reason).or_default() += 1;
        self.rejected_lines.get_or_create(&[("reason", reason)]).inc();
        let count: u64 = self.rejected.values().sum();
        if count <= EXAMPLES_MAX {
            self.suspended(|| {
                tracing::warn!(file, line, reason, "the line has no usable candle and is not sent");
            });
        }
        if count == EXAMPLES_MAX {
            self.suspended(|| tracing::warn!("further lines without a usable candle are only counted"));
        }
    }

    /// Logs the totals.
    pub(crate) fn finish(&self, now: Instant, sent: u64) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = now.duration_since(self.started).as_secs_f64();
        tracing::info!(sent, seconds, rate = self.rate(now, sent).round(), "all records are acknowledged");
        for (reason, count) in &self.rejected {
            tracing::warn!(reason, count, "lines without a usable candle were not sent");
        }
    }

    fn rate(&self, now: Instant, sent: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "for a person's eye")]
        let sent = sent as f64;
        sent / now.duration_since(self.started).as_secs_f64().max(f64::EPSILON)
    }

    /// Calls `log` with the progress bar hidden, so that log lines do not break it.
    fn suspended(&self, log: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(log),
            None => log(),
        }
    }
}

fn bar(byte_count: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {msg}")
        .expect("the template is well-formed");
    ProgressBar::with_draw_target(Some(byte_count), ProgressDrawTarget::stderr()).with_style(style)
}
