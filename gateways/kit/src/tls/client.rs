//! The client's side: for gateways that dial out.

use super::{TlsFiles, files};
use crate::gateway::InvalidConfig;
use rustls::{
    ClientConfig, Error, RootCertStore, client::WebPkiServerVerifier, crypto::aws_lc_rs, pki_types::CertificateDer,
    sign::SingleCertAndKey,
};
use rustls_platform_verifier::Verifier;
use std::sync::Arc;

/// What a client trusts and shows, as its table has it; `""` where there is none. Paths are relative to the working
/// directory, contents are PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// `ca`: the only authorities whose servers are believed; none: those of the system.
    pub ca: String,
    /// `cert`: the client's own certificate, followed by those between it and its authority.
    pub cert: String,
    /// `key`: the private key of the first of them, not encrypted.
    pub key: String,
    /// `alpn`: the protocols offered, most wanted first.
    pub alpn: Vec<String>,
}

impl ClientFiles {
    /// Whether the table holds together; opens no file.
    ///
    /// # Errors
    /// The offending key, relative to the table.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let wrong = |key: &str, why: &str| Err(InvalidConfig { key: key.into(), why: why.into() });
        match (self.cert.is_empty(), self.key.is_empty()) {
            (false, true) => return wrong("key", "is empty; name a PEM file with the private key of `cert`"),
            (true, false) => {
                return wrong("cert", "is empty; name a PEM file with the certificate that `key` belongs to");
            }
            _ => {}
        }
        if self.alpn.iter().any(|name| !(1..=255).contains(&name.len())) {
            return wrong("alpn", "holds a name that is empty or longer than 255 bytes");
        }
        Ok(())
    }

    /// Reads the files. There is no way to believe a server unseen: a file that cannot be read is an error, and so is
    /// one without an authority.
    ///
    /// # Errors
    /// The offending key, relative to the table, its file and what is wrong with it.
    pub fn load(&self) -> Result<Arc<ClientConfig>, InvalidConfig> {
        self.check()?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let unusable = |key: &str, why: &dyn std::fmt::Display| InvalidConfig { key: key.into(), why: why.to_string() };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("url", &error))?;
        let builder = if self.ca.is_empty() {
            let system = Verifier::new(Arc::clone(&provider)).map_err(|error| unusable("ca", &error))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(system))
        } else {
            let mut roots = RootCertStore::empty();
            for authority in files::all::<CertificateDer<'static>>("ca", &self.ca, "certificate")? {
                roots.add(authority).map_err(|error: Error| {
                    let why = format!("{} holds a certificate that cannot be an authority: {error}", self.ca);
                    InvalidConfig { key: "ca".into(), why }
                })?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            builder.with_webpki_verifier(verifier.build().map_err(|error| unusable("ca", &error))?)
        };
        let mut config = if self.cert.is_empty() {
            builder.with_no_client_auth()
        } else {
            let files = TlsFiles { cert: self.cert.clone(), key: self.key.clone(), ..TlsFiles::default() };
            let identity = files::identity(&files, &provider)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }
}
