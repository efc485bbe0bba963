use crate::harness::*;
use waystation_broker::*;

#[test]
fn retained_messages_come_with_the_flag_and_live_ones_without() {
    let world = World::new();
    world.retain("a", "old");
    let mut link = world.client("c");
    subscribe(&mut link, "#", Qos::AtLeastOnce);
    world.retain("b", "live");
    let got = take(&mut link, Pick::Unsent);
    let seen: Vec<_> = got.iter().map(|g| (g.text.as_str(), g.retain)).collect();
    assert_eq!(seen, [("old", true), ("live", false)]);
}

#[test]
fn twenty_thousand_retained_messages_do_not_overflow_a_queue() {
    let world = World::with(|limits| (limits.max_queued_messages, limits.max_inflight) = (100, 10));
    for n in 0..20_000 {
        world.retain(&format!("t/{n}"), "x");
    }
    let mut link = world.client("c");
    subscribe(&mut link, "t/#", Qos::AtLeastOnce);
    let mut seen = std::collections::BTreeSet::new();
    loop {
        let got = take(&mut link, Pick::Unsent);
        if got.is_empty() {
            break;
        }
        assert!(got.len() <= 10, "the window is obeyed");
        for g in &got {
            assert!(seen.insert(g.cursor) && settle(&mut link, g, Settle::Acknowledged));
        }
    }
    assert_eq!((seen.len(), world.broker.metrics().dropped_total()), (20_000, 0));
}

#[test]
fn retain_handling_decides_what_a_subscription_brings() {
    let world = World::new();
    world.retain("a", "x");
    let mut link = world.client("c");
    let mut bring = |handling| {
        let filter = Filter::parse("a").unwrap();
        let wanted = Subscription { retain_handling: handling, ..Subscription::new(filter, Qos::AtMostOnce) };
        link.subscribe(&[wanted], &mut Vec::new());
        take(&mut link, Pick::Unsent).len()
    };
    assert_eq!(bring(RetainHandling::DoNotSend), 0);
    assert_eq!(bring(RetainHandling::SendIfNew), 0);
    assert_eq!(bring(RetainHandling::Send), 1);
}

#[test]
fn conditions_are_checked_and_the_state_is_set_in_one_step() {
    let world = World::new();
    let mut publisher = world.broker.publisher(&"test".into(), Principal::anonymous(), None);
    let mut put = |payload: &str, condition| {
        let topic = Topic::parse("t").unwrap();
        let message = Publish { retain: true, condition, ..Publish::new(topic, payload.as_bytes(), Qos::AtLeastOnce) };
        publisher.stage(message, 0).unwrap();
        let mut receipts = Vec::new();
        publisher.flush(&mut receipts);
        receipts[0].outcome
    };
    assert_eq!(put("1", Some(Condition::Present)), Outcome::ConditionFailed { current: None });
    let Outcome::Accepted { id: first, .. } = put("1", Some(Condition::Absent)) else { panic!("refused") };
    assert_eq!(put("2", Some(Condition::Absent)), Outcome::ConditionFailed { current: Some(first) });
    assert!(matches!(put("2", Some(Condition::Is(vec![first]))), Outcome::Accepted { .. }));
    assert!(matches!(put("3", Some(Condition::Is(vec![first]))), Outcome::ConditionFailed { .. }));
    let state = world.broker.retained(&Principal::anonymous(), &Topic::parse("t").unwrap()).unwrap().unwrap();
    assert_eq!(state.payload(), b"2");
}

#[test]
fn the_retained_limits_refuse_one_more_topic_but_not_a_new_state() {
    let world = World::with(|limits| limits.max_retained_messages = 1);
    assert!(matches!(world.retain("a", "1"), Outcome::Accepted { .. }));
    assert_eq!(world.retain("b", "1"), Outcome::QuotaExceeded);
    assert!(matches!(world.retain("a", "2"), Outcome::Accepted { .. }));
    assert!(matches!(world.retain("a", ""), Outcome::Accepted { .. }));
    assert!(matches!(world.retain("b", "1"), Outcome::Accepted { .. }));
}

#[test]
fn an_expired_state_is_no_state() {
    let world = World::new();
    let mut publisher = world.broker.publisher(&"test".into(), Principal::anonymous(), None);
    let topic = Topic::parse("t").unwrap();
    let message = Publish { retain: true, expiry: Some(5), ..Publish::new(topic.clone(), b"1", Qos::AtMostOnce) };
    publisher.stage(message, 0).unwrap();
    publisher.flush(&mut Vec::new());
    world.advance(4);
    assert!(world.broker.retained(&Principal::anonymous(), &topic).unwrap().is_some());
    world.advance(1);
    assert!(world.broker.retained(&Principal::anonymous(), &topic).unwrap().is_none());
}

#[test]
fn the_servers_own_states_are_open_to_it_alone_and_never_stored() {
    let world = World::new();
    let topic = Topic::parse("$SYS/broker/version").unwrap();
    let state = Publish { retain: true, ..Publish::new(topic.clone(), b"1", Qos::AtMostOnce) };
    let mut client = world.client("c");
    assert_eq!(client.publisher().stage(state.clone(), 0), Err(Refused::NotAuthorized));
    let mut own = world.broker.publisher(&"test".into(), Principal::server(), None);
    own.stage(state, 0).unwrap();
    own.flush(&mut Vec::new());
    let state = world.broker.retained(&Principal::anonymous(), &topic).unwrap();
    assert_eq!(state.unwrap().payload(), b"1");
    world.store.sync();
    let state = world.crash().broker.retained(&Principal::anonymous(), &topic).unwrap();
    assert!(state.is_none());
}

#[test]
fn a_state_that_is_set_after_the_subscription_comes_once() {
    let world = World::new();
    world.retain("t/old", "old");
    // Both are set before the reader looks for the first time.
    let mut link = world.resident("c");
    subscribe(&mut link, "t/#", Qos::AtLeastOnce);
    world.retain("t/new", "same moment");
    world.advance(1);
    world.retain("t/old", "newer");
    let mut got = texts(&take(&mut link, Pick::Unsent)).join(", ");
    assert_eq!(got, "same moment, newer");
    let mut reader = world.resident("r");
    subscribe(&mut reader, "t/#", Qos::AtLeastOnce);
    reader.detach(Detach::Clean);
    world.advance(1);
    world.retain("t/new", "later");
    world.store.sync();
    let mut reader = world.resident("r");
    got = texts(&take(&mut reader, Pick::Oldest(Cursor(0)))).join(", ");
    assert_eq!(got, "later, newer");
}

#[test]
fn who_watches_a_state_is_told_of_its_changes_and_of_nothing_else() {
    let world = World::new();
    world.retain("a", "old");
    let mut link = world.client("c");
    let watch = link.watch(&Topic::parse("a").unwrap());
    let told = |link: &mut Link| event(link) == Some(Event::Deliverable);
    assert!(!told(&mut link));
    world.publish("a", "an event", Qos::AtLeastOnce);
    world.retain("b", "x");
    assert!(!told(&mut link), "neither an event nor another topic's state is a change");
    for payload in ["new", "new", ""] {
        world.retain("a", payload);
        assert!(told(&mut link) && !told(&mut link), "{payload:?} is a change");
        assert!(take(&mut link, Pick::Unsent).is_empty());
    }
    world.retain("a", "");
    assert!(!told(&mut link), "there was nothing to clear");
    drop(watch);
    world.retain("a", "x");
    assert!(!told(&mut link));
}
