//! What the database holds, shown to the core at a start.

use super::{
    base::{Base, EngineError},
    codec::{Body, Damaged, QueueEntry, Reader},
    group::Index,
    keys::{self, SessionField, Space},
};
use crate::{
    link::Cursor,
    message::{Message, MessageId},
    store::{Lying, Placed, Record, Recovery, SessionKey},
    topic::Filter,
};
use hashbrown::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// What was found, beside what was shown.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) index: Index,
    /// Records that are damaged and left out.
    pub(super) damaged: u64,
    /// What the engine could not read of its files.
    pub(super) unreadable: Vec<String>,
    pub(super) records: u64,
}

/// Reads everything but the messages that are not wanted, in an order in which it can be applied.
pub(super) fn read(base: &Base, recovery: &mut dyn Recovery) -> Found {
    let mut reading = Reading::new(base);
    reading.documents(&mut |record| recovery.apply(record));
    reading.sessions(&mut |record| recovery.apply(record));
    reading.queues(Some(&mut *recovery));
    reading.retained(&mut |record| recovery.apply(record));
    reading.found
}

/// Only what the commit thread must know: after the database was opened anew.
pub(super) fn count(base: &Base) -> Result<Index, EngineError> {
    let mut reading = Reading::new(base);
    reading.sessions(&mut |_| ());
    reading.queues(None);
    match reading.found.unreadable.pop() {
        Some(why) => Err(EngineError::other(why)),
        None => Ok(reading.found.index),
    }
}

struct Reading<'a> {
    base: &'a Base,
    found: Found,
    /// Sessions that have not ended.
    alive: HashSet<SessionKey>,
    /// Shared messages that were read once already.
    bodies: HashMap<MessageId, Message>,
    told: Instant,
}

impl<'a> Reading<'a> {
    fn new(base: &'a Base) -> Self {
        let (alive, bodies) = (HashSet::new(), HashMap::new());
        Self { base, found: Found::default(), alive, bodies, told: super::instant() }
    }

    fn documents(&mut self, apply: &mut dyn FnMut(Record)) {
        let mut answers = Vec::new();
        self.scan(Space::Meta, |_, key, value| {
            if keys::is_answer(key) {
                answers.push(Reader::open(key, value)?.answer()?);
                return Ok(());
            }
            let Some((kind, name)) = keys::parse_document(key) else { return Ok(()) };
            let mut r = Reader::open(key, value)?;
            let document = Some(bytes::Bytes::copy_from_slice(r.bytes()?));
            apply(Record::Kept { kind: kind.into(), name: name.into(), document });
            Ok(())
        });
        // They lapse in the order in which they were given.
        answers.sort_by_key(|answer| answer.until);
        answers.into_iter().for_each(|answer| apply(Record::Answered(Box::new(answer))));
    }

    fn sessions(&mut self, apply: &mut dyn FnMut(Record)) {
        self.scan(Space::Sessions, |reading, key, value| {
            let (session, field) = SessionField::parse(key)?;
            // The head comes first; what has none has ended and is swept.
            if field != SessionField::Head && !reading.alive.contains(&session) {
                reading.ended(session);
                return Ok(());
            }
            let mut r = Reader::open(key, value)?;
            match field {
                SessionField::Head => {
                    let head = r.head()?;
                    reading.alive.insert(session);
                    apply(Record::Session {
                        session,
                        client: head.client,
                        owner: head.owner,
                        expiry: head.expiry,
                        options: head.options,
                        while_away: head.while_away,
                    });
                }
                SessionField::Ends => apply(Record::Away { session, ends: r.time()? }),
                SessionField::Will => apply(Record::Will(session, Some(Box::new(r.will()?)))),
                SessionField::Settled => apply(Record::SettledThrough(session, Cursor(r.number()?))),
                SessionField::Counts => apply(Record::Counted(session, r.counts()?)),
                SessionField::LastTag => {
                    let cursor = Cursor(r.number()?);
                    apply(Record::Sent(session, cursor, r.sent()?.0));
                }
                SessionField::Subscription(filter) => {
                    let filter = Filter::parse(&filter).map_err(|_| Damaged)?;
                    apply(Record::Subscribed(session, r.subscription(filter)?));
                }
                SessionField::Unreleased(id) => apply(Record::Unreleased(session, id)),
                SessionField::Sent(cursor) => {
                    let (tag, received) = r.sent()?;
                    apply(Record::Sent(session, cursor, tag));
                    if received {
                        apply(Record::Received(session, cursor, tag));
                    }
                }
            }
            Ok(())
        });
    }

    fn queues(&mut self, mut recovery: Option<&mut dyn Recovery>) {
        self.scan(Space::Queues, |reading, key, value| {
            let (session, cursor) = keys::parse_place(key)?;
            if !reading.alive.contains(&session) {
                reading.ended(session);
            }
            let outline = Reader::open(key, value)?.outline()?;
            if let Some(id) = outline.message {
                *reading.found.index.shared.entry(id).or_insert(0) += 1;
            }
            let Some(recovery) = recovery.as_mut().filter(|_| reading.alive.contains(&session)) else { return Ok(()) };
            let lying = Lying { session, cursor, cost: outline.cost, shared: outline.grouped };
            if recovery.wants(lying) {
                let (message, place) = place_of(key, value, |id| reading.body(id))?;
                recovery.apply(Record::Stored { message, places: vec![place], incoming: None, retained: false });
            }
            Ok(())
        });
    }

    fn retained(&mut self, apply: &mut dyn FnMut(Record)) {
        self.scan(Space::Retained, |_, key, value| {
            let message = Reader::open(key, value)?.message()?;
            apply(Record::Stored { message, places: Vec::new(), incoming: None, retained: true });
            Ok(())
        });
    }

    /// What is left of a session that has ended is swept. Keys come in order, so it is the last if it is known.
    fn ended(&mut self, session: SessionKey) {
        if self.found.index.ended.back() != Some(&session) && !self.found.index.ended.contains(&session) {
            self.found.index.ended.push_back(session);
        }
    }

    fn body(&mut self, id: MessageId) -> Result<Message, Damaged> {
        if let Some(message) = self.bodies.get(&id) {
            return Ok(message.clone());
        }
        let message = body_of(self.base, id)?;
        self.bodies.insert(id, message.clone());
        Ok(message)
    }

    /// Goes through a space; what is damaged is counted and left out.
    fn scan(&mut self, space: Space, mut each: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<(), Damaged>) {
        const PROGRESS: Duration = Duration::from_secs(1);
        let base = self.base;
        let gap = base.scan(space, &[], |key, value| {
            self.found.records += 1;
            if each(self, key, value).is_err() {
                self.found.damaged += 1;
                tracing::error!(space = space.name(), key = %hex(key), "a record is damaged and left out");
            }
            if self.found.records.is_multiple_of(4_096) && self.told.elapsed() >= PROGRESS {
                self.told = super::instant();
                tracing::info!(records = self.found.records, space = space.name(), "reading the data folder");
            }
            true
        });
        if let Some(error) = gap.error {
            self.found.damaged += 1;
            self.found.unreadable.push(format!("{}: {error}", space.name()));
        }
    }
}

/// The message that lies at a place; `shared` gives what several queues hold.
pub(super) fn place_of(
    key: &[u8],
    value: &[u8],
    shared: impl FnOnce(MessageId) -> Result<Message, Damaged>,
) -> Result<(Message, Placed), Damaged> {
    let (session, cursor) = keys::parse_place(key)?;
    let QueueEntry { qos, retain, identifiers, group, body } = Reader::open(key, value)?.entry()?;
    let message = match body {
        Body::Inline(message) => message,
        Body::Shared(id, cost) => {
            shared(id).and_then(|m| if m.cost() as u64 == cost { Ok(m) } else { Err(Damaged) })?
        }
    };
    Ok((message, Placed { session, cursor, qos, retain, identifiers, shared: group }))
}

/// A message that several queues hold.
pub(super) fn body_of(base: &Base, id: MessageId) -> Result<Message, Damaged> {
    let key = keys::message(id);
    let value = base.get(&key).ok().flatten().ok_or(Damaged)?;
    Reader::open(&key.bytes, &value)?.message()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
