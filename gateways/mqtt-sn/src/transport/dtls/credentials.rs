//! Who boards are by DTLS: pre-shared keys, or certificates.

use crate::{client::Way, config::Dtls as Config};
use dimpl::{Config as Terms, Dtls, DtlsCertificate, PskResolver};
use hashbrown::HashMap;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use waystation_kit::{
    InvalidConfig,
    tls::{
        TlsFiles, UseIdentity,
        datagram::{ClientCertificates, OwnCertificate},
    },
};

/// What the listener knows its boards by.
pub enum Credentials {
    /// Keys by identity.
    Keys(Arc<Keys>),
    /// The server's certificate, and whose signature boards must show, if any.
    Certificate {
        /// Shown to boards.
        own: DtlsCertificate,
        /// How to shake hands.
        terms: Arc<Terms>,
        /// Judges what boards show.
        clients: Option<Arc<ClientCertificates>>,
    },
}

/// Keys by identity.
pub struct Keys(HashMap<Vec<u8>, Vec<u8>>);

impl Credentials {
    /// Reads the files of a table.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn load(config: &Config) -> Result<Self, InvalidConfig> {
        let refuse = |key: &str, why: String| InvalidConfig { key: format!("dtls.{key}"), why };
        if !config.psk_file.is_empty() {
            let path = &config.psk_file;
            let text = std::fs::read_to_string(path)
                .map_err(|error| refuse("psk_file", format!("cannot read {path}: {error}")))?;
            return Ok(Self::Keys(Arc::new(
                Keys::parse(&text).map_err(|why| refuse("psk_file", format!("{path}: {why}")))?,
            )));
        }
        let files = TlsFiles {
            cert: config.cert.clone(),
            key: config.key.clone(),
            client_ca: config.client_ca.clone(),
            ..TlsFiles::default()
        };
        let wrong = |error: InvalidConfig| refuse(&error.key, error.why);
        let OwnCertificate { certificate, key } = OwnCertificate::load(&files).map_err(wrong)?;
        let clients = if files.client_ca.is_empty() {
            None
        } else {
            Some(Arc::new(ClientCertificates::load(&files).map_err(wrong)?))
        };
        let terms = Terms::builder().require_client_certificate(clients.is_some()).build();
        let terms = terms.map_err(|error| refuse("cert", error.to_string()))?;
        if terms.crypto_provider().key_provider.load_private_key(&key).is_err() {
            return Err(refuse("key", format!("{} is no ECDSA key (P-256 or P-384), which DTLS wants", config.key)));
        }
        let own = DtlsCertificate { certificate, private_key: key };
        Ok(Self::Certificate { own, terms: Arc::new(terms), clients })
    }

    /// One more connection, and what will prove who it is.
    pub(super) fn server(&self, now: Instant) -> Option<(Dtls, Proof)> {
        match self {
            Self::Keys(keys) => {
                let shown = Arc::new(Shown { keys: keys.clone(), identity: Mutex::default() });
                let terms = Terms::builder().with_psk_server(None, shown.clone()).build().ok()?;
                Some((Dtls::new_12_psk(Arc::new(terms), now), Proof::Key(shown)))
            }
            Self::Certificate { own, terms, clients } => {
                let proof = Proof::Certificate { clients: clients.clone(), name: None };
                Some((Dtls::new_12(terms.clone(), own.clone(), now), proof))
            }
        }
    }
}

/// What one connection has shown so far.
pub(super) enum Proof {
    Key(Arc<Shown>),
    Certificate { clients: Option<Arc<ClientCertificates>>, name: Option<Arc<str>> },
}

impl Proof {
    /// The board shows a certificate; that it has the key, the handshake proves.
    pub(super) fn certificate(&mut self, shown: &[u8]) -> Result<(), String> {
        if let Self::Certificate { clients: Some(clients), name } = self {
            *name = Some(clients.name_of(shown, UseIdentity::CommonName)?.into());
        }
        Ok(())
    }

    /// What is proved once the handshake is done; `None`: not what is asked for.
    pub(super) fn way(&self) -> Option<Way> {
        match self {
            Self::Key(shown) => {
                let identity = shown.identity.lock().unwrap_or_else(PoisonError::into_inner);
                identity.clone().map(Way::Certified)
            }
            Self::Certificate { clients: None, .. } => Some(Way::Encrypted),
            Self::Certificate { name, .. } => name.clone().map(Way::Certified),
        }
    }
}

/// Looks keys up, and remembers whose was used.
pub(super) struct Shown {
    keys: Arc<Keys>,
    identity: Mutex<Option<Arc<str>>>,
}

impl PskResolver for Shown {
    fn resolve(&self, identity: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.0.get(identity)?;
        let name = std::str::from_utf8(identity).ok()?;
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.into());
        Some(key.clone())
    }
}

impl Keys {
    /// Lines of `identity:hex-key`; empty ones and those that begin with `#` say nothing.
    fn parse(text: &str) -> Result<Self, String> {
        let mut keys = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: &str| format!("line {number}: {why}; identity:hex-key is wanted");
            let (identity, key) = line.rsplit_once(':').ok_or_else(|| wrong("has no colon"))?;
            if identity.is_empty() {
                return Err(wrong("has no identity"));
            }
            let key = hex(key).filter(|key| !key.is_empty() && key.len() <= 64);
            let key = key.ok_or_else(|| wrong("has no key of 1 to 64 bytes in hexadecimal digits"))?;
            if keys.insert(identity.as_bytes().to_vec(), key).is_some() {
                return Err(wrong("gives an identity twice"));
            }
        }
        if keys.is_empty() {
            return Err("holds no key".to_owned());
        }
        Ok(Self(keys))
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_line_by_line_and_mistakes_are_named_by_line() {
        let keys = Keys::parse("# boards\nboard-7:00ff10\n\na:b:0a\n").unwrap();
        assert_eq!(keys.0.get(&b"board-7"[..]), Some(&vec![0x00, 0xFF, 0x10]));
        assert_eq!(keys.0.get(&b"a:b"[..]), Some(&vec![0x0A]));
        for (text, line) in [
            ("x", "line 1"),
            ("a:00\nb:0", "line 2"),
            (":00", "line 1"),
            ("a:zz", "line 1"),
            ("a:", "line 1"),
            ("a:00\na:00", "line 2"),
            ("\n", "no key"),
        ] {
            assert!(Keys::parse(text).is_err_and(|why| why.contains(line)), "{text}");
        }
    }
}
