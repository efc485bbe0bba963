//! The ledger: whatever happens, every copy that came in is delivered, waits, or was dropped with a cause; and a
//! resident session loses nothing that was acknowledged, and gets QoS 2 once.

use crate::harness::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use waystation_broker::*;

#[derive(Debug, Clone)]
enum Step {
    Attach {
        who: usize,
        clean: bool,
        window: u16,
        reject: bool,
    },
    Leave {
        who: usize,
    },
    Subscribe {
        who: usize,
        filter: usize,
        qos: u8,
    },
    Unsubscribe {
        who: usize,
        filter: usize,
    },
    Publish {
        topic: usize,
        qos: u8,
        expires: bool,
        retain: bool,
    },
    /// QoS 2 from one of them, perhaps under an identifier that is not released.
    PublishOnce {
        who: usize,
        id: u16,
    },
    Release {
        who: usize,
        id: u16,
    },
    Take {
        who: usize,
        most: usize,
    },
    Settle {
        who: usize,
        how: Settle,
    },
    ReadAndSettle {
        who: usize,
        most: usize,
    },
    Advance {
        seconds: u64,
    },
    TurnPages,
    Sync,
    Down(bool),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0usize..3;
    prop_oneof![
        3 => (who.clone(), any::<bool>(), 1u16..4, any::<bool>()).prop_map(|(who, clean, window, reject)| Step::Attach { who, clean, window, reject }),
        1 => who.clone().prop_map(|who| Step::Leave { who }),
        4 => (who.clone(), 0..FILTERS.len(), 0u8..3).prop_map(|(who, filter, qos)| Step::Subscribe { who, filter, qos }),
        1 => (who.clone(), 0..FILTERS.len()).prop_map(|(who, filter)| Step::Unsubscribe { who, filter }),
        2 => (who.clone(), 1u16..4).prop_map(|(who, id)| Step::PublishOnce { who, id }),
        1 => (who.clone(), 1u16..4).prop_map(|(who, id)| Step::Release { who, id }),
        8 => (0usize..2, 0u8..3, any::<bool>(), any::<bool>()).prop_map(|(topic, qos, expires, retain)| Step::Publish { topic, qos, expires, retain }),
        5 => (who.clone(), 1usize..5).prop_map(|(who, most)| Step::Take { who, most }),
        5 => (who.clone(), settle_how()).prop_map(|(who, how)| Step::Settle { who, how }),
        2 => (who, 1usize..5).prop_map(|(who, most)| Step::ReadAndSettle { who, most }),
        1 => (0u64..20).prop_map(|seconds| Step::Advance { seconds }),
        2 => Just(Step::TurnPages),
        3 => Just(Step::Sync),
        1 => any::<bool>().prop_map(Step::Down),
        1 => Just(Step::Crash),
    ]
}

/// QoS 2 in its two steps, or all at once.
fn settle_how() -> impl Strategy<Value = Settle> {
    prop_oneof![
        2 => Just(Settle::Received),
        2 => Just(Settle::Completed),
        2 => Just(Settle::Acknowledged),
        3 => Just(Settle::Done),
        1 => Just(Settle::Rejected),
    ]
}

pub(crate) fn balanced(world: &World, links: &[Option<Link>]) {
    let metrics = world.broker.metrics();
    let waiting = world.broker.waiting();
    assert_eq!(
        metrics.copies(),
        metrics.delivered() + waiting + metrics.dropped_total() - metrics.dropped(DropCause::Refused),
        "accepted = delivered + waiting + dropped"
    );
    assert_eq!(metrics.waiting(), waiting);
    let queued: u64 = world.broker.sessions(None, 100).iter().map(|session| session.queued_bytes).sum();
    assert!(world.broker.queued_in_memory() <= queued, "more in memory than there is");
    assert_eq!(world.broker.connected() as usize, links.iter().flatten().count());
    for session in world.broker.sessions(None, 100) {
        assert!(session.queued <= u64::from(session.max_queued_messages), "a queue over its bound");
        if session.queued == 0 {
            assert_eq!(session.queued_bytes, 0);
        }
    }
}

/// The publisher gets its acknowledgements: for what it sent over the present connection.
fn acknowledge(open: &mut BTreeMap<u16, (String, bool)>, publisher: &mut Link, acknowledged: &mut BTreeSet<String>) {
    for (id, (text, _)) in open.extract_if(.., |_, (_, sent)| *sent) {
        if let Ok(id) = id.try_into() {
            publisher.release(id);
        }
        acknowledged.insert(text);
    }
}

/// From one message a queue to all of them.
fn memory() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1), 1u64..40, Just(MEMORY)]
}

const NAMES: [&str; 3] = ["a", "b", "c"];
const TOPICS: [&str; 2] = ["x/1", "x/2"];
const FILTERS: [&str; 4] = ["x/1", "x/#", "$share/g/x/#", "$share/g/x/2"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn accepted_is_delivered_or_waiting_or_dropped_with_a_cause(steps in prop::collection::vec(step(), 1..120), memory in memory()) {
        let mut world = World::with_memory(memory, |limits| limits.max_queued_messages = 6);
        let mut links: Vec<Option<Link>> = vec![None, None, None];
        let mut open: Vec<Vec<Got>> = vec![Vec::new(), Vec::new(), Vec::new()];
        let mut serial = 0;
        for step in steps {
            match step {
                Step::Attach { who, clean, window, reject } => {
                    let hello = Hello {
                        start: if clean { Start::Clean } else { Start::Resume },
                        expiry: 10 * u32::from(window % 2),
                        window,
                        options: SessionOptions { overflow: reject.then_some(Overflow::Reject), ..SessionOptions::default() },
                        ..world.hello(NAMES[who])
                    };
                    links[who] = Some(world.attach(hello).link);
                    open[who].clear();
                }
                Step::Leave { who } => links[who] = None,
                Step::Subscribe { who, filter, qos } => if let Some(link) = &mut links[who] {
                    subscribe(link, FILTERS[filter], Qos::from_u8(qos).unwrap());
                },
                Step::Unsubscribe { who, filter } => if let Some(link) = &mut links[who] {
                    link.unsubscribe(&[Filter::parse(FILTERS[filter]).unwrap()], &mut Vec::new());
                },
                Step::PublishOnce { who, id } => if let Some(link) = &mut links[who] {
                    let copies = world.broker.metrics().copies();
                    if publish_as(link, "x/1", "once", Qos::ExactlyOnce, Some(id)) == Outcome::Duplicate {
                        prop_assert_eq!(world.broker.metrics().copies(), copies, "published again");
                    }
                },
                Step::Release { who, id } => if let Some(link) = &mut links[who] {
                    link.release(id.try_into().unwrap());
                },
                Step::Publish { topic, qos, expires, retain } => {
                    serial += 1;
                    let mut publisher = world.broker.publisher(&"test".into(), Principal::anonymous(), None);
                    let text = serial.to_string();
                    let message = Publish {
                        expiry: expires.then_some(5), retain,
                        ..Publish::new(Topic::parse(TOPICS[topic]).unwrap(), text.as_bytes(), Qos::from_u8(qos).unwrap())
                    };
                    publisher.stage(message, 0).unwrap();
                    publisher.flush(&mut Vec::new());
                }
                Step::Take { who, most } => if let Some(link) = &mut links[who] {
                    let again = take_up_to(link, Pick::Inflight, most);
                    let new = take_up_to(link, Pick::Unsent, most);
                    open[who].extend(again.into_iter().chain(new).filter(|g| g.tag.is_some()));
                },
                Step::Settle { who, how } => if let (Some(link), Some(got)) = (&mut links[who], open[who].last()) {
                    // What is received is completed later; what does not fit changes nothing.
                    if settle(link, got, how) && how != Settle::Received {
                        open[who].pop();
                    }
                },
                Step::ReadAndSettle { who, most } => if let Some(link) = &mut links[who] {
                    let settled = link.settled();
                    let page = take_up_to(link, Pick::Oldest(settled), most);
                    if let Some(last) = page.last() {
                        link.settle_through(last.cursor).unwrap();
                    }
                },
                Step::Advance { seconds } => world.advance(seconds),
                Step::TurnPages => drop(world.store.turn_pages()),
                Step::Sync => world.store.sync(),
                Step::Down(down) => world.store.set_down(down),
                Step::Crash => {
                    links.iter_mut().for_each(|link| std::mem::forget(link.take()));
                    world = world.crash();
                }
            }
            balanced(&world, &links);
        }
        // Whatever waits can be had.
        world.store.set_down(false);
        for (who, link) in links.iter_mut().enumerate() {
            let hello = Hello { start: Start::Resume, window: 100, ..world.hello(NAMES[who]) };
            let mut holder = world.attach(hello).link;
            world.store.sync();
            for pick in [Pick::Inflight, Pick::Unsent] {
                for got in take_all(&world, &mut holder, pick).iter().filter(|got| got.tag.is_some()) {
                    settle(&mut holder, got, Settle::Done);
                }
            }
            *link = Some(holder);
        }
        balanced(&world, &links);
        prop_assert_eq!((world.broker.waiting(), world.broker.queued_in_memory()), (0, 0));
    }

    /// One publisher, one resident reader, crashes at any moment: nothing acknowledged is lost, QoS 2 comes once, in
    /// order.
    #[test]
    fn acknowledged_means_kept_over_any_crash(
        script in prop::collection::vec((0u8..6, any::<bool>()), 1..80), qos in 1u8..3, memory in memory(),
    ) {
        let qos = Qos::from_u8(qos).unwrap();
        let mut world = World::with_memory(memory, |_| {});
        let mut reader = world.resident("r");
        subscribe(&mut reader, "t", qos);
        world.store.sync();
        // Unacknowledged publications by packet id, as a client keeps them, and whether they were sent on this
        // connection; what was acknowledged; what was read.
        let mut unacknowledged: BTreeMap<u16, (String, bool)> = BTreeMap::new();
        let (mut acknowledged, mut received) = (BTreeSet::new(), Vec::<String>::new());
        let (mut serial, mut publisher) = (0u16, world.resident("p"));
        world.store.sync();
        for (action, flag) in script.into_iter().chain([(5, true), (3, true), (2, true), (4, true), (2, true)]) {
            match action {
                0 | 1 => {
                    serial += 1;
                    unacknowledged.insert(serial, (format!("{serial:05}"), true));
                    publish_as(&mut publisher, "t", &format!("{serial:05}"), qos, (qos == Qos::ExactlyOnce).then_some(serial));
                }
                // The store syncs: everything sent on this connection is acknowledged.
                2 => {
                    world.store.sync();
                    acknowledge(&mut unacknowledged, &mut publisher, &mut acknowledged);
                }
                // The publisher sends again what was not acknowledged.
                3 => for (id, (text, sent)) in &mut unacknowledged {
                    *sent = true;
                    publish_as(&mut publisher, "t", text, qos, (qos == Qos::ExactlyOnce).then_some(*id));
                },
                4 => {
                    let mut got = take_all(&world, &mut reader, Pick::Inflight);
                    got.extend(take_all(&world, &mut reader, Pick::Unsent));
                    let synced = qos == Qos::ExactlyOnce && !got.is_empty();
                    for g in got {
                        if qos == Qos::ExactlyOnce {
                            if g.stage == Stage::Offered { received.push(g.text.clone()); }
                            settle(&mut reader, &g, Settle::Received);
                            // PUBREL goes out once PUBREC is durable.
                            world.store.sync();
                            if flag { settle(&mut reader, &g, Settle::Completed); }
                        } else {
                            received.push(g.text.clone());
                            settle(&mut reader, &g, Settle::Acknowledged);
                        }
                    }
                    if synced {
                        // That sync acknowledged the publisher's messages too.
                        acknowledge(&mut unacknowledged, &mut publisher, &mut acknowledged);
                    }
                }
                _ => {
                    std::mem::forget((reader, publisher));
                    world = world.crash();
                    unacknowledged.values_mut().for_each(|(_, sent)| *sent = false);
                    (reader, publisher) = (world.resident("r"), world.resident("p"));
                }
            }
        }
        let distinct: BTreeSet<&String> = received.iter().collect();
        for text in &acknowledged {
            prop_assert!(distinct.contains(text), "{} was acknowledged and is lost", text);
        }
        if qos == Qos::ExactlyOnce {
            prop_assert_eq!(distinct.len(), received.len(), "received twice: {:?}", received);
        }
    }
}
