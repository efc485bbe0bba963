//! The `[gateways.rest]` table.

use crate::webhook::{Declaration, MOST_WEBHOOKS};
use serde::{Deserialize, Serialize};
use waystation_kit::{InvalidConfig, Listen, tls::TlsFiles};

/// A day. Far more, and the end of a wait is a time that cannot be reckoned with.
const LONGEST_WAIT_S: u64 = 86_400;

/// Settings of the REST front-end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it listens.
    pub listen: Listen,
    /// Names it is reached by, beside IP addresses and `localhost`. A loopback listener answers no other (a page
    /// that has its own name resolve to 127.0.0.1 must not get in).
    pub hosts: Vec<String>,
    /// Origins of web pages that may use it, as `https://app.example.com`; `*` is any.
    pub cors_origins: Vec<String>,
    /// Seconds; a longer wish to wait is lowered. Many proxies cut at 60.
    pub max_wait_s: u64,
    /// Bytes of a JSON body of `POST /v1/messages`; NDJSON has no such bound.
    pub max_bulk_bytes: usize,
    /// Whether the page at `/` is served.
    pub dashboard: bool,
    /// Whether webhooks may go to loopback, link-local, private and other local addresses.
    pub allow_private_targets: bool,
    /// Webhooks; more can be made over the API.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub webhook: Vec<Declaration>,
    /// A second listener, over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Secure>,
}

/// The `[gateways.rest.tls]` table: a second listener. Its files are read again at a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Secure {
    /// Where it listens.
    pub listen: Listen,
    /// PEM: the server's certificate, and those between it and its authority.
    pub cert: String,
    /// PEM: the certificate's private key.
    pub key: String,
    /// PEM: authorities of client certificates. Set: every client needs one.
    pub client_ca: String,
}

impl Default for Secure {
    fn default() -> Self {
        Self {
            listen: Listen(vec![([127, 0, 0, 1], 8443).into()]),
            cert: String::new(),
            key: String::new(),
            client_ca: String::new(),
        }
    }
}

impl Secure {
    /// The files it names.
    pub(crate) fn files(&self) -> TlsFiles {
        TlsFiles {
            cert: self.cert.clone(),
            key: self.key.clone(),
            client_ca: self.client_ca.clone(),
            ..TlsFiles::default()
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Listen(vec![([127, 0, 0, 1], 8080).into()]),
            hosts: Vec::new(),
            cors_origins: Vec::new(),
            max_wait_s: 55,
            max_bulk_bytes: 67_108_864,
            dashboard: true,
            tls: None,
            allow_private_targets: false,
            webhook: Vec::new(),
        }
    }
}

impl Config {
    /// What the types cannot say.
    pub(crate) fn check(&self) -> Result<(), InvalidConfig> {
        let wrong = |key: &str, why: String| Err(InvalidConfig { key: key.into(), why });
        if !(1..=LONGEST_WAIT_S).contains(&self.max_wait_s) {
            return wrong("max_wait_s", format!("is {}; 1 to {LONGEST_WAIT_S} seconds are right", self.max_wait_s));
        }
        if self.max_bulk_bytes == 0 {
            return wrong("max_bulk_bytes", "is 0; a number of bytes from 1 is right".into());
        }
        for origin in &self.cors_origins {
            let bare = origin.split_once("://").is_some_and(|(_, rest)| !rest.is_empty() && !rest.contains('/'));
            if origin != "*" && !bare {
                return wrong(
                    "cors_origins",
                    format!(
                        "\"{origin}\" is no origin; one like \"https://app.example.com\", without a path, is right"
                    ),
                );
            }
        }
        for host in &self.hosts {
            if host.is_empty() || host.contains(['/', ':', ' ']) {
                return wrong(
                    "hosts",
                    format!("\"{host}\" is no name; one like \"broker.local\", without a port, is right"),
                );
            }
        }
        self.tls.as_ref().map_or(Ok(()), |tls| tls.files().check().map_err(below_tls))?;
        self.check_webhooks()
    }

    fn check_webhooks(&self) -> Result<(), InvalidConfig> {
        let wrong = |key: String, why: String| Err(InvalidConfig { key, why });
        if self.webhook.len() > MOST_WEBHOOKS {
            let why = format!("are {}; at most {MOST_WEBHOOKS} are right", self.webhook.len());
            return wrong("webhook".into(), why);
        }
        for (index, declaration) in self.webhook.iter().enumerate() {
            let key = |key: &str| format!("webhook[{index}].{key}");
            let webhook = match declaration.check() {
                Ok(webhook) => webhook,
                Err(error) => return wrong(key(error.key), error.why),
            };
            if !self.allow_private_targets && webhook.is_private_address() {
                let why = format!(
                    "\"{}\" is a local address; it needs gateways.rest.allow_private_targets = true",
                    declaration.shown_url()
                );
                return wrong(key("url"), why);
            }
            if self.webhook.iter().take(index).any(|before| before.name == declaration.name) {
                return wrong(key("name"), format!("there is a webhook \"{}\" already", declaration.name));
            }
        }
        Ok(())
    }

    /// Reads the files it names.
    pub(crate) fn look(&self) -> Result<(), InvalidConfig> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.files().look().map_err(below_tls))
    }

    /// Whether the sockets of `other` would do.
    pub(crate) fn listens_like(&self, other: &Self) -> bool {
        let secure = |config: &Self| config.tls.as_ref().map(|tls| tls.listen.clone());
        self.listen == other.listen && secure(self) == secure(other)
    }
}

fn below_tls(InvalidConfig { key, why }: InvalidConfig) -> InvalidConfig {
    InvalidConfig { key: format!("tls.{key}"), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_and_an_empty_table_is_the_default() {
        assert!(toml::from_str::<Config>("lisen = \"127.0.0.1:1\"").is_err());
        let config: Config = toml::from_str("").unwrap();
        assert_eq!(config.listen, Config::default().listen);
        assert!(config.check().is_ok());
    }

    #[test]
    fn impossible_values_are_named() {
        for (table, key) in [
            ("max_wait_s = 0", "max_wait_s"),
            ("max_wait_s = 9_223_372_036_854_775_807", "max_wait_s"),
            ("cors_origins = [\"example.com\"]", "cors_origins"),
            ("cors_origins = [\"https://example.com/app\"]", "cors_origins"),
            ("hosts = [\"broker:8080\"]", "hosts"),
            ("[tls]\nkey = \"key.pem\"", "tls.cert"),
            ("[tls]\ncert = \"cert.pem\"", "tls.key"),
            ("[[webhook]]\nurl = \"https://example.com\"\nfilters = [\"a\"]", "webhook[0].name"),
            ("[[webhook]]\nname = \"n\"\nurl = \"http://127.1\"\nfilters = [\"a\"]", "webhook[0].url"),
            (
                "[[webhook]]\nname = \"n\"\nurl = \"https://example.com\"\nfilters = [\"a\"]\n\
                 [[webhook]]\nname = \"n\"\nurl = \"https://example.com\"\nfilters = [\"a\"]",
                "webhook[1].name",
            ),
        ] {
            assert_eq!(toml::from_str::<Config>(table).unwrap().check().unwrap_err().key, key);
        }
    }
}
