//! The ledger of drops, as an operator reads it.

use crate::harness::*;
use waystation_broker::*;

#[test]
fn every_drop_has_a_line_with_its_cause() {
    let world = World::with(|limits| limits.max_queued_messages = 1);
    let mut link = world.resident("c");
    subscribe(&mut link, "t", Qos::AtLeastOnce);
    for text in ["1", "2", "3"] {
        world.publish("t", text, Qos::AtLeastOnce);
    }
    let line = &world.broker.drops(None, 10)[0];
    assert_eq!((line.topic.as_ref().map(Topic::as_str), line.cause, line.count), (Some("t"), DropCause::QueueFull, 2));
    assert_eq!((line.client.as_ref().map(ClientId::as_str), &*line.gateway), (Some("c"), "test"));
    assert_eq!(line.time, world.clock.now());
    let got = take(&mut link, Pick::Unsent);
    settle(&mut link, &got[0], Settle::Rejected);
    let causes: Vec<_> = world.broker.drops(None, 10).iter().map(|line| line.cause).collect();
    assert_eq!(causes, [DropCause::Rejected, DropCause::QueueFull]);
}

/// One that is told no and will not offer again by itself; one that keeps what was refused has dropped nothing.
#[test]
fn what_a_full_queue_or_a_store_that_is_down_refuses_is_counted_with_its_publisher() {
    let world = World::with(|limits| limits.max_queued_messages = 1);
    let options = SessionOptions { overflow: Some(Overflow::Reject), ..SessionOptions::default() };
    let mut link = world.attach(Hello { start: Start::Resume, expiry: 60, options, ..world.hello("c") }).link;
    subscribe(&mut link, "t", Qos::AtLeastOnce);
    let mut publisher = world.client("p");
    publish(&mut publisher, "t", "fits", Qos::AtLeastOnce);
    assert_eq!(publish(&mut publisher, "t", "does not", Qos::AtLeastOnce), Outcome::QuotaExceeded);
    world.store.set_down(true);
    assert_eq!(publish(&mut publisher, "t", "nor this", Qos::AtLeastOnce), Outcome::StoreUnavailable);
    let line = &world.broker.drops(None, 10)[0];
    assert_eq!((line.topic.as_ref().map(Topic::as_str), line.cause, line.count), (Some("t"), DropCause::Refused, 2));
    assert_eq!(line.client.as_ref().map(ClientId::as_str), Some("p"));
    let topic = publisher.publisher().topic(b"t").unwrap();
    publisher.publisher().stage(Publish::new(topic, b"kept and offered again", Qos::AtLeastOnce), 0).unwrap();
    publisher.publisher().flush_in_order(&mut Vec::new());
    assert_eq!(world.broker.metrics().dropped(DropCause::Refused), 2);
}

#[test]
fn a_refused_publication_is_counted_with_its_publisher() {
    let world = World::new();
    let mut link = world.client("p");
    for _ in 0..2 {
        let topic = Topic::parse("$SYS/x").unwrap();
        link.publisher().stage(Publish::new(topic, b"", Qos::AtMostOnce), 0).unwrap_err();
    }
    link.publisher().flush(&mut Vec::new());
    let line = &world.broker.drops(None, 10)[0];
    assert_eq!(
        (line.topic.as_ref().map(Topic::as_str), line.cause, line.count),
        (Some("$SYS/x"), DropCause::Refused, 2)
    );
    assert_eq!(line.client.as_ref().map(ClientId::as_str), Some("p"));
    assert_eq!(world.broker.metrics().dropped(DropCause::Refused), 2);

    let mut passer = world.broker.publisher(&"rest".into(), Principal::anonymous(), None);
    passer.stage(Publish::new(Topic::parse("$dead/x").unwrap(), b"", Qos::AtMostOnce), 0).unwrap_err();
    drop(passer);
    assert_eq!(&*world.broker.drops(None, 1)[0].gateway, "rest");
}
