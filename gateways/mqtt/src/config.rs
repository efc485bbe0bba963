//! `[gateways.mqtt]`.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use waystation_kit::{InvalidConfig, Listen, TlsFiles, UseIdentity};

/// `[gateways.mqtt]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where plain MQTT is spoken: an address or a list of them.
    pub listen: Listen,
    /// Where MQTT over TLS is spoken; nowhere without the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsTable>,
    /// Where MQTT over WebSocket is spoken; nowhere without the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub websocket: Option<WebSocketTable>,
}

/// `[gateways.mqtt.tls]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsTable {
    /// An address or a list of them.
    pub listen: Listen,
    /// PEM file: the server's certificate and those between it and its authority.
    pub cert: String,
    /// PEM file: the certificate's private key.
    pub key: String,
    /// PEM file: authorities of client certificates. Set: every client needs one.
    pub client_ca: String,
    /// PEM file: revocation lists of those authorities.
    pub crl: String,
    /// `cn` or `san`: the name of the client's certificate is its user, whatever its CONNECT says.
    pub use_identity: UseIdentity,
}

/// `[gateways.mqtt.websocket]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocketTable {
    /// An address or a list of them.
    pub listen: Listen,
    /// The path of the WebSocket; the query behind it is ignored.
    pub path: String,
    /// Origins of web pages that may connect, as `https://app.example.com`, beside the own host; `*` is any.
    pub origins: Vec<String>,
    /// PEM file; with `key`: WebSocket over TLS.
    pub cert: String,
    /// PEM file.
    pub key: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: loopback(1883), tls: None, websocket: None }
    }
}

impl Default for TlsTable {
    fn default() -> Self {
        Self {
            listen: loopback(8883),
            cert: "server.pem".into(),
            key: "server.key".into(),
            client_ca: String::new(),
            crl: String::new(),
            use_identity: UseIdentity::No,
        }
    }
}

impl Default for WebSocketTable {
    fn default() -> Self {
        Self {
            listen: loopback(8083),
            path: "/mqtt".into(),
            origins: Vec::new(),
            cert: String::new(),
            key: String::new(),
        }
    }
}

impl Config {
    /// What the types cannot say.
    pub(crate) fn check(&self) -> Result<(), InvalidConfig> {
        self.each_file(|files| files.check())?;
        let Some(websocket) = &self.websocket else { return Ok(()) };
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
        if !websocket.path.starts_with('/') || !websocket.path.bytes().all(plain) {
            let why = format!("\"{}\" is no path; one like \"/mqtt\" is right", websocket.path);
            return Err(InvalidConfig { key: "websocket.path".into(), why });
        }
        for origin in &websocket.origins {
            let bare = origin.split_once("://").is_some_and(|(_, rest)| !rest.is_empty() && !rest.contains('/'));
            if origin != "*" && !bare {
                let why = format!(
                    "\"{origin}\" is no origin; one like \"https://app.example.com\", without a path, is right"
                );
                return Err(InvalidConfig { key: "websocket.origins".into(), why });
            }
        }
        Ok(())
    }

    /// Reads every file that is named.
    pub(crate) fn look(&self) -> Result<(), InvalidConfig> {
        self.each_file(TlsFiles::look)
    }

    fn each_file(&self, look: impl Fn(&TlsFiles) -> Result<(), InvalidConfig>) -> Result<(), InvalidConfig> {
        let tls = self.tls.as_ref().map(|table| ("tls", table.files()));
        let websocket = self.websocket.as_ref().and_then(|table| Some(("websocket", table.files()?)));
        for (table, files) in tls.into_iter().chain(websocket) {
            look(&files).map_err(|InvalidConfig { key, why }| InvalidConfig { key: format!("{table}.{key}"), why })?;
        }
        Ok(())
    }

    /// What counts from the next start only: everything but the certificates.
    pub(crate) fn fixed(&self) -> Self {
        let TlsTable { cert, key, .. } = TlsTable::default();
        let mut fixed = self.clone();
        if let Some(tls) = &mut fixed.tls {
            *tls = TlsTable { listen: tls.listen.clone(), ..TlsTable::default() };
        }
        if let Some(websocket) = &mut fixed.websocket
            && websocket.files().is_some()
        {
            (websocket.cert, websocket.key) = (cert, key);
        }
        fixed
    }
}

impl TlsTable {
    pub(crate) fn files(&self) -> TlsFiles {
        TlsFiles {
            cert: self.cert.clone(),
            key: self.key.clone(),
            client_ca: self.client_ca.clone(),
            crl: self.crl.clone(),
            use_identity: self.use_identity,
        }
    }
}

impl WebSocketTable {
    /// `None`: not over TLS.
    pub(crate) fn files(&self) -> Option<TlsFiles> {
        let encrypted = !self.cert.is_empty() || !self.key.is_empty();
        encrypted.then(|| TlsFiles { cert: self.cert.clone(), key: self.key.clone(), ..TlsFiles::default() })
    }
}

fn loopback(port: u16) -> Listen {
    Listen(vec![SocketAddr::from(([127, 0, 0, 1], port))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_key(websocket: WebSocketTable) -> Option<String> {
        let config = Config { websocket: Some(websocket), ..Config::default() };
        config.check().err().map(|error| error.key)
    }

    #[test]
    fn a_table_that_cannot_work_is_refused_before_anything_is_opened() {
        let table = WebSocketTable::default;
        assert_eq!(wrong_key(table()), None);
        assert_eq!(wrong_key(WebSocketTable { path: "mqtt".into(), ..table() }).as_deref(), Some("websocket.path"));
        assert_eq!(wrong_key(WebSocketTable { path: "/a?b".into(), ..table() }).as_deref(), Some("websocket.path"));
        assert_eq!(wrong_key(WebSocketTable { cert: "c".into(), ..table() }).as_deref(), Some("websocket.key"));
        for (origin, right) in [("*", true), ("https://a.example", true), ("a.example", false), ("https://a/b", false)]
        {
            let key = wrong_key(WebSocketTable { origins: vec![origin.into()], ..table() });
            assert_eq!(key.is_none(), right, "{origin}");
        }
        let tls = TlsTable { crl: "crl.pem".into(), ..TlsTable::default() };
        let error = Config { tls: Some(tls), ..Config::default() }.check().unwrap_err();
        assert_eq!(error.key, "tls.crl");
    }

    #[test]
    fn new_certificates_change_nothing_that_needs_a_restart() {
        let old = Config {
            tls: Some(TlsTable::default()),
            websocket: Some(WebSocketTable { cert: "a".into(), key: "a".into(), ..WebSocketTable::default() }),
            ..Config::default()
        };
        let mut new = old.clone();
        new.tls.as_mut().unwrap().cert = "new.pem".into();
        new.websocket.as_mut().unwrap().cert = "b".into();
        assert_eq!(old.fixed(), new.fixed());
        new.websocket.as_mut().unwrap().path = "/other".into();
        assert_ne!(old.fixed(), new.fixed());
    }
}
