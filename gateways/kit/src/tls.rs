//! TLS, for every gateway that listens on TCP: versions 1.2 and 1.3, client certificates, revocation, and new files at
//! a reload without a word to the clients there are. In [`client`], for those that dial out.

pub mod client;
pub mod datagram;
mod files;
mod identity;

use crate::gateway::{BindError, InvalidConfig};
use parking_lot::RwLock;
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use std::{io, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsAcceptor;
pub use tokio_rustls::server::TlsStream;

/// The files of one TLS listener, as its table has them; `""` where there is none. Paths are relative to the working
/// directory, contents are PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// `cert`: the server's certificate, followed by those between it and its authority.
    pub cert: String,
    /// `key`: the private key of the first of them, not encrypted.
    pub key: String,
    /// `client_ca`: authorities of client certificates. Set: every client needs one.
    pub client_ca: String,
    /// `crl`: revocation lists of those authorities. Set: a client whose authority has no list, or one that is out of
    /// date, is refused.
    pub crl: String,
    /// `use_identity`: which name of the client's certificate is its user.
    pub use_identity: UseIdentity,
}

/// Which name of a client's certificate is its user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UseIdentity {
    /// None: the certificate only opens the door.
    #[default]
    #[serde(rename = "")]
    No,
    /// The first common name of its subject.
    #[serde(rename = "cn")]
    CommonName,
    /// The first DNS name, else the first URI, among its subject's alternative names.
    #[serde(rename = "san")]
    AlternativeName,
}

impl TlsFiles {
    /// Whether the table holds together; opens no file.
    ///
    /// # Errors
    /// The offending key, relative to the table.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let wrong = |key: &str, why: &str| Err(InvalidConfig { key: key.into(), why: why.into() });
        if self.cert.is_empty() {
            return wrong("cert", "is empty; name a PEM file with the server's certificate");
        }
        if self.key.is_empty() {
            return wrong("key", "is empty; name a PEM file with the certificate's private key");
        }
        if self.client_ca.is_empty() && !self.crl.is_empty() {
            return wrong("crl", "revokes client certificates, which nobody asks for; set client_ca too");
        }
        if self.client_ca.is_empty() && self.use_identity != UseIdentity::No {
            return wrong("use_identity", "needs client certificates; set client_ca too");
        }
        Ok(())
    }

    /// Opens and reads every file, as [`Tls::load`] does, and forgets them.
    ///
    /// # Errors
    /// The offending key, relative to the table, its file and what is wrong with it.
    pub fn look(&self) -> Result<(), InvalidConfig> {
        files::load(self, &[]).map(drop)
    }
}

/// One listener's side of TLS. Handshakes that begin after a reload use the new files; streams that are open stay.
pub struct Tls {
    /// The full key of its table, as `gateways.mqtt.tls`.
    table: String,
    alpn: &'static [&'static str],
    current: RwLock<Current>,
}

#[derive(Clone)]
struct Current {
    config: Arc<ServerConfig>,
    use_identity: UseIdentity,
}

/// A client that has shaken hands.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The encrypted stream.
    pub stream: TlsStream<S>,
    /// The name in the client's verified certificate, where [`TlsFiles::use_identity`] asks for one: never empty and
    /// without control characters, but whatever else its authority signed. Log it escaped.
    pub identity: Option<String>,
}

impl Tls {
    /// Reads the files. `table` is the full key of the table they stand in; `alpn` the protocols offered, most wanted
    /// first (a client that offers others only is refused, one that offers none is taken).
    ///
    /// # Errors
    /// One of the files cannot be read or used.
    pub fn load(table: &str, files: &TlsFiles, alpn: &'static [&'static str]) -> Result<Self, BindError> {
        let current = Current::load(files, alpn)
            .map_err(|InvalidConfig { key, why }| BindError::Other { key: format!("{table}.{key}"), why })?;
        Ok(Self { table: table.to_owned(), alpn, current: RwLock::new(current) })
    }

    /// Reads the files anew. If one is broken all the old ones stay, and the log says why.
    pub fn reload(&self, files: &TlsFiles) {
        match Current::load(files, self.alpn) {
            Ok(current) => *self.current.write() = current,
            Err(InvalidConfig { key, why }) => {
                tracing::error!("{}.{key}: {why}; the old certificates stay in use", self.table);
            }
        }
    }

    /// Shakes hands with a client that has just connected. Cancel-safe in that dropping it closes the connection.
    ///
    /// # Errors
    /// The client broke TLS, showed no certificate that holds, or was not done by `deadline`
    /// ([`io::ErrorKind::TimedOut`]).
    pub async fn accept<S>(&self, stream: S, deadline: Instant) -> io::Result<Accepted<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Current { config, use_identity } = self.current.read().clone();
        let stream = timeout_at(deadline, TlsAcceptor::from(config).accept(stream))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time"))??;
        let identity = match use_identity {
            UseIdentity::No => None,
            wanted => Some(identity::of(stream.get_ref().1, wanted).map_err(io::Error::other)?),
        };
        Ok(Accepted { stream, identity })
    }
}

impl Current {
    fn load(files: &TlsFiles, alpn: &[&str]) -> Result<Self, InvalidConfig> {
        Ok(Self { config: Arc::new(files::load(files, alpn)?), use_identity: files.use_identity })
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("table", &self.table).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
