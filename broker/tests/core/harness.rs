//! Tests in five lines: a broker, clients, publish, expect.

use std::{
    future::Future,
    num::NonZeroU16,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use waystation_broker::{store::rehearsal::Rehearsal, *};

pub(crate) struct World {
    pub(crate) broker: Broker,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: Rehearsal,
    pub(crate) limits: Limits,
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
        Self::on(Rehearsal::default(), Arc::new(ManualClock::default()), limits)
    }

    fn on(store: Rehearsal, clock: Arc<ManualClock>, limits: Limits) -> Self {
        let mut parts = Parts::in_memory(limits.clone(), clock.clone());
        parts.store = Arc::new(store.clone());
        Self { broker: Broker::new(parts), clock, store, limits }
    }

    /// Power fails; the next start sees what was synced.
    pub(crate) fn crash(self) -> Self {
        let store = self.store.crash();
        Self::on(store, self.clock, self.limits)
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
