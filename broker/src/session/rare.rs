//! What few sessions have at any one time, kept apart so that an idle one costs nothing for it.

use super::signal::Signal;
use crate::{
    clock::Time,
    link::{Cursor, SessionOptions, Subscription, Tag},
    topic::Topic,
};
use std::{collections::VecDeque, ops::Deref, sync::Arc, time::Duration};

/// See the module's documentation. Reads as [`Rare::NOTHING`] while there is nothing.
#[derive(Default)]
pub(crate) struct Seldom(Option<Box<Rare>>);

pub(crate) struct Rare {
    /// Tags of an earlier connection that are still to be sent again, in order.
    pub(crate) resend: VecDeque<Tag>,
    /// Retained messages that are still to come, one scan a subscription.
    pub(crate) scans: VecDeque<Scan>,
    /// Links whose message was refused for want of room here.
    pub(crate) room_waiters: Vec<Arc<Signal>>,
    /// The session's own bounds.
    pub(crate) options: SessionOptions,
    /// Messages lost, all causes.
    pub(crate) dropped: u64,
    /// Of the missed messages, those that an unacknowledged read has told already.
    pub(crate) missed_shown: u64,
    /// Those that a reader by cursor was handed before they were lost, and that no read has told since.
    pub(crate) lost_shown: Places,
    /// Up to where the stream that holds the session has sent everything; `None`: no stream does.
    pub(crate) streamed: Option<Cursor>,
    /// When the session ends, while its client is away.
    pub(crate) ends: Option<Time>,
    /// How long its client counts as present after it has let go.
    pub(crate) lingers: Duration,
    /// Until when it does.
    pub(crate) present_until: Option<Time>,
}

/// A subscription's way through the retained messages.
pub(crate) struct Scan {
    pub(crate) subscription: Subscription,
    pub(crate) after: Option<Topic>,
    /// When it was subscribed.
    pub(crate) since: Time,
}

/// Places in the order of their cursors, as runs: the first of each, and how many. No more than a queue had.
#[derive(Default)]
pub(crate) struct Places(VecDeque<(u64, u64)>);

impl Places {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, first: Cursor, count: u64) {
        match self.0.back_mut().filter(|(start, length)| start + length == first.0) {
            Some((_, length)) => *length += count,
            None => self.0.push_back((first.0, count)),
        }
    }

    /// Takes out those up to and including `cursor`; gives how many there were.
    pub(crate) fn take_through(&mut self, cursor: Cursor) -> u64 {
        let mut taken = 0;
        while let Some((start, length)) = self.0.pop_front() {
            let reached = (cursor.0 + 1).saturating_sub(start).min(length);
            taken += reached;
            if reached < length {
                self.0.push_front((start + reached, length - reached));
                break;
            }
        }
        taken
    }
}

static NOTHING: Rare = Rare::NOTHING;

impl Rare {
    const NOTHING: Self = Self {
        resend: VecDeque::new(),
        scans: VecDeque::new(),
        room_waiters: Vec::new(),
        options: SessionOptions { max_queued_messages: None, max_queued_bytes: None, overflow: None },
        dropped: 0,
        missed_shown: 0,
        lost_shown: Places(VecDeque::new()),
        streamed: None,
        ends: None,
        lingers: Duration::ZERO,
        present_until: None,
    };

    fn is_nothing(&self) -> bool {
        self.resend.is_empty()
            && self.scans.is_empty()
            && self.room_waiters.is_empty()
            && self.options == SessionOptions::default()
            && self.dropped == 0
            && self.missed_shown == 0
            && self.lost_shown.is_empty()
            && self.streamed.is_none()
            && self.ends.is_none()
            && self.lingers.is_zero()
            && self.present_until.is_none()
    }
}

impl Seldom {
    /// The way to change anything: makes room for it, and gives the room back when nothing is left.
    pub(crate) fn change<T>(&mut self, how: impl FnOnce(&mut Rare) -> T) -> T {
        let rare = self.0.get_or_insert_with(|| Box::new(Rare::NOTHING));
        let outcome = how(rare);
        if rare.is_nothing() {
            self.0 = None;
        }
        outcome
    }
}

impl Deref for Seldom {
    type Target = Rare;

    fn deref(&self) -> &Rare {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_out_in_the_order_of_their_cursors() {
        let mut places = Places::default();
        [(3, 2), (5, 1), (9, 4)].into_iter().for_each(|(first, count)| places.push(Cursor(first), count));
        assert_eq!(places.0, [(3, 3), (9, 4)]);
        let taken = [2, 4, 4, 10, 99].map(|cursor| places.take_through(Cursor(cursor)));
        assert_eq!((taken, places.is_empty()), ([0, 2, 0, 3, 2], true));
    }

    #[test]
    fn room_is_kept_only_while_something_is_in_it() {
        let mut seldom = Seldom::default();
        seldom.change(|rare| rare.ends = Some(Time(7)));
        assert_eq!(seldom.ends, Some(Time(7)));
        seldom.change(|rare| rare.ends = None);
        assert!(seldom.0.is_none());
    }
}
