//! What was handed out and not settled: a window of tags in the order of sending.

use super::queue::Entry;
use crate::link::{Stage, Tag};
use hashbrown::HashMap;
use std::{collections::VecDeque, num::NonZeroU16};

/// How far the newest tag may run ahead of the oldest before a straggler is put aside: far below where the two
/// would meet (65,535).
const SPAN: usize = 32_768;

/// A delivery of QoS 1 or 2 under way.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) entry: Entry,
    pub(crate) stage: Stage,
    /// Sent over the present connection: counts against the window.
    pub(crate) live: bool,
}

/// Deliveries by tag. Tags are given out in sequence, so a tag's place is its distance from the oldest; one that
/// stays unsettled while tens of thousands after it come and go is put aside.
#[derive(Debug, Default)]
pub(crate) struct Inflight {
    window: VecDeque<Option<Sent>>,
    /// The tag of the window's first place.
    first: u16,
    count: u16,
    live: u16,
    /// Boxed: hardly any session ever has one.
    stragglers: Option<Box<HashMap<u16, Sent>>>,
}

impl Inflight {
    pub(crate) fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Deliveries sent over the present connection and not settled.
    pub(crate) fn live(&self) -> usize {
        usize::from(self.live)
    }

    /// The tag the next delivery will get. Fewer than 65,535 are ever under way, so there always is one.
    pub(crate) fn next_tag(&mut self) -> Tag {
        loop {
            let number = self.number_at(self.window.len());
            match self.stragglers.as_ref().is_some_and(|aside| aside.contains_key(&number)) {
                // A hole: settled before it was used.
                true => self.push_slot(None),
                false => return Tag(NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN)),
            }
        }
    }

    /// Puts a delivery under the tag that `next_tag` gave.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.count += 1;
        self.live += 1;
        self.push_slot(Some(Sent { entry, stage: Stage::Offered, live: true }));
    }

    /// Puts a recovered delivery under the tag it had.
    pub(crate) fn restore(&mut self, tag: Tag, entry: Entry) {
        self.count += 1;
        let sent = Sent { entry, stage: Stage::Offered, live: false };
        if self.window.is_empty() {
            self.first = tag.0.get();
        }
        match self.number_at(self.window.len()) == tag.0.get() {
            true => self.push_slot(Some(sent)),
            false => self.put_aside(tag.0.get(), sent),
        }
    }

    pub(crate) fn get_mut(&mut self, tag: Tag) -> Option<&mut Sent> {
        match self.place(tag) {
            Some(at) if self.window[at].is_some() => self.window[at].as_mut(),
            _ => self.stragglers.as_mut()?.get_mut(&tag.0.get()),
        }
    }

    pub(crate) fn remove(&mut self, tag: Tag) -> Option<Sent> {
        let sent = match self.place(tag) {
            Some(at) if self.window[at].is_some() => self.window[at].take(),
            _ => self.stragglers.as_mut()?.remove(&tag.0.get()),
        }?;
        self.count -= 1;
        self.live -= u16::from(sent.live);
        while let Some(None) = self.window.front() {
            self.window.pop_front();
            self.first = next(self.first);
        }
        Some(sent)
    }

    /// Marks a delivery as sent over the present connection.
    pub(crate) fn set_live(&mut self, tag: Tag) {
        if let Some(sent) = self.get_mut(tag) {
            let before = std::mem::replace(&mut sent.live, true);
            self.live += u16::from(!before);
        }
    }

    /// The connection is gone: nothing is live. Gives the tags in the order of first sending.
    pub(crate) fn rest(&mut self) -> VecDeque<Tag> {
        self.live = 0;
        let mut order: Vec<(crate::link::Cursor, Tag)> = Vec::with_capacity(usize::from(self.count));
        let first = self.first;
        for (at, slot) in self.window.iter_mut().enumerate() {
            if let (Some(sent), Some(tag)) = (slot, NonZeroU16::new(number(first, at))) {
                sent.live = false;
                order.push((sent.entry.cursor, Tag(tag)));
            }
        }
        let in_window = order.len();
        for (tag, sent) in self.stragglers.iter_mut().flat_map(|aside| aside.iter_mut()) {
            sent.live = false;
            order.extend(NonZeroU16::new(*tag).map(|tag| (sent.entry.cursor, Tag(tag))));
        }
        // Stragglers were sent before everything in the window.
        order[in_window..].sort_unstable();
        order.rotate_left(in_window);
        order.into_iter().map(|(_, tag)| tag).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Tag, &Sent)> {
        let window = self
            .window
            .iter()
            .enumerate()
            .filter_map(|(at, slot)| Some((Tag(NonZeroU16::new(self.number_at(at))?), slot.as_ref()?)));
        let aside = self
            .stragglers
            .iter()
            .flat_map(|aside| aside.iter())
            .filter_map(|(tag, sent)| Some((Tag(NonZeroU16::new(*tag)?), sent)));
        aside.chain(window)
    }

    fn push_slot(&mut self, slot: Option<Sent>) {
        if self.window.is_empty() && self.first == 0 {
            self.first = 1;
        }
        if self.window.len() >= SPAN {
            let first = self.first;
            if let Some(Some(sent)) = self.window.pop_front() {
                self.put_aside(first, sent);
            }
            self.first = next(first);
        }
        self.window.push_back(slot);
    }

    fn put_aside(&mut self, tag: u16, sent: Sent) {
        self.stragglers.get_or_insert_default().insert(tag, sent);
    }

    fn place(&self, tag: Tag) -> Option<usize> {
        let (first, tag) = (usize::from(self.first), usize::from(tag.0.get()));
        let at = if tag >= first { tag - first } else { tag + usize::from(u16::MAX) - first };
        (at < self.window.len()).then_some(at)
    }

    fn number_at(&self, at: usize) -> u16 {
        number(self.first, at)
    }
}

/// The tag `at` places after `first`, counting 1 to 65,535 and round again.
fn number(first: u16, at: usize) -> u16 {
    let zero_based = (usize::from(first.max(1)) - 1 + at) % usize::from(u16::MAX);
    u16::try_from(zero_based + 1).unwrap_or(1)
}

fn next(tag: u16) -> u16 {
    number(tag, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::queue::tests::entry;

    #[test]
    fn a_straggler_keeps_its_tag_while_tags_go_round() {
        let mut inflight = Inflight::default();
        let straggler = inflight.next_tag();
        inflight.push(entry(1));
        for n in 2..200_000 {
            let tag = inflight.next_tag();
            assert_ne!(tag, straggler);
            inflight.push(entry(n));
            assert!(inflight.remove(tag).is_some_and(|s| s.entry.cursor.0 == n));
        }
        assert_eq!(inflight.len(), 1);
        assert!(inflight.remove(straggler).is_some_and(|s| s.entry.cursor.0 == 1));
        assert_eq!((inflight.len(), inflight.live()), (0, 0));
    }

    #[test]
    fn resumption_gives_the_order_of_first_sending() {
        let mut inflight = Inflight::default();
        let tags: Vec<Tag> = (1..=5)
            .map(|n| {
                let tag = inflight.next_tag();
                inflight.push(entry(n));
                tag
            })
            .collect();
        inflight.remove(tags[1]);
        assert_eq!(inflight.rest(), [tags[0], tags[2], tags[3], tags[4]]);
        assert_eq!(inflight.live(), 0);
        inflight.set_live(tags[2]);
        assert_eq!(inflight.live(), 1);
    }
}
