//! Authentication: certificates, users with roles, passwords and tokens.
//!
//! This is the only crate that handles secrets. [`Args`] holds the command-line flags, and [`Access::open`] reads the files that they name.
//!
//! * [`Identity`] is the identity of a process: a login and a certificate. The process uses it to connect to other servers. Its own server
//!   presents the same certificate and accepts the same login as an admin.
//! * [`Guard`] authenticates callers: by the password of the process, by the passwords and tokens of the users file, and by signed tokens.
//! * [`ServerTls`] holds the server's certificate and the authorities of client certificates.
//!
//! If no flag is set, every caller is an admin, and a server may listen on loopback only.
//!
//! This crate does not decide which call needs which [`Role`]: each server checks that itself. It contains no server and no middleware;
//! the Flight server and the HTTP endpoint call [`Guard::admit`].
//!
//! # Example
//!
//! A process without a password listens on loopback only:
//!
//! ```
//! use access::{Access, Args, Identity, Secret};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let open = Access::default();
//! assert!(open.is_open());
//! assert!(open.check_listen("127.0.0.1:50051".parse()?).is_ok());
//! assert!(open.check_listen("0.0.0.0:50051".parse()?).is_err());
//!
//! let client = Identity { password: Some(Secret::from("a long password".to_owned())), ..Identity::default() };
//! let guarded = Access::open(&Args { client, ..Args::default() })?;
//! assert!(guarded.check_listen("0.0.0.0:50051".parse()?).is_ok());
//! # Ok(())
//! # }
//! ```

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

pub use crate::client::{Identity, PemIdentity, Secret, file, named};
pub use crate::error::Error;
pub use crate::guard::{Admitted, Caller, Denied, Guard};
pub use crate::role::Role;
pub use crate::tls::{Named, ServerTls, client_config, install_provider};

/// Flags for the identity of a process and for the authentication of its callers.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(id = "access")]
#[command(next_help_heading = "Access")]
pub struct Args {
    /// Identity of this process.
    #[command(flatten)]
    pub client: Identity,
    /// Users file with names, roles and hashed passwords, written by `candleflight users`. A change takes effect without a restart.
    #[arg(long, env = "CANDLEFLIGHT_USERS", value_name = "FILE", value_parser = file)]
    pub users: Option<PathBuf>,
    /// File with the key that signs bearer tokens, created if it is missing. Without it, tokens become invalid when the process ends.
    #[arg(long, env = "CANDLEFLIGHT_TOKEN_KEY", value_name = "FILE", value_parser = file)]
    pub token_key: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that sign client certificates. Clients without such a certificate are rejected (mTLS).
    #[arg(long, env = "CANDLEFLIGHT_TLS_CLIENT_CA", value_name = "FILE", value_parser = file, requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
}

/// Identity of a process and the authentication of its callers, with all files read and checked.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Identity for connections to other servers.
    pub client: Identity,
    /// Authentication of callers.
    pub guard: Arc<Guard>,
    /// Certificate of the server. `None` if connections are not encrypted.
    pub tls: Option<Arc<ServerTls>>,
}

impl Access {
    /// Reads the files that `args` name.
    ///
    /// # Errors
    ///
    /// [`Error`]: a file is missing, or its content is not usable.
    pub fn open(args: &Args) -> Result<Access, Error> {
        let client = args.client.clone();
        let tls = ServerTls::open(&client, named(args.tls_client_ca.as_deref()))?;
        Ok(Access { guard: Arc::new(Guard::open(args)?), tls: tls.map(Arc::new), client })
    }

    /// Returns true if anyone who can connect is an admin: neither a login nor a client certificate is required.
    pub fn is_open(&self) -> bool {
        self.guard.is_open() && !self.tls.as_ref().is_some_and(|tls| tls.asks_certificates())
    }

    /// Checks that the server may listen on `address`: it is a loopback address, or callers must authenticate.
    ///
    /// # Errors
    ///
    /// [`Error::Unguarded`]: other machines can reach the address, and callers need not authenticate.
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
