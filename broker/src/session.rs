//! A session: what one client id is owed. Shared state behind one short lock, touched from any core.
//!
//! Lock order, for the whole core: a publisher's `incoming`, then the retained tree, then one session's `state`, then
//! the router, the timetable, the waiters, the store. No two of a kind at once; no await under any.

pub(crate) mod account;
pub(crate) mod beyond;
pub(crate) mod inflight;
mod paging;
pub(crate) mod queue;
pub(crate) mod rare;
pub(crate) mod registry;
pub(crate) mod shelf;
pub(crate) mod signal;

use crate::{
    access::{ClientId, Peer, Policy, Principal},
    clock::Time,
    drops::Drops,
    limits::{Limits, Overflow},
    link::{Cursor, Lsn, Subscription, Tag, WhileAway},
    message::{Message, Qos, Will},
    metrics::{DropCause, Metrics},
    store::{Counts, Placed, Record, SessionKey},
    topic::Filter,
    traffic::Traffic,
};
pub(crate) use account::Account;
use beyond::Gone;
use inflight::Inflight;
use parking_lot::Mutex;
use queue::{Entry, Footing, Identifiers, Queue};
use rare::{Places, Scan, Seldom};
use signal::{DELIVERABLE, ROOM, Signal};
use std::{
    num::NonZeroU16,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

/// [`Session::traits`]: its QoS 1 and 2 messages go through the journal.
pub(crate) const KEPT: u8 = 1;
/// [`Session::traits`]: the store knows of it: it is kept, or had a will to keep.
pub(crate) const KNOWN: u8 = 16;
/// [`Session::traits`]: it may refuse messages.
pub(crate) const REJECTS: u8 = 2;
/// [`Session::traits`]: its client is there, or may have been a moment ago.
pub(crate) const PRESENT: u8 = 4;
/// [`Session::traits`]: the road of its present holder carries properties.
pub(crate) const PROPERTIES: u8 = 8;

/// Between the time that a message says and the moment it is routed.
const LONGEST_BURST: Duration = Duration::from_secs(1);

pub(crate) struct Session {
    /// Index in the router.
    pub(crate) id: u32,
    pub(crate) key: SessionKey,
    /// `None`: unnamed.
    pub(crate) client: Option<ClientId>,
    /// What publishers must know before they take the lock.
    pub(crate) traits: AtomicU8,
    pub(crate) incoming: Mutex<Incoming>,
    pub(crate) state: Mutex<State>,
}

/// The publishing side. Held during a flush: a takeover waits for it, and fences what comes after.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    /// QoS 2 packet identifiers that await PUBREL, in ascending order; bounded by the receive maximum, which the
    /// gateway enforces.
    unreleased: Vec<NonZeroU16>,
}

impl Incoming {
    pub(crate) fn new(mut unreleased: Vec<NonZeroU16>) -> Self {
        unreleased.sort_unstable();
        Self { unreleased }
    }

    /// `false`: it was there.
    pub(crate) fn insert(&mut self, id: NonZeroU16) -> bool {
        // Clients count upwards, so it nearly always belongs at the end.
        match self.unreleased.binary_search(&id) {
            Ok(_) => false,
            Err(at) => {
                self.unreleased.insert(at, id);
                true
            }
        }
    }

    /// `false`: it was not there.
    pub(crate) fn remove(&mut self, id: NonZeroU16) -> bool {
        self.unreleased.binary_search(&id).map(|at| self.unreleased.remove(at)).is_ok()
    }

    /// Gives what was there.
    pub(crate) fn clear(&mut self) -> Vec<NonZeroU16> {
        std::mem::take(&mut self.unreleased)
    }

    pub(crate) fn len(&self) -> usize {
        self.unreleased.len()
    }
}

/// The receiving side, and everything else.
pub(crate) struct State {
    /// The present holder's bell; `None` while the client is away.
    pub(crate) signal: Option<Arc<Signal>>,
    /// Of the gateway it was held by last.
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) peer: Peer,
    pub(crate) principal: Principal,
    pub(crate) owner: Option<Box<str>>,
    /// Set when the session is over and out of the registry.
    pub(crate) ended: bool,
    pub(crate) expiry: u32,
    /// Most deliveries under way.
    pub(crate) window: u16,
    pub(crate) while_away: WhileAway,
    /// Its client is attached and asleep, and wants no QoS 0 meanwhile.
    pub(crate) dozing: bool,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) queue: Queue,
    pub(crate) inflight: Inflight,
    pub(crate) seldom: Seldom,
    pub(crate) will: Option<Box<Will>>,
    next_cursor: u64,
    /// Highest cursor handed out by `Oldest`.
    pub(crate) shown: Cursor,
    pub(crate) settled: Cursor,
    /// Bytes waiting and under way.
    bytes: u64,
    /// Lost since the holder was last told.
    pub(crate) missed: u64,
    /// Rights under which the queued entries were let in.
    pub(crate) policy: Policy,
    pub(crate) delivered: u64,
}

/// What all sessions share: bounds, counters, memory.
pub(crate) struct Budget {
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) drops: Drops,
    /// Bytes of all queues.
    pub(crate) bytes: AtomicU64,
}

impl Budget {
    /// Bytes of all queues, with what a visit added and freed.
    pub(crate) fn bytes(&self, added: u64, freed: u64) -> u64 {
        // Who took a message may be done with its visit before who put it there: for a moment the sum is negative.
        let entered = self.bytes.load(Ordering::Relaxed).cast_signed();
        let known = entered.saturating_add_unsigned(added).saturating_sub_unsigned(freed);
        u64::try_from(known).unwrap_or(0)
    }
}

/// A copy of a message on its way into a queue.
pub(crate) struct Copy<'a> {
    pub(crate) message: &'a Message,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) identifiers: &'a Identifiers,
    /// As in [`Entry`].
    pub(crate) group: u32,
}

/// Refused: the queue is full and its owner wants publishers to be told.
#[derive(Debug)]
pub(crate) struct Full;

impl State {
    pub(crate) fn new(principal: Principal, traffic: Arc<Traffic>, first_cursor: u64) -> Self {
        Self {
            signal: None,
            traffic,
            peer: Peer::INTERNAL,
            owner: principal.name().map(Into::into),
            principal,
            ended: false,
            expiry: 0,
            window: 1,
            while_away: WhileAway::DropQos0,
            dozing: false,
            subscriptions: Vec::new(),
            queue: Queue::default(),
            inflight: Inflight::default(),
            seldom: Seldom::default(),
            will: None,
            next_cursor: first_cursor,
            shown: Cursor(first_cursor - 1),
            settled: Cursor(0),
            bytes: 0,
            missed: 0,
            policy: Policy::NONE,
            delivered: 0,
        }
    }

    pub(crate) fn held_by(&self, signal: &Arc<Signal>) -> bool {
        self.signal.as_ref().is_some_and(|s| Arc::ptr_eq(s, signal))
    }

    pub(crate) fn overflow(&self, limits: &Limits) -> Overflow {
        self.seldom.options.overflow.unwrap_or(limits.overflow)
    }

    pub(crate) fn max_messages(&self, limits: &Limits) -> u32 {
        self.seldom.options.max_queued_messages.unwrap_or(limits.max_queued_messages)
    }

    pub(crate) fn max_bytes(&self, limits: &Limits) -> u64 {
        self.seldom.options.max_queued_bytes.unwrap_or(limits.max_queued_bytes)
    }

    /// Waiting, and handed out but not settled.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len() + self.inflight.len()
    }

    pub(crate) fn queued_bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn oldest(&self) -> Option<Time> {
        let under_way = self.inflight.iter().map(|(_, s)| s.entry.message.time()).min();
        self.queue.oldest().into_iter().chain(under_way).min()
    }

    pub(crate) fn window_open(&self) -> bool {
        self.seldom.resend.is_empty() && self.may_send() && self.inflight.len() < usize::from(u16::MAX)
    }

    /// The next retained messages to come, if any are.
    pub(crate) fn next_scan(&mut self) -> Option<Scan> {
        (!self.seldom.scans.is_empty()).then(|| self.seldom.change(|seldom| seldom.scans.pop_front())).flatten()
    }

    /// Whether a retained message came after the subscription whose scan meets it: then it comes, or came, as any
    /// other does.
    pub(crate) fn came_live(&self, since: Time, message: &Message) -> bool {
        // A message has the time at which its burst began, which may be a little before the subscription.
        message.time() > since || (since.since(message.time()) < LONGEST_BURST && self.queue.holds(message.id()))
    }

    /// The first of `resend` was sent again, or needs it no more.
    pub(crate) fn next_resent(&mut self) {
        self.seldom.change(|seldom| seldom.resend.pop_front());
    }

    /// The holder has been told what it lost.
    pub(crate) fn told_of_missed(&mut self, account: &mut Account<'_>) {
        if self.missed == 0 {
            return;
        }
        self.missed = 0;
        account.tell(self.counts());
        self.tell_missed(0);
    }

    /// A read tells `missed` losses: with whatever it hands out they are acknowledged.
    pub(crate) fn tell_missed(&mut self, missed: u64) {
        if missed != self.seldom.missed_shown || !self.seldom.lost_shown.is_empty() {
            self.seldom.change(|seldom| (seldom.missed_shown, seldom.lost_shown) = (missed, Places::default()));
        }
    }

    /// The client has settled everything up to `cursor`: what it was told of, and what it had got before it was lost,
    /// is not missed any longer.
    pub(crate) fn settle_missed(&mut self, cursor: Cursor, account: &mut Account<'_>) {
        if self.missed > 0 {
            let known = self
                .seldom
                .change(|seldom| std::mem::take(&mut seldom.missed_shown) + seldom.lost_shown.take_through(cursor));
            self.missed -= known.min(self.missed);
            account.tell(self.counts());
        }
    }

    /// Of places that a full queue lost, notes those that the client was handed before.
    fn note_lost(&mut self, first: Cursor, count: u64) {
        let up_to = |place: Cursor| (place.0 + 1).saturating_sub(first.0).min(count);
        // The client has it from the stream that is still open: nothing to tell there.
        let sent = self.seldom.streamed.map_or(0, up_to);
        let shown = up_to(self.shown).saturating_sub(sent);
        if sent + shown > 0 {
            self.seldom.change(|seldom| {
                seldom.missed_shown += sent;
                if shown > 0 {
                    seldom.lost_shown.push(Cursor(first.0 + sent), shown);
                }
            });
        }
    }

    /// What was lost, as the store is to know it.
    pub(crate) fn counts(&self) -> Counts {
        Counts { missed: self.missed, dropped: self.seldom.dropped }
    }

    /// Whether one more may be under way, new or again.
    pub(crate) fn may_send(&self) -> bool {
        self.inflight.live() < usize::from(self.window)
    }

    /// Whether `take(Unsent)` would give something (as far as one can tell without looking at the store).
    pub(crate) fn deliverable(&self) -> bool {
        let open = self.window_open();
        !self.seldom.resend.is_empty()
            || !self.seldom.scans.is_empty()
            || self.queue.next(open).is_some()
            || (open && self.queue.is_stuck())
    }

    /// The newest place that was given.
    pub(crate) fn last_cursor(&self) -> Cursor {
        Cursor(self.next_cursor - 1)
    }

    pub(crate) fn next_cursor(&mut self) -> Cursor {
        let cursor = Cursor(self.next_cursor);
        self.next_cursor += 1;
        cursor
    }

    /// Puts a copy into the queue, or drops one by the session's overflow. `ready` is false for a reserved place;
    /// `is_own` knows those that the caller has reserved before, in the same batch.
    ///
    /// # Errors
    /// The session rejects when full; nothing was changed.
    pub(crate) fn push(
        &mut self,
        copy: &Copy<'_>,
        ready: bool,
        is_own: impl Fn(Cursor) -> bool,
        account: &mut Account<'_>,
    ) -> Result<Option<Cursor>, Full> {
        if self.ended {
            return Ok(None);
        }
        if copy.qos == Qos::AtMostOnce && self.drops_qos_0() {
            return Ok(None);
        }
        let cost = copy.message.cost() as u64;
        while self.is_full(&account.budget.limits, account.all_bytes(), cost) {
            match self.overflow(&account.budget.limits) {
                Overflow::Reject if copy.qos != Qos::AtMostOnce => return Err(Full),
                Overflow::DropOldest if self.drop_oldest(cost, &is_own, account) => {}
                _ => {
                    // The newcomer goes, wherever it would have stood.
                    account.copies += 1;
                    self.count_lost(copy.message, copy.qos, DropCause::QueueFull, account);
                    return Ok(None);
                }
            }
        }
        let cursor = self.next_cursor();
        self.take_in(cost, account);
        self.queue.push(Entry {
            message: copy.message.clone(),
            cursor,
            identifiers: copy.identifiers.clone(),
            group: copy.group,
            lsn: Lsn::default(),
            qos: copy.qos,
            retain: copy.retain,
            footing: if ready { Footing::Memory } else { Footing::Reserved },
            redelivered: false,
        });
        Ok(Some(cursor))
    }

    /// The will to publish now. One that stays with the session is there again for the next connection.
    pub(crate) fn spend_will(&mut self) -> Option<(Principal, Box<Will>)> {
        let will = match &self.will {
            Some(will) if will.stays && self.expiry > 0 => Some(will.clone()),
            _ => self.will.take(),
        };
        will.map(|will| (self.principal.clone(), will))
    }

    /// Whether nothing of QoS 0 is queued now: its client is away, and nobody asked for that.
    pub(crate) fn drops_qos_0(&self) -> bool {
        (self.signal.is_none() && self.while_away == WhileAway::DropQos0) || self.dozing
    }

    /// Whether a message of this cost is too much, while all queues hold `all_bytes`.
    pub(crate) fn is_full(&self, limits: &Limits, all_bytes: u64, cost: u64) -> bool {
        self.holds_too_much(limits, cost) || all_bytes + cost > limits.max_total_queued_bytes
    }

    /// The same for its own bounds, which count what lies on disk too.
    fn holds_too_much(&self, limits: &Limits, cost: u64) -> bool {
        self.queued() >= self.max_messages(limits) as usize || self.bytes + cost > self.max_bytes(limits)
    }

    fn drop_oldest(&mut self, cost: u64, is_own: impl Fn(Cursor) -> bool, account: &mut Account<'_>) -> bool {
        // Where only memory is short, what takes none need not go.
        let in_memory = !self.holds_too_much(&account.budget.limits, cost);
        let Some(gone) = self.queue.pop_oldest(in_memory, is_own) else { return false };
        self.drop_gone(&gone, DropCause::QueueFull, account);
        true
    }

    /// Counts an entry that was taken out of the queue as lost.
    pub(crate) fn drop_entry(&mut self, entry: &Entry, cause: DropCause, account: &mut Account<'_>) {
        self.give_back(entry, account);
        self.count_lost(&entry.message, entry.qos, cause, account);
        if cause == DropCause::QueueFull {
            self.note_lost(entry.cursor, 1);
        }
        account.settle(entry);
    }

    /// Counts an entry that was taken out of the queue as delivered.
    pub(crate) fn count_delivered(&mut self, entry: &Entry, account: &mut Account<'_>) {
        self.give_back(entry, account);
        self.delivered += 1;
        account.delivered += 1;
        account.settle(entry);
    }

    /// An entry that was taken out no longer counts against any bound.
    pub(crate) fn give_back(&mut self, entry: &Entry, account: &mut Account<'_>) {
        let cost = entry.message.cost() as u64;
        self.bytes -= cost;
        account.freed += cost;
        self.tell_of_room();
    }

    fn tell_of_room(&mut self) {
        if !self.seldom.room_waiters.is_empty() {
            self.seldom.change(|seldom| seldom.room_waiters.drain(..).for_each(|waiter| waiter.raise(ROOM)));
        }
    }

    /// A copy comes in and counts against the bounds.
    fn take_in(&mut self, cost: u64, account: &mut Account<'_>) {
        self.bytes += cost;
        account.added += cost;
        account.copies += 1;
    }

    fn count_lost(&mut self, message: &Message, qos: Qos, cause: DropCause, account: &mut Account<'_>) {
        account.lose(message, cause, &self.traffic);
        self.seldom.change(|seldom| seldom.dropped += 1);
        // The client is told of what a full queue cost it; it knows the rest, or asked for it.
        if cause == DropCause::QueueFull {
            self.missed += 1;
        }
        // Of QoS 0 nothing is promised over a restart, not even word of its loss.
        if qos != Qos::AtMostOnce {
            account.tell(self.counts());
        }
    }

    /// A link whose message was refused here hears when there is room. Bounded by the links there are.
    pub(crate) fn wait_for_room(&mut self, signal: &Arc<Signal>) {
        if !self.seldom.room_waiters.iter().any(|s| Arc::ptr_eq(s, signal)) {
            self.seldom.change(|seldom| {
                seldom.room_waiters.retain(|s| s.detached().is_none());
                seldom.room_waiters.push(signal.clone());
            });
        }
    }

    /// Tells the holder, if it could take something.
    pub(crate) fn ring(&self) {
        if let Some(signal) = self.signal.as_ref().filter(|_| self.deliverable()) {
            signal.raise(DELIVERABLE);
        }
    }

    /// The session ends: everything under way or waiting is lost with it, but for what other members of a group are
    /// to get in its place, which is given.
    pub(crate) fn leave_behind(&mut self, account: &mut Account<'_>) -> Vec<Entry> {
        let mut entries = Vec::new();
        let tags: Vec<Tag> = self.inflight.iter().map(|(tag, _)| tag).collect();
        entries.extend(tags.into_iter().filter_map(|tag| self.inflight.remove(tag)).map(|sent| (sent.entry, true)));
        let mut unseen = Vec::new();
        self.queue.drain_through(Cursor(u64::MAX), |gone| match gone {
            Gone::Entry(entry) => entries.push((entry, false)),
            Gone::Unseen(places) => unseen.push(places),
        });
        unseen.iter().for_each(|places| self.drop_unseen(places, DropCause::SessionEnded, account));
        let mut orphans = Vec::new();
        for (entry, sent) in entries {
            // A QoS 2 message that was sent goes to nobody else [MQTT-4.8.2-5].
            if entry.group == 0 || (sent && entry.qos == Qos::ExactlyOnce) {
                self.drop_entry(&entry, DropCause::SessionEnded, account);
            } else {
                self.give_back(&entry, account);
                orphans.push(entry);
            }
        }
        orphans.sort_unstable_by_key(|entry| entry.cursor);
        self.seldom = Seldom::default();
        orphans
    }

    /// All that it holds, for a store that knows nothing of it yet.
    pub(crate) fn record_contents(
        &self,
        key: SessionKey,
        shared: impl Fn(u32) -> Option<Filter>,
        records: &mut Vec<Record>,
    ) {
        records.extend(self.subscriptions.iter().map(|subscription| Record::Subscribed(key, subscription.clone())));
        if self.counts() != Counts::default() {
            records.push(Record::Counted(key, self.counts()));
        }
        let stored = |entry: &Entry| {
            let places = vec![Placed {
                session: key,
                cursor: entry.cursor,
                qos: entry.qos,
                retain: entry.retain,
                identifiers: entry.identifiers().into(),
                shared: shared(entry.group),
            }];
            Record::Stored { message: entry.message.clone(), places, incoming: None, retained: false }
        };
        let promised = |entry: &&Entry| entry.qos != Qos::AtMostOnce;
        records.extend(self.queue.after(Cursor(0)).filter(promised).map(stored));
        for (tag, sent) in self.inflight.iter() {
            records.push(stored(&sent.entry));
            records.push(Record::Sent(key, sent.entry.cursor, tag));
            if sent.stage == crate::link::Stage::Received {
                records.push(Record::Received(key, sent.entry.cursor, tag));
            }
        }
    }

    /// Restores a recovered entry that had been handed out.
    pub(crate) fn restore_sent(&mut self, tag: Tag, entry: Entry, received: bool, account: &mut Account<'_>) {
        self.take_in(entry.message.cost() as u64, account);
        self.inflight.restore(tag, entry);
        if let Some(sent) = self.inflight.get_mut(tag).filter(|_| received) {
            sent.stage = crate::link::Stage::Received;
        }
    }

    /// Puts an entry that comes from elsewhere (the store, the retained tree) at the end.
    pub(crate) fn restore(&mut self, entry: Entry, account: &mut Account<'_>) {
        self.take_in(entry.message.cost() as u64, account);
        self.queue.push(entry);
    }
}

impl Session {
    pub(crate) fn has(&self, wanted: u8) -> bool {
        self.traits.load(Ordering::Acquire) & wanted != 0
    }

    pub(crate) fn set_trait(&self, which: u8, on: bool) {
        if on {
            self.traits.fetch_or(which, Ordering::AcqRel);
        } else {
            self.traits.fetch_and(!which, Ordering::AcqRel);
        }
    }
}
