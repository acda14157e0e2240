//! Connections to PostgreSQL: the URL, TLS, and a pool of connections.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod};
use tokio_postgres::config::SslMode;
use tokio_postgres::{NoTls, Transaction};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::Error;

/// Longest wait for a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Idle time after which a connection is probed, and longest time that sent data may stay unacknowledged before the connection counts as
/// lost.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// Maximum number of connections: one writes, and one may still be finishing an abandoned transaction.
const CONNECTIONS_MAX: usize = 2;
/// Time limits after which the server ends a transaction if this process or its host is gone, so that a successor gets the locks. A limit
/// is set only if the operator left the default, which is hours. It applies to one transaction only: nothing stays in a session that a
/// pooler shares.
///
/// Between two statements gold encodes for milliseconds. A COPY that waits for data is not idle. In that case, the server's own probes
/// detect a lost client.
const SETTINGS: &str = "SELECT \
    CASE current_setting('idle_in_transaction_session_timeout') WHEN '0' \
        THEN set_config('idle_in_transaction_session_timeout', '15s', true) END, \
    CASE WHEN current_setting('tcp_keepalives_idle')::int > 10 THEN set_config('tcp_keepalives_idle', '10', true) END, \
    CASE WHEN current_setting('tcp_keepalives_interval')::int > 5 THEN set_config('tcp_keepalives_interval', '5', true) END, \
    CASE WHEN current_setting('tcp_keepalives_count')::int > 3 THEN set_config('tcp_keepalives_count', '3', true) END, \
    CASE current_setting('tcp_user_timeout', true) WHEN '0' THEN set_config('tcp_user_timeout', '30s', true) END";

/// Address of PostgreSQL, and how its connections are secured.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "postgres")]
pub struct Postgres {
    /// URL of PostgreSQL, where gold creates its tables. With `?sslmode=require`, connections are encrypted, and the certificate of the
    /// server must be valid for the host. verify-ca and verify-full have the same effect. In all other cases connections are not encrypted.
    #[arg(
        id = "postgres_url",
        long = "postgres",
        env = "CANDLEFLIGHT_POSTGRES",
        value_name = "URL",
        hide_env_values = true,
        default_value = "postgres://postgres:postgres@127.0.0.1:5432/crypto_db"
    )]
    pub url: PostgresUrl,
    /// Certificates (PEM) of the authorities to trust for PostgreSQL [default: those of the system]. Implies sslmode=require.
    #[arg(long = "postgres-ca", env = "CANDLEFLIGHT_POSTGRES_CA", value_parser = access::file, value_name = "FILE")]
    pub postgres_ca: Option<PathBuf>,
    /// Client certificate (PEM, with the chain), if PostgreSQL requires one.
    #[arg(
        long = "postgres-cert",
        env = "CANDLEFLIGHT_POSTGRES_CERT", value_parser = access::file,
        value_name = "FILE",
        requires = "postgres_key"
    )]
    pub postgres_cert: Option<PathBuf>,
    /// Private key (PEM) of the client certificate.
    #[arg(
        long = "postgres-key",
        env = "CANDLEFLIGHT_POSTGRES_KEY", value_parser = access::file,
        value_name = "FILE",
        requires = "postgres_cert"
    )]
    pub postgres_key: Option<PathBuf>,
}

/// PostgreSQL URL. Its password is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl(String);

impl Postgres {
    /// Creates a pool of connections and opens none yet.
    ///
    /// # Errors
    ///
    /// [`Error::PostgresUrl`]; [`Error::Access`] if a certificate file cannot be used.
    pub(crate) fn pool(&self) -> Result<Pool, Error> {
        let mut config = self.url.parse()?;
        config
            .connect_timeout(CONNECT_TIME_MAX)
            .keepalives_idle(KEEPALIVE_IDLE)
            .tcp_user_timeout(UNACKNOWLEDGED_MAX);
        if config.get_application_name().is_none() {
            config.application_name("candleflight gold");
        }
        let authorities = named(self.postgres_ca.as_deref(), "--postgres-ca");
        if authorities.is_some() && config.get_ssl_mode() == SslMode::Prefer {
            config.ssl_mode(SslMode::Require);
        }
        let options = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = if config.get_ssl_mode() == SslMode::Require {
            let certificate = named(self.postgres_cert.as_deref(), "--postgres-cert");
            let identity = certificate.zip(named(self.postgres_key.as_deref(), "--postgres-key"));
            let tls = MakeRustlsConnect::new(access::client_config(authorities, identity)?);
            Manager::from_config(config, tls, options)
        } else {
            Manager::from_config(config, NoTls, options)
        };
        let pool = Pool::builder(manager).max_size(CONNECTIONS_MAX).build();
        Ok(pool.expect("a pool without time-outs needs no runtime"))
    }
}

/// Pairs the path of a file with its flag. Returns `None` if there is no path.
fn named<'a>(path: Option<&'a Path>, flag: &'static str) -> Option<access::Named<'a>> {
    access::named(path).map(|path| (path, flag))
}

/// Takes a connection from the pool, or opens one if there is none.
///
/// # Errors
///
/// [`Error::Postgres`], [`Error::PostgresTls`] or [`Error::PostgresRefused`]. They are transient if PostgreSQL is unreachable or rejects
/// the log-in.
pub(crate) async fn connect(pool: &Pool) -> Result<Object, Error> {
    pool.get().await.map_err(|error| match error {
        PoolError::Backend(source) => Error::connect(source),
        PoolError::Timeout(_)
        | PoolError::Closed
        | PoolError::NoRuntimeSpecified
        | PoolError::PostCreateHook(_) => Error::PostgresTimeout { action: "connect" },
    })
}

/// Makes the server end `transaction` soon after this process or its host is gone.
///
/// # Errors
///
/// [`Error::Postgres`].
pub(crate) async fn end_with_us(transaction: &Transaction<'_>) -> Result<(), Error> {
    let set = transaction.query_typed(SETTINGS, &[]).await;
    set.map_err(Error::postgres("set the time limits of a transaction")).map(drop)
}

impl PostgresUrl {
    /// Parses the URL.
    ///
    /// # Errors
    ///
    /// [`Error::PostgresUrl`].
    pub fn parse(&self) -> Result<tokio_postgres::Config, Error> {
        // The parser accepts three modes only. Its `require` is verified in full here.
        let url = ["verify-full", "verify-ca"]
            .iter()
            .fold(self.0.clone(), |url, mode| url.replace(&format!("sslmode={mode}"), "sslmode=require"));
        url.parse().map_err(|_| Error::PostgresUrl)
    }
}

/// Accepts any text, since a clap error would print the URL with its password.
impl FromStr for PostgresUrl {
    type Err = Infallible;

    fn from_str(url: &str) -> Result<Self, Infallible> {
        Ok(PostgresUrl(url.to_owned()))
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgresUrl(…)")
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::SslMode;

    use super::PostgresUrl;

    fn check(parameters: &str, expected: Option<SslMode>) {
        let url: PostgresUrl = format!("postgres://me:secret@host/db{parameters}").parse().unwrap();
        assert_eq!(url.parse().ok().map(|config| config.get_ssl_mode()), expected, "{parameters}");
        assert!(!format!("{url:?}{:?}", url.parse()).contains("secret"));
    }

    #[test]
    fn every_mode_that_asks_for_tls_asks_for_it_verified() {
        for mode in ["require", "verify-ca", "verify-full"] {
            check(&format!("?sslmode={mode}"), Some(SslMode::Require));
            check(&format!("?connect_timeout=3&sslmode={mode}&options=x"), Some(SslMode::Require));
        }
        check("", Some(SslMode::Prefer));
        check("?sslmode=disable", Some(SslMode::Disable));
        check("?sslmode=perhaps", None);
        check("?sslrootcert=ca.pem", None);
    }
}
