//! JSON Web Tokens (RFC 7519): as the password of an MQTT client, or as HTTP's Bearer.

use super::{
    Login,
    file::{self, FileError},
    rules::Rules,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use waystation_broker::{Principal, Time};

/// The `[auth.jwt]` table. Without a key there are no tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// File with the secret of HS256: its bytes, without one final newline.
    pub secret_file: String,
    /// File with the public key (PEM) of RS256, ES256 or EdDSA.
    pub public_key_file: String,
    /// What `aud` must hold; empty: not looked at.
    pub audience: String,
    /// The claim that names the user.
    pub user_claim: String,
    /// The claim that holds rules.
    pub acl_claim: String,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            secret_file: String::new(),
            public_key_file: String::new(),
            audience: String::new(),
            user_claim: "sub".into(),
            acl_claim: "acl".into(),
        }
    }
}

impl Jwt {
    /// Whether tokens are taken.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.secret_file.is_empty() || !self.public_key_file.is_empty()
    }
}

/// What tokens are checked with.
pub(super) struct Tokens {
    settings: Jwt,
    /// The bytes of its file.
    material: Vec<u8>,
    key: DecodingKey,
    validation: Validation,
    /// Stands for the key in the principals that it let in.
    issue: Arc<()>,
}

impl Tokens {
    /// Reads the key. If nothing has changed since `before`, those it let in stay.
    pub(super) fn read(settings: &Jwt, before: Option<&Self>) -> Result<Option<Self>, FileError> {
        let (algorithm, material, key) = if !settings.secret_file.is_empty() {
            let (file, name) = (&settings.secret_file, "auth.jwt.secret_file");
            let mut secret = file::read(file, name)?;
            secret.pop_if(|last| *last == b'\n');
            if secret.is_empty() {
                return Err(file::unfit(file, name, "is empty, and anybody could sign with an empty secret"));
            }
            let key = DecodingKey::from_secret(&secret);
            (Algorithm::HS256, secret, key)
        } else if !settings.public_key_file.is_empty() {
            let (file, name) = (&settings.public_key_file, "auth.jwt.public_key_file");
            let pem = file::read(file, name)?;
            let (algorithm, key) = public_key(&pem).ok_or_else(|| {
                file::unfit(file, name, "holds no public key (PEM) for RS256, ES256 (the curve P-256) or EdDSA")
            })?;
            (algorithm, pem, key)
        } else {
            return Ok(None);
        };
        let mut validation = Validation::new(algorithm);
        // What the token says counts, to the second.
        validation.leeway = 0;
        validation.validate_nbf = true;
        // A token without end is for its issuer to answer for.
        validation.required_spec_claims.clear();
        if settings.audience.is_empty() {
            validation.validate_aud = false;
        } else {
            validation.set_audience(&[&settings.audience]);
            validation.required_spec_claims.insert("aud".into());
        }
        let same = before.filter(|before| before.settings == *settings && before.material == material);
        let issue = same.map_or_else(Arc::default, |before| before.issue.clone());
        Ok(Some(Self { settings: settings.clone(), material, key, validation, issue }))
    }

    /// Who the token says its bearer is, or what is wrong with it.
    pub(super) fn check(&self, token: &str) -> Result<Principal, String> {
        let decoded =
            jsonwebtoken::decode::<serde_json::Map<String, serde_json::Value>>(token, &self.key, &self.validation);
        let claims = decoded.map_err(|error| error.to_string())?.claims;
        let user_claim = &self.settings.user_claim;
        let user = claims.get(user_claim).and_then(|user| user.as_str()).filter(|user| !user.is_empty());
        let user = user.ok_or_else(|| format!("the token names no user in its claim {user_claim}"))?;
        let rules = match claims.get(&self.settings.acl_claim) {
            None => Rules::default(),
            Some(rules) => {
                let wrong = |why| format!("the token's claim {}: {why}", self.settings.acl_claim);
                Rules::from_claim(rules).map_err(wrong)?
            }
        };
        let expires = match claims.get("exp") {
            None => None,
            Some(seconds) => Some(Time(milliseconds(seconds).ok_or("the token's claim exp is no number of seconds")?)),
        };
        let login = Login::Token { issue: self.issue.clone(), rules };
        Ok(Principal::user(user, expires).with_grant(Arc::new(login)))
    }

    /// Whether a token of this issue is still one of ours.
    pub(super) fn is_of(&self, issue: &Arc<()>) -> bool {
        Arc::ptr_eq(&self.issue, issue)
    }
}

/// Whether a password is shaped like a token: then it is meant as one.
pub(super) fn is_shaped_like_one(password: &str) -> bool {
    jsonwebtoken::decode_header(password).is_ok()
}

fn public_key(pem: &[u8]) -> Option<(Algorithm, DecodingKey)> {
    /// An uncompressed point of P-256 (SEC 1 §2.3.3).
    const POINT: usize = 65;
    if let Ok(key) = DecodingKey::from_ed_pem(pem) {
        return Some((Algorithm::EdDSA, key));
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        let fits = key.try_get_as_bytes().is_ok_and(|point| point.len() == POINT);
        return fits.then_some((Algorithm::ES256, key));
    }
    DecodingKey::from_rsa_pem(pem).ok().map(|key| (Algorithm::RS256, key))
}

/// Milliseconds of a NumericDate (RFC 7519 §2), which may have a fraction.
fn milliseconds(seconds: &serde_json::Value) -> Option<u64> {
    if let Some(whole) = seconds.as_u64() {
        return Some(whole.saturating_mul(1_000));
    }
    let seconds = seconds.as_f64().filter(|seconds| *seconds >= 0.0)?;
    u64::try_from(std::time::Duration::try_from_secs_f64(seconds).ok()?.as_millis()).ok()
}
