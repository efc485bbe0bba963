//! The configuration: read from its layers, checked whole before anything is bound.
//!
//! Each component owns its table (`[limits]` is [`Limits`], a gateway's table its own type); this module joins them
//! and says, for whatever is wrong, which key, from where, and what would be right.

mod durability;
mod layers;
mod listeners;
mod mask;
mod sys;
pub(crate) mod words;

pub use durability::Durability;
pub use layers::{Layers, Source};
pub use sys::Sys;

use crate::auth::Auth;
use crate::telemetry::Log;
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;
use toml::{Table, Value};
use waystation_broker::Limits;
use waystation_kit::{Kind, Registry};

/// Everything the server is told. Every value has been checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where sessions, queues and retained messages are to be kept; empty: nowhere.
    pub data_dir: String,
    /// `[durability]`.
    pub durability: Durability,
    /// `[log]`.
    pub log: Log,
    /// `[auth]`.
    pub auth: Auth,
    /// `[limits]`.
    pub limits: Limits,
    /// `[sys]`.
    pub sys: Sys,
    /// `[gateways.*]`, in the order of their names.
    pub gateways: Vec<GatewayConfig>,
}

/// One gateway's part of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayConfig {
    /// Its name.
    pub name: Arc<str>,
    /// Its kind.
    pub kind: &'static str,
    /// Whether it starts with the server.
    pub enabled: bool,
    /// Its own table, every default filled in, without `enabled`.
    pub table: Table,
}

/// What is wrong with the configuration, where it stands, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the value came from; `None` for a built-in default.
    pub source: Option<Source>,
    /// The whole key, dotted; empty when no single key is to blame.
    pub key: String,
    /// What is wrong and what would be right.
    pub why: String,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(source) = &self.source {
            write!(f, "{source}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.why)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and checks the layers for the kinds of gateway in `registry`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read(registry: &Registry, layers: &Layers) -> Result<Self, ConfigError> {
        let mut rest = layers.table().clone();
        let data_dir = match rest.remove("data_dir") {
            None => DATA_DIR.into(),
            Some(Value::String(folder)) => folder,
            Some(_) => return Err(layers.error("data_dir", "is a folder's name in quotes; \"\" keeps nothing on disk")),
        };
        let durability: Durability = section(&mut rest, "durability", layers)?;
        let log: Log = section(&mut rest, "log", layers)?;
        let auth: Auth = section(&mut rest, "auth", layers)?;
        let limits: Limits = section(&mut rest, "limits", layers)?;
        let sys: Sys = section(&mut rest, "sys", layers)?;
        let gateways = match rest.remove("gateways") {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => return Err(layers.error("gateways", words::not_a_table(&other))),
        };
        if let Some(key) = rest.keys().next() {
            let known = ["auth", "data_dir", "durability", "gateways", "limits", "log", "sys"];
            return Err(layers.error(key, words::unknown(key, known)));
        }
        durability.check().map_err(|(key, why)| layers.error(&format!("durability.{key}"), why))?;
        log.check().map_err(|why| layers.error("log.level", why))?;
        check_limits(&limits, layers)?;
        auth.check().map_err(|(key, why)| layers.error(&format!("auth.{key}"), why))?;
        let gateways = read_gateways(gateways, registry, layers)?;
        let config = Self { data_dir, durability, log, auth, limits, sys, gateways };
        listeners::check(&config, layers)?;
        Ok(config)
    }

    /// A configuration from TOML text alone, for the gateways this crate comes with.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::read(&crate::gateways::registry(), &Layers::default().with_text("configuration", text)?)
    }

    /// The configuration as it runs, as TOML; secrets are masked.
    #[must_use]
    pub fn to_masked_toml(&self) -> String {
        let mut whole = Table::new();
        whole.insert("data_dir".into(), Value::String(self.data_dir.clone()));
        whole.insert("durability".into(), value(&self.durability));
        whole.insert("log".into(), value(&self.log));
        whole.insert("auth".into(), value(&self.auth));
        whole.insert("limits".into(), value(&self.limits));
        whole.insert("sys".into(), value(&self.sys));
        let mut gateways = Table::new();
        for gateway in &self.gateways {
            let mut table = gateway.table.clone();
            table.insert("enabled".into(), Value::Boolean(gateway.enabled));
            if *gateway.name == *gateway.kind {
                gateways.insert(gateway.kind.into(), Value::Table(table));
            } else if let Value::Array(list) = gateways.entry(gateway.kind).or_insert_with(|| Value::Array(Vec::new()))
            {
                list.push(Value::Table(table));
            }
        }
        whole.insert("gateways".into(), Value::Table(gateways));
        mask::mask(&mut whole);
        toml::to_string(&whole).unwrap_or_else(|error| format!("# cannot be written as TOML: {error}\n"))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::from_toml("").expect("the defaults are valid: a test reads them")
    }
}

/// A component's own table, out of `tables`.
fn section<T: DeserializeOwned + Default>(tables: &mut Table, name: &str, layers: &Layers) -> Result<T, ConfigError> {
    let Some(value) = tables.remove(name) else { return Ok(T::default()) };
    let table = match value {
        Value::Table(table) => table,
        other => return Err(layers.error(name, words::not_a_table(&other))),
    };
    let read = |table| {
        serde_path_to_error::deserialize(Value::Table(table))
            .map_err(|error| (error.path().to_string(), error.inner().message().to_owned()))
    };
    words::reading(table, read).map_err(|(path, why)| {
        let key = if path == "." { name.to_owned() } else { format!("{name}.{path}") };
        layers.error(&key, why)
    })
}

fn read_gateways(tables: Table, registry: &Registry, layers: &Layers) -> Result<Vec<GatewayConfig>, ConfigError> {
    if let Some(name) = tables.keys().find(|name| registry.kind(name).is_none()) {
        return Err(layers.error(&format!("gateways.{name}"), words::unknown(name, registry.kinds())));
    }
    let mut tables = tables;
    let mut read = Vec::new();
    for name in registry.kinds() {
        // It is one of the registry's own.
        let kind = registry.kind(name).expect("a kind of the registry itself");
        let key = format!("gateways.{name}");
        match (tables.remove(name), kind.is_plural()) {
            (None, true) => {}
            (Some(Value::Array(list)), true) => {
                for (index, table) in list.into_iter().enumerate() {
                    let key = format!("{key}[{index}]");
                    let gateway = read_gateway(kind, table, &key, layers)?;
                    check_name(&gateway, &read, registry).map_err(|why| layers.error(&format!("{key}.name"), why))?;
                    let before = read.iter().filter(|other| other.kind == name).map(|other| other.table.clone());
                    kind.check_beside(gateway.table.clone(), before.collect())
                        .map_err(|invalid| layers.error(&format!("{key}.{}", invalid.key), invalid.why))?;
                    read.push(gateway);
                }
            }
            (Some(_), true) => {
                return Err(layers.error(&key, format!("there may be several: write [[{key}]]")));
            }
            (table, false) => {
                read.push(read_gateway(kind, table.unwrap_or_else(|| Value::Table(Table::new())), &key, layers)?);
            }
        }
    }
    Ok(read)
}

/// Each gateway of a plural kind has a name of its own, by which it is switched and shown.
fn check_name(gateway: &GatewayConfig, others: &[GatewayConfig], registry: &Registry) -> Result<(), String> {
    let name = &gateway.name;
    if registry.kind(name).is_some() {
        return Err(format!("`{name}` is a kind of gateway; choose another name"));
    }
    if others.iter().any(|other| other.name == *name) {
        return Err(format!("`{name}` is there twice; each needs a name of its own"));
    }
    Ok(())
}

/// Reads one gateway's table, which stands under `prefix`.
fn read_gateway(kind: &dyn Kind, table: Value, prefix: &str, layers: &Layers) -> Result<GatewayConfig, ConfigError> {
    let mut table = match table {
        Value::Table(table) => table,
        other => return Err(layers.error(prefix, words::not_a_table(&other))),
    };
    let enabled = match table.remove("enabled") {
        None => true,
        Some(Value::Boolean(enabled)) => enabled,
        Some(other) => {
            let why = format!("expected true or false, got {}", other.type_str());
            return Err(layers.error(&format!("{prefix}.enabled"), why));
        }
    };
    let read = |table| kind.check(table).map_err(|invalid| (invalid.key, invalid.why));
    let table = words::reading(table, read).map_err(|(key, why)| {
        let key = match key.as_str() {
            "" | "." => prefix.to_owned(),
            key => format!("{prefix}.{key}"),
        };
        layers.error(&key, why)
    })?;
    let name = match table.get("name") {
        Some(Value::String(name)) if kind.is_plural() => name.as_str().into(),
        _ => kind.name().into(),
    };
    Ok(GatewayConfig { name, kind: kind.name(), enabled, table })
}

/// What the types of [`Limits`] cannot say. Zero never means "unlimited", so where it would stop everything it is
/// refused.
fn check_limits(limits: &Limits, layers: &Layers) -> Result<(), ConfigError> {
    let error = |key: &str, why: String| Err(layers.error(&format!("limits.{key}"), why));
    let positive = [
        ("max_packet_size", u64::from(limits.max_packet_size)),
        ("max_connections", limits.max_connections.into()),
        ("max_connections_per_address", limits.max_connections_per_address.into()),
        ("max_topic_levels", limits.max_topic_levels as u64),
        ("max_queued_messages", limits.max_queued_messages.into()),
        ("max_queued_bytes", limits.max_queued_bytes),
        ("max_total_queued_bytes", limits.max_total_queued_bytes),
        ("max_inflight", limits.max_inflight.into()),
        // A receive maximum of zero is a protocol error (MQTT 5.0 §3.2.2.3.3).
        ("receive_maximum", limits.receive_maximum.into()),
        ("max_keep_alive", limits.max_keep_alive.into()),
        ("connect_timeout_ms", limits.connect_timeout_ms),
        ("max_subscriptions", limits.max_subscriptions.into()),
        ("max_retained_messages", limits.max_retained_messages.into()),
        ("max_retained_bytes", limits.max_retained_bytes),
    ];
    for (key, value) in positive {
        if value == 0 {
            return error(key, "0 does not mean unlimited and would let nothing through; give a number above 0".into());
        }
    }
    if limits.max_qos > 2 {
        return error("max_qos", format!("{} is no QoS; expected 0, 1 or 2", limits.max_qos));
    }
    if limits.max_packet_size > LARGEST_PACKET {
        return error("max_packet_size", format!("an MQTT packet has at most {LARGEST_PACKET} bytes"));
    }
    for (key, bytes) in [
        ("max_queued_bytes", limits.max_queued_bytes),
        ("max_total_queued_bytes", limits.max_total_queued_bytes),
        ("max_retained_bytes", limits.max_retained_bytes),
    ] {
        if bytes < limits.max_packet_size.into() {
            let size = limits.max_packet_size;
            return error(
                key,
                format!(
                    "{bytes} bytes cannot hold one message of limits.max_packet_size ({size}); raise it or lower that"
                ),
            );
        }
    }
    Ok(())
}

/// Where things are kept unless `data_dir` says otherwise; below the folder the server is started in.
const DATA_DIR: &str = "data";

/// Fixed header, remaining length of four bytes, and what that can say (MQTT 5.0 §1.5.5).
const LARGEST_PACKET: u32 = 268_435_460;

fn value<T: Serialize>(section: &T) -> Value {
    Value::try_from(section).expect("the host's sections are plain tables")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::from_toml(text).map(|_| ()).expect_err(text).to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = Config::default();
        assert_eq!(config.limits, Limits::default());
        assert!(config.gateways.iter().all(|gateway| gateway.enabled));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let text = error("[limits]\nmax_qos = 1\nmax_conections = 5\n");
        assert!(text.starts_with("configuration:3: limits.max_conections: unknown key"), "{text}");
        assert!(text.contains("`max_connections`"), "{text}");
        let text = error("[limit]\n");
        assert!(text.starts_with("configuration:1: limit: unknown key; did you mean `limits`?"), "{text}");
        let text = error("\n[gateways.mqt]\n");
        assert!(text.starts_with("configuration:2: gateways.mqt: unknown key; did you mean `mqtt`?"), "{text}");
    }

    #[test]
    fn a_wrong_type_says_what_would_be_right() {
        let text = error("[limits]\nmax_qos = \"one\"\n");
        assert_eq!(
            text,
            "configuration:2: limits.max_qos: invalid type: string \"one\", expected a whole number from 0 to 255"
        );
        assert!(error("limits = 3").contains("limits: expected a table, got integer"));
        let route = format!("[[gateways.bridge]]\nname = \"b\"\n{BRIDGE}");
        assert!(error(&format!("{route}qos = \"1\"\n")).contains("expected a whole number from 0 to 255"));
        assert!(
            error(&route.replace("[[gateways.bridge.route]]", "queue = 5\n[[gateways.bridge.route]]"))
                .contains("queue: invalid type: integer `5`, expected a table")
        );
    }

    #[test]
    fn a_value_without_quotes_is_told_which_words_there_are() {
        let text = error("[limits]\noverflow = true\n");
        assert!(
            text.starts_with("configuration:2: limits.overflow: unknown variant `true`, expected one of"),
            "{text}"
        );
        assert!(text.contains("`drop_oldest`"), "{text}");
        let bridge = format!("[[gateways.bridge]]\nname = \"b\"\nprotocol = 5\n{BRIDGE}");
        let text = error(&bridge);
        assert_eq!(
            text,
            "configuration:3: gateways.bridge[0].protocol: stands without quotes; a word in quotes is right"
        );
        let text = error(&format!("{}retain = false\n", bridge.replace("protocol = 5", "")));
        assert!(text.ends_with(".route[0].retain: unknown variant `false`, expected `keep` or `strip`"), "{text}");
        assert!(error("[gateways]\nmqtt = 3").contains("configuration:2: gateways.mqtt: expected a table"));
    }

    #[test]
    fn an_error_in_a_gateways_table_has_its_file_and_line() {
        let text = error("# one\n[gateways.mqtt]\n\nlisten = 7\n");
        assert!(text.starts_with("configuration:4: gateways.mqtt.listen: "), "{text}");
        let text = error("[gateways.mqtt]\nenabled = \"yes\"\n");
        assert!(text.starts_with("configuration:2: gateways.mqtt.enabled: expected true or false"), "{text}");
        let text = error("[gateways.mqtt]\nlisten = \"127.0.0.1:0\"\nlissten = \"127.0.0.1:0\"\n");
        assert!(text.starts_with("configuration:3: gateways.mqtt.lissten: unknown key"), "{text}");
        assert!(text.contains("did you mean `listen`?"), "{text}");
    }

    #[test]
    fn zero_is_refused_where_it_would_stop_everything_and_taken_where_it_means_none() {
        assert!(error("[limits]\nmax_inflight = 0").contains("limits.max_inflight: 0 does not mean unlimited"));
        assert!(error("[limits]\nmax_keep_alive = 0").contains("limits.max_keep_alive"));
        assert!(Config::from_toml("[limits]\ntopic_alias_maximum = 0\nmax_session_expiry = 0\nmax_qos = 0").is_ok());
    }

    #[test]
    fn impossible_values_and_combinations_are_refused() {
        assert!(error("[limits]\nmax_qos = 3").contains("limits.max_qos: 3 is no QoS"));
        assert!(error("[limits]\nmax_queued_bytes = 100").contains("limits.max_queued_bytes: 100 bytes cannot hold"));
        assert!(error("[limits]\nmax_packet_size = 300_000_000").contains("limits.max_packet_size: an MQTT packet"));
        assert!(error("[log]\nformat = \"xml\"").contains("log.format"));
        let two = error("[auth.jwt]\nsecret_file = \"a\"\npublic_key_file = \"b\"\n");
        assert!(two.starts_with("configuration:3: auth.jwt.public_key_file: "), "{two}");
        assert!(error("[auth.jwt]\naudience = \"a\"\n").starts_with("configuration:2: auth.jwt.audience: "));
        assert!(error("[auth.jwt]\nuser_claim = \"\"\n").starts_with("configuration:2: auth.jwt.user_claim: "));
        assert!(error("[sys]\ninterval_s = -1\n").starts_with("configuration:2: sys.interval_s: "));
        assert!(error("[log]\nlevel = \"loud\"").contains("configuration:2: log.level: "));
    }

    #[test]
    fn a_listener_beyond_loopback_is_refused_until_it_is_asked_for() {
        let open = "[gateways.mqtt]\nlisten = \"0.0.0.0:1883\"\n";
        assert!(error(open).starts_with("configuration:2: gateways.mqtt.listen: 0.0.0.0:1883 is reachable"));
        assert!(Config::from_toml(&format!("[auth]\nanonymous_anywhere = true\n{open}")).is_ok());
        assert!(Config::from_toml(&format!("{open}enabled = false\n")).is_ok());
        assert!(Config::from_toml(&format!("[auth]\npassword_file = \"users\"\n{open}")).is_ok());
        assert!(Config::from_toml(&format!("[auth]\njwt = {{ secret_file = \"s\" }}\n{open}")).is_ok());
        assert!(error(&format!("[auth]\nallow_anonymous = false\n{open}")).contains("there are no users"));
    }

    const BRIDGE: &str = "url = \"mqtt://h\"\n[[gateways.bridge.route]]\ndirection = \"out\"\nfilter = \"a/#\"\n";

    #[test]
    fn gateways_of_a_plural_kind_go_by_their_own_names() {
        let two = format!("[[gateways.bridge]]\nname = \"b\"\n{BRIDGE}[[gateways.bridge]]\nname = \"a\"\n{BRIDGE}");
        let config = Config::from_toml(&two).unwrap();
        let bridges: Vec<_> = config.gateways.iter().filter(|gateway| gateway.kind == "bridge").collect();
        assert_eq!(bridges.iter().map(|bridge| &*bridge.name).collect::<Vec<_>>(), ["b", "a"]);
        assert!(bridges.iter().all(|bridge| bridge.enabled));
        let shown: Table = toml::from_str(&config.to_masked_toml()).unwrap();
        assert_eq!(shown["gateways"]["bridge"].as_array().unwrap().len(), 2);
        assert_eq!(Config::from_toml(&config.to_masked_toml()).unwrap().gateways, config.gateways);
    }

    #[test]
    fn a_bridge_without_a_name_of_its_own_is_refused() {
        let named = |name: &str| format!("[[gateways.bridge]]\nname = \"{name}\"\n{BRIDGE}");
        let kind = error(&named("rest"));
        assert!(kind.starts_with("configuration:2: gateways.bridge[0].name: `rest` is a kind of gateway"), "{kind}");
        let twice = error(&format!("{}{}", named("a"), named("a")));
        assert!(twice.starts_with("configuration:8: gateways.bridge[1].name: `a` is there twice"), "{twice}");
        assert!(error(&format!("[gateways.bridge]\n{BRIDGE}")).contains("write [[gateways.bridge]]"));
        let off = format!("{}enabled = 1\n", named("a").replacen("name", "enabled = 1\nname", 1));
        assert!(error(&off).contains("gateways.bridge[0].enabled: expected true or false"));
    }

    #[test]
    fn the_masked_output_reads_back_as_the_same_configuration() {
        let text = Config::default().to_masked_toml();
        let again = Config::from_toml(&text).unwrap();
        assert_eq!(again.gateways, Config::default().gateways);
        assert_eq!(again.limits, Config::default().limits);
    }

    #[test]
    fn the_shipped_file_holds_every_key_with_its_default() {
        let text = include_str!("../config/waystation.toml");
        let shipped: Table = toml::from_str(text).unwrap();
        let defaults: Table = toml::from_str(&Config::default().to_masked_toml()).unwrap();
        assert_eq!(shipped, defaults);
    }

    #[test]
    fn the_shipped_file_shows_the_tables_that_are_off_with_their_defaults() {
        let shown: Vec<&str> = include_str!("../config/waystation.toml")
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|line| line.starts_with('[') || line.starts_with(|first: char| first.is_ascii_lowercase()))
            .collect();
        let shown: Table = toml::from_str(&shown.join("\n")).unwrap();
        let headers = "[gateways.mqtt.tls]\n[gateways.mqtt.websocket]\n";
        let defaults: Table = toml::from_str(&Config::from_toml(headers).unwrap().to_masked_toml()).unwrap();
        for (name, table) in shown["gateways"].as_table().unwrap() {
            for (part, keys) in table.as_table().unwrap() {
                assert_eq!(Some(keys), defaults["gateways"][name].get(part), "gateways.{name}.{part}");
            }
        }
    }
}
