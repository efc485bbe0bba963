//! The store on disk: what was acknowledged is there after any end, damage is told, a disk that fails heals.

use crate::harness::*;
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use waystation_broker::{
    store::{
        Disk, Health, Trouble,
        disk::{OnDamage, OpenError, Settings, Sync},
    },
    *,
};

/// How long anything may take; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker on a data folder. Dropped, it stops in order; [`Scene::kill`] is the other end.
struct Scene {
    world: World,
    disk: Arc<Disk>,
    dir: TempDir,
}

/// In memory where the system has such a place: these tests are about what is written, not about how fast.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn settings(folder: &Path) -> Settings {
    Settings { folder: folder.to_owned(), sync: Sync::Always, on_damage: OnDamage::Salvage, max_bytes: 1 << 30 }
}

impl Scene {
    fn new() -> Self {
        Self::on(folder(), Arc::new(ManualClock::default()))
    }

    fn on(dir: TempDir, clock: Arc<ManualClock>) -> Self {
        let disk = Arc::new(Disk::open(settings(dir.path())).unwrap());
        let world = World::on_store(disk.clone(), clock, Limits::default());
        Self { world, disk, dir }
    }

    /// Waits until everything said so far is on disk.
    fn sync(&self) {
        let lsn = self.disk.append_lazily(&mut Vec::new());
        eventually("everything is on disk", || self.disk.durable() >= lsn);
    }

    /// What the folder holds at this moment, as if the process had been killed now.
    fn copy(&self) -> TempDir {
        let copy = folder();
        copy_folder(self.dir.path(), copy.path());
        copy
    }

    /// Ends without a farewell; the next start sees what was written.
    fn kill(self) -> Self {
        let copy = self.copy();
        Self::on(copy, self.world.clock)
    }

    fn health(&self) -> Health {
        self.world.broker.durability()
    }
}

#[expect(clippy::disallowed_methods, reason = "a real disk takes real time")]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            // Without the room that journals take ahead.
            let mut bytes = fs::read(entry.path()).unwrap();
            if target.extension().is_some_and(|e| e == "jnl") {
                bytes.truncate(content_end(&bytes));
            }
            fs::write(target, bytes).unwrap();
        }
    }
}

fn content_end(bytes: &[u8]) -> usize {
    let zeros = |block: &&[u8]| **block == [0; 4_096][..block.len()];
    let used: usize = bytes.rchunks(4_096).skip_while(zeros).map(<[u8]>::len).sum();
    bytes[..used].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// The newest journal of a data folder, and where its content ends.
fn journal(folder: &Path) -> (PathBuf, usize) {
    let journals = fs::read_dir(folder.join("db")).unwrap().map(|entry| entry.unwrap().path());
    let newest = journals.filter(|path| path.extension().is_some_and(|e| e == "jnl")).max().unwrap();
    let end = content_end(&fs::read(&newest).unwrap());
    (newest, end)
}

fn resume(world: &World, id: &str) -> Link {
    let attached = world.attach(Hello { start: Start::Resume, expiry: 3_600, ..world.hello(id) });
    assert!(attached.resumed, "{id} is there");
    attached.link
}

/// A killed process lets nobody go in order.
fn forget(link: Link) {
    std::mem::forget(link);
}

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
    let scene = Scene::on(killed, scene.world.clock);
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

/// A reader whose queue holds numbered messages, each acknowledged on its own.
fn numbered(count: usize) -> Scene {
    let scene = Scene::new();
    let mut reader = scene.world.resident("reader");
    subscribe(&mut reader, "t", Qos::AtLeastOnce);
    for n in 0..count {
        scene.world.publish("t", &format!("{n:04}"), Qos::AtLeastOnce);
        scene.sync();
    }
    forget(reader);
    scene
}

fn waiting(scene: &Scene) -> Vec<String> {
    let mut reader = scene.world.resident("reader");
    let mut got = take(&mut reader, Pick::Inflight);
    got.extend(take(&mut reader, Pick::Unsent));
    got.into_iter().map(|got| got.text).collect()
}

#[test]
fn a_torn_tail_costs_only_what_was_never_acknowledged() {
    let scene = numbered(5);
    let killed = scene.copy();
    let (path, before) = journal(killed.path());
    // One more message, cut off at every few bytes on its way to the disk.
    scene.world.publish("t", "torn", Qos::AtLeastOnce);
    scene.sync();
    let whole = fs::read(scene.dir.path().join("db").join(path.file_name().unwrap())).unwrap();
    let end = content_end(&whole);
    for cut in (before + 1..end).step_by(7).chain([end - 1]) {
        let folder = folder();
        copy_folder(killed.path(), folder.path());
        fs::write(folder.path().join("db").join(path.file_name().unwrap()), &whole[..cut]).unwrap();
        let scene = Scene::on(folder, Arc::new(ManualClock::default()));
        assert_eq!(waiting(&scene).len(), 5, "cut at {cut} of {end}");
        assert_eq!(scene.health().damaged, 0);
    }
}

#[test]
fn one_bad_bit_in_the_middle_costs_one_group_and_is_told() {
    let scene = numbered(20);
    let killed = scene.copy();
    let (path, end) = journal(killed.path());
    let bytes = fs::read(&path).unwrap();
    let hits: Vec<usize> = (10..20).map(|n| end * n / 21).collect();
    for at in hits {
        let folder = folder();
        copy_folder(killed.path(), folder.path());
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        fs::write(folder.path().join("db").join(path.file_name().unwrap()), bad).unwrap();
        let refused = Settings { on_damage: OnDamage::Refuse, ..settings(folder.path()) };
        match Disk::open(refused) {
            // The sequence number of a batch is under no checksum, and means little.
            Ok(_) => continue,
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(".jnl at offset"), "{text}");
            }
        }
        let scene = Scene::on(folder, Arc::new(ManualClock::default()));
        let found = waiting(&scene);
        assert!(found.len() >= 19, "a bit at {at} of {end} left {found:?}");
        assert_eq!(scene.health().damaged, 1);
        assert!(fs::read_dir(scene.dir.path().join("quarantine")).unwrap().count() > 0);
    }
}

#[test]
fn a_database_that_cannot_be_opened_is_put_aside_and_its_journals_are_saved() {
    let scene = numbered(5);
    let killed = scene.copy();
    // What tells the engine what its files mean.
    for entry in fs::read_dir(killed.path().join("db")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.extension().is_none_or(|e| e != "jnl") {
            fs::write(path, b"garbage").unwrap();
        }
    }
    let refused = Settings { on_damage: OnDamage::Refuse, ..settings(killed.path()) };
    assert!(matches!(Disk::open(refused), Err(OpenError::Damaged(_))));
    let scene = Scene::on(killed, Arc::new(ManualClock::default()));
    assert_eq!(waiting(&scene).len(), 5);
    assert_eq!(scene.health().damaged, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_flipped_bits_anywhere_make_it_panic_or_lie(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..8), 1..6)) {
        let scene = numbered(6);
        let killed = scene.copy();
        drop(scene);
        let mut files = Vec::new();
        let mut folders = vec![killed.path().join("db")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        for (file, at, bit) in flips {
            let file = &files[file.index(files.len())];
            let mut bytes = fs::read(file).unwrap();
            // Where there is something.
            let end = content_end(&bytes);
            if end == 0 { continue }
            let at = at.index(end);
            bytes[at] ^= 1 << bit;
            fs::write(file, bytes).unwrap();
        }
        let scene = Scene::on(killed, Arc::new(ManualClock::default()));
        let found = waiting(&scene);
        prop_assert!(found.iter().all(|text| text.parse::<usize>().is_ok_and(|n| n < 6)), "made up: {:?}", found);
        prop_assert!(found.is_sorted(), "out of order: {:?}", found);
    }
}

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
    let world = World::on_store(disk.clone(), Arc::new(ManualClock::default()), Limits::default());
    let mut reader = world.resident("reader");
    subscribe(&mut reader, "t", Qos::AtLeastOnce);
    let large = "x".repeat(200_000);
    let mut publisher = world.client("publisher");
    eventually("the bound is met", || {
        publish(&mut publisher, "t", &large, Qos::AtLeastOnce) == Outcome::StoreUnavailable
    });
    assert_eq!(world.broker.durability().trouble, Some(Trouble::Full));
    let settled = take(&mut reader, Pick::Unsent);
    for got in &settled {
        settle(&mut reader, got, Settle::Acknowledged);
    }
    let lsn = disk.append_lazily(&mut Vec::new());
    eventually("acknowledgements are written", || disk.durable() >= lsn);
    eventually("space is given back", || world.broker.durability().trouble.is_none());
    assert!(matches!(publish(&mut publisher, "t", "small", Qos::AtLeastOnce), Outcome::Accepted { .. }));
}

#[derive(Debug, Clone)]
enum Step {
    Publish,
    Sync,
    Again,
    Read { complete: bool },
    Kill,
    Fail(&'static str),
    Heal,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Publish),
        3 => Just(Step::Sync),
        1 => Just(Step::Again),
        3 => any::<bool>().prop_map(|complete| Step::Read { complete }),
        1 => Just(Step::Kill),
        1 => prop_oneof![Just("commit"), Just("committed")].prop_map(Step::Fail),
        2 => Just(Step::Heal),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// One publisher, one reader, kills and failures between any two steps: nothing acknowledged is lost, QoS 2 comes
    /// once.
    #[test]
    fn acknowledged_means_kept_over_kills_and_failures(steps in prop::collection::vec(step(), 1..40), qos in 1u8..3) {
        let qos = Qos::from_u8(qos).unwrap();
        let exact = qos == Qos::ExactlyOnce;
        let mut scene = Scene::new();
        let mut reader = scene.world.resident("r");
        subscribe(&mut reader, "t", qos);
        let mut publisher = scene.world.resident("p");
        scene.sync();
        // By packet id: text, and the position at which it counts as acknowledged once it was sent.
        let mut open: BTreeMap<u16, (String, Option<Lsn>)> = BTreeMap::new();
        let (mut acknowledged, mut received) = (BTreeSet::new(), Vec::new());
        let mut serial = 0u16;
        let end = [Step::Heal, Step::Kill, Step::Again, Step::Sync, Step::Read { complete: true }];
        for step in steps.into_iter().chain(end) {
            match step {
                Step::Publish => {
                    serial += 1;
                    open.insert(serial, (format!("{serial:05}"), None));
                    send(&mut publisher, &mut open, serial, qos);
                }
                Step::Again => for id in open.keys().copied().collect::<Vec<_>>() {
                    send(&mut publisher, &mut open, id, qos);
                },
                Step::Sync if scene.health().trouble.is_none() => {
                    let lsn = scene.disk.append_lazily(&mut Vec::new());
                    eventually("on disk, or failed", || scene.disk.durable() >= lsn || scene.health().trouble.is_some());
                    let durable = scene.disk.durable();
                    for (id, (text, _)) in open.extract_if(.., |_, (_, lsn)| lsn.is_some_and(|lsn| lsn <= durable)) {
                        if let Some(id) = std::num::NonZeroU16::new(id) { publisher.release(id); }
                        acknowledged.insert(text);
                    }
                }
                Step::Sync => {}
                Step::Read { complete } => {
                    let mut got = take(&mut reader, Pick::Inflight);
                    got.extend(take(&mut reader, Pick::Unsent));
                    for g in got {
                        if exact {
                            if g.stage == Stage::Offered { received.push(g.text.clone()); }
                            let mut unknown = Vec::new();
                            let lsn = reader.settle(&[(g.tag.unwrap(), Settle::Received)], &mut unknown);
                            // PUBREL goes out once PUBREC is safe; a kill before that is out of this client's sight, so
                            // it waits here.
                            scene.disk.rehearse_failure(None);
                            eventually("PUBREC is on disk", || scene.disk.durable() >= lsn);
                            if complete { settle(&mut reader, &g, Settle::Completed); }
                        } else {
                            received.push(g.text.clone());
                            settle(&mut reader, &g, Settle::Acknowledged);
                        }
                    }
                }
                Step::Kill => {
                    forget(reader);
                    forget(publisher);
                    scene = scene.kill();
                    open.values_mut().for_each(|(_, sent)| *sent = None);
                    (reader, publisher) = (scene.world.resident("r"), scene.world.resident("p"));
                }
                Step::Fail(at) => scene.disk.rehearse_failure(Some(at)),
                Step::Heal => {
                    scene.disk.rehearse_failure(None);
                    eventually("healed", || scene.health().trouble.is_none());
                }
            }
        }
        let distinct: BTreeSet<&String> = received.iter().collect();
        for text in &acknowledged {
            prop_assert!(distinct.contains(text), "{} was acknowledged and is lost", text);
        }
        if exact {
            prop_assert_eq!(distinct.len(), received.len(), "received twice: {:?}", received);
        }
    }
}

/// Sends an open publication over the present connection.
fn send(publisher: &mut Link, open: &mut BTreeMap<u16, (String, Option<Lsn>)>, id: u16, qos: Qos) {
    let Some((text, sent)) = open.get_mut(&id) else { return };
    let topic = Topic::parse("t").unwrap();
    let exactly_once = (qos == Qos::ExactlyOnce).then(|| id.try_into().unwrap());
    publisher.publisher().stage(Publish { exactly_once, ..Publish::new(topic, text.as_bytes(), qos) }, 0).unwrap();
    let mut receipts = Vec::new();
    let lsn = publisher.publisher().flush(&mut receipts);
    if matches!(receipts[0].outcome, Outcome::Accepted { .. }) {
        *sent = Some(lsn);
    }
}
