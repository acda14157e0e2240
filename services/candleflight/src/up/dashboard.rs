//! The dashboard: Apache Superset beside the pipeline, which needs neither its success nor its presence.

use std::convert::Infallible;
use std::fs;
use std::future::pending;
use std::path::Path;

use anyhow::Context as _;
use service::http;
use tokio::time::Instant;
use url::Url;

use super::child::{Child, Kind, end_stale};
use super::folder::Folder;
use super::screen::Screen;

/// Where the dashboard is, if the port is free.
const ADDRESS: &str = "127.0.0.1:8088";
/// Its page.
const PAGE: &str = "superset/dashboard/candleflight/";
/// Where Superset keeps what it knows of itself: a database beside gold's.
const METADATA_DATABASE: &str = "superset";

static SUPERSET: Kind = Kind {
    name: "Superset",
    // Ends its workers within five seconds.
    stop_signal: "TERM",
    death_signal: "TERM",
    user: None,
};

/// A Superset that is being prepared, or serves.
pub(super) struct Dashboard {
    child: Option<Child>,
    address: String,
    begun: Instant,
}

impl Dashboard {
    /// Starts `program`, which installs and prepares what is missing and then serves on `SUPERSET_LISTEN`; that takes seconds, or at
    /// the first time minutes, and is waited for by [`Dashboard::watch`]. Without a program there is none.
    pub(super) async fn start(
        program: Option<&Path>,
        postgres: &str,
        postgres_ca: Option<&str>,
        folder: &mut Folder,
    ) -> anyhow::Result<Dashboard> {
        let home = folder.join("superset");
        end_stale(&SUPERSET, &home).await?;
        let address = folder.choose_address("dashboard", ADDRESS)?.to_string();
        let mut dashboard = Dashboard { child: None, address, begun: Instant::now() };
        let Some(program) = program else { return Ok(dashboard) };
        fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
        let home_text = home.display().to_string();
        let metadata_url = metadata_url(postgres)?;
        let mut variables = vec![
            ("SUPERSET_LISTEN", dashboard.address.as_str()),
            ("SUPERSET_HOME", &*home_text),
            ("SUPERSET_DATABASE_URL", &*metadata_url),
            ("CANDLEFLIGHT_POSTGRES", postgres),
        ];
        // PostgreSQL's own client library reads these.
        let tls = postgres_ca.map(|file| [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", file)]);
        variables.extend(tls.into_iter().flatten());
        // The folder on the command line is how a later start knows the process.
        dashboard.child = Some(Child::start(&SUPERSET, &home, program, &[&home], &variables)?);
        Ok(dashboard)
    }

    /// Returns where the dashboard is and how to get in, for people.
    pub(super) fn describe(&self) -> String {
        match &self.child {
            Some(_) => format!("http://{}/{PAGE}   user admin, password admin; being prepared", self.address),
            None => "none (script/up starts one)".to_owned(),
        }
    }

    /// Says when it is ready, and if it ends, which the pipeline goes on without; never returns.
    pub(super) async fn watch(&mut self, screen: &Screen) -> Infallible {
        let Some(child) = &mut self.child else { return pending().await };
        let address = &self.address;
        let error = tokio::select! {
            error = child.unexpected_end() => error,
            () = until_healthy(address) => {
                let seconds = self.begun.elapsed().as_secs_f64();
                screen.line(format_args!("dashboard ready after {seconds:.0} s: http://{address}/{PAGE} (admin, admin)"));
                child.unexpected_end().await
            }
        };
        screen.line(format_args!("no dashboard: {error:#}\nthe pipeline goes on without it"));
        pending().await
    }

    /// Asks it to end and waits for it.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        match self.child {
            Some(child) => child.stop().await,
            None => Ok(()),
        }
    }
}

/// Waits for as long as the first installation may take.
async fn until_healthy(address: &str) {
    let mut looks = tokio::time::interval(super::child::HEALTH_INTERVAL);
    loop {
        looks.tick().await;
        if http::get(address, "/health", &access::Client::default())
            .await
            .is_ok_and(|(status, _)| status == 200)
        {
            return;
        }
    }
}

/// Names the metadata database on gold's server, as `SQLAlchemy` writes it.
fn metadata_url(postgres: &str) -> anyhow::Result<String> {
    // Its text is not shown: it holds the password.
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
            "postgresql+psycopg2://me:p%40ss@db:5433/superset?sslmode=require"
        );
        assert!(metadata_url("host=db password=secret").is_err());
    }
}
