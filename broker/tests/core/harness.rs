//! Tests in five lines: a broker, clients, publish, expect.

use std::{
    future::Future,
    num::NonZeroU16,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use waystation_broker::{store::rehearsal::Rehearsal, *};

pub(crate) struct World {
    pub(crate) broker: Broker,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: Rehearsal,
    pub(crate) limits: Limits,
    pub(crate) memory: u64,
}

/// Bytes of a queue that stay in memory, unless a test is about that.
pub(crate) const MEMORY: u64 = 262_144;

/// Rights in the hands of a test: who says a name is it; what is denied is listed, and every question is counted.
#[derive(Default)]
pub(crate) struct Rules {
    denied: Mutex<Vec<(&'static str, &'static str, &'static str)>>,
    asked: AtomicUsize,
}

impl Rules {
    /// `user` may no longer `publish`, `subscribe`, `receive` or `reject` what `filter` matches.
    pub(crate) fn deny(&self, world: &World, user: &'static str, right: &'static str, filter: &'static str) {
        self.denied.lock().unwrap().push((user, right, filter));
        world.broker.policy_changed();
    }

    /// Nothing is denied any more.
    pub(crate) fn clear(&self, world: &World) {
        self.denied.lock().unwrap().clear();
        world.broker.policy_changed();
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Authenticate for Rules {
    fn authenticate<'a>(
        &'a self,
        who: &'a Credentials,
        _: Peer,
    ) -> Pin<Box<dyn Future<Output = Result<Principal, Refusal>> + Send + 'a>> {
        let principal = match who {
            Credentials::Password { user, .. } => Principal::user(user, None),
            _ => Principal::anonymous(),
        };
        Box::pin(std::future::ready(Ok(principal)))
    }
}

impl Authorize for Rules {
    fn may(&self, who: &Principal, _: Option<&ClientId>, action: Action<'_>) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let (right, on) = match action {
            Action::Publish(topic) => ("publish", topic.as_str()),
            Action::Subscribe(filter) => ("subscribe", filter.pattern()),
            Action::Receive(topic) => ("receive", topic.as_str()),
            Action::Admin(_) => ("admin", ""),
            Action::Reject(_) => ("reject", ""),
        };
        let denied = self.denied.lock().unwrap();
        !denied.iter().any(|(user, what, filter)| {
            who.name() == Some(user) && *what == right && (*filter == on || topic::matches(filter, on))
        })
    }
}

/// Authentication in tests never waits.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("would have to wait"),
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(adjust: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        adjust(&mut limits);
        Self::on(Rehearsal::default(), Arc::default(), limits, MEMORY, None)
    }

    /// With queues of which so many bytes stay in memory.
    pub(crate) fn with_memory(memory: u64, adjust: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        adjust(&mut limits);
        Self::on(Rehearsal::default(), Arc::default(), limits, memory, None)
    }

    /// With rights that a test can change.
    pub(crate) fn ruled_by(rules: &Arc<Rules>) -> Self {
        Self::ruled_with(rules, |_| {})
    }

    pub(crate) fn ruled_with(rules: &Arc<Rules>, adjust: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        adjust(&mut limits);
        Self::on(Rehearsal::default(), Arc::default(), limits, MEMORY, Some(rules))
    }

    pub(crate) fn ruled_with_memory(rules: &Arc<Rules>, memory: u64) -> Self {
        Self::on(Rehearsal::default(), Arc::default(), Limits::default(), memory, Some(rules))
    }

    fn on(store: Rehearsal, clock: Arc<ManualClock>, limits: Limits, memory: u64, rules: Option<&Arc<Rules>>) -> Self {
        let mut parts = Parts::in_memory(limits.clone(), clock.clone());
        (parts.store, parts.memory_per_session) = (Arc::new(store.clone()), memory);
        if let Some(rules) = rules {
            (parts.authenticate, parts.authorize) = (rules.clone(), rules.clone());
        }
        Self { broker: Broker::new(parts), clock, store, limits, memory }
    }

    /// On another store than the double; its own is idle then.
    #[cfg(feature = "disk")]
    pub(crate) fn on_store(store: Arc<dyn Store>, clock: Arc<ManualClock>, limits: Limits, memory: u64) -> Self {
        let mut parts = Parts::in_memory(limits.clone(), clock.clone());
        (parts.store, parts.memory_per_session) = (store, memory);
        Self { broker: Broker::new(parts), clock, store: Rehearsal::default(), limits, memory }
    }

    /// Power fails; the next start sees what was synced.
    pub(crate) fn crash(self) -> Self {
        let store = self.store.crash();
        Self::on(store, self.clock, self.limits, self.memory, None)
    }

    /// The same, with rules in force after it.
    pub(crate) fn crash_under(self, rules: &Arc<Rules>) -> Self {
        let store = self.store.crash();
        Self::on(store, self.clock, self.limits, self.memory, Some(rules))
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.broker.run_due();
    }

    pub(crate) fn hello(&self, id: &str) -> Hello {
        Hello::new("test".into(), Peer::direct(([127, 0, 0, 1], 1).into()), ClientId::new(id))
    }

    pub(crate) fn attach(&self, hello: Hello) -> Attached {
        now(self.broker.attach(hello)).unwrap()
    }

    /// A client whose session dies with its connection.
    pub(crate) fn client(&self, id: &str) -> Link {
        self.attach(self.hello(id)).link
    }

    /// A user's client, whose session stays for an hour; its client id is the user's name.
    pub(crate) fn user(&self, name: &str) -> Link {
        self.attach(self.hello_of(name, name)).link
    }

    pub(crate) fn hello_of(&self, user: &str, id: &str) -> Hello {
        let credentials = Credentials::Password { user: user.into(), password: None };
        Hello { credentials, start: Start::Resume, expiry: 3_600, ..self.hello(id) }
    }

    /// A client whose session stays for an hour.
    pub(crate) fn resident(&self, id: &str) -> Link {
        self.attach(Hello { start: Start::Resume, expiry: 3_600, ..self.hello(id) }).link
    }

    pub(crate) fn publish(&self, topic: &str, payload: &str, qos: Qos) -> Outcome {
        let mut link = self.client(&format!("publisher-of-{topic}"));
        let outcome = publish(&mut link, topic, payload, qos);
        link.detach(Detach::Clean);
        outcome
    }

    pub(crate) fn retain(&self, topic: &str, payload: &str) -> Outcome {
        let mut publisher = self.broker.publisher(&"test".into(), Principal::anonymous(), None);
        let topic = Topic::parse(topic).unwrap();
        let message = Publish { retain: true, ..Publish::new(topic, payload.as_bytes(), Qos::AtLeastOnce) };
        publisher.stage(message, 0).unwrap();
        let mut receipts = Vec::new();
        publisher.flush(&mut receipts);
        receipts[0].outcome
    }
}

pub(crate) fn publish(link: &mut Link, topic: &str, payload: &str, qos: Qos) -> Outcome {
    publish_as(link, topic, payload, qos, None)
}

pub(crate) fn publish_as(link: &mut Link, topic: &str, payload: &str, qos: Qos, id: Option<u16>) -> Outcome {
    let topic = link.publisher().topic(topic.as_bytes()).unwrap();
    let exactly_once = id.and_then(NonZeroU16::new);
    link.publisher().stage(Publish { exactly_once, ..Publish::new(topic, payload.as_bytes(), qos) }, 7).unwrap();
    let mut receipts = Vec::new();
    link.publisher().flush(&mut receipts);
    assert_eq!((receipts.len(), receipts[0].token), (1, 7));
    receipts[0].outcome
}

pub(crate) fn subscribe(link: &mut Link, filter: &str, qos: Qos) {
    let mut granted = Vec::new();
    link.subscribe(&[Subscription::new(Filter::parse(filter).unwrap(), qos)], &mut granted);
    assert_eq!(granted, [Ok(qos)]);
}

/// What a test wants to know of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) text: String,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) tag: Option<Tag>,
    pub(crate) cursor: Cursor,
    pub(crate) stage: Stage,
    pub(crate) redelivered: bool,
    pub(crate) missed: u32,
}

pub(crate) fn take(link: &mut Link, pick: Pick) -> Vec<Got> {
    take_up_to(link, pick, 1_000)
}

pub(crate) fn take_up_to(link: &mut Link, pick: Pick, messages: usize) -> Vec<Got> {
    let mut out = Vec::new();
    link.take(pick, Budget { messages, bytes: usize::MAX }, |d| {
        out.push(Got {
            text: String::from_utf8_lossy(d.message.payload()).into_owned(),
            qos: d.qos,
            retain: d.retain,
            tag: d.tag,
            cursor: d.cursor,
            stage: d.stage,
            redelivered: d.redelivered,
            missed: d.missed,
        });
        Taken::Sent
    });
    out
}

/// Everything that `pick` gives, with what has to be read from the disk meanwhile.
pub(crate) fn take_all(world: &World, link: &mut Link, pick: Pick) -> Vec<Got> {
    let mut all = Vec::new();
    let mut pick = pick;
    loop {
        let got = take(link, pick);
        if let (Pick::Oldest(after), Some(last)) = (&mut pick, got.last()) {
            *after = last.cursor;
        }
        let nothing = got.is_empty();
        all.extend(got);
        if world.store.turn_pages() == 0 && nothing {
            assert!(!link.is_paging());
            return all;
        }
    }
}

pub(crate) fn texts(got: &[Got]) -> Vec<&str> {
    got.iter().map(|g| g.text.as_str()).collect()
}

pub(crate) fn settle(link: &mut Link, got: &Got, how: Settle) -> bool {
    let mut unknown = Vec::new();
    link.settle(&[(got.tag.unwrap(), how)], &mut unknown);
    unknown.is_empty()
}

pub(crate) fn event(link: &mut Link) -> Option<Event> {
    match link.poll_event(&mut Context::from_waker(Waker::noop()), Interest::Everything) {
        Poll::Ready(event) => Some(event),
        Poll::Pending => None,
    }
}
