//! The identity that a process or a command uses to connect to a server.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::Error;
use crate::tls::{check_own, read_pem};

/// A login and a certificate. The files are read at each use, so that a renewed certificate needs no restart.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "client")]
pub struct Identity {
    /// Name to log in with.
    #[arg(long, env = "CANDLEFLIGHT_USER", value_name = "NAME", default_value = Identity::USER)]
    pub user: String,
    /// Password to log in with. A server accepts this login as an admin. Prefer the environment variable: other users of the machine can
    /// see the flag.
    #[arg(long, env = "CANDLEFLIGHT_PASSWORD", hide_env_values = true)]
    pub password: Option<Secret>,
    /// Token to log in with, instead of a password. If both are set, the token is used.
    #[arg(long, env = "CANDLEFLIGHT_TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,
    /// Certificates (PEM) of the authorities that sign trusted server certificates [default: the system's].
    #[arg(long, env = "CANDLEFLIGHT_TLS_CA", value_name = "FILE", value_parser = file)]
    pub tls_ca: Option<PathBuf>,
    /// Certificate (PEM, with the chain) of this process. Servers present it, and clients present it to servers that require one.
    #[arg(long, env = "CANDLEFLIGHT_TLS_CERT", value_name = "FILE", value_parser = file, requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) of the certificate.
    #[arg(long, env = "CANDLEFLIGHT_TLS_KEY", value_name = "FILE", value_parser = file, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// A certificate with its chain, and its private key, as PEM.
pub type PemIdentity = (Vec<u8>, Vec<u8>);

/// A secret text. Its debug output does not contain the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Identity {
    /// Default name to log in with.
    const USER: &'static str = "candleflight";

    /// Returns the `authorization` header for calls. Returns `None` if there is neither a password nor a token.
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

    /// Returns the name and the password. Returns `None` if the password is missing or empty.
    pub fn login(&self) -> Option<(&str, &Secret)> {
        let password = self.password.as_ref().filter(|password| !password.expose().is_empty())?;
        Some((&self.user, password))
    }

    /// Reads the authorities that sign trusted server certificates, as PEM. Returns `None` if the authorities of the system are trusted.
    ///
    /// # Errors
    ///
    /// [`Error::File`], [`Error::Pem`].
    pub fn authorities(&self) -> Result<Option<Vec<u8>>, Error> {
        named(self.tls_ca.as_deref()).map(|path| read_pem(path, "certificate", "--tls-ca")).transpose()
    }

    /// Reads the certificate and its key, as PEM. Returns `None` if no certificate is set.
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

/// Parses a path for clap and accepts an empty one, which clap's own parser rejects.
///
/// Compose files set a variable to the empty text if it has no value. [`named`] reads an empty path as none.
///
/// # Errors
///
/// None.
pub fn file(path: &str) -> Result<PathBuf, Infallible> {
    Ok(PathBuf::from(path))
}

/// Returns the path if it is not empty.
pub fn named(path: Option<&Path>) -> Option<&Path> {
    path.filter(|path| !path.as_os_str().is_empty())
}

impl Default for Identity {
    fn default() -> Self {
        Identity {
            user: Identity::USER.to_owned(),
            password: None,
            token: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
        }
    }
}

impl Secret {
    /// Returns the secret text.
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
