//! A store for tests: forgets what was not synced, fails on demand.

use super::{
    Health, Listener, Lying, Page, PageWanted, Placed, Promise, Record, Recovery, SessionKey, Standing, Store,
    StoreUnavailable, Trouble,
};
use crate::{
    link::{Cursor, Lsn},
    message::Message,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

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
    /// Pages that were asked for.
    pages: Vec<(PageWanted, Answer)>,
    /// Messages that cannot be read any more.
    damaged: HashSet<Vec<u8>>,
}

type Answer = Box<dyn FnOnce(Page) + Send>;

impl Disk {
    /// What lies in the queues, as far as it is synced.
    fn places(&self) -> BTreeMap<(SessionKey, Cursor), (Message, Placed)> {
        let mut places = BTreeMap::new();
        let synced = usize::try_from(self.synced).unwrap_or(usize::MAX);
        for record in self.batches.iter().take(synced).flatten() {
            match record {
                Record::Stored { message, places: new, .. } => {
                    places.extend(new.iter().map(|p| ((p.session, p.cursor), (message.clone(), p.clone()))));
                }
                Record::Settled(session, cursor, _) => drop(places.remove(&(*session, *cursor))),
                Record::Gone { session, first, count } => {
                    for cursor in first.0..first.0 + count {
                        places.remove(&(*session, Cursor(cursor)));
                    }
                }
                Record::Ended(session) => places.retain(|(owner, _), _| owner != session),
                _ => {}
            }
        }
        places
    }

    fn read(&self, wanted: PageWanted) -> Page {
        let (mut through, mut messages, mut bytes) = (wanted.through, Vec::new(), 0);
        let range = (wanted.session, Cursor(wanted.after.0 + 1))..=(wanted.session, wanted.through);
        for ((_, cursor), (message, place)) in self.places().range(range) {
            bytes += message.cost() as u64;
            if bytes > wanted.bytes && !messages.is_empty() {
                through = Cursor(cursor.0 - 1);
                break;
            }
            if !self.damaged.contains(message.payload()) {
                messages.push((message.clone(), place.clone()));
            }
        }
        Page { through, messages }
    }
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

    /// Reads the pages that were asked for; gives how many.
    pub fn turn_pages(&self) -> usize {
        let asked = std::mem::take(&mut self.0.lock().pages);
        let count = asked.len();
        for (wanted, answer) in asked {
            let page = self.0.lock().read(wanted);
            answer(page);
        }
        count
    }

    /// Messages with this payload cannot be read from the disk any more.
    pub fn damage(&self, payload: &[u8]) {
        self.0.lock().damaged.insert(payload.to_vec());
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

    fn recover(&self, recovery: &mut dyn Recovery) {
        let (batches, places) = {
            let disk = self.0.lock();
            (disk.batches.clone(), disk.places())
        };
        for mut record in batches.into_iter().flatten() {
            if let Record::Stored { places, .. } = &mut record {
                places.clear();
            }
            recovery.apply(record);
        }
        for ((session, cursor), (message, place)) in places {
            let (cost, shared) = (message.cost() as u64, place.shared.is_some());
            if recovery.wants(Lying { session, cursor, cost, shared }) {
                recovery.apply(Record::Stored { message, places: vec![place], incoming: None, retained: false });
            }
        }
    }

    fn page(&self, wanted: PageWanted, answer: Box<dyn FnOnce(Page) + Send>) {
        self.0.lock().pages.push((wanted, answer));
    }

    fn health(&self) -> Health {
        let trouble = self.0.lock().down.then_some(Trouble::Full);
        Health { promise: Promise::Power, trouble, bytes: 0, damaged: 0 }
    }
}
