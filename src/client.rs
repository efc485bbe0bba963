//! The client side of each road, for `pub` and `sub`.

pub(crate) mod http;
pub(crate) mod mqtt;
pub(crate) mod mqtt_sn;
mod tls;
mod tunnel;
mod websocket;

use anyhow::{Context, bail};
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
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
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
}
