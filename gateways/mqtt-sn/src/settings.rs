//! The configuration as the boards of a gateway need it. Replaced whole when the file is read anew.

use crate::config::{Config, MessagesPerWake, PredefinedTopics, Rebind};
use hashbrown::HashMap;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use waystation_broker::{ClientId, Topic};

/// What all boards of a gateway have in common.
#[derive(Debug)]
pub struct Settings {
    /// The gateway's name.
    pub gateway: Arc<str>,
    /// What it calls itself on the air.
    pub gateway_id: u8,
    /// T_ADV (§7.2).
    pub advertise_interval_s: u16,
    /// T_retry (§7.2).
    pub retry_interval: Duration,
    /// N_retry (§7.2).
    pub retry_count: u32,
    /// Bytes of the largest datagram to a board.
    pub max_datagram: usize,
    /// Most messages for a sleeping board at one PINGREQ.
    pub max_per_wake: u32,
    /// Whether QoS 0 is kept for a sleeping board.
    pub queue_qos0_asleep: bool,
    /// Whether QoS -1 is served.
    pub publish_without_connect: bool,
    /// From where a known client id is believed.
    pub rebind: Rebind,
    predefined: Predefined,
    boards: HashMap<Box<str>, OwnSettings>,
}

#[derive(Debug)]
struct OwnSettings {
    predefined: Predefined,
    user: Option<Box<str>>,
}

impl Settings {
    /// Those of a table that [`Config::check`] lets pass.
    #[must_use]
    pub fn new(gateway: Arc<str>, config: &Config) -> Self {
        let own = |board: &crate::config::Board| OwnSettings {
            predefined: Predefined::new(&board.predefined_topics),
            user: (!board.user.is_empty()).then(|| board.user.as_str().into()),
        };
        Self {
            gateway,
            gateway_id: config.gateway_id,
            advertise_interval_s: config.advertise_interval_s,
            retry_interval: config.retry_interval(),
            retry_count: config.retry_count,
            max_datagram: config.max_datagram,
            max_per_wake: match config.max_messages_per_wake {
                MessagesPerWake::All => u32::MAX,
                MessagesPerWake::AtMost(number) => number.get(),
            },
            queue_qos0_asleep: config.queue_qos0_asleep,
            publish_without_connect: config.publish_without_connect,
            rebind: config.rebind,
            predefined: Predefined::new(&config.predefined_topics),
            boards: config.client.iter().map(|board| (board.id.as_str().into(), own(board))).collect(),
        }
    }

    /// The topic of a predefined id: the board's own before everybody's.
    #[must_use]
    pub fn predefined(&self, board: Option<&ClientId>, id: u16) -> Option<&Topic> {
        let own = board.and_then(|board| self.boards.get(board.as_str()));
        own.and_then(|own| own.predefined.topic(id)).or_else(|| self.predefined.topic(id))
    }

    /// The user a board acts as over a road where its id can be forged.
    #[must_use]
    pub fn user(&self, board: &ClientId) -> Option<&str> {
        self.boards.get(board.as_str())?.user.as_deref()
    }

    /// How long the conversation before CONNACK may take.
    #[must_use]
    pub fn opening_time(&self) -> Duration {
        self.retry_interval.saturating_mul(self.retry_count.saturating_add(1))
    }
}

/// Topics by the ids that boards know beforehand.
#[derive(Debug, Default)]
struct Predefined(BTreeMap<u16, Topic>);

impl Predefined {
    /// Names that are no topic are left out (`check` refuses them).
    fn new(table: &PredefinedTopics) -> Self {
        Self(table.0.iter().filter_map(|(id, name)| Some((*id, Topic::parse(name).ok()?))).collect())
    }

    fn topic(&self, id: u16) -> Option<&Topic> {
        self.0.get(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Board;

    #[test]
    fn a_boards_own_predefined_topics_come_before_everybodys() {
        let topics = |names: &[(u16, &str)]| PredefinedTopics(names.iter().map(|(id, n)| (*id, (*n).into())).collect());
        let board = Board {
            id: "board-7".into(),
            predefined_topics: topics(&[(1, "attic/temperature")]),
            user: "attic".into(),
        };
        let config =
            Config { predefined_topics: topics(&[(1, "t"), (2, "h")]), client: vec![board], ..Config::default() };
        let settings = Settings::new("mqtt_sn".into(), &config);
        let (seven, other) = (ClientId::new("board-7").unwrap(), ClientId::new("board-8").unwrap());
        let name = |board: Option<&ClientId>, id| settings.predefined(board, id).map(|topic| topic.as_str().to_owned());
        assert_eq!(name(Some(&seven), 1).as_deref(), Some("attic/temperature"));
        assert_eq!(name(Some(&seven), 2).as_deref(), Some("h"));
        assert_eq!((name(Some(&other), 1).as_deref(), name(None, 1).as_deref()), (Some("t"), Some("t")));
        assert_eq!(name(None, 3), None);
        assert_eq!((settings.user(&seven), settings.user(&other)), (Some("attic"), None));
    }
}
