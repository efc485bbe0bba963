//! What survives the end of the process.

use super::*;

#[test]
fn everything_that_must_survive_survives_a_kill() {
    let scene = Scene::new();
    let world = &scene.world;
    let mut reader = world.resident("reader");
    subscribe(&mut reader, "t/#", Qos::ExactlyOnce);
    subscribe(&mut reader, "gone", Qos::AtMostOnce);
    reader.unsubscribe(&[Filter::parse("gone").unwrap()], &mut Vec::new());
    let mut other = world.resident("other");
    subscribe(&mut other, "t/+", Qos::AtLeastOnce);
    world.retain("state", "on");
    world.retain("cleared", "x");
    world.retain("cleared", "");
    world.publish("t/1", "one", Qos::AtLeastOnce);
    world.publish("t/1", "two", Qos::ExactlyOnce);
    world.publish("t/1", "three", Qos::AtLeastOnce);
    world.publish("t/1", "not kept", Qos::AtMostOnce);
    scene.sync();
    let sent = take_up_to(&mut reader, Pick::Unsent, 3);
    assert_eq!(texts(&sent), ["one", "two", "three"]);
    assert!(settle(&mut reader, &sent[0], Settle::Acknowledged));
    assert!(settle(&mut reader, &sent[1], Settle::Received));
    let mut publisher = world.resident("publisher");
    publish_as(&mut publisher, "nobody/listens", "x", Qos::ExactlyOnce, Some(9));
    publish_as(&mut publisher, "nobody/listens", "y", Qos::ExactlyOnce, Some(10));
    publisher.release(10.try_into().unwrap());
    world.broker.keep("thing", "name", Some("document".into())).unwrap();
    scene.sync();
    for link in [reader, other, publisher] {
        forget(link);
    }

    let scene = scene.kill();
    let world = &scene.world;
    let mut reader = resume(world, "reader");
    assert_eq!(reader.subscriptions().len(), 1);
    let again = take(&mut reader, Pick::Inflight);
    assert_eq!(texts(&again), ["two", "three"]);
    assert_eq!((again[0].tag, again[0].stage), (sent[1].tag, Stage::Received));
    assert_eq!((again[1].tag, again[1].redelivered), (sent[2].tag, true));
    assert!(take(&mut reader, Pick::Unsent).is_empty());
    let mut other = resume(world, "other");
    let mut all = take(&mut other, Pick::Inflight);
    all.extend(take(&mut other, Pick::Unsent));
    assert_eq!(texts(&all), ["one", "two", "three"]);
    let anyone = Principal::anonymous();
    let state = |topic: &str| world.broker.retained(&anyone, &Topic::parse(topic).unwrap()).unwrap();
    assert_eq!(state("state").unwrap().payload(), b"on");
    assert!(state("cleared").is_none());
    let mut publisher = resume(world, "publisher");
    assert_eq!(publish_as(&mut publisher, "nobody/listens", "x", Qos::ExactlyOnce, Some(9)), Outcome::Duplicate);
    assert!(matches!(
        publish_as(&mut publisher, "nobody/listens", "z", Qos::ExactlyOnce, Some(10)),
        Outcome::Accepted { .. }
    ));
    assert_eq!(world.broker.kept("thing"), [("name".into(), "document".into())]);
    assert_eq!(scene.health().damaged, 0);
}

#[test]
fn a_cursor_from_before_a_kill_is_still_good() {
    let scene = Scene::new();
    let mut reader = scene.world.resident("reader");
    subscribe(&mut reader, "t", Qos::AtLeastOnce);
    for text in ["one", "two", "three"] {
        scene.world.publish("t", text, Qos::AtLeastOnce);
    }
    scene.sync();
    let page = take_up_to(&mut reader, Pick::Oldest(Cursor(0)), 2);
    reader.settle_through(page[0].cursor).unwrap();
    scene.sync();
    forget(reader);
    let scene = scene.kill();
    let mut reader = resume(&scene.world, "reader");
    assert_eq!(reader.settled(), page[0].cursor);
    let again = take(&mut reader, Pick::Oldest(page[0].cursor));
    assert_eq!((texts(&again), again[0].cursor), (vec!["two", "three"], page[1].cursor));
    reader.settle_through(page[1].cursor).unwrap();
    assert_eq!(texts(&take(&mut reader, Pick::Oldest(page[1].cursor))), ["three"]);
}

#[test]
fn what_a_connected_client_may_have_been_sent_comes_again_as_such_and_under_its_tag() {
    let scene = Scene::new();
    let mut reader = scene.world.resident("reader");
    subscribe(&mut reader, "t", Qos::ExactlyOnce);
    for text in ["one", "two", "three"] {
        scene.world.publish("t", text, Qos::ExactlyOnce);
    }
    scene.sync();
    let first = take_up_to(&mut reader, Pick::Unsent, 1);
    settle(&mut reader, &first[0], Settle::Received);
    settle(&mut reader, &first[0], Settle::Completed);
    scene.sync();
    let killed = scene.copy();
    // Sent after the last word the disk heard of.
    let second = take_up_to(&mut reader, Pick::Unsent, 1);
    let scene = Scene::on(killed, scene.world.clock, MEMORY);
    let mut reader = resume(&scene.world, "reader");
    let again = take(&mut reader, Pick::Inflight);
    assert_eq!(texts(&again), ["two", "three"]);
    assert_eq!((again[0].tag, again[0].redelivered), (second[0].tag, true));
}

#[test]
fn a_will_and_a_sessions_end_survive_and_one_that_was_called_off_does_not() {
    let will = |keep_alive_s| {
        let (topic, payload) = (Topic::parse("will").unwrap(), "gone".into());
        let (qos, retain, delay_s, expiry, properties, stays) = (Qos::AtLeastOnce, false, 0, None, None, false);
        Some(Will { topic, payload, qos, retain, delay_s, keep_alive_s, expiry, properties, stays })
    };
    let scene = Scene::new();
    let world = &scene.world;
    // One of them has a session that dies with its connection: its will is kept all the same.
    let lost = world.attach(Hello { will: will(10), ..world.hello("lost") }).link;
    let polite = world.attach(Hello { will: will(10), ..world.hello("polite") }).link;
    polite.detach(Detach::Clean);
    let short = world.attach(Hello { expiry: 5, ..world.hello("short") }).link;
    short.detach(Detach::Clean);
    scene.sync();
    forget(lost);
    let scene = scene.kill();
    let mut watcher = scene.world.client("watcher");
    subscribe(&mut watcher, "will", Qos::AtMostOnce);
    assert!(scene.world.broker.session(&ClientId::new("short").unwrap()).is_some());
    scene.world.advance(14);
    assert!(scene.world.broker.session(&ClientId::new("short").unwrap()).is_none());
    assert!(take(&mut watcher, Pick::Unsent).is_empty());
    scene.world.advance(1);
    assert_eq!(take(&mut watcher, Pick::Unsent).len(), 1, "one and a half times the keep alive have passed");
    scene.world.advance(100);
    assert!(take(&mut watcher, Pick::Unsent).is_empty());
    // It fired once: not again at the next start.
    scene.sync();
    let scene = scene.kill();
    let mut watcher = scene.world.client("watcher");
    subscribe(&mut watcher, "will", Qos::AtMostOnce);
    scene.world.advance(100);
    assert!(take(&mut watcher, Pick::Unsent).is_empty());
}

/// max(will delay, 1.5 x keep alive or at most 60 s); whoever said no keep alive gets those 60 s.
#[test]
fn after_a_kill_a_will_waits_for_its_client_by_keep_alive_and_delay() {
    let rules = [(0, 0, 60), (0, 20, 60), (0, 100, 100), (10, 0, 15), (10, 20, 20), (1_000, 0, 60), (1_000, 70, 70)];
    let scene = Scene::new();
    let mut links = Vec::new();
    for (n, (keep_alive_s, delay_s, _)) in rules.into_iter().enumerate() {
        for id in [format!("{n} lost"), format!("{n} back")] {
            let (topic, payload) = (Topic::parse("will").unwrap(), id.clone().into());
            let (qos, retain, expiry, properties, stays) = (Qos::AtLeastOnce, false, None, None, false);
            let will = Will { topic, payload, qos, retain, delay_s, keep_alive_s, expiry, properties, stays };
            let hello = Hello { start: Start::Resume, expiry: 3_600, will: Some(will), ..scene.world.hello(&id) };
            links.push(scene.world.attach(hello).link);
        }
    }
    scene.sync();
    links.into_iter().for_each(forget);
    let scene = scene.kill();
    let mut watcher = scene.world.client("watcher");
    subscribe(&mut watcher, "will", Qos::AtMostOnce);
    let (mut fired, mut back) = (BTreeMap::new(), Vec::new());
    for second in 1..=120 {
        for (n, (.., patience)) in rules.into_iter().enumerate() {
            if second == patience {
                back.push(resume(&scene.world, &format!("{n} back")));
            }
        }
        scene.world.advance(1);
        for got in take(&mut watcher, Pick::Unsent) {
            fired.insert(got.text, second);
        }
    }
    let wanted: BTreeMap<_, _> = rules.iter().enumerate().map(|(n, rule)| (format!("{n} lost"), rule.2)).collect();
    assert_eq!(fired, wanted, "in time, and not for who came back in the last second");
}

#[test]
fn a_session_that_ended_leaves_nothing_and_its_name_can_be_used_again() {
    let scene = Scene::new();
    let mut old = scene.world.resident("name");
    subscribe(&mut old, "t", Qos::AtLeastOnce);
    for n in 0..2_000 {
        scene.world.publish("t", &n.to_string(), Qos::AtLeastOnce);
    }
    drop(scene.world.attach(Hello { start: Start::Clean, expiry: 3_600, ..scene.world.hello("name") }));
    scene.sync();
    let scene = scene.kill();
    let attached = scene.world.attach(Hello { start: Start::Resume, expiry: 60, ..scene.world.hello("name") });
    assert!(attached.resumed);
    let mut link = attached.link;
    assert!(link.subscriptions().is_empty() && take(&mut link, Pick::Unsent).is_empty());
    assert_eq!(scene.world.broker.waiting(), 0);
}

#[test]
fn a_folder_has_one_server_and_nobody_else_reads_it() {
    let scene = Scene::new();
    assert!(matches!(Disk::open(settings(scene.dir.path())), Err(OpenError::Locked { .. })));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(scene.dir.path()), 0o700);
    assert_eq!(mode(&scene.dir.path().join("format")), 0o600);
    fs::write(scene.dir.path().join("format"), "waystation 999").unwrap();
    let copy = scene.copy();
    let refused = Disk::open(settings(copy.path())).unwrap_err().to_string();
    assert!(refused.contains("waystation 999"), "{refused}");
}

#[test]
fn numbers_that_left_are_never_used_again_however_it_ended() {
    let mut scene = Scene::new();
    let mut last = 0;
    for _ in 0..3 {
        let Outcome::Accepted { id, .. } = scene.world.retain("t", "x") else { panic!("refused") };
        assert!(id.0 > last);
        last = id.0;
        scene = scene.kill();
    }
}
