//! Conditional requests (RFC 9110 §13) and the wait preference (RFC 7240), on the state of a topic.

use crate::problem::Problem;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use waystation_broker::{Condition, MessageId};

/// RFC 7240.
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");

/// RFC 7240.
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// A message's id as it stands in JSON.
pub(crate) fn id_text(id: MessageId) -> String {
    String::from_utf8_lossy(&hexadecimal(id.0)).into_owned()
}

/// Sixteen digits.
pub(crate) fn hexadecimal(number: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|place| DIGITS[(number >> (60 - 4 * place) & 15) as usize])
}

/// The entity tag of a retained message: strong, it names the publication.
pub(crate) fn etag(id: MessageId) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{}\"", id_text(id))).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// What an `If-Match` or `If-None-Match` header lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tags {
    /// `*`.
    Any,
    /// The publications named. Tags that cannot be ours name none.
    These(Vec<Tag>),
}

/// One entity tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    id: Option<MessageId>,
    weak: bool,
}

impl Tags {
    /// Reads all lines of a header; `None` when there is none.
    pub(crate) fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Problem> {
        let bad = || Problem::BadRequest(format!("`{name}` is no list of entity tags"));
        let mut tags = Vec::new();
        let mut present = false;
        for line in headers.get_all(name) {
            present = true;
            let text = line.to_str().map_err(|_| bad())?.trim();
            if text == "*" {
                return Ok(Some(Self::Any));
            }
            let mut rest = text;
            while !rest.is_empty() {
                let (weak, tail) = rest.strip_prefix("W/").map_or((false, rest), |tail| (true, tail));
                let (opaque, tail) = tail.strip_prefix('"').and_then(|tail| tail.split_once('"')).ok_or_else(bad)?;
                tags.push(Tag { id: id_of(opaque), weak });
                rest = tail.trim_start();
                rest = match rest.strip_prefix(',') {
                    Some(tail) => tail.trim_start(),
                    None if rest.is_empty() => rest,
                    None => return Err(bad()),
                };
            }
        }
        Ok(present.then_some(Self::These(tags)))
    }

    /// Whether a reader who has these has the current state: weak comparison (RFC 9110 §13.1.2).
    pub(crate) fn hold(&self, current: MessageId) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|tag| tag.id == Some(current)),
        }
    }
}

fn id_of(opaque: &str) -> Option<MessageId> {
    // Exactly our own form: `from_str_radix` alone would take a sign and fewer digits.
    let ours = opaque.len() == 16 && opaque.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    ours.then(|| u64::from_str_radix(opaque, 16).ok().map(MessageId)).flatten()
}

/// What a changing request demands of the state there is.
pub(crate) fn precondition(headers: &HeaderMap) -> Result<Option<Condition>, Problem> {
    let if_match = Tags::read(headers, &header::IF_MATCH)?;
    let if_none_match = Tags::read(headers, &header::IF_NONE_MATCH)?;
    match (if_match, if_none_match) {
        (None, None) => Ok(None),
        (Some(Tags::Any), None) => Ok(Some(Condition::Present)),
        // Strong comparison: a weak tag matches nothing (RFC 9110 §13.1.1).
        (Some(Tags::These(tags)), None) => {
            Ok(Some(Condition::Is(tags.iter().filter(|tag| !tag.weak).filter_map(|tag| tag.id).collect())))
        }
        (None, Some(Tags::Any)) => Ok(Some(Condition::Absent)),
        (None, Some(Tags::These(_))) => {
            Err(Problem::BadRequest("a change takes `If-None-Match: *` only; use If-Match for a known state".into()))
        }
        (Some(_), Some(_)) => {
            Err(Problem::BadRequest("If-Match and If-None-Match together cannot both hold for a change".into()))
        }
    }
}

/// The seconds of `Prefer: wait=N`. What is malformed is ignored, as RFC 7240 §2 wants.
pub(crate) fn preferred_wait(headers: &HeaderMap) -> Option<u64> {
    headers.get_all(PREFER).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).find_map(
        |preference| {
            let (name, value) = preference.split(';').next()?.split_once('=')?;
            name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').parse().ok())?
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "\"0000000000000001\"";

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn an_etag_read_back_names_the_publication() {
        let tag = etag(MessageId(0xABCD));
        let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)]);
        let tags = Tags::read(&headers, &header::IF_NONE_MATCH).unwrap().unwrap();
        assert!(tags.hold(MessageId(0xABCD)));
        assert!(!tags.hold(MessageId(0xABCE)));
    }

    #[test]
    fn an_id_is_sixteen_digits() {
        for number in [0, 1, 0xABCD_EF01_2345_6789, u64::MAX] {
            assert_eq!(id_text(MessageId(number)), format!("{number:016x}"));
        }
    }

    #[test]
    fn lists_weak_tags_and_foreign_tags_are_understood() {
        let list = format!("\"a, b\" , W/{ONE},\"\"");
        let tags = Tags::read(&headers(&[(header::IF_NONE_MATCH, &list)]), &header::IF_NONE_MATCH).unwrap().unwrap();
        assert!(tags.hold(MessageId(1)));
        assert!(!tags.hold(MessageId(2)));
        for bad in ["1", "\"1", "\"1\" \"2\"", "W/1"] {
            assert!(Tags::read(&headers(&[(header::IF_MATCH, bad)]), &header::IF_MATCH).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_change_may_demand_a_state_any_state_or_none() {
        let of = |name, value: &str| precondition(&headers(&[(name, value)]));
        assert_eq!(of(header::IF_MATCH, "*"), Ok(Some(Condition::Present)));
        assert_eq!(of(header::IF_MATCH, ONE), Ok(Some(Condition::Is(vec![MessageId(1)]))));
        assert_eq!(of(header::IF_MATCH, &format!("W/{ONE}")), Ok(Some(Condition::Is(vec![]))));
        assert_eq!(of(header::IF_MATCH, "\"foreign\""), Ok(Some(Condition::Is(vec![]))));
        assert_eq!(of(header::IF_NONE_MATCH, "*"), Ok(Some(Condition::Absent)));
        assert!(of(header::IF_NONE_MATCH, ONE).is_err());
        assert_eq!(precondition(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn the_wait_is_found_among_other_preferences() {
        let of = |value: &str| preferred_wait(&headers(&[(PREFER, value)]));
        assert_eq!(of("wait=30"), Some(30));
        assert_eq!(of("respond-async, Wait = \"5\"; x=1"), Some(5));
        assert_eq!(of("wait=soon"), None);
        assert_eq!(of("return=minimal"), None);
    }
}
