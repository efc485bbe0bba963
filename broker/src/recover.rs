//! After a start: the state that the store kept, put together again.

use crate::{
    access::Principal,
    broker::{Broker, Core},
    clock::Time,
    documents::Documents,
    link::{Cursor, Subscription, Tag},
    message::Message,
    router::{retained::Retained, trie::Subscriber},
    session::{Account, Incoming, KEPT, KNOWN, Session, State, queue::Entry, shelf::Shelf},
    store::{Counts, Lying, Placed, Record, Recovery, SessionKey},
    timetable::Due,
    topic::Filter,
};
use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard, RwLockWriteGuard};
use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroU32},
    sync::{Arc, atomic::AtomicU8},
    time::Duration,
};

/// A will whose client was connected when the server stopped fires unless the client is back within one and a half
/// times its keep alive, at most this long (or the will delay, if that is longer).
const RETURN_WITHIN: Duration = Duration::from_secs(60);

/// A session while its records are read.
struct Draft {
    head: Record,
    ends: Option<Option<Time>>,
    subscriptions: BTreeMap<Filter, Subscription>,
    waiting: BTreeMap<Cursor, (Message, Placed)>,
    /// Places that lie on disk alone.
    shelf: Shelf,
    /// Bytes of the queue's head.
    in_memory: u64,
    /// Messages that may have been sent without our having noted it.
    unsure: usize,
    sent: HashMap<Cursor, Tag>,
    received: hashbrown::HashSet<Cursor>,
    /// The last tag that is known to have been given out.
    last_tag: Option<Tag>,
    settled: Cursor,
    counts: Counts,
    unreleased: hashbrown::HashSet<NonZeroU16>,
    will: Option<Box<crate::message::Will>>,
}

impl Draft {
    fn new(head: Record) -> Self {
        Self {
            head,
            ends: None,
            subscriptions: BTreeMap::new(),
            waiting: BTreeMap::new(),
            shelf: Shelf::default(),
            in_memory: 0,
            unsure: 0,
            sent: HashMap::new(),
            received: hashbrown::HashSet::new(),
            last_tag: None,
            settled: Cursor(0),
            counts: Counts::default(),
            unreleased: hashbrown::HashSet::new(),
            will: None,
        }
    }
}

/// The state of all sessions, while the store shows what it kept.
struct Recovering<'a> {
    core: &'a Core,
    drafts: BTreeMap<SessionKey, Draft>,
    retained: RwLockWriteGuard<'a, Retained>,
    documents: MutexGuard<'a, Documents>,
}

impl Recovery for Recovering<'_> {
    fn apply(&mut self, record: Record) {
        let drafts = &mut self.drafts;
        match record {
            Record::Session { session, .. } => match drafts.get_mut(&session) {
                Some(draft) => (draft.head, draft.ends) = (record, None),
                None => drop(drafts.insert(session, Draft::new(record))),
            },
            Record::Ended(session) => drop(drafts.remove(&session)),
            Record::Cleared(topic) => self.retained.clear(topic.as_str()),
            Record::Kept { kind, name, document } => self.documents.set(kind, name, document),
            Record::Answered(answer) => self.core.answers.lock().restore(*answer),
            Record::Lapsed(lapsed) => self.core.answers.lock().forget(*lapsed),
            Record::Stored { message, places, incoming, retained } => {
                if retained {
                    self.retained.set(&message);
                }
                if let Some((session, id)) = incoming
                    && let Some(draft) = drafts.get_mut(&session)
                {
                    draft.unreleased.insert(id);
                }
                for place in places {
                    if let Some(draft) = drafts.get_mut(&place.session) {
                        draft.waiting.insert(place.cursor, (message.clone(), place));
                    }
                }
            }
            Record::Away { session, .. }
            | Record::Subscribed(session, _)
            | Record::Unsubscribed(session, _)
            | Record::Sent(session, ..)
            | Record::Received(session, ..)
            | Record::Settled(session, ..)
            | Record::Gone { session, .. }
            | Record::Unreleased(session, _)
            | Record::SettledThrough(session, _)
            | Record::Counted(session, _)
            | Record::Released(session, _)
            | Record::Will(session, _) => {
                if let Some(draft) = drafts.get_mut(&session) {
                    draft.apply(record);
                }
            }
        }
    }

    fn wants(&mut self, place: Lying) -> bool {
        let most_sent = usize::from(self.core.budget.limits.max_inflight);
        let draft = self.drafts.get_mut(&place.session);
        draft.is_some_and(|draft| draft.wants(place, most_sent, self.core.memory_per_session))
    }
}

impl Broker {
    pub(crate) fn recover(&self) {
        let core = &*self.0;
        let (retained, documents) = (core.retained.write(), core.documents.lock());
        let mut recovering = Recovering { core, drafts: BTreeMap::new(), retained, documents };
        core.store.recover(&mut recovering);
        let Recovering { drafts, .. } = recovering;
        for (key, draft) in drafts {
            self.finish(key, draft);
        }
        core.router.forget_empty_groups();
    }

    /// Makes the session a draft stands for.
    fn finish(&self, key: SessionKey, mut draft: Draft) {
        let core = &self.0;
        let Record::Session { client, owner, expiry, options, while_away, .. } = draft.head else { return };
        let now = core.clock.now();
        let principal = match owner.as_deref() {
            Some(name) => Principal::user(name, None),
            None if client.is_own() => Principal::server(),
            None => Principal::anonymous(),
        };
        let mut state = State::new(principal, core.gateways.none(), core.first_cursor());
        (state.owner, state.expiry, state.while_away) = (owner, expiry, while_away);
        if expiry == 0 {
            // Only its will outlived it.
            (draft.subscriptions, draft.waiting) = (BTreeMap::new(), BTreeMap::new());
            draft.shelf = Shelf::default();
        }
        state.settled = draft.settled;
        state.missed = draft.counts.missed;
        state.will = draft.will;
        state.subscriptions = draft.subscriptions.into_values().collect();
        let mut account = Account::of_nobody(&core.budget);
        let mut rest = Vec::new();
        for (cursor, (message, place)) in draft.waiting {
            let group = place.shared.as_ref().map_or(0, |filter| core.router.group(filter));
            let entry = Entry { group, ..place.into_entry(message, draft.sent.contains_key(&cursor)) };
            match draft.sent.get(&cursor) {
                Some(tag) => state.restore_sent(*tag, entry, draft.received.contains(&cursor), &mut account),
                None => rest.push(entry),
            }
        }
        state.inflight.go_on_after(draft.last_tag);
        let since = rest.last().map_or(now, |entry: &Entry| entry.message.time());
        // The client was connected: what comes next may have been sent without our having noted it in time. Unsure
        // counts as sent, under the tags it would have got, for these are given out in the order of the queue.
        let unsure = if draft.ends.is_none() { usize::from(core.budget.limits.max_inflight) } else { 0 };
        let unsure = unsure.saturating_sub(state.inflight.len());
        let mut records = Vec::new();
        for (at, mut entry) in rest.into_iter().enumerate() {
            if at < unsure {
                entry.redelivered = true;
                let tag = state.inflight.next_tag();
                records.push(Record::Sent(key, entry.cursor, tag));
                state.restore_sent(tag, entry, false, &mut account);
            } else {
                state.restore(entry, &mut account);
            }
        }
        state.restore_beyond(draft.shelf, since, &mut account);
        // Whoever was connected has from now on as long as if the connection had been lost now.
        let after = |seconds: u32| (seconds != u32::MAX).then(|| now.after(Duration::from_secs(seconds.into())));
        let ends = draft.ends.unwrap_or_else(|| after(expiry));
        // A will that stays is pending only for a client that was connected.
        let pending = state.will.as_ref().filter(|will| !will.stays || draft.ends.is_none());
        let patience = pending.map(|will| {
            let silence = match will.keep_alive_s {
                0 => RETURN_WITHIN,
                seconds => RETURN_WITHIN.min(Duration::from_millis(u64::from(seconds) * 1_500)),
            };
            silence.max(Duration::from_secs(will.delay_s.into()))
        });
        let will_at = patience.map(|patience| now.after(patience));
        // A will outlives a session that dies with its connection just long enough for its client to return.
        let ends = if expiry == 0 { will_at.or(ends) } else { ends };
        let options = options.of(Some(&client), &core.budget.limits);
        let dropped = draft.counts.dropped;
        state.seldom.change(|seldom| (seldom.options, seldom.ends, seldom.dropped) = (options, ends, dropped));
        let subscriptions = state.subscriptions.clone();
        let session = core.router.add_session(|id| {
            Arc::new(Session {
                id,
                key,
                client: Some(client.clone()),
                traits: AtomicU8::new(if expiry > 0 { KEPT | KNOWN } else { KNOWN }),
                incoming: Mutex::new(Incoming::new(draft.unreleased.into_iter().collect())),
                state: Mutex::new(state),
            })
        });
        for subscription in &subscriptions {
            let subscriber = Subscriber {
                session: session.id,
                identifier: subscription.identifier.map_or(0, NonZeroU32::get),
                qos: subscription.qos,
                no_local: subscription.no_local,
                retain_as_published: subscription.retain_as_published,
            };
            core.router.subscribe(&subscription.filter, subscriber);
        }
        core.timetable.set(&session, Due::End, ends);
        core.timetable.set(&session, Due::Will, will_at);
        core.sessions.write().insert(session);
        core.note(&mut records);
    }
}

impl Draft {
    /// Whether a message that waits is to be in memory: it is under way, or may be, or belongs to the head of the queue,
    /// or somebody else may get it. The others lie on disk alone.
    fn wants(&mut self, place: Lying, most_sent: usize, room: u64) -> bool {
        if matches!(self.head, Record::Session { expiry: 0, .. }) {
            return false;
        }
        if self.sent.contains_key(&place.cursor) {
            return true;
        }
        if self.ends.is_none() && self.unsure < most_sent {
            self.unsure += 1;
            return true;
        }
        let Some(cost) = u32::try_from(place.cost).ok().filter(|_| !place.shared) else { return true };
        if self.shelf.is_empty() && (self.in_memory == 0 || self.in_memory + place.cost <= room) {
            self.in_memory += place.cost;
            return true;
        }
        self.shelf.push(place.cursor, cost);
        false
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Away { ends, .. } => self.ends = Some(ends),
            Record::Subscribed(_, subscription) => {
                drop(self.subscriptions.insert(subscription.filter.clone(), subscription));
            }
            Record::Unsubscribed(_, filter) => drop(self.subscriptions.remove(&filter)),
            Record::Sent(_, cursor, tag) => {
                self.sent.insert(cursor, tag);
                self.last_tag = Some(tag);
            }
            Record::Received(_, cursor, _) => drop(self.received.insert(cursor)),
            Record::Settled(_, cursor, _) => drop(self.sent.remove(&cursor)),
            Record::SettledThrough(_, through) => self.settled = self.settled.max(through),
            Record::Counted(_, counts) => self.counts = counts,
            Record::Unreleased(_, id) => drop(self.unreleased.insert(id)),
            Record::Released(_, id) => drop(self.unreleased.remove(&id)),
            Record::Will(_, will) => self.will = will,
            // The others concern more than one session and are applied where they are read, or places, which come last.
            Record::Gone { .. }
            | Record::Session { .. }
            | Record::Ended(_)
            | Record::Stored { .. }
            | Record::Cleared(_)
            | Record::Kept { .. }
            | Record::Answered(_)
            | Record::Lapsed(_) => {}
        }
    }
}
