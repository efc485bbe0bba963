//! What of a request's head decides whether it is let in: the name it asks for, and the page it comes from.

use crate::{conditional::PREFER, config::Config, problem::Problem, query::Query};
use axum::http::{HeaderName, HeaderValue, Method, header, request::Parts};
use std::net::IpAddr;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What of a request's head decides whether it is let in. Read in one go: it is looked at for every request.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    query: Option<&'a str>,
    /// The host asked for; `None`: missing, repeated or malformed.
    host: Option<&'a str>,
    /// Whether nobody else can make this host's name resolve to us.
    host_is_ours: bool,
    origin: Option<&'a HeaderValue>,
    cross_site: bool,
    forwarded: bool,
    prefers: bool,
    pub(crate) names_itself: bool,
    pub(crate) id: Option<&'a HeaderValue>,
    pub(crate) coding: Option<&'a HeaderValue>,
}

impl<'a> Head<'a> {
    pub(crate) fn read(request: &'a Parts, config: &Config) -> Self {
        let uri = &request.uri;
        let mut head = Self {
            method: &request.method,
            path: uri.path(),
            query: uri.query(),
            host: None,
            host_is_ours: false,
            origin: None,
            cross_site: false,
            forwarded: false,
            prefers: false,
            names_itself: false,
            id: None,
            coding: None,
        };
        let mut hosts = 0;
        for (name, value) in &request.headers {
            if name == header::HOST {
                hosts += 1;
                head.host = value.to_str().ok().filter(|host| !host.is_empty());
            } else if name == header::ORIGIN {
                head.origin = head.origin.or(Some(value));
            } else if name == header::AUTHORIZATION {
                head.names_itself = true;
            } else if name == header::CONTENT_ENCODING {
                head.coding = head.coding.or(Some(value));
            } else if name == header::FORWARDED || name == FORWARDED_FOR {
                head.forwarded = true;
            } else if name == FETCH_SITE {
                head.cross_site |= value == "cross-site";
            } else if name == PREFER {
                head.prefers = true;
            } else if name == REQUEST_ID {
                head.id = head.id.or(Some(value));
            }
        }
        if hosts != 1 {
            head.host = None;
        }
        // The absolute form of the target wins (RFC 9112 §3.2.2).
        head.host = uri.authority().map(|authority| authority.as_str()).or(head.host);
        head.host_is_ours = head.host.is_some_and(|host| is_ours(host_name(host), config));
        head
    }

    /// Whether a proxy may stand before it: it says so, or the request asks for a name that is not ours. With such a
    /// name it may also be a page whose own name was made to resolve to this machine (DNS rebinding), which only a
    /// loopback listener turns away.
    pub(crate) fn is_proxied(&self) -> bool {
        self.forwarded || !self.host_is_ours
    }

    /// The length of the path, and of the whole target.
    pub(crate) fn target(&self) -> (usize, usize) {
        (self.path.len(), self.path.len() + self.query.map_or(0, |query| query.len() + 1))
    }

    /// A loopback listener answers to no name but its own: a page whose name was made to resolve to 127.0.0.1 is
    /// of the same origin to its browser (DNS rebinding).
    pub(crate) fn check_host(&self, local: IpAddr) -> Result<(), Problem> {
        let Some(host) = self.host else {
            return Err(Problem::BadRequest("the header Host is missing, repeated or malformed".into()));
        };
        if self.host_is_ours || !local.to_canonical().is_loopback() {
            return Ok(());
        }
        Err(Problem::Misdirected(format!("`{}` is not among gateways.rest.hosts", host_name(host))))
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
            _ if self.cross_site && self.holds() && !listed => Err(Problem::CrossOrigin(
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
        self.origin.map(|origin| origin.to_str().unwrap_or("null"))
    }

    fn is_own(&self, origin: &str) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => return false,
        };
        let Some(host) = self.host else { return false };
        let plain = |text: &str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
        plain(host) == plain(authority)
    }

    /// Whether the request may evict a reader or keep a wait open.
    fn holds(&self) -> bool {
        ["/v1/sessions", "/v1/stream", "/v1/request"].iter().any(|held| self.path.starts_with(held))
            || self.prefers
            || Query::parse(self.query).is_ok_and(|query| query.has("wait"))
    }
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
    use axum::http::Request;

    fn request(method: &Method, target: &str, pairs: &[(&'static str, &str)]) -> Parts {
        let request = Request::builder().method(method).uri(target);
        let request = pairs.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    fn check(method: &Method, target: &str, local: &str, pairs: &[(&'static str, &str)]) -> Result<(), Problem> {
        let config = Config {
            hosts: vec!["broker.local".into()],
            cors_origins: vec!["https://app.example".into()],
            ..Config::default()
        };
        let request = request(method, target, pairs);
        let head = Head::read(&request, &config);
        head.check_host(local.parse().unwrap()).and_then(|()| head.check_origin(&config))
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
        let proxied = |pairs: &[(&'static str, &str)]| {
            Head::read(&request(&Method::GET, "/v1/clients", pairs), &config).is_proxied()
        };
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
}
