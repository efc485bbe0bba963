//! One `[[gateways.bridge]]`.

use crate::{loops, route, url::Url};
use serde::{Deserialize, Serialize};
use waystation_broker::{Filter, Qos, Topic};
use waystation_kit::{InvalidConfig, tls::client::ClientFiles};

/// One table `[[gateways.bridge]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Its name, by which it is switched, shown and counted: 1 to 64 letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The far side: `mqtt://HOST:PORT` or `mqtts://HOST:PORT`.
    pub url: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// What the far side knows us by; "": made of the bridge's name and a number that this server keeps.
    pub client_id: String,
    /// Who logs in; "": nobody.
    pub username: String,
    /// The file that holds the password, one final newline cut; "": none.
    pub secret_file: String,
    /// The environment variable that holds the password; "": none.
    pub secret_env: String,
    /// The file of the only authorities whose servers are believed; "": those of the system.
    pub ca: String,
    /// The file of our own certificate; "": none.
    pub cert: String,
    /// The file of its private key.
    pub key: String,
    /// The application protocols offered, most wanted first.
    pub alpn: Vec<String>,
    /// Seconds of silence after which the far side is asked whether it is still there; 0: never.
    pub keep_alive_s: u16,
    /// Whether each connection begins with a new session on the far side; what was published there meanwhile is lost.
    pub clean_start: bool,
    /// What waits here while the far side is away.
    pub queue: Queue,
    /// A topic on the far side that holds `1` while we are connected and `0` else; "": none.
    pub state_topic: String,
    /// What crosses.
    pub route: Vec<Route>,
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Protocol {
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V311,
    /// MQTT 5.0.
    #[default]
    #[serde(rename = "5")]
    V5,
}

/// The bounds of what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Messages, in place of `limits.max_queued_messages`.
    pub max_messages: u32,
    /// Bytes, in place of `limits.max_queued_bytes`.
    pub max_bytes: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self { max_messages: 1_000_000, max_bytes: 1_073_741_824 }
    }
}

/// One `[[gateways.bridge.route]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Which way messages go.
    pub direction: Direction,
    /// Which, by their topics without the prefixes.
    pub filter: String,
    /// Most QoS to carry.
    #[serde(default = "one")]
    pub qos: u8,
    /// What becomes of the retain flag.
    #[serde(default)]
    pub retain: Retain,
    /// What local topics begin with before the filter.
    #[serde(default)]
    pub local_prefix: String,
    /// What remote topics begin with before the filter.
    #[serde(default)]
    pub remote_prefix: String,
}

fn one() -> u8 {
    1
}

/// Which way messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From here to the far side.
    Out,
    /// From the far side to here.
    In,
    /// Either way.
    Both,
}

/// What becomes of the retain flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retain {
    /// It stays.
    #[default]
    Keep,
    /// It is taken off: state crosses as an event.
    Strip,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: String::new(),
            protocol: Protocol::V5,
            client_id: String::new(),
            username: String::new(),
            secret_file: String::new(),
            secret_env: String::new(),
            ca: String::new(),
            cert: String::new(),
            key: String::new(),
            alpn: Vec::new(),
            keep_alive_s: 60,
            clean_start: false,
            queue: Queue::default(),
            state_topic: String::new(),
            route: Vec::new(),
        }
    }
}

const MOST_NAME: usize = 64;

/// Longest MQTT string, in bytes.
const MOST_TEXT: usize = 65_535;

type Checked = Result<(), InvalidConfig>;

fn wrong(key: impl Into<String>, why: impl Into<String>) -> Checked {
    Err(InvalidConfig { key: key.into(), why: why.into() })
}

impl Config {
    /// Whether the bridge can work, as far as that can be told without asking anybody.
    pub(crate) fn check(&self) -> Checked {
        if !is_name(&self.name) {
            let why =
                format!("`{}` is no name; 1 to {MOST_NAME} letters, digits, `-`, `_` and `.` are right", self.name);
            return wrong("name", why);
        }
        let url = Url::parse(&self.url).map_err(|why| InvalidConfig { key: "url".into(), why })?;
        self.check_login()?;
        self.check_tls(&url)?;
        if self.queue.max_messages == 0 {
            return wrong("queue.max_messages", "is 0, with which nothing could cross; a number from 1 is right");
        }
        if self.queue.max_bytes == 0 {
            return wrong("queue.max_bytes", "is 0, with which nothing could cross; a number from 1 is right");
        }
        if !self.state_topic.is_empty() {
            match Topic::parse(&self.state_topic) {
                Ok(_) if !route::is_own(&self.state_topic) => {}
                Ok(_) => return wrong("state_topic", "is one of the far side's own; choose another"),
                Err(error) => return wrong("state_topic", error.to_string()),
            }
        }
        self.check_routes()
    }

    /// Whether it can work beside the bridges before it. All were checked.
    pub(crate) fn check_beside(&self, before: &[Self]) -> Checked {
        for other in before {
            if !self.client_id.is_empty() && self.client_id == other.client_id && loops::same_side(self, other) {
                let why = format!(
                    "is that of the bridge `{}` too, and the far side keeps one connection of a client: each would end \
                     the other's; choose another",
                    other.name
                );
                return wrong("client_id", why);
            }
            if let Some(at) = loops::circle(self, other) {
                let why = format!(
                    "takes messages round for ever with the bridge `{}` to the same far side: MQTT 3.1.1 does not tell \
                     where a message began; use prefixes that are disjoint, or protocol = \"5\" for both",
                    other.name
                );
                return wrong(format!("route[{at}]"), why);
            }
        }
        Ok(())
    }

    /// The files of its TLS.
    pub(crate) fn tls_files(&self) -> ClientFiles {
        let Self { ca, cert, key, alpn, .. } = self.clone();
        ClientFiles { ca, cert, key, alpn }
    }

    fn check_login(&self) -> Checked {
        for (key, text) in [("client_id", &self.client_id), ("username", &self.username)] {
            if text.len() > MOST_TEXT || text.chars().any(char::is_control) {
                return wrong(key, format!("is longer than {MOST_TEXT} bytes or holds a control character"));
            }
        }
        let (file, env) = (!self.secret_file.is_empty(), !self.secret_env.is_empty());
        if file && env {
            return wrong("secret_env", "secret_file is set too; take one of them");
        }
        if (file || env) && self.username.is_empty() {
            return wrong("username", "is empty; a password needs a user name (MQTT 3.1.1 §3.1.2.9)");
        }
        if self.secret_env.contains(['=', '\0']) {
            return wrong("secret_env", "is no name of an environment variable");
        }
        Ok(())
    }

    fn check_tls(&self, url: &Url) -> Checked {
        if !url.tls {
            let said = [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)];
            if let Some((key, _)) = said.iter().find(|(_, file)| !file.is_empty()) {
                return wrong(*key, "is for TLS; with it the url begins with mqtts://");
            }
            if !self.alpn.is_empty() {
                return wrong("alpn", "is for TLS; with it the url begins with mqtts://");
            }
        }
        self.tls_files().check()
    }

    fn check_routes(&self) -> Checked {
        if self.route.is_empty() {
            return wrong("route", "there is none, so nothing would cross; add [[gateways.bridge.route]]");
        }
        for (at, route) in self.route.iter().enumerate() {
            self.check_route(at, route)?;
        }
        if let Some((out, into)) = loops::echo(self) {
            let why = format!(
                "takes to the far side what route[{into}] brings back, and MQTT 3.1.1 has no way to ask for less; use \
                 prefixes that are disjoint, or protocol = \"5\""
            );
            return wrong(format!("route[{out}]"), why);
        }
        Ok(())
    }

    fn check_route(&self, at: usize, route: &Route) -> Checked {
        let key = |name: &str| format!("route[{at}].{name}");
        if Qos::from_u8(route.qos).is_none() {
            return wrong(key("qos"), format!("{} is no QoS; 0, 1 or 2 is right", route.qos));
        }
        if route.direction == Direction::Both && self.protocol == Protocol::V311 {
            let why = "\"both\" needs protocol = \"5\": over 3.1.1 each message would come back; use two routes, \"in\" \
                       and \"out\", with prefixes that are disjoint";
            return wrong(key("direction"), why);
        }
        if let Err(error) = Filter::parse(&route.filter) {
            return wrong(key("filter"), error.to_string());
        }
        for (name, prefix) in [("local_prefix", &route.local_prefix), ("remote_prefix", &route.remote_prefix)] {
            let whole = format!("{prefix}{}", route.filter);
            match Filter::parse(&whole) {
                _ if prefix.contains(['+', '#']) => {
                    return wrong(key(name), "holds a wildcard; prefixes are plain, wildcards belong in the filter");
                }
                Err(error) => return wrong(key(name), format!("with the filter it is `{whole}`, which {error}")),
                Ok(_) if route::is_own(&whole) => {
                    let why = format!("with the filter it is `{whole}`: what a broker keeps for itself never crosses");
                    return wrong(key(if prefix.is_empty() { "filter" } else { name }), why);
                }
                Ok(_) => {}
            }
        }
        for (other, before) in self.route[..at].iter().enumerate() {
            let same = |a: Direction, prefix: fn(&Route) -> &str| {
                route.goes(a) && before.goes(a) && (prefix(route), &route.filter) == (prefix(before), &before.filter)
            };
            if same(Direction::Out, |route| &route.local_prefix) || same(Direction::In, |route| &route.remote_prefix) {
                let why = format!("is that of route[{other}] too, and a message crosses once; take one of them away");
                return wrong(key("filter"), why);
            }
        }
        Ok(())
    }
}

impl Route {
    fn goes(&self, direction: Direction) -> bool {
        self.direction == direction || self.direction == Direction::Both
    }
}

fn is_name(name: &str) -> bool {
    let right = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MOST_NAME).contains(&name.len()) && name.bytes().all(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bridge that can work, with one route.
    fn right() -> Config {
        toml::from_str(
            "name = 'cloud'\nurl = 'mqtt://h'\n[[route]]\ndirection = 'out'\nfilter = 'a/#'\nremote_prefix = 's/'\n",
        )
        .unwrap()
    }

    fn with(change: impl FnOnce(&mut Config)) -> Result<(), String> {
        let mut config = right();
        change(&mut config);
        config.check().map_err(|error| error.to_string())
    }

    fn route(text: &str) -> Route {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_example_file_is_right() {
        let text = include_str!("../../../config/bridge.example.toml");
        let whole: toml::Table = toml::from_str(text).unwrap();
        for table in whole["gateways"]["bridge"].as_array().unwrap() {
            let config: Config = table.clone().try_into().unwrap();
            config.check().unwrap();
        }
    }

    #[test]
    fn two_bridges_to_one_far_side_do_not_share_a_client_id() {
        let named = |id: &str, url: &str| Config { client_id: id.into(), url: url.into(), ..right() };
        let beside = |one: &Config| one.check_beside(&[named("site", "mqtt://h")]).map_err(|error| error.key);
        assert_eq!(beside(&named("site", "mqtt://h:1883")), Err("client_id".to_owned()));
        for fine in [named("other", "mqtt://h"), named("site", "mqtt://elsewhere")] {
            assert_eq!(beside(&fine), Ok(()));
        }
        assert!(named("", "mqtt://h").check_beside(&[named("", "mqtt://h")]).is_ok());
    }

    #[test]
    fn every_key_has_the_default_that_is_documented() {
        let config = right();
        assert_eq!((config.protocol, config.keep_alive_s, config.clean_start), (Protocol::V5, 60, false));
        assert_eq!((config.queue.max_messages, config.queue.max_bytes), (1_000_000, 1_073_741_824));
        assert_eq!((config.route[0].qos, config.route[0].retain), (1, Retain::Keep));
        assert_eq!(config.check().map_err(|error| error.to_string()), Ok(()));
    }

    #[test]
    fn what_cannot_be_is_named_with_what_would_be_right() {
        let cases: [(Result<(), String>, &str, &str); 20] = [
            (with(|c| c.name = "a b".into()), "name", "`a b` is no name"),
            (with(|c| c.url = "http://h".into()), "url", "mqtts://HOST:PORT is right"),
            (with(|c| c.client_id = "\0".into()), "client_id", "control character"),
            (with(|c| c.secret_env = "S".into()), "username", "needs a user name"),
            (
                with(|c| (c.username, c.secret_env, c.secret_file) = ("u".into(), "S".into(), "f".into())),
                "secret_env",
                "take one of them",
            ),
            (with(|c| c.ca = "ca.pem".into()), "ca", "mqtts://"),
            (with(|c| c.alpn = vec!["mqtt".into()]), "alpn", "mqtts://"),
            (with(|c| (c.url, c.cert) = ("mqtts://h".into(), "c".into())), "key", "private key"),
            (with(|c| c.queue.max_messages = 0), "queue.max_messages", "a number from 1"),
            (with(|c| c.queue.max_bytes = 0), "queue.max_bytes", "a number from 1"),
            (with(|c| c.state_topic = "a/+".into()), "state_topic", "wildcard"),
            (with(|c| c.state_topic = "$SYS/x".into()), "state_topic", "choose another"),
            (with(|c| c.route.clear()), "route", "[[gateways.bridge.route]]"),
            (with(|c| c.route[0].qos = 3), "route[0].qos", "0, 1 or 2 is right"),
            (with(|c| c.route[0].filter = "a#".into()), "route[0].filter", "wildcard"),
            (with(|c| c.route[0].filter = "$SYS/#".into()), "route[0].filter", "never crosses"),
            (with(|c| c.route[0].filter = "$share/g/a".into()), "route[0].filter", "never crosses"),
            (with(|c| c.route[0].remote_prefix = "+/".into()), "route[0].remote_prefix", "prefixes are plain"),
            (
                with(|c| (c.route[0].filter, c.route[0].remote_prefix) = ("#".into(), "s".into())),
                "route[0].remote_prefix",
                "`s#`",
            ),
            (
                with(|c| c.route.push(route("direction = 'out'\nfilter = 'a/#'\nremote_prefix = 'other/'"))),
                "route[1].filter",
                "route[0] too",
            ),
        ];
        for (result, key, why) in cases {
            let error = result.unwrap_err();
            assert!(error.starts_with(&format!("{key}: ")) && error.contains(why), "{key}: {error}");
        }
    }

    #[test]
    fn both_ways_at_once_need_mqtt_5() {
        let both = |protocol| {
            with(|config| {
                config.protocol = protocol;
                config.route = vec![route("direction = 'both'\nfilter = 'a/#'")];
            })
        };
        assert_eq!(both(Protocol::V5), Ok(()));
        let error = both(Protocol::V311).unwrap_err();
        assert!(error.starts_with("route[0].direction: ") && error.contains("protocol = \"5\""), "{error}");
    }

    #[test]
    fn routes_of_which_one_brings_back_what_another_took_are_refused_over_3_1_1() {
        let pair = |protocol, remote: &str| {
            with(|config| {
                config.protocol = protocol;
                config.route = vec![
                    route("direction = 'out'\nfilter = 'a/#'\nremote_prefix = 's/'"),
                    route(&format!("direction = 'in'\nfilter = '#'\nremote_prefix = '{remote}'\nlocal_prefix = 'in/'")),
                ];
            })
        };
        assert_eq!(pair(Protocol::V5, "s/"), Ok(()));
        assert_eq!(pair(Protocol::V311, "t/"), Ok(()));
        let error = pair(Protocol::V311, "s/").unwrap_err();
        assert!(error.starts_with("route[0]: ") && error.contains("route[1] brings back"), "{error}");
    }
}
