//! Time: messages, sessions and wills that run out, to the second, on a clock that is moved.

use crate::harness::*;
use waystation_broker::*;

fn publish_for(world: &World, topic: &str, text: &str, seconds: u32, retain: bool) {
    let mut publisher = world.broker.publisher(&"test".into(), Principal::anonymous(), None);
    let message = Publish {
        expiry: Some(seconds),
        retain,
        ..Publish::new(Topic::parse(topic).unwrap(), text.as_bytes(), Qos::AtLeastOnce)
    };
    publisher.stage(message, 0).unwrap();
    publisher.flush(&mut Vec::new());
}

fn left(link: &mut Link, pick: Pick) -> Vec<Option<u32>> {
    let mut out = Vec::new();
    link.take(pick, Budget { messages: 10, bytes: usize::MAX }, |delivery| {
        out.push(delivery.expiry);
        Taken::Sent
    });
    out
}

#[test]
fn a_message_is_forwarded_with_the_seconds_it_has_left_and_not_after_them() {
    let world = World::new();
    let mut link = world.resident("c");
    subscribe(&mut link, "t", Qos::AtLeastOnce);
    publish_for(&world, "t", "long", 10, true);
    publish_for(&world, "t", "short", 5, false);
    world.advance(5);
    assert_eq!(left(&mut link, Pick::Unsent), [Some(5)]);
    assert_eq!(world.broker.metrics().dropped(DropCause::Expired), 1);
    let mut late = world.client("late");
    subscribe(&mut late, "t", Qos::AtMostOnce);
    assert_eq!(left(&mut late, Pick::Unsent), [Some(5)]);
}

#[test]
fn a_message_under_way_that_expired_is_not_sent_again() {
    let world = World::new();
    let mut link = world.resident("c");
    subscribe(&mut link, "t", Qos::AtLeastOnce);
    publish_for(&world, "t", "x", 5, false);
    assert_eq!(left(&mut link, Pick::Unsent), [Some(5)]);
    drop(link);
    world.advance(5);
    assert!(take(&mut world.resident("c"), Pick::Inflight).is_empty());
    assert_eq!(world.broker.metrics().dropped(DropCause::Expired), 1);
}

#[test]
fn a_state_that_expired_is_gone_also_after_a_crash() {
    let world = World::new();
    publish_for(&world, "t", "x", 5, true);
    world.advance(4);
    assert_eq!(world.broker.retained_count(), 1);
    world.advance(1);
    assert_eq!(world.broker.retained_count(), 0);
    publish_for(&world, "t", "y", 5, true);
    publish_for(&world, "t", "z", 50, true);
    world.advance(10);
    assert_eq!(world.broker.retained_count(), 1, "a newer state has its own time");
    world.store.sync();
    let world = world.crash();
    assert_eq!(world.broker.retained_count(), 1);
    world.advance(40);
    assert_eq!(world.broker.retained_count(), 0);
}

#[test]
fn an_expiry_that_is_changed_at_the_end_counts() {
    let world = World::new();
    let exists = || world.broker.session(&ClientId::new("c").unwrap()).is_some();
    let mut link = world.resident("c");
    link.set_expiry(10);
    link.detach(Detach::Clean);
    world.advance(9);
    assert!(exists());
    world.advance(1);
    assert!(!exists());
    let mut link = world.resident("c");
    link.set_expiry(0);
    link.detach(Detach::Clean);
    assert!(!exists());
    world.store.sync();
    assert!(world.crash().broker.session(&ClientId::new("c").unwrap()).is_none());
}

#[test]
fn a_session_that_is_to_stay_from_now_on_survives_with_all_it_holds() {
    let world = World::new();
    let mut link = world.client("c");
    subscribe(&mut link, "t", Qos::AtLeastOnce);
    world.publish("t", "sent", Qos::AtLeastOnce);
    assert_eq!(take(&mut link, Pick::Unsent).len(), 1);
    world.publish("t", "waiting", Qos::AtLeastOnce);
    // It dies with its connection, and is taken over before that by one that lets it live.
    let taken = world.resident("c");
    world.store.sync();
    std::mem::forget((link, taken));
    let world = world.crash();
    let mut link = world.resident("c");
    // It was connected: the second may have been sent too.
    assert_eq!(texts(&take(&mut link, Pick::Inflight)), ["sent", "waiting"]);
    world.publish("t", "new", Qos::AtLeastOnce);
    assert_eq!(texts(&take(&mut link, Pick::Unsent)), ["new"]);
}
