//! `[gateways.mqtt_sn.dtls]`.

use super::refuse;
use serde::{Deserialize, Serialize};
use waystation_kit::{InvalidConfig, Listen};

/// The listener for DTLS 1.2, with pre-shared keys or with certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dtls {
    /// UDP address, or a list of them.
    pub listen: Listen,
    /// Lines of `identity:hex-key`; the identity is the user.
    pub psk_file: String,
    /// The server's certificate (ECDSA, P-256 or P-384), PEM.
    pub cert: String,
    /// Its private key, PEM.
    pub key: String,
    /// PEM; set: boards must show a certificate that one of these has signed; its common name is the user.
    pub client_ca: String,
}

impl Default for Dtls {
    fn default() -> Self {
        Self {
            listen: Listen(vec![([127, 0, 0, 1], 8885).into()]),
            psk_file: String::new(),
            cert: String::new(),
            key: String::new(),
            client_ca: String::new(),
        }
    }
}

impl Dtls {
    pub(super) fn check(&self) -> Result<(), InvalidConfig> {
        let (psk, cert) = (!self.psk_file.is_empty(), !self.cert.is_empty());
        if cert && self.key.is_empty() {
            return refuse("dtls.key", "the private key of dtls.cert is wanted".into());
        }
        match (psk, cert) {
            (false, false) => refuse("dtls", "psk_file, or cert and key, is wanted".into()),
            (true, true) => {
                refuse("dtls.psk_file", "a listener has pre-shared keys or a certificate: one of the two".into())
            }
            _ => Ok(()),
        }
    }
}
