//! The database under the store: fjall, opened with measured settings, and scans that go round damage.

use super::{
    codec::Reader,
    journal::Journal,
    keys::{Key, Space},
    recover,
};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, UserValue};
use std::{
    ops::Bound::{Included, Unbounded},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

/// What the storage engine says when it cannot.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(super) struct EngineError(String);

impl EngineError {
    pub(super) fn other(why: String) -> Self {
        Self(why)
    }

    pub(super) fn panicked() -> Self {
        Self("the storage engine broke down".into())
    }
}

impl From<std::io::Error> for EngineError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<fjall::Error> for EngineError {
    fn from(error: fjall::Error) -> Self {
        Self(match error {
            fjall::Error::Io(error) => error.to_string(),
            fjall::Error::Poisoned => "a background write failed".into(),
            other => format!("{other:?}"),
        })
    }
}

/// The open database.
pub(super) struct Base {
    database: Database,
    spaces: [Keyspace; Space::ALL.len()],
}

/// Changes that become durable as one.
pub(super) struct Batch(fjall::OwnedWriteBatch);

/// How far a commit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// To the operating system: survives the process.
    System,
    /// To the disk: survives the power.
    Disk,
}

impl Depth {
    fn mode(self) -> PersistMode {
        match self {
            Self::System => PersistMode::Buffer,
            Self::Disk => PersistMode::SyncData,
        }
    }
}

/// What a scan had to leave out.
#[derive(Debug, Default, Clone)]
pub(super) struct Gap {
    /// What the engine said.
    pub(super) error: Option<EngineError>,
}

/// Which end a range is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Forwards,
    Backwards,
}

fn walk(
    items: impl Iterator<Item = fjall::Guard>,
    mut visit: impl FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), EngineError> {
    for item in items {
        let (key, value) = item.into_inner()?;
        if !visit(&key, &value) {
            break;
        }
    }
    Ok(())
}

impl Base {
    /// Opens or makes the database in `folder`. Damage that makes the engine panic is an error like any other.
    pub(super) fn open(folder: &Path) -> Result<Self, EngineError> {
        let opened = catch_unwind(AssertUnwindSafe(|| -> fjall::Result<Self> {
            // One worker: flushing keeps up, and memory stays small. The sizes are those measured best for bursts of
            // small messages: at most 8 MiB a table in memory, 64 MiB of journal (the engine's least). On a small disk
            // a table fits into what is left free when it counts as full.
            let most = super::folder::reserve_on(folder.parent().unwrap_or(folder));
            let database = Database::builder(folder)
                .worker_threads(1)
                .cache_size(16 << 20)
                .max_journaling_size(64 << 20)
                .open()?;
            let open = |space: Space| {
                let table = if space == Space::Queues || space == Space::Messages { 8 << 20 } else { 2 << 20 };
                let table = most.map_or(table, |most| most.max(64 << 10).min(table));
                database.keyspace(space.name(), || KeyspaceCreateOptions::default().max_memtable_size(table))
            };
            let spaces = [
                open(Space::Meta)?,
                open(Space::Sessions)?,
                open(Space::Queues)?,
                open(Space::Messages)?,
                open(Space::Retained)?,
            ];
            Ok(Self { database, spaces })
        }));
        match opened {
            Ok(opened) => Ok(opened?),
            Err(_) => Err(EngineError("its files are damaged beyond what the engine can read".into())),
        }
    }

    fn space(&self, space: Space) -> &Keyspace {
        &self.spaces[space as usize]
    }

    /// An empty batch, with room for so many changes.
    pub(super) fn batch(&self, changes: usize) -> Batch {
        Batch(fjall::OwnedWriteBatch::with_capacity(self.database.clone(), changes))
    }

    pub(super) fn get(&self, key: &Key) -> Result<Option<UserValue>, EngineError> {
        Ok(self.space(key.space).get(&key.bytes)?)
    }

    /// Waits until everything committed is on disk.
    pub(super) fn sync(&self) -> Result<(), EngineError> {
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    /// Shows keys and values from `from` on, in order, until `visit` says `false`. Where a block of a file is damaged
    /// the scan goes on behind it: what lies there is lost, and told.
    pub(super) fn scan(&self, space: Space, from: &[u8], mut visit: impl FnMut(&[u8], &[u8]) -> bool) -> Gap {
        let (mut gap, mut from) = (Gap::default(), from.to_vec());
        loop {
            let mut reached = from.clone();
            let walked = walk(self.items_from(space, &from), |key, value| {
                key.clone_into(&mut reached);
                visit(key, value)
            });
            let Err(error) = walked else { return gap };
            gap.error.get_or_insert(error);
            match self.readable_behind(space, &reached) {
                Some(next) => from = next,
                None => return gap,
            }
        }
    }

    /// The first key, by its first sixteen bytes, from which on something can be read again, or nothing is there.
    fn readable_behind(&self, space: Space, key: &[u8]) -> Option<Vec<u8>> {
        let mut prefix = [0; size_of::<u128>()];
        let known = key.len().min(prefix.len());
        prefix[..known].copy_from_slice(&key[..known]);
        let readable = |key: u128| {
            !matches!(self.items_from(space, &key.to_be_bytes()).next().map(fjall::Guard::into_inner), Some(Err(_)))
        };
        let (mut damaged, mut good) = (u128::from_be_bytes(prefix), u128::MAX);
        if damaged == good || !readable(good) {
            return None;
        }
        while good - damaged > 1 {
            let middle = damaged + (good - damaged) / 2;
            *(if readable(middle) { &mut good } else { &mut damaged }) = middle;
        }
        Some(good.to_be_bytes().to_vec())
    }

    fn items_from(&self, space: Space, key: &[u8]) -> fjall::Iter {
        self.space(space).range::<&[u8], _>((Included(key), Unbounded))
    }

    /// Shows keys and values from `first` through `last`, in order or backwards, until `visit` says `false`.
    ///
    /// # Errors
    /// Something that lies there cannot be read.
    pub(super) fn range(
        &self,
        first: &Key,
        last: &Key,
        way: Way,
        visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), EngineError> {
        let keyspace = self.space(first.space);
        let items = keyspace.range::<&[u8], _>((Included(&*first.bytes), Included(&*last.bytes)));
        match way {
            Way::Forwards => walk(items, visit),
            Way::Backwards => walk(items.rev(), visit),
        }
    }

    /// The highest number that a session or a message has by its key.
    pub(super) fn highest_number(&self) -> u64 {
        let mut highest = 0;
        for space in [Space::Sessions, Space::Queues, Space::Messages] {
            let Gap { .. } = self.scan(space, &[], |key, _| {
                highest = key.first_chunk().map_or(highest, |number| u64::from_be_bytes(*number).max(highest));
                true
            });
        }
        highest
    }

    /// Writes all that is whole in another database.
    pub(super) fn take_over(&self, other: &Self) -> Result<(), EngineError> {
        const BATCH: usize = 4_096;
        for space in Space::ALL {
            let mut batch = self.batch(BATCH);
            let (mut held, mut written) = (0, Ok(()));
            let Gap { .. } = other.scan(space, &[], |key, value| {
                let whole = match space {
                    // With the message, wherever it is.
                    Space::Queues => recover::place_of(key, value, |id| recover::body_of(other, id)).is_ok(),
                    _ => Reader::open(key, value).is_ok(),
                };
                if whole {
                    batch.insert(self, Key { space, bytes: key.into() }, value.into());
                    held += 1;
                }
                if held == BATCH {
                    held = 0;
                    written = std::mem::replace(&mut batch, self.batch(BATCH)).commit(Depth::System);
                }
                written.is_ok()
            });
            written?;
            batch.commit(Depth::Disk)?;
        }
        Ok(())
    }

    /// Writes what the journal of a lost database holds. The spaces were made in the same order, so they have the same
    /// numbers.
    pub(super) fn replay(&self, journal: &Journal) -> Result<(), EngineError> {
        let mut batch = self.database.batch();
        journal.items(|item| {
            let Some(keyspace) = self.spaces.iter().find(|keyspace| keyspace.id() == item.keyspace) else { return };
            match item.value {
                Some(value) => batch.insert(keyspace, item.key, value),
                None => batch.remove(keyspace, item.key),
            }
        });
        Ok(batch.durability(Some(PersistMode::SyncData)).commit()?)
    }

    /// Gives space back: writes out what is in memory, so that journals can go, and merges away what was removed.
    /// Takes its time, and keeps the database open meanwhile.
    pub(super) fn compact(&self) -> Result<(), EngineError> {
        self.write_out()?;
        for space in [Space::Queues, Space::Messages, Space::Sessions] {
            self.space(space).major_compact()?;
        }
        // Files that were merged away are removed when the next table is written.
        self.write_out().map(drop)
    }

    /// Puts everything into tables; `false` if it did not come to an end.
    #[expect(clippy::disallowed_methods, reason = "the store's own threads may wait for the disk")]
    pub(super) fn write_out(&self) -> Result<bool, EngineError> {
        // The engine keeps what the last few commits removed, for readers who began before them: let these not be the
        // last.
        for _ in 0..2 {
            self.space(Space::Meta).insert(b"compacted", [])?;
        }
        for keyspace in &self.spaces {
            keyspace.rotate_memtable()?;
        }
        // Not for ever: where the disk fails nothing is ever written out.
        for turn in 1..=1_000 {
            if self.spaces.iter().all(|keyspace| keyspace.sealed_memtable_count() == 0) {
                return Ok(true);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            if turn % 25 == 0 {
                // Refused when the engine has given up.
                self.space(Space::Meta).insert(b"compacted", [])?;
            }
        }
        Ok(false)
    }
}

impl Batch {
    pub(super) fn insert(&mut self, base: &Base, key: Key, value: UserValue) {
        self.0.insert(base.space(key.space), key.bytes, value);
    }

    pub(super) fn remove(&mut self, base: &Base, key: Key) {
        self.0.remove(base.space(key.space), key.bytes);
    }

    pub(super) fn commit(self, depth: Depth) -> Result<(), EngineError> {
        Ok(self.0.durability(Some(depth.mode())).commit()?)
    }
}
