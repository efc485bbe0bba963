//! The part of a queue that lies on disk alone, and a window on it: copies of the places that are looked at next.

use super::{
    queue::Entry,
    shelf::{Shelf, Unseen},
};
use crate::{clock::Time, link::Cursor};
use std::collections::VecDeque;

/// What leaves a queue.
#[derive(Debug)]
pub(crate) enum Gone {
    Entry(Entry),
    /// Places on disk that nobody has read.
    Unseen(Unseen),
}

/// Places between which entries in memory may stand, each where its cursor says. While one of them comes next in the
/// queue and is not in the window, nothing is handed out but QoS 0.
#[derive(Debug, Default)]
pub(crate) struct Beyond {
    /// All places that lie on disk alone, those in the window among them.
    shelf: Shelf,
    /// Consecutive places of the shelf. Bounded by half of `memory_per_session`, and a page of as much.
    window: VecDeque<Entry>,
    window_bytes: u64,
    /// No later than the oldest of them came.
    since: Time,
    /// A page is being read: one at a time.
    asked: bool,
    /// When more is durable, more is put here.
    pub(crate) waits: bool,
}

/// A page that is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// From just behind this place.
    pub(crate) after: Cursor,
    /// Up to this one.
    pub(crate) through: Cursor,
}

/// What became of a page that came.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// Bytes that are in memory now.
    pub(crate) added: u64,
    /// Bytes that are no more.
    pub(crate) freed: u64,
    /// Places whose messages cannot be read.
    pub(crate) lost: Vec<Unseen>,
}

impl Beyond {
    /// With places that a store has.
    pub(crate) fn new(shelf: Shelf, since: Time) -> Self {
        Self { shelf, since, ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.shelf.len()
    }

    /// Whether there is any reason to have it.
    pub(crate) fn is_idle(&self) -> bool {
        self.shelf.is_empty() && !self.asked && !self.waits
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked
    }

    /// The first place.
    pub(crate) fn first(&self) -> Option<Cursor> {
        self.shelf.first()
    }

    /// The last place.
    pub(crate) fn last(&self) -> Option<Cursor> {
        self.shelf.last()
    }

    /// What lies at the first place, if it was read.
    pub(crate) fn front(&self) -> Option<&Entry> {
        self.window.front().filter(|entry| Some(entry.cursor) == self.first())
    }

    /// No later than the first place was filled.
    pub(crate) fn oldest(&self) -> Option<Time> {
        self.first().map(|_| self.front().map_or(self.since, |entry| entry.message.time()))
    }

    /// Everything of the window after `cursor`.
    pub(crate) fn after(&self, cursor: Cursor) -> impl Iterator<Item = &Entry> {
        self.window.range(self.window.partition_point(|entry| entry.cursor <= cursor)..)
    }

    /// The first place after `cursor` that was not read: nothing from there on can be shown.
    pub(crate) fn wall(&self, cursor: Cursor) -> Option<Cursor> {
        let next = self.shelf.first_after(cursor)?;
        match self.window.back() {
            Some(back) if self.shows(next) => self.shelf.first_after(back.cursor),
            _ => Some(next),
        }
    }

    /// Whether a place of the shelf is in the window.
    fn shows(&self, place: Cursor) -> bool {
        self.window.front().is_some_and(|front| front.cursor <= place)
            && self.window.back().is_some_and(|back| place <= back.cursor)
    }

    /// Takes an entry that the store has: from here on its place is all that is known of it.
    pub(crate) fn put(&mut self, entry: &Entry, cost: u32) {
        if self.shelf.is_empty() {
            self.since = entry.message.time();
        }
        self.shelf.push(entry.cursor, cost);
    }

    pub(crate) fn pop(&mut self) -> Option<Gone> {
        match self.front() {
            Some(_) => self.pop_front().map(Gone::Entry),
            None => self.shelf.pop().map(Gone::Unseen),
        }
    }

    /// Takes out the first place, if it was read.
    pub(crate) fn pop_front(&mut self) -> Option<Entry> {
        self.front()?;
        self.shelf.pop()?;
        let entry = self.window.pop_front()?;
        self.since = entry.message.time();
        self.window_bytes -= entry.message.cost() as u64;
        Some(entry)
    }

    /// Takes out what was read, by its cursor.
    pub(crate) fn remove(&mut self, cursor: Cursor) -> Option<Entry> {
        let at = self.window.binary_search_by_key(&cursor, |entry| entry.cursor).ok()?;
        self.shelf.remove(cursor)?;
        let entry = self.window.remove(at)?;
        self.window_bytes -= entry.message.cost() as u64;
        Some(entry)
    }

    /// Takes out everything up to and including `cursor`.
    pub(crate) fn drain_through(&mut self, cursor: Cursor, mut each: impl FnMut(Gone)) {
        while self.first().is_some_and(|first| first <= cursor) {
            let gone = match self.window.front() {
                Some(_) if self.front().is_some() => self.pop_front().map(Gone::Entry),
                Some(front) => self.shelf.pop_through(cursor.min(Cursor(front.cursor.0 - 1))).map(Gone::Unseen),
                None => self.shelf.pop_through(cursor).map(Gone::Unseen),
            };
            match gone {
                Some(gone) => each(gone),
                None => return,
            }
        }
    }

    /// What lies up to `cursor` need not be looked at again soon: it leaves the window. Gives the bytes freed.
    pub(crate) fn pass(&mut self, cursor: Cursor) -> u64 {
        let before = self.window_bytes;
        while let Some(front) = self.window.pop_front_if(|front| front.cursor <= cursor) {
            self.window_bytes -= front.message.cost() as u64;
        }
        before - self.window_bytes
    }

    /// The page to read for who has seen everything up to `after`; `None`: none is needed yet. `ahead`: bytes that
    /// stand in memory before the first place after that.
    pub(crate) fn wanted(&mut self, after: Cursor, ahead: u64, enough: u64) -> Option<Wanted> {
        let next = self.shelf.first_after(after).filter(|_| !self.asked)?;
        let (from, ahead) = match self.window.back() {
            Some(back) if self.shows(next) => {
                let read: usize = self.after(after).map(|entry| entry.message.cost()).sum();
                (self.shelf.first_after(back.cursor)?, ahead + read as u64)
            }
            _ => (next, ahead),
        };
        if ahead > enough {
            return None;
        }
        self.asked = true;
        Some(Wanted { after: Cursor(from.0 - 1), through: self.shelf.last()? })
    }

    /// A page has come: what lies at the places after `after`, up to and including `through`.
    pub(crate) fn receive(&mut self, after: Cursor, through: Cursor, entries: Vec<Entry>) -> Received {
        let mut received = Received::default();
        self.asked = false;
        let follows =
            self.window.back().is_some_and(|back| self.shelf.first_after(back.cursor) == self.shelf.first_after(after));
        if !follows {
            received.freed = std::mem::take(&mut self.window_bytes);
            self.window.clear();
        }
        let mut seen = after;
        for entry in entries {
            self.lose_between(seen, entry.cursor, &mut received.lost);
            seen = entry.cursor;
            // What is done with meanwhile, or under way, is no place of the shelf.
            if self.shelf.contains(entry.cursor) {
                received.added += entry.message.cost() as u64;
                self.window.push_back(entry);
            }
        }
        self.lose_between(seen, Cursor(through.0.max(after.0 + 1).saturating_add(1)), &mut received.lost);
        self.window_bytes += received.added;
        received
    }

    /// Takes out the places after `seen` and before `next`.
    fn lose_between(&mut self, seen: Cursor, next: Cursor, lost: &mut Vec<Unseen>) {
        while let Some(first) = self.shelf.first_after(seen).filter(|place| *place < next) {
            let Some(cost) = self.shelf.remove(first) else { return };
            lost.push(Unseen { first, count: 1, bytes: cost.into() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::queue::tests::entry, *};

    /// Places 1 to 9, of which 5 is no place of this shelf.
    fn beyond() -> Beyond {
        let mut beyond = Beyond::default();
        [1, 2, 3, 4, 6, 7, 8, 9].into_iter().for_each(|at| beyond.put(&entry(at), 1));
        beyond
    }

    fn read(beyond: &mut Beyond, after: u64, cursors: &[u64]) -> Received {
        let through = Cursor(cursors.last().copied().unwrap_or(after));
        beyond.receive(Cursor(after), through, cursors.iter().map(|at| entry(*at)).collect())
    }

    fn wanted(beyond: &mut Beyond, after: u64) -> Option<Wanted> {
        beyond.wanted(Cursor(after), 0, 0)
    }

    #[test]
    fn one_page_at_a_time_follows_the_reader() {
        let mut beyond = beyond();
        let last = Cursor(9);
        assert_eq!(wanted(&mut beyond, 0), Some(Wanted { after: Cursor(0), through: last }));
        assert_eq!(wanted(&mut beyond, 0), None, "it is being read");
        assert_eq!((beyond.wall(Cursor(0)), beyond.front().is_none()), (Some(Cursor(1)), true));
        assert_eq!(read(&mut beyond, 0, &[1, 2, 3]).added, 3);
        assert_eq!(beyond.wall(Cursor(0)), Some(Cursor(4)));
        assert_eq!(beyond.front().map(|entry| entry.cursor), Some(Cursor(1)));
        assert_eq!(wanted(&mut beyond, 0), None, "there is enough");
        let behind = Wanted { after: Cursor(5), through: last };
        assert_eq!(beyond.wanted(Cursor(4), 0, 9), Some(behind), "a reader by cursor goes ahead");
        read(&mut beyond, 5, &[6, 7]);
        assert_eq!((beyond.wall(Cursor(4)), beyond.wall(Cursor(0))), (Some(Cursor(8)), Some(Cursor(1))));
        assert_eq!(beyond.wanted(Cursor(6), 0, 9), Some(Wanted { after: Cursor(7), through: last }));
        assert_eq!((beyond.pass(Cursor(6)), beyond.wall(Cursor(5))), (1, Some(Cursor(6))));
    }

    #[test]
    fn what_went_meanwhile_does_not_come_back_and_what_does_not_come_is_lost() {
        let mut beyond = beyond();
        wanted(&mut beyond, 0);
        assert!(matches!(beyond.pop(), Some(Gone::Unseen(Unseen { first: Cursor(1), count: 1, bytes: 1 }))));
        // 5 is under way; 3 and 6 cannot be read.
        let received = read(&mut beyond, 0, &[1, 2, 4, 5, 7]);
        let lost: Vec<u64> = received.lost.iter().map(|unseen| unseen.first.0).collect();
        assert_eq!((lost, received.added), (vec![3, 6], 3));
        let mut rest = Vec::new();
        beyond.drain_through(Cursor(8), |gone| match gone {
            Gone::Entry(entry) => rest.push((entry.cursor.0, 0)),
            Gone::Unseen(unseen) => rest.push((unseen.first.0, unseen.count)),
        });
        assert_eq!(rest, [(2, 0), (4, 0), (7, 0), (8, 1)]);
        assert_eq!((beyond.first(), beyond.len(), beyond.window_bytes), (Some(Cursor(9)), 1, 0));
    }
}
