//! The view of the whole pipeline, as `/status.json` returns it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::history::{History, Sample};
use super::numbers::Numbers;
use super::{Event, Process, Report};

/// View of the whole pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Name of the process that returns this view.
    pub told_by: String,
    /// Counts since the start, positions, and times of the last flushes and commits.
    pub numbers: Numbers,
    /// Current rates and freshness.
    pub now: Sample,
    /// Samples of the last minutes, one a second, oldest first.
    pub history: Vec<Sample>,
    /// All processes, the one that returns this view first.
    pub processes: Vec<ProcessStatus>,
    /// The latest warnings and errors of all processes, newest first.
    pub events: Vec<ProcessEvent>,
    /// The latest dead letters of all processes, newest first.
    pub dead_letters: Vec<ProcessEvent>,
}

/// State of a process according to its last report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// The process.
    #[serde(flatten)]
    pub process: Process,
    /// Time of its last report, in microseconds UTC.
    pub heard_micros: i64,
    /// True if its last report is too old: the process has stopped, died or lost its connection.
    pub is_silent: bool,
    /// Its services: ready (`null`), or the reason why not.
    pub services: BTreeMap<String, Option<String>>,
}

/// An event and the process that reported it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessEvent {
    /// Name of the process.
    pub process: String,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

impl View {
    /// Builds the view. The first report is that of the process that returns the view.
    pub(super) fn new(reports: &[Report], history: &History) -> View {
        let Some(own) = reports.first() else { return View::default() };
        let numbers = Numbers::of(reports);
        let status = |report: &Report| ProcessStatus {
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
            processes: reports.iter().map(status).collect(),
            events: newest_first(reports, |report| &report.events),
            dead_letters: newest_first(reports, |report| &report.dead_letters),
        }
    }
}

fn newest_first(reports: &[Report], events: fn(&Report) -> &[Event]) -> Vec<ProcessEvent> {
    let mut all = Vec::new();
    for report in reports {
        let of_process =
            |event: &Event| ProcessEvent { process: report.process.id.clone(), event: event.clone() };
        all.extend(events(report).iter().map(of_process));
    }
    all.sort_by_key(|event| std::cmp::Reverse(event.event.at_micros));
    all
}
