//! Topic ids of boards that are away: they live with the session (§6.3, §6.5), which outlives the connection.

use crate::topics::Topics;
use hashbrown::HashMap;
use std::collections::VecDeque;
use waystation_broker::ClientId;

/// Most boards whose registrations are kept while they are away; past it those of the board that left first go. It
/// then hears "invalid topic id" and registers anew (§6.5).
const MAX_AWAY: usize = 10_000;

/// Registrations by client id.
#[derive(Default)]
pub struct Registrations {
    away: HashMap<ClientId, (u64, Topics)>,
    /// In the order of leaving; one that came back since is recognised by its number.
    order: VecDeque<(u64, ClientId)>,
    last: u64,
}

impl Registrations {
    /// Keeps a leaving board's.
    pub fn keep(&mut self, id: ClientId, topics: Topics) {
        if topics.is_empty() {
            return;
        }
        self.last += 1;
        self.order.push_back((self.last, id.clone()));
        self.away.insert(id, (self.last, topics));
        while self.away.len() > MAX_AWAY || self.order.len() > 2 * MAX_AWAY {
            let Some((number, id)) = self.order.pop_front() else { return };
            if self.away.get(&id).is_some_and(|(kept, _)| *kept == number) {
                self.away.remove(&id);
            }
        }
    }

    /// Hands over those of a board that is back.
    pub fn take(&mut self, id: &ClientId) -> Option<Topics> {
        self.away.remove(id).map(|(_, topics)| topics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waystation_broker::Topic;

    fn topics() -> Topics {
        let mut topics = Topics::default();
        topics.id_for(&Topic::parse("a").unwrap());
        topics
    }

    #[test]
    fn they_are_kept_once_and_for_a_bounded_number_of_boards() {
        let mut kept = Registrations::default();
        let id = |n: usize| ClientId::new(&format!("b{n}")).unwrap();
        for n in 0..MAX_AWAY + 1 {
            kept.keep(id(n), topics());
        }
        assert!(kept.take(&id(0)).is_none());
        assert!(kept.take(&id(1)).is_some() && kept.take(&id(1)).is_none());
        for _ in 0..3 * MAX_AWAY {
            kept.keep(id(2), topics());
        }
        assert!(kept.order.len() <= 2 * MAX_AWAY && kept.away.len() <= MAX_AWAY);
        assert!(kept.take(&id(2)).is_some());
    }
}
