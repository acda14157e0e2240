//! A private PostgreSQL cluster from the distribution's binaries, on the loopback interface, durable, in our folder.

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

/// The user that the server runs as where we are root.
const SYSTEM_USER: &str = "postgres";
/// The cluster, below the server's folder; and while it is being made.
const CLUSTER: &str = "cluster";
const UNFINISHED: &str = "cluster.unfinished";

pub(super) static POSTGRES: Kind = Kind {
    name: "PostgreSQL",
    // The fast shutdown: ends sessions, writes a checkpoint.
    stop_signal: "INT",
    // The immediate one: all its processes are gone at once, the log is replayed at the next start.
    death_signal: "QUIT",
    user: Some(SYSTEM_USER),
    variables: &[],
};

/// Starts the cluster in `folder`, made at the first start, on `port`; returns once the database answers, with its URL.
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

/// Mends the lock of a server that is gone and whose number another program has now, which PostgreSQL would take for a server.
///
/// It ignores our own number, since we are its parent. It then still refuses to start while sessions of the old server exist.
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

/// Makes the folder the server user's own; as root that is not us, since PostgreSQL refuses root.
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
            "user {SYSTEM_USER}, which PostgreSQL runs as, cannot reach {}: choose another --data-dir",
            folder.display()
        )
    })
}

/// Makes the cluster beside its place and then renames it: a folder called [`CLUSTER`] is complete.
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
