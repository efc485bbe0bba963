//! Shared subscriptions (MQTT 5.0 §4.8.2): each message to one member, and none lost when members come and go.

use crate::harness::*;
use proptest::prelude::*;
use std::{collections::BTreeMap, time::Duration};
use waystation_broker::*;

const SHARED: &str = "$share/g/t/#";

fn member(world: &World, id: &str, qos: Qos) -> Link {
    let mut link = world.client(id);
    subscribe(&mut link, SHARED, qos);
    link
}

fn resident(world: &World, id: &str, qos: Qos) -> Link {
    let mut link = world.resident(id);
    subscribe(&mut link, SHARED, qos);
    link
}

fn got(link: &mut Link) -> Vec<String> {
    take(link, Pick::Unsent).into_iter().map(|got| got.text).collect()
}

#[test]
fn members_take_turns() {
    let world = World::new();
    let mut members = ["a", "b", "c"].map(|id| member(&world, id, Qos::AtLeastOnce));
    for (n, qos) in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce].into_iter().cycle().take(12).enumerate() {
        let outcome = world.publish(&format!("t/{}", n % 2), &n.to_string(), qos);
        assert!(matches!(outcome, Outcome::Accepted { matched: 1, .. }));
    }
    world.store.sync();
    let counts = members.each_mut().map(|link| got(link).len());
    assert_eq!(counts, [4, 4, 4]);
}

#[test]
fn groups_and_subscriptions_of_ones_own_do_not_share_with_each_other() {
    let world = World::new();
    let mut link = member(&world, "a", Qos::AtMostOnce);
    subscribe(&mut link, "$share/other/t/#", Qos::AtMostOnce);
    subscribe(&mut link, "t/+", Qos::AtMostOnce);
    assert!(matches!(world.publish("t/1", "x", Qos::AtMostOnce), Outcome::Accepted { matched: 3, .. }));
    assert_eq!(got(&mut link), ["x", "x", "x"]);
    link.unsubscribe(&[Filter::parse(SHARED).unwrap()], &mut Vec::new());
    world.publish("t/1", "y", Qos::AtMostOnce);
    assert_eq!((got(&mut link).len(), world.broker.subscriptions()), (2, 2));
}

#[test]
fn a_member_that_is_away_is_passed_by_while_another_is_there() {
    let world = World::new();
    let away = resident(&world, "away", Qos::AtLeastOnce);
    away.detach(Detach::Clean);
    let mut there = member(&world, "there", Qos::AtLeastOnce);
    for n in 0..6 {
        world.publish("t", &n.to_string(), Qos::AtLeastOnce);
    }
    assert_eq!(got(&mut there).len(), 6);
}

#[test]
fn a_member_that_lets_go_after_every_call_counts_as_present_for_a_while() {
    let world = World::new();
    let hello = Hello {
        lingers: Duration::from_secs(60),
        while_away: WhileAway::KeepQos0,
        expiry: 3_600,
        ..world.hello("rest")
    };
    let mut rest = world.attach(hello).link;
    subscribe(&mut rest, SHARED, Qos::AtLeastOnce);
    rest.detach(Detach::Clean);
    let mut other = member(&world, "z", Qos::AtLeastOnce);
    world.advance(59);
    for n in 0..4 {
        world.publish("t", &n.to_string(), Qos::AtMostOnce);
    }
    assert_eq!(got(&mut other).len(), 2);
    world.advance(1);
    for n in 0..4 {
        world.publish("t", &n.to_string(), Qos::AtMostOnce);
    }
    assert_eq!(got(&mut other).len(), 4);
}

#[test]
fn with_nobody_there_messages_wait_for_the_members_that_return() {
    let world = World::new();
    for id in ["a", "b"] {
        resident(&world, id, Qos::AtLeastOnce).detach(Detach::Clean);
    }
    for n in 0..6 {
        world.publish("t", &n.to_string(), Qos::AtLeastOnce);
    }
    assert!(matches!(world.publish("t", "plain", Qos::AtMostOnce), Outcome::Accepted { matched: 1, .. }));
    let (mut a, mut b) = (world.resident("a"), world.resident("b"));
    assert_eq!((got(&mut a).len(), got(&mut b).len()), (3, 3));
}

#[test]
fn a_member_whose_window_is_used_up_is_passed_by() {
    let world = World::new();
    let mut stuck = world.attach(Hello { window: 1, ..world.hello("stuck") }).link;
    subscribe(&mut stuck, SHARED, Qos::AtLeastOnce);
    let mut busy = member(&world, "y", Qos::AtLeastOnce);
    for n in 0..10 {
        world.publish("t", &n.to_string(), Qos::AtLeastOnce);
        take(&mut stuck, Pick::Unsent);
    }
    assert_eq!(got(&mut busy).len(), 9);
}

#[test]
fn a_full_member_is_passed_by_and_a_group_that_is_full_drops_or_refuses() {
    for overflow in [Overflow::DropNewest, Overflow::Reject] {
        let world = World::with(|limits| (limits.max_queued_messages, limits.overflow) = (2, overflow));
        let mut a = resident(&world, "a", Qos::AtLeastOnce);
        let mut b = resident(&world, "b", Qos::AtLeastOnce);
        let mut witness = world.resident("witness");
        subscribe(&mut witness, "t", Qos::AtLeastOnce);
        for n in 0..4 {
            assert!(matches!(world.publish("t", &n.to_string(), Qos::AtLeastOnce), Outcome::Accepted { .. }));
            take_up_to(&mut witness, Pick::Unsent, 1).iter().for_each(|got| {
                settle(&mut witness, got, Settle::Acknowledged);
            });
        }
        let outcome = world.publish("t", "4", Qos::AtLeastOnce);
        match overflow {
            Overflow::Reject => {
                assert_eq!(outcome, Outcome::QuotaExceeded);
                assert!(got(&mut witness).is_empty(), "a refused publication reached nobody");
            }
            _ => assert_eq!(world.broker.metrics().dropped(DropCause::QueueFull), 1),
        }
        assert_eq!((got(&mut a).len(), got(&mut b).len()), (2, 2));
    }
}

#[test]
fn what_a_member_leaves_behind_goes_to_another_but_for_qos_2_that_was_sent() {
    let world = World::new();
    let mut dying = member(&world, "dying", Qos::ExactlyOnce);
    for (text, qos) in [
        ("sent 1", Qos::AtLeastOnce),
        ("sent 2", Qos::ExactlyOnce),
        ("unsent 0", Qos::AtMostOnce),
        ("unsent 1", Qos::AtLeastOnce),
        ("unsent 2", Qos::ExactlyOnce),
    ] {
        world.publish("t", text, qos);
        world.store.sync();
        if text.starts_with("sent") {
            take(&mut dying, Pick::Unsent);
        }
    }
    let mut heir = member(&world, "heir", Qos::ExactlyOnce);
    drop(dying);
    world.store.sync();
    let inherited = take(&mut heir, Pick::Unsent);
    assert_eq!(texts(&inherited), ["sent 1", "unsent 0", "unsent 1", "unsent 2"]);
    assert!(inherited.iter().all(|got| !got.redelivered));
    assert_eq!(world.broker.metrics().dropped(DropCause::SessionEnded), 1);
    drop(heir);
    assert_eq!(world.broker.metrics().waiting(), 0);
    assert_eq!(world.broker.metrics().dropped(DropCause::SessionEnded), 4, "nobody was left");
}

#[test]
fn a_refused_message_goes_to_nobody() {
    let world = World::new();
    let mut a = member(&world, "a", Qos::AtLeastOnce);
    world.publish("t", "x", Qos::AtLeastOnce);
    let mut b = member(&world, "b", Qos::AtLeastOnce);
    let message = take(&mut a, Pick::Unsent);
    settle(&mut a, &message[0], Settle::Rejected);
    drop(a);
    assert!(got(&mut b).is_empty());
    assert_eq!(world.broker.metrics().dropped(DropCause::Rejected), 1);
}

#[test]
fn retained_messages_do_not_come_with_a_shared_subscription() {
    let world = World::new();
    world.retain("t/1", "state");
    assert!(got(&mut member(&world, "a", Qos::AtLeastOnce)).is_empty());
}

#[test]
fn shared_subscriptions_can_be_switched_off() {
    let world = World::with(|limits| limits.shared_subscriptions = false);
    let (mut link, mut granted) = (world.client("a"), Vec::new());
    link.subscribe(&[Subscription::new(Filter::parse(SHARED).unwrap(), Qos::AtMostOnce)], &mut granted);
    assert_eq!(granted, [Err(Refused::SharedNotSupported)]);
}

#[test]
fn groups_survive_a_crash_and_so_does_what_their_members_owe_each_other() {
    let world = World::new();
    resident(&world, "a", Qos::AtLeastOnce).detach(Detach::Clean);
    let b = resident(&world, "b", Qos::AtLeastOnce);
    world.publish("t", "1", Qos::AtLeastOnce);
    b.detach(Detach::Clean);
    world.store.sync();
    let world = world.crash();
    world.publish("t", "2", Qos::AtLeastOnce);
    world.publish("t", "3", Qos::AtLeastOnce);
    let mut a = world.resident("a");
    assert_eq!(got(&mut a).len(), 1);
    world.broker.end_session(&ClientId::new("b").unwrap(), Reason::SessionEnded);
    world.store.sync();
    std::mem::forget(a);
    let world = world.crash();
    let mut a = world.resident("a");
    let mut all: Vec<String> = take(&mut a, Pick::Inflight).into_iter().map(|got| got.text).collect();
    all.extend(got(&mut a));
    all.sort_unstable();
    assert_eq!(all, ["1", "2", "3"], "what b was owed is a's now, and safe");
}

#[derive(Debug, Clone)]
enum Step {
    Join { who: usize, qos: u8, window: u16 },
    Leave { who: usize },
    End { who: usize },
    Publish { qos: u8 },
    Take { who: usize, most: usize },
    Settle { who: usize },
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0usize..3;
    prop_oneof![
        4 => (who.clone(), 1u8..3, 1u16..4).prop_map(|(who, qos, window)| Step::Join { who, qos, window }),
        2 => who.clone().prop_map(|who| Step::Leave { who }),
        1 => who.clone().prop_map(|who| Step::End { who }),
        8 => (1u8..3).prop_map(|qos| Step::Publish { qos }),
        5 => (who.clone(), 1usize..4).prop_map(|(who, most)| Step::Take { who, most }),
        4 => who.prop_map(|who| Step::Settle { who }),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Resident members come, go, end and crash: every message has one holder at a time, none is settled by two, and
    /// none is lost but for QoS 2 that was sent to a member that ended, or when nobody is left.
    #[test]
    fn every_message_is_settled_by_one_member_or_counted(steps in prop::collection::vec(step(), 1..100)) {
        const NAMES: [&str; 3] = ["a", "b", "c"];
        let mut world = World::new();
        let mut links: [Option<Link>; 3] = [None, None, None];
        let mut open: [BTreeMap<Tag, Got>; 3] = Default::default();
        let (mut published, mut settled) = (0u64, BTreeMap::<String, usize>::new());
        let mut lost_before = 0;
        let mut unheard = 0;
        for step in steps {
            match step {
                Step::Join { who, qos, window } => {
                    let hello = Hello { start: Start::Resume, expiry: 3_600, window, ..world.hello(NAMES[who]) };
                    let mut link = world.attach(hello).link;
                    let qos = Qos::from_u8(qos).unwrap();
                    let before = world.broker.session(&ClientId::new(NAMES[who]).unwrap()).unwrap();
                    if before.subscriptions.is_empty() {
                        subscribe(&mut link, SHARED, qos);
                    }
                    open[who] = take(&mut link, Pick::Inflight).into_iter().filter_map(|got| Some((got.tag?, got))).collect();
                    links[who] = Some(link);
                }
                Step::Leave { who } => links[who] = None,
                Step::End { who } => {
                    world.broker.end_session(&ClientId::new(NAMES[who]).unwrap(), Reason::SessionEnded);
                    links[who] = None;
                    open[who].clear();
                }
                Step::Publish { qos } => {
                    let mut publisher = world.broker.publisher(&"test".into(), Principal::anonymous(), None);
                    let text = published.to_string();
                    publisher.stage(Publish::new(Topic::parse("t").unwrap(), text.as_bytes(), Qos::from_u8(qos).unwrap()), 0).unwrap();
                    let mut receipts = Vec::new();
                    publisher.flush(&mut receipts);
                    published += 1;
                    match receipts[0].outcome {
                        Outcome::Accepted { matched: 0, .. } => unheard += 1,
                        Outcome::Accepted { matched, .. } => prop_assert_eq!(matched, 1),
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                Step::Take { who, most } => if let Some(link) = &mut links[who] {
                    world.store.sync();
                    open[who].extend(take_up_to(link, Pick::Unsent, most).into_iter().filter_map(|got| Some((got.tag?, got))));
                },
                Step::Settle { who } => if let (Some(link), Some((_, got))) = (&mut links[who], open[who].pop_first()) {
                    prop_assert!(settle(link, &got, Settle::Done));
                    *settled.entry(got.text).or_default() += 1;
                },
                Step::Crash => {
                    world.store.sync();
                    links.iter_mut().for_each(|link| std::mem::forget(link.take()));
                    lost_before += world.broker.metrics().dropped(DropCause::SessionEnded);
                    world = world.crash();
                }
            }
            let lost = lost_before + world.broker.metrics().dropped(DropCause::SessionEnded);
            prop_assert!(settled.values().all(|times| *times == 1));
            prop_assert_eq!(world.broker.metrics().waiting(), world.broker.waiting());
            prop_assert_eq!(published, settled.len() as u64 + world.broker.waiting() + lost + unheard);
        }
    }
}
