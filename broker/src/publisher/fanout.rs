//! Into the queues: a run of messages to all who are to get it.

use super::batch::Staged;
use crate::{
    broker::Core,
    message::{Message, Qos},
    router::{Route, Target},
    session::{Account, Copy, KEPT, REJECTS, State},
};
use parking_lot::MutexGuard;

impl Core {
    /// Puts a run of messages into the queues of its route, as far as they have no place yet: those that must be
    /// journaled have, if `reserved`.
    pub(super) fn deliver(&self, route: &Route, batch: &[Staged], reserved: bool) {
        let publisher = batch.first().map_or(0, |staged| staged.message.head().origin.session);
        let mut records = Vec::new();
        for target in route.targets.iter().filter(|target| !target.is_own(publisher)) {
            let session = &*target.session;
            let special = reserved && session.has(KEPT | REJECTS);
            let mut account = Account::new(&self.budget, session);
            let mut state = session.state.lock();
            for staged in batch.iter().filter(|s| s.verdict.is_none()) {
                if special && target.reserves(&staged.message) {
                    continue;
                }
                // QoS 0, or a session that cannot refuse: a full queue drops by its own rule.
                let _ = state.push(&target.copy(&staged.message), true, |_| false, &mut account);
            }
            state.ring();
            drop(state);
            records.append(&mut account.records);
        }
        self.note(&mut records);
        for shared in &route.shared {
            for staged in batch.iter().filter(|s| s.verdict.is_none()) {
                if reserved && staged.message.qos() != Qos::AtMostOnce {
                    continue;
                }
                if let Some((member, state)) = shared.choose(&staged.message, &self.budget) {
                    self.push_one(member, state, &staged.message);
                }
            }
        }
    }

    /// Puts one message into one queue. A full one drops by its own rule.
    pub(super) fn push_one(&self, target: &Target, mut state: MutexGuard<'_, State>, message: &Message) {
        let mut account = Account::new(&self.budget, &target.session);
        let _ = state.push(&target.copy(message), true, |_| false, &mut account);
        state.ring();
        drop(state);
        self.note(&mut account.records);
    }
}

impl Target {
    pub(super) fn qos_for(&self, message: &Message) -> Qos {
        self.qos.min(message.qos())
    }

    pub(super) fn copy<'a>(&'a self, message: &'a Message) -> Copy<'a> {
        Copy {
            message,
            qos: self.qos_for(message),
            // The flag tells a client that subscribed before nothing, unless it asked [MQTT-3.3.1-12].
            retain: self.retain_as_published && message.retain(),
            identifiers: &self.identifiers,
            group: self.group,
        }
    }

    /// Whether the message's place must be reserved before it is journaled.
    pub(super) fn reserves(&self, message: &Message) -> bool {
        self.qos_for(message) != Qos::AtMostOnce
            && self.session.has(KEPT | REJECTS)
            && !self.is_own(message.head().origin.session)
    }
}
