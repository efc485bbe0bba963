//! Rights at every way out, as they are at that moment, and who owns a session.

use crate::harness::*;
use std::sync::Arc;
use waystation_broker::*;

fn world() -> (Arc<Rules>, World) {
    let rules = Arc::default();
    let world = World::ruled_by(&rules);
    (rules, world)
}

fn stage(link: &mut Link, topic: &str, retain: bool) -> Result<(), Refused> {
    let message = Publish { retain, ..Publish::new(Topic::parse(topic).unwrap(), b"x", Qos::AtLeastOnce) };
    link.publisher().stage(message, 0)?;
    link.publisher().flush(&mut Vec::new());
    Ok(())
}

fn count(link: &mut Link) -> usize {
    take(link, Pick::Unsent).len()
}

fn wish(link: &mut Link, filter: &str) -> Result<Qos, Refused> {
    let mut granted = Vec::new();
    link.subscribe(&[Subscription::new(Filter::parse(filter).unwrap(), Qos::ExactlyOnce)], &mut granted);
    granted[0]
}

#[test]
fn a_right_to_publish_that_is_revoked_ends_at_once() {
    let (rules, world) = world();
    let mut ann = world.user("ann");
    assert_eq!(stage(&mut ann, "t", false), Ok(()));
    rules.deny(&world, "ann", "publish", "t");
    assert_eq!(stage(&mut ann, "t", false), Err(Refused::NotAuthorized));
    assert_eq!(stage(&mut ann, "other", false), Ok(()));
}

#[test]
fn a_subscription_outlives_its_right_and_delivers_nothing() {
    let (rules, world) = world();
    let (mut ann, mut bob) = (world.user("ann"), world.user("bob"));
    wish(&mut bob, "t/#").unwrap();
    wish(&mut bob, "$share/g/t/#").unwrap();
    stage(&mut ann, "t/1", false).unwrap();
    assert_eq!(count(&mut bob), 2);
    rules.deny(&world, "bob", "receive", "t/1");
    stage(&mut ann, "t/1", false).unwrap();
    stage(&mut ann, "t/2", false).unwrap();
    assert_eq!(count(&mut bob), 2, "a narrower rule applies at delivery");
    rules.deny(&world, "bob", "subscribe", "t/#");
    assert_eq!(wish(&mut bob, "t/#"), Err(Refused::NotAuthorized));
    assert_eq!(wish(&mut bob, "$share/h/t/#"), Err(Refused::NotAuthorized));
}

#[test]
fn a_group_passes_by_a_member_that_may_not_have_the_message() {
    let (rules, world) = world();
    let (mut ann, mut bob, mut cid) = (world.user("ann"), world.user("bob"), world.user("cid"));
    wish(&mut bob, "$share/g/t").unwrap();
    wish(&mut cid, "$share/g/t").unwrap();
    rules.deny(&world, "bob", "receive", "t");
    (0..4).for_each(|_| stage(&mut ann, "t", false).unwrap());
    assert_eq!((count(&mut bob), count(&mut cid)), (0, 4));
}

#[test]
fn what_waits_is_looked_at_again_when_the_rights_have_changed() {
    let (rules, world) = world();
    let (mut ann, mut bob) = (world.user("ann"), world.user("bob"));
    wish(&mut bob, "#").unwrap();
    bob.detach(Detach::Clean);
    stage(&mut ann, "t", false).unwrap();
    stage(&mut ann, "free", false).unwrap();
    rules.deny(&world, "bob", "receive", "t");
    world.store.sync();
    let mut bob = world.user("bob");
    assert_eq!(count(&mut bob), 1);
    assert_eq!(world.broker.metrics().dropped(DropCause::NotAuthorized), 1);
}

#[test]
fn what_was_sent_is_not_sent_again_without_the_right() {
    let (rules, world) = world();
    let (mut ann, mut bob) = (world.user("ann"), world.user("bob"));
    wish(&mut bob, "t").unwrap();
    stage(&mut ann, "t", false).unwrap();
    assert_eq!(count(&mut bob), 1);
    drop(bob);
    rules.deny(&world, "bob", "receive", "t");
    let mut bob = world.user("bob");
    assert!(take(&mut bob, Pick::Inflight).is_empty());
    assert!(take(&mut bob, Pick::Oldest(Cursor(0))).is_empty());
    assert_eq!(world.broker.metrics().dropped(DropCause::NotAuthorized), 1);
}

#[test]
fn a_reader_by_cursor_is_not_shown_what_it_may_not_have() {
    let (rules, world) = world();
    let (mut ann, mut bob) = (world.user("ann"), world.user("bob"));
    wish(&mut bob, "#").unwrap();
    ["a", "t", "b", "t"].iter().for_each(|topic| stage(&mut ann, topic, false).unwrap());
    world.store.sync();
    let first = take_up_to(&mut bob, Pick::Oldest(Cursor(0)), 1);
    rules.deny(&world, "bob", "receive", "t");
    // Later pages are looked at too, also while nothing is acknowledged.
    let second = take_up_to(&mut bob, Pick::Oldest(first[0].cursor), 1);
    assert_eq!(take(&mut bob, Pick::Oldest(second[0].cursor)).len(), 0);
    assert_eq!(world.broker.metrics().dropped(DropCause::NotAuthorized), 2);
}

#[test]
fn state_is_read_with_the_rights_of_reader_and_publisher_as_they_are() {
    let (rules, world) = world();
    let (mut ann, mut bob) = (world.user("ann"), world.user("bob"));
    stage(&mut ann, "t/a", true).unwrap();
    stage(&mut bob, "t/b", true).unwrap();
    let (cid, all) = (Principal::user("cid", None), Filter::parse("t/#").unwrap());
    let listed = || {
        let mut out = Vec::new();
        world.broker.retained_under(&cid, &all, None, 9, &mut out);
        out.iter().map(|message| message.topic().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed(), ["t/a", "t/b"]);
    rules.deny(&world, "cid", "receive", "t/b");
    assert_eq!(listed(), ["t/a"]);
    let b = Topic::parse("t/b").unwrap();
    assert_eq!(world.broker.retained(&cid, &b).unwrap_err(), Refusal::NotAuthorized);
    // What was left behind by somebody whose right was revoked (CVE-2018-12546).
    rules.deny(&world, "ann", "publish", "t/a");
    assert!(listed().is_empty());
    assert!(world.broker.retained(&cid, &Topic::parse("t/a").unwrap()).unwrap().is_none());
    let mut dot = world.user("dot");
    wish(&mut dot, "t/#").unwrap();
    assert_eq!(texts(&take(&mut dot, Pick::Unsent)).len(), 1);
}

#[test]
fn a_will_needs_its_right_when_it_is_set_and_when_it_is_fired() {
    let (rules, world) = world();
    let will = Will::new(Topic::parse("will").unwrap(), "gone".into(), Qos::AtLeastOnce);
    let with_will = |topic: &str| {
        let will = Will { topic: Topic::parse(topic).unwrap(), ..will.clone() };
        now(world.broker.attach(Hello { will: Some(will), ..world.hello_of("ann", "ann") }))
    };
    for topic in ["$SYS/x", "$dead/x", "$share/g/x", "$reply/x"] {
        assert_eq!(with_will(topic).unwrap_err(), Refusal::WillRefused, "{topic}");
    }
    let mut watcher = world.user("watcher");
    wish(&mut watcher, "will").unwrap();
    drop(with_will("will").unwrap());
    assert_eq!(count(&mut watcher), 1);
    let ann = with_will("will").unwrap();
    rules.deny(&world, "ann", "publish", "will");
    drop(ann);
    assert_eq!(count(&mut watcher), 0);
    assert_eq!(with_will("will").unwrap_err(), Refusal::WillRefused);
}

#[test]
fn the_servers_own_topics_are_closed_and_an_open_reply_is_open() {
    let (_rules, world) = world();
    let mut ann = world.user("ann");
    for topic in ["$SYS/x", "$SYS", "$dead/a/b", "$share/g/t", "$reply/unknown"] {
        assert_eq!(stage(&mut ann, topic, false), Err(Refused::NotAuthorized), "{topic}");
    }
    assert_eq!(stage(&mut ann, "$other", false), Ok(()));
    for filter in ["$reply/#", "$reply/+", "$reply/id", "$share/g/$reply/id"] {
        assert_eq!(wish(&mut ann, filter), Err(Refused::NotAuthorized), "{filter}");
    }
    let own = Hello {
        credentials: Credentials::Known(Principal::server()),
        ..Hello::new("test".into(), Peer::INTERNAL, None)
    };
    let mut asker = world.attach(own).link;
    wish(&mut asker, "$reply/id").unwrap();
    assert_eq!(stage(&mut ann, "$reply/id", true), Ok(()));
    assert_eq!(count(&mut asker), 1);
    assert_eq!(world.broker.retained_count(), 0, "an answer is nobody's state");
    drop(asker);
    assert_eq!(stage(&mut ann, "$reply/id", false), Err(Refused::NotAuthorized));
}

#[test]
fn a_session_belongs_to_the_user_who_made_it() {
    let (_rules, world) = world();
    drop(world.attach(world.hello_of("ann", "s")));
    let refused = |user: &str| now(world.broker.attach(world.hello_of(user, "s"))).unwrap_err();
    assert_eq!(refused("bob"), Refusal::NotAuthorized);
    assert_eq!(now(world.broker.attach(world.hello("s"))).unwrap_err(), Refusal::NotAuthorized);
    let clean = Hello { start: Start::Clean, ..world.hello_of("bob", "s") };
    assert_eq!(now(world.broker.attach(clean)).unwrap_err(), Refusal::NotAuthorized);
    assert!(world.attach(world.hello_of("ann", "s")).resumed);
}

#[test]
fn a_session_made_anonymously_belongs_to_the_first_user_who_resumes_it_also_after_a_crash() {
    let rules = Arc::default();
    let world = World::ruled_by(&rules);
    drop(world.resident("s"));
    assert!(world.attach(world.hello_of("ann", "s")).resumed);
    world.store.sync();
    let world = world.crash_under(&rules);
    assert_eq!(now(world.broker.attach(world.hello_of("bob", "s"))).unwrap_err(), Refusal::NotAuthorized);
    assert_eq!(
        now(world.broker.attach(Hello { start: Start::Resume, ..world.hello("s") })).unwrap_err(),
        Refusal::NotAuthorized
    );
    assert!(world.attach(world.hello_of("ann", "s")).resumed);
}

#[test]
fn only_who_has_the_right_makes_sessions_that_refuse() {
    let (rules, world) = world();
    let options = SessionOptions { overflow: Some(Overflow::Reject), ..SessionOptions::default() };
    drop(world.attach(Hello { options, ..world.hello_of("ann", "old") }));
    rules.deny(&world, "ann", "reject", "");
    assert!(now(world.broker.attach(Hello { options, ..world.hello_of("ann", "old") })).is_ok(), "it is one already");
    let refused = now(world.broker.attach(Hello { options, ..world.hello_of("ann", "s") })).unwrap_err();
    assert_eq!(refused, Refusal::NotAuthorized);
    assert!(now(world.broker.attach(Hello { options, ..world.hello_of("bob", "t") })).is_ok());
}

#[test]
fn rights_are_asked_once_a_topic_and_subscriber_and_not_once_a_copy() {
    let (rules, world) = world();
    let (mut ann, mut bob) = (world.user("ann"), world.user("bob"));
    wish(&mut bob, "t").unwrap();
    stage(&mut ann, "t", false).unwrap();
    count(&mut bob);
    let before = rules.asked();
    for _ in 0..100 {
        stage(&mut ann, "t", false).unwrap();
        let got = take(&mut bob, Pick::Unsent);
        settle(&mut bob, &got[0], Settle::Done);
    }
    assert_eq!(rules.asked(), before);
}
