//! Three clients at once, in any order: who gets what is held against a model that knows who was entitled to it.

use crate::{harness::*, ledger::balanced};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use waystation_broker::*;

const NAMES: [&str; 3] = ["a", "b", "c"];
const TOPICS: [&str; 2] = ["x/1", "x/2"];
/// The last ones are shared; of each group a client has at most one filter.
const FILTERS: [&str; 4] = ["x/#", "x/1", "$share/g/x/#", "$share/h/+/2"];
const QUEUE: u32 = 6;

#[derive(Debug, Clone)]
enum Step {
    Attach { who: usize, clean: bool, expiry: u32, window: u16, reject: bool, will: Option<u32> },
    Leave { who: usize, how: Detach },
    Subscribe { who: usize, filter: usize, qos: u8 },
    Unsubscribe { who: usize, filter: usize },
    Publish { who: usize, topic: usize, qos: u8, id: u16 },
    Release { who: usize, id: u16 },
    Take { who: usize, most: usize },
    Settle { who: usize, how: usize },
    Disconnect { who: usize },
    End { who: usize },
    Deny { who: usize, topic: usize },
    Allow,
    Advance { seconds: u64 },
    Sync,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0usize..3;
    let how = prop_oneof![Just(Detach::Clean), Just(Detach::WithWill)];
    let attach = (who.clone(), prop::bool::weighted(0.2), 0u32..3, 1u16..4, any::<bool>(), prop::option::of(0u32..8));
    prop_oneof![
        4 => attach.prop_map(|(who, clean, expiry, window, reject, will)| {
            Step::Attach { who, clean, expiry: expiry * 10, window, reject, will }
        }),
        1 => (who.clone(), how).prop_map(|(who, how)| Step::Leave { who, how }),
        4 => (who.clone(), 0usize..4, 0u8..3).prop_map(|(who, filter, qos)| Step::Subscribe { who, filter, qos }),
        1 => (who.clone(), 0usize..4).prop_map(|(who, filter)| Step::Unsubscribe { who, filter }),
        8 => (who.clone(), 0usize..2, 0u8..3, 1u16..4).prop_map(|(who, topic, qos, id)| Step::Publish { who, topic, qos, id }),
        2 => (who.clone(), 1u16..4).prop_map(|(who, id)| Step::Release { who, id }),
        6 => (who.clone(), 1usize..5).prop_map(|(who, most)| Step::Take { who, most }),
        4 => (who.clone(), 0usize..4).prop_map(|(who, how)| Step::Settle { who, how }),
        1 => who.clone().prop_map(|who| Step::Disconnect { who }),
        1 => who.clone().prop_map(|who| Step::End { who }),
        2 => (who, 0usize..2).prop_map(|(who, topic)| Step::Deny { who, topic }),
        1 => Just(Step::Allow),
        1 => (0u64..15).prop_map(|seconds| Step::Advance { seconds }),
        3 => Just(Step::Sync),
    ]
}

/// What the model knows of a message: its topic, and whose copies there may be.
struct Told {
    topic: usize,
    /// Clients with a subscription of their own that matched.
    own: BTreeSet<usize>,
    /// Groups that matched.
    groups: BTreeSet<usize>,
}

#[derive(Default)]
struct Model {
    told: BTreeMap<String, Told>,
    /// By message and client: times it came as new.
    fresh: BTreeMap<(String, usize), usize>,
    /// Times a message was acknowledged, by anybody.
    done: BTreeMap<String, usize>,
    denied: BTreeSet<(usize, usize)>,
}

impl Model {
    fn delivered(&mut self, who: usize, got: &Got) -> Result<(), TestCaseError> {
        let Some(told) = self.told.get(&got.text) else {
            prop_assert_eq!(&got.text, "will");
            return Ok(());
        };
        prop_assert!(told.own.contains(&who) || !told.groups.is_empty(), "{} never was {}'s", got.text, NAMES[who]);
        if got.stage == Stage::Received {
            // It has the message already; only PUBREL goes out.
            return Ok(());
        }
        prop_assert!(!self.denied.contains(&(who, told.topic)), "{} has no right to {}", NAMES[who], got.text);
        if !got.redelivered {
            let times = self.fresh.entry((got.text.clone(), who)).or_default();
            *times += 1;
            prop_assert!(*times <= usize::from(told.own.contains(&who)) + told.groups.len(), "{} again", got.text);
        }
        Ok(())
    }

    fn settled(&mut self, got: &Got) -> Result<(), TestCaseError> {
        let Some(told) = self.told.get(&got.text) else { return Ok(()) };
        let times = self.done.entry(got.text.clone()).or_default();
        *times += 1;
        prop_assert!(*times <= told.own.len() + told.groups.len(), "{} was for fewer", got.text);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn everybody_gets_what_is_theirs_and_nothing_else(steps in prop::collection::vec(step(), 1..120)) {
        let rules = Arc::default();
        let world = World::ruled_with(&rules, |limits| limits.max_queued_messages = QUEUE);
        let mut links: Vec<Option<Link>> = vec![None, None, None];
        let mut windows = [0usize; 3];
        let mut open: [BTreeMap<Tag, Got>; 3] = Default::default();
        let mut model = Model::default();
        for (serial, step) in steps.into_iter().enumerate() {
            match step {
                Step::Attach { who, clean, expiry, window, reject, will } => {
                    let will = will.map(|delay_s| Will {
                        delay_s,
                        ..Will::new(Topic::parse("x/1").unwrap(), "will".into(), Qos::AtLeastOnce)
                    });
                    let overflow = reject.then_some(Overflow::Reject);
                    let hello = Hello {
                        start: if clean { Start::Clean } else { Start::Resume },
                        expiry, window, will,
                        options: SessionOptions { overflow, ..SessionOptions::default() },
                        ..world.hello_of(NAMES[who], NAMES[who])
                    };
                    let attached = world.attach(hello);
                    prop_assert!(!(clean && attached.resumed));
                    if let Some(mut old) = links[who].replace(attached.link) {
                        // What the old holder says no longer counts.
                        prop_assert!(matches!(event(&mut old), Some(Event::Detached(_))));
                        prop_assert!(take(&mut old, Pick::Unsent).is_empty());
                    }
                    windows[who] = usize::from(window);
                    open[who].clear();
                }
                Step::Leave { who, how } => if let Some(link) = links[who].take() {
                    link.detach(how);
                    open[who].clear();
                },
                Step::Subscribe { who, filter, qos } => if let Some(link) = &mut links[who] {
                    let mut granted = Vec::new();
                    let filter = Filter::parse(FILTERS[filter]).unwrap();
                    link.subscribe(&[Subscription::new(filter, Qos::from_u8(qos).unwrap())], &mut granted);
                    prop_assert!(granted[0].is_ok());
                },
                Step::Unsubscribe { who, filter } => if let Some(link) = &mut links[who] {
                    link.unsubscribe(&[Filter::parse(FILTERS[filter]).unwrap()], &mut Vec::new());
                },
                Step::Publish { who, topic, qos, id } => if let Some(link) = &mut links[who] {
                    let text = serial.to_string();
                    let name = Topic::parse(TOPICS[topic]).unwrap();
                    let mut told = Told { topic, own: BTreeSet::new(), groups: BTreeSet::new() };
                    for (client, id) in NAMES.iter().enumerate() {
                        let session = world.broker.session(&ClientId::new(id).unwrap());
                        for subscription in session.into_iter().flat_map(|session| session.subscriptions) {
                            match subscription.filter.group() {
                                _ if !subscription.filter.matches(&name) => {}
                                Some(_) => drop(told.groups.insert(FILTERS.iter().position(|f| *f == subscription.filter.as_str()).unwrap())),
                                None => drop(told.own.insert(client)),
                            }
                        }
                    }
                    let (own, groups) = (told.own.len(), told.groups.len());
                    model.told.insert(text.clone(), told);
                    let qos = Qos::from_u8(qos).unwrap();
                    let before = link.unreleased();
                    let outcome = publish_as(link, TOPICS[topic], &text, qos, (qos == Qos::ExactlyOnce).then_some(id));
                    match outcome {
                        Outcome::Accepted { matched, .. } => prop_assert!(matched as usize <= own + groups),
                        Outcome::Duplicate => {
                            prop_assert_eq!((qos, link.unreleased()), (Qos::ExactlyOnce, before));
                            model.told.remove(&text);
                        }
                        Outcome::QuotaExceeded => {
                            // A refused publication reached nobody: who gets it all the same is told so above.
                            prop_assert!(qos != Qos::AtMostOnce);
                            model.told.remove(&text);
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                },
                Step::Release { who, id } => if let Some(link) = &mut links[who] {
                    link.release(id.try_into().unwrap());
                },
                Step::Take { who, most } => if let Some(link) = &mut links[who] {
                    let mut all = take_up_to(link, Pick::Inflight, most);
                    all.extend(take_up_to(link, Pick::Unsent, most));
                    for got in all {
                        model.delivered(who, &got)?;
                        if let Some(tag) = got.tag {
                            prop_assert!(open[who].insert(tag, got).is_none(), "a tag in use is given again");
                        }
                    }
                    prop_assert!(open[who].len() <= windows[who], "more under way than the window");
                },
                Step::Settle { who, how } => if let (Some(link), Some((tag, mut got))) = (&mut links[who], open[who].pop_first()) {
                    let how = match (how, got.qos, got.stage) {
                        (0, ..) => Settle::Rejected,
                        (_, Qos::ExactlyOnce, Stage::Offered) => Settle::Received,
                        (_, Qos::ExactlyOnce, Stage::Received) => Settle::Completed,
                        _ => Settle::Acknowledged,
                    };
                    // A holder that was told to go no longer settles.
                    let known = settle(link, &got, how);
                    if known && how == Settle::Received {
                        got.stage = Stage::Received;
                        open[who].insert(tag, got);
                    } else if known && how != Settle::Rejected {
                        model.settled(&got)?;
                    }
                },
                Step::Disconnect { who } => {
                    world.broker.disconnect(&ClientId::new(NAMES[who]).unwrap(), Reason::Administrative);
                    links[who] = None;
                    open[who].clear();
                }
                Step::End { who } => {
                    world.broker.end_session(&ClientId::new(NAMES[who]).unwrap(), Reason::SessionEnded);
                    links[who] = None;
                    open[who].clear();
                }
                Step::Deny { who, topic } => {
                    rules.deny(&world, NAMES[who], "receive", TOPICS[topic]);
                    model.denied.insert((who, topic));
                }
                Step::Allow => {
                    rules.clear(&world);
                    model.denied.clear();
                }
                Step::Advance { seconds } => world.advance(seconds),
                Step::Sync => world.store.sync(),
            }
            balanced(&world, &links);
        }
    }
}
