//! A store for tests: forgets what was not synced, fails on demand.

use super::{Health, Listener, Promise, Record, Standing, Store, StoreUnavailable, Trouble};
use crate::link::Lsn;
use parking_lot::Mutex;
use std::sync::Arc;

/// The disk under the tests' control. Clones are the same disk; [`Rehearsal::crash`] gives the disk of the next start.
#[derive(Clone, Default)]
pub struct Rehearsal(Arc<Mutex<Disk>>);

/// Most lazy records that wait while the store is down.
const MOST_LATE: usize = 100;

#[derive(Default)]
struct Disk {
    epoch: u32,
    /// Batches in order; the position of a batch is its number, counted from 1.
    batches: Vec<Vec<Record>>,
    synced: u64,
    down: bool,
    /// Lazy batches that came while the store was down.
    late: Vec<Record>,
    listener: Option<Arc<dyn Listener>>,
}

impl Rehearsal {
    /// Makes everything appended so far durable.
    pub fn sync(&self) {
        let (listener, lsn) = {
            let mut disk = self.0.lock();
            disk.synced = disk.batches.len() as u64;
            (disk.listener.clone(), Lsn(disk.synced))
        };
        if let Some(listener) = listener {
            listener.durable(lsn);
        }
    }

    /// From now on nothing can be written, or again.
    pub fn set_down(&self, down: bool) {
        let listener = {
            let mut disk = self.0.lock();
            disk.down = down;
            if !down && !disk.late.is_empty() {
                let late = std::mem::take(&mut disk.late);
                disk.batches.push(late);
            }
            disk.listener.clone()
        };
        if let Some(listener) = listener.filter(|_| !down) {
            listener.available();
        }
    }

    /// Lazy records that wait for the store to write again.
    pub fn late(&self) -> usize {
        self.0.lock().late.len()
    }

    /// Power fails: what was not synced is gone. The broker that wrote to the old disk is to be dropped.
    #[must_use]
    pub fn crash(&self) -> Self {
        let disk = self.0.lock();
        let kept = usize::try_from(disk.synced).unwrap_or(usize::MAX);
        let batches: Vec<_> = disk.batches.iter().take(kept).cloned().collect();
        Self(Arc::new(Mutex::new(Disk {
            epoch: disk.epoch + 1,
            synced: batches.len() as u64,
            batches,
            ..Disk::default()
        })))
    }
}

impl Store for Rehearsal {
    fn keeps(&self) -> bool {
        true
    }

    fn append(&self, records: &mut Vec<Record>) -> Result<Lsn, StoreUnavailable> {
        let mut disk = self.0.lock();
        if disk.down {
            return Err(StoreUnavailable);
        }
        disk.batches.push(std::mem::take(records));
        Ok(Lsn(disk.batches.len() as u64))
    }

    fn append_lazily(&self, records: &mut Vec<Record>) -> Lsn {
        let mut disk = self.0.lock();
        if disk.down {
            disk.late.append(records);
            // It will be the next batch, whoever writes it.
            return Lsn(disk.batches.len() as u64 + 1);
        }
        disk.batches.push(std::mem::take(records));
        Lsn(disk.batches.len() as u64)
    }

    fn standing(&self) -> Standing {
        let disk = self.0.lock();
        match disk.down {
            true if disk.late.len() >= MOST_LATE => Standing::Exhausted,
            true => Standing::Closed,
            false => Standing::Open,
        }
    }

    fn durable(&self) -> Lsn {
        Lsn(self.0.lock().synced)
    }

    fn has_room(&self) -> bool {
        true
    }

    fn listen(&self, listener: Arc<dyn Listener>) {
        self.0.lock().listener = Some(listener);
    }

    fn epoch(&self) -> u32 {
        self.0.lock().epoch
    }

    fn recover(&self, apply: &mut dyn FnMut(Record)) {
        let batches = self.0.lock().batches.clone();
        batches.into_iter().flatten().for_each(apply);
    }

    fn health(&self) -> Health {
        let trouble = self.0.lock().down.then_some(Trouble::Full);
        Health { promise: Promise::Power, trouble, bytes: 0, damaged: 0 }
    }
}
