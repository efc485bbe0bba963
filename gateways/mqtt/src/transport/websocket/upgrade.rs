//! From an HTTP request to a WebSocket (RFC 6455 §4.2), and who is turned away.

use super::{WebSocket, limits};
use std::{io, net::IpAddr};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Error,
        error::ProtocolError,
        handshake::server::{ErrorResponse, Request, Response, write_response},
        http::{HeaderMap, HeaderValue, Response as HttpResponse, StatusCode},
        protocol::Role,
    },
};

/// What MQTT is called among subprotocols, the one we would rather speak first: [MQTT-6.0.0-3], and what clients of
/// MQTT 3.1 have asked for since before there was a standard.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

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
type Refusal = (StatusCode, &'static str);

/// Reads a request and answers it. `max_packet_size` is the largest MQTT packet that will be taken, in bytes.
///
/// # Errors
/// The client was refused or sent no WebSocket request (it has been told), was not done by `deadline`, or is gone.
pub(crate) async fn upgrade<S>(
    stream: S,
    site: &Site,
    max_packet_size: u32,
    deadline: Instant,
) -> io::Result<Upgraded<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    timeout_at(deadline, answer(stream, site, max_packet_size))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no WebSocket request in time"))?
}

async fn answer<S>(mut stream: S, site: &Site, max_packet_size: u32) -> io::Result<Upgraded<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut is_proxied = false;
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let judge = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let subprotocol = site.judge(request.uri().path(), request.headers()).map_err(refuse)?;
        response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(subprotocol));
        is_proxied = request.headers().contains_key("forwarded") || request.headers().contains_key("x-forwarded-for");
        Ok(response)
    };
    // The library keeps nothing of what it read, and says nothing to a request that is none for a WebSocket.
    if let Err(error) = accept_hdr_async(&mut stream, judge).await {
        if let Error::Protocol(_) | Error::HttpFormat(_) = error {
            turn_away(&mut stream, &error).await?;
        }
        return Err(super::other(error));
    }
    let messages = WebSocketStream::from_raw_socket(stream, Role::Server, Some(limits(max_packet_size))).await;
    Ok(Upgraded { stream: WebSocket::new(messages), is_proxied })
}

fn refuse((status, why): Refusal) -> ErrorResponse {
    let mut response = HttpResponse::new(Some(format!("{why}\n")));
    *response.status_mut() = status;
    response
}

/// Answers a request that the library would not look at further.
async fn turn_away<S: AsyncWrite + Unpin>(stream: &mut S, error: &Error) -> io::Result<()> {
    let (refusal, headers): (Refusal, &[(&'static str, &'static str)]) = match error {
        Error::Protocol(ProtocolError::WrongHttpMethod) => {
            ((StatusCode::METHOD_NOT_ALLOWED, "a WebSocket begins with GET"), &[("allow", "GET")])
        }
        // RFC 9110 §15.5.22, RFC 6455 §4.4.
        Error::Protocol(
            ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingUpgradeWebSocketHeader
            | ProtocolError::MissingSecWebSocketVersionHeader,
        ) => (
            (StatusCode::UPGRADE_REQUIRED, "here is MQTT over WebSocket, version 13"),
            &[("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", "13")],
        ),
        _ => ((StatusCode::BAD_REQUEST, "this is no WebSocket request (RFC 6455, section 4.1)"), &[]),
    };
    let mut response = refuse(refusal);
    for (name, value) in headers {
        response.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    response.headers_mut().append("connection", HeaderValue::from_static("close"));
    let mut bytes = Vec::new();
    write_response(&mut bytes, &response).map_err(super::other)?;
    bytes.extend_from_slice(response.body().as_deref().unwrap_or_default().as_bytes());
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

impl Site {
    /// What the library has not looked at. Gives the subprotocol chosen.
    fn judge(&self, path: &str, headers: &HeaderMap) -> Result<&'static str, Refusal> {
        if path != self.path {
            return Err((StatusCode::NOT_FOUND, "there is nothing here; the path is gateways.mqtt.websocket.path"));
        }
        let host = one(headers, "host").ok_or((StatusCode::BAD_REQUEST, "the header Host is missing or repeated"))?;
        if headers.contains_key("origin") {
            let origin = one(headers, "origin").unwrap_or("null");
            if !self.lists(origin) && !self.is_own(origin, host) {
                let why = "this page's origin is not listed in gateways.mqtt.websocket.origins";
                return Err((StatusCode::FORBIDDEN, why));
            }
        }
        let asked = headers.get_all("sec-websocket-protocol");
        let asks = |known: &str| {
            let mut values = asked.iter().filter_map(|value| value.to_str().ok());
            values.any(|value| value.split(',').any(|it| it.trim() == known))
        };
        SUBPROTOCOLS
            .into_iter()
            .find(|known| asks(known))
            .ok_or((StatusCode::BAD_REQUEST, "the subprotocol mqtt has to be among those asked for")) // [MQTT-6.0.0-3]
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

/// The value of a header that is there once.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::http::HeaderName;

    fn site() -> Site {
        Site { path: "/mqtt".into(), origins: vec!["https://app.example.com".into()], is_loopback: true }
    }

    /// What a request gets: a good one, with these headers in the place of the usual ones, or without them if empty.
    fn judge(path: &str, changed: &[(&'static str, &str)]) -> Result<&'static str, u16> {
        let usual = [("host", "localhost:8083"), ("sec-websocket-protocol", "other, mqtt")];
        let usual = usual.iter().filter(|(name, _)| !changed.iter().any(|(other, _)| name == other));
        let mut headers = HeaderMap::new();
        for (name, value) in usual.chain(changed).filter(|(_, value)| !value.is_empty()) {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        site().judge(path, &headers).map_err(|(status, _)| status.as_u16())
    }

    #[test]
    fn a_subprotocol_of_ours_must_be_asked_for() {
        let named = |value| judge("/mqtt", &[("sec-websocket-protocol", value)]);
        assert_eq!(named("mqttv3.1"), Ok("mqttv3.1"));
        assert_eq!(named("mqttv3.1, mqtt"), Ok("mqtt"));
        assert_eq!(named("MQTT"), Err(400));
        assert_eq!(named(""), Err(400));
    }

    #[test]
    fn there_is_one_path_and_one_host() {
        assert_eq!(judge("/", &[]), Err(404));
        assert_eq!(judge("/mqtts", &[]), Err(404));
        assert_eq!(judge("/mqtt", &[]), Ok("mqtt"));
        assert_eq!(judge("/mqtt", &[("host", "")]), Err(400));
        assert_eq!(judge("/mqtt", &[("host", "a"), ("host", "b")]), Err(400));
    }

    #[test]
    fn a_page_of_another_origin_must_be_listed() {
        let from = |origin, host| judge("/mqtt", &[("origin", origin), ("host", host)]).map(drop);
        assert_eq!(from("http://localhost:8083", "localhost:8083"), Ok(()));
        assert_eq!(from("http://127.0.0.1", "127.0.0.1:80"), Ok(()));
        assert_eq!(from("https://app.example.com", "localhost:8083"), Ok(()));
        assert_eq!(from("http://localhost:8080", "localhost:8083"), Err(403), "another port is another origin");
        assert_eq!(from("https://evil.example.com", "localhost:8083"), Err(403));
        assert_eq!(from("null", "localhost:8083"), Err(403));
        assert_eq!(from("http://evil.example.com:8083", "evil.example.com:8083"), Err(403), "DNS rebinding");
    }
}
