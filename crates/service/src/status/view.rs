//! The whole picture, as `/status.json` gives it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::history::{History, Sample};
use super::numbers::Numbers;
use super::{Event, Process, Report};

/// The whole picture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// The process that gives it.
    pub told_by: String,
    /// Counts since the start, positions, last flushes and commits.
    pub numbers: Numbers,
    /// Rates and freshness now.
    pub now: Sample,
    /// The last minutes, a sample a second, oldest first.
    pub history: Vec<Sample>,
    /// All processes, the one that tells first.
    pub processes: Vec<Seen>,
    /// The latest warnings and errors of all, newest first.
    pub events: Vec<Said>,
    /// The latest dead letters of all, newest first.
    pub dead_letters: Vec<Said>,
}

/// A process as it was last heard of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Who.
    #[serde(flatten)]
    pub process: Process,
    /// When it was last heard of, microseconds UTC.
    pub heard_micros: i64,
    /// Whether nothing has been heard of it for a while: stopped, dead or cut off.
    pub is_silent: bool,
    /// Its services: each ready (`null`), or why it is not.
    pub services: BTreeMap<String, Option<String>>,
}

/// An event and who said so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// The process.
    pub process: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

impl View {
    /// Puts the picture together; the first report is of the process that tells.
    pub(super) fn new(reports: &[Report], history: &History) -> View {
        let Some(own) = reports.first() else { return View::default() };
        let numbers = Numbers::of(reports);
        let seen = |report: &Report| Seen {
            process: report.process.clone(),
            heard_micros: report.at_micros,
            is_silent: report.is_silent(own.at_micros),
            services: report.services.clone(),
        };
        View {
            told_by: own.process.id.clone(),
            now: history.sample(own.at_micros, &numbers),
            numbers,
            history: history.samples().cloned().collect(),
            processes: reports.iter().map(seen).collect(),
            events: newest_first(reports, |report| &report.events),
            dead_letters: newest_first(reports, |report| &report.dead_letters),
        }
    }
}

fn newest_first(reports: &[Report], events: fn(&Report) -> &[Event]) -> Vec<Said> {
    let mut all = Vec::new();
    for report in reports {
        let said = |event: &Event| Said { process: report.process.id.clone(), event: event.clone() };
        all.extend(events(report).iter().map(said));
    }
    all.sort_by_key(|said| std::cmp::Reverse(said.event.at_micros));
    all
}
