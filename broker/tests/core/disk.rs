//! The store on disk: what was acknowledged is there after any end, damage is told, a disk that fails heals.

mod crashes;
mod damage;
mod paging;
mod survival;
mod syncing;
mod trouble;

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
        Disk, Health, Promise, Trouble,
        disk::{Examined, OnDamage, OpenError, Settings, Sync, examine},
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
        Self::with_memory(MEMORY)
    }

    /// With queues of which so many bytes stay in memory.
    fn with_memory(memory: u64) -> Self {
        Self::on(folder(), Arc::new(ManualClock::default()), memory)
    }

    fn on(dir: TempDir, clock: Arc<ManualClock>, memory: u64) -> Self {
        let disk = Arc::new(Disk::open(settings(dir.path())).unwrap());
        let world = World::on_store(disk.clone(), clock, Limits::default(), memory);
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
        Self::on(copy, self.world.clock, self.world.memory)
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

/// Everything that `pick` gives, with what is read from the disk meanwhile.
fn take_with_pages(link: &mut Link, pick: Pick) -> Vec<Got> {
    let mut all = Vec::new();
    loop {
        let got = take(link, pick);
        if got.is_empty() && !link.is_paging() {
            return all;
        }
        all.extend(got);
        eventually("the page is read", || !link.is_paging());
    }
}

fn waiting(scene: &Scene) -> Vec<String> {
    let mut reader = scene.world.resident("reader");
    let mut got = take(&mut reader, Pick::Inflight);
    got.extend(take_with_pages(&mut reader, Pick::Unsent));
    got.into_iter().map(|got| got.text).collect()
}
