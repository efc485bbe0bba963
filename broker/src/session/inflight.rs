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
    /// The tag of the window's first place.
    first: u16,
    count: u16,
    live: u16,
    /// Made with the first delivery: most sessions only ever get QoS 0.
    places: Option<Box<Places>>,
}

#[derive(Debug, Default)]
struct Places {
    window: VecDeque<Option<Sent>>,
    stragglers: HashMap<u16, Sent>,
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
            let number = number(self.first, self.window_len());
            match self.places.as_ref().is_some_and(|places| places.stragglers.contains_key(&number)) {
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

    /// Puts a recovered delivery under the tag it had. Those that were sent first come first.
    pub(crate) fn restore(&mut self, tag: Tag, entry: Entry) {
        self.count += 1;
        let sent = Sent { entry, stage: Stage::Offered, live: false };
        if self.window_len() == 0 {
            self.first = tag.0.get();
        }
        if self.skip_to(tag) {
            self.push_slot(Some(sent));
        } else {
            self.places.get_or_insert_default().stragglers.insert(tag.0.get(), sent);
        }
    }

    /// The next delivery gets the tag after `last`, the last that was given out before a restart.
    pub(crate) fn go_on_after(&mut self, last: Option<Tag>) {
        let Some(last) = last else { return };
        let after = NonZeroU16::new(next(last.0.get())).map_or(last, Tag);
        if self.window_len() == 0 {
            self.first = after.0.get();
        } else {
            self.skip_to(after);
        }
    }

    /// Lets the next place be that of `tag`, with holes for what was settled in between; `false` if it lies behind.
    fn skip_to(&mut self, tag: Tag) -> bool {
        let at = self.window_len();
        let ahead = (0..SPAN.saturating_sub(at)).find(|ahead| number(self.first, at + ahead) == tag.0.get());
        ahead.map(|holes| (0..holes).for_each(|_| self.push_slot(None))).is_some()
    }

    pub(crate) fn get_mut(&mut self, tag: Tag) -> Option<&mut Sent> {
        let place = self.place(tag);
        let places = self.places.as_mut()?;
        match place {
            Some(at) if places.window[at].is_some() => places.window[at].as_mut(),
            _ => places.stragglers.get_mut(&tag.0.get()),
        }
    }

    pub(crate) fn remove(&mut self, tag: Tag) -> Option<Sent> {
        let place = self.place(tag);
        let Places { window, stragglers } = self.places.as_deref_mut()?;
        let sent = match place {
            Some(at) if window[at].is_some() => window[at].take(),
            _ => stragglers.remove(&tag.0.get()),
        }?;
        self.count -= 1;
        self.live -= u16::from(sent.live);
        while let Some(None) = window.front() {
            window.pop_front();
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
        let Some(places) = &mut self.places else { return VecDeque::new() };
        let mut order: Vec<(crate::link::Cursor, Tag)> = Vec::with_capacity(usize::from(self.count));
        for (at, slot) in places.window.iter_mut().enumerate() {
            if let (Some(sent), Some(tag)) = (slot, NonZeroU16::new(number(self.first, at))) {
                sent.live = false;
                order.push((sent.entry.cursor, Tag(tag)));
            }
        }
        let in_window = order.len();
        for (tag, sent) in &mut places.stragglers {
            sent.live = false;
            order.extend(NonZeroU16::new(*tag).map(|tag| (sent.entry.cursor, Tag(tag))));
        }
        // Stragglers were sent before everything in the window.
        order[in_window..].sort_unstable();
        order.rotate_left(in_window);
        order.into_iter().map(|(_, tag)| tag).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Tag, &Sent)> {
        let places = self.places.iter();
        let window = places.clone().flat_map(|places| places.window.iter().enumerate()).filter_map(|(at, slot)| {
            let tag = NonZeroU16::new(number(self.first, at))?;
            Some((Tag(tag), slot.as_ref()?))
        });
        let aside = places.flat_map(|places| &places.stragglers);
        aside.filter_map(|(tag, sent)| Some((Tag(NonZeroU16::new(*tag)?), sent))).chain(window)
    }

    fn push_slot(&mut self, slot: Option<Sent>) {
        let Places { window, stragglers } = &mut **self.places.get_or_insert_default();
        if window.is_empty() && self.first == 0 {
            self.first = 1;
        }
        if window.len() >= SPAN {
            if let Some(Some(sent)) = window.pop_front() {
                stragglers.insert(self.first, sent);
            }
            self.first = next(self.first);
        }
        window.push_back(slot);
    }

    fn window_len(&self) -> usize {
        self.places.as_ref().map_or(0, |places| places.window.len())
    }

    fn place(&self, tag: Tag) -> Option<usize> {
        let (first, tag) = (usize::from(self.first), usize::from(tag.0.get()));
        let at = if tag >= first { tag - first } else { tag + usize::from(u16::MAX) - first };
        (at < self.window_len()).then_some(at)
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
