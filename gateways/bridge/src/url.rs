//! Where the far side is: `mqtt://host[:port]`, `mqtts://host[:port]`.

use std::fmt;

/// The far side's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
}

impl Url {
    /// What is wrong with the text, and what would be right, comes back as an error.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        const RIGHT: &str = "mqtt://HOST:PORT or mqtts://HOST:PORT is right";
        let wrong = |what: &str| Err(format!("{what}; {RIGHT}"));
        let (scheme, rest) = match text.split_once("://") {
            Some(parts) => parts,
            None if text.is_empty() => return wrong("is missing"),
            None => return wrong(&format!("`{text}` is no URL")),
        };
        let (tls, default) = match scheme {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            _ => return wrong(&format!("`{scheme}` is no scheme of a bridge")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            // Not shown: it may hold a password.
            return Err("holds a user; name it in username, and its password in secret_file or secret_env".into());
        }
        if rest.contains(['/', '?', '#']) {
            return wrong("has a path, which MQTT knows nothing of");
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let Some((host, after)) = rest.split_once(']') else { return wrong("has a [ without its ]") };
                if host.parse::<std::net::Ipv6Addr>().is_err() {
                    return wrong(&format!("`{host}` is no IPv6 address"));
                }
                match after.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if after.is_empty() => (host, None),
                    None => return wrong(&format!("`{after}` is no port")),
                }
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return wrong("names no host");
        }
        let port = match port.map(str::parse) {
            None => default,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => return wrong("has no port from 1 to 65535 after the colon"),
        };
        Ok(Self { host: host.to_owned(), port, tls })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_addresses_and_ports_are_understood() {
        for (text, shown) in [
            ("mqtt://broker.example.com", "mqtt://broker.example.com:1883"),
            ("mqtts://broker.example.com/", "mqtts://broker.example.com:8883"),
            ("mqtts://10.0.0.1:443", "mqtts://10.0.0.1:443"),
            ("mqtt://[::1]:1884", "mqtt://[::1]:1884"),
            ("mqtt://[::1]", "mqtt://[::1]:1883"),
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_broker_is_refused_with_what_would_be_right() {
        for (text, why) in [
            ("", "is missing"),
            ("broker", "is no URL"),
            ("http://broker", "`http` is no scheme"),
            ("mqtt://", "names no host"),
            ("mqtt://:1883", "names no host"),
            ("mqtt://a b", "names no host"),
            ("mqtt://host:0", "no port"),
            ("mqtt://host:x", "no port"),
            ("mqtt://host/path", "has a path"),
            ("mqtt://[::1", "without its ]"),
            ("mqtt://[zz]", "no IPv6"),
            ("mqtt://[::1]1883", "is no port"),
        ] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.contains(why) && error.contains("mqtts://HOST:PORT is right"), "{text}: {error}");
        }
        let error = Url::parse("mqtt://user:hush@host").unwrap_err();
        assert!(error.contains("secret_file") && !error.contains("hush"), "{error}");
    }
}
