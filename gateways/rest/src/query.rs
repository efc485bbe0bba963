//! Query strings and paths: decoded once, strictly, and nothing in them ignored.

use crate::{identity::Admin, problem::Problem, state::App};
use axum::{
    extract::FromRequestParts,
    http::{Method, request::Parts},
};
use percent_encoding::percent_decode_str;
use std::{borrow::Cow, str::FromStr};
use waystation_broker::{ClientId, Topic};
use waystation_kit::dead;

/// The parameters of a query string that nobody has asked for yet.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Splits and decodes (`+` is a space, as forms have it).
    pub(crate) fn parse(raw: Option<&str>) -> Result<Self, Problem> {
        let mut pairs = Vec::new();
        for pair in raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((form_decode(key)?, form_decode(value)?));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter that may stand once.
    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, Problem> {
        let Some(at) = self.0.iter().position(|(k, _)| k == key) else { return Ok(None) };
        let (_, value) = self.0.remove(at);
        match self.all(key).len() {
            0 => Ok(Some(value)),
            n => Err(Problem::BadQuery(format!("`{key}` stands {} times; once is right", n + 1))),
        }
    }

    /// The same, parsed; `right` says what would be.
    pub(crate) fn parsed<T: FromStr>(&mut self, key: &str, right: &str) -> Result<Option<T>, Problem> {
        self.text(key)?
            .map(|text| text.parse().map_err(|_| Problem::BadQuery(format!("`{key}={text}`: {right} is right"))))
            .transpose()
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, key: &str) -> Result<Option<bool>, Problem> {
        self.parsed(key, "`true` or `false`")
    }

    /// Every value of a parameter that may stand many times, in order.
    pub(crate) fn all(&mut self, key: &str) -> Vec<String> {
        self.0.extract_if(.., |(k, _)| k == key).map(|(_, value)| value).collect()
    }

    /// Whether a parameter is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    /// Every parameter whose name goes on after `prefix`, by the rest of its name, in order.
    pub(crate) fn under(&mut self, prefix: &str) -> Vec<(String, String)> {
        self.0
            .extract_if(.., |(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key[prefix.len()..].to_owned(), value))
            .collect()
    }

    /// Nothing may be left: a misspelt parameter must not be ignored in silence.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(Problem::BadQuery(format!("`{key}` is no parameter of this call"))),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::parse(parts.uri.query())
    }
}

/// The topic that stands in the path below `/v1/topics/` or `/v1/request/`. Taken from the request target as it came: no level is
/// dropped, joined or resolved.
#[derive(Debug)]
pub(crate) struct TopicPath(pub(crate) Topic);

impl TopicPath {
    /// Where topics as resources begin.
    pub(crate) const UNDER_TOPICS: &str = "/v1/topics/";

    pub(crate) fn of(path: &str) -> Result<Self, Problem> {
        let rest = path.strip_prefix(Self::UNDER_TOPICS).or_else(|| path.strip_prefix("/v1/request/"));
        Ok(Self(Topic::parse(&decode(rest.unwrap_or_default())?)?))
    }
}

impl<S: Sync> FromRequestParts<S> for TopicPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(parts.uri.path())
    }
}

/// The name that stands in the path below a collection: `/v1/clients/{name}`.
#[derive(Debug)]
pub(crate) struct PathName(pub(crate) String);

impl<S: Sync> FromRequestParts<S> for PathName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(decode(parts.uri.path().split('/').nth(3).unwrap_or_default())?.into_owned()))
    }
}

/// The session that stands in the path after `/v1/sessions/`: a client's, or for operators one of dead letters.
#[derive(Debug)]
pub(crate) struct SessionPath(pub(crate) ClientId);

impl FromRequestParts<App> for SessionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let rest = parts.uri.path().strip_prefix("/v1/sessions/").unwrap_or_default();
        // A dead-letter session's name holds a slash, which may stand there as it is; a bridge's holds two.
        let end = match rest.strip_prefix(dead::SESSIONS) {
            Some(name) => {
                let bridge = if name.starts_with("bridge/") { "bridge/".len() } else { 0 };
                let end = name[bridge..].find('/').map_or(name.len(), |end| bridge + end);
                dead::SESSIONS.len() + end
            }
            None => rest.find('/').unwrap_or(rest.len()),
        };
        let id = decode(&rest[..end])?;
        let bad = |why: &str| Problem::BadRequest(format!("the session id {why}"));
        let id = ClientId::new(&id).ok_or_else(|| bad("is empty, longer than 65535 bytes, or holds U+0000"))?;
        if id.is_own() {
            if !id.as_str().starts_with(dead::SESSIONS) || parts.method == Method::PUT {
                return Err(bad("begins with `$`; those are the server's own"));
            }
            // Dead letters are there to be read, by operators.
            Admin::from_request_parts(parts, app).await?;
        }
        Ok(Self(id))
    }
}

/// Percent-decodes once; a `%` that starts no octet, or octets that are no UTF-8, are refused.
pub(crate) fn decode(text: &str) -> Result<Cow<'_, str>, Problem> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let bad = |why: &str| Problem::BadRequest(format!("bad percent-encoding: {why}"));
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('%') {
        let octet = bytes.get(at + 1..at + 3).ok_or_else(|| bad("a `%` at the end"))?;
        if !octet.iter().all(u8::is_ascii_hexdigit) {
            return Err(bad("a `%` without two hexadecimal digits"));
        }
    }
    percent_decode_str(text).decode_utf8().map_err(|_| bad("not UTF-8"))
}

fn form_decode(text: &str) -> Result<String, Problem> {
    if text.contains('+') {
        return decode(&text.replace('+', " ")).map(Cow::into_owned);
    }
    decode(text).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    async fn topic(target: &str) -> Result<String, Problem> {
        let (mut parts, ()) = Request::builder().uri(target).body(()).unwrap().into_parts();
        TopicPath::from_request_parts(&mut parts, &()).await.map(|TopicPath(topic)| topic.as_str().to_owned())
    }

    #[tokio::test]
    async fn a_topic_is_decoded_once_and_keeps_its_empty_levels() {
        for (target, expected) in [
            ("/v1/topics/a/b", "a/b"),
            ("/v1/topics//a//b/", "/a//b/"),
            ("/v1/topics/a%2Fb", "a/b"),
            ("/v1/topics/a%252Fb", "a%2Fb"),
            ("/v1/topics/a/./../b", "a/./../b"),
            ("/v1/topics/gr%C3%BCn", "grün"),
            ("/v1/topics/a+b?qos=1", "a+b"),
        ] {
            match topic(target).await {
                Ok(found) => assert_eq!(found, expected),
                Err(problem) => assert!(target.contains('+'), "{target}: {problem:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_topic_that_is_none_is_refused() {
        for target in ["/v1/topics/", "/v1/topics/a%", "/v1/topics/a%2", "/v1/topics/a%zz", "/v1/topics/%FF"] {
            assert_eq!(topic(target).await.unwrap_err().status(), 400, "{target}");
        }
        for target in ["/v1/topics/a%00", "/v1/topics/a/%23", "/v1/topics/a/%2B", "/v1/topics/a/+"] {
            assert!(matches!(topic(target).await, Err(Problem::BadTopic(_))), "{target}");
        }
    }

    #[test]
    fn a_query_is_used_up_or_refused() {
        let mut query = Query::parse(Some("qos=1&user.a=x+y&user.b=%2B&user.a=z&typo=1")).unwrap();
        assert_eq!(query.parsed::<u8>("qos", "a number").unwrap(), Some(1));
        let user = query.under("user.");
        assert_eq!(user, [("a", "x y"), ("b", "+"), ("a", "z")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert!(matches!(query.finish(), Err(Problem::BadQuery(text)) if text.contains("typo")));
    }

    #[test]
    fn a_parameter_given_twice_or_wrongly_is_refused() {
        assert!(Query::parse(Some("qos=1&qos=2")).unwrap().text("qos").is_err());
        assert!(Query::parse(Some("retain=yes")).unwrap().flag("retain").is_err());
        assert!(Query::parse(Some("a=%GG")).is_err());
        assert!(Query::parse(None).unwrap().finish().is_ok());
    }
}
