//! The broker: what all parts of the core share, and the views for whoever runs the place.

use crate::{
    access::{AllowAll, Authenticate, Authorize, ClientId, Credentials, Peer, Principal, Refusal, Rights},
    clock::{Clock, Time},
    documents::Documents,
    drops::{Dropped, Drops},
    idempotency::Answers,
    limits::{Limits, Overflow},
    link::{Cursor, Lsn, Reason, Subscription},
    message::{Message, Origin, Publish, Qos},
    metrics::Metrics,
    publisher::Publisher,
    router::{Router, Target, retained::Retained},
    session::{
        Budget, KNOWN, PROPERTIES, Session,
        registry::Registry,
        signal::{DELIVERABLE, ROOM, Signal},
    },
    store::{Health, Listener, Memory, Record, SessionKey, Store},
    timetable::{Owed, Timetable},
    topic::{Filter, InvalidTopic, Topic},
    traffic::{Gateways, Traffic},
};
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::BTreeMap,
    future::poll_fn,
    net::IpAddr,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
};

/// Numbers that leave the server: this many bits of their own below the store's epoch.
pub(crate) const NUMBER_BITS: u32 = 40;

/// The core. Cheap to clone; all clones are the same broker.
#[derive(Clone)]
pub struct Broker(pub(crate) Arc<Core>);

/// What a broker is made of.
pub struct Parts {
    /// Bounds.
    pub limits: Limits,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who clients are.
    pub authenticate: Arc<dyn Authenticate>,
    /// What they may.
    pub authorize: Arc<dyn Authorize>,
    /// What is kept.
    pub store: Arc<dyn Store>,
    /// Bytes of a session's queue that stay in memory; what the store has of the rest lies there alone.
    pub memory_per_session: u64,
}

/// What all parts of the core share.
pub(crate) struct Core {
    pub(crate) budget: Budget,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) authenticate: Arc<dyn Authenticate>,
    pub(crate) rights: Arc<Rights>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) memory_per_session: u64,
    pub(crate) router: Router,
    pub(crate) retained: RwLock<Retained>,
    pub(crate) answers: Mutex<Answers>,
    /// Named sessions.
    pub(crate) sessions: RwLock<Registry>,
    pub(crate) connections: Mutex<Connections>,
    pub(crate) gateways: Gateways,
    pub(crate) timetable: Timetable,
    /// Wills that found the store down, with those that came first in front.
    pub(crate) owed_wills: Mutex<Vec<Owed>>,
    pub(crate) documents: Mutex<Documents>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) stopping: AtomicBool,
    next_number: AtomicU64,
    next_session: AtomicU64,
}

/// Who is connected, for the limits.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// Clients: the server's own parts do not count.
    pub(crate) count: u32,
    /// The most there ever were at once.
    pub(crate) most: u32,
    /// Named sessions that are held, by the server's own parts too.
    pub(crate) named: u32,
    pub(crate) by_address: HashMap<IpAddr, u32>,
}

/// Who waits for the store.
#[derive(Default)]
pub(crate) struct Waiters {
    durable: Mutex<BTreeMap<Lsn, Vec<Waiter>>>,
    available: Mutex<Vec<Arc<Signal>>>,
}

pub(crate) enum Waiter {
    Link(Arc<Signal>, u16),
    Task(Waker),
    /// A queue of which more may lie on disk alone then.
    Queue(Weak<Core>, Arc<Session>),
}

impl Waiters {
    pub(crate) fn add(&self, lsn: Lsn, waiter: Waiter) {
        self.durable.lock().entry(lsn).or_default().push(waiter);
    }
}

impl Parts {
    /// A broker that keeps nothing and lets everybody in, for embedding and for tests: change what differs.
    #[must_use]
    pub fn in_memory(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let store = Arc::new(Memory::new(clock.now()));
        let (authenticate, authorize) = (Arc::new(AllowAll), Arc::new(AllowAll));
        Self { limits, clock, authenticate, authorize, store, memory_per_session: 262_144 }
    }
}

impl Broker {
    /// A broker with what the store recovers in it.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let epoch = u64::from(parts.store.epoch());
        let first = (epoch << NUMBER_BITS) + 1;
        let waiters = Arc::new(Waiters::default());
        let rights = Arc::new(Rights::new(parts.authorize));
        let core = Core {
            budget: Budget {
                limits: parts.limits,
                metrics: Metrics::default(),
                drops: Drops::new(parts.clock.clone()),
                bytes: AtomicU64::new(0),
            },
            clock: parts.clock,
            authenticate: parts.authenticate,
            router: Router::new(rights.clone()),
            rights,
            store: parts.store,
            memory_per_session: parts.memory_per_session,
            retained: RwLock::default(),
            answers: Mutex::default(),
            sessions: RwLock::default(),
            connections: Mutex::default(),
            gateways: Gateways::default(),
            timetable: Timetable::default(),
            owed_wills: Mutex::default(),
            documents: Mutex::default(),
            waiters: waiters.clone(),
            stopping: AtomicBool::new(false),
            next_number: AtomicU64::new(first),
            next_session: AtomicU64::new(first),
        };
        let broker = Self(Arc::new(core));
        broker.recover();
        broker.0.store.listen(waiters);
        broker
    }

    /// For roads without a session (REST, MQTT-SN QoS -1): who is this?
    ///
    /// # Errors
    /// Why the credentials are refused.
    pub async fn authenticate(&self, who: &Credentials, peer: Peer) -> Result<Principal, Refusal> {
        match who {
            Credentials::Known(principal) => Ok(principal.clone()),
            who => self.0.authenticate.authenticate(who, peer).await,
        }
    }

    /// Whether it makes a difference who somebody says to be.
    #[must_use]
    pub fn knows_users(&self) -> bool {
        self.0.authenticate.knows_users()
    }

    /// A way to publish without a session.
    #[must_use]
    pub fn publisher(&self, gateway: &Arc<str>, who: Principal, client: Option<ClientId>) -> Publisher {
        Publisher::sessionless(self.0.clone(), who, client, self.0.gateways.of(gateway))
    }

    /// The retained message of a topic, if there is one that has not expired.
    ///
    /// # Errors
    /// `who` may not read the topic.
    pub fn retained(&self, who: &Principal, topic: &Topic) -> Result<Option<Message>, Refusal> {
        if !self.0.rights.may_receive(who, None, topic) {
            return Err(Refusal::NotAuthorized);
        }
        let message = self.0.retained.read().get(topic.as_str(), self.0.clock.now()).cloned();
        Ok(message.filter(|message| self.0.rights.may_read(who, None, message)))
    }

    /// Retained messages under `filter` that `who` may read, level by level in byte order, after `after`, at most
    /// `limit`, appended to `out`.
    pub fn retained_under(
        &self,
        who: &Principal,
        filter: &Filter,
        after: Option<&Topic>,
        limit: usize,
        out: &mut Vec<Message>,
    ) {
        let wanted = out.len() + limit;
        if limit > 0 {
            self.0.retained.read().scan(filter.pattern(), after, self.0.clock.now(), |message| {
                if self.0.rights.may_read(who, None, message) {
                    out.push(message.clone());
                }
                out.len() < wanted
            });
        }
    }

    /// What an acknowledgement means here, and whether the store can keep it at the moment.
    #[must_use]
    pub fn durability(&self) -> Health {
        self.0.store.health()
    }

    /// Completes when everything up to `lsn` is as safe as `[durability]` promises.
    pub async fn durable(&self, lsn: Lsn) {
        poll_fn(|cx| {
            if lsn <= self.0.store.durable() {
                return Poll::Ready(());
            }
            self.0.waiters.add(lsn, Waiter::Task(cx.waker().clone()));
            // It may have become durable in between, and nobody would tell.
            if lsn <= self.0.store.durable() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.budget.limits
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.budget.metrics
    }

    /// The core's time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.0.clock.now()
    }

    /// Whether `who`, speaking from `peer`, may use what is meant for operators.
    #[must_use]
    pub fn may_admin(&self, who: &Principal, peer: Peer) -> bool {
        self.0.rights.may_admin(who, peer)
    }

    /// Whether `who`, speaking from `peer`, may make session `client` one with `overflow = "reject"`.
    #[must_use]
    pub fn may_reject(&self, who: &Principal, client: Option<&ClientId>, peer: Peer) -> bool {
        self.0.rights.may_reject(who, client, peer)
    }

    /// A named session's figures.
    #[must_use]
    pub fn session(&self, id: &ClientId) -> Option<SessionInfo> {
        let session = self.0.sessions.read().get(id)?.clone();
        Some(self.info(id, &session))
    }

    /// Named sessions in the order of their ids, after `after`, at most `limit`.
    #[must_use]
    pub fn sessions(&self, after: Option<&ClientId>, limit: usize) -> Vec<SessionInfo> {
        let page: Vec<_> = self.0.sessions.read().after(after).take(limit).cloned().collect();
        page.iter().filter_map(|session| Some(self.info(session.client.as_ref()?, session))).collect()
    }

    fn info(&self, id: &ClientId, session: &Session) -> SessionInfo {
        let limits = self.limits();
        let state = session.state.lock();
        SessionInfo {
            id: id.clone(),
            key: session.key,
            owner: state.owner.as_deref().map(Into::into),
            held_by: state.signal.as_ref().map(|_| state.traffic.gateway().clone()),
            peer: state.signal.as_ref().map(|_| state.peer),
            expiry: state.expiry,
            subscriptions: state.subscriptions.clone(),
            queued: state.queued() as u64,
            queued_bytes: state.queued_bytes(),
            oldest: state.oldest(),
            delivered: state.delivered,
            dropped: state.seldom.dropped,
            settled: state.settled,
            missed: state.missed,
            max_queued_messages: state.max_messages(limits),
            overflow: state.overflow(limits),
        }
    }

    /// One gateway's counters; a gateway gets its own once, and adds to it once a batch.
    #[must_use]
    pub fn traffic(&self, gateway: &Arc<str>) -> Arc<Traffic> {
        self.0.gateways.of(gateway)
    }

    /// The counters of all gateways, in the order of their names.
    #[must_use]
    pub fn all_traffic(&self) -> Vec<Arc<Traffic>> {
        self.0.gateways.all()
    }

    /// The ledger of drops: lines with the latest news first, from the one before `before` (a [`Dropped::id`]) on,
    /// at most `limit`.
    #[must_use]
    pub fn drops(&self, before: Option<u64>, limit: usize) -> Vec<Dropped> {
        self.0.budget.drops.page(before, limit)
    }

    /// Sets `$SYS/broker/{name}`; an empty value clears it. It is state like any other, but for the disk: it says
    /// what is, and nothing is after the end.
    ///
    /// # Errors
    /// The name makes no topic.
    pub fn announce(&self, name: &str, value: &str) -> Result<(), InvalidTopic> {
        let topic = Topic::parse(&format!("$SYS/broker/{name}"))?;
        let mut publisher = Publisher::of_server(self.0.clone());
        let message = Publish { retain: true, ..Publish::new(topic, value.as_bytes(), Qos::AtMostOnce) };
        if publisher.stage(message, 0).is_ok() {
            publisher.flush(&mut Vec::new());
        }
        Ok(())
    }

    /// Messages waiting, and handed out but not settled, in all named sessions.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let sessions: Vec<_> = self.0.sessions.read().after(None).cloned().collect();
        sessions.iter().map(|s| s.state.lock().queued() as u64).sum()
    }

    /// Bytes (topic, payload and properties) of all queues that are in memory; those of queues that lie on disk are not.
    #[must_use]
    pub fn queued_in_memory(&self) -> u64 {
        self.0.budget.bytes(0, 0)
    }

    /// The largest backlogs there are, each of whichever named session has it.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let sessions: Vec<_> = self.0.sessions.read().after(None).cloned().collect();
        sessions.iter().fold(Backlog::default(), |most, session| {
            let state = session.state.lock();
            Backlog {
                messages: most.messages.max(state.queued() as u64),
                bytes: most.bytes.max(state.queued_bytes()),
                oldest: most.oldest.into_iter().chain(state.oldest()).min(),
            }
        })
    }

    /// Subscriptions of all sessions.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.0.router.subscriptions()
    }

    /// Topics that have a retained message; `$SYS` does not count.
    #[must_use]
    pub fn retained_count(&self) -> usize {
        self.0.retained.read().len()
    }

    /// Who would get a message on `topic`.
    #[must_use]
    pub fn audience(&self, topic: &Topic) -> Audience {
        let route = self.0.router.route(topic);
        let is_plain = |target: &Target| !target.session.has(PROPERTIES);
        let groups = route.shared.iter().filter(|group| !group.members.is_empty());
        let plain_groups = groups.clone().filter(|group| group.members.iter().any(is_plain)).count();
        let plain = route.targets.iter().filter(|target| is_plain(target)).count();
        Audience { sessions: route.targets.len() + groups.count(), plain: plain + plain_groups }
    }

    /// Clients connected now, all roads.
    #[must_use]
    pub fn connected(&self) -> u32 {
        self.0.connections.lock().count
    }

    /// The most clients that ever were connected at once.
    #[must_use]
    pub fn most_connected(&self) -> u32 {
        self.0.connections.lock().most
    }

    /// Named sessions whose client is away.
    #[must_use]
    pub fn disconnected(&self) -> usize {
        let sessions = self.0.sessions.read().len();
        sessions.saturating_sub(self.0.connections.lock().named as usize)
    }

    /// The rights changed: what was decided is decided anew. Who would not be let in any more is told to go
    /// ([`Reason::NotAuthorized`]); its session stays.
    pub fn policy_changed(&self) {
        self.0.rights.change();
        self.0.router.bump();
        self.0.router.for_each_session(|session| {
            let state = session.state.lock();
            let Some(signal) = &state.signal else { return };
            if !state.peer.is_internal() && !self.0.authenticate.still_admits(&state.principal, state.peer) {
                signal.detach(Reason::NotAuthorized);
            }
        });
    }

    /// From now on nobody gets in, and every link hears [`Reason::ServerStopping`]. Sessions stay; wills of clients
    /// that are told to go are not published [MQTT-3.1.2-10 leaves it open; a restart is no failure of theirs].
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
        self.0.router.for_each_session(|session| {
            let mut state = session.state.lock();
            if state.will.take().is_some() && state.signal.is_some() && session.has(KNOWN) {
                self.0.note(&mut vec![Record::Will(session.key, None)]);
            }
            if let Some(signal) = &state.signal {
                signal.detach(Reason::ServerStopping);
            }
        });
    }
}

impl Core {
    /// A block of numbers for messages.
    pub(crate) fn numbers(&self, count: u64) -> std::ops::Range<u64> {
        let first = self.next_number.fetch_add(count, Ordering::Relaxed);
        first..first + count
    }

    pub(crate) fn session_key(&self) -> SessionKey {
        SessionKey(self.next_session.fetch_add(1, Ordering::Relaxed))
    }

    /// Where a new or recovered session's cursors begin: above all that any start before has handed out.
    pub(crate) fn first_cursor(&self) -> u64 {
        (u64::from(self.store.epoch()) << NUMBER_BITS) + 1
    }

    /// Appends what must not fail.
    pub(crate) fn note(&self, records: &mut Vec<Record>) -> Lsn {
        if records.is_empty() || !self.store.keeps() {
            records.clear();
            return Lsn::default();
        }
        self.store.append_lazily(records)
    }

    /// Whether `lsn` is durable; if not, `signal` will get `bit` when it is.
    pub(crate) fn durable_or_wait(&self, lsn: Lsn, signal: &Arc<Signal>, bit: u16) -> bool {
        if lsn <= self.store.durable() {
            return true;
        }
        // Who waits to deliver looks again whenever it is woken, so one place in the line is enough.
        if bit != DELIVERABLE || signal.begin_waiting() {
            self.waiters.add(lsn, Waiter::Link(signal.clone(), bit));
        }
        if lsn <= self.store.durable() {
            // Told or not, it is so.
            return true;
        }
        false
    }

    /// `signal` hears [`crate::Event::Room`] when the store writes again.
    pub(crate) fn wait_for_store(&self, signal: &Arc<Signal>) {
        let mut waiting = self.waiters.available.lock();
        if !waiting.iter().any(|s| Arc::ptr_eq(s, signal)) {
            waiting.retain(|s| s.detached().is_none());
            waiting.push(signal.clone());
        }
    }

    pub(crate) fn origin(&self, principal: &Principal, client: Option<ClientId>, session: u32) -> Arc<Origin> {
        Arc::new(Origin { client, principal: principal.clone(), session })
    }

    /// That of all the server says itself.
    pub(crate) fn own_origin() -> Arc<Origin> {
        static OWN: LazyLock<Arc<Origin>> =
            LazyLock::new(|| Arc::new(Origin { client: None, principal: Principal::server(), session: 0 }));
        OWN.clone()
    }
}

impl Listener for Waiters {
    fn durable(&self, lsn: Lsn) {
        let due = {
            let mut waiting = self.durable.lock();
            let later = waiting.split_off(&Lsn(lsn.0 + 1));
            std::mem::replace(&mut *waiting, later)
        };
        let mut queues = Vec::new();
        for waiter in due.into_values().flatten() {
            match waiter {
                Waiter::Link(signal, bit) => {
                    if bit == DELIVERABLE {
                        signal.end_waiting();
                    }
                    signal.raise(bit);
                }
                Waiter::Task(waker) => waker.wake(),
                Waiter::Queue(core, session) => queues.push((core, session)),
            }
        }
        // Nobody waits for these.
        for (core, session) in queues {
            if let Some(core) = core.upgrade() {
                core.shelve_durable(&session);
            }
        }
    }

    fn available(&self) {
        let waiting = std::mem::take(&mut *self.available.lock());
        for signal in waiting {
            signal.raise(ROOM);
        }
    }
}

/// How far sessions are behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Most messages of one session: waiting, and handed out but not settled.
    pub messages: u64,
    /// Most bytes of one session.
    pub bytes: u64,
    /// When the broker took the oldest message that any of them holds.
    pub oldest: Option<Time>,
}

/// Who would get a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audience {
    /// Sessions that match; of a shared subscription's, one.
    pub sessions: usize,
    /// Those of them whose client is away, or came by a road that carries no properties (of a shared subscription's,
    /// any).
    pub plain: usize,
}

/// A session's figures.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// The client id.
    pub id: ClientId,
    /// What tells it from earlier sessions of the same client id.
    pub key: SessionKey,
    /// The user it belongs to; `None` when made anonymously.
    pub owner: Option<String>,
    /// The gateway that holds it now.
    pub held_by: Option<Arc<str>>,
    /// Where its client speaks from.
    pub peer: Option<Peer>,
    /// Seconds it outlives its connection; `u32::MAX` is for ever.
    pub expiry: u32,
    /// Its subscriptions.
    pub subscriptions: Vec<Subscription>,
    /// Messages waiting, and handed out but not settled.
    pub queued: u64,
    /// Bytes of them.
    pub queued_bytes: u64,
    /// When the broker took the oldest of them.
    pub oldest: Option<Time>,
    /// Messages settled (QoS 0: handed out) since the session was made.
    pub delivered: u64,
    /// Messages lost, all causes.
    pub dropped: u64,
    /// The position up to which it is settled by cursor.
    pub settled: Cursor,
    /// Messages lost to a full queue that its client was not yet told of for good.
    pub missed: u64,
    /// Its most messages.
    pub max_queued_messages: u32,
    /// What it does when full.
    pub overflow: Overflow,
}
