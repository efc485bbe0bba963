//! A disk that fails, and a folder that is full.

use super::*;

#[test]
fn a_disk_that_fails_acknowledges_nothing_lets_qos_0_pass_and_heals() {
    for at in ["commit", "committed"] {
        let scene = Scene::new();
        let mut reader = scene.world.resident("reader");
        subscribe(&mut reader, "t", Qos::ExactlyOnce);
        scene.sync();
        scene.disk.rehearse_failure(Some(at));
        // Accepted, and never acknowledged while the disk fails.
        scene.world.publish("t", "waits", Qos::ExactlyOnce);
        let before = scene.disk.durable();
        eventually("the failure is noticed", || scene.health().trouble.is_some());
        let mut publisher = scene.world.client("publisher");
        assert_eq!(publish(&mut publisher, "t", "refused", Qos::AtLeastOnce), Outcome::StoreUnavailable);
        assert!(matches!(publish(&mut publisher, "t", "passes", Qos::AtMostOnce), Outcome::Accepted { .. }));
        assert_eq!(scene.disk.durable(), before);
        assert_eq!(texts(&take(&mut reader, Pick::Unsent)), ["passes"], "QoS 2 waits until it is safe");
        assert_eq!(event(&mut publisher), None);
        scene.disk.rehearse_failure(None);
        eventually("the store writes again", || scene.health().trouble.is_none());
        assert_eq!(event(&mut publisher), Some(Event::Room));
        publish(&mut publisher, "t", "afterwards", Qos::AtLeastOnce);
        scene.sync();
        assert_eq!(texts(&take(&mut reader, Pick::Unsent)), ["waits", "afterwards"]);
        forget(reader);
        let scene = scene.kill();
        assert_eq!(waiting(&scene), ["waits", "afterwards"], "failed at {at}");
    }
}

#[test]
fn a_folder_at_its_bound_refuses_what_must_be_kept_and_lets_acknowledgements_pass() {
    let dir = folder();
    let limited = Settings { max_bytes: 24 << 20, ..settings(dir.path()) };
    let disk = Arc::new(Disk::open(limited).unwrap());
    let world = World::on_store(disk.clone(), Arc::new(ManualClock::default()), Limits::default(), MEMORY);
    let mut reader = world.resident("reader");
    subscribe(&mut reader, "t", Qos::AtLeastOnce);
    let large = "x".repeat(200_000);
    let mut publisher = world.client("publisher");
    // It may find some space yet: journals that can be emptied.
    eventually("the bound is met", || {
        publish(&mut publisher, "t", &large, Qos::AtLeastOnce) == Outcome::StoreUnavailable
            && world.broker.durability().trouble == Some(Trouble::Full)
    });
    let settled = take(&mut reader, Pick::Unsent);
    for got in &settled {
        settle(&mut reader, got, Settle::Acknowledged);
    }
    let lsn = disk.append_lazily(&mut Vec::new());
    eventually("acknowledgements are written", || disk.durable() >= lsn);
    eventually("space is given back", || world.broker.durability().trouble.is_none());
    assert!(matches!(publish(&mut publisher, "t", "small", Qos::AtLeastOnce), Outcome::Accepted { .. }));
}
