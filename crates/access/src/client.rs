//! The identity with which a process, or a person's command, goes to a server.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::Error;
use crate::tls::{check_own, read_pem};

/// A login and a certificate. The files are read when they are used, so that a renewed certificate needs no restart.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "client")]
pub struct Client {
    /// Name to log in with.
    #[arg(long, env = "CANDLEFLIGHT_USER", value_name = "NAME", default_value = Client::USER)]
    pub user: String,
    /// Password to log in with; a server takes this login, too, as an admin. Better set by the variable, which other users of the machine do
    /// not see.
    #[arg(long, env = "CANDLEFLIGHT_PASSWORD", hide_env_values = true)]
    pub password: Option<Secret>,
    /// A user's token to log in with; goes before a password.
    #[arg(long, env = "CANDLEFLIGHT_TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,
    /// Certificates (PEM) of the authorities that servers are trusted by [default: the system's].
    #[arg(long, env = "CANDLEFLIGHT_TLS_CA", value_name = "FILE", value_parser = file)]
    pub tls_ca: Option<PathBuf>,
    /// Certificate (PEM, with the chain) that a server shows, and a client to servers that ask for one.
    #[arg(long, env = "CANDLEFLIGHT_TLS_CERT", value_name = "FILE", value_parser = file, requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, env = "CANDLEFLIGHT_TLS_KEY", value_name = "FILE", value_parser = file, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// A certificate with its chain, and its private key, as PEM.
pub type PemIdentity = (Vec<u8>, Vec<u8>);

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Client {
    /// Name of the login where none is set.
    const USER: &'static str = "candleflight";

    /// Returns the `authorization` header of its calls; `None` where it has no password or token.
    pub fn authorization(&self) -> Option<HeaderValue> {
        let text = match (&self.token, self.login()) {
            (Some(token), _) => format!("Bearer {}", token.expose()),
            (None, Some((user, password))) => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.expose())))
            }
            (None, None) => return None,
        };
        let mut header = HeaderValue::try_from(text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    /// Returns name and password, if it has one; an empty password is none.
    pub fn login(&self) -> Option<(&str, &Secret)> {
        let password = self.password.as_ref().filter(|password| !password.expose().is_empty())?;
        Some((&self.user, password))
    }

    /// Reads the authorities that servers are trusted by, as PEM; `None` for the system's.
    ///
    /// # Errors
    ///
    /// [`Error::File`], [`Error::Pem`].
    pub fn authorities(&self) -> Result<Option<Vec<u8>>, Error> {
        named(self.tls_ca.as_deref()).map(|path| read_pem(path, "certificate", "--tls-ca")).transpose()
    }

    /// Reads its certificate and its key, as PEM.
    ///
    /// # Errors
    ///
    /// [`Error::File`], [`Error::Pem`], [`Error::Authority`].
    pub fn identity(&self) -> Result<Option<PemIdentity>, Error> {
        let Some((path, key)) = self.identity_files() else { return Ok(None) };
        let certificate = read_pem(path, "certificate", "--tls-cert")?;
        check_own(&certificate, (path, "--tls-cert"))?;
        Ok(Some((certificate, read_pem(key, "private key", "--tls-key")?)))
    }

    pub(crate) fn identity_files(&self) -> Option<(&Path, &Path)> {
        named(self.tls_cert.as_deref()).zip(named(self.tls_key.as_deref()))
    }
}

/// Takes any path for clap, whose own parser refuses an empty one: as compose files write variables, that is none.
///
/// # Errors
///
/// None.
pub fn file(path: &str) -> Result<PathBuf, Infallible> {
    Ok(PathBuf::from(path))
}

/// Returns a path that is not empty.
pub fn named(path: Option<&Path>) -> Option<&Path> {
    path.filter(|path| !path.as_os_str().is_empty())
}

impl Default for Client {
    fn default() -> Self {
        Client {
            user: Client::USER.to_owned(),
            password: None,
            token: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
        }
    }
}

impl Secret {
    /// Returns the text, for the one who needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Secret(text)
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Secret(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
