//! A private PostgreSQL cluster from the distribution's binaries, on the loopback interface, durable, in our folder.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tokio::process::Command;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

use super::child::{Child, Kind, is_root, run_to_end};

/// The superuser and its password, those of the pipeline that this one replaces; nobody outside the machine can connect.
const USER: &str = "postgres";
const PASSWORD: &str = "postgres";
/// The database of gold.
const DATABASE: &str = "crypto_db";
/// Where Debian, Red Hat and Homebrew-like layouts keep the binaries of each major version.
const VERSIONED: &str = "/usr/lib/postgresql";

pub(super) static POSTGRES: Kind = Kind {
    name: "PostgreSQL",
    // The fast shutdown: ends sessions, writes a checkpoint.
    stop_signal: "INT",
    // The immediate one: all its processes are gone at once, the log is replayed at the next start.
    death_signal: "QUIT",
    user: Some("postgres"),
};

/// Starts the cluster in `folder`, made at the first start, on `port`; returns once the database answers, with its URL.
pub(super) async fn start(folder: &Path, port: u16) -> anyhow::Result<(Child, String)> {
    own_folder(folder).await?;
    let cluster = folder.join("cluster");
    if !cluster.exists() {
        init(folder, &cluster).await.context("make a PostgreSQL cluster")?;
    }
    let major = fs::read_to_string(cluster.join("PG_VERSION")).context("read the cluster's version")?;
    let setting = |setting: String| [OsString::from("-c"), OsString::from(setting)];
    let mut arguments = vec![OsString::from("-D"), cluster.into_os_string()];
    arguments.extend(setting(format!("port={port}")));
    arguments.extend(setting("listen_addresses=127.0.0.1".to_owned()));
    arguments.extend(setting("unix_socket_directories=".to_owned()));
    let program = binaries(Some(major.trim()))?.join("postgres");
    let mut child = Child::start(&POSTGRES, folder, &program, &arguments, &[])?;
    child.until_ready(async || database_answers(port).await).await?;
    Ok((child, format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/{DATABASE}")))
}

/// Makes the folder the server user's own; as root that is not us, since PostgreSQL refuses root.
async fn own_folder(folder: &Path) -> anyhow::Result<()> {
    let mut install = Command::new("install");
    install.args(["-d", "-m", "700"]);
    if is_root() {
        install.args(["-o", USER, "-g", USER]);
    }
    let output = install.arg(folder).output().await.context("run install")?;
    ensure!(
        output.status.success(),
        "create {}: {}",
        folder.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let test = [OsString::from("-w"), folder.into()];
    run_to_end(&POSTGRES, Path::new("/usr/bin/test"), &test).await.with_context(|| {
        format!(
            "user {USER}, which PostgreSQL runs as, cannot reach {}: choose another --data-dir",
            folder.display()
        )
    })
}

/// Makes the cluster beside its place and then renames it: a folder called `cluster` is complete.
async fn init(folder: &Path, cluster: &Path) -> anyhow::Result<()> {
    let unfinished = folder.join("cluster.unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    // Readable for the server's user by its place alone: the folder is closed to everyone else.
    let password = folder.join("password");
    fs::write(&password, PASSWORD)?;
    let options = ["-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--pwfile"];
    let mut arguments: Vec<OsString> = options.map(OsString::from).into();
    arguments.extend([password.into(), "-D".into(), unfinished.clone().into()]);
    run_to_end(&POSTGRES, &binaries(None)?.join("initdb"), &arguments).await?;
    fs::rename(&unfinished, cluster)?;
    Ok(())
}

/// Finds the programs of the major version, or of the newest.
fn binaries(major: Option<&str>) -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir(VERSIONED).into_iter().flatten().flatten().filter_map(|entry| {
        let version = entry.file_name().into_string().ok()?;
        let is_wanted =
            major.is_none_or(|major| major == version) && entry.path().join("bin/initdb").exists();
        is_wanted.then_some((version.parse::<u32>().ok()?, entry.path().join("bin")))
    });
    versions.max().map(|(_, folder)| folder).with_context(|| {
        let version = major.map(|major| format!(" {major}, which made the cluster,")).unwrap_or_default();
        format!("no PostgreSQL{version} below {VERSIONED}: install it (script/setup does), or name a server with --postgres URL")
    })
}

/// Connects and creates the database if it is missing; false while the server starts.
async fn database_answers(port: u16) -> anyhow::Result<bool> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user(USER).password(PASSWORD).dbname("postgres");
    let (client, connection) = match config.connect(NoTls).await {
        Ok(connected) => connected,
        Err(error) if error.code().is_none_or(|code| *code == SqlState::CANNOT_CONNECT_NOW) => {
            return Ok(false);
        }
        Err(error) => return Err(error).context("connect to the private PostgreSQL"),
    };
    let create = async {
        let found = client.query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&DATABASE]).await?;
        if found.is_none() {
            client.batch_execute(&format!("CREATE DATABASE {DATABASE}")).await?;
        }
        drop(client);
        Ok::<(), tokio_postgres::Error>(())
    };
    let (created, connected) = tokio::join!(create, connection);
    created.context("create the database")?;
    connected.context("talk to the private PostgreSQL")?;
    Ok(true)
}
