//! `[[gateways.mqtt_sn.client]]`, and topic ids known beforehand.

use super::refuse;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::BTreeMap;
use waystation_broker::Topic;
use waystation_kit::InvalidConfig;

/// What is different for one board.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Board {
    /// Its client id.
    pub id: String,
    /// Topic ids it knows beforehand, before those all boards know.
    pub predefined_topics: PredefinedTopics,
    /// The user it acts as over plain UDP, where a client id can be forged; empty: nobody in particular. A board that
    /// comes by DTLS acts as its identity.
    pub user: String,
}

impl Board {
    pub(super) fn check(&self, key: &str) -> Result<(), InvalidConfig> {
        if self.id.is_empty() || self.id.starts_with('$') {
            return refuse(&format!("{key}.id"), format!("\"{}\" is no client id a board may have", self.id));
        }
        self.predefined_topics.check(&format!("{key}.predefined_topics"))
    }
}

/// Topic names by their predefined ids. TOML keys are strings, so the ids are written as such.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PredefinedTopics(pub BTreeMap<u16, String>);

impl PredefinedTopics {
    pub(super) fn check(&self, key: &str) -> Result<(), InvalidConfig> {
        for (id, name) in &self.0 {
            if matches!(id, 0x0000 | 0xFFFF) {
                // §5.3.11: both values are reserved.
                return refuse(key, format!("{id} is a reserved topic id; 1 to 65534 are possible"));
            }
            if let Err(why) = Topic::parse(name) {
                return refuse(&format!("{key}.{id}"), format!("\"{name}\" {why}; a topic name is wanted"));
            }
        }
        Ok(())
    }
}

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
