//! From PEM files to what rustls wants, with one clear line for each thing that can be wrong.

use super::TlsFiles;
use crate::gateway::InvalidConfig;
use rustls::{
    CertificateError, Error, InconsistentKeys, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use std::sync::Arc;

/// Reads all files of a table.
pub(super) fn load(files: &TlsFiles, alpn: &[&str]) -> Result<ServerConfig, InvalidConfig> {
    files.check()?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let identity = identity(files, &provider)?;
    let verifier = client_verifier(files, &provider)?;
    let unusable = |error: Error| InvalidConfig { key: "cert".into(), why: error.to_string() };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    // Devices that come back resume without a new signature, and cost no memory while they are away. The tickets'
    // keys are of this load: what a later one revokes cannot slip in by an old ticket.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(unusable)?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

pub(super) fn identity(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, InvalidConfig> {
    let chain = all::<CertificateDer<'static>>("cert", &files.cert, "certificate")?;
    let broken = |what: &str| {
        let path = &files.key;
        InvalidConfig { key: "key".into(), why: format!("{path} {what}") }
    };
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| match error {
        pem::Error::NoItemsFound => broken("holds no private key in PEM; an encrypted one must be decrypted first"),
        error => unreadable("key", &files.key, &error),
    })?;
    let key =
        provider.key_provider.load_private_key(key).map_err(|_| broken("holds a private key of no known kind"))?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
        // A certificate of version 1, as `openssl x509 -req` made them for years: clients take it, but it cannot be
        // compared here.
        Err(Error::InvalidCertificate(CertificateError::Other(_))) => Ok(identity),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(broken(&format!("is not the private key of the certificate in {}", files.cert)))
        }
        Err(error) => {
            let path = &files.cert;
            Err(InvalidConfig {
                key: "cert".into(),
                why: format!("{path} holds no certificate that can be used: {error}"),
            })
        }
    }
}

/// Certificate and key as they are, once they are known to be a pair.
pub(super) fn own(files: &TlsFiles, provider: &CryptoProvider) -> Result<(Vec<u8>, Vec<u8>), InvalidConfig> {
    let chain = identity(files, provider)?.cert;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable("key", &files.key, &error))?;
    Ok((chain.first().map(|own| own.to_vec()).unwrap_or_default(), key.secret_der().to_vec()))
}

pub(super) fn client_verifier(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, InvalidConfig> {
    if files.client_ca.is_empty() {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    for authority in all::<CertificateDer<'static>>("client_ca", &files.client_ca, "certificate")? {
        roots.add(authority).map_err(|error| {
            let path = &files.client_ca;
            let why = format!("{path} holds a certificate that cannot be an authority: {error}");
            InvalidConfig { key: "client_ca".into(), why }
        })?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if !files.crl.is_empty() {
        let lists = all::<CertificateRevocationListDer<'static>>("crl", &files.crl, "revocation list")?;
        builder = builder.with_crls(lists).only_check_end_entity_revocation().enforce_revocation_expiration();
    }
    builder.build().map_err(|error| {
        // The roots are there: only a revocation list can be wrong.
        InvalidConfig { key: "crl".into(), why: format!("{} cannot be used: {error}", files.crl) }
    })
}

/// All PEM items of one kind in a file; at least one.
pub(super) fn all<T: PemObject>(key: &str, path: &str, what: &str) -> Result<Vec<T>, InvalidConfig> {
    let items: Vec<T> =
        T::pem_file_iter(path).and_then(|items| items.collect()).map_err(|error| unreadable(key, path, &error))?;
    if items.is_empty() {
        return Err(InvalidConfig { key: key.into(), why: format!("{path} holds no {what} in PEM") });
    }
    Ok(items)
}

fn unreadable(key: &str, path: &str, error: &pem::Error) -> InvalidConfig {
    let why = match error {
        pem::Error::Io(error) => format!("cannot read {path}: {error}"),
        error => format!("{path} is not valid PEM: {error}"),
    };
    InvalidConfig { key: key.into(), why }
}
