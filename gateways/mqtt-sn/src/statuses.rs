//! `$SYS/broker/mqtt_sn/clients/{id}/state`, and `next_wake` beside it.

use crate::client::{Standing, Status};
use hashbrown::HashMap;
use std::collections::VecDeque;
use waystation_broker::{Broker, ClientId};

/// Most boards that are gone and still spoken of; past it what was said of the one that went first is cleared.
const MAX_GONE: usize = 10_000;

/// What the world is told of boards.
pub struct Statuses {
    broker: Broker,
    gone: HashMap<ClientId, u64>,
    /// In the order of going; one that came back since is recognised by its number.
    order: VecDeque<(u64, ClientId)>,
    last: u64,
}

impl Statuses {
    /// Nothing said yet.
    #[must_use]
    pub fn new(broker: Broker) -> Self {
        Self { broker, gone: HashMap::new(), order: VecDeque::new(), last: 0 }
    }

    /// Tells what is new about a board.
    pub fn tell(&mut self, id: &ClientId, before: Option<Status>, now: Status) {
        if before.map(|before| before.standing) != Some(now.standing) {
            self.say(id, "state", now.standing.as_str());
        }
        let wake = |status: Status| status.next_wake.map(|at| at.to_string());
        let (old, new) = (before.and_then(wake), wake(now));
        if old != new {
            self.say(id, "next_wake", new.as_deref().unwrap_or(""));
        }
        match now.standing {
            Standing::Lost | Standing::Disconnected => self.remember(id),
            _ => drop(self.gone.remove(id)),
        }
    }

    fn remember(&mut self, id: &ClientId) {
        self.last += 1;
        self.order.push_back((self.last, id.clone()));
        self.gone.insert(id.clone(), self.last);
        while self.gone.len() > MAX_GONE || self.order.len() > 2 * MAX_GONE {
            let Some((number, id)) = self.order.pop_front() else { return };
            if self.gone.get(&id) == Some(&number) {
                self.gone.remove(&id);
                self.say(&id, "state", "");
            }
        }
    }

    fn say(&self, id: &ClientId, what: &str, value: &str) {
        // A client id that is no part of a topic name (wildcards) is not spoken of.
        let _ = self.broker.announce(&format!("mqtt_sn/clients/{id}/{what}"), value);
    }
}
