//! What waits for one session: two lanes in the order of their cursors. QoS 0 has its own, so that a client that
//! does not acknowledge still gets it. Of a long lane of QoS 1 and 2 the most part lies on disk (`beyond`).

use super::{
    beyond::{Beyond, Gone, Received, Wanted},
    shelf::Shelf,
};
use crate::{
    clock::Time,
    link::{Cursor, Lsn},
    message::{Message, MessageId, Qos},
};
use std::{collections::VecDeque, num::NonZeroU32};
use triomphe::ThinArc;

/// Subscription identifiers, shared by all deliveries of one route; `None` in the common case.
pub(crate) type Identifiers = Option<ThinArc<(), NonZeroU32>>;

/// A message's place in a queue.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) message: Message,
    pub(crate) cursor: Cursor,
    pub(crate) identifiers: Identifiers,
    /// Where the journal holds it; zero when it is not kept.
    pub(crate) lsn: Lsn,
    /// The group of the shared subscription that it was queued for; zero for a subscription of the session's own.
    pub(crate) group: u32,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) footing: Footing,
    /// It has, or may have, been sent before.
    pub(crate) redelivered: bool,
}

/// What an entry stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Footing {
    /// The place is reserved and the journal has not taken the message: nothing behind it is handed out, so that
    /// journal order and queue order cannot differ.
    Reserved,
    /// It is here alone.
    Memory,
    /// The store has it too, from its `lsn` on, and can be asked for it.
    Store,
}

impl Entry {
    pub(crate) fn is_ready(&self) -> bool {
        self.footing != Footing::Reserved
    }

    /// What its place counts for, if it can lie on disk alone. What was queued for a shared subscription cannot: when
    /// the session ends somebody else gets it.
    fn shelved_cost(&self) -> Option<u32> {
        let stored = self.footing == Footing::Store && self.group == 0;
        stored.then(|| u32::try_from(self.message.cost()).ok()).flatten()
    }

    pub(crate) fn identifiers(&self) -> &[NonZeroU32] {
        self.identifiers.as_ref().map_or(&[], |ids| &ids.slice)
    }
}

/// The lanes. Bounds are the session's business.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    promised: VecDeque<Entry>,
    plain: VecDeque<Entry>,
    beyond: Option<Box<Beyond>>,
}

/// Which lane the next entry is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// QoS 1 and 2.
    Promised,
    /// QoS 0.
    Plain,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.promised() + self.plain.len()
    }

    /// Messages of QoS 1 and 2.
    pub(crate) fn promised(&self) -> usize {
        self.promised.len() + self.beyond.as_ref().map_or(0, |beyond| beyond.len())
    }

    /// Whether a message waits here; those that lie on disk are not looked at.
    pub(crate) fn holds(&self, message: MessageId) -> bool {
        let newest_first = self.promised.iter().rev().chain(self.plain.iter().rev());
        newest_first.map(|entry| entry.message.id()).any(|id| id == message)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(crate) fn push(&mut self, entry: Entry) {
        match entry.qos {
            Qos::AtMostOnce => self.plain.push_back(entry),
            _ => self.promised.push_back(entry),
        }
    }

    /// The next entry to hand out: the older of the two lanes' heads, QoS 1 and 2 only if the window has room.
    #[inline]
    pub(crate) fn next(&self, window_open: bool) -> Option<(Lane, &Entry)> {
        let promised = match self.shelf_is_next() {
            None => self.promised.front(),
            Some(beyond) => beyond.front(),
        };
        let promised = promised.filter(|e| window_open && e.is_ready());
        match (promised, self.plain.front()) {
            (Some(a), Some(b)) if a.cursor < b.cursor => Some((Lane::Promised, a)),
            (Some(a), None) => Some((Lane::Promised, a)),
            (_, Some(b)) => Some((Lane::Plain, b)),
            (None, None) => None,
        }
    }

    #[inline]
    pub(crate) fn pop(&mut self, lane: Lane) -> Option<Entry> {
        match lane {
            Lane::Plain => self.plain.pop_front(),
            Lane::Promised if self.shelf_is_next().is_some() => self.unshelve(Beyond::pop_front),
            Lane::Promised => self.promised.pop_front(),
        }
    }

    /// The part on disk, if the oldest of QoS 1 and 2 lies there.
    #[inline]
    fn shelf_is_next(&self) -> Option<&Beyond> {
        let beyond = self.beyond.as_deref()?;
        let first = beyond.first()?;
        self.promised.front().is_none_or(|entry| first < entry.cursor).then_some(beyond)
    }

    /// Takes back the entry just pushed.
    pub(crate) fn pop_newest(&mut self, lane: Lane) -> Option<Entry> {
        match lane {
            Lane::Promised => self.promised.pop_back(),
            Lane::Plain => self.plain.pop_back(),
        }
    }

    /// Takes out the oldest entry that may be dropped: one whose place is only reserved may not unless it is the
    /// caller's own, nor, `in_memory`, one that takes none.
    pub(crate) fn pop_oldest(&mut self, in_memory: bool, is_own: impl Fn(Cursor) -> bool) -> Option<Gone> {
        let plain = self.plain.front().map(|entry| entry.cursor);
        let is_oldest = |cursor: &Cursor| plain.is_none_or(|plain| *cursor < plain);
        let unread = self.shelf_is_next().filter(|beyond| beyond.front().is_none()).and_then(Beyond::first);
        if unread.filter(is_oldest).is_some() {
            return (!in_memory).then(|| self.unshelve(Beyond::pop)).flatten();
        }
        let reserved = self.promised.front().filter(|entry| !entry.is_ready() && self.shelf_is_next().is_none());
        if reserved.map(|entry| entry.cursor).filter(is_oldest).is_some_and(is_own) {
            return self.promised.pop_front().map(Gone::Entry);
        }
        let (lane, _) = self.next(true)?;
        self.pop(lane).map(Gone::Entry)
    }

    /// Makes a reserved place ready; `false` when it is gone.
    pub(crate) fn fill(&mut self, cursor: Cursor, lsn: Lsn, footing: Footing) -> bool {
        // Reserved places are at the end, nearly always the last.
        match self.promised.iter_mut().rev().find(|e| e.cursor == cursor) {
            Some(entry) => {
                (entry.footing, entry.lsn) = (footing, lsn);
                true
            }
            None => false,
        }
    }

    /// Gives a reserved place back.
    pub(crate) fn cancel(&mut self, cursor: Cursor) -> Option<Entry> {
        let at = self.promised.iter().rposition(|e| e.cursor == cursor)?;
        self.promised.remove(at)
    }

    /// Takes out an entry by its cursor.
    pub(crate) fn remove(&mut self, cursor: Cursor) -> Option<Entry> {
        for lane in [&mut self.promised, &mut self.plain] {
            if let Ok(at) = lane.binary_search_by_key(&cursor, |e| e.cursor) {
                return lane.remove(at);
            }
        }
        self.unshelve(|beyond| beyond.remove(cursor))
    }

    /// Takes out everything up to and including `cursor`, oldest first within each lane.
    pub(crate) fn drain_through(&mut self, cursor: Cursor, mut each: impl FnMut(Gone)) {
        for lane in [&mut self.promised, &mut self.plain] {
            let end = lane.partition_point(|e| e.cursor <= cursor);
            lane.drain(..end).map(Gone::Entry).for_each(&mut each);
        }
        if let Some(beyond) = &mut self.beyond {
            beyond.drain_through(cursor, each);
        }
        self.tidy();
    }

    /// Everything after `cursor` in order, up to the first place that is only reserved, or lies on disk alone.
    pub(crate) fn after(&self, cursor: Cursor) -> impl Iterator<Item = &Entry> {
        let from = |lane: &VecDeque<Entry>| lane.partition_point(|e| e.cursor <= cursor);
        let beyond = self.beyond.as_deref();
        let wall = beyond.and_then(|beyond| beyond.wall(cursor));
        let mut promised = self.promised.range(from(&self.promised)..).peekable();
        let mut plain = self.plain.range(from(&self.plain)..).peekable();
        let mut read = beyond.into_iter().flat_map(move |beyond| beyond.after(cursor)).peekable();
        std::iter::from_fn(move || {
            let heads = [promised.peek(), plain.peek(), read.peek()].map(|entry| entry.map(|entry| entry.cursor));
            let next = heads.into_iter().flatten().min();
            match heads.into_iter().position(|head| head == next)? {
                0 => promised.next(),
                1 => plain.next(),
                _ => read.next(),
            }
        })
        .take_while(move |e| e.is_ready() && wall.is_none_or(|wall| e.cursor < wall))
    }

    /// No later than the oldest came.
    pub(crate) fn oldest(&self) -> Option<Time> {
        let lanes = [&self.promised, &self.plain].map(|lane| lane.front().map(|entry| entry.message.time()));
        let beyond = self.beyond.as_ref().and_then(|beyond| beyond.oldest());
        lanes.into_iter().flatten().chain(beyond).min()
    }

    /// A client that goes away takes no memory for lanes it has emptied.
    pub(crate) fn shrink(&mut self) {
        for lane in [&mut self.promised, &mut self.plain] {
            if lane.is_empty() && lane.capacity() > 0 {
                *lane = VecDeque::new();
            }
        }
    }
}

/// The part on disk.
impl Queue {
    /// Whether some of it lies on disk alone.
    pub(crate) fn reaches_beyond(&self) -> bool {
        self.beyond.as_ref().is_some_and(|beyond| beyond.len() > 0)
    }

    /// Whether what comes next lies on disk, read or not.
    pub(crate) fn head_is_used_up(&self) -> bool {
        self.shelf_is_next().is_some()
    }

    /// Whether what comes next lies on disk, and nobody has asked for it.
    pub(crate) fn is_stuck(&self) -> bool {
        self.shelf_is_next().is_some_and(|beyond| beyond.front().is_none() && !beyond.is_asked())
    }

    /// Whether a page is being read.
    pub(crate) fn is_paging(&self) -> bool {
        self.beyond.as_ref().is_some_and(|beyond| beyond.is_asked())
    }

    /// Takes a part on disk that a store had at the start.
    pub(crate) fn restore_beyond(&mut self, shelf: Shelf, since: Time) {
        self.beyond = Some(Box::new(Beyond::new(shelf, since)));
        self.tidy();
    }

    /// Where the newest entry is durable, if it may have to lie on disk alone.
    pub(crate) fn newest_to_shelve(&self) -> Option<Lsn> {
        let last = self.beyond.as_ref().and_then(|beyond| beyond.last());
        let newest = self.promised.back().filter(|entry| self.promised.len() > 1 && entry.shelved_cost().is_some())?;
        last.is_none_or(|last| last < newest.cursor).then_some(newest.lsn)
    }

    /// Somebody will shelve when more is durable; `false`: somebody does already.
    pub(crate) fn begin_waiting(&mut self) -> bool {
        !std::mem::replace(&mut self.beyond.get_or_insert_default().waits, true)
    }

    /// Leaves to the disk what it has and `may` lie there alone, but for a head of `room` bytes. Gives the bytes freed.
    pub(crate) fn shelve(&mut self, room: u64, durable: Lsn, may: impl Fn(&Message) -> bool) -> u64 {
        let from = match self.beyond.as_ref().and_then(|beyond| beyond.last()) {
            Some(last) => self.promised.partition_point(|entry| entry.cursor <= last),
            None => {
                let mut bytes = 0;
                let fits = |entry: &&Entry| {
                    bytes += entry.message.cost() as u64;
                    bytes <= room
                };
                // There always is one to hand out.
                self.promised.iter().take_while(fits).count().max(1)
            }
        };
        let (mut freed, mut settled) = (0, true);
        if from < self.promised.len() {
            let beyond = self.beyond.get_or_insert_default();
            for entry in self.promised.split_off(from) {
                settled &= entry.is_ready() && entry.lsn <= durable;
                match entry.shelved_cost().filter(|_| settled && may(&entry.message)) {
                    Some(cost) => {
                        beyond.put(&entry, cost);
                        freed += u64::from(cost);
                    }
                    None => self.promised.push_back(entry),
                }
            }
            if self.promised.capacity() > 4 * self.promised.len() {
                self.promised.shrink_to(2 * self.promised.len());
            }
        }
        if let Some(beyond) = &mut self.beyond {
            beyond.waits = false;
        }
        self.tidy();
        freed
    }

    /// A reader by cursor has gone on behind this place. Gives the bytes freed.
    pub(crate) fn pass(&mut self, cursor: Cursor) -> u64 {
        self.beyond.as_mut().map_or(0, |beyond| beyond.pass(cursor))
    }

    /// The store is to forget the session: nothing that is here can lie on disk alone.
    pub(crate) fn keep_in_memory(&mut self) {
        for entry in self.promised.iter_mut().filter(|entry| entry.is_ready()) {
            entry.footing = Footing::Memory;
        }
    }

    /// The page to read for who has seen everything up to `after`, and has `enough` with so many bytes before it.
    pub(crate) fn wanted(&mut self, after: Cursor, enough: u64) -> Option<Wanted> {
        let beyond = self.beyond.as_mut()?;
        let next = beyond.first()?;
        let from = self.promised.partition_point(|entry| entry.cursor <= after);
        let before = self.promised.range(from..).take_while(|entry| entry.cursor < next).take(MANY);
        let (count, bytes) = before.fold((0, 0), |(n, bytes), entry| (n + 1, bytes + entry.message.cost() as u64));
        if count < MANY { beyond.wanted(after, bytes, enough) } else { None }
    }

    /// A page has come.
    pub(crate) fn receive(&mut self, after: Cursor, through: Cursor, entries: Vec<Entry>) -> Received {
        let Some(beyond) = &mut self.beyond else { return Received::default() };
        let received = beyond.receive(after, through, entries);
        self.tidy();
        received
    }

    fn unshelve<T>(&mut self, how: impl FnOnce(&mut Beyond) -> Option<T>) -> Option<T> {
        let gone = how(self.beyond.as_mut()?);
        self.tidy();
        gone
    }

    fn tidy(&mut self) {
        self.beyond.take_if(|beyond| beyond.is_idle());
    }
}

/// As many messages in memory are enough, however small they are.
const MANY: usize = 256;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        access::{Policy, Principal},
        clock::Time,
        message::{Head, Origin},
        topic::Topic,
    };
    use std::sync::Arc;

    pub(crate) fn entry(cursor: u64) -> Entry {
        let head = Head {
            topic: Topic::parse("t").unwrap(),
            origin: Arc::new(Origin { client: None, principal: Principal::anonymous(), session: 0 }),
            id: MessageId(cursor),
            time: Time(0),
            expires: None,
            properties: None,
            qos: Qos::AtLeastOnce,
            retain: false,
            policy: Policy::NONE,
        };
        Entry {
            message: Message::new(head, b""),
            cursor: Cursor(cursor),
            identifiers: None,
            lsn: Lsn(0),
            group: 0,
            qos: Qos::AtLeastOnce,
            retain: false,
            footing: Footing::Memory,
            redelivered: false,
        }
    }

    fn plain(cursor: u64) -> Entry {
        Entry { qos: Qos::AtMostOnce, ..entry(cursor) }
    }

    #[test]
    fn lanes_are_merged_in_order_and_a_closed_window_lets_qos_0_by() {
        let mut queue = Queue::default();
        for e in [entry(1), plain(2), entry(3)] {
            queue.push(e);
        }
        let order: Vec<u64> = queue.after(Cursor(0)).map(|e| e.cursor.0).collect();
        assert_eq!(order, [1, 2, 3]);
        assert_eq!(queue.next(true).map(|(_, e)| e.cursor.0), Some(1));
        assert_eq!(queue.next(false).map(|(_, e)| e.cursor.0), Some(2));
    }

    #[test]
    fn what_the_store_has_goes_to_disk_beyond_the_head_and_stays_once_it_has_it_no_more() {
        let stored = |cursor| Entry { footing: Footing::Store, lsn: Lsn(cursor), ..entry(cursor) };
        let mut queue = Queue::default();
        (1..=6).for_each(|cursor| queue.push(stored(cursor)));
        assert_eq!(queue.shelve(2, Lsn(5), |_| true), 3, "the head stays, and what is not durable");
        assert_eq!((queue.len(), queue.promised.len(), queue.reaches_beyond()), (6, 3, true));
        let mut queue = Queue::default();
        (1..=6).for_each(|cursor| queue.push(stored(cursor)));
        queue.keep_in_memory();
        assert_eq!((queue.shelve(2, Lsn(6), |_| true), queue.newest_to_shelve()), (0, None));
    }

    #[test]
    fn nothing_behind_a_reserved_place_is_handed_out_or_dropped() {
        let mut queue = Queue::default();
        queue.push(Entry { footing: Footing::Reserved, ..entry(1) });
        queue.push(entry(2));
        assert!(queue.next(true).is_none() && queue.pop_oldest(false, |_| false).is_none());
        assert!(queue.fill(Cursor(1), Lsn(9), Footing::Memory));
        assert!(matches!(queue.pop_oldest(false, |_| false), Some(Gone::Entry(e)) if (e.cursor.0, e.lsn.0) == (1, 9)));
    }
}
