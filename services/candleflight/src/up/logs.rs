//! Logs of bounded size. A log that has grown large is moved to a second file, which replaces the previous one.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::interval;

/// Size at which a log is moved, in bytes. With the second file, a log takes twice this size.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// Pause between two checks of the servers' logs. A log exceeds its bound by the amount that a server writes in this time.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Log of this process.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Log {
    /// Opens the log to append to it.
    pub(super) fn open(path: &Path) -> io::Result<Log> {
        let file = append(path)?;
        Ok(Log { bytes: file.metadata()?.len(), path: path.to_owned(), file })
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes >= LOG_BYTES_MAX {
            fs::rename(&self.path, aside(&self.path))?;
            *self = Log::open(&self.path)?;
        }
        let written = self.file.write(line)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Starts a new log for a server, and keeps the log of its last run in the second file.
pub(super) fn begin(path: &Path) -> io::Result<File> {
    match fs::rename(path, aside(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => append(path),
    }
}

/// Keeps the logs of running servers within their bound. Never returns.
pub(super) async fn keep_bounded(servers: &[PathBuf]) -> Infallible {
    let mut checks = interval(CHECK_INTERVAL);
    loop {
        checks.tick().await;
        for log in servers {
            if let Err(error) = bound(log, LOG_BYTES_MAX) {
                tracing::warn!(log = %log.display(), %error, "cannot move the log to its second file");
            }
        }
    }
}

/// Copies a large log to its second file and empties it. The server has the log open for appending and continues at the start of the empty
/// log. A line that the server writes between the two steps is lost.
fn bound(log: &Path, bytes_max: u64) -> io::Result<()> {
    if log.metadata().is_ok_and(|metadata| metadata.len() >= bytes_max) {
        fs::copy(log, aside(log))?;
        File::options().write(true).open(log)?.set_len(0)?;
    }
    Ok(())
}

fn append(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

fn aside(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_log_is_set_aside_while_its_writer_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut server = begin(&path).unwrap();
        server.write_all(b"first\n").unwrap();
        bound(&path, 100).unwrap();
        assert!(!aside(&path).exists(), "a small log stays");
        bound(&path, 6).unwrap();
        server.write_all(b"second\n").unwrap();
        assert_eq!(fs::read(aside(&path)).unwrap(), b"first\n");
        assert_eq!(fs::read(&path).unwrap(), b"second\n");

        begin(&path).unwrap();
        assert_eq!(fs::read(aside(&path)).unwrap(), b"second\n", "the log of the last run is kept");
    }

    #[test]
    fn our_log_goes_on_in_a_new_file_once_it_is_large() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("candleflight.log");
        File::create(&path).unwrap().set_len(LOG_BYTES_MAX - 1).unwrap();
        let mut log = Log::open(&path).unwrap();
        log.write_all(b"last\n").unwrap();
        log.write_all(b"new\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new\n");
        assert_eq!(fs::metadata(aside(&path)).unwrap().len(), LOG_BYTES_MAX + 4);
    }
}
