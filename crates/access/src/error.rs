//! Why a process cannot say, or ask, who is there.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why access could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address other than loopback, and nothing is asked of those who connect.
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
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The users file is not of the expected shape.
    #[error("read the users in {}", path.display())]
    Users {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// A user, a role or a password that cannot be.
    #[error("{0}")]
    User(String),
    /// A file does not hold what its flag asks for.
    #[error("{} holds no {what} ({flag})", path.display())]
    Pem {
        /// What was expected.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The flag that names it.
        flag: &'static str,
    },
    /// The certificate is an authority's, which is what `openssl req -x509` makes unless told otherwise.
    #[error(
        "{} ({flag}) is the certificate of an authority (CA:TRUE), which clients refuse as a server's own; make one with: openssl req \
         -x509 -newkey rsa:2048 -nodes -days 365 -keyout key.pem -out certificate.pem -subj /CN=HOST -addext subjectAltName=DNS:HOST \
         -addext basicConstraints=critical,CA:FALSE", path.display()
    )]
    Authority {
        /// The certificate.
        path: PathBuf,
        /// The flag that names it.
        flag: &'static str,
    },
    /// Certificate, key and authorities do not go together.
    #[error("use the certificate {} with its key", path.display())]
    Tls {
        /// The certificate.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// The authorities of --tls-client-ca cannot be used.
    #[error("use the authorities of --tls-client-ca")]
    ClientAuthorities(#[source] rustls::server::VerifierBuilderError),
}

impl Error {
    pub(crate) fn file(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { action, path, source }
    }
}
