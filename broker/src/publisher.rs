//! Publishing: stage a burst, route it at once.

use crate::{
    access::{Action, ClientId, Principal},
    broker::Core,
    clock::Time,
    drops::Tally,
    idempotency::{Answer, Answers, Idempotency, Known},
    link::{Lsn, Refused},
    message::{Condition, Head, Message, MessageId, Origin, Publish, Qos},
    metrics::{DropCause, Metrics},
    router::{Route, Target, retained::Retained},
    session::{Account, Copy, Full, Incoming, KEPT, REJECTS, Session, signal::Signal},
    store::{Placed, Record},
    topic::{InvalidTopic, Topic},
    traffic::Traffic,
};
use parking_lot::{MutexGuard, RwLockWriteGuard};
use std::{cell::RefCell, num::NonZeroU16, ops::Range, sync::Arc, time::Duration};

/// Numbers for messages are fetched in blocks of this many.
const NUMBER_BLOCK: u64 = 256;

/// What became of a staged message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// What the caller gave to `stage`.
    pub token: u32,
    /// The outcome.
    pub outcome: Outcome,
}

/// What became of a staged message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in every queue it belongs in (and safe once the flush's position is durable).
    Accepted {
        /// Sessions that get it.
        matched: u32,
        /// Its name; as retained state, its ETag.
        id: MessageId,
    },
    /// A QoS 2 publication that was accepted before and not yet released: acknowledge it again.
    Duplicate,
    /// [`Publish::idempotency`] names a request that was answered before; that answer again, once the flush's position
    /// is durable.
    Repeated {
        /// Sessions that got it then.
        matched: u32,
        /// Its name.
        id: MessageId,
    },
    /// [`Publish::idempotency`] names another request that was answered before.
    KeyReused,
    /// A queue with `overflow = "reject"` is full, or the retained limits are reached; the message reached nobody.
    /// [`crate::Event::Room`] tells when to try again.
    QuotaExceeded,
    /// The store cannot write; nothing was queued. [`crate::Event::Room`] tells when to try again.
    StoreUnavailable,
    /// [`Publish::condition`] does not hold; nothing was published.
    ConditionFailed {
        /// The state there is.
        current: Option<MessageId>,
    },
}

/// Publishes as one principal. Buffers like `BufWriter`: `stage` checks and keeps, `flush` routes the whole burst.
/// What is staged and not flushed is forgotten when it is dropped.
pub struct Publisher {
    core: Arc<Core>,
    pub(crate) principal: Principal,
    from: From,
    last: Option<Last>,
    /// `None` between bursts: an idle connection keeps no buffer.
    batch: Option<Box<Batch>>,
}

/// Who publishes.
enum From {
    /// The holder of a session: QoS 2 identifiers belong to it, and its link fences. The origin is made with the
    /// first message: most clients only listen.
    Link { session: Arc<Session>, signal: Arc<Signal>, origin: Option<Arc<Origin>> },
    /// Somebody without a session.
    Passer { origin: Arc<Origin>, traffic: Arc<Traffic> },
}

/// What is staged and not flushed.
#[derive(Default)]
struct Batch {
    staged: Vec<Staged>,
    /// Runs of staged messages with one route; each begins where the one before ends.
    runs: Vec<Run>,
    /// Numbers fetched for messages and not used yet.
    numbers: Range<u64>,
    now: Option<Time>,
    /// What the rights refused.
    refused: Option<Box<Tally>>,
    /// Something staged needs more than a push into queues.
    careful: bool,
    has_exactly_once: bool,
}

thread_local! {
    #[expect(clippy::vec_box, reason = "a publisher holds a box too: eight bytes while it is idle")]
    /// Batches that are not in use, with the room they grew.
    static SPARE: RefCell<Vec<Box<Batch>>> = const { RefCell::new(Vec::new()) };
}

/// Spare batches a thread keeps; more are in use at once only while connections stage without flushing.
const MOST_SPARE: usize = 16;

impl Batch {
    fn new() -> Box<Self> {
        SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    fn recycle(mut self: Box<Self>) {
        self.staged.clear();
        self.runs.clear();
        (self.now, self.careful, self.has_exactly_once) = (None, false, false);
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MOST_SPARE {
                spare.push(self);
            }
        });
    }
}

/// The route of the last topic: consecutive publications mostly go the same way.
struct Last {
    route: Arc<Route>,
    may_publish: bool,
}

struct Run {
    route: Arc<Route>,
    end: usize,
}

struct Staged {
    message: Message,
    token: u32,
    exactly_once: Option<NonZeroU16>,
    special: Option<Box<Special>>,
    /// Decided already; not to be routed.
    verdict: Option<Outcome>,
}

/// What few publications come with.
struct Special {
    condition: Option<Condition>,
    idempotency: Option<Box<Idempotency>>,
}

impl Publisher {
    pub(crate) fn sessionless(
        core: Arc<Core>,
        principal: Principal,
        client: Option<ClientId>,
        traffic: Arc<Traffic>,
    ) -> Self {
        let origin = core.origin(&principal, client, 0);
        Self { core, principal, from: From::Passer { origin, traffic }, last: None, batch: None }
    }

    /// For what the server itself has to say.
    pub(crate) fn of_server(core: Arc<Core>) -> Self {
        let traffic = core.gateways.none();
        Self::sessionless(core, Principal::server(), None, traffic)
    }

    pub(crate) fn of_session(
        core: Arc<Core>,
        principal: Principal,
        session: Arc<Session>,
        signal: Arc<Signal>,
    ) -> Self {
        Self { core, principal, from: From::Link { session, signal, origin: None }, last: None, batch: None }
    }

    fn client(&self) -> Option<&ClientId> {
        match &self.from {
            From::Link { session, .. } => session.client.as_ref(),
            From::Passer { origin, .. } => origin.client.as_ref(),
        }
    }

    /// The session and the link that hold this publisher.
    fn holder(&self) -> Option<(&Arc<Session>, &Arc<Signal>)> {
        match &self.from {
            From::Link { session, signal, .. } => Some((session, signal)),
            From::Passer { .. } => None,
        }
    }

    fn traffic(&self) -> &Arc<Traffic> {
        match &self.from {
            From::Link { signal, .. } => &signal.traffic,
            From::Passer { traffic, .. } => traffic,
        }
    }

    /// The topic of these bytes: the last one again without looking, or a known one, or a new one.
    ///
    /// # Errors
    /// They are no topic name.
    #[inline]
    pub fn topic(&mut self, name: &[u8]) -> Result<Topic, InvalidTopic> {
        match &self.last {
            Some(last) if last.route.topic.as_str().as_bytes() == name => Ok(last.route.topic.clone()),
            _ => self.other_topic(name),
        }
    }

    fn other_topic(&mut self, name: &[u8]) -> Result<Topic, InvalidTopic> {
        let text = std::str::from_utf8(name).map_err(|_| InvalidTopic::NotUtf8)?;
        match self.core.router.known(text) {
            Some(route) => {
                let topic = route.topic.clone();
                self.go(route);
                Ok(topic)
            }
            None => Topic::parse(text),
        }
    }

    /// Remembers a route, and whether this principal may use it.
    fn go(&mut self, route: Arc<Route>) -> &Last {
        let may_publish = self.core.may_publish(&self.principal, self.client(), &route.topic);
        self.last.insert(Last { route, may_publish })
    }

    /// Keeps a message for the next flush; `token` comes back in its receipt.
    ///
    /// # Errors
    /// What can never succeed is refused at once, and is not staged.
    pub fn stage(&mut self, message: Publish<'_>, token: u32) -> Result<(), Refused> {
        let generation = self.core.router.generation();
        let fresh = matches!(&self.last, Some(last) if last.route.generation == generation
            && last.route.topic == message.topic);
        if !fresh {
            let route = self.core.router.route(&message.topic);
            self.go(route);
        }
        let limits = &self.core.budget.limits;
        let Some(last) = &self.last else { return Err(Refused::Fenced) };
        if !last.may_publish {
            self.count_refused(&message.topic);
            return Err(Refused::NotAuthorized);
        }
        // The bounds are for what clients send; the server may put a level of its own before it.
        if !fresh && message.topic.levels() > limits.max_topic_levels && !self.principal.is_server() {
            return Err(Refused::TooManyLevels);
        }
        if message.qos as u8 > limits.max_qos {
            return Err(Refused::QosNotSupported);
        }
        if message.retain && !limits.retain_available && !self.principal.is_server() {
            return Err(Refused::RetainNotSupported);
        }
        let bytes = message.payload.len() + message.topic.as_str().len();
        if bytes > limits.max_packet_size as usize && !self.principal.is_server() {
            return Err(Refused::TooLarge);
        }
        let batch = self.batch.get_or_insert_with(Batch::new);
        let now = *batch.now.get_or_insert_with(|| self.core.clock.now());
        let origin = match &mut self.from {
            From::Passer { origin, .. } => origin,
            From::Link { session, origin, .. } => {
                origin.get_or_insert_with(|| self.core.origin(&self.principal, session.client.clone(), session.id))
            }
        };
        let number = match batch.numbers.next() {
            Some(number) => number,
            None => {
                batch.numbers = self.core.numbers(NUMBER_BLOCK);
                batch.numbers.next().unwrap_or_default()
            }
        };
        let head = Head {
            topic: message.topic,
            origin: origin.clone(),
            id: MessageId(number),
            time: now,
            expires: message.expiry.map(|s| now.after(Duration::from_secs(s.into()))),
            properties: message.properties,
            qos: message.qos,
            retain: message.retain,
        };
        let special = (message.condition.is_some() || message.idempotency.is_some())
            .then(|| Box::new(Special { condition: message.condition, idempotency: message.idempotency }));
        batch.careful |= message.retain || special.is_some();
        batch.has_exactly_once |= message.exactly_once.is_some();
        batch.staged.push(Staged {
            message: Message::new(head, message.payload),
            token,
            exactly_once: message.exactly_once,
            special,
            verdict: None,
        });
        let end = batch.staged.len();
        match batch.runs.last_mut() {
            Some(run) if Arc::ptr_eq(&run.route, &last.route) => run.end = end,
            _ => batch.runs.push(Run { route: last.route.clone(), end }),
        }
        Ok(())
    }

    /// Enters a refused publication into the ledger of drops, with the burst it belongs to.
    fn count_refused(&mut self, topic: &Topic) {
        let traffic = self.traffic().clone();
        let batch = self.batch.get_or_insert_with(Batch::new);
        batch.refused.get_or_insert_with(|| Box::new(Tally::new(traffic))).add(topic, DropCause::Refused);
    }

    fn enter_refused(&self, batch: &mut Batch) {
        if let Some(tally) = batch.refused.take() {
            self.traffic().add_messages_received(tally.len());
            self.core.budget.drops.enter(*tally, self.client(), &self.core.budget.metrics);
        }
    }

    /// Routes what is staged: one lock and one wake-up a subscriber and run. Appends one receipt per staged message,
    /// in order. Hold acknowledgements until the position is durable. A fenced link's messages vanish without receipt.
    pub fn flush(&mut self, receipts: &mut Vec<Receipt>) -> Lsn {
        let Some(mut batch) = self.batch.take() else { return Lsn::default() };
        self.enter_refused(&mut batch);
        self.traffic().add_messages_received(batch.staged.len());
        let lsn = match self.holder() {
            None => self.route(&mut batch, None, receipts),
            Some((session, signal)) => {
                let mut incoming = session.incoming.lock();
                match signal.detached() {
                    Some(_) => Lsn::default(),
                    None => self.route(&mut batch, Some(&mut incoming), receipts),
                }
            }
        };
        batch.recycle();
        lsn
    }

    fn route(&self, batch: &mut Batch, mut incoming: Option<&mut Incoming>, receipts: &mut Vec<Receipt>) -> Lsn {
        if let Some(incoming) = incoming.as_mut().filter(|_| batch.has_exactly_once) {
            for staged in &mut batch.staged {
                let seen = staged.exactly_once.is_some_and(|id| !incoming.insert(id));
                staged.verdict = seen.then_some(Outcome::Duplicate);
            }
        }
        let lsn =
            if batch.careful || self.needs_journal(batch) { self.reserve_and_journal(batch) } else { Lsn::default() };
        let (mut start, mut published, mut bytes, mut refused) = (0, 0, 0, 0);
        for run in &batch.runs {
            let messages = &batch.staged[start..run.end];
            start = run.end;
            let matched = self.core.deliver(&run.route, messages);
            for staged in messages {
                let id = staged.message.id();
                let outcome = staged.verdict.unwrap_or(Outcome::Accepted { matched, id });
                match outcome {
                    Outcome::Accepted { .. } => {
                        published += 1;
                        bytes += staged.message.cost() as u64;
                    }
                    Outcome::Duplicate | Outcome::Repeated { .. } => {}
                    _ => refused += 1,
                }
                if let (Some(id), Some(incoming)) = (staged.exactly_once, incoming.as_mut())
                    && !matches!(outcome, Outcome::Accepted { .. } | Outcome::Duplicate)
                {
                    // PUBREC with an error ends the exchange: the identifier is free [MQTT-4.3.3-8].
                    incoming.remove(id);
                }
                receipts.push(Receipt { token: staged.token, outcome });
            }
        }
        let metrics = &self.core.budget.metrics;
        Metrics::add(&metrics.published, published);
        Metrics::add(&metrics.published_bytes, bytes);
        Metrics::add(&metrics.refused, refused);
        lsn
    }

    /// False while the bytes staged and not yet durable exceed the ingress budget: stop reading, or say
    /// "congestion". [`crate::Event::Room`] follows. Never false because of a session's queue.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.core.store.has_room()
    }

    /// Whether anything staged must be reserved or journaled before it is queued.
    fn needs_journal(&self, batch: &Batch) -> bool {
        let own = batch.has_exactly_once && self.holder().is_some_and(|(session, _)| session.has(KEPT));
        let mut start = 0;
        own || batch.runs.iter().any(|run| {
            let promised = batch.staged[start..run.end].iter().any(|s| s.message.qos() != Qos::AtMostOnce);
            start = run.end;
            promised && run.route.targets.iter().any(|target| target.session.has(KEPT | REJECTS))
        })
    }

    /// For messages that must be journaled, may be refused, or change a topic's state: reserves their places, appends
    /// them as one batch, sets the states. What is refused gets its verdict; `deliver` does the rest.
    fn reserve_and_journal(&self, batch: &mut Batch) -> Lsn {
        let core = self.core.clone();
        let mut retained = batch.careful.then(|| core.retained.write());
        let with_keys = batch.staged.iter().any(|s| s.special.as_ref().is_some_and(|s| s.idempotency.is_some()));
        let mut journal = Journal {
            core: &core,
            user: self.principal.name(),
            answers: with_keys.then(|| core.answers.lock()),
            answered: Vec::new(),
            repeated: Lsn::default(),
            waiting: self.holder().map(|(_, signal)| signal),
            records: Vec::new(),
            placed: Vec::new(),
        };
        let own_key = self.holder().filter(|(session, _)| session.has(KEPT)).map(|(session, _)| session.key);
        let mut start = 0;
        for run in &batch.runs {
            for staged in &mut batch.staged[start..run.end] {
                if staged.verdict.is_none() {
                    let incoming = own_key.zip(staged.exactly_once);
                    staged.verdict = journal.take_in(&run.route, staged, incoming, retained.as_mut()).err();
                }
            }
            start = run.end;
        }
        let Journal { mut records, placed, mut answers, answered, repeated, .. } = journal;
        let appended = if records.is_empty() || !core.store.keeps() {
            Ok(Lsn::default())
        } else {
            core.store.append(&mut records)
        };
        match appended {
            Ok(lsn) => {
                answered.iter().zip(answers.as_mut()).for_each(|(answer, answers)| answers.journaled(answer, lsn));
                for (session, cursor) in placed {
                    let mut state = session.state.lock();
                    state.queue.fill(cursor, lsn);
                    state.ring();
                }
                if let Some(retained) = retained.as_mut() {
                    let accepted = batch.staged.iter().filter(|s| s.verdict.is_none() && s.message.retain());
                    accepted.for_each(|s| retained.set(&s.message));
                }
                lsn.max(repeated)
            }
            Err(_) => {
                answered.iter().zip(answers.as_mut()).for_each(|(answer, answers)| answers.take_back(answer));
                for (session, cursor) in placed {
                    cancel(&core, &session, cursor);
                }
                if let Some((_, signal)) = self.holder() {
                    core.wait_for_store(signal);
                }
                for staged in &mut batch.staged {
                    let promised = staged.message.qos() != Qos::AtMostOnce;
                    let hurt = promised || staged.message.retain() || staged.special.is_some();
                    if staged.verdict.is_none() && hurt {
                        staged.verdict = Some(Outcome::StoreUnavailable);
                    }
                }
                repeated
            }
        }
    }
}

/// One batch on its way into the journal.
struct Journal<'a> {
    core: &'a Arc<Core>,
    user: Option<&'a str>,
    waiting: Option<&'a Arc<Signal>>,
    /// Held over the batch if anything in it has an idempotency key.
    answers: Option<MutexGuard<'a, Answers>>,
    answered: Vec<Answer>,
    /// The position that repeated answers wait for.
    repeated: Lsn,
    records: Vec<Record>,
    placed: Vec<(Arc<Session>, crate::link::Cursor)>,
}

impl Journal<'_> {
    /// Reserves a message's places and writes its record; all or nothing.
    fn take_in(
        &mut self,
        route: &Route,
        staged: &Staged,
        incoming: Option<(crate::store::SessionKey, NonZeroU16)>,
        retained: Option<&mut RwLockWriteGuard<'_, Retained>>,
    ) -> Result<(), Outcome> {
        let (core, message) = (self.core, &staged.message);
        let (retain, special) = (message.retain(), staged.special.as_deref());
        let key = special.and_then(|special| special.idempotency.as_deref());
        // A repeat is answered whatever the topic's state is by now.
        if let Some((key, answers)) = key.zip(self.answers.as_mut()) {
            match answers.look(self.user, key, message.time(), &mut self.records) {
                Known::New => {}
                Known::Answered { id, matched, lsn } => {
                    self.repeated = self.repeated.max(lsn);
                    return Err(Outcome::Repeated { matched, id });
                }
                Known::Other => return Err(Outcome::KeyReused),
                Known::Full => return Err(Outcome::QuotaExceeded),
            }
        }
        if let Some(retained) = retained {
            let current = retained.current(message.topic().as_str(), message.time());
            let condition = special.and_then(|special| special.condition.as_ref());
            if condition.is_some_and(|condition| !condition.holds(current)) {
                return Err(Outcome::ConditionFailed { current });
            }
            if retain
                && !message.is_transient()
                && !message.payload().is_empty()
                && !retained.has_room(message, &core.budget.limits)
            {
                return Err(Outcome::QuotaExceeded);
            }
        }
        let (first_place, first_record) = (self.placed.len(), self.records.len());
        let mut places = Vec::new();
        for target in route.targets.iter().filter(|target| target.reserves(message)) {
            let session = &target.session;
            let mut account = Account::new(&core.budget, session);
            let kept = account.kept();
            let mut state = session.state.lock();
            let pushed = state.push(&target.copy(message), false, &mut account);
            self.records.append(&mut account.records);
            match pushed {
                Ok(None) => {}
                Ok(Some(cursor)) => {
                    drop(state);
                    self.placed.push((session.clone(), cursor));
                    if kept {
                        places.push(target.placed(message, cursor));
                    }
                }
                Err(Full) => {
                    if let Some(signal) = self.waiting {
                        state.wait_for_room(signal);
                    }
                    drop(state);
                    for (session, cursor) in self.placed.drain(first_place..) {
                        cancel(core, &session, cursor);
                    }
                    // What made room for this message elsewhere stays gone; its records stay too.
                    return Err(Outcome::QuotaExceeded);
                }
            }
        }
        if let Some((key, answers)) = key.zip(self.answers.as_mut()) {
            let publisher = message.head().origin.session;
            let matched = route.targets.iter().filter(|target| !target.is_own(publisher)).count();
            let matched = u32::try_from(matched).unwrap_or(u32::MAX);
            let answer = answers.keep(self.user, key, message.id(), message.time(), matched);
            if core.store.keeps() {
                self.records.push(Record::Answered(Box::new(answer.clone())));
            }
            self.answered.push(answer);
        }
        // The server's own states are made anew at each start.
        if core.store.keeps() && !message.is_transient() {
            if retain && message.payload().is_empty() {
                self.records.push(Record::Cleared(message.topic().clone()));
            }
            let retained = retain && !message.payload().is_empty();
            if !places.is_empty() || incoming.is_some() || retained {
                self.records.push(Record::Stored { message: message.clone(), places, incoming, retained });
            }
        }
        debug_assert!(self.records.len() >= first_record);
        Ok(())
    }
}

/// Gives a reserved place back, as if the message had never come.
fn cancel(core: &Core, session: &Session, cursor: crate::link::Cursor) {
    let mut state = session.state.lock();
    if let Some(entry) = state.queue.cancel(cursor) {
        let mut account = Account::unkept(&core.budget, session);
        state.give_back(&entry, &mut account);
        account.take_back();
    }
    state.ring();
}

impl Target {
    fn qos_for(&self, message: &Message) -> Qos {
        self.qos.min(message.qos())
    }

    fn copy<'a>(&'a self, message: &'a Message) -> Copy<'a> {
        Copy {
            message,
            qos: self.qos_for(message),
            // The flag tells a client that subscribed before nothing, unless it asked [MQTT-3.3.1-12].
            retain: self.retain_as_published && message.retain(),
            identifiers: &self.identifiers,
        }
    }

    /// Whether the message's place must be reserved before it is journaled.
    fn reserves(&self, message: &Message) -> bool {
        self.qos_for(message) != Qos::AtMostOnce
            && self.session.has(KEPT | REJECTS)
            && !self.is_own(message.head().origin.session)
    }

    fn is_own(&self, publisher: u32) -> bool {
        self.no_local && publisher == self.session.id
    }

    fn placed(&self, message: &Message, cursor: crate::link::Cursor) -> Placed {
        let copy = self.copy(message);
        let identifiers = self.identifiers.as_ref().map_or_else(Box::default, |ids| ids.slice.into());
        Placed { session: self.session.key, cursor, qos: copy.qos, retain: copy.retain, identifiers }
    }
}

impl Condition {
    fn holds(&self, current: Option<MessageId>) -> bool {
        match self {
            Self::Absent => current.is_none(),
            Self::Present => current.is_some(),
            Self::Is(ids) => current.is_some_and(|id| ids.contains(&id)),
        }
    }
}

impl Core {
    /// Puts a run of messages into the queues of its route, as far as they have no place yet. Gives the number of
    /// sessions that match.
    fn deliver(&self, route: &Route, batch: &[Staged]) -> u32 {
        let publisher = batch.first().map_or(0, |staged| staged.message.head().origin.session);
        let mut matched = 0;
        let mut records = Vec::new();
        for target in &route.targets {
            if target.is_own(publisher) {
                continue;
            }
            matched += 1;
            let session = &*target.session;
            let special = session.has(KEPT | REJECTS);
            let mut account = Account::new(&self.budget, session);
            let mut state = session.state.lock();
            for staged in batch.iter().filter(|s| s.verdict.is_none()) {
                if special && target.reserves(&staged.message) {
                    continue;
                }
                // QoS 0, or a session that cannot refuse: a full queue drops by its own rule.
                let _ = state.push(&target.copy(&staged.message), true, &mut account);
            }
            state.ring();
            drop(state);
            records.append(&mut account.records);
        }
        self.note(&mut records);
        matched
    }

    /// Whether `who` may publish there, as far as the rights go and the server's own topics.
    pub(crate) fn may_publish(&self, who: &Principal, client: Option<&ClientId>, topic: &Topic) -> bool {
        let own = ["$SYS", "$dead", "$share"];
        let reserved = topic.as_str().starts_with('$')
            && topic.as_str().split('/').next().is_some_and(|level| own.contains(&level));
        who.is_server() || (!reserved && self.authorize.may(who, client, Action::Publish(topic)))
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Some(mut batch) = self.batch.take() {
            self.enter_refused(&mut batch);
            batch.recycle();
        }
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("client", &self.client()).finish_non_exhaustive()
    }
}
