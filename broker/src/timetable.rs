//! What is to happen later: sessions that end, wills that are published. One entry a session and kind, so bounded by
//! the sessions there are.

use crate::{
    access::Principal,
    broker::{Broker, Core},
    clock::Time,
    drops::Tally,
    link::{Lsn, Reason},
    message::{Publish, Will},
    metrics::{DropCause, Metrics},
    publisher::{Outcome, Publisher},
    session::{Account, KNOWN, Session, State},
    store::{Record, Standing},
    traffic::Traffic,
};
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

/// What a session waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Due {
    /// Its will delay is over.
    Will,
    /// Its expiry is over.
    End,
    /// Its holder's credentials run out.
    Credentials,
}

/// A will that is to be published now, or found the store down.
pub(crate) struct Owed {
    /// Whose it is. The store keeps it until it is published.
    session: Arc<Session>,
    principal: Principal,
    /// Of the gateway its client came by.
    traffic: Arc<Traffic>,
    will: Will,
}

/// Most wills that are owed; one more is lost, and counted.
const MOST_OWED: usize = 10_000;

/// Between two tries to publish what is owed.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Deadlines in order.
#[derive(Default)]
pub(crate) struct Timetable(Mutex<Deadlines>);

#[derive(Default)]
struct Deadlines {
    order: BTreeSet<(Time, u64, Due)>,
    sessions: HashMap<(u64, Due), (Time, Weak<Session>)>,
}

impl Timetable {
    /// Sets, moves or (with `None`) cancels a session's deadline.
    pub(crate) fn set(&self, session: &Arc<Session>, due: Due, at: Option<Time>) {
        let mut deadlines = self.0.lock();
        let key = session.key.0;
        if let Some((old, _)) = deadlines.sessions.remove(&(key, due)) {
            deadlines.order.remove(&(old, key, due));
        }
        if let Some(at) = at {
            deadlines.order.insert((at, key, due));
            deadlines.sessions.insert((key, due), (at, Arc::downgrade(session)));
        }
    }

    fn next(&self, now: Time) -> Result<(Arc<Session>, Due), Option<Time>> {
        let mut deadlines = self.0.lock();
        loop {
            let Some((at, key, due)) = deadlines.order.first().copied() else { return Err(None) };
            if at > now {
                return Err(Some(at));
            }
            deadlines.order.pop_first();
            let found = deadlines.sessions.remove(&(key, due)).and_then(|(_, session)| session.upgrade());
            if let Some(session) = found {
                return Ok((session, due));
            }
        }
    }
}

impl Broker {
    /// Fires what is due (wills, ends of sessions and credentials); gives when to call again. The host calls it.
    pub fn run_due(&self) -> Option<Time> {
        self.0.router.forget_stale();
        self.0.forget_expired_states();
        self.0.publish_owed_wills();
        loop {
            match self.0.timetable.next(self.0.clock.now()) {
                Ok((session, Due::Will)) => self.0.fire_will_if_away(&session),
                Ok((session, Due::End)) => self.0.end_if_away(&session),
                Ok((session, Due::Credentials)) => {
                    if let Some(signal) = &session.state.lock().signal {
                        signal.detach(Reason::Expired);
                    }
                }
                Err(next) if self.0.owed_wills.lock().is_empty() => return next,
                Err(next) => return next.into_iter().chain([self.0.clock.now().after(TRY_AGAIN)]).min(),
            }
        }
    }
}

impl Core {
    /// Retained messages that have expired take no more room. A topic's subscribers hear nothing of it.
    fn forget_expired_states(&self) {
        let now = self.clock.now();
        if !self.retained.read().is_due(now) {
            return;
        }
        let mut retained = self.retained.write();
        let mut records = Vec::new();
        while let Some(message) = retained.pop_expired(now) {
            records.push(Record::Cleared(message.topic().clone()));
        }
        // Under the lock: the order in the journal is the order here.
        self.note(&mut records);
    }

    fn fire_will_if_away(self: &Arc<Self>, session: &Arc<Session>) {
        let will = {
            let mut state = session.state.lock();
            if state.signal.is_some() {
                return;
            }
            if state.will.as_ref().is_some_and(|will| will.stays) {
                // From here on it is no longer the will of a client that was connected when the server stopped.
                self.note(&mut vec![Record::Away { session: session.key, ends: state.seldom.ends }]);
            }
            state.spend_will()
        };
        if let Some((principal, will)) = will {
            self.publish_will(session, &principal, &will);
        }
    }

    fn end_if_away(self: &Arc<Self>, session: &Arc<Session>) {
        let now = self.clock.now();
        self.end_session_if(session, Reason::SessionEnded, |state| {
            let due = state.signal.is_none() && state.seldom.ends.is_some_and(|at| at <= now);
            Metrics::add(&self.budget.metrics.expired_sessions, u64::from(due));
            due
        });
    }

    /// Publishes a will: the rights are asked once more. One that finds the store down is published when it writes
    /// again: its client was told that it is kept.
    pub(crate) fn publish_will(self: &Arc<Self>, session: &Arc<Session>, principal: &Principal, will: &Will) {
        let traffic = session.state.lock().traffic.clone();
        let (session, principal, will) = (session.clone(), principal.clone(), will.clone());
        self.publish_or_owe(Owed { session, principal, traffic, will });
    }

    fn publish_owed_wills(self: &Arc<Self>) {
        if self.store.standing() == Standing::Open {
            let owed = std::mem::take(&mut *self.owed_wills.lock());
            owed.into_iter().for_each(|owed| self.publish_or_owe(owed));
        }
    }

    fn publish_or_owe(self: &Arc<Self>, owed: Owed) {
        let Owed { session, principal, will, .. } = &owed;
        let mut publisher =
            Publisher::sessionless(self.clone(), principal.clone(), session.client.clone(), self.gateways.none());
        let message = Publish {
            retain: will.retain,
            expiry: will.expiry,
            properties: will.properties.clone(),
            ..Publish::new(will.topic.clone(), &will.payload, will.qos)
        };
        // Its client is gone and cannot be told: a will that is refused is counted here, with the gateway it came by.
        let mut receipts = Vec::new();
        if publisher.stage(message, 0).is_ok() {
            publisher.flush_in_order(&mut receipts);
        }
        let outcome = receipts.first().map(|receipt| receipt.outcome);
        if outcome == Some(Outcome::StoreUnavailable) {
            let mut waiting = self.owed_wills.lock();
            if waiting.len() < MOST_OWED {
                return waiting.push(owed);
            }
        }
        let Owed { session, traffic, will, .. } = owed;
        // The rights' refusal is counted where it is found.
        if !matches!(outcome, None | Some(Outcome::Accepted { .. })) {
            let mut tally = Tally::new(traffic);
            tally.add(Some(&will.topic), DropCause::Refused, 1);
            self.budget.drops.enter(tally, session.client.as_ref(), &self.budget.metrics);
        }
        if session.has(KNOWN) && session.state.lock().will.is_none() {
            self.note(&mut vec![Record::Will(session.key, None)]);
        }
    }

    /// Ends a session for good, with its will if one is pending (MQTT 5.0 §3.1.2.5: the session's end is the last
    /// moment for it).
    pub(crate) fn end_session(self: &Arc<Self>, session: &Arc<Session>, reason: Reason) -> Lsn {
        self.end_session_if(session, reason, |_| true)
    }

    /// The same, if it is as expected: nobody comes in between the look and the end.
    pub(crate) fn end_session_if(
        self: &Arc<Self>,
        session: &Arc<Session>,
        reason: Reason,
        expected: impl FnOnce(&State) -> bool,
    ) -> Lsn {
        let mut account = Account::unkept(&self.budget, session);
        let (will, filters, orphans, traffic) = {
            let mut state = session.state.lock();
            if state.ended || !expected(&state) {
                return Lsn::default();
            }
            state.ended = true;
            let held = state.signal.take();
            if let Some(signal) = &held {
                signal.detach(reason);
                self.disconnected(session, &state);
            }
            let orphans = state.leave_behind(&mut account);
            let will = state.will.take().filter(|will| !will.stays || held.is_some());
            let will = will.map(|will| (will, state.principal.clone()));
            let filters = std::mem::take(&mut state.subscriptions);
            (will, filters, orphans, state.traffic.clone())
        };
        // Whoever finds it meanwhile finds it ended.
        self.sessions.write().remove(session);
        self.router.remove_session(session, filters.into_iter().map(|s| s.filter));
        for due in [Due::Will, Due::End, Due::Credentials] {
            self.timetable.set(session, due, None);
        }
        if let Some((will, principal)) = will {
            self.publish_will(session, &principal, &will);
        }
        let mut records: Vec<Record> = session.has(KNOWN).then_some(Record::Ended(session.key)).into_iter().collect();
        self.pass_on(&orphans, &traffic, &mut account, &mut records)
    }
}
