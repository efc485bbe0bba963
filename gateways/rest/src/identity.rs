//! Who asks, by what name, and from which page.

use crate::{
    config::Config,
    problem::Problem,
    query::Query,
    state::{App, Connection},
};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, Method, Uri, header, request::Parts},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::net::IpAddr;
use waystation_broker::{Broker, ClientId, Credentials, Peer, Principal, Refusal};

/// Whoever sent a request, authenticated.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) principal: Principal,
    pub(crate) peer: Peer,
}

impl Who {
    /// Whoever sent a request to this target with these headers. Without a connection (a test of the routes alone) it
    /// is the server.
    pub(crate) async fn ask(
        app: &App,
        connection: Option<Connection>,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        let proxied = is_proxied(uri, headers, &app.config());
        let peer = connection.map_or(Peer::INTERNAL, |connection| connection.peer(proxied));
        let credentials = credentials(headers)?;
        let principal = app.broker.authenticate(&credentials, peer).await.map_err(|refusal| match refusal {
            Refusal::BadCredentials | Refusal::NotAuthorized => match credentials {
                Credentials::Anonymous => Problem::Unauthenticated("this server asks who you are".into()),
                _ => Problem::Unauthenticated(refusal.to_string()),
            },
            other => other.into(),
        })?;
        Ok(Self { principal, peer })
    }

    /// Whether operators' calls are open.
    pub(crate) fn may_admin(&self, broker: &Broker) -> bool {
        broker.may_admin(&self.principal, self.peer)
    }

    /// Whether `session` may be one with `overflow = "reject"`.
    pub(crate) fn may_reject(&self, broker: &Broker, session: &ClientId) -> bool {
        broker.may_reject(&self.principal, Some(session), self.peer)
    }

    /// Whether a session made by `owner` is this one's too; an anonymous one is anybody's.
    pub(crate) fn owns(&self, owner: Option<&str>) -> bool {
        owner.is_none() || owner == self.principal.name()
    }
}

impl FromRequestParts<App> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let connection = parts.extensions.get::<Connection>().copied();
        Self::ask(app, connection, &parts.uri, &parts.headers).await
    }
}

/// Somebody who may use what is meant for operators.
pub(crate) struct Admin(pub(crate) Who);

impl FromRequestParts<App> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let who = Who::from_request_parts(parts, app).await?;
        if who.may_admin(&app.broker) {
            Ok(Self(who))
        } else {
            Err(Problem::Forbidden("the right `admin` is needed".into()))
        }
    }
}

/// Whether a proxy may stand before it: it says so, or the request asks for a name that is not ours. With such a name
/// it may also be a page whose own name was made to resolve to this machine (DNS rebinding), which only a loopback
/// listener turns away.
fn is_proxied(uri: &Uri, headers: &HeaderMap, config: &Config) -> bool {
    headers.contains_key(header::FORWARDED)
        || headers.contains_key("x-forwarded-for")
        || !host(uri, headers).is_some_and(|host| is_ours(host_name(host), config))
}

/// What `Authorization` says (RFC 7617, RFC 6750).
fn credentials(headers: &HeaderMap) -> Result<Credentials, Problem> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let Some(line) = lines.next() else { return Ok(Credentials::Anonymous) };
    if lines.next().is_some() {
        return Err(Problem::BadRequest("the header Authorization stands twice".into()));
    }
    let bad = || Problem::Unauthenticated("the header Authorization is neither well-formed Basic nor Bearer".into());
    let (scheme, rest) = line.to_str().map_err(|_| bad())?.trim().split_once(' ').ok_or_else(bad)?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Credentials::Token(rest.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(bad());
    }
    let decoded = STANDARD.decode(rest).map_err(|_| bad())?;
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or_else(bad)?;
    let user = std::str::from_utf8(&decoded[..colon]).map_err(|_| bad())?.to_owned();
    Ok(Credentials::Password { user, password: Some(decoded[colon + 1..].to_vec().into()) })
}

/// What of a request's head decides whether it is let in.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    /// The address we listen on.
    pub(crate) local: IpAddr,
}

impl Head<'_> {
    /// A loopback listener answers to no name but its own: a page whose name was made to resolve to 127.0.0.1 is
    /// of the same origin to its browser (DNS rebinding).
    pub(crate) fn check_host(&self, config: &Config) -> Result<(), Problem> {
        let Some(host) = self.host() else {
            return Err(Problem::BadRequest("the header Host is missing, repeated or malformed".into()));
        };
        let name = host_name(host);
        if !self.local.to_canonical().is_loopback() || is_ours(name, config) {
            return Ok(());
        }
        Err(Problem::Misdirected(format!("`{name}` is not among gateways.rest.hosts")))
    }

    /// A page of another site changes nothing and holds nothing here unless it is listed.
    pub(crate) fn check_origin(&self, config: &Config) -> Result<(), Problem> {
        let origin = self.origin();
        let listed = origin.is_some_and(|origin| listed(origin, config));
        let changes = !matches!(*self.method, Method::GET | Method::HEAD | Method::OPTIONS);
        match origin {
            Some(origin) if changes && !listed && !self.is_own(origin) => Err(Problem::CrossOrigin(format!(
                "the origin `{origin}` is neither this server's nor among gateways.rest.cors_origins"
            ))),
            _ if self.is_from_another_site() && self.holds() && !listed => Err(Problem::CrossOrigin(
                "a page of another site that is not among gateways.rest.cors_origins may not hold a read".into(),
            )),
            _ => Ok(()),
        }
    }

    /// The origin, if it is one that is listed.
    pub(crate) fn listed_origin(&self, config: &Config) -> Option<&str> {
        self.origin().filter(|origin| listed(origin, config))
    }

    fn origin(&self) -> Option<&str> {
        // What is not even text is nobody's origin, and not ours.
        self.headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("null"))
    }

    fn host(&self) -> Option<&str> {
        host(self.uri, self.headers)
    }

    fn is_own(&self, origin: &str) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => return false,
        };
        let Some(host) = self.host() else { return false };
        let plain = |text: &str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
        plain(host) == plain(authority)
    }

    fn is_from_another_site(&self) -> bool {
        self.headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site")
    }

    /// Whether the request may evict a reader or keep a wait open.
    fn holds(&self) -> bool {
        let path = self.uri.path();
        ["/v1/sessions", "/v1/stream", "/v1/request"].iter().any(|held| path.starts_with(held))
            || self.headers.contains_key(crate::conditional::PREFER)
            || Query::parse(self.uri.query()).is_ok_and(|query| query.has("wait"))
    }
}

/// The host asked for: the absolute form of the target wins (RFC 9112 §3.2.2).
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    if let Some(authority) = uri.authority() {
        return Some(authority.as_str());
    }
    let mut lines = headers.get_all(header::HOST).iter();
    let line = lines.next()?.to_str().ok()?;
    (lines.next().is_none() && !line.is_empty()).then_some(line)
}

/// Whether nobody else can make this name resolve to us.
fn is_ours(name: &str, config: &Config) -> bool {
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || config.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn listed(origin: &str, config: &Config) -> bool {
    config.cors_origins.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(origin))
}

/// The host without its port and without the brackets of IPv6.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(name, _)| name);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn check(method: &Method, target: &str, local: &str, pairs: &[(&'static str, &str)]) -> Result<(), Problem> {
        let config = Config {
            hosts: vec!["broker.local".into()],
            cors_origins: vec!["https://app.example".into()],
            ..Config::default()
        };
        let (uri, headers) = (target.parse().unwrap(), with(pairs));
        let head = Head { method, uri: &uri, headers: &headers, local: local.parse().unwrap() };
        head.check_host(&config).and_then(|()| head.check_origin(&config))
    }

    #[test]
    fn loopback_answers_to_addresses_localhost_and_its_names_only() {
        for host in ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "broker.local:8080"] {
            assert_eq!(check(&Method::GET, "/", "127.0.0.1", &[("host", host)]), Ok(()), "{host}");
        }
        let refused = check(&Method::GET, "/", "127.0.0.1", &[("host", "evil.example")]);
        assert!(matches!(refused, Err(Problem::Misdirected(_))));
        let absolute = check(&Method::GET, "http://evil.example/", "::1", &[("host", "localhost")]);
        assert!(matches!(absolute, Err(Problem::Misdirected(_))));
        assert_eq!(check(&Method::GET, "/", "192.0.2.1", &[("host", "evil.example")]), Ok(()));
        assert!(matches!(check(&Method::GET, "/", "127.0.0.1", &[]), Err(Problem::BadRequest(_))));
    }

    #[test]
    fn a_foreign_name_is_a_proxys_or_a_rebound_pages() {
        let config = Config { hosts: vec!["broker.local".into()], ..Config::default() };
        let proxied =
            |pairs: &[(&'static str, &str)]| is_proxied(&"/v1/clients".parse().unwrap(), &with(pairs), &config);
        for own in ["127.0.0.1:8080", "localhost", "[::1]:8080", "broker.local"] {
            assert!(!proxied(&[("host", own)]), "{own}");
            assert!(proxied(&[("host", own), ("x-forwarded-for", "192.0.2.1")]), "{own}");
            assert!(proxied(&[("host", own), ("forwarded", "for=192.0.2.1")]), "{own}");
        }
        assert!(proxied(&[("host", "evil.example:8080")]));
    }

    #[test]
    fn a_change_needs_its_own_or_a_listed_origin() {
        let post =
            |origin| check(&Method::POST, "/v1/messages", "127.0.0.1", &[("host", "localhost:80"), ("origin", origin)]);
        assert_eq!(post("http://localhost"), Ok(()));
        assert_eq!(post("https://app.example"), Ok(()));
        for other in ["http://localhost:81", "https://localhost", "null", "https://evil.example"] {
            assert!(matches!(post(other), Err(Problem::CrossOrigin(_))), "{other}");
        }
        let get = check(&Method::GET, "/v1/topics/a", "127.0.0.1", &[("host", "localhost"), ("origin", "null")]);
        assert_eq!(get, Ok(()));
    }

    #[test]
    fn an_image_tag_elsewhere_evicts_no_reader() {
        let cross = [("host", "localhost"), ("sec-fetch-site", "cross-site")];
        for held in ["/v1/sessions/till/messages", "/v1/stream?filter=a", "/v1/topics/a?wait=5"] {
            assert!(matches!(check(&Method::GET, held, "127.0.0.1", &cross), Err(Problem::CrossOrigin(_))), "{held}");
        }
        assert_eq!(check(&Method::GET, "/v1/topics/a", "127.0.0.1", &cross), Ok(()));
        let listed = [cross[0], cross[1], ("origin", "https://app.example")];
        assert_eq!(check(&Method::GET, "/v1/stream?filter=a", "127.0.0.1", &listed), Ok(()));
    }

    #[test]
    fn basic_and_bearer_are_read() {
        let basic = format!("Basic {}", STANDARD.encode("anna:pass:word"));
        match credentials(&with(&[("authorization", &basic)])) {
            Ok(Credentials::Password { user, password }) => {
                assert_eq!((user.as_str(), password.as_deref()), ("anna", Some(&b"pass:word"[..])));
            }
            _ => panic!("not read"),
        }
        let bearer = credentials(&with(&[("authorization", "bearer a.b.c")]));
        assert!(matches!(bearer, Ok(Credentials::Token(token)) if token == "a.b.c"));
        for bad in ["Basic", "Basic %%%", "Basic YQ==", "Digest x"] {
            assert!(matches!(credentials(&with(&[("authorization", bad)])), Err(Problem::Unauthenticated(_))), "{bad}");
        }
    }
}
