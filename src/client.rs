//! The client side of each road, for `pub` and `sub`.

pub(crate) mod http;
pub(crate) mod mqtt;
pub(crate) mod mqtt_sn;
mod tls;
mod tunnel;
mod websocket;

use crate::cli::Road;
use anyhow::{Context, bail};
use percent_encoding::percent_decode_str;
use reqwest::Url;

/// What a URL asks for.
#[derive(Debug)]
pub(crate) enum Target {
    Mqtt(Way),
    MqttSn(Address),
    Http(Url),
}

/// How to reach an MQTT broker.
#[derive(Debug)]
pub(crate) enum Way {
    Plain(Address),
    Tls(Address),
    /// The http:// or https:// address of a WebSocket.
    WebSocket(Url),
}

/// A host and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(address) | Self::Tls(address) => address.fmt(f),
            // As it was given: http is ws, https is wss.
            Self::WebSocket(url) => write!(f, "{}", url.as_str().replacen("http", "ws", 1)),
        }
    }
}

impl Target {
    /// Where `road` leads. A user and password in its URL become its own, unless it names a user already.
    pub(crate) fn of(road: &mut Road) -> anyhow::Result<Self> {
        let Ok(mut url) = road.url.parse::<Url>() else { return Self::parse(&road.url) };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        if road.user.is_none() && !url.username().is_empty() {
            road.user = Some(decoded(url.username()));
            road.password = road.password.take().or_else(|| url.password().map(decoded));
        }
        // Messages repeat the URL, and whoever reads them needs no password.
        if url.set_username("").and_then(|()| url.set_password(None)).is_ok() {
            road.url = url.into();
        }
        Self::parse(&road.url)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let url: Url = text.parse().with_context(|| format!("--url {text}"))?;
        let address = |default: u16| -> anyhow::Result<Address> {
            let host =
                url.host_str().filter(|host| !host.is_empty()).with_context(|| format!("--url {text}: no host"))?;
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            Ok(Address { host, port: url.port().unwrap_or(default) })
        };
        match url.scheme() {
            "mqtt" => Ok(Self::Mqtt(Way::Plain(address(1883)?))),
            "mqtts" => Ok(Self::Mqtt(Way::Tls(address(8883)?))),
            "ws" | "wss" => {
                // ws:// and http:// have the same ports and the same form.
                let mut url: Url = text.replacen("ws", "http", 1).parse().with_context(|| format!("--url {text}"))?;
                if url.path() == "/" {
                    url.set_path(WEBSOCKET_PATH);
                }
                Ok(Self::Mqtt(Way::WebSocket(url)))
            }
            "mqttsn" => Ok(Self::MqttSn(address(1884)?)),
            "http" | "https" => Ok(Self::Http(url)),
            other => {
                bail!("--url {text}: {other}:// is not spoken here; known: mqtt, mqtts, ws, wss, mqttsn, http, https")
            }
        }
    }
}

/// Where MQTT is by custom.
const WEBSOCKET_PATH: &str = "/mqtt";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn urls_name_road_host_and_port() {
        let shown = |text: &str| match Target::parse(text).unwrap() {
            Target::Mqtt(way) => way.to_string(),
            Target::MqttSn(address) => address.to_string(),
            Target::Http(url) => url.to_string(),
        };
        assert_eq!(shown("mqtt://broker"), "broker:1883");
        assert_eq!(shown("mqtts://broker"), "broker:8883");
        assert_eq!(shown("ws://broker:8083"), "ws://broker:8083/mqtt");
        assert_eq!(shown("wss://broker/elsewhere"), "wss://broker/elsewhere");
        assert_eq!(shown("mqttsn://[::1]:99"), "[::1]:99");
        assert!(Target::parse("ftp://x").is_err());
        assert!(Target::parse("nonsense").is_err());
    }

    /// User, password, and the URL that is left.
    fn road(arguments: &[&str]) -> (Option<String>, Option<String>, String) {
        use clap::Parser;
        let line = ["waystation", "pub", "-t", "a", "-m", "x", "--url"].iter().chain(arguments);
        let Some(Command::Pub(mut args)) = Cli::try_parse_from(line).unwrap().command else { panic!("no `pub`") };
        let _ = Target::of(&mut args.road);
        (args.road.user, args.road.password, args.road.url)
    }

    #[test]
    fn a_login_in_the_url_counts_unless_there_is_a_user_beside_it_and_is_not_repeated() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            road(&["mqtt://anna:p%40ss@broker:1883"]),
            (some("anna"), some("p@ss"), "mqtt://broker:1883".into())
        );
        assert_eq!(road(&["wss://anna@broker/mqtt", "-P", "x"]), (some("anna"), some("x"), "wss://broker/mqtt".into()));
        assert_eq!(
            road(&["http://anna:secret@broker/", "-u", "ben"]),
            (some("ben"), None, "http://broker/".into()),
            "another user's password is nobody's"
        );
        assert_eq!(road(&["ftp://anna:secret@broker/"]).2, "ftp://broker/");
        assert_eq!(road(&["nonsense"]), (None, None, "nonsense".into()));
    }
}
