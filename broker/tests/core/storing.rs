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

/// A full queue makes room for what comes in, and for nothing else.
#[test]
fn a_store_that_is_down_costs_a_full_queue_nothing() {
    let world = World::with(|limits| limits.max_queued_messages = 2);
    let mut sub = world.resident("s");
    subscribe(&mut sub, "t", Qos::AtLeastOnce);
    for text in ["1", "2"] {
        world.publish("t", text, Qos::AtLeastOnce);
    }
    world.store.set_down(true);
    let mut link = world.client("p");
    for _ in 0..3 {
        assert_eq!(publish(&mut link, "t", "refused", Qos::AtLeastOnce), Outcome::StoreUnavailable);
    }
    world.store.set_down(false);
    assert_eq!(event(&mut link), Some(Event::Room));
    let got = take(&mut sub, Pick::Unsent);
    assert_eq!((texts(&got), got[0].missed), (vec!["1", "2"], 0));
}

/// Whoever comes and goes while the store is down is remembered, up to a bound; then turned away.
#[test]
fn what_waits_for_a_store_that_is_down_is_bounded() {
    let world = World::new();
    let resident = |id: &str| Hello { start: Start::Resume, expiry: 3_600, ..world.hello(id) };
    let mut inside = world.attach(resident("inside")).link;
    subscribe(&mut inside, "t", Qos::AtLeastOnce);
    world.publish("t", "waits", Qos::AtLeastOnce);
    world.store.set_down(true);
    let comes = |n: usize| now(world.broker.attach(resident(&n.to_string())));
    let refused = (0..1_000).find_map(|n| comes(n).err());
    assert_eq!(refused, Some(Refusal::StoreUnavailable));
    let late = world.store.late();
    // Nothing more begins: no session, no subscription, no will.
    assert_eq!(now(world.broker.attach(resident("inside"))).unwrap_err(), Refusal::StoreUnavailable);
    let mut granted = Vec::new();
    inside.subscribe(&[Subscription::new(Filter::parse("more").unwrap(), Qos::AtLeastOnce)], &mut granted);
    assert_eq!(granted, [Err(Refused::QuotaExceeded)]);
    let topic = Topic::parse("will").unwrap();
    let (payload, qos, retain, properties) = ("gone".into(), Qos::AtLeastOnce, false, None);
    let (delay_s, keep_alive_s, expiry, stays) = (0, 10, None, false);
    let will = Will { topic, payload, qos, retain, delay_s, keep_alive_s, expiry, properties, stays };
    assert_eq!(inside.set_will(Some(will.clone())).unwrap_err(), Refused::QuotaExceeded);
    let with_will = Hello { will: Some(will), ..world.hello("with will") };
    assert_eq!(now(world.broker.attach(with_will)).unwrap_err(), Refusal::StoreUnavailable);
    assert_eq!(world.store.late(), late);
    // Who needs nothing of the store is served, and who is inside goes on.
    let mut passer = world.client("passer");
    assert!(matches!(publish(&mut passer, "t", "now", Qos::AtMostOnce), Outcome::Accepted { .. }));
    let got = take(&mut inside, Pick::Unsent);
    assert_eq!(texts(&got), ["waits", "now"]);
    assert!(settle(&mut inside, &got[0], Settle::Acknowledged));
    world.store.set_down(false);
    assert!(comes(1_001).is_ok());
    world.store.sync();
    std::mem::forget(inside);
    let world = world.crash();
    assert!(world.broker.session(&ClientId::new("0").unwrap()).is_some(), "who was let in is remembered");
    assert_eq!(world.broker.waiting(), 0);
}

/// [`Delivery::missed`] over a restart: told with the drop in one atom, and once it was told not again.
#[test]
fn what_was_missed_is_told_after_a_crash() {
    for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
        let world = World::with(|limits| (limits.max_queued_messages, limits.overflow) = (2, overflow));
        let mut link = world.resident("c");
        subscribe(&mut link, "t", Qos::AtLeastOnce);
        for text in ["1", "2", "3", "4", "5"] {
            world.publish("t", text, Qos::AtLeastOnce);
        }
        world.store.sync();
        std::mem::forget(link);
        let world = world.crash();
        let about = |world: &World| world.broker.session(&ClientId::new("c").unwrap()).unwrap();
        assert_eq!((about(&world).missed, about(&world).dropped), (3, 3));
        let mut link = world.resident("c");
        // They count as sent: of a connected client nobody knows.
        let again = take(&mut link, Pick::Inflight);
        assert_eq!(again.len(), 2);
        again.iter().for_each(|got| assert!(settle(&mut link, got, Settle::Acknowledged)));
        world.publish("t", "next", Qos::AtLeastOnce);
        assert_eq!(take(&mut link, Pick::Unsent)[0].missed, 3);
        world.store.sync();
        std::mem::forget(link);
        let world = world.crash();
        assert_eq!((about(&world).missed, about(&world).dropped), (0, 3));
    }
}

#[test]
fn what_a_cursor_does_not_cover_is_missed_after_a_crash_too() {
    let world = World::with(|limits| limits.max_queued_messages = 2);
    let mut link = world.resident("c");
    subscribe(&mut link, "t", Qos::AtLeastOnce);
    for text in ["1", "2", "3"] {
        world.publish("t", text, Qos::AtLeastOnce);
    }
    world.store.sync();
    let page = take(&mut link, Pick::Oldest(Cursor(0)));
    assert_eq!((texts(&page), link.missed()), (vec!["2", "3"], 1));
    std::mem::forget(link);
    let world = world.crash();
    let mut link = world.resident("c");
    let page = take(&mut link, Pick::Oldest(Cursor(0)));
    assert_eq!(link.missed(), 1, "nobody has acknowledged it");
    link.settle_through(page[0].cursor).unwrap();
    world.store.sync();
    std::mem::forget(link);
    let world = world.crash();
    assert_eq!(world.resident("c").missed(), 0);
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
