//! A process as no other one ever is: its number, when it started, and in which life of the machine.

use std::fmt::{self, Display};
use std::fs;
use std::path::Path;

/// A process that was seen. Numbers are used again, also for the kernel's own threads; the three together are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// Its number.
    pub(super) id: u32,
    /// When it started, in the kernel's ticks since the boot.
    started: u64,
    /// The boot's random id.
    boot: String,
}

impl Process {
    /// Reads the process that has this number now.
    pub(super) fn with_id(id: u32) -> Option<Process> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        Some(Process { id, started: start_time(&stat)?, boot })
    }

    /// Reads what [`Process::to_string`] has written.
    pub(super) fn parse(text: &str) -> Option<Process> {
        let mut words = text.split_whitespace();
        let (id, started, boot) = (words.next()?, words.next()?, words.next()?);
        Some(Process { id: id.parse().ok()?, started: started.parse().ok()?, boot: boot.to_owned() })
    }

    /// Returns true if it still exists, or has ended and its parent has yet to collect it.
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

/// Returns true if the process has `folder` on its command line: how the first version recognised its servers.
pub(super) fn names_folder(id: u32, folder: &Path) -> bool {
    fs::read(format!("/proc/{id}/cmdline"))
        .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&*folder.to_string_lossy()))
}

/// Reads the start time from `/proc/PID/stat`: the 20th word after the program's name, which may hold spaces and parentheses.
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
