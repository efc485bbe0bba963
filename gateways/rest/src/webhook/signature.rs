//! Signatures by the Standard Webhooks convention: HMAC-SHA256 over `id.timestamp.body`.

use aws_lc_rs::hmac;
use base64::{
    Engine, alphabet,
    engine::{
        DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig,
        general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    },
};

/// What such secrets begin with.
const PREFIX: &str = "whsec_";

const FORGIVING: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What requests are signed with.
#[derive(Clone)]
pub(crate) struct Secret(hmac::Key);

impl Secret {
    /// `whsec_BASE64` is decoded, any other text is taken as its bytes.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let key = |bytes: &[u8]| Self(hmac::Key::new(hmac::HMAC_SHA256, bytes));
        let Some(encoded) = text.strip_prefix(PREFIX) else { return Ok(key(text.as_bytes())) };
        let decoded = FORGIVING.decode(encoded).or_else(|_| URL_SAFE_NO_PAD.decode(encoded));
        match decoded {
            Ok(bytes) if !bytes.is_empty() => Ok(key(&bytes)),
            _ => Err("begins with whsec_ and goes on with no base64; any secret without whsec_ is taken as it is"),
        }
    }

    /// The value of `webhook-signature`.
    pub(crate) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conventions_example_comes_out() {
        // From the Standard Webhooks specification's reference libraries.
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_plain_secret_is_its_bytes() {
        // printf 'i.1.b' | openssl dgst -sha256 -hmac plain -binary | base64
        let plain = Secret::parse("plain").unwrap().sign("i", 1, b"b");
        assert_eq!(plain, Secret::parse("whsec_cGxhaW4").unwrap().sign("i", 1, b"b"));
        assert_ne!(plain, Secret::parse("other").unwrap().sign("i", 1, b"b"));
        assert!(Secret::parse("whsec_").is_err());
        assert!(Secret::parse("whsec_%").is_err());
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert!(!format!("{:?}", Secret::parse("plain").unwrap()).contains("plain"));
    }
}
