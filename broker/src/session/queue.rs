//! What waits for one session: two lanes in the order of their cursors. QoS 0 has its own, so that a client that
//! does not acknowledge still gets it.

use crate::{
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
    /// False while the place is reserved and the journal has not taken the message: nothing behind it is handed out,
    /// so that journal order and queue order cannot differ.
    pub(crate) ready: bool,
    /// It has, or may have, been sent before.
    pub(crate) redelivered: bool,
}

impl Entry {
    pub(crate) fn identifiers(&self) -> &[NonZeroU32] {
        self.identifiers.as_ref().map_or(&[], |ids| &ids.slice)
    }
}

/// The lanes. Bounds are the session's business.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    promised: VecDeque<Entry>,
    plain: VecDeque<Entry>,
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
        self.promised.len() + self.plain.len()
    }

    /// Messages of QoS 1 and 2.
    pub(crate) fn promised(&self) -> usize {
        self.promised.len()
    }

    /// Whether a message waits here.
    pub(crate) fn holds(&self, message: MessageId) -> bool {
        let newest_first = self.promised.iter().rev().chain(self.plain.iter().rev());
        newest_first.map(|entry| entry.message.id()).any(|id| id == message)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.promised.is_empty() && self.plain.is_empty()
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
        let promised = self.promised.front().filter(|e| window_open && e.ready);
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
            Lane::Promised => self.promised.pop_front(),
            Lane::Plain => self.plain.pop_front(),
        }
    }

    /// Takes back the entry just pushed.
    pub(crate) fn pop_newest(&mut self, lane: Lane) -> Option<Entry> {
        match lane {
            Lane::Promised => self.promised.pop_back(),
            Lane::Plain => self.plain.pop_back(),
        }
    }

    /// Takes out the oldest entry that may be dropped: one whose place is only reserved may not.
    pub(crate) fn pop_oldest(&mut self) -> Option<Entry> {
        let (lane, _) = self.next(true)?;
        self.pop(lane)
    }

    /// Makes a reserved place ready; `false` when it is gone.
    pub(crate) fn fill(&mut self, cursor: Cursor, lsn: Lsn) -> bool {
        // Reserved places are at the end, nearly always the last.
        match self.promised.iter_mut().rev().find(|e| e.cursor == cursor) {
            Some(entry) => {
                (entry.ready, entry.lsn) = (true, lsn);
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
        None
    }

    /// Takes out everything up to and including `cursor`, oldest first within each lane.
    pub(crate) fn drain_through(&mut self, cursor: Cursor, mut each: impl FnMut(Entry)) {
        for lane in [&mut self.promised, &mut self.plain] {
            let end = lane.partition_point(|e| e.cursor <= cursor);
            lane.drain(..end).for_each(&mut each);
        }
    }

    /// Everything after `cursor` in order, up to the first place that is only reserved.
    pub(crate) fn after(&self, cursor: Cursor) -> impl Iterator<Item = &Entry> {
        let from = |lane: &VecDeque<Entry>| lane.partition_point(|e| e.cursor <= cursor);
        let mut promised = self.promised.range(from(&self.promised)..).peekable();
        let mut plain = self.plain.range(from(&self.plain)..).peekable();
        std::iter::from_fn(move || match (promised.peek(), plain.peek()) {
            (Some(a), Some(b)) if a.cursor < b.cursor => promised.next(),
            (Some(_), None) => promised.next(),
            _ => plain.next(),
        })
        .take_while(|e| e.ready)
    }

    pub(crate) fn oldest(&self) -> Option<&Entry> {
        match (self.promised.front(), self.plain.front()) {
            (Some(a), Some(b)) => Some(if a.cursor < b.cursor { a } else { b }),
            (a, b) => a.or(b),
        }
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
            ready: true,
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
    fn nothing_behind_a_reserved_place_is_handed_out_or_dropped() {
        let mut queue = Queue::default();
        queue.push(Entry { ready: false, ..entry(1) });
        queue.push(entry(2));
        assert!(queue.next(true).is_none() && queue.pop_oldest().is_none());
        assert!(queue.fill(Cursor(1), Lsn(9)));
        assert_eq!(queue.pop_oldest().map(|e| (e.cursor.0, e.lsn.0)), Some((1, 9)));
    }
}
