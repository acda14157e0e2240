//! Errors of reading and writing the files of authentication.

use std::net::SocketAddr;
use std::path::PathBuf;

/// An error in the configuration of authentication.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Other machines can reach the address, and callers need not authenticate.
    #[error(
        "{address} can be reached from outside, but no password is set: set CANDLEFLIGHT_PASSWORD or --users FILE (or --tls-client-ca FILE), or listen on 127.0.0.1"
    )]
    Unguarded {
        /// The address.
        address: SocketAddr,
    },
    /// A file cannot be read or written.
    #[error("{action} {}", path.display())]
    File {
        /// The action that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The users file does not have the expected form.
    #[error("read the users in {}", path.display())]
    Users {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A user, token or password is unknown or invalid.
    #[error("{0}")]
    User(String),
    /// A file does not contain what its flag requires.
    #[error("{} contains no {what} ({flag})", path.display())]
    Pem {
        /// The expected content.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The flag that sets it.
        flag: &'static str,
    },
    /// The certificate is that of an authority: `openssl req -x509` creates one by default.
    #[error(
        "{} ({flag}) is the certificate of an authority (CA:TRUE), which clients reject as the certificate of a server; create one with: openssl req \
         -x509 -newkey rsa:2048 -nodes -days 365 -keyout key.pem -out certificate.pem -subj /CN=HOST -addext subjectAltName=DNS:HOST \
         -addext basicConstraints=critical,CA:FALSE", path.display()
    )]
    Authority {
        /// The certificate.
        path: PathBuf,
        /// The flag that sets it.
        flag: &'static str,
    },
    /// The certificate and its key cannot be used together.
    #[error("use the certificate {} with its key", path.display())]
    Tls {
        /// The certificate.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
    /// The authorities of `--tls-client-ca` cannot be used.
    #[error("use the authorities of --tls-client-ca")]
    ClientAuthorities(#[source] rustls::server::VerifierBuilderError),
}

impl Error {
    pub(crate) fn file(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { action, path, source }
    }
}
