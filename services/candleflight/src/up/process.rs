//! Unique identity of a process: its id, its start time, and the boot id of the machine.

use std::fmt::{self, Display};
use std::fs;
use std::path::Path;

/// An observed process. Process ids are reused, also by kernel threads, but the three values together are unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// Process id.
    pub(super) id: u32,
    /// Start time, in kernel ticks since boot.
    started: u64,
    /// Random id of the boot.
    boot: String,
}

impl Process {
    /// Returns the process that has this id now.
    pub(super) fn with_id(id: u32) -> Option<Process> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        Some(Process { id, started: start_time(&stat)?, boot })
    }

    /// Parses the output of `Process::to_string`.
    pub(super) fn parse(text: &str) -> Option<Process> {
        let mut words = text.split_whitespace();
        let (id, started, boot) = (words.next()?, words.next()?, words.next()?);
        Some(Process { id: id.parse().ok()?, started: started.parse().ok()?, boot: boot.to_owned() })
    }

    /// Returns true if the process still exists. A process that has ended still exists until its parent waits for it.
    pub(super) fn exists(&self) -> bool {
        Process::with_id(self.id).as_ref() == Some(self)
    }
}

impl Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.id, self.started, self.boot)
    }
}

/// Returns true if process `id` runs the program called `name`.
pub(super) fn runs(id: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim_end() == name)
}

/// Returns true if the command line of the process contains `folder`. The first version identified its servers only in this way.
pub(super) fn names_folder(id: u32, folder: &Path) -> bool {
    fs::read(format!("/proc/{id}/cmdline"))
        .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&*folder.to_string_lossy()))
}

/// Returns the start time from `/proc/PID/stat`: the 20th word after the program's name, which may contain spaces and parentheses.
fn start_time(stat: &str) -> Option<u64> {
    let (_, words) = stat.rsplit_once(')')?;
    words.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_recognised_by_its_number_its_start_and_the_boot() {
        let me = Process::with_id(std::process::id()).unwrap();
        assert_eq!(Process::parse(&me.to_string()), Some(me.clone()));
        assert!(me.exists());
        let earlier = Process { started: me.started - 1, ..me.clone() };
        let before_the_boot = Process { boot: "another".to_owned(), ..me };
        assert!(!earlier.exists() && !before_the_boot.exists());
        assert_eq!(Process::parse("4711"), None, "what the first version wrote");
    }

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        assert_eq!(start_time(stat), Some(12_345));
    }
}
