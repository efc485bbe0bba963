//! Keeps nothing: what is acknowledged is as safe as the process.

use super::{Health, Listener, Page, PageWanted, Promise, Record, Recovery, Standing, Store, StoreUnavailable};
use crate::{clock::Time, link::Lsn};
use std::sync::Arc;

/// The store of `data_dir = ""`.
#[derive(Debug)]
pub struct Memory {
    epoch: u32,
}

impl Memory {
    /// A store that begins `now`: with nothing kept, the time tells one start from the next.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self { epoch: u32::try_from(now.0 / 1_000 % (1 << EPOCH_BITS)).unwrap_or(0) }
    }
}

/// Numbers that leave the server have this many bits of epoch above forty of their own.
pub(crate) const EPOCH_BITS: u32 = 24;

impl Store for Memory {
    fn keeps(&self) -> bool {
        false
    }

    fn append(&self, records: &mut Vec<Record>) -> Result<Lsn, StoreUnavailable> {
        records.clear();
        Ok(Lsn::default())
    }

    fn append_lazily(&self, records: &mut Vec<Record>) -> Lsn {
        records.clear();
        Lsn::default()
    }

    fn standing(&self) -> Standing {
        Standing::Open
    }

    fn durable(&self) -> Lsn {
        Lsn::default()
    }

    fn has_room(&self) -> bool {
        true
    }

    fn listen(&self, _: Arc<dyn Listener>) {}

    fn epoch(&self) -> u32 {
        self.epoch
    }

    fn recover(&self, _: &mut dyn Recovery) {}

    fn page(&self, _: PageWanted, _: Box<dyn FnOnce(Page) + Send>) {}

    fn health(&self) -> Health {
        Health { promise: Promise::Connection, trouble: None, bytes: 0, damaged: 0 }
    }
}
