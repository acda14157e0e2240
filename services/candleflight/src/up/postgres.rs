//! A private PostgreSQL cluster in the data folder, from the distribution's binaries, on the loopback interface, with durable commits.

mod programs;
mod roles;

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use self::roles::{DATABASE, PASSWORD, PASSWORD_FILE, SUPERUSER, Superuser, USER, superuser_password};
use super::child::{Child, Kind, is_root, run_to_end};
use super::process::runs;

/// User of the server if this process runs as root.
const SYSTEM_USER: &str = "postgres";
/// Folder of the cluster in the server's folder, and its name while initdb creates it.
const CLUSTER: &str = "cluster";
const UNFINISHED: &str = "cluster.unfinished";

pub(super) static POSTGRES: Kind = Kind {
    name: "PostgreSQL",
    // Fast shutdown: PostgreSQL ends its sessions and writes a checkpoint.
    stop_signal: "INT",
    // Immediate shutdown: all processes of PostgreSQL end at once, and the next start replays the log.
    death_signal: "QUIT",
    user: Some(SYSTEM_USER),
    variables: &[],
};

/// Starts the cluster in `folder` on `port`, and creates it at the first start. Returns the URL of the database once it answers.
pub(super) async fn start(folder: &Path, port: u16) -> anyhow::Result<(Child, String)> {
    own_folder(folder).await?;
    let password = superuser_password(folder)?;
    let cluster = folder.join(CLUSTER);
    if !cluster.exists() {
        init(folder).await.context("make a PostgreSQL cluster")?;
    }
    mend_lock(&cluster)?;
    let version = fs::read_to_string(cluster.join("PG_VERSION")).context("read the cluster's version")?;
    let major = version.trim().parse().context("read the cluster's version")?;
    let port_setting = format!("port={port}");
    let settings = [&*port_setting, "listen_addresses=127.0.0.1", "unix_socket_directories="];
    let arguments: Vec<&str> =
        ["-D", CLUSTER].into_iter().chain(settings.into_iter().flat_map(|setting| ["-c", setting])).collect();
    let program = programs::find(Some(major))?.join("postgres");
    let mut child = Child::start(&POSTGRES, folder, &program, &arguments, &[])?;
    let superuser = Superuser { port, password: &password };
    child.until_ready(async || superuser.prepare().await).await?;
    Ok((child, format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/{DATABASE}")))
}

/// Corrects the lock file of a server that is gone, if another program now has its process id. PostgreSQL would take that program for a
/// server.
///
/// PostgreSQL ignores the process id of its parent, which is this process. It still refuses to start while sessions of the old server
/// exist.
fn mend_lock(cluster: &Path) -> anyhow::Result<()> {
    let lock = cluster.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&lock) else { return Ok(()) };
    let Some((owner, rest)) = text.split_once('\n') else { return Ok(()) };
    if owner.trim().parse().is_ok_and(|id| runs(id, "postgres")) {
        return Ok(());
    }
    fs::write(&lock, format!("{}\n{rest}", std::process::id()))
        .with_context(|| format!("write {}", lock.display()))
}

/// Creates the folder for the user of the server. If this process runs as root, the server has a different user, because PostgreSQL refuses
/// to run as root.
async fn own_folder(folder: &Path) -> anyhow::Result<()> {
    let mut install = Command::new("install");
    install.args(["-d", "-m", "700"]);
    if is_root() {
        install.args(["-o", SYSTEM_USER, "-g", SYSTEM_USER]);
    }
    let output = install.arg(folder).output().await.context("run install")?;
    ensure!(
        output.status.success(),
        "create {}: {}",
        folder.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let test = [OsString::from("-w"), folder.into()];
    run_to_end(&POSTGRES, Path::new("/"), Path::new("/usr/bin/test"), &test).await.with_context(|| {
        format!(
            "PostgreSQL runs as user {SYSTEM_USER}, which cannot reach {}: choose another --data-dir",
            folder.display()
        )
    })
}

/// Creates the cluster under a temporary name and then renames it, so a folder called [`CLUSTER`] is always complete.
async fn init(folder: &Path) -> anyhow::Result<()> {
    let unfinished = folder.join(UNFINISHED);
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    let authentication = ["-U", SUPERUSER, "-A", "scram-sha-256", "--pwfile", PASSWORD_FILE];
    let place = ["-E", "UTF8", "--locale=C.UTF-8", "-D", UNFINISHED];
    let initdb = programs::find(None)?.join("initdb");
    run_to_end(&POSTGRES, folder, &initdb, &[authentication.as_slice(), &place].concat()).await?;
    fs::rename(&unfinished, folder.join(CLUSTER))?;
    Ok(())
}
