//! `Idempotency-Key`: what names a request, and what tells it from another.

use crate::problem::Problem;
use axum::http::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256};
use waystation_broker::Idempotency;

/// The draft of the IETF's HTTPAPI group, and what everybody calls it.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Tells that an answer is that of an earlier request.
pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Longest key, in bytes.
const MAX_KEY: usize = 255;

/// A key a client may use.
pub(crate) fn key(text: &str) -> Result<&str, String> {
    let fits = !text.is_empty() && text.len() <= MAX_KEY && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then_some(text).ok_or_else(|| format!("an idempotency key is 1 to {MAX_KEY} visible ASCII characters"))
}

/// The key in the header, if there is one.
pub(crate) fn header(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut lines = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(Problem::BadRequest("the header Idempotency-Key stands twice".into()));
    }
    key(line.to_str().unwrap_or_default()).map(Some).map_err(Problem::BadRequest)
}

/// Names a request by its key and by all that makes it this one.
pub(crate) fn named(key: &str, request: &[&[u8]]) -> Box<Idempotency> {
    let mut digest = Sha256::new();
    for part in request {
        // With its length, so that no two lists of parts look alike.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    Box::new(Idempotency { key: key.into(), request: digest.finalize().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_short_and_visible() {
        let of = |value: &str| header(&HeaderMap::from_iter([(IDEMPOTENCY_KEY, value.parse().unwrap())])).map(|_| ());
        assert_eq!(of("8e03978e-40d5-43dd-bc93-6894a57f9324"), Ok(()));
        for bad in ["", "a b", &"k".repeat(256)] {
            assert!(matches!(of(bad), Err(Problem::BadRequest(_))), "{bad}");
        }
        assert_eq!(header(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn the_parts_of_a_request_do_not_run_into_each_other() {
        assert_ne!(named("k", &[b"ab", b"c"]), named("k", &[b"a", b"bc"]));
        assert_eq!(named("k", &[b"ab"]), named("k", &[b"ab"]));
    }
}
