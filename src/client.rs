//! The client side of each road, for `pub` and `sub`.

pub(crate) mod http;
pub(crate) mod mqtt;
pub(crate) mod mqtt_sn;

use anyhow::{Context, bail};
use reqwest::Url;

/// What a URL asks for.
#[derive(Debug)]
pub(crate) enum Target {
    Mqtt(Address),
    MqttSn(Address),
    Http(Url),
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
            "mqtt" => Ok(Self::Mqtt(address(1883)?)),
            "mqttsn" => Ok(Self::MqttSn(address(1884)?)),
            "http" | "https" => Ok(Self::Http(url)),
            other => bail!("--url {text}: {other}:// is not spoken here; known: mqtt, mqttsn, http, https"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_road_host_and_port() {
        let Target::Mqtt(address) = Target::parse("mqtt://broker").unwrap() else { panic!("not MQTT") };
        assert_eq!(address.to_string(), "broker:1883");
        let Target::MqttSn(address) = Target::parse("mqttsn://[::1]:99").unwrap() else { panic!("not MQTT-SN") };
        assert_eq!(address.to_string(), "[::1]:99");
        assert!(Target::parse("ftp://x").is_err());
        assert!(Target::parse("nonsense").is_err());
    }
}
