//! The table `[gateways.mqtt_sn]`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{collections::BTreeMap, time::Duration};
use waystation_broker::Topic;
use waystation_kit::{InvalidConfig, Listen};

/// The table `[gateways.mqtt_sn]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// UDP address, or a list of them.
    pub listen: Listen,
    /// What the gateway calls itself in GWINFO.
    pub gateway_id: u8,
    /// Seconds (fractions allowed) until something unanswered is sent again: T_retry (MQTT-SN 1.2 §7.2).
    pub retry_interval_s: f64,
    /// How often it is sent again before the board is given up: N_retry (MQTT-SN 1.2 §7.2).
    pub retry_count: u32,
    /// Whether boards may publish with QoS -1, without ever connecting.
    pub publish_without_connect: bool,
    /// Bytes of the largest datagram; a larger message is dropped for the board, and counted.
    pub max_datagram: usize,
    /// Topic ids that boards know beforehand.
    pub predefined_topics: PredefinedTopics,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Listen(vec![([127, 0, 0, 1], 1884).into()]),
            gateway_id: 1,
            retry_interval_s: 10.0,
            retry_count: 3,
            publish_without_connect: true,
            max_datagram: 1_400,
            predefined_topics: PredefinedTopics::default(),
        }
    }
}

impl Config {
    /// What the types cannot say.
    ///
    /// # Errors
    /// The key and what would be right.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let refuse = |key: &str, why: String| Err(InvalidConfig { key: key.to_owned(), why });
        if !(0.01..=3_600.0).contains(&self.retry_interval_s) {
            return refuse(
                "retry_interval_s",
                format!("{} is not possible; seconds from 0.01 to 3600 are", self.retry_interval_s),
            );
        }
        if self.retry_count > 1_000 {
            return refuse("retry_count", format!("{} is not possible; 0 to 1000 are", self.retry_count));
        }
        if !(64..=65_507).contains(&self.max_datagram) {
            return refuse(
                "max_datagram",
                format!("{} is not possible; 64 to 65507 bytes are (what UDP can carry)", self.max_datagram),
            );
        }
        for (id, name) in &self.predefined_topics.0 {
            if matches!(id, 0x0000 | 0xFFFF) {
                // §5.3.11: both values are reserved.
                return refuse("predefined_topics", format!("{id} is a reserved topic id; 1 to 65534 are possible"));
            }
            if let Err(why) = Topic::parse(name) {
                return refuse(&format!("predefined_topics.{id}"), format!("\"{name}\" {why}; a topic name is wanted"));
            }
        }
        Ok(())
    }

    /// `retry_interval_s` as a duration; the default for a value that [`Config::check`] would refuse.
    #[must_use]
    pub fn retry_interval(&self) -> Duration {
        Duration::try_from_secs_f64(self.retry_interval_s).unwrap_or(Duration::from_secs(10))
    }
}

/// Topic names by their predefined ids. TOML keys are strings, so the ids are written as such.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PredefinedTopics(pub BTreeMap<u16, String>);

impl<'de> Deserialize<'de> for PredefinedTopics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut topics = BTreeMap::new();
        for (key, name) in BTreeMap::<String, String>::deserialize(deserializer)? {
            let id = key.parse().map_err(|_| {
                de::Error::custom(format!("\"{key}\" is no topic id; a number from 1 to 65534 is wanted"))
            })?;
            if topics.insert(id, name).is_some() {
                return Err(de::Error::custom(format!("the topic id {id} is given twice")));
            }
        }
        Ok(Self(topics))
    }
}

impl Serialize for PredefinedTopics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(id, name)| (id.to_string(), name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn an_empty_table_is_the_default_and_goes_back_to_toml() {
        let config = read("").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(read(&toml::to_string(&config).unwrap()), Ok(config));
    }

    #[test]
    fn predefined_topics_are_read_by_number() {
        let config = read("predefined_topics = { 1 = 'sensors/temperature', 2 = 'sensors/humidity' }").unwrap();
        assert_eq!(config.predefined_topics.0.get(&2).map(String::as_str), Some("sensors/humidity"));
        assert_eq!(read(&toml::to_string(&config).unwrap()), Ok(config));
    }

    #[test]
    fn impossible_values_are_refused_by_key() {
        for (text, key) in [
            ("retry_interval_s = 0.0", "retry_interval_s"),
            ("retry_interval_s = nan", "retry_interval_s"),
            ("retry_count = 5000", "retry_count"),
            ("max_datagram = 10", "max_datagram"),
            ("predefined_topics = { 0 = 'a' }", "predefined_topics"),
            ("predefined_topics = { 65535 = 'a' }", "predefined_topics"),
            ("predefined_topics = { 7 = 'a/#' }", "predefined_topics.7"),
            ("predefined_topics = { x = 'a' }", "no topic id"),
            ("predefined_topics = { 01 = 'a', 1 = 'b' }", "given twice"),
            ("unknown = 1", "unknown"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(key), "{text}: {error}");
        }
    }
}
