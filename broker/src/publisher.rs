//! Publishing: stage a burst, route it at once.

mod batch;
mod fanout;
mod journal;
mod shared;

use crate::{
    access::{ClientId, Policy, Principal},
    broker::Core,
    drops::Tally,
    link::{Lsn, Refused},
    message::{Head, Message, MessageId, Origin, Publish},
    metrics::{DropCause, Metrics},
    router::Route,
    session::{Incoming, Session, signal::Signal},
    topic::{InvalidTopic, Topic},
    traffic::Traffic,
};
use batch::{Batch, Run, Special, Staged};
use std::{sync::Arc, time::Duration};

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

/// The route of the last topic: consecutive publications mostly go the same way.
struct Last {
    route: Arc<Route>,
    may_publish: bool,
    /// It has no more levels than a client's topic may have.
    fits: bool,
    /// The rights it was decided under.
    policy: Policy,
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
        let (traffic, origin) = (core.gateways.none(), Core::own_origin());
        Self { core, principal: Principal::server(), from: From::Passer { origin, traffic }, last: None, batch: None }
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
        // Read first: what changes meanwhile makes this older than it need be, never newer.
        let policy = self.core.rights.policy();
        let listened = !route.targets.is_empty();
        let may_publish = self.core.rights.may_publish(&self.principal, self.client(), &route.topic, listened);
        let fits = route.topic.levels() <= self.core.budget.limits.max_topic_levels;
        self.last.insert(Last { route, may_publish, fits, policy })
    }

    /// Whether a message to this topic would be let in, as far as the rights go.
    pub fn may_publish(&mut self, topic: &Topic) -> bool {
        let route = self.core.router.route(topic);
        self.go(route).may_publish
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
            self.lose(Some(&message.topic), DropCause::Refused);
            return Err(Refused::NotAuthorized);
        }
        // The bounds are for what clients send; the server may put a level of its own before it.
        if !last.fits && !self.principal.is_server() {
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
        // An answer is nobody's state.
        let retain = message.retain && !message.topic.as_str().starts_with("$reply/");
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
            retain,
            policy: last.policy,
        };
        let special = (message.condition.is_some() || message.idempotency.is_some())
            .then(|| Box::new(Special { condition: message.condition, idempotency: message.idempotency }));
        batch.careful |= retain || special.is_some();
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

    /// Enters a publication that reaches nobody into the ledger of drops, with the burst it belongs to. What
    /// [`Publisher::stage`] refuses for want of rights is there already.
    pub fn lose(&mut self, topic: Option<&Topic>, cause: DropCause) {
        let traffic = self.traffic().clone();
        let batch = self.batch.get_or_insert_with(Batch::new);
        batch.refused.get_or_insert_with(|| Box::new(Tally::new(traffic))).add(topic, cause, 1);
    }

    fn enter_refused(&self, batch: &mut Batch) {
        if let Some(tally) = batch.refused.take() {
            self.traffic().add_messages_received(usize::try_from(tally.len()).unwrap_or(usize::MAX));
            self.core.budget.drops.enter(*tally, self.client(), &self.core.budget.metrics);
        }
    }

    /// Routes what is staged: one lock and one wake-up a subscriber and run. Appends one receipt per staged message,
    /// in order. Hold acknowledgements until the position is durable. A fenced link's messages vanish without receipt.
    pub fn flush(&mut self, receipts: &mut Vec<Receipt>) -> Lsn {
        match self.batch.take() {
            Some(batch) => self.flush_batch(batch, receipts),
            None => Lsn::default(),
        }
    }

    /// [`Publisher::flush`] for a client that will offer again what is refused for want of room: what it staged after
    /// a refused message, QoS 0 excepted, is refused likewise, so that nothing overtakes.
    pub fn flush_in_order(&mut self, receipts: &mut Vec<Receipt>) -> Lsn {
        match self.batch.take() {
            Some(mut batch) => {
                batch.in_order = true;
                self.flush_batch(batch, receipts)
            }
            None => Lsn::default(),
        }
    }

    fn flush_batch(&self, mut batch: Box<Batch>, receipts: &mut Vec<Receipt>) -> Lsn {
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
        let reserved = batch.careful || self.needs_journal(batch);
        let lsn = if reserved { self.reserve_and_journal(batch) } else { Lsn::default() };
        let (mut start, mut published, mut bytes, mut refused) = (0, 0, 0, 0);
        let mut dropped = None;
        for run in &batch.runs {
            let messages = &batch.staged[start..run.end];
            start = run.end;
            self.core.deliver(&run.route, messages, reserved);
            let publisher = messages.first().map_or(0, |staged| staged.message.head().origin.session);
            let matched = run.route.matched(publisher);
            for staged in messages {
                let id = staged.message.id();
                let outcome = staged.verdict.unwrap_or(Outcome::Accepted { matched, id });
                // Whoever offers again has dropped nothing.
                if matches!(outcome, Outcome::QuotaExceeded | Outcome::StoreUnavailable) && !batch.in_order {
                    let tally = dropped.get_or_insert_with(|| Tally::new(self.traffic().clone()));
                    tally.add(Some(staged.message.topic()), DropCause::Refused, 1);
                }
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
        if let Some(tally) = dropped {
            self.core.budget.drops.enter(tally, self.client(), metrics);
        }
        lsn
    }

    /// False while the bytes staged and not yet durable exceed the ingress budget: stop reading, or say
    /// "congestion". [`crate::Event::Room`] follows. Never false because of a session's queue.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.core.store.has_room() || {
            if let Some((_, signal)) = self.holder() {
                self.core.wait_for_store(signal);
            }
            // It may have turned true in between, and nobody would tell.
            self.core.store.has_room()
        }
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
