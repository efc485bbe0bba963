//! The engine's journals, read by ourselves before it opens them. The engine stops at the first batch that is not
//! whole and drops all behind it; we find what is good on the other side, tell a torn tail from damage, and leave the
//! engine a journal that is whole.
//!
//! The format (fjall 3): a batch is `1, items u32, sequence u64`, its items, `3, xxh3 of the items u64, "FJL" 3`; an
//! item is `2, kind u8, compression u8, keyspace u64, key length u16, value length u32, stored length u32, key,
//! value` or `4, keyspace u64`. Numbers are little-endian. Behind the last batch the file is zeros.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    ops::Range,
    path::{Path, PathBuf},
};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";

/// What is wrong with a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The file.
    pub file: PathBuf,
    /// Where the first bad byte's batch begins.
    pub offset: u64,
    /// Bytes that cannot be kept.
    pub bytes: u64,
    /// What it means.
    pub kind: FlawKind,
}

/// How bad a flaw is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlawKind {
    /// The last write was not finished: what is missing was never acknowledged.
    TornTail,
    /// What was whole once is not any more.
    Damage,
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.kind {
            FlawKind::TornTail => "torn tail",
            FlawKind::Damage => "damage",
        };
        write!(f, "{what} in {} at offset {}, {} bytes", self.file.display(), self.offset, self.bytes)
    }
}

/// One journal as it was found.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) path: PathBuf,
    bytes: Vec<u8>,
    /// Runs of whole batches.
    good: Vec<Range<usize>>,
    pub(super) flaws: Vec<Flaw>,
}

/// An item of a journal, for those who read one themselves.
pub(super) struct Item<'a> {
    pub(super) keyspace: u64,
    pub(super) key: &'a [u8],
    /// `None`: removed.
    pub(super) value: Option<&'a [u8]>,
}

/// Reads all journals of a database, oldest first. With `stopped_clean` there is no excuse for a torn tail.
pub(super) fn read_all(database: &Path, stopped_clean: bool) -> io::Result<Vec<Journal>> {
    let mut numbered = Vec::new();
    let entries = match std::fs::read_dir(database) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|e| e == "jnl")) {
            numbered.push((number, path));
        }
    }
    numbered.sort();
    let last = numbered.len().saturating_sub(1);
    numbered
        .into_iter()
        .enumerate()
        .map(|(at, (_, path))| Ok(Journal::scan(std::fs::read(&path)?, path, at == last && !stopped_clean)))
        .collect()
}

/// Empties the journals of a database that is closed, and whose tables hold everything: the engine gives up a journal
/// only when it has grown to 64 MB.
pub(super) fn empty_all(database: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(database)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "jnl") {
            let file = OpenOptions::new().write(true).open(&path)?;
            file.set_len(0)?;
            file.sync_all()?;
        }
    }
    Ok(())
}

impl Journal {
    /// Finds what is whole. Only the tail of the journal that was being written `may_be_torn`.
    fn scan(bytes: Vec<u8>, path: PathBuf, may_be_torn: bool) -> Self {
        let (mut good, mut flaws, mut at) = (Vec::<Range<usize>>::new(), Vec::new(), 0);
        // Behind it there are only zeros: room the engine has taken ahead.
        let end = content_end(&bytes);
        while at < end {
            if let Some(length) = batch_length(&bytes[at..]) {
                match good.last_mut().filter(|run| run.end == at) {
                    Some(run) => run.end += length,
                    None => good.push(at..at + length),
                }
                at += length;
                continue;
            }
            let next = (at + 1..end).find(|next| bytes[*next] == START && batch_length(&bytes[*next..]).is_some());
            let kind = if next.is_none() && may_be_torn { FlawKind::TornTail } else { FlawKind::Damage };
            let until = next.unwrap_or(end);
            flaws.push(Flaw { file: path.clone(), offset: at as u64, bytes: (until - at) as u64, kind });
            at = until;
        }
        Self { path, bytes, good, flaws }
    }

    /// Writes the journal anew with what is whole, so that a crash meanwhile leaves the one or the other.
    pub(super) fn mend(&self) -> io::Result<()> {
        let mended = self.path.with_extension("mended");
        self.mend_into(&mended)?;
        std::fs::rename(&mended, &self.path)?;
        if let Some(folder) = self.path.parent() {
            OpenOptions::new().read(true).open(folder)?.sync_all()?;
        }
        Ok(())
    }

    /// Writes what is whole to another place.
    pub(super) fn mend_into(&self, place: &Path) -> io::Result<()> {
        let mut file = File::create(place)?;
        for run in &self.good {
            file.write_all(&self.bytes[run.clone()])?;
        }
        file.sync_all()
    }

    /// Shows the items of all whole batches, in order.
    pub(super) fn items(&self, mut visit: impl FnMut(Item<'_>)) {
        for run in &self.good {
            let mut rest = &self.bytes[run.clone()];
            while let Some(mut batch) = Batch::begin(rest) {
                while let Some(item) = batch.item() {
                    visit(item);
                }
                let Some(after) = batch.end() else { return };
                rest = after;
            }
        }
    }
}

/// Where the zeros behind the content begin. Block by block: most of a journal is room that is not used yet.
fn content_end(bytes: &[u8]) -> usize {
    const BLOCK: usize = 4_096;
    let used = bytes.rchunks(BLOCK).skip_while(|block| **block == [0; BLOCK][..block.len()]).map(<[u8]>::len).sum();
    bytes[..used].iter().rev().position(|byte| *byte != 0).map_or(0, |zeros| used - zeros)
}

/// The length of the batch these bytes begin with, if it is whole.
fn batch_length(bytes: &[u8]) -> Option<usize> {
    let mut batch = Batch::begin(bytes)?;
    while batch.left > 0 {
        batch.item()?;
    }
    let rest = batch.end()?;
    Some(bytes.len() - rest.len())
}

struct Batch<'a> {
    items: &'a [u8],
    rest: &'a [u8],
    left: u32,
}

impl<'a> Batch<'a> {
    fn begin(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let (START, left, _) = (byte(&mut rest)?, u32::from_le_bytes(take(&mut rest)?), take::<8>(&mut rest)?) else {
            return None;
        };
        Some(Self { items: rest, rest, left })
    }

    fn item(&mut self) -> Option<Item<'a>> {
        self.left = self.left.checked_sub(1)?;
        let rest = &mut self.rest;
        match byte(rest)? {
            ITEM => {
                let (kind, compression) = (byte(rest)?, byte(rest)?);
                let keyspace = u64::from_le_bytes(take(rest)?);
                let key = usize::from(u16::from_le_bytes(take(rest)?));
                let length = u32::from_le_bytes(take(rest)?);
                let stored = u32::from_le_bytes(take(rest)?);
                if kind > 2 || compression != 0 || length != stored {
                    return None;
                }
                let key = slice(rest, key)?;
                let value = slice(rest, usize::try_from(stored).ok()?)?;
                Some(Item { keyspace, key, value: (kind == 0).then_some(value) })
            }
            CLEAR => Some(Item { keyspace: u64::from_le_bytes(take(rest)?), key: &[], value: None }),
            _ => None,
        }
    }

    /// What follows the batch, if it ended as it should.
    fn end(mut self) -> Option<&'a [u8]> {
        let items = &self.items[..self.items.len() - self.rest.len()];
        let rest = &mut self.rest;
        let whole = byte(rest)? == END
            && u64::from_le_bytes(take(rest)?) == xxhash_rust::xxh3::xxh3_64(items)
            && take(rest)? == TRAILER;
        whole.then_some(self.rest)
    }
}

fn slice<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (first, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(first)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

fn byte(bytes: &mut &[u8]) -> Option<u8> {
    take::<1>(bytes).map(|[byte]| byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A batch with one item, as the engine writes it.
    fn batch(sequence: u64, value: &[u8]) -> Vec<u8> {
        let mut item = vec![ITEM, 0, 0];
        item.extend_from_slice(&3u64.to_le_bytes());
        item.extend_from_slice(&1u16.to_le_bytes());
        for _ in 0..2 {
            item.extend_from_slice(&u32::try_from(value.len()).unwrap().to_le_bytes());
        }
        item.push(b'k');
        item.extend_from_slice(value);
        let mut out = vec![START];
        out.extend_from_slice(&1u32.to_le_bytes());
        out.extend_from_slice(&sequence.to_le_bytes());
        out.extend_from_slice(&item);
        out.push(END);
        out.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&item).to_le_bytes());
        out.extend_from_slice(&TRAILER);
        out
    }

    fn journal(batches: u8) -> (Vec<u8>, usize) {
        let batches: Vec<_> = (0..batches).map(|n| batch(n.into(), &[n; 5])).collect();
        let length = batches[0].len();
        let mut bytes = batches.concat();
        bytes.resize(bytes.len() + 100, 0);
        (bytes, length)
    }

    fn values(journal: &Journal) -> Vec<u8> {
        let mut out = Vec::new();
        journal.items(|item| out.extend(item.value.and_then(|value| value.first())));
        out
    }

    #[test]
    fn a_whole_journal_has_no_flaw_and_the_room_behind_it_is_none() {
        let journal = Journal::scan(journal(3).0, "1.jnl".into(), true);
        assert!(journal.flaws.is_empty());
        assert_eq!(values(&journal), [0, 1, 2]);
    }

    #[test]
    fn a_cut_anywhere_in_the_last_batch_is_a_torn_tail() {
        let (bytes, length) = journal(3);
        for cut in 2 * length + 1..3 * length {
            let found = Journal::scan(bytes[..cut].to_vec(), "1.jnl".into(), true);
            let [flaw] = &found.flaws[..] else { panic!("one flaw at {cut}") };
            assert_eq!((flaw.kind, flaw.offset), (FlawKind::TornTail, 2 * length as u64));
            assert_eq!(values(&found), [0, 1]);
            // A server that stopped in order has no torn tail.
            let found = Journal::scan(bytes[..cut].to_vec(), "1.jnl".into(), false);
            assert_eq!(found.flaws[0].kind, FlawKind::Damage);
        }
    }

    proptest! {
        #[test]
        fn one_flipped_bit_costs_one_batch(at in 0usize..4 * 55, bit in 0u8..8) {
            let (mut bytes, length) = journal(5);
            let at = at.min(4 * length - 1);
            // A sequence number is under no checksum: the engine's own gap.
            prop_assume!(!(5..13).contains(&(at % length)));
            bytes[at] ^= 1 << bit;
            let found = Journal::scan(bytes, "1.jnl".into(), true);
            let hit = u8::try_from(at / length).unwrap();
            prop_assert_eq!(found.flaws.len(), 1);
            prop_assert_eq!((found.flaws[0].kind, found.flaws[0].offset), (FlawKind::Damage, u64::from(hit) * length as u64));
            prop_assert_eq!(values(&found), (0..5).filter(|n| *n != hit).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(0u8..5, 0..200)) {
            let found = Journal::scan(bytes, "1.jnl".into(), true);
            found.items(|_| ());
        }
    }
}
