//! A queue longer than its head: what the store has of it lies there alone, and comes back a page at a time.

use super::{
    Account, Session, State,
    beyond::Gone,
    queue::{Entry, Footing, Identifiers},
    shelf::{Shelf, Unseen},
    signal::DELIVERABLE,
};
use crate::{
    broker::{Core, Waiter},
    clock::Time,
    link::{Cursor, Lsn},
    message::{Message, Qos},
    metrics::DropCause,
    store::{Page, PageWanted, Placed},
};
use std::sync::Arc;
use triomphe::ThinArc;

impl Core {
    /// After something was put into a queue whose messages are kept: what is beyond its head goes to disk when the
    /// store has it, and of what lies there already enough is read for those that are dropped to be known.
    #[inline]
    pub(crate) fn tend(self: &Arc<Self>, session: &Arc<Session>, state: &mut State) {
        if state.bytes > self.memory_per_session || state.queue.reaches_beyond() {
            self.tend_long(session, state);
        }
    }

    #[cold]
    fn tend_long(self: &Arc<Self>, session: &Arc<Session>, state: &mut State) {
        if !self.wait_to_shelve(session, state) {
            self.shelve(session, state);
        }
        if state.queue.head_is_used_up() {
            self.turn_page(session, state, Cursor(0), Cursor(0));
        }
    }

    /// `false`: everything that could be shelved is durable.
    fn wait_to_shelve(self: &Arc<Self>, session: &Arc<Session>, state: &mut State) -> bool {
        let Some(lsn) = state.queue.newest_to_shelve() else { return true };
        if lsn <= self.store.durable() {
            return false;
        }
        if state.queue.begin_waiting() {
            self.waiters.add(lsn, Waiter::Queue(Arc::downgrade(self), session.clone()));
        }
        // It may have become durable in between, and nobody would tell.
        lsn > self.store.durable()
    }

    /// More is durable: what is beyond the head of this queue need not be in memory.
    pub(crate) fn shelve_durable(self: &Arc<Self>, session: &Arc<Session>) {
        let mut state = session.state.lock();
        self.shelve(session, &mut state);
        // What came meanwhile goes with a later commit.
        self.wait_to_shelve(session, &mut state);
    }

    fn shelve(&self, session: &Session, state: &mut State) {
        let mut account = Account::unkept(&self.budget, session);
        state.shelve(self.memory_per_session, self.store.durable(), &mut account);
    }

    /// Asks for the next page, if whoever began to read after `passed` and has seen everything up to `after` is about to
    /// need it.
    pub(crate) fn turn_page(
        self: &Arc<Self>,
        session: &Arc<Session>,
        state: &mut State,
        passed: Cursor,
        after: Cursor,
    ) {
        if !state.queue.reaches_beyond() {
            return;
        }
        let page = self.memory_per_session / 2;
        Account::unkept(&self.budget, session).freed += state.queue.pass(passed);
        let Some(wanted) = state.queue.wanted(after, page) else { return };
        let (core, reader) = (Arc::downgrade(self), session.clone());
        let answer = move |page| {
            if let Some(core) = core.upgrade() {
                core.receive(&reader, wanted.after, page);
            }
        };
        let wanted = PageWanted { session: session.key, after: wanted.after, through: wanted.through, bytes: page };
        self.store.page(wanted, Box::new(answer));
    }

    fn receive(&self, session: &Session, after: Cursor, page: Page) {
        let mut account = Account::new(&self.budget, session);
        {
            let mut state = session.state.lock();
            state.receive(after, page, &mut account);
            if let Some(signal) = &state.signal {
                signal.raise(DELIVERABLE);
            }
        }
        self.note(&mut account.records);
    }
}

impl State {
    fn shelve(&mut self, room: u64, durable: Lsn, account: &mut Account<'_>) {
        // A scan through the retained messages must find what came live as it began ([`State::came_live`]).
        let scanned = self.seldom.scans.iter().map(|scan| scan.since).max();
        account.freed += self.queue.shelve(room, durable, |message| scanned.is_none_or(|since| message.time() > since));
    }

    fn receive(&mut self, after: Cursor, page: Page, account: &mut Account<'_>) {
        let entries = page.messages.into_iter().map(|(message, place)| place.into_entry(message, false)).collect();
        let received = self.queue.receive(after, page.through, entries);
        account.added += received.added;
        account.freed += received.freed;
        for places in received.lost {
            // Nothing is told to the store: what cannot be read now is looked at again at the next start.
            self.forget_unseen(&places);
            self.lose_unseen(places.count, DropCause::Damaged, account);
        }
    }

    /// Places that lie on disk alone, and were there at the start.
    pub(crate) fn restore_beyond(&mut self, shelf: Shelf, since: Time, account: &mut Account<'_>) {
        self.bytes += shelf.bytes();
        account.copies += shelf.len() as u64;
        self.queue.restore_beyond(shelf, since);
    }

    /// Counts what was taken out of the queue as lost.
    pub(crate) fn drop_gone(&mut self, gone: &Gone, cause: DropCause, account: &mut Account<'_>) {
        match gone {
            Gone::Entry(entry) => self.drop_entry(entry, cause, account),
            Gone::Unseen(places) => self.drop_unseen(places, cause, account),
        }
    }

    /// Counts what was taken out of the queue as delivered.
    pub(crate) fn count_gone(&mut self, gone: &Gone, account: &mut Account<'_>) {
        match gone {
            Gone::Entry(entry) => self.count_delivered(entry, account),
            Gone::Unseen(places) => {
                self.forget_unseen(places);
                self.delivered += places.count;
                account.delivered += places.count;
                account.settle_unseen(places);
            }
        }
    }

    pub(super) fn drop_unseen(&mut self, places: &Unseen, cause: DropCause, account: &mut Account<'_>) {
        self.forget_unseen(places);
        self.lose_unseen(places.count, cause, account);
        if cause == DropCause::QueueFull {
            self.note_lost(places.first, places.count);
        }
        account.settle_unseen(places);
    }

    /// They count against no bound of the session any longer; against that of memory they did not.
    fn forget_unseen(&mut self, places: &Unseen) {
        self.bytes -= places.bytes;
        self.tell_of_room();
    }

    fn lose_unseen(&mut self, count: u64, cause: DropCause, account: &mut Account<'_>) {
        account.lose_unseen(count, cause, &self.traffic);
        self.seldom.change(|seldom| seldom.dropped += count);
        if matches!(cause, DropCause::QueueFull | DropCause::Damaged) {
            self.missed += count;
        }
        account.tell(self.counts());
    }
}

impl Placed {
    /// The entry that the store had at this place.
    pub(crate) fn into_entry(self, message: Message, redelivered: bool) -> Entry {
        let identifiers: Identifiers =
            (!self.identifiers.is_empty()).then(|| ThinArc::from_header_and_slice((), &self.identifiers));
        debug_assert!(self.qos != Qos::AtMostOnce, "QoS 0 is not kept");
        Entry {
            message,
            cursor: self.cursor,
            identifiers,
            lsn: Lsn::default(),
            group: 0,
            qos: self.qos,
            retain: self.retain,
            footing: Footing::Store,
            redelivered,
        }
    }
}
