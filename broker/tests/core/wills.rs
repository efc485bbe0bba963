use crate::harness::*;
use waystation_broker::*;

fn will(delay_s: u32) -> Option<Will> {
    Some(Will { delay_s, ..Will::new(Topic::parse("will").unwrap(), "gone".into(), Qos::AtLeastOnce) })
}

struct Scene {
    world: World,
    watcher: Link,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let mut watcher = world.client("watcher");
        subscribe(&mut watcher, "will", Qos::AtMostOnce);
        Self { world, watcher }
    }

    fn mortal(&self, delay_s: u32, expiry: u32) -> Link {
        let hello = Hello { will: will(delay_s), expiry, start: Start::Resume, ..self.world.hello("mortal") };
        self.world.attach(hello).link
    }

    fn wills(&mut self) -> usize {
        take(&mut self.watcher, Pick::Unsent).len()
    }
}

#[test]
fn a_lost_client_leaves_its_will_and_a_polite_one_does_not() {
    let mut scene = Scene::new();
    drop(scene.mortal(0, 0));
    assert_eq!(scene.wills(), 1);
    scene.mortal(0, 0).detach(Detach::Clean);
    assert_eq!(scene.wills(), 0);
}

/// CONNACK said that it is kept.
#[test]
fn a_will_that_finds_the_store_down_is_published_when_it_writes_again() {
    let mut scene = Scene::new();
    let mut resident = scene.world.resident("resident");
    subscribe(&mut resident, "will", Qos::AtLeastOnce);
    let (dies, stays) = (scene.mortal(0, 0), scene.world.hello("other"));
    let stays = scene.world.attach(Hello { will: will(5), expiry: 60, start: Start::Resume, ..stays }).link;
    scene.world.store.set_down(true);
    drop((dies, stays));
    scene.world.advance(5);
    assert_eq!((scene.wills(), take(&mut resident, Pick::Unsent).len()), (0, 0), "all or nobody");
    assert!(scene.world.broker.run_due().is_some(), "it is to be tried again");
    scene.world.store.set_down(false);
    scene.world.advance(1);
    assert_eq!((scene.wills(), take(&mut resident, Pick::Unsent).len()), (2, 2));
    assert_eq!(scene.world.broker.metrics().dropped(DropCause::Refused), 0);
    scene.world.advance(100);
    assert_eq!(scene.wills(), 0, "once");
}

#[test]
fn a_will_that_the_store_kept_back_is_not_lost_by_a_crash_before_it_is_published() {
    let scene = Scene::new();
    subscribe(&mut scene.world.resident("resident"), "will", Qos::AtLeastOnce);
    let stays = scene.world.hello("other");
    let stays = scene.world.attach(Hello { will: will(5), expiry: 600, start: Start::Resume, ..stays }).link;
    scene.world.store.sync();
    scene.world.store.set_down(true);
    drop(stays);
    scene.world.advance(5);
    scene.world.store.set_down(false);
    scene.world.store.sync();
    let world = scene.world.crash();
    world.advance(60);
    assert_eq!(take(&mut world.resident("resident"), Pick::Unsent).len(), 1);
}

#[test]
fn a_delayed_will_is_not_early_and_not_sent_to_one_who_returns() {
    let mut scene = Scene::new();
    drop(scene.mortal(5, 60));
    scene.world.advance(4);
    assert_eq!(scene.wills(), 0);
    scene.mortal(0, 60).detach(Detach::Clean);
    scene.world.advance(60);
    assert_eq!(scene.wills(), 0);
    drop(scene.mortal(5, 60));
    scene.world.advance(5);
    assert_eq!(scene.wills(), 1);
}

#[test]
fn the_sessions_end_is_the_last_moment_for_a_will() {
    let mut scene = Scene::new();
    drop(scene.mortal(100, 10));
    scene.world.advance(10);
    assert_eq!(scene.wills(), 1);
}

#[test]
fn a_takeover_publishes_a_will_without_delay_and_keeps_back_one_with_delay() {
    let mut scene = Scene::new();
    let old = scene.mortal(0, 60);
    let _new = scene.mortal(7, 60);
    drop(old);
    assert_eq!(scene.wills(), 1);
    let newer = scene.mortal(0, 60);
    assert_eq!(scene.wills(), 0, "the will with delay is for a client that does not return");
    newer.detach(Detach::Clean);
    assert_eq!(scene.wills(), 0);
}

#[test]
fn a_will_survives_a_crash_and_waits_a_while_for_its_client() {
    let scene = Scene::new();
    let link = scene.mortal(0, 3_600);
    scene.world.store.sync();
    std::mem::forget(link);
    let world = scene.world.crash();
    let mut watcher = world.client("watcher");
    subscribe(&mut watcher, "will", Qos::AtMostOnce);
    world.advance(59);
    assert!(take(&mut watcher, Pick::Unsent).is_empty());
    world.advance(1);
    assert_eq!(take(&mut watcher, Pick::Unsent).len(), 1);
}

/// A will as MQTT-SN knows it, and a connection that goes on with the one there is.
impl Scene {
    fn board(&self, brings_will: bool) -> Link {
        let will = will(0).filter(|_| brings_will).map(|will| Will { stays: true, ..will });
        let hello = Hello { will, keeps_will: true, expiry: 3_600, start: Start::Resume, ..self.world.hello("mortal") };
        self.world.attach(hello).link
    }
}

#[test]
fn a_will_that_stays_is_in_force_again_after_a_goodbye_and_after_it_was_published() {
    let mut scene = Scene::new();
    scene.board(true).detach(Detach::Clean);
    scene.world.advance(1_000);
    assert_eq!(scene.wills(), 0);
    drop(scene.board(false));
    assert_eq!(scene.wills(), 1);
    let link = scene.board(false);
    assert!(link.will().is_some());
    drop(link);
    assert_eq!(scene.wills(), 1);
    let _back = scene.board(false);
    let _taken_over = scene.board(false);
    assert_eq!(scene.wills(), 0, "the client goes on with it");
}

#[test]
fn a_will_that_stays_ends_with_the_session_and_with_a_connection_that_does_not_keep_it() {
    let mut scene = Scene::new();
    scene.board(true).detach(Detach::Clean);
    scene.world.advance(3_600);
    assert_eq!(scene.wills(), 0, "its client had said goodbye");
    scene.board(true).detach(Detach::Clean);
    scene.world.attach(Hello { start: Start::Resume, expiry: 60, ..scene.world.hello("mortal") });
    assert_eq!(scene.wills(), 0);
    assert!(scene.board(false).will().is_none());
}

#[test]
fn after_a_crash_a_will_that_stays_is_pending_only_for_a_client_that_was_connected() {
    for (connected, expected) in [(true, 1), (false, 0)] {
        let scene = Scene::new();
        let link = scene.board(true);
        if connected {
            std::mem::forget(link);
        } else {
            link.detach(Detach::Clean);
        }
        scene.world.store.sync();
        let mut scene = Scene { world: scene.world.crash(), watcher: scene.watcher };
        for expected in [expected, 0] {
            scene.watcher = scene.world.client("watcher");
            subscribe(&mut scene.watcher, "will", Qos::AtMostOnce);
            scene.world.advance(100);
            assert_eq!(scene.wills(), expected);
            scene.world.store.sync();
            scene = Scene { world: scene.world.crash(), watcher: scene.watcher };
        }
        assert!(scene.board(false).will().is_some());
    }
}

#[test]
fn a_will_that_was_discarded_is_not_found_again_after_a_crash() {
    for expiry in [0, 3_600] {
        let scene = Scene::new();
        scene.mortal(0, expiry).detach(Detach::Clean);
        scene.world.store.sync();
        let world = scene.world.crash();
        let mut watcher = world.client("watcher");
        subscribe(&mut watcher, "will", Qos::AtMostOnce);
        world.advance(120);
        assert!(take(&mut watcher, Pick::Unsent).is_empty(), "expiry {expiry}");
    }
}

#[test]
fn an_expiry_that_is_lowered_at_the_end_brings_the_will_forward() {
    let mut scene = Scene::new();
    let mut link = scene.mortal(100, 3_600);
    link.set_expiry(10);
    link.detach(Detach::WithWill);
    scene.world.advance(9);
    assert_eq!(scene.wills(), 0);
    scene.world.advance(1);
    assert_eq!(scene.wills(), 1);
}

#[test]
fn a_new_session_in_place_of_the_old_publishes_even_a_delayed_will() {
    let mut scene = Scene::new();
    drop(scene.mortal(100, 3_600));
    let _fresh = scene.world.client("mortal");
    assert_eq!(scene.wills(), 1, "the session ended");
}

#[test]
fn a_wills_own_expiry_counts_from_its_publication() {
    let mut scene = Scene::new();
    let will = will(20).map(|will| Will { expiry: Some(5), ..will });
    let hello = Hello { will, expiry: 60, start: Start::Resume, ..scene.world.hello("mortal") };
    drop(scene.world.attach(hello));
    scene.world.advance(20);
    scene.world.advance(4);
    assert_eq!(scene.wills(), 1);
}

#[test]
fn a_will_that_is_refused_is_counted_because_nobody_can_be_told() {
    let world = World::with(|limits| (limits.max_queued_messages, limits.overflow) = (1, Overflow::Reject));
    let mut full = world.resident("full");
    subscribe(&mut full, "will", Qos::AtLeastOnce);
    world.publish("will", "first", Qos::AtLeastOnce);
    drop(world.attach(Hello { will: will(0), ..world.hello("mortal") }));
    let line = &world.broker.drops(None, 1)[0];
    assert_eq!((line.topic.as_ref().map(Topic::as_str), line.cause, line.count), (Some("will"), DropCause::Refused, 1));
    assert_eq!((line.client.as_ref().map(ClientId::as_str), &*line.gateway), (Some("mortal"), "test"));
}
