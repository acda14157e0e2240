//! The dashboard: Apache Superset beside the pipeline. The pipeline does not depend on it.

use std::convert::Infallible;
use std::fs;
use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;

use access::Secret;
use anyhow::{Context as _, bail};
use service::http;
use tokio::time::Instant;
use url::Url;

use super::child::{Child, Kind};
use super::folder::Folder;
use super::screen::Screen;

/// Address of the dashboard if the port is free.
const ADDRESS: &str = "127.0.0.1:8088";
/// Path of its page.
const PAGE: &str = "superset/dashboard/candleflight/";
/// Database of Superset's metadata, on gold's server. No other Superset uses this name.
pub(super) const METADATA_DATABASE: &str = "candleflight_superset";
/// The published log-in. The README contains both values.
const USER: &str = "admin";
const PASSWORD: &str = "admin";

pub(super) static SUPERSET: Kind = Kind {
    name: "Superset",
    // The server ends its workers within five seconds.
    stop_signal: "TERM",
    death_signal: "TERM",
    user: None,
    variables: &[],
};

/// Flags of the dashboard.
#[derive(clap::Args)]
#[group(id = "dashboard_flags")]
pub(crate) struct Args {
    /// Program that installs, prepares and serves the dashboard [script/up sets it].
    #[arg(long, env = "CANDLEFLIGHT_DASHBOARD", value_name = "PROGRAM")]
    dashboard: Option<PathBuf>,
    /// Do not start the dashboard.
    #[arg(long)]
    no_dashboard: bool,
    /// Address of the dashboard [default: 127.0.0.1:8088, or a free port].
    #[arg(long, env = "CANDLEFLIGHT_DASHBOARD_ADDR", value_name = "ADDRESS")]
    dashboard_addr: Option<SocketAddr>,
    /// Password of the dashboard's user admin [default: admin, on loopback only]. Prefer the variable: other users of the machine can read
    /// flags, but not variables.
    #[arg(long, env = "CANDLEFLIGHT_DASHBOARD_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    dashboard_password: Option<Secret>,
}

impl Args {
    /// Checks that the published password is not used on an address that other machines can reach.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let address = self.dashboard_addr.filter(|address| !address.ip().to_canonical().is_loopback());
        match address {
            Some(address) if self.password() == PASSWORD => bail!(
                "--dashboard-addr {address} can be reached from outside, but the dashboard's password is the published one, {PASSWORD}: \
                 set CANDLEFLIGHT_DASHBOARD_PASSWORD, or listen on 127.0.0.1"
            ),
            _ => Ok(()),
        }
    }

    fn password(&self) -> &str {
        let chosen = self.dashboard_password.as_ref().map(Secret::expose);
        chosen.filter(|password| !password.is_empty()).unwrap_or(PASSWORD)
    }
}

/// A Superset that prepares itself or serves.
pub(super) struct Dashboard {
    child: Option<Child>,
    address: String,
    /// Log-in to print for people.
    log_in: String,
    begun: Instant,
}

impl Dashboard {
    /// Starts the program, which installs and prepares the missing parts and then serves on `SUPERSET_LISTEN`. This takes seconds, or
    /// minutes at the first start, and [`Dashboard::watch`] waits for its end. Without a program, there is no dashboard.
    pub(super) fn start(
        args: &Args,
        postgres: &str,
        postgres_ca: Option<&str>,
        folder: &mut Folder,
    ) -> anyhow::Result<Dashboard> {
        let home = home(folder);
        let address = match args.dashboard_addr {
            Some(address) => address,
            None => folder.choose_address("dashboard", ADDRESS)?,
        };
        let password = args.password();
        let shown = if password == PASSWORD { PASSWORD } else { "as set" };
        let log_in = format!("user {USER}, password {shown}");
        let mut dashboard =
            Dashboard { child: None, address: address.to_string(), log_in, begun: Instant::now() };
        let Some(program) = args.dashboard.as_deref().filter(|_| !args.no_dashboard) else {
            return Ok(dashboard);
        };
        // A program without a folder stays as it is, so that it is found on the PATH.
        let program = program.canonicalize().unwrap_or_else(|_| program.to_owned());
        fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
        let home_text = home.display().to_string();
        let metadata_url = metadata_url(postgres)?;
        let mut variables = vec![
            ("SUPERSET_LISTEN", dashboard.address.as_str()),
            ("SUPERSET_HOME", &*home_text),
            ("SUPERSET_DATABASE_URL", &*metadata_url),
            ("CANDLEFLIGHT_POSTGRES", postgres),
            ("SUPERSET_ADMIN_USER", USER),
            ("SUPERSET_ADMIN_PASSWORD", password),
        ];
        // PostgreSQL's client library reads these variables.
        let tls = postgres_ca.map(|file| [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", file)]);
        variables.extend(tls.into_iter().flatten());
        dashboard.child = Some(Child::start::<&str>(&SUPERSET, &home, &program, &[], &variables)?);
        Ok(dashboard)
    }

    /// Returns the address of the dashboard and the log-in, for people.
    pub(super) fn describe(&self) -> String {
        match &self.child {
            Some(_) => format!("http://{}/{PAGE}   {}; being prepared", self.address, self.log_in),
            None => "none (script/up starts one)".to_owned(),
        }
    }

    /// Reports when the dashboard is ready or has ended. Never returns. The pipeline continues if the dashboard has ended.
    pub(super) async fn watch(&mut self, screen: &Screen) -> Infallible {
        let Some(child) = &mut self.child else { return pending().await };
        let (address, log_in) = (&self.address, &self.log_in);
        let error = tokio::select! {
            error = child.unexpected_end() => error,
            () = until_healthy(address) => {
                let seconds = self.begun.elapsed().as_secs_f64();
                screen.line(format_args!("dashboard ready after {seconds:.0} s: http://{address}/{PAGE} ({log_in})"));
                child.unexpected_end().await
            }
        };
        screen.line(format_args!("no dashboard: {error:#}\nthe pipeline continues without it"));
        pending().await
    }

    /// Returns the path of the dashboard's log, if there is a dashboard.
    pub(super) fn log_file(&self) -> Option<PathBuf> {
        self.child.as_ref().map(Child::log_file)
    }

    /// Stops the program and waits for it to end.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        match self.child {
            Some(child) => child.stop().await,
            None => Ok(()),
        }
    }
}

/// Returns Superset's folder.
pub(super) fn home(folder: &Folder) -> PathBuf {
    folder.join("superset")
}

/// Waits at most as long as the first installation may take.
async fn until_healthy(address: &str) {
    let mut looks = tokio::time::interval(super::child::HEALTH_INTERVAL);
    loop {
        looks.tick().await;
        if http::get(address, "/health", &access::Identity::default())
            .await
            .is_ok_and(|(status, _)| status == 200)
        {
            return;
        }
    }
}

/// Returns the URL of the metadata database on gold's server, in `SQLAlchemy`'s form.
fn metadata_url(postgres: &str) -> anyhow::Result<String> {
    // The error does not show the URL, since it contains the password.
    let mut url = Url::parse(postgres).ok().context("read the URL of PostgreSQL, for Superset")?;
    url.set_path(METADATA_DATABASE);
    let (_, rest) = url.as_str().split_once("://").context("a URL of PostgreSQL begins with postgres://")?;
    Ok(format!("postgresql+psycopg2://{rest}"))
}

#[cfg(test)]
mod tests {
    use super::metadata_url;

    #[test]
    fn superset_has_a_database_beside_golds() {
        assert_eq!(
            metadata_url("postgres://me:p%40ss@db:5433/crypto_db?sslmode=require").unwrap(),
            "postgresql+psycopg2://me:p%40ss@db:5433/candleflight_superset?sslmode=require"
        );
        assert!(metadata_url("host=db password=secret").is_err());
    }
}
