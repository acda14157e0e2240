//! Who may connect, and how it is proved: certificates, users with roles, passwords, tokens. The only crate that knows a secret.
//!
//! A process has one identity: the login and the certificate with which it goes to others, and which others meet when they come. What
//! it asks of those who come is in [`Args`]. With nothing set, everyone may do everything, and only loopback is listened on.

mod client;
mod tls;

mod guard;
mod role;

mod attempts;
mod password;
mod token;
pub mod users;

mod error;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

pub use crate::client::{Client, PemIdentity, Secret, file, named};
pub use crate::error::Error;
pub use crate::guard::{Admitted, Caller, Denied, Guard};
pub use crate::role::Role;
pub use crate::tls::{Named, ServerTls, client_config, install_provider};

/// How a process shows who it is, and what it asks of those who connect to it.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(id = "access")]
#[command(next_help_heading = "Access")]
pub struct Args {
    /// Its own identity.
    #[command(flatten)]
    pub client: Client,
    /// File of users with their roles and hashed passwords, which `candleflight users` writes; read again when it changes.
    #[arg(long, env = "CANDLEFLIGHT_USERS", value_name = "FILE", value_parser = file)]
    pub users: Option<PathBuf>,
    /// File of the key that signs bearer tokens, made where it is missing; without it, tokens end with the process.
    #[arg(long, env = "CANDLEFLIGHT_TOKEN_KEY", value_name = "FILE", value_parser = file)]
    pub token_key: Option<PathBuf>,
    /// Certificates (PEM) of the authorities whose clients may connect; all others are turned away (mTLS).
    #[arg(long, env = "CANDLEFLIGHT_TLS_CLIENT_CA", value_name = "FILE", value_parser = file, requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
}

/// What a process asks of those who connect, and its own identity: read and checked.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The identity with which it connects to others.
    pub client: Client,
    /// Tells who calls.
    pub guard: Arc<Guard>,
    /// The certificate that callers meet; without it, connections are not encrypted.
    pub tls: Option<Arc<ServerTls>>,
}

impl Access {
    /// Reads the files that `args` name.
    ///
    /// # Errors
    ///
    /// [`Error`]: a file is missing or is not what it should be.
    pub fn open(args: &Args) -> Result<Access, Error> {
        let client = args.client.clone();
        let tls = ServerTls::open(&client, named(args.tls_client_ca.as_deref()))?;
        Ok(Access { guard: Arc::new(Guard::open(args)?), tls: tls.map(Arc::new), client })
    }

    /// Tells whether whoever can connect may do everything.
    pub fn is_open(&self) -> bool {
        self.guard.is_open() && !self.tls.as_ref().is_some_and(|tls| tls.asks_certificates())
    }

    /// Checks that `address` may be listened on: loopback, or something is asked of those who connect.
    ///
    /// # Errors
    ///
    /// [`Error::Unguarded`].
    pub fn check_listen(&self, address: SocketAddr) -> Result<(), Error> {
        if is_loopback(address.ip()) || !self.is_open() {
            return Ok(());
        }
        Err(Error::Unguarded { address })
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests;
