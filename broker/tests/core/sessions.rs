use crate::harness::*;
use waystation_broker::*;

#[test]
fn a_message_reaches_every_matching_subscriber_once() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    subscribe(&mut a, "x/+", Qos::AtMostOnce);
    subscribe(&mut a, "x/#", Qos::AtLeastOnce);
    subscribe(&mut b, "y", Qos::AtMostOnce);
    assert!(matches!(world.publish("x/1", "hello", Qos::ExactlyOnce), Outcome::Accepted { matched: 1, .. }));
    let got = take(&mut a, Pick::Unsent);
    assert_eq!((texts(&got), got[0].qos), (vec!["hello"], Qos::AtLeastOnce));
    assert!(take(&mut b, Pick::Unsent).is_empty());
}

#[test]
fn a_takeover_fences_the_old_link() {
    let world = World::new();
    let mut old = world.resident("c");
    subscribe(&mut old, "t", Qos::AtLeastOnce);
    let topic = old.publisher().topic(b"t").unwrap();
    old.publisher().stage(Publish::new(topic, b"late", Qos::AtLeastOnce), 1).unwrap();
    let attached = world.attach(Hello { start: Start::Resume, expiry: 60, ..world.hello("c") });
    assert!(attached.resumed);
    let mut new = attached.link;
    let mut receipts = Vec::new();
    old.publisher().flush(&mut receipts);
    assert!(receipts.is_empty(), "a fenced link's messages vanish without receipt");
    assert_eq!(event(&mut old), Some(Event::Detached(Reason::TakenOver)));
    let mut granted = Vec::new();
    old.subscribe(&[Subscription::new(Filter::parse("z").unwrap(), Qos::AtMostOnce)], &mut granted);
    assert_eq!(granted, [Err(Refused::Fenced)]);
    drop(old);
    world.publish("t", "one", Qos::AtLeastOnce);
    assert_eq!(texts(&take(&mut new, Pick::Unsent)), ["one"]);
    assert_eq!(world.broker.connected(), 1);
}

#[test]
fn a_resumed_session_gets_again_what_it_did_not_acknowledge_under_the_same_tags() {
    let world = World::new();
    let mut link = world.resident("c");
    subscribe(&mut link, "t", Qos::ExactlyOnce);
    for text in ["1", "2", "3", "4"] {
        world.publish("t", text, Qos::ExactlyOnce);
    }
    world.store.sync();
    let first = take_up_to(&mut link, Pick::Unsent, 3);
    assert!(settle(&mut link, &first[0], Settle::Received));
    assert!(settle(&mut link, &first[1], Settle::Received) && settle(&mut link, &first[1], Settle::Completed));
    drop(link);

    let attached = world.attach(Hello { start: Start::Resume, expiry: 60, window: 1, ..world.hello("c") });
    let mut link = attached.link;
    assert_eq!(event(&mut link), Some(Event::Deliverable));
    assert!(take(&mut link, Pick::Unsent).is_empty(), "nothing new before the old is sent again");
    let again = take(&mut link, Pick::Inflight);
    assert_eq!(again.len(), 1, "the smaller window is obeyed");
    assert_eq!((again[0].tag, again[0].stage, again[0].redelivered), (first[0].tag, Stage::Received, true));
    assert!(settle(&mut link, &again[0], Settle::Completed));
    let again = take(&mut link, Pick::Inflight);
    assert_eq!((again[0].tag, again[0].stage), (first[2].tag, Stage::Offered));
    assert!(settle(&mut link, &again[0], Settle::Received) && settle(&mut link, &again[0], Settle::Completed));
    let new = take(&mut link, Pick::Unsent);
    assert_eq!((texts(&new), new[0].redelivered), (vec!["4"], false));
}

#[test]
fn a_session_ends_when_its_expiry_is_over_and_not_before() {
    let world = World::new();
    let mut link = world.attach(Hello { start: Start::Resume, expiry: 10, ..world.hello("c") }).link;
    subscribe(&mut link, "t", Qos::AtLeastOnce);
    link.detach(Detach::Clean);
    world.publish("t", "1", Qos::AtLeastOnce);
    world.advance(9);
    assert!(world.broker.session(&ClientId::new("c").unwrap()).is_some_and(|s| s.queued == 1));
    world.advance(1);
    assert!(world.broker.session(&ClientId::new("c").unwrap()).is_none());
    assert_eq!(world.broker.metrics().dropped(DropCause::SessionEnded), 1);
    assert_eq!(world.broker.subscriptions(), 0);
}

#[test]
fn a_clean_start_leaves_nothing_of_the_old_session() {
    let world = World::new();
    let mut link = world.resident("c");
    subscribe(&mut link, "t", Qos::AtLeastOnce);
    link.detach(Detach::Clean);
    world.publish("t", "1", Qos::AtLeastOnce);
    let attached = world.attach(world.hello("c"));
    assert!(!attached.resumed);
    let mut link = attached.link;
    assert!(take(&mut link, Pick::Unsent).is_empty() && link.subscriptions().is_empty());
}

#[test]
fn qos_0_passes_a_closed_window() {
    let world = World::new();
    let mut link = world.attach(Hello { window: 1, ..world.hello("c") }).link;
    subscribe(&mut link, "#", Qos::AtLeastOnce);
    for (text, qos) in [("a", Qos::AtLeastOnce), ("b", Qos::AtLeastOnce), ("c", Qos::AtMostOnce)] {
        world.publish("t", text, qos);
    }
    let got = take(&mut link, Pick::Unsent);
    assert_eq!(texts(&got), ["a", "c"]);
    assert!(settle(&mut link, &got[0], Settle::Acknowledged));
    assert_eq!(event(&mut link), Some(Event::Deliverable));
    assert_eq!(texts(&take(&mut link, Pick::Unsent)), ["b"]);
}

#[test]
fn an_answer_that_fits_no_delivery_is_unknown() {
    let world = World::new();
    let mut link = world.client("c");
    subscribe(&mut link, "#", Qos::ExactlyOnce);
    world.publish("t", "1", Qos::ExactlyOnce);
    world.publish("t", "2", Qos::AtLeastOnce);
    world.store.sync();
    let got = take(&mut link, Pick::Unsent);
    assert!(!settle(&mut link, &got[0], Settle::Acknowledged), "PUBACK for QoS 2");
    assert!(!settle(&mut link, &got[0], Settle::Completed), "PUBCOMP before PUBREC");
    assert!(!settle(&mut link, &got[1], Settle::Received), "PUBREC for QoS 1");
    assert!(settle(&mut link, &got[1], Settle::Acknowledged));
    assert!(!settle(&mut link, &got[1], Settle::Acknowledged), "twice");
}

#[test]
fn a_repeated_qos_2_publication_is_a_duplicate_until_it_is_released() {
    let world = World::new();
    let (mut link, mut sub) = (world.resident("p"), world.client("s"));
    subscribe(&mut sub, "t", Qos::AtMostOnce);
    assert!(matches!(publish_as(&mut link, "t", "1", Qos::ExactlyOnce, Some(5)), Outcome::Accepted { .. }));
    assert_eq!(publish_as(&mut link, "t", "1", Qos::ExactlyOnce, Some(5)), Outcome::Duplicate);
    drop(link);
    let mut link = world.resident("p");
    assert_eq!(publish_as(&mut link, "t", "1", Qos::ExactlyOnce, Some(5)), Outcome::Duplicate);
    assert_eq!(link.unreleased(), 1);
    let id = 5.try_into().unwrap();
    assert!(link.release(id).1);
    assert!(!link.release(id).1);
    assert!(matches!(publish_as(&mut link, "t", "2", Qos::ExactlyOnce, Some(5)), Outcome::Accepted { .. }));
    assert_eq!(texts(&take(&mut sub, Pick::Unsent)), ["1", "2"]);
}

#[test]
fn no_local_keeps_a_clients_own_messages_from_it() {
    let world = World::new();
    let mut link = world.client("c");
    let mine = Subscription { no_local: true, ..Subscription::new(Filter::parse("t").unwrap(), Qos::AtMostOnce) };
    link.subscribe(&[mine], &mut Vec::new());
    publish(&mut link, "t", "own", Qos::AtMostOnce);
    world.publish("t", "other", Qos::AtMostOnce);
    assert_eq!(texts(&take(&mut link, Pick::Unsent)), ["other"]);
}

#[test]
fn the_servers_own_names_are_closed_to_clients() {
    let world = World::new();
    assert_eq!(now(world.broker.attach(world.hello("$webhook/x"))).unwrap_err(), Refusal::InvalidClientId);
    let mut link = world.client("c");
    for topic in ["$SYS/x", "$dead/a", "$share/g/t"] {
        let topic = Topic::parse(topic).unwrap();
        let refused = link.publisher().stage(Publish::new(topic, b"", Qos::AtMostOnce), 0);
        assert_eq!(refused, Err(Refused::NotAuthorized));
    }
}

#[test]
fn connections_are_limited_and_counted_down_again() {
    let world = World::with(|limits| limits.max_connections = 1);
    let link = world.client("a");
    assert_eq!(now(world.broker.attach(world.hello("b"))).unwrap_err(), Refusal::ServerBusy);
    drop(link);
    let _link = world.client("b");
    assert_eq!(world.broker.connected(), 1);
}

#[test]
fn a_session_held_by_another_road_is_in_use_for_a_polite_newcomer() {
    let world = World::new();
    let _mqtt = world.resident("c");
    let polite = Hello {
        gateway: "rest".into(),
        takeover: Takeover::SameGateway,
        start: Start::Existing,
        expiry: 60,
        ..world.hello("c")
    };
    assert_eq!(now(world.broker.attach(polite.clone())).unwrap_err(), Refusal::InUse);
    assert!(now(world.broker.attach(Hello { takeover: Takeover::Always, ..polite.clone() })).is_ok());
    let unknown = Hello { client_id: ClientId::new("nobody"), ..polite };
    assert_eq!(now(world.broker.attach(unknown)).unwrap_err(), Refusal::NoSession);
}

#[test]
fn a_stopping_broker_tells_its_links_and_lets_nobody_in() {
    let world = World::new();
    let mut link = world.client("a");
    world.broker.stop();
    assert_eq!(event(&mut link), Some(Event::Detached(Reason::ServerStopping)));
    assert_eq!(now(world.broker.attach(world.hello("b"))).unwrap_err(), Refusal::ServerUnavailable);
}
