//! Data folder of one `candleflight up`. It is locked and contains the chosen ports.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::child::is_root;

/// File with the chosen ports, so that an address printed by an earlier run stays valid.
const PORTS: &str = "ports.json";

/// A data folder that this process uses exclusively until this value is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    ports: BTreeMap<String, u16>,
    _lock: File,
}

impl Folder {
    /// Creates the folder if it does not exist, and locks it.
    pub(super) fn open(path: &Path) -> anyhow::Result<Folder> {
        fs::create_dir_all(path)
            .with_context(|| format!("create the data folder {} (--data-dir)", path.display()))?;
        let path = path.canonicalize()?;
        let lock = File::create(path.join("lock"))
            .with_context(|| format!("write to the data folder {} (--data-dir)", path.display()))?;
        match lock.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "another candleflight runs on {}: stop it, or choose another --data-dir",
                    path.display()
                )
            }
            Err(TryLockError::Error(error)) => return Err(error).context(format!("lock {}", path.display())),
        }
        let ports = fs::read(path.join(PORTS)).unwrap_or_default();
        // If the file is unreadable, new ports are chosen.
        Ok(Folder { ports: serde_json::from_slice(&ports).unwrap_or_default(), path, _lock: lock })
    }

    /// Returns the path of `name` in the folder.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Returns a loopback port for `server`: the one of the last run, otherwise `preferred`, otherwise a free one.
    pub(super) fn choose_port(&mut self, server: &str, preferred: u16) -> anyhow::Result<u16> {
        let remembered = self.ports.get(server).copied();
        let taken = |port| self.ports.iter().any(|(other, theirs)| other != server && *theirs == port);
        let candidates = remembered.into_iter().chain([preferred]).filter(|port| !taken(*port)).chain([0]);
        let port = candidates.into_iter().find_map(free_port).context("no free port on 127.0.0.1")?;
        if self.ports.insert(server.to_owned(), port) != Some(port) {
            fs::write(self.join(PORTS), serde_json::to_vec_pretty(&self.ports)?)?;
        }
        Ok(port)
    }

    /// Returns an address for `server` in the same way as [`Folder::choose_port`]. `preferred` is also an address.
    pub(super) fn choose_address(&mut self, server: &str, preferred: &str) -> anyhow::Result<SocketAddr> {
        let preferred: SocketAddr = preferred.parse()?;
        Ok(SocketAddr::new(preferred.ip(), self.choose_port(server, preferred.port())?))
    }
}

/// Returns the default data folder. Root's folder is in /var/lib, because PostgreSQL's user must reach it. The folder of other users is in
/// their home.
pub(super) fn default_path() -> anyhow::Result<PathBuf> {
    if is_root() {
        return Ok(PathBuf::from("/var/lib/candleflight"));
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let data = data.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share")));
    Ok(data.context("neither HOME nor XDG_DATA_HOME is set: choose a --data-dir")?.join("candleflight"))
}

/// Returns `port`, or a free port for 0, if the process can listen on it.
fn free_port(port: u16) -> Option<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    Some(listener.local_addr().ok()?.port())
}
