//! When what is acknowledged goes from the operating system to the disk.

use super::*;

/// A failing sync shows that there is one: what was acknowledged before it stays acknowledged and is kept.
#[test]
fn only_an_interval_syncs_by_itself_and_in_time() {
    const EVERY: Duration = Duration::from_millis(50);
    for (sync, syncs) in [(Sync::Interval(EVERY), true), (Sync::Never, false)] {
        let dir = folder();
        let disk = Arc::new(Disk::open(Settings { sync, ..settings(dir.path()) }).unwrap());
        let world = World::on_store(disk.clone(), Arc::default(), Limits::default(), MEMORY);
        let mut reader = world.resident("reader");
        subscribe(&mut reader, "t", Qos::AtLeastOnce);
        disk.rehearse_failure(Some("sync"));
        let began = now();
        world.publish("t", "kept", Qos::AtLeastOnce);
        let lsn = disk.append_lazily(&mut Vec::new());
        eventually("it is acknowledged without a sync", || disk.durable() >= lsn);
        if syncs {
            eventually("a sync was tried", || world.broker.durability().trouble.is_some());
            assert!(began.elapsed() >= EVERY / 2, "not with every message");
            disk.rehearse_failure(None);
            eventually("the store writes again", || world.broker.durability().trouble.is_none());
        } else {
            // The looks at the disk that come every second sync nothing either.
            let turns = now();
            eventually("two looks have passed", || turns.elapsed() > Duration::from_millis(2_100));
            assert_eq!(world.broker.durability().trouble, None);
        }
        assert_eq!(world.broker.durability().promise, Promise::Process);
        forget(reader);
        disk.close();
        let closed = folder();
        copy_folder(dir.path(), closed.path());
        let scene = Scene::on(closed, Arc::default(), MEMORY);
        assert_eq!(waiting(&scene), ["kept"]);
    }
}

#[expect(clippy::disallowed_methods, reason = "a real disk takes real time")]
fn now() -> Instant {
    Instant::now()
}
