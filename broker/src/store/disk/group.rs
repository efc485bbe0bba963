//! From records to changes of the database. A group is what one commit holds; what comes and goes within one never
//! reaches the disk.

use super::{
    base::{Base, Batch, EngineError, Gap, Way},
    codec::{Reader, SessionHead, Writer},
    keys::{self, Key, SessionField, Space},
};
use crate::{
    link::Cursor,
    message::{Message, MessageId},
    store::{Placed, Record, SessionKey},
};
use fjall::UserValue;
use hashbrown::{HashMap, hash_map::Entry};
use std::collections::VecDeque;

/// What the commit thread must know beside the database: rebuilt from the keys at each start.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// How many queues hold a message that several were given. Sixteen bytes a message, while at least one holds it.
    pub(super) shared: HashMap<MessageId, u32>,
    /// Sessions that have ended and whose rest is still there, oldest first.
    pub(super) ended: VecDeque<SessionKey>,
    /// Records removed since space was last given back.
    pub(super) removed: u64,
}

/// Changes that are committed as one.
#[derive(Default)]
pub(super) struct Group {
    changes: HashMap<Key, Change>,
}

enum Change {
    /// `fresh`: there was nothing under this key before the group, so that removing it again leaves no trace.
    Insert {
        value: UserValue,
        fresh: bool,
    },
    Remove,
}

/// Whether what a group says may be on disk already.
#[derive(Clone, Copy)]
pub(super) enum Past {
    /// It is not: it is said for the first time.
    Unsaid,
    /// A commit failed, and nobody knows how far it got: ask before counting.
    Unknown,
}

impl Group {
    /// With room for what so many records say.
    pub(super) fn with_room(records: usize) -> Self {
        Self { changes: HashMap::with_capacity(records) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn into_batch(self, base: &Base) -> Batch {
        let mut batch = base.batch(self.changes.len());
        for (key, change) in self.changes {
            match change {
                Change::Insert { value, .. } => batch.insert(base, key, value),
                Change::Remove => batch.remove(base, key),
            }
        }
        batch
    }

    fn put(&mut self, key: Key, writer: Writer, fresh: bool) {
        let value = UserValue::from(writer.seal(&key.bytes));
        match self.changes.entry(key) {
            Entry::Occupied(mut known) => {
                // Removed before, or put before: only the latter, if it was fresh, leaves it so.
                let fresh = matches!(known.get(), Change::Insert { fresh: true, .. });
                known.insert(Change::Insert { value, fresh });
            }
            Entry::Vacant(new) => drop(new.insert(Change::Insert { value, fresh })),
        }
    }

    fn remove(&mut self, key: Key) {
        match self.changes.entry(key) {
            Entry::Occupied(known) if matches!(known.get(), Change::Insert { fresh: true, .. }) => drop(known.remove()),
            Entry::Occupied(mut known) => drop(known.insert(Change::Remove)),
            Entry::Vacant(new) => drop(new.insert(Change::Remove)),
        }
    }

    fn has(&self, key: &Key, base: &Base) -> Result<bool, EngineError> {
        match self.changes.get(key) {
            Some(Change::Insert { .. }) => Ok(true),
            Some(Change::Remove) => Ok(false),
            None => Ok(base.get(key)?.is_some()),
        }
    }
}

/// A batch of changes for the sweep of an ended session.
const SWEEP: usize = 512;

impl Index {
    /// Adds what a record says to the group.
    pub(super) fn add(
        &mut self,
        record: &Record,
        group: &mut Group,
        base: &Base,
        past: Past,
    ) -> Result<(), EngineError> {
        let fresh = matches!(past, Past::Unsaid);
        match record {
            Record::Session { session, client, owner, expiry, options, while_away } => {
                let (client, owner) = (client.clone(), owner.clone());
                let head = SessionHead { client, owner, expiry: *expiry, options: *options, while_away: *while_away };
                let mut w = Writer::record();
                w.head(&head);
                group.put(SessionField::Head.key(*session), w, false);
                group.remove(SessionField::Ends.key(*session));
            }
            Record::Away { session, ends } => {
                let mut w = Writer::record();
                w.time(*ends);
                group.put(SessionField::Ends.key(*session), w, false);
            }
            Record::Ended(session) => {
                group.remove(SessionField::Head.key(*session));
                self.ended.push_back(*session);
            }
            Record::Subscribed(session, subscription) => {
                let mut w = Writer::record();
                w.subscription(subscription);
                let filter = subscription.filter.as_str().to_owned();
                group.put(SessionField::Subscription(filter).key(*session), w, false);
            }
            Record::Unsubscribed(session, filter) => {
                group.remove(SessionField::Subscription(filter.as_str().to_owned()).key(*session));
            }
            Record::Stored { message, places, incoming, retained } => {
                self.store(message, places, group, base, past)?;
                if let Some((session, id)) = incoming {
                    group.put(SessionField::Unreleased(*id).key(*session), Writer::record(), fresh);
                }
                if *retained {
                    let mut w = Writer::record();
                    w.message(message);
                    group.put(keys::retained(message.topic().as_str()), w, false);
                }
            }
            Record::Cleared(topic) => group.remove(keys::retained(topic.as_str())),
            Record::Sent(session, cursor, tag) => {
                let mut w = Writer::record();
                w.sent(*tag, false);
                group.put(SessionField::Sent(*cursor).key(*session), w, fresh);
                let mut w = Writer::record();
                w.number(cursor.0);
                w.sent(*tag, false);
                group.put(SessionField::LastTag.key(*session), w, false);
            }
            Record::Received(session, cursor, tag) => {
                let mut w = Writer::record();
                w.sent(*tag, true);
                group.put(SessionField::Sent(*cursor).key(*session), w, false);
            }
            Record::Settled(session, cursor, message) => {
                group.remove(SessionField::Sent(*cursor).key(*session));
                let place = keys::place(*session, *cursor);
                let there = match past {
                    Past::Unsaid => true,
                    Past::Unknown => group.has(&place, base)?,
                };
                if there {
                    group.remove(place);
                    self.let_go(*message, group);
                    self.removed += 1;
                }
            }
            Record::Gone { session, first, count } => {
                let last = Cursor(first.0 + count - 1);
                let mut found = Vec::new();
                base.range(
                    &keys::place(*session, *first),
                    &keys::place(*session, last),
                    Way::Forwards,
                    |key, value| {
                        let outline = Reader::open(key, value).and_then(|mut r| r.outline());
                        let key = Key { space: Space::Queues, bytes: key.into() };
                        found.push((key, outline.ok().and_then(|outline| outline.message)));
                        true
                    },
                )?;
                for (key, message) in found {
                    group.remove(key);
                    message.into_iter().for_each(|id| self.let_go(id, group));
                    self.removed += 1;
                }
            }
            Record::SettledThrough(session, cursor) => {
                let mut w = Writer::record();
                w.number(cursor.0);
                group.put(SessionField::Settled.key(*session), w, false);
            }
            Record::Counted(session, counts) => {
                let mut w = Writer::record();
                w.counts(*counts);
                group.put(SessionField::Counts.key(*session), w, false);
            }
            Record::Unreleased(session, id) => {
                group.put(SessionField::Unreleased(*id).key(*session), Writer::record(), false);
            }
            Record::Released(session, id) => group.remove(SessionField::Unreleased(*id).key(*session)),
            Record::Will(session, Some(will)) => {
                let mut w = Writer::record();
                w.will(will);
                group.put(SessionField::Will.key(*session), w, false);
            }
            Record::Will(session, None) => group.remove(SessionField::Will.key(*session)),
            Record::Kept { kind, name, document } => {
                let key = keys::document(kind, name);
                match document {
                    Some(document) => {
                        let mut w = Writer::record();
                        w.bytes(document);
                        group.put(key, w, false);
                    }
                    None => group.remove(key),
                }
            }
            Record::Answered(answer) => {
                let mut w = Writer::record();
                w.answer(answer);
                group.put(keys::answer(answer.user.as_deref(), &answer.idempotency.key), w, false);
            }
            Record::Lapsed(lapsed) => group.remove(keys::answer(lapsed.user.as_deref(), &lapsed.key)),
        }
        Ok(())
    }

    /// A message for one session lies inside its place, others once beside all their places.
    fn store(
        &mut self,
        message: &Message,
        places: &[Placed],
        group: &mut Group,
        base: &Base,
        past: Past,
    ) -> Result<(), EngineError> {
        // One that is shared already is given to one more: a message that another session left behind, or a retained one.
        let shared = places.len() > 1 || self.shared.contains_key(&message.id());
        let mut added = 0;
        for place in places {
            let key = keys::place(place.session, place.cursor);
            let fresh = match past {
                Past::Unsaid => true,
                Past::Unknown if group.has(&key, base)? => continue,
                Past::Unknown => false,
            };
            let mut w = Writer::record();
            w.entry(place, message, shared);
            group.put(key, w, fresh);
            added += 1;
        }
        if shared && added > 0 {
            let mut w = Writer::record();
            w.message(message);
            group.put(keys::message(message.id()), w, matches!(past, Past::Unsaid));
            *self.shared.entry(message.id()).or_insert(0) += added;
        }
        Ok(())
    }

    /// One place fewer holds the message.
    fn let_go(&mut self, message: MessageId, group: &mut Group) {
        if let Entry::Occupied(mut holders) = self.shared.entry(message) {
            *holders.get_mut() -= 1;
            if *holders.get() == 0 {
                holders.remove();
                group.remove(keys::message(message));
            }
        }
    }

    /// Whether one of these records makes a session anew whose rest must be swept before.
    pub(super) fn must_sweep(&self, records: &[Record]) -> bool {
        !self.ended.is_empty()
            && records.iter().any(|r| matches!(r, Record::Session { session, .. } if self.ended.contains(session)))
    }

    /// Removes some of what an ended session left; the group is to be committed. An empty one: nothing is left.
    pub(super) fn sweep(&mut self, base: &Base) -> Group {
        let mut group = Group::default();
        while let Some(session) = self.ended.front().copied() {
            let from = session.0.to_be_bytes();
            let mut found = Vec::new();
            for space in [Space::Queues, Space::Sessions] {
                let Gap { .. } = base.scan(space, &from, |key, value| {
                    let mine = key.starts_with(&from) && found.len() < SWEEP;
                    if mine {
                        let place = (space == Space::Queues).then(|| Reader::open(key, value)?.outline());
                        let message = place.and_then(Result::ok).and_then(|place| place.message);
                        found.push((Key { space, bytes: key.into() }, message));
                    }
                    mine
                });
            }
            if found.is_empty() {
                self.ended.pop_front();
                continue;
            }
            for (key, message) in found {
                group.remove(key);
                self.removed += 1;
                if let Some(id) = message {
                    self.let_go(id, &mut group);
                }
            }
            break;
        }
        group
    }
}
