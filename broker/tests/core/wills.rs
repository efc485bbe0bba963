use crate::harness::*;
use waystation_broker::*;

fn will(delay_s: u32) -> Option<Will> {
    Some(Will {
        topic: Topic::parse("will").unwrap(),
        payload: "gone".into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        delay_s,
        expiry: None,
        properties: None,
    })
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
