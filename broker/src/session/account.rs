//! The books of one visit to a session.

use super::{Budget, KEPT, Session, queue::Entry, shelf::Unseen};
use crate::{
    drops::Tally,
    message::{Message, Qos},
    metrics::{DropCause, Metrics},
    store::{Counts, Record},
    traffic::Traffic,
};
use std::sync::{Arc, atomic::Ordering};

/// The books of one visit to a session: kept beside the lock, and entered into what all sessions share once, when it
/// is dropped.
pub(crate) struct Account<'a> {
    pub(crate) budget: &'a Budget,
    session: Option<&'a Session>,
    kept: bool,
    /// What the store is to be told.
    pub(crate) records: Vec<Record>,
    /// Where among them the session's counts stand.
    counted: Option<usize>,
    pub(super) copies: u64,
    pub(super) delivered: u64,
    pub(super) added: u64,
    pub(super) freed: u64,
    tally: Option<Box<Tally>>,
}

impl<'a> Account<'a> {
    pub(crate) fn new(budget: &'a Budget, session: &'a Session) -> Self {
        let mut account = Self::unkept(budget, session);
        account.kept = session.has(KEPT);
        account
    }

    /// For entries whose settlement the store learns by other words, or not at all.
    pub(crate) fn unkept(budget: &'a Budget, session: &'a Session) -> Self {
        let mut account = Self::of_nobody(budget);
        account.session = Some(session);
        account
    }

    /// For a session that is still being made.
    pub(crate) fn of_nobody(budget: &'a Budget) -> Self {
        let (copies, delivered, added, freed) = (0, 0, 0, 0);
        let (session, kept, records, counted, tally) = (None, false, Vec::new(), None, None);
        Self { budget, session, kept, records, counted, copies, delivered, added, freed, tally }
    }

    /// Whether what happens to the session's QoS 1 and 2 messages is to be told to the store.
    pub(crate) fn kept(&self) -> bool {
        self.kept
    }

    /// A copy that came in goes again as if it had never come.
    pub(crate) fn take_back(&mut self) {
        self.copies = self.copies.wrapping_sub(1);
    }

    /// Counts a message as lost, with the gateway its session came by last.
    pub(crate) fn lose(&mut self, message: &Message, cause: DropCause, traffic: &Arc<Traffic>) {
        self.tally.get_or_insert_with(|| Box::new(Tally::new(traffic.clone()))).add(Some(message.topic()), cause, 1);
    }

    /// Counts messages that nobody read as lost.
    pub(super) fn lose_unseen(&mut self, count: u64, cause: DropCause, traffic: &Arc<Traffic>) {
        self.tally.get_or_insert_with(|| Box::new(Tally::new(traffic.clone()))).add(None, cause, count);
    }

    /// Tells the store what was lost: once a visit, however much it was.
    pub(crate) fn tell(&mut self, counts: Counts) {
        let Some(session) = self.session.filter(|_| self.kept) else { return };
        match self.counted.and_then(|at| self.records.get_mut(at)) {
            Some(Record::Counted(_, known)) => *known = counts,
            _ => {
                self.counted = Some(self.records.len());
                self.records.push(Record::Counted(session.key, counts));
            }
        }
    }

    pub(super) fn settle(&mut self, entry: &Entry) {
        if let Some(session) = self.session.filter(|_| self.kept && entry.qos != Qos::AtMostOnce) {
            self.records.push(Record::Settled(session.key, entry.cursor, entry.message.id()));
        }
    }

    /// The same for places that nobody has looked at.
    pub(super) fn settle_unseen(&mut self, places: &Unseen) {
        let Some(session) = self.session.filter(|_| self.kept) else { return };
        let (first, more) = (places.first, places.count);
        match self.records.last_mut() {
            Some(Record::Gone { first: known, count, .. }) if known.0 + *count == first.0 => *count += more,
            _ => self.records.push(Record::Gone { session: session.key, first, count: more }),
        }
    }

    /// Bytes of all queues, as far as this visit knows.
    pub(super) fn all_bytes(&self) -> u64 {
        self.budget.bytes(self.added, self.freed)
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        // Atomics wrap, so a negative sum is added all the same.
        let bytes = self.added.wrapping_sub(self.freed);
        if bytes != 0 {
            self.budget.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Metrics::add(&self.budget.metrics.copies, self.copies);
        Metrics::add(&self.budget.metrics.delivered, self.delivered);
        if let Some(tally) = self.tally.take() {
            let client = self.session.and_then(|session| session.client.as_ref());
            self.budget.drops.enter(*tally, client, &self.budget.metrics);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{drops::Drops, limits::Limits};
    use std::sync::atomic::AtomicU64;

    #[test]
    fn what_is_freed_before_its_coming_is_entered_makes_nothing_full() {
        let budget = Budget {
            limits: Limits::default(),
            metrics: Metrics::default(),
            drops: Drops::new(Arc::new(crate::clock::ManualClock::default())),
            bytes: AtomicU64::new(0),
        };
        let (mut publisher, mut subscriber) = (Account::of_nobody(&budget), Account::of_nobody(&budget));
        publisher.added = 100;
        subscriber.freed = 100;
        drop(subscriber);
        let mut next = Account::of_nobody(&budget);
        assert_eq!(next.all_bytes(), 0);
        next.added = 7;
        drop(publisher);
        assert_eq!(next.all_bytes(), 7);
    }
}
