//! Retained messages on their way to a subscription that waits for them: one walk through the tree for all roads, a
//! page at a time, which goes on where it ended.

use super::{
    Delivery, Stage, Taken,
    deliver::{Round, delivery},
};
use crate::{
    clock::Time,
    link::Lsn,
    message::{Message, Qos},
    router::retained::Retained,
    session::{
        State,
        queue::{Entry, Footing, Identifiers, Lane},
    },
    store::{Placed, Record},
};
use parking_lot::MutexGuard;
use triomphe::ThinArc;

impl<'a> Round<'a> {
    /// The session's state again, after a walk: the tree's lock comes before the session's. `None`: another link holds
    /// the session by now.
    pub(super) fn with_retained(
        &mut self,
        walk: impl FnOnce(&mut Self, &Retained, &mut State),
    ) -> Option<MutexGuard<'a, State>> {
        let link = self.link;
        let retained = link.core.retained.read();
        let mut state = link.state()?;
        walk(self, &retained, &mut state);
        Some(state)
    }

    /// Retained messages go straight from the tree: 20,000 of them would overflow any queue.
    pub(super) fn replay(
        &mut self,
        retained: &Retained,
        state: &mut State,
        visit: &mut impl FnMut(&Delivery<'_>) -> Taken,
    ) {
        let has_room = |round: &mut Self, state: &State, message: &Message, qos| {
            // What waits goes first when a session holds all it may.
            let room = state.queued() < state.max_messages(&round.link.core.budget.limits) as usize;
            let may_promise = room && state.window_open();
            round.goes_on() && round.fits(message.cost()) && (qos == Qos::AtMostOnce || may_promise)
        };
        self.walk(retained, state, has_room, |round, state, entry| {
            let tag = (entry.qos != Qos::AtMostOnce).then(|| state.inflight.next_tag());
            let expiry = round.expiry_left(Some(&entry.message));
            match visit(&delivery(&entry, tag, Stage::Offered, state.missed, expiry)) {
                Taken::Stop => round.over = true,
                taken => round.replayed(state, entry, taken),
            }
            !round.over
        });
    }

    /// For a road that reads by cursor, retained messages must have a place in the queue: as many as a page takes.
    pub(super) fn queue_retained(&mut self, retained: &Retained, state: &mut State) {
        let has_room = |round: &mut Self, state: &State, _: &Message, _| {
            let limits = &round.link.core.budget.limits;
            state.queued() < (state.max_messages(limits) as usize).min(round.left.messages)
                && state.queued_bytes() < state.max_bytes(limits)
        };
        self.walk(retained, state, has_room, |round, state, entry| {
            state.restore(entry, &mut round.account);
            true
        });
    }

    /// Shows `give` what the subscriptions that wait are still to get, in order, while there is room and it takes it.
    fn walk(
        &mut self,
        retained: &Retained,
        state: &mut State,
        has_room: impl Fn(&mut Self, &State, &Message, Qos) -> bool,
        mut give: impl FnMut(&mut Self, &mut State, Entry) -> bool,
    ) {
        let now = self.now();
        while let Some(mut scan) = state.next_scan() {
            let identifiers: Identifiers =
                scan.subscription.identifier.map(|id| ThinArc::from_header_and_slice((), &[id]));
            let mut finished = true;
            let after = scan.after.take();
            let mut reached = after.clone();
            retained.scan(scan.subscription.filter.pattern(), after.as_ref(), now, |message| {
                let qos = scan.subscription.qos.min(message.qos());
                finished = has_room(self, state, message, qos)
                    && (self.passes_by(state, scan.since, message) || {
                        let entry = Entry {
                            message: message.clone(),
                            cursor: state.next_cursor(),
                            identifiers: identifiers.clone(),
                            lsn: Lsn::default(),
                            group: 0,
                            qos,
                            retain: true,
                            footing: Footing::Memory,
                            redelivered: false,
                        };
                        give(self, state, entry)
                    });
                if finished {
                    reached = Some(message.topic().clone());
                }
                finished
            });
            if !finished {
                scan.after = reached;
                state.seldom.change(|seldom| seldom.scans.push_front(scan));
                return;
            }
        }
    }

    /// What came since by itself, or may not be read.
    fn passes_by(&self, state: &State, since: Time, message: &Message) -> bool {
        let (principal, client) = (self.link.principal(), self.link.client_id());
        state.came_live(since, message) || !self.link.core.rights.may_read(principal, client, message)
    }

    /// Accounts for a retained message as if it had gone through the queue.
    fn replayed(&mut self, state: &mut State, entry: Entry, taken: Taken) {
        let cost = entry.message.cost();
        let (tagged, kept) = (entry.qos != Qos::AtMostOnce, self.link.kept());
        if tagged && kept && taken == Taken::Sent {
            // Journaled as if it had been queued: its identifier must be known after a restart.
            self.account.records.push(Record::Stored {
                message: entry.message.clone(),
                places: vec![Placed {
                    session: self.link.session.key,
                    cursor: entry.cursor,
                    qos: entry.qos,
                    retain: true,
                    identifiers: entry.identifiers().into(),
                    shared: None,
                }],
                incoming: None,
                retained: false,
            });
        }
        state.restore(entry, &mut self.account);
        let lane = if tagged { Lane::Promised } else { Lane::Plain };
        // It stands behind whatever waits: take it from there.
        let Some(entry) = state.queue.pop_newest(lane) else { return };
        if let Some(cause) = taken.drop_cause() {
            state.drop_entry(&entry, cause, &mut self.account);
            return;
        }
        self.count(cost);
        state.told_of_missed(&mut self.account);
        if tagged {
            let tag = state.inflight.next_tag();
            if kept {
                self.account.records.push(Record::Sent(self.link.session.key, entry.cursor, tag));
            }
            state.inflight.push(entry);
        } else {
            state.count_delivered(&entry, &mut self.account);
        }
    }
}
