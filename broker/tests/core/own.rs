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
