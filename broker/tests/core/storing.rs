use crate::harness::*;
use waystation_broker::*;

#[test]
fn what_was_acknowledged_is_there_after_a_crash() {
    let world = World::new();
    let mut link = world.resident("c");
    subscribe(&mut link, "t", Qos::ExactlyOnce);
    world.publish("t", "1", Qos::AtLeastOnce);
    world.publish("t", "2", Qos::ExactlyOnce);
    world.retain("state", "on");
    world.store.sync();
    let sent = take_up_to(&mut link, Pick::Unsent, 1);
    world.store.sync();
    world.publish("t", "unsynced", Qos::AtLeastOnce);
    std::mem::forget(link);

    let world = world.crash();
    let attached = world.attach(Hello { start: Start::Resume, expiry: 60, ..world.hello("c") });
    assert!(attached.resumed);
    let mut link = attached.link;
    let again = take(&mut link, Pick::Inflight);
    // The client was connected: the second may have been sent without our having noted it.
    assert_eq!((texts(&again), again[0].tag, again[1].redelivered), (vec!["1", "2"], sent[0].tag, true));
    world.publish("t", "3", Qos::AtLeastOnce);
    let new = take(&mut link, Pick::Unsent);
    assert_eq!(texts(&new), ["3"]);
    assert!(new[0].cursor > again[0].cursor);
    let state = world.broker.retained(&Principal::anonymous(), &Topic::parse("state").unwrap()).unwrap();
    assert_eq!(state.unwrap().payload(), b"on");
}

#[test]
fn an_exactly_once_publication_stays_so_over_a_crash() {
    let world = World::new();
    let mut link = world.resident("p");
    let mut sub = world.resident("s");
    subscribe(&mut sub, "t", Qos::ExactlyOnce);
    publish_as(&mut link, "t", "1", Qos::ExactlyOnce, Some(9));
    assert!(take(&mut sub, Pick::Unsent).is_empty(), "not handed out before it is durable");
    world.store.sync();
    assert_eq!(event(&mut sub), Some(Event::Deliverable));
    std::mem::forget((link, sub));
    let world = world.crash();
    let mut link = world.resident("p");
    assert_eq!(publish_as(&mut link, "t", "1", Qos::ExactlyOnce, Some(9)), Outcome::Duplicate);
    let mut sub = world.resident("s");
    assert_eq!(texts(&take(&mut sub, Pick::Inflight)), ["1"]);
}

#[test]
fn acknowledgements_wait_for_the_store() {
    let world = World::new();
    let mut sub = world.resident("s");
    subscribe(&mut sub, "t", Qos::AtLeastOnce);
    let mut link = world.client("p");
    let topic = Topic::parse("t").unwrap();
    link.publisher().stage(Publish::new(topic, b"1", Qos::AtLeastOnce), 0).unwrap();
    let lsn = link.publisher().flush(&mut Vec::new());
    assert!(!link.hold(lsn));
    assert_eq!(event(&mut link), None);
    world.store.sync();
    assert!(matches!(event(&mut link), Some(Event::Durable(at)) if at >= lsn));
    assert!(link.hold(lsn));
}

#[test]
fn a_store_that_is_down_refuses_promises_and_lets_qos_0_pass() {
    let world = World::new();
    let mut sub = world.resident("s");
    subscribe(&mut sub, "t", Qos::AtLeastOnce);
    let mut link = world.client("p");
    world.store.set_down(true);
    assert_eq!(publish(&mut link, "t", "1", Qos::AtLeastOnce), Outcome::StoreUnavailable);
    assert!(matches!(publish(&mut link, "t", "2", Qos::AtMostOnce), Outcome::Accepted { .. }));
    assert_eq!(texts(&take(&mut sub, Pick::Unsent)), ["2"]);
    world.store.set_down(false);
    assert_eq!(event(&mut link), Some(Event::Room));
    assert!(matches!(publish(&mut link, "t", "3", Qos::AtLeastOnce), Outcome::Accepted { .. }));
    assert_eq!(texts(&take(&mut sub, Pick::Unsent)), ["3"]);
}

#[test]
fn traffic_that_need_not_survive_never_touches_the_store() {
    let world = World::new();
    let mut sub = world.client("s");
    subscribe(&mut sub, "t", Qos::ExactlyOnce);
    let mut link = world.client("p");
    let topic = Topic::parse("t").unwrap();
    link.publisher().stage(Publish::new(topic, b"1", Qos::AtLeastOnce), 0).unwrap();
    assert_eq!(link.publisher().flush(&mut Vec::new()), Lsn::default());
}

#[test]
fn a_number_that_left_the_server_is_never_used_twice() {
    let world = World::new();
    let Outcome::Accepted { id: before, .. } = world.retain("t", "1") else { panic!("refused") };
    let world = world.crash();
    let Outcome::Accepted { id: after, .. } = world.retain("t", "1") else { panic!("refused") };
    assert!(after > before);
}
