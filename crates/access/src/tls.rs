//! TLS: the certificate of a server, and the client certificates that it requires.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, ClientConfig, OtherError, RootCertStore, ServerConfig};

use crate::{Error, Identity};

/// Certificate, key and client authorities of a server, as PEM. They are checked to match.
pub struct ServerTls {
    /// Certificate with its chain.
    pub certificate: Vec<u8>,
    /// Private key of the certificate.
    pub key: Vec<u8>,
    /// Authorities that sign client certificates. `None` if clients need no certificate.
    pub client_authorities: Option<Vec<u8>>,
    config: ServerConfig,
}

impl ServerTls {
    /// Reads the files. Returns `None` if no certificate is set.
    pub(crate) fn open(client: &Identity, client_authorities: Option<&Path>) -> Result<Option<Self>, Error> {
        let Some(((certificate, key), (path, key_path))) = client.identity()?.zip(client.identity_files())
        else {
            return Ok(None);
        };
        let client_authorities =
            client_authorities.map(|path| read_pem(path, "certificate", "--tls-client-ca")).transpose()?;
        install_provider();
        let builder = match &client_authorities {
            None => ServerConfig::builder().with_no_client_auth(),
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates(authorities));
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
                    .build()
                    .map_err(Error::ClientAuthorities)?;
                ServerConfig::builder().with_client_cert_verifier(verifier)
            }
        };
        let private_key = read_private_key(&key, (key_path, "--tls-key"))?;
        let mut config = builder
            .with_single_cert(certificates(&certificate).collect(), private_key)
            .map_err(|source| Error::Tls { path: path.to_owned(), source })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(ServerTls { certificate, key, client_authorities, config }))
    }

    /// Returns the configuration of an HTTP/1.1 server.
    pub fn http_config(&self) -> Arc<ServerConfig> {
        Arc::new(self.config.clone())
    }

    /// Returns true if callers must present a certificate.
    pub fn asks_certificates(&self) -> bool {
        self.client_authorities.is_some()
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls")
            .field("asks_certificates", &self.asks_certificates())
            .finish_non_exhaustive()
    }
}

/// Chooses the cryptography provider of this process.
///
/// The choice is needed because two providers are compiled in, one for each of two dependencies. Later calls have no effect.
pub fn install_provider() {
    // The error only means that a provider is already installed.
    drop(ring::default_provider().install_default());
}

/// A PEM file and the flag that sets it.
pub type Named<'a> = (&'a Path, &'static str);

/// Builds the configuration of a client that trusts `authorities`, or those of the system if `None`. The client presents `identity`, a
/// certificate and its key, to servers that require one.
///
/// # Errors
///
/// [`Error`]: a file is missing, or its content is not usable.
pub fn client_config(
    authorities: Option<Named<'_>>,
    identity: Option<(Named<'_>, Named<'_>)>,
) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some((path, flag)) => {
            roots.add_parsable_certificates(certificates(&read_pem(path, "certificate", flag)?));
        }
        // Certificates that cannot be read are not trusted.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has what the default versions need")
        .with_root_certificates(roots);
    let Some(((path, flag), (key_path, key_flag))) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let certificate = read_pem(path, "certificate", flag)?;
    check_own(&certificate, (path, flag))?;
    let key = read_private_key(&read_pem(key_path, "private key", key_flag)?, (key_path, key_flag))?;
    let config = builder.with_client_auth_cert(certificates(&certificate).collect(), key);
    config.map_err(|source| Error::Tls { path: path.to_owned(), source })
}

/// Checks that a certificate is not the certificate of an authority.
///
/// All our clients and servers use rustls, which rejects an authority's certificate as the certificate of a process.
pub(crate) fn check_own(pem: &[u8], (path, flag): Named<'_>) -> Result<(), Error> {
    let Some(certificate) = certificates(pem).next() else { return Ok(()) };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates([certificate.clone()]);
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()));
    let Ok(verifier) = verifier.build() else { return Ok(()) };
    let host = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    // All other errors are ignored here: the peer has other roots and the real host name, so only the peer can decide.
    match verifier.verify_server_cert(&certificate, &[], &host, &[], UnixTime::now()) {
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(error))))
            if error.to_string() == "CaUsedAsEndEntity" =>
        {
            Err(Error::Authority { path: path.to_owned(), flag })
        }
        _ => Ok(()),
    }
}

fn read_private_key(pem: &[u8], (path, flag): Named<'_>) -> Result<PrivateKeyDer<'static>, Error> {
    let path = path.to_owned();
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| Error::Pem { what: "private key", path, flag })
}

/// Reads a PEM file and checks that it holds `what`.
pub(crate) fn read_pem(path: &Path, what: &'static str, flag: &'static str) -> Result<Vec<u8>, Error> {
    let pem = std::fs::read(path).map_err(Error::file("read", path))?;
    let is_there = if what == "certificate" {
        certificates(&pem).next().is_some()
    } else {
        PrivateKeyDer::from_pem_slice(&pem).is_ok()
    };
    if is_there { Ok(pem) } else { Err(Error::Pem { what, path: path.to_owned(), flag }) }
}

fn certificates(pem: &[u8]) -> impl Iterator<Item = CertificateDer<'static>> + '_ {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok)
}
