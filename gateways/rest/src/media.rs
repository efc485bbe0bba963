//! Media types: what a client accepts (RFC 9110 §12.5.1), and what it sends.

use crate::problem::Problem;
use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// `application/json`
pub(crate) const JSON: &str = "application/json";
/// What curl calls a body whose type nobody said.
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";
/// `text/event-stream`
pub(crate) const EVENTS: &str = "text/event-stream";
/// `application/x-ndjson`
pub(crate) const LINES: &str = "application/x-ndjson";

/// Which of `offers` the client likes best; among equals one it names, then the order of its names, then of ours.
pub(crate) fn choose(headers: &HeaderMap, offers: &[&'static str]) -> Result<&'static str, Problem> {
    let ranges = accepted(headers);
    if ranges.is_empty() {
        return offers.first().copied().ok_or(Problem::Internal);
    }
    let rated = offers.iter().filter_map(|offer| {
        let (at, range) =
            ranges.iter().enumerate().filter(|(_, range)| range.covers(offer)).max_by_key(|(at, range)| {
                // The most specific range speaks (§12.5.1), the first of equals.
                (range.specificity(), usize::MAX - at)
            })?;
        (range.quality > 0).then_some((range.quality, range.specificity() == 2, usize::MAX - at, offer))
    });
    // `max_by_key` takes the last of equals, and ours are listed best first.
    let best = rated.rev().max_by_key(|(quality, named, order, _)| (*quality, *named, *order));
    best.map(|(.., offer)| *offer)
        .ok_or_else(|| Problem::NotAcceptable(format!("what is served here: {}", offers.join(", "))))
}

/// A media range of `Accept`.
struct Range {
    kind: String,
    /// In thousandths.
    quality: u16,
}

impl Range {
    fn covers(&self, offer: &str) -> bool {
        self.kind == "*/*"
            || self.kind == offer
            || self.kind.strip_suffix('*').is_some_and(|major| major.ends_with('/') && offer.starts_with(major))
    }

    fn specificity(&self) -> u8 {
        match self.kind.as_str() {
            "*/*" => 0,
            kind if kind.ends_with("/*") => 1,
            _ => 2,
        }
    }
}

fn accepted(headers: &HeaderMap) -> Vec<Range> {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).filter_map(range).collect()
}

fn range(text: &str) -> Option<Range> {
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().filter(|kind| !kind.is_empty())?.to_ascii_lowercase();
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    // What is malformed is taken as liked: a strange header is no reason to refuse.
    let quality = quality.and_then(|quality| quality.trim().parse::<f32>().ok()).unwrap_or(1.0).clamp(0.0, 1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
    let quality = (quality * 1_000.0) as u16;
    Some(Range { kind, quality })
}

/// For resources that are served as JSON only.
pub(crate) async fn json_only(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match choose(request.headers(), &[JSON]) {
        Err(problem) if reads => problem.into_response(),
        _ => next.run(request).await,
    }
}

/// The media type in a header that holds one, without parameters; `None` where the header is not there.
pub(crate) fn sent(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or_default();
    Some(kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// A body that is to be JSON may leave its type out, but not name another. What `curl -d` says of every body, unless it
/// is told otherwise, says nothing.
pub(crate) fn demand_json(headers: &HeaderMap) -> Result<(), Problem> {
    match sent(headers) {
        Some(kind) if kind != JSON && kind != FORM => {
            Err(Problem::UnsupportedMediaType(format!("`{kind}` is not taken here; {JSON} is")))
        }
        _ => Ok(()),
    }
}

/// Bodies come as they are: a coded one would be published with its code and without its name.
pub(crate) fn refuse_codings(coding: Option<&HeaderValue>) -> Result<(), Problem> {
    match coding {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(Problem::UnsupportedMediaType("a body with Content-Encoding is not taken; send it as it is".into()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &str, offers: &[&'static str]) -> Option<&'static str> {
        choose(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]), offers).ok()
    }

    #[test]
    fn the_form_is_the_one_liked_best() {
        let all = [JSON, EVENTS, LINES];
        for (accept, expected) in [
            ("*/*", Some(JSON)),
            ("text/html, application/x-ndjson;q=0.9", Some(LINES)),
            ("Text/Event-Stream", Some(EVENTS)),
            ("application/json;q=0.5, text/event-stream", Some(EVENTS)),
            ("text/event-stream, application/json", Some(EVENTS)),
            ("application/json, text/event-stream", Some(JSON)),
            ("text/*", Some(EVENTS)),
            ("*/*, application/json;q=0", Some(EVENTS)),
            ("*/*, text/event-stream", Some(EVENTS)),
            ("text/html", None),
            ("application/json;q=0", None),
        ] {
            assert_eq!(chosen(accept, &all), expected, "{accept}");
        }
        assert_eq!(choose(&HeaderMap::new(), &all), Ok(JSON));
    }

    #[test]
    fn a_body_may_leave_its_type_out_but_not_name_another() {
        let of = |kind: &str| demand_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]));
        assert_eq!(demand_json(&HeaderMap::new()), Ok(()));
        assert_eq!(of("Application/JSON; charset=utf-8"), Ok(()));
        assert_eq!(of("application/x-www-form-urlencoded"), Ok(()));
        assert!(matches!(of("text/plain"), Err(Problem::UnsupportedMediaType(_))));
    }
}
