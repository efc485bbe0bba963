//! For DTLS, whose handshake is not rustls's: the same files, read and judged in the same way.

use super::{TlsFiles, UseIdentity, files, identity};
use crate::gateway::InvalidConfig;
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, UnixTime},
    server::danger::ClientCertVerifier,
};
use std::sync::Arc;

/// A server's certificate and its private key, both DER.
#[derive(Clone)]
pub struct OwnCertificate {
    /// The certificate itself; those between it and its authority are not shown over datagrams.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

impl OwnCertificate {
    /// Reads `cert` and `key`.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn load(files: &TlsFiles) -> Result<Self, InvalidConfig> {
        let (certificate, key) = files::own(files, &aws_lc_rs::default_provider())?;
        Ok(Self { certificate, key })
    }
}

/// Judges the certificates of clients.
pub struct ClientCertificates(Arc<dyn ClientCertVerifier>);

impl ClientCertificates {
    /// Reads `client_ca` and `crl`.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn load(files: &TlsFiles) -> Result<Self, InvalidConfig> {
        files::client_verifier(files, &Arc::new(aws_lc_rs::default_provider())).map(Self)
    }

    /// The name of a certificate that one of the authorities has signed itself.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn name_of(&self, certificate: &[u8], wanted: UseIdentity) -> Result<String, String> {
        let certificate = CertificateDer::from(certificate);
        self.0.verify_client_cert(&certificate, &[], UnixTime::now()).map_err(|error| error.to_string())?;
        identity::of_certificate(&certificate, wanted).map_err(ToOwned::to_owned)
    }
}
