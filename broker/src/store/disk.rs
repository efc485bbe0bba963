//! The store on disk: acknowledged means kept, over any end of the process or, with [`Sync::Always`], of the power.
//!
//! Records go into five keyspaces of a database (`keys`), each with a checksum of its own (`codec`). One thread writes
//! (`commit`): it takes whatever waits as one group (`group`), syncs once and moves the durable position. At a start
//! the journals are looked through for damage before the database opens them (`journal`), then everything is read
//! (`recover`). The folder around it has a lock, a format and a reserve (`folder`).

mod base;
mod codec;
mod commit;
mod examine;
mod folder;
mod group;
mod journal;
mod keys;
mod manifest;
mod pages;
mod rebuild;
mod recover;

pub use examine::{Examined, examine};
pub use journal::{Flaw, FlawKind};

use super::{
    Health, Listener, Page, PageWanted, Promise, Record, Recovery, Standing, Store, StoreUnavailable, Trouble,
};
use crate::{broker::NUMBER_BITS, link::Lsn};
use base::{Base, Depth, EngineError};
use codec::{Reader, Writer};
use commit::Committer;
use folder::Folder;
use pages::Pages;
use parking_lot::{Condvar, Mutex};
use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How a [`Disk`] keeps.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data folder; made if it is not there.
    pub folder: PathBuf,
    /// What acknowledged means.
    pub sync: Sync,
    /// What to do about damage.
    pub on_damage: OnDamage,
    /// Bytes of the data folder at which it counts as full.
    pub max_bytes: u64,
}

/// When an acknowledged message is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Before it is acknowledged.
    Always,
    /// Within this time; before it is acknowledged it is with the operating system.
    Interval(Duration),
    /// When the operating system likes, likewise.
    Never,
}

/// What to do about damage in the middle of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDamage {
    /// Put a copy aside, keep what is good, say what was lost.
    Salvage,
    /// Do not open.
    Refuse,
}

/// Why a data folder is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another server uses it.
    #[error("the data folder {folder} is in use by another server; stop that one, or choose another data_dir", folder = .folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// Another version wrote it.
    #[error("the data folder {folder} has the format \"{found}\", this version knows \"{}\": start it with the newer version that wrote it, or choose another data_dir", folder::FORMAT, folder = .folder.display())]
    Format {
        /// The folder.
        folder: PathBuf,
        /// What it says of itself.
        found: String,
    },
    /// It is damaged, and `on_damage` says to refuse.
    #[error("{0}; durability.on_damage = \"salvage\" keeps what is good")]
    Damaged(String),
    /// The system refused.
    #[error("cannot use {what}: {error}", what = .what.display())]
    Io {
        /// What was touched.
        what: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Bytes that may wait to be written before publishers are asked to stop ([`Store::has_room`]).
const INGRESS_BUDGET: u64 = 16 << 20;

/// Bytes that may wait to be written, while the disk fails or cannot keep up, before nothing may begin any more that
/// would add to them ([`Standing::Exhausted`]).
const PATIENCE_BUDGET: u64 = 64 << 20;

/// The store on disk.
pub struct Disk {
    shared: Arc<Shared>,
    epoch: u32,
    /// What the committer needs, until [`Store::recover`] starts it; then its thread.
    stage: Mutex<Stage>,
}

enum Stage {
    Opened(Arc<Base>),
    /// The committer, and the reader of pages.
    Running(JoinHandle<bool>, JoinHandle<()>),
    Closed,
}

/// What the callers and the committer share. Lock order: `inbox` last.
struct Shared {
    settings: Settings,
    folder: Folder,
    inbox: Mutex<Inbox>,
    /// There is work, or the store is to close.
    wake: Condvar,
    committed: Condvar,
    durable: AtomicU64,
    listener: Mutex<Option<Arc<dyn Listener>>>,
    /// The database, while it is open.
    base: Mutex<Option<Arc<Base>>>,
    size: AtomicU64,
    damaged: AtomicU64,
    compacting: AtomicBool,
    pages: Pages,
    fail_point: FailPoint,
}

/// What waits to be written. Bounded by [`INGRESS_BUDGET`] and a burst of every publisher; while the store is down, by
/// [`PATIENCE_BUDGET`] and by what is not refused past it: to settle what is held, and to go.
#[derive(Default)]
struct Inbox {
    batches: VecDeque<Pending>,
    bytes: u64,
    /// The position of the last batch taken.
    last: u64,
    /// Batches that must be kept are refused.
    refuses: Option<Trouble>,
    /// A caller was told that there is no room.
    crowded: bool,
    /// The committer sleeps until so many bytes wait.
    wake_at: Option<u64>,
    stopping: bool,
}

struct Pending {
    lsn: Lsn,
    bytes: u64,
    records: Vec<Record>,
}

impl Disk {
    /// Opens the data folder, or makes it. What was damaged is mended or refused; nothing is served yet.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        let folder = Folder::take(&settings.folder)?;
        let failed = |error| OpenError::Io { what: settings.folder.clone(), error };
        rebuild::finish(&folder).map_err(|error| failed(io::Error::other(error)))?;
        let mut damaged = mend(&folder, settings.on_damage)?;
        folder.mark_in_use().map_err(failed)?;
        folder.release_reserve();
        let (base, lost) = open_base(&folder, settings.on_damage)?;
        damaged += lost;
        if settings.on_damage == OnDamage::Refuse {
            refuse_damage(&base, &folder)?;
        }
        let epoch = next_epoch(&base, settings.on_damage).map_err(|error| failed(io::Error::other(error)))?;
        folder.restore_reserve();
        let base = Arc::new(base);
        let shared = Shared {
            size: AtomicU64::new(folder.size()),
            settings,
            folder,
            inbox: Mutex::default(),
            wake: Condvar::new(),
            committed: Condvar::new(),
            durable: AtomicU64::new(0),
            listener: Mutex::default(),
            base: Mutex::new(Some(base.clone())),
            damaged: AtomicU64::new(damaged),
            compacting: AtomicBool::new(false),
            pages: Pages::default(),
            fail_point: FailPoint::default(),
        };
        Ok(Self { shared: Arc::new(shared), epoch, stage: Mutex::new(Stage::Opened(base)) })
    }

    /// Writes what waits, and marks the folder as left in order. Waits for the disk. What comes later is not kept.
    pub fn close(&self) {
        let stage = std::mem::replace(&mut *self.stage.lock(), Stage::Closed);
        let written = match stage {
            Stage::Opened(base) => base.sync().is_ok(),
            Stage::Running(committer, reader) => {
                self.shared.pages.stop();
                {
                    let mut inbox = self.shared.inbox.lock();
                    inbox.stopping = true;
                    self.shared.wake.notify_all();
                }
                let read = end(reader).is_some();
                end(committer).unwrap_or(false) && read
            }
            Stage::Closed => return,
        };
        self.shared.base.lock().take();
        let marked = written && self.shared.folder.mark_clean().is_ok();
        if !marked {
            tracing::error!("not everything that waited could be written to the data folder");
        }
    }

    /// Makes the disk fail from the next commit on, or heal; for tests.
    #[doc(hidden)]
    pub fn rehearse_failure(&self, at: Option<&'static str>) {
        *self.shared.fail_point.0.lock() = at;
    }

    fn take(&self, records: &mut Vec<Record>, inbox: &mut Inbox) -> Lsn {
        let bytes = records.iter().map(commit::weight).sum();
        inbox.last += 1;
        inbox.bytes += bytes;
        let lsn = Lsn(inbox.last);
        inbox.batches.push_back(Pending { lsn, bytes, records: std::mem::take(records) });
        if inbox.wake_at.is_some_and(|at| inbox.bytes >= at) {
            inbox.wake_at = None;
            self.shared.wake.notify_one();
        }
        lsn
    }
}

impl Store for Disk {
    fn keeps(&self) -> bool {
        true
    }

    fn append(&self, records: &mut Vec<Record>) -> Result<Lsn, StoreUnavailable> {
        let mut inbox = self.shared.inbox.lock();
        if inbox.refuses.is_some() || inbox.stopping {
            return Err(StoreUnavailable);
        }
        Ok(self.take(records, &mut inbox))
    }

    fn append_lazily(&self, records: &mut Vec<Record>) -> Lsn {
        self.take(records, &mut self.shared.inbox.lock())
    }

    fn standing(&self) -> Standing {
        let inbox = self.shared.inbox.lock();
        match inbox.refuses {
            _ if inbox.bytes >= PATIENCE_BUDGET => Standing::Exhausted,
            Some(_) => Standing::Closed,
            None if inbox.stopping => Standing::Closed,
            None => Standing::Open,
        }
    }

    fn durable(&self) -> Lsn {
        Lsn(self.shared.durable.load(Ordering::Acquire))
    }

    fn has_room(&self) -> bool {
        let mut inbox = self.shared.inbox.lock();
        // A store that is down is no reason to stop reading: only what is being written is.
        let room = inbox.bytes < INGRESS_BUDGET || inbox.refuses.is_some();
        inbox.crowded |= !room;
        room
    }

    fn listen(&self, listener: Arc<dyn Listener>) {
        *self.shared.listener.lock() = Some(listener);
    }

    fn epoch(&self) -> u32 {
        self.epoch
    }

    fn recover(&self, recovery: &mut dyn Recovery) {
        let mut stage = self.stage.lock();
        let Stage::Opened(base) = &*stage else { return };
        let (base, began) = (base.clone(), instant());
        let found = recover::read(&base, recovery);
        self.shared.damaged.fetch_add(found.damaged, Ordering::Relaxed);
        for gap in &found.unreadable {
            tracing::error!(gap, "a part of the data folder cannot be read; what was in it is lost");
        }
        let base = match found.damaged {
            0 => Some(base),
            _ => {
                *stage = Stage::Closed;
                self.shared.rebuild(base)
            }
        };
        let (records, damaged) = (found.records, self.shared.damaged.load(Ordering::Relaxed));
        tracing::info!(records, damaged, seconds = began.elapsed().as_secs_f32(), "data folder read");
        let committer = Committer::new(self.shared.clone(), base, found.index);
        let shared = self.shared.clone();
        *stage = Stage::Running(
            thread("store", move || committer.run()),
            thread("store-pages", move || pages::run(&shared)),
        );
    }

    fn page(&self, wanted: PageWanted, answer: Box<dyn FnOnce(Page) + Send>) {
        self.shared.pages.ask(wanted, answer);
    }

    fn health(&self) -> Health {
        Health {
            promise: match self.shared.settings.sync {
                Sync::Always => Promise::Power,
                Sync::Interval(_) | Sync::Never => Promise::Process,
            },
            trouble: self.shared.inbox.lock().refuses.clone(),
            bytes: self.shared.size.load(Ordering::Relaxed),
            damaged: self.shared.damaged.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

impl Shared {
    /// Puts what is good of a damaged database into a new one. `None`: neither can be opened now.
    fn rebuild(&self, damaged: Arc<Base>) -> Option<Arc<Base>> {
        self.base.lock().take();
        let rebuilt = match Arc::try_unwrap(damaged) {
            Ok(damaged) => rebuild::rebuild(&self.folder, damaged),
            Err(_) => Err(EngineError::other("it is in use".into())),
        };
        let opened = rebuilt.or_else(|error| {
            tracing::error!(%error, "the damaged database cannot be written anew");
            Base::open(&self.folder.database())
        });
        if let Err(error) = &opened {
            self.inbox.lock().refuses = Some(Trouble::Failing(error.to_string()));
        }
        let base = opened.ok().map(Arc::new);
        self.base.lock().clone_from(&base);
        base
    }

    /// Bytes that waited are written.
    fn release(&self, bytes: u64) {
        let mut inbox = self.inbox.lock();
        inbox.bytes = inbox.bytes.saturating_sub(bytes);
        // Half empty, so that publishers do not stop and go with every group.
        if inbox.crowded && inbox.bytes < INGRESS_BUDGET / 2 {
            inbox.crowded = false;
            drop(inbox);
            if let Some(listener) = self.listener.lock().clone() {
                listener.available();
            }
        }
    }

    /// Gives space back on a thread of its own, one at a time: it may take long, and commits go on beside it.
    fn compact(self: &Arc<Self>, base: &Arc<Base>) {
        if self.compacting.swap(true, Ordering::AcqRel) {
            return;
        }
        let (shared, base) = (self.clone(), Arc::downgrade(base));
        let work = move || {
            if let Some(base) = base.upgrade()
                && let Err(error) = base.compact()
            {
                tracing::warn!(%error, "cannot give space back");
            }
            shared.compacting.store(false, Ordering::Release);
        };
        if std::thread::Builder::new().name("store-compact".into()).spawn(work).is_err() {
            self.compacting.store(false, Ordering::Release);
        }
    }
}

#[expect(clippy::expect_used, reason = "a system without one more thread cannot serve anybody")]
fn thread<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::Builder::new().name(name.into()).spawn(work).expect("a thread for the store")
}

/// Waits for a thread's end; `None`: it broke down, or is this one, which let go of the store last.
fn end<T>(thread: JoinHandle<T>) -> Option<T> {
    if thread.thread().id() == std::thread::current().id() {
        return None;
    }
    thread.join().ok()
}

/// Looks the journals through and mends them. Gives how many places were damaged.
fn mend(folder: &Folder, on_damage: OnDamage) -> Result<u64, OpenError> {
    let database = folder.database();
    let failed = |what: &Path| {
        let what = what.to_owned();
        move |error| OpenError::Io { what, error }
    };
    let journals = journal::read_all(&database, folder.stopped_clean).map_err(failed(&database))?;
    let flaws = || journals.iter().flat_map(|journal| &journal.flaws);
    if let Some(flaw) = flaws().find(|flaw| flaw.kind == FlawKind::Damage && on_damage == OnDamage::Refuse) {
        return Err(OpenError::Damaged(flaw.to_string()));
    }
    for journal in journals.iter().filter(|journal| !journal.flaws.is_empty()) {
        let path = &journal.path;
        for flaw in &journal.flaws {
            let (offset, bytes) = (flaw.offset, flaw.bytes);
            match flaw.kind {
                FlawKind::TornTail => {
                    tracing::warn!(file = %path.display(), offset, bytes, "the last write was not finished; its torn tail is cut off");
                }
                FlawKind::Damage => {
                    let copy = folder.quarantine(path).map_err(failed(path))?;
                    tracing::error!(file = %path.display(), offset, bytes, copy = %copy.display(), "the journal is damaged; a copy is put aside, what is good is kept");
                }
            }
        }
        journal.mend().map_err(failed(path))?;
    }
    Ok(flaws().filter(|flaw| flaw.kind == FlawKind::Damage).count() as u64)
}

/// With `on_damage = "refuse"` everything is read before anything is served.
fn refuse_damage(base: &Base, folder: &Folder) -> Result<(), OpenError> {
    let found = recover::read(base, &mut examine::Everything);
    if found.damaged == 0 {
        return Ok(());
    }
    let (place, unreadable) = (folder.database(), found.unreadable.join(", "));
    let damaged = found.damaged;
    Err(OpenError::Damaged(format!("damage in {}: {damaged} records or blocks; {unreadable}", place.display())))
}

/// Mends manifests of which one bit has flipped; a copy is put aside. Gives how many were damaged, and the first that
/// cannot be mended.
fn mend_manifests(folder: &Folder, on_damage: OnDamage) -> Result<(u64, Option<PathBuf>), OpenError> {
    let failed = |what: &Path| {
        let what = what.to_owned();
        move |error| OpenError::Io { what, error }
    };
    let database = folder.database();
    let (mut damaged, mut lost) = (0, None);
    for manifest in manifest::check(&database).map_err(failed(&database))? {
        let file = &manifest.file;
        if on_damage == OnDamage::Refuse {
            return Err(OpenError::Damaged(format!("damage in {}, a manifest of the database", file.display())));
        }
        damaged += 1;
        if file.exists() {
            let copy = folder.quarantine(file).map_err(failed(file))?;
            tracing::error!(file = %file.display(), copy = %copy.display(), "a manifest of the database is damaged; a copy is put aside");
        }
        if manifest.mend().map_err(failed(file))? {
            tracing::warn!(file = %file.display(), "one bit of it had flipped, and is set right");
        } else {
            lost.get_or_insert_with(|| file.clone());
        }
    }
    Ok((damaged, lost))
}

/// Opens the database; one that cannot be opened at all is put aside, and what its journals hold is saved. Gives how
/// many databases were lost that way.
fn open_base(folder: &Folder, on_damage: OnDamage) -> Result<(Base, u64), OpenError> {
    let database = folder.database();
    let failed = |error: EngineError| OpenError::Io { what: database.clone(), error: io::Error::other(error) };
    let (damaged, unmended) = mend_manifests(folder, on_damage)?;
    let opened = match unmended {
        None => Base::open(&database),
        Some(file) => Err(EngineError::other(format!("{} is damaged", file.display()))),
    };
    let error = match opened {
        Ok(base) => return Ok((base, damaged)),
        Err(error) => error,
    };
    let journals = journal::read_all(&database, false).unwrap_or_default();
    // Where nothing was ever written nothing is damaged: the disk is full, or may not be written to.
    if journals.is_empty() {
        return Err(failed(error));
    }
    if on_damage == OnDamage::Refuse {
        return Err(OpenError::Damaged(format!("damage in {}: {error}", database.display())));
    }
    let aside = folder.move_away(&database).map_err(|error| OpenError::Io { what: database.clone(), error })?;
    tracing::error!(%error, copy = %aside.display(), "the database cannot be opened; it is put aside, and what its journals hold is saved");
    let base = Base::open(&database).map_err(failed)?;
    for journal in &journals {
        base.replay(journal).map_err(failed)?;
    }
    Ok((base, damaged.max(1)))
}

/// The number of this start: one more than the last, on disk before it is used.
fn next_epoch(base: &Base, on_damage: OnDamage) -> Result<u32, EngineError> {
    let key = keys::epoch();
    let read = base.get(&key).and_then(|value| match value {
        None => Ok(0),
        Some(value) => Reader::open(&key.bytes, &value)
            .and_then(|mut r| r.number())
            .map_err(|error| EngineError::other(error.to_string())),
    });
    let last = match read {
        Err(error) if on_damage == OnDamage::Salvage => {
            // The numbers that sessions and messages have tell of it; some starts may have left none.
            const MARGIN: u64 = 1_000;
            tracing::error!(%error, "the number of starts is damaged; it goes on well above what is known of it");
            (base.highest_number() >> NUMBER_BITS) + MARGIN
        }
        read => read?,
    };
    let epoch = u32::try_from(last + 1).map_err(|_| EngineError::other("the epochs are used up".into()))?;
    let mut w = Writer::record();
    w.number(epoch.into());
    let value = w.seal(&key.bytes);
    let mut batch = base.batch(1);
    batch.insert(base, key, value.into());
    batch.commit(Depth::Disk)?;
    Ok(epoch)
}

/// Where tests make the disk fail; empty in service.
#[derive(Debug, Default)]
struct FailPoint(Mutex<Option<&'static str>>);

impl FailPoint {
    fn check(&self, at: &'static str) -> Result<(), EngineError> {
        match *self.0.lock() {
            Some(armed) if armed == at => Err(EngineError::other(format!("rehearsed failure: {at}"))),
            _ => Ok(()),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the store measures its own disk, which tests cannot move either")]
fn instant() -> Instant {
    Instant::now()
}
