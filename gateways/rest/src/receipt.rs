//! What publications are answered with.

use crate::{
    idempotency::IDEMPOTENCY_REPLAYED,
    media,
    problem::{Details, Problem},
};
use axum::{
    http::{HeaderValue, header},
    response::Response,
};
use serde::Serialize;
use std::io::Write;
use utoipa::ToSchema;

/// What a publication is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Published {
    pub(crate) id: String,
    pub(crate) topic: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) matched: u32,
    /// It was published before, and this is the answer of then, which is why it is no part of it.
    #[serde(skip)]
    pub(crate) replayed: bool,
}

impl Published {
    /// The answer to a single publication.
    pub(crate) fn response(&self) -> Response {
        let mut json = Vec::with_capacity(96 + self.topic.len());
        json.push(b'{');
        self.write(&mut json);
        json.push(b'}');
        let mut response = Response::new(json.into());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media::JSON));
        if self.replayed {
            headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }

    /// Its members, as serde would write them. By hand, because these are written by the hundred thousand a second.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"id\":\"");
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(b"\",\"topic\":");
        if self.topic.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
            out.push(b'"');
            out.extend_from_slice(self.topic.as_bytes());
            out.push(b'"');
        } else {
            // Writing text to memory cannot fail.
            drop(serde_json::to_writer(&mut *out, &self.topic));
        }
        out.extend_from_slice(b",\"qos\":");
        out.push(b'0' + self.qos);
        out.extend_from_slice(if self.retain { b",\"retain\":true" } else { b",\"retain\":false" });
        out.extend_from_slice(b",\"matched\":");
        drop(write!(out, "{}", self.matched));
    }
}

/// What an entry of `POST /v1/messages` is answered with.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Entry {
    /// It was published.
    Done {
        /// 200.
        status: u16,
        #[serde(flatten)]
        published: Published,
        /// It was published before under its own key; of a request's key a header says so.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        idempotency_replayed: bool,
    },
    /// It was not.
    Failed(Details),
}

impl Entry {
    /// As serde would write it.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Done { published, idempotency_replayed: false, .. } => {
                out.extend_from_slice(b"{\"status\":200,");
                published.write(out);
                out.push(b'}');
            }
            // Writing to memory what was built here cannot fail.
            other => drop(serde_json::to_writer(out, other)),
        }
    }
}

impl From<Result<Published, Problem>> for Entry {
    fn from(result: Result<Published, Problem>) -> Self {
        match result {
            Ok(published) => Self::Done { status: 200, idempotency_replayed: published.replayed, published },
            Err(problem) => Self::Failed(problem.details()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_by_hand_is_what_serde_writes() {
        for topic in ["a/b", "grün/\u{1F600}", "a\"b\\c", "tab\t", "\u{7f}\u{80}", "$SYS/x", ""] {
            for (qos, retain, matched, replayed) in [(0, false, 0, false), (2, true, u32::MAX, true)] {
                let (id, topic) = ("00000000000000ff".to_owned(), topic.to_owned());
                let published = Published { id, topic, qos, retain, matched, replayed };
                let mut by_hand = b"{".to_vec();
                published.write(&mut by_hand);
                assert_eq!([&by_hand[..], b"}"].concat(), serde_json::to_vec(&published).unwrap());
                let entry = Entry::from(Ok(published));
                let mut by_hand = Vec::new();
                entry.write(&mut by_hand);
                assert_eq!(by_hand, serde_json::to_vec(&entry).unwrap());
            }
        }
    }
}
