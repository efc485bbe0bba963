//! From an HTTP request to a WebSocket (RFC 6455 §4.2), and who is turned away.

use super::WebSocket;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{io, net::IpAddr};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout_at},
};

/// Bytes of the longest request that is read, all its headers together.
const LONGEST_REQUEST: usize = 8_192;

/// Headers of a request; one more is refused.
const MOST_HEADERS: usize = 64;

/// What MQTT is called among subprotocols, the one we would rather speak first: [MQTT-6.0.0-3], and what clients of
/// MQTT 3.1 have asked for since before there was a standard.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// RFC 6455 §1.3.
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a WebSocket listener serves, and to whom.
#[derive(Debug)]
pub(crate) struct Site {
    /// The one path.
    pub(crate) path: String,
    /// Pages that may connect beside the own ones; `*` is any.
    pub(crate) origins: Vec<String>,
    /// It listens on loopback: names other than `localhost` are not its own.
    pub(crate) is_loopback: bool,
}

/// A client that has become a WebSocket.
pub(crate) struct Upgraded<S> {
    pub(crate) stream: WebSocket<S>,
    /// A proxy says that it speaks for somebody else.
    pub(crate) is_proxied: bool,
}

/// Why a request does not become a WebSocket: the status and its reason in words.
type Refusal = (u16, &'static str);

/// Reads a request and answers it.
///
/// # Errors
/// The client was refused (it has been told), was not done by `deadline`, or is gone.
pub(crate) async fn upgrade<S>(mut stream: S, site: &Site, deadline: Instant) -> io::Result<Upgraded<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let exchange = async {
        let mut bytes = Vec::with_capacity(1_024);
        let (length, verdict) = read(&mut stream, &mut bytes, site).await?;
        let answer = match &verdict {
            Ok(accepted) => accepted.answer(),
            Err(refusal) => refuse(*refusal),
        };
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        match verdict {
            Ok(accepted) => Ok((bytes.split_off(length), accepted.is_proxied)),
            Err((status, why)) => {
                stream.shutdown().await?;
                Err(io::Error::other(format!("the request is answered with {status}: {why}")))
            }
        }
    };
    let (early, is_proxied) = timeout_at(deadline, exchange)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no WebSocket request in time"))??;
    Ok(Upgraded { stream: WebSocket::new(stream, early), is_proxied })
}

/// Reads until the request is whole; gives its length and what is to be said to it.
async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut Vec<u8>,
    site: &Site,
) -> io::Result<(usize, Result<Accepted, Refusal>)> {
    loop {
        let mut chunk = [0; 1_024];
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the client hung up within its request"));
        }
        bytes.extend_from_slice(&chunk[..count]);
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => return Ok((length, site.judge(&request))),
            Ok(httparse::Status::Partial) if bytes.len() < LONGEST_REQUEST => {}
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Ok((bytes.len(), Err((431, "the request's headers are too long"))));
            }
            Err(_) => return Ok((bytes.len(), Err((400, "this is no HTTP request")))),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Accepted {
    key: String,
    subprotocol: &'static str,
    is_proxied: bool,
}

impl Accepted {
    fn answer(&self) -> String {
        let key = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{}{KEY_SUFFIX}", self.key).as_bytes()));
        let subprotocol = self.subprotocol;
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {key}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
        )
    }
}

fn refuse((status, why): Refusal) -> String {
    let (name, more) = match status {
        403 => ("Forbidden", ""),
        404 => ("Not Found", ""),
        405 => ("Method Not Allowed", "Allow: GET\r\n"),
        426 => ("Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
        431 => ("Request Header Fields Too Large", ""),
        _ => ("Bad Request", ""),
    };
    let length = why.len() + 1;
    format!(
        "HTTP/1.1 {status} {name}\r\n{more}Content-Type: text/plain\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{why}\n"
    )
}

impl Site {
    fn judge(&self, request: &httparse::Request<'_, '_>) -> Result<Accepted, Refusal> {
        let headers = Headers(request.headers);
        let path = request.path.unwrap_or_default();
        if path.split('?').next() != Some(&self.path) {
            return Err((404, "there is nothing here; the path is gateways.mqtt.websocket.path"));
        }
        if request.method != Some("GET") {
            return Err((405, "a WebSocket begins with GET"));
        }
        let upgrades = headers.lists("connection", "upgrade") && headers.lists("upgrade", "websocket");
        if !upgrades || request.version != Some(1) || headers.one("sec-websocket-version") != Some("13") {
            return Err((426, "this is a WebSocket listener, version 13"));
        }
        let host = headers.one("host").ok_or((400, "the header Host is missing or repeated"))?;
        if headers.has("origin") {
            let origin = headers.one("origin").unwrap_or("null");
            if !self.lists(origin) && !self.is_own(origin, host) {
                return Err((403, "this page's origin is not listed in gateways.mqtt.websocket.origins"));
            }
        }
        let key = headers.one("sec-websocket-key").filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16));
        let key = key.ok_or((400, "the header Sec-WebSocket-Key is missing or wrong"))?.to_owned();
        let subprotocol = SUBPROTOCOLS
            .into_iter()
            .find(|known| headers.values("sec-websocket-protocol").any(|value| tokens(value).any(|it| it == *known)))
            .ok_or((400, "the subprotocol mqtt has to be among those asked for"))?; // [MQTT-6.0.0-3]
        let is_proxied = headers.has("forwarded") || headers.has("x-forwarded-for");
        Ok(Accepted { key, subprotocol, is_proxied })
    }

    fn lists(&self, origin: &str) -> bool {
        self.origins.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(origin))
    }

    /// Whether a page was served by the host and port that are asked for now.
    fn is_own(&self, origin: &str, host: &str) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => return false,
        };
        let bare = |text: &str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
        // A page whose name was made to resolve to 127.0.0.1 is of the same origin to its browser (DNS rebinding).
        bare(host) == bare(authority) && (!self.is_loopback || is_this_machine(host))
    }
}

/// Whether a host, with or without its port, is an address or `localhost`.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(name, _)| name),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

struct Headers<'a>(&'a [httparse::Header<'a>]);

impl<'a> Headers<'a> {
    /// Every value of a header; what is not text is the empty text.
    fn values(&self, name: &'static str) -> impl Iterator<Item = &'a str> {
        let matching = self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        matching.map(|header| std::str::from_utf8(header.value).unwrap_or_default().trim())
    }

    fn has(&self, name: &'static str) -> bool {
        self.values(name).next().is_some()
    }

    /// The value of a header that is there once.
    fn one(&self, name: &'static str) -> Option<&'a str> {
        let mut values = self.values(name);
        values.next().filter(|value| !value.is_empty() && values.next().is_none())
    }

    /// Whether a header whose values are lists holds this one, however it is written.
    fn lists(&self, name: &'static str, token: &str) -> bool {
        self.values(name).any(|value| tokens(value).any(|it| it.eq_ignore_ascii_case(token)))
    }
}

fn tokens(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        Site { path: "/mqtt".into(), origins: vec!["https://app.example.com".into()], is_loopback: true }
    }

    const GOOD: &[(&str, &str)] = &[
        ("Host", "localhost:8083"),
        ("Upgrade", "WebSocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", "other, mqtt"),
    ];

    /// What a request gets: the usual headers, with these in their place or beside them; an empty value removes one.
    fn judge(line: &str, changed: &[(&str, &str)]) -> Result<Accepted, u16> {
        let mut text = format!("{line}\r\n");
        let usual = GOOD.iter().filter(|(name, _)| !changed.iter().any(|(other, _)| name == other));
        for (name, value) in usual.chain(changed).filter(|(_, value)| !value.is_empty()) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        assert!(request.parse(text.as_bytes()).unwrap().is_complete());
        site().judge(&request).map_err(|(status, _)| status)
    }

    fn with(changed: &[(&str, &str)]) -> Result<Accepted, u16> {
        judge("GET /mqtt HTTP/1.1", changed)
    }

    #[test]
    fn the_example_of_the_rfc_is_answered_as_it_says() {
        let answer = with(&[]).unwrap().answer();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert!(answer.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"), "{answer}");
    }

    #[test]
    fn a_subprotocol_of_ours_must_be_asked_for() {
        let named = |value| with(&[("Sec-WebSocket-Protocol", value)]).map(|it| it.subprotocol);
        assert_eq!(named("mqttv3.1"), Ok("mqttv3.1"));
        assert_eq!(named("mqttv3.1, mqtt"), Ok("mqtt"));
        assert_eq!(named("MQTT"), Err(400));
        assert_eq!(named(""), Err(400));
    }

    #[test]
    fn what_is_no_websocket_request_is_told_what_would_be() {
        assert_eq!(judge("GET / HTTP/1.1", &[]), Err(404));
        assert_eq!(judge("GET /mqtts HTTP/1.1", &[]), Err(404));
        assert!(judge("GET /mqtt?token=1 HTTP/1.1", &[]).is_ok());
        assert_eq!(judge("POST /mqtt HTTP/1.1", &[]), Err(405));
        assert_eq!(judge("GET /mqtt HTTP/1.0", &[]), Err(426));
        for missing in ["Upgrade", "Connection", "Sec-WebSocket-Version"] {
            assert_eq!(with(&[(missing, "")]), Err(426), "{missing}");
        }
        for missing in ["Host", "Sec-WebSocket-Key"] {
            assert_eq!(with(&[(missing, "")]), Err(400), "{missing}");
        }
        assert_eq!(with(&[("Sec-WebSocket-Key", "dG9vIHNob3J0")]), Err(400));
        assert_eq!(with(&[("Host", "a"), ("Host", "b")]), Err(400));
    }

    #[test]
    fn a_page_of_another_origin_must_be_listed() {
        let from = |origin, host| with(&[("Origin", origin), ("Host", host)]).map(drop);
        assert_eq!(from("http://localhost:8083", "localhost:8083"), Ok(()));
        assert_eq!(from("http://127.0.0.1", "127.0.0.1:80"), Ok(()));
        assert_eq!(from("https://app.example.com", "localhost:8083"), Ok(()));
        assert_eq!(from("http://localhost:8080", "localhost:8083"), Err(403), "another port is another origin");
        assert_eq!(from("https://evil.example.com", "localhost:8083"), Err(403));
        assert_eq!(from("null", "localhost:8083"), Err(403));
        assert_eq!(from("http://evil.example.com:8083", "evil.example.com:8083"), Err(403), "DNS rebinding");
    }

    #[test]
    fn a_proxy_that_speaks_for_somebody_else_is_noticed() {
        assert!(!with(&[]).unwrap().is_proxied);
        assert!(with(&[("X-Forwarded-For", "192.0.2.1")]).unwrap().is_proxied);
    }
}
