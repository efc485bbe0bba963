//! The one thread that writes. It takes whatever waits, commits it as one group, moves the durable position and lets
//! the acknowledgements go. When the disk fails it opens the database anew every second and writes again what waited;
//! it never tries again on a handle that failed.

use super::{
    Inbox, OnDamage, Pending, Shared, Sync,
    base::{Base, Depth, EngineError},
    group::{Group, Index, Past},
    instant, journal, rebuild, recover,
};
use crate::{
    link::{Lsn, Subscription},
    message::Will,
    store::{Placed, Record, Trouble},
};
use parking_lot::MutexGuard;
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// Most records of one group, and most bytes: past them a larger group gains nothing.
const GROUP_RECORDS: usize = 4_096;
const GROUP_BYTES: u64 = 1 << 20;

/// Less than the system sleeps for at least.
const SHORT: Duration = Duration::from_micros(200);

/// Between two looks at the disk: is there space, is it back, can it be opened again.
const TICK: Duration = Duration::from_secs(1);

/// Removed records after which space is given back.
const COMPACT_AFTER: u64 = 100_000;

pub(super) struct Committer {
    shared: Arc<Shared>,
    index: Index,
    /// `None`: the store is down.
    base: Option<Arc<Base>>,
    /// Up to here it is not known what a failed commit has written.
    unknown: Lsn,
    last_sync: Duration,
    /// Bytes of the last group, until its clients had time to come back.
    released: u64,
    ticked: Instant,
    /// Bytes that may still be written until it is time to look for space.
    room: u64,
    /// How far space was sought since it was found wanting.
    search: Search,
    /// Committed, and not yet on disk (`sync = "interval"`).
    unsynced: Option<Instant>,
}

/// What is done, one after the other, while there is no space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    /// What was removed is merged away.
    Compacting,
    /// Then, or at first if they are large, the journals are emptied.
    Emptied,
    /// Merging that found no space itself has some now. After that it is for what is removed from then on.
    Over,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, base: Option<Arc<Base>>, index: Index) -> Self {
        let (unknown, last_sync) = (Lsn::default(), Duration::ZERO);
        Self {
            shared,
            index,
            base,
            unknown,
            last_sync,
            released: 0,
            ticked: long_ago(),
            room: 0,
            search: Search::Over,
            unsynced: None,
        }
    }

    /// Works until the store is closed; gives whether everything was written.
    pub(super) fn run(mut self) -> bool {
        loop {
            let (mut group, stopping) = self.wait();
            let idle = group.is_empty();
            self.tick();
            match self.base.clone() {
                Some(base) => {
                    let done = self.commit(&base, &mut group).and_then(|()| self.housekeep(&base, idle || stopping));
                    if let Err(error) = done {
                        self.fail(&error);
                    }
                }
                None if stopping => self.reopen(),
                None => {}
            }
            let waits = self.put_back(group);
            if stopping && (!waits || self.base.is_none()) {
                let synced = self.base.take().is_some_and(|base| base.sync().is_ok());
                self.shared.base.lock().take();
                return synced && !waits;
            }
        }
    }

    /// Waits for work, and for what is to make one group with it.
    fn wait(&mut self) -> (VecDeque<Pending>, bool) {
        let mut inbox = self.shared.inbox.lock();
        let whole = inbox.bytes + std::mem::take(&mut self.released);
        let down = self.base.is_none();
        let pause = self.pause();
        if (inbox.batches.is_empty() || down) && !inbox.stopping && !pause.is_zero() {
            self.sleep(&mut inbox, 0, pause);
        }
        if down {
            return (VecDeque::new(), inbox.stopping);
        }
        self.gather(&mut inbox, whole);
        (inbox.take_group(), inbox.stopping)
    }

    /// Clients that had their acknowledgements just now come back together, and are to make one group with what waits
    /// already, not two that take turns and twice the time. Not for long: until the whole of both is there, no more
    /// of it comes, or a tenth of the last sync's time is over.
    fn gather(&self, inbox: &mut MutexGuard<'_, Inbox>, whole: u64) {
        let (patience, began) = (self.last_sync / 10, instant());
        while inbox.bytes < whole && !inbox.batches.is_empty() && began.elapsed() < patience {
            if patience < SHORT {
                MutexGuard::unlocked(inbox, std::thread::yield_now);
                continue;
            }
            let before = inbox.bytes;
            self.sleep(inbox, whole, patience / 2);
            if inbox.bytes == before {
                break;
            }
        }
    }

    /// Until so many bytes wait.
    fn sleep(&self, inbox: &mut MutexGuard<'_, Inbox>, bytes: u64, most: Duration) {
        inbox.wake_at = Some(bytes);
        self.shared.wake.wait_for(inbox, most);
        inbox.wake_at = None;
    }

    fn pause(&self) -> Duration {
        if self.base.is_some() && !self.index.ended.is_empty() {
            return Duration::ZERO;
        }
        let until_tick = TICK.saturating_sub(self.ticked.elapsed());
        match (self.shared.settings.sync, self.unsynced) {
            (Sync::Interval(every), Some(since)) => until_tick.min(every.saturating_sub(since.elapsed())),
            _ => until_tick,
        }
    }

    /// Writes the group, durable batch by durable batch as far as sweeps need it. What is done leaves the group.
    fn commit(&mut self, base: &Arc<Base>, group: &mut VecDeque<Pending>) -> Result<(), EngineError> {
        while let Some(first) = group.front() {
            if self.index.must_sweep(&first.records) {
                while !self.sweep(base)? {}
            }
            let mut changes = Group::with_room(group.iter().map(|pending| pending.records.len()).sum());
            let mut taken = 0;
            for pending in group.iter() {
                if taken > 0 && self.index.must_sweep(&pending.records) {
                    break;
                }
                let past = if pending.lsn <= self.unknown { Past::Unknown } else { Past::Unsaid };
                for record in &pending.records {
                    self.index.add(record, &mut changes, base, past)?;
                }
                taken += 1;
            }
            self.write(base, changes)?;
            let (mut lsn, mut bytes) = (Lsn::default(), 0);
            for pending in group.range(..taken) {
                (lsn, bytes) = (pending.lsn, bytes + pending.bytes);
            }
            // Space is looked for now and then; in between not more than this is taken.
            self.room = self.room.saturating_sub(bytes);
            if self.room == 0 {
                self.ticked = long_ago();
            }
            self.shared.durable.store(lsn.0, Ordering::Release);
            self.shared.release(bytes);
            let listener = self.shared.listener.lock().clone();
            if let Some(listener) = &listener {
                listener.durable(lsn);
            }
            self.shared.committed.notify_all();
            self.released = bytes;
            // Freed only now, when nobody waits any more.
            group.drain(..taken);
        }
        Ok(())
    }

    /// One commit, as deep as the settings promise.
    fn write(&mut self, base: &Base, changes: Group) -> Result<(), EngineError> {
        self.shared.fail_point.check("commit")?;
        if changes.is_empty() {
            return Ok(());
        }
        let always = self.shared.settings.sync == Sync::Always;
        let began = instant();
        let batch = changes.into_batch(base);
        // A panic of the engine is a failure like any other: what it leaves behind is dropped with its handle.
        let written = catch_unwind(AssertUnwindSafe(|| batch.commit(if always { Depth::Disk } else { Depth::System })));
        written.unwrap_or_else(|_| Err(EngineError::panicked()))?;
        self.shared.fail_point.check("committed")?;
        if always {
            self.last_sync = began.elapsed();
        } else {
            self.unsynced.get_or_insert(began);
        }
        Ok(())
    }

    /// What is done beside the groups: syncs in time, the rest of ended sessions, space.
    fn housekeep(&mut self, base: &Arc<Base>, idle: bool) -> Result<(), EngineError> {
        if let (Sync::Interval(every), Some(since)) = (self.shared.settings.sync, self.unsynced)
            && since.elapsed() >= every
        {
            self.shared.fail_point.check("sync")?;
            base.sync()?;
            self.unsynced = None;
        }
        if !self.index.ended.is_empty() {
            self.sweep(base)?;
        }
        if idle && self.index.removed >= COMPACT_AFTER {
            self.index.removed = 0;
            self.shared.compact(base);
        }
        Ok(())
    }

    /// Removes some of what ended sessions left; `true` when nothing is left.
    fn sweep(&mut self, base: &Base) -> Result<bool, EngineError> {
        let changes = self.index.sweep(base);
        let done = self.index.ended.is_empty();
        if !changes.is_empty() {
            changes.into_batch(base).commit(Depth::System)?;
        }
        Ok(done)
    }

    /// What was taken and not written goes to the front again. Gives whether anything waits.
    fn put_back(&self, mut group: VecDeque<Pending>) -> bool {
        let mut inbox = self.shared.inbox.lock();
        if !group.is_empty() {
            group.append(&mut inbox.batches);
            inbox.batches = group;
        }
        !inbox.batches.is_empty()
    }

    /// The disk refused. From here on nothing is accepted; what was goes on waiting.
    fn fail(&mut self, error: &EngineError) {
        tracing::error!(%error, folder = %self.shared.folder.path().display(), "the store cannot write; nothing of QoS 1 or 2 is acknowledged until it can");
        self.base = None;
        self.shared.base.lock().take();
        self.unsynced = None;
        let mut inbox = self.shared.inbox.lock();
        inbox.refuses = Some(Trouble::Failing(error.to_string()));
        // Everything given out so far may be on disk or not.
        self.unknown = Lsn(inbox.last);
        drop(inbox);
        // If it was for want of space, acknowledgements and deletes go on with this.
        self.shared.folder.release_reserve();
        self.ticked = long_ago();
    }

    fn tick(&mut self) {
        if self.ticked.elapsed() < TICK {
            return;
        }
        self.ticked = instant();
        if self.base.is_none() {
            self.reopen();
        }
        let size = self.shared.folder.size();
        self.shared.size.store(size, Ordering::Relaxed);
        if self.base.is_some() {
            self.look_for_space(size);
        }
    }

    /// Refuses while there is no space, accepts again when there is.
    fn look_for_space(&mut self, size: u64) {
        let limit = self.shared.settings.max_bytes;
        let space = limit.saturating_sub(size).min(self.shared.folder.restore_reserve());
        let full = space == 0;
        // What is written lies in the journal and in a table, and merging needs as much again.
        self.room = space / 4;
        let busy = self.shared.compacting.load(Ordering::Acquire);
        let journals_are_large = self.shared.folder.journals() > size / 8;
        match self.base.clone().filter(|_| full && !busy) {
            // What was removed still takes space.
            Some(base) if self.index.removed > 0 && !journals_are_large => {
                self.index.removed = 0;
                self.search = Search::Compacting;
                self.shared.compact(&base);
            }
            Some(base) if self.search == Search::Compacting || journals_are_large => self.empty_journals(base),
            Some(base) if self.search == Search::Emptied => {
                self.search = Search::Over;
                self.shared.compact(&base);
            }
            _ => {}
        }
        let mut inbox = self.shared.inbox.lock();
        let waits = inbox.batches.iter().any(|batch| batch.lsn <= self.unknown);
        match (full, &inbox.refuses) {
            (true, None | Some(Trouble::Failing(_))) => {
                tracing::error!(
                    size,
                    limit,
                    "the disk or the data folder is full; messages that must be kept are refused until there is space"
                );
                inbox.refuses = Some(Trouble::Full);
            }
            (false, Some(_)) if !waits => {
                inbox.refuses = None;
                drop(inbox);
                tracing::info!("the store writes again");
                if let Some(listener) = self.shared.listener.lock().clone() {
                    listener.available();
                }
            }
            _ => {}
        }
    }

    /// When nothing else gives space: journals whose content is in tables.
    fn empty_journals(&mut self, base: Arc<Base>) {
        self.base = None;
        self.shared.base.lock().take();
        // Whoever reads from it is done soon; the next look finds it free.
        let emptied = match Arc::try_unwrap(base) {
            Ok(base) => {
                let written_out = base.write_out();
                drop(base);
                written_out.is_ok_and(|done| done) && journal::empty_all(&self.shared.folder.database()).is_ok()
            }
            Err(base) => {
                *self.shared.base.lock() = Some(base.clone());
                self.base = Some(base);
                return;
            }
        };
        tracing::info!(emptied, "journals given back");
        self.reopen();
        (self.index.removed, self.search) = (0, Search::Emptied);
    }

    /// A new handle, and what the database holds counted anew.
    fn reopen(&mut self) {
        let opened = self.shared.fail_point.check("open").and_then(|()| Base::open(&self.shared.folder.database()));
        let counted = opened.and_then(|base| match recover::count(&base) {
            Ok(index) => Ok((index, base)),
            Err(_) if self.shared.settings.on_damage == OnDamage::Salvage => {
                self.shared.damaged.fetch_add(1, Ordering::Relaxed);
                let base = rebuild::rebuild(&self.shared.folder, base)?;
                Ok((recover::count(&base)?, base))
            }
            Err(error) => Err(error),
        });
        match counted {
            Ok((index, base)) => {
                self.index = index;
                // What was removed before is not known any more: if there is no space, it is to be sought.
                self.index.removed = 1;
                let base = Arc::new(base);
                *self.shared.base.lock() = Some(base.clone());
                self.base = Some(base);
                tracing::info!("the store is open again");
            }
            Err(error) => tracing::warn!(%error, "the store cannot be opened again yet"),
        }
    }
}

impl Inbox {
    /// The next group: whole batches, within the bounds as far as one batch is.
    fn take_group(&mut self) -> VecDeque<Pending> {
        let (mut records, mut bytes) = (0, 0);
        let fits = |pending: &&Pending| {
            let first = records == 0;
            records += pending.records.len();
            bytes += pending.bytes;
            first || (records <= GROUP_RECORDS && bytes <= GROUP_BYTES)
        };
        let count = self.batches.iter().take_while(fits).count();
        self.batches.drain(..count).collect()
    }
}

/// Due at once.
fn long_ago() -> Instant {
    let now = instant();
    now.checked_sub(TICK).unwrap_or(now)
}

/// What a record weighs against the budgets: its own bytes, and those it alone holds.
pub(super) fn weight(record: &Record) -> u64 {
    let own = size_of::<Record>();
    let more = match record {
        Record::Stored { message, places, .. } => places.len() * size_of::<Placed>() + message.cost(),
        Record::Session { client, owner, .. } => client.as_str().len() + owner.as_ref().map_or(0, |name| name.len()),
        Record::Subscribed(_, Subscription { filter, .. }) | Record::Unsubscribed(_, filter) => filter.as_str().len(),
        Record::Cleared(topic) => topic.as_str().len(),
        Record::Will(_, Some(will)) => size_of::<Will>() + will.topic.as_str().len() + will.payload.len(),
        Record::Kept { document: Some(document), .. } => document.len(),
        _ => 0,
    };
    (own + more) as u64
}
