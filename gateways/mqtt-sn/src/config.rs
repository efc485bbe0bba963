//! The table `[gateways.mqtt_sn]`.

mod board;
mod dtls;
mod wake;

pub use board::{Board, PredefinedTopics};
pub use dtls::Dtls;
pub use wake::MessagesPerWake;

use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};
use waystation_kit::{InvalidConfig, Listen};

/// The table `[gateways.mqtt_sn]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// UDP address, or a list of them.
    pub listen: Listen,
    /// What the gateway calls itself in ADVERTISE and GWINFO.
    pub gateway_id: u8,
    /// Multicast group and port on which the gateway tells of itself and hears SEARCHGW; empty: none.
    pub advertise: String,
    /// Seconds between two ADVERTISE: T_ADV (MQTT-SN 1.2 §7.2).
    pub advertise_interval_s: u16,
    /// Seconds (fractions allowed) until something unanswered is sent again: T_retry (MQTT-SN 1.2 §7.2).
    pub retry_interval_s: f64,
    /// How often it is sent again before the board is given up: N_retry (MQTT-SN 1.2 §7.2).
    pub retry_count: u32,
    /// Whether boards may publish with QoS -1, without ever connecting.
    pub publish_without_connect: bool,
    /// From where a known board may go on under a new address without connecting anew.
    pub rebind: Rebind,
    /// Bytes of the largest datagram to a board; a larger message is dropped for it, and counted.
    pub max_datagram: usize,
    /// What a sleeping board gets at one PINGREQ.
    pub max_messages_per_wake: MessagesPerWake,
    /// Whether QoS 0 is kept for a sleeping board too.
    pub queue_qos0_asleep: bool,
    /// Topic ids that all boards know beforehand.
    pub predefined_topics: PredefinedTopics,
    /// What is different for single boards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub client: Vec<Board>,
    /// A second listener, DTLS 1.2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtls: Option<Dtls>,
}

/// From where a PINGREQ with a known client id is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rebind {
    /// From another port of the board's IP address; for a board that came by DTLS, with its identity.
    SameHost,
    /// From anywhere.
    Always,
    /// From nowhere: such a board must connect anew.
    Never,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Listen(vec![([127, 0, 0, 1], 1884).into()]),
            gateway_id: 1,
            advertise: String::new(),
            advertise_interval_s: 900,
            retry_interval_s: 10.0,
            retry_count: 3,
            publish_without_connect: true,
            rebind: Rebind::SameHost,
            max_datagram: 1_400,
            max_messages_per_wake: MessagesPerWake::All,
            queue_qos0_asleep: true,
            predefined_topics: PredefinedTopics::default(),
            client: Vec::new(),
            dtls: None,
        }
    }
}

impl Config {
    /// What the types cannot say.
    ///
    /// # Errors
    /// The key and what would be right.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        if !(0.01..=3_600.0).contains(&self.retry_interval_s) {
            return refuse(
                "retry_interval_s",
                format!("{} is not possible; seconds from 0.01 to 3600 are", self.retry_interval_s),
            );
        }
        if self.retry_count > 1_000 {
            return refuse("retry_count", format!("{} is not possible; 0 to 1000 are", self.retry_count));
        }
        if self.advertise_interval_s == 0 {
            return refuse("advertise_interval_s", "0 is not possible; 1 to 65535 seconds are".into());
        }
        if !(64..=65_507).contains(&self.max_datagram) {
            return refuse(
                "max_datagram",
                format!("{} is not possible; 64 to 65507 bytes are (what UDP can carry)", self.max_datagram),
            );
        }
        self.group()?;
        self.predefined_topics.check("predefined_topics")?;
        let mut ids = BTreeSet::new();
        for (at, board) in self.client.iter().enumerate() {
            board.check(&format!("client[{at}]"))?;
            if !ids.insert(&board.id) {
                return refuse(&format!("client[{at}].id"), format!("\"{}\" is given twice", board.id));
            }
        }
        self.dtls.iter().try_for_each(Dtls::check)
    }

    /// The multicast group of `advertise`, if one is set.
    ///
    /// # Errors
    /// It is no multicast address with a port.
    pub fn group(&self) -> Result<Option<SocketAddr>, InvalidConfig> {
        if self.advertise.is_empty() {
            return Ok(None);
        }
        match self.advertise.parse::<SocketAddr>() {
            Ok(group) if group.ip().is_multicast() && group.port() != 0 => Ok(Some(group)),
            _ => refuse(
                "advertise",
                format!("\"{}\" is no multicast address; one such as \"225.1.1.1:1883\" is wanted", self.advertise),
            ),
        }
    }

    /// `retry_interval_s` as a duration; the default for a value that [`Config::check`] would refuse.
    #[must_use]
    pub fn retry_interval(&self) -> Duration {
        Duration::try_from_secs_f64(self.retry_interval_s).unwrap_or(Duration::from_secs(10))
    }
}

fn refuse<T>(key: &str, why: String) -> Result<T, InvalidConfig> {
    Err(InvalidConfig { key: key.to_owned(), why })
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
    fn a_full_table_is_read_and_goes_back_to_toml() {
        let config = read(
            "advertise = '225.1.1.1:1883'\nadvertise_interval_s = 60\nrebind = 'always'\nmax_messages_per_wake = 5\n\
             queue_qos0_asleep = false\npredefined_topics = { 1 = 'sensors/temperature', 2 = 'sensors/humidity' }\n\
             [[client]]\nid = 'board-7'\npredefined_topics = { 1 = 'attic/temperature' }\nuser = 'attic'\n\
             [[client]]\nid = 'board-8'\n[dtls]\nlisten = '127.0.0.1:0'\npsk_file = 'psk'\n",
        )
        .unwrap();
        assert_eq!(config.predefined_topics.0.get(&2).map(String::as_str), Some("sensors/humidity"));
        assert_eq!(config.max_messages_per_wake, MessagesPerWake::AtMost(5.try_into().unwrap()));
        assert_eq!((config.rebind, config.client[0].user.as_str()), (Rebind::Always, "attic"));
        assert_eq!(read(&toml::to_string(&config).unwrap()), Ok(config));
    }

    #[test]
    fn impossible_values_are_refused_by_key() {
        for (text, key) in [
            ("retry_interval_s = 0.0", "retry_interval_s"),
            ("retry_interval_s = nan", "retry_interval_s"),
            ("retry_count = 5000", "retry_count"),
            ("max_datagram = 10", "max_datagram"),
            ("advertise = '10.0.0.1:1883'", "advertise"),
            ("advertise = '225.1.1.1'", "advertise"),
            ("advertise_interval_s = 0", "advertise_interval_s"),
            ("rebind = 'sometimes'", "same-host"),
            ("max_messages_per_wake = 0", "\"all\" or a number from 1"),
            ("max_messages_per_wake = 'some'", "\"all\" or a number from 1"),
            ("predefined_topics = { 0 = 'a' }", "predefined_topics"),
            ("predefined_topics = { 65535 = 'a' }", "predefined_topics"),
            ("predefined_topics = { 7 = 'a/#' }", "predefined_topics.7"),
            ("predefined_topics = { x = 'a' }", "no topic id"),
            ("predefined_topics = { 01 = 'a', 1 = 'b' }", "given twice"),
            ("[[client]]\nuser = 'a'", "client[0].id"),
            ("[[client]]\nid = 'a'\n[[client]]\nid = 'a'", "client[1].id"),
            ("[[client]]\nid = 'a'\npredefined_topics = { 7 = 'a/#' }", "client[0].predefined_topics.7"),
            ("[dtls]\nlisten = '127.0.0.1:0'", "psk_file"),
            ("[dtls]\nlisten = '127.0.0.1:0'\ncert = 'c'", "dtls.key"),
            ("[dtls]\nlisten = '127.0.0.1:0'\npsk_file = 'p'\ncert = 'c'\nkey = 'k'", "one of the two"),
            ("unknown = 1", "unknown"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(key), "{text}: {error}");
        }
    }
}
