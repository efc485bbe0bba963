//! What the server's own parts have that clients have not.

use crate::harness::*;
use waystation_broker::{store::StoreUnavailable, *};

/// Refuses everything.
struct Nothing;

impl Authorize for Nothing {
    fn may(&self, _: &Principal, _: Option<&ClientId>, _: Action<'_>) -> bool {
        false
    }
}

fn own_hello(principal: Principal) -> Hello {
    Hello {
        credentials: Credentials::Known(principal),
        start: Start::Resume,
        expiry: u32::MAX,
        ..Hello::new("test".into(), Peer::INTERNAL, ClientId::new("$webhook/a"))
    }
}

#[test]
fn documents_survive_once_they_are_durable() {
    let world = World::new();
    world.broker.keep("webhook", "a", Some("1".into())).unwrap();
    world.broker.keep("webhook", "b", Some("2".into())).unwrap();
    world.broker.keep("webhooks", "c", Some("3".into())).unwrap();
    world.broker.keep("webhook", "a", Some("4".into())).unwrap();
    world.broker.keep("webhook", "b", None).unwrap();
    world.store.sync();
    world.broker.keep("webhook", "d", Some("unsynced".into())).unwrap();
    let world = world.crash();
    assert_eq!(world.broker.kept("webhook"), [("a".into(), "4".into())]);
    assert_eq!(world.broker.kept("webhooks").len(), 1);
    world.store.set_down(true);
    assert_eq!(world.broker.keep("webhook", "a", None), Err(StoreUnavailable));
    assert_eq!(world.broker.kept("webhook").len(), 1, "what could not be written has not changed");
}

#[test]
fn an_open_reply_topic_takes_answers_from_everybody_and_is_read_by_the_server_only() {
    let clock = std::sync::Arc::new(ManualClock::default());
    let limits = Limits::default();
    let broker = Broker::new(Parts { authorize: std::sync::Arc::new(Nothing), ..Parts::in_memory(limits, clock) });
    let answer = || {
        let mut publisher = broker.publisher(&"test".into(), Principal::anonymous(), None);
        let topic = Topic::parse("$reply/1").unwrap();
        publisher.stage(Publish::new(topic, b"42", Qos::AtMostOnce), 0).map(|()| publisher.flush(&mut Vec::new()))
    };
    assert_eq!(answer(), Err(Refused::NotAuthorized));
    let mut waiting = now(broker.attach(own_hello(Principal::server()))).unwrap().link;
    subscribe(&mut waiting, "$reply/1", Qos::AtMostOnce);
    assert!(answer().is_ok());
    assert_eq!(texts(&take(&mut waiting, Pick::Unsent)), ["42"]);
    waiting.detach(Detach::Clean);
    broker.end_session(&ClientId::new("$webhook/a").unwrap(), Reason::SessionEnded);
    assert_eq!(answer(), Err(Refused::NotAuthorized), "it is closed");

    let broker = Broker::new(Parts::in_memory(Limits::default(), std::sync::Arc::new(ManualClock::default())));
    let mut link = now(broker.attach(own_hello(Principal::anonymous()))).unwrap().link;
    for filter in ["$reply/1", "$reply/#", "$reply"] {
        let mut granted = Vec::new();
        link.subscribe(&[Subscription::new(Filter::parse(filter).unwrap(), Qos::AtMostOnce)], &mut granted);
        assert_eq!(granted, [Err(Refused::NotAuthorized)], "{filter}");
    }
}

#[test]
fn an_audience_tells_who_gets_properties() {
    let world = World::new();
    let topic = Topic::parse("t").unwrap();
    assert_eq!(world.broker.audience(&topic), Audience { sessions: 0, plain: 0 });
    let mut plain = world.resident("plain");
    subscribe(&mut plain, "t", Qos::AtMostOnce);
    let hello = Hello { start: Start::Resume, expiry: 60, properties: true, ..world.hello("rich") };
    let mut rich = world.attach(hello).link;
    subscribe(&mut rich, "#", Qos::AtMostOnce);
    assert_eq!(world.broker.audience(&topic), Audience { sessions: 2, plain: 1 });
    rich.detach(Detach::Clean);
    assert_eq!(world.broker.audience(&topic), Audience { sessions: 2, plain: 2 }, "its client is away");
}

#[test]
fn the_server_itself_is_refused_nothing() {
    let clock = std::sync::Arc::new(ManualClock::default());
    let limits = Limits { max_topic_levels: 2, max_session_expiry: 0, ..Limits::default() };
    let broker = Broker::new(Parts { authorize: std::sync::Arc::new(Nothing), ..Parts::in_memory(limits, clock) });
    let mut attached = now(broker.attach(own_hello(Principal::server()))).unwrap();
    assert_eq!(attached.expiry, u32::MAX);
    subscribe(&mut attached.link, "$dead/#", Qos::AtLeastOnce);
    let stage = |who| {
        let mut publisher = broker.publisher(&"test".into(), who, None);
        let topic = Topic::parse("$dead/a/b/c").unwrap();
        publisher.stage(Publish::new(topic, b"lost", Qos::AtLeastOnce), 0).map(|()| publisher.flush(&mut Vec::new()))
    };
    assert_eq!(stage(Principal::anonymous()), Err(Refused::NotAuthorized));
    assert!(stage(Principal::server()).is_ok());
    assert_eq!(texts(&take(&mut attached.link, Pick::Unsent)), ["lost"]);
}

#[test]
fn a_session_of_the_servers_own_may_change_hands() {
    let world = World::new();
    drop(world.attach(own_hello(Principal::user("anna", None))));
    let attached = world.attach(own_hello(Principal::user("bert", None)));
    assert!(attached.resumed);
    let owner = world.broker.session(&ClientId::new("$webhook/a").unwrap()).unwrap().owner;
    assert_eq!(owner.as_deref(), Some("bert"));
}

#[test]
fn a_servers_identity_is_its_own_and_stays() {
    let world = World::new();
    let identity = world.broker.identity();
    assert_eq!(world.broker.identity(), identity);
    assert_ne!(World::new().broker.identity(), identity);
    world.store.sync();
    assert_eq!(world.crash().broker.identity(), identity);
    let world = World::new();
    world.store.set_down(true);
    assert_eq!(world.broker.identity(), world.broker.identity(), "also while it cannot be written");
}

#[test]
fn the_servers_own_sessions_may_hold_more_than_clients() {
    let world = World::with(|limits| (limits.max_queued_messages, limits.max_queued_bytes) = (2, 1_000));
    let wish =
        SessionOptions { max_queued_messages: Some(5), max_queued_bytes: Some(1_000_000), ..SessionOptions::default() };
    for (id, held) in [("$bridge/a", 5), ("client", 2)] {
        let hello = Hello {
            start: Start::Resume,
            expiry: u32::MAX,
            options: wish,
            ..Hello::new("test".into(), Peer::INTERNAL, ClientId::new(id))
        };
        let mut link = world.attach(hello).link;
        link.subscribe(&[Subscription::new(Filter::parse(id).unwrap(), Qos::AtLeastOnce)], &mut Vec::new());
        let mut publisher = world.broker.publisher(&"test".into(), Principal::server(), None);
        for _ in 0..6 {
            let payload = [0; 400];
            publisher.stage(Publish::new(Topic::parse(id).unwrap(), &payload, Qos::AtLeastOnce), 0).unwrap();
        }
        publisher.flush(&mut Vec::new());
        assert_eq!(world.broker.session(&ClientId::new(id).unwrap()).unwrap().queued, held, "{id}");
    }
}
