//! One member for each message of a shared subscription (MQTT 5.0 §4.8.2), and another for what a member leaves behind.

use crate::{
    broker::Core,
    clock::Time,
    link::Lsn,
    message::{Message, Qos},
    metrics::DropCause,
    router::{Target, shared::Shared},
    session::{
        Account, Budget, Copy, PRESENT, State,
        queue::{Entry, Footing},
    },
    store::Record,
    traffic::Traffic,
};
use parking_lot::MutexGuard;
use std::sync::Arc;

/// Whom to look for, in this order: the first that is found gets the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    /// Present, and could be handed the message at once.
    Ready,
    /// Present, with room in its queue.
    Present,
    /// Away, with room in its queue.
    Away,
    /// Present and full: its overflow decides.
    FullPresent,
    /// Away and full, likewise.
    FullAway,
}

const ORDER: [Wanted; 5] = [Wanted::Ready, Wanted::Present, Wanted::Away, Wanted::FullPresent, Wanted::FullAway];

impl Shared {
    /// The member that is to get a message, its state locked. `None`: nobody takes it.
    pub(super) fn choose(&self, message: &Message, budget: &Budget) -> Option<(&Target, MutexGuard<'_, State>)> {
        ORDER.iter().find_map(|wanted| {
            self.in_turn().find_map(|place| {
                let target = &self.members[place];
                // Looked at without the lock: a thousand members that are away cost one that is present next to nothing.
                let away = !target.session.has(PRESENT);
                if away && matches!(wanted, Wanted::Ready | Wanted::Present | Wanted::FullPresent) {
                    return None;
                }
                let state = target.session.state.lock();
                let fits = state.standing(target.qos_for(message), message, budget) == Some(*wanted);
                fits.then(|| {
                    self.pass_turn(place);
                    (target, state)
                })
            })
        })
    }
}

impl State {
    /// How this member stands to a message; `None`: it cannot get it.
    fn standing(&self, qos: Qos, message: &Message, budget: &Budget) -> Option<Wanted> {
        let present = self.is_present(message.time());
        if self.ended || (qos == Qos::AtMostOnce && self.drops_qos_0()) {
            return None;
        }
        let room = !self.is_full(&budget.limits, budget.bytes(0, 0), message.cost() as u64);
        Some(match (present, room) {
            (true, true)
                if qos == Qos::AtMostOnce
                    || self.inflight.live() + self.queue.promised() < usize::from(self.window) =>
            {
                Wanted::Ready
            }
            (true, true) => Wanted::Present,
            (false, true) => Wanted::Away,
            (true, false) => Wanted::FullPresent,
            (false, false) => Wanted::FullAway,
        })
    }

    /// Whether the client is there, or was a moment ago.
    fn is_present(&self, now: Time) -> bool {
        let held = self.signal.as_ref().is_some_and(|signal| signal.detached().is_none());
        (held && !self.dozing) || self.seldom.present_until.is_some_and(|until| now < until)
    }
}

impl Core {
    /// What a member whose session ends had not been sent, and its QoS 1 under way, goes to other members of its
    /// groups; what nobody takes is dropped. `account` is that of the session that ends. Gives the position at which
    /// `records`, written with it, are durable.
    pub(crate) fn pass_on(
        self: &Arc<Self>,
        orphans: &[Entry],
        traffic: &Arc<Traffic>,
        account: &mut Account<'_>,
        records: &mut Vec<Record>,
    ) -> Lsn {
        let mut placed = Vec::new();
        let mut before = std::mem::take(records);
        for entry in orphans {
            let message = &entry.message;
            let route = self.router.route(message.topic());
            let heir = route.shared.iter().find(|shared| shared.group == entry.group);
            let heir = heir.and_then(|shared| Some((shared.choose(message, &self.budget)?, &shared.filter)));
            let Some(((target, mut state), filter)) = heir else {
                account.lose(message, DropCause::SessionEnded, traffic);
                continue;
            };
            let mut theirs = Account::new(&self.budget, &target.session);
            let promised = target.qos_for(message) != Qos::AtMostOnce;
            // Somebody is found who has room, or whose own rule says what is dropped.
            let copy = Copy { retain: entry.retain, ..target.copy(message) };
            let pushed = state.push(&copy, !promised, |_| false, &mut theirs);
            drop(state);
            records.append(&mut theirs.records);
            let Ok(cursor) = pushed else {
                account.lose(message, DropCause::SessionEnded, traffic);
                continue;
            };
            account.take_back();
            let Some(cursor) = cursor else { continue };
            if promised && theirs.kept() {
                let places = vec![target.placed(message, cursor, Some(filter))];
                records.push(Record::Stored { message: message.clone(), places, incoming: None, retained: false });
            }
            let footing = if theirs.kept() { Footing::Store } else { Footing::Memory };
            placed.push((target.session.clone(), cursor, promised.then_some(footing)));
        }
        // The heirs have it, then the session ends: one batch, or a crash between the two would lose it.
        records.append(&mut before);
        let lsn = self.note(records);
        for (session, cursor, footing) in placed {
            let mut state = session.state.lock();
            if let Some(footing) = footing {
                state.queue.fill(cursor, lsn, footing);
            }
            state.ring();
        }
        lsn
    }
}
