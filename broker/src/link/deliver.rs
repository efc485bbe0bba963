//! Handing out: from the session's queue, its resumed deliveries, and the retained tree (`replay`), to a visitor that
//! encodes.

use super::{Budget, Cursor, Delivery, Link, Pick, Stage, Tag, Taken};
use crate::{
    clock::Time,
    link::Lsn,
    message::{Message, Qos},
    metrics::DropCause,
    session::{
        Account, State,
        queue::{Entry, Lane},
        signal::DELIVERABLE,
    },
    store::Record,
};

impl Link {
    /// Shows up to `budget` deliveries to `visit`, in order, under the session's lock: encode and return. Never more
    /// unsettled than the window. Gives how many were [`Taken::Sent`]; if it was ended by the budget or the visitor,
    /// [`super::Event::Deliverable`] comes again at once.
    pub fn take(&mut self, pick: Pick, budget: Budget, mut visit: impl FnMut(&Delivery<'_>) -> Taken) -> usize {
        let account = Account::new(&self.core.budget, &self.session);
        let mut round = Round { link: self, left: budget, taken: 0, over: false, now: None, durable: None, account };
        let sent = match pick {
            Pick::Unsent => round.unsent(&mut visit),
            Pick::Inflight => round.inflight(&mut visit),
            Pick::Oldest(after) => round.oldest(after, &mut visit),
        };
        self.core.note(&mut round.account.records);
        self.signal.traffic.add_messages_sent(sent);
        sent
    }
}

/// One call of `take`.
pub(super) struct Round<'a> {
    pub(super) link: &'a Link,
    pub(super) left: Budget,
    taken: usize,
    /// The visitor said stop.
    pub(super) over: bool,
    /// Read when the first message with an expiry comes.
    now: Option<Time>,
    /// Read when the first kept message comes.
    durable: Option<Lsn>,
    pub(super) account: Account<'a>,
}

impl Round<'_> {
    fn unsent(&mut self, visit: &mut impl FnMut(&Delivery<'_>) -> Taken) -> usize {
        let Some(mut guard) = self.link.state() else { return 0 };
        if !guard.seldom.resend.is_empty() {
            return 0;
        }
        if !guard.seldom.scans.is_empty() {
            drop(guard);
            let Some(again) = self.with_retained(|round, retained, state| round.replay(retained, state, visit)) else {
                return 0;
            };
            guard = again;
        }
        // The parts of the state are used side by side below.
        let state = &mut *guard;
        let mut unsafe_yet = false;
        while self.goes_on() {
            let Some((lane, entry)) = state.queue.next(!unsafe_yet && state.window_open()) else { break };
            if entry.qos == Qos::ExactlyOnce && !self.is_durable(entry.lsn) {
                // It could come twice after a crash. When it is safe the holder hears of it; QoS 0 does not wait.
                if !self.link.core.durable_or_wait(entry.lsn, &self.link.signal, DELIVERABLE) {
                    unsafe_yet = true;
                    continue;
                }
            }
            if let Some(cause) = self.spoilt(state, &entry.message) {
                self.discard(state, lane, cause);
                continue;
            }
            let cost = entry.message.cost();
            if !self.fits(cost) {
                break;
            }
            let expiry = self.expiry_left(Some(&entry.message));
            let tag = (entry.qos != Qos::AtMostOnce).then(|| state.inflight.next_tag());
            let taken = visit(&delivery(entry, tag, Stage::Offered, state.missed, expiry));
            match (taken, taken.drop_cause()) {
                (_, Some(cause)) => self.discard(state, lane, cause),
                (Taken::Stop, None) => self.over = true,
                (_, None) => self.hand_out(state, lane, tag, cost),
            }
        }
        if state.queue.is_empty() {
            // Everything that waits from here on was let in under the present rights.
            state.policy = self.link.core.rights.policy();
        }
        self.turn_page(state, Cursor(0), Cursor(0));
        self.look_again(state);
        self.taken
    }

    /// Reads ahead where the queue lies on disk.
    fn turn_page(&self, state: &mut State, passed: Cursor, after: Cursor) {
        self.link.core.turn_page(&self.link.session, state, passed, after);
    }

    fn hand_out(&mut self, state: &mut State, lane: Lane, tag: Option<Tag>, cost: usize) {
        let Some(entry) = state.queue.pop(lane) else { return };
        state.told_of_missed(&mut self.account);
        self.count(cost);
        match tag {
            Some(tag) => {
                if self.link.kept() {
                    self.account.records.push(Record::Sent(self.link.session.key, entry.cursor, tag));
                }
                state.inflight.push(entry);
            }
            None => state.count_delivered(&entry, &mut self.account),
        }
    }

    fn discard(&mut self, state: &mut State, lane: Lane, cause: DropCause) {
        if let Some(entry) = state.queue.pop(lane) {
            state.drop_entry(&entry, cause, &mut self.account);
        }
    }

    fn inflight(&mut self, visit: &mut impl FnMut(&Delivery<'_>) -> Taken) -> usize {
        let Some(mut state) = self.link.state() else { return 0 };
        while self.goes_on() && state.may_send() {
            let Some(tag) = state.seldom.resend.front().copied() else { break };
            let Some(sent) = state.inflight.get_mut(tag) else {
                state.next_resent(); // settled meanwhile
                continue;
            };
            if sent.entry.qos == Qos::ExactlyOnce && !self.is_durable(sent.entry.lsn) {
                let lsn = sent.entry.lsn;
                if !self.link.core.durable_or_wait(lsn, &self.link.signal, DELIVERABLE) {
                    break;
                }
            }
            if let Some(cause) = self.spoilt_under_way(&sent.entry, sent.stage) {
                state.next_resent();
                self.drop_sent(&mut state, tag, cause);
                continue;
            }
            let cost = sent.entry.message.cost();
            if !self.fits(cost) {
                break;
            }
            sent.entry.redelivered = true;
            let expiry = self.expiry_left(Some(&sent.entry.message));
            let taken = visit(&delivery(&sent.entry, Some(tag), sent.stage, 0, expiry));
            match (taken, taken.drop_cause()) {
                (_, Some(cause)) => {
                    state.next_resent();
                    if let Some(sent) = state.inflight.remove(tag) {
                        state.drop_entry(&sent.entry, cause, &mut self.account);
                    }
                }
                (Taken::Stop, None) => self.over = true,
                (_, None) => {
                    state.next_resent();
                    state.inflight.set_live(tag);
                    self.count(cost);
                }
            }
        }
        self.look_again(&state);
        self.taken
    }

    fn oldest(&mut self, after: Cursor, visit: &mut impl FnMut(&Delivery<'_>) -> Taken) -> usize {
        let Some(mut guard) = self.link.state() else { return 0 };
        if !guard.seldom.scans.is_empty() {
            drop(guard);
            let Some(again) = self.with_retained(Self::queue_retained) else { return 0 };
            guard = again;
        }
        let state = &mut *guard;
        self.drop_spoilt(state, after);
        let mut shown = state.shown;
        let (mut last, mut held) = (None, None);
        {
            // What another road handed out and did not settle comes too, in its place.
            let mut under_way: Vec<&Entry> = state
                .inflight
                .iter()
                .filter(|(_, sent)| sent.stage == Stage::Offered && sent.entry.cursor > after)
                .map(|(_, sent)| &sent.entry)
                .collect();
            under_way.sort_unstable_by_key(|entry| entry.cursor);
            let mut under_way = under_way.into_iter().peekable();
            let mut waiting = state.queue.after(after).peekable();
            while self.goes_on() {
                let first_under_way = match (under_way.peek(), waiting.peek()) {
                    (Some(a), Some(b)) => a.cursor < b.cursor,
                    (a, None) => a.is_some(),
                    (None, Some(_)) => false,
                };
                let Some(entry) = (if first_under_way { under_way.next() } else { waiting.next() }) else { break };
                if entry.qos != Qos::AtMostOnce && !self.is_durable(entry.lsn) {
                    held = Some(entry.lsn);
                    break;
                }
                if !self.fits(entry.message.cost()) {
                    break;
                }
                let expiry = self.expiry_left(Some(&entry.message));
                let mut delivery = delivery(entry, None, Stage::Offered, 0, expiry);
                delivery.redelivered |= first_under_way || entry.cursor <= state.shown;
                match visit(&delivery) {
                    Taken::Sent => {
                        shown = shown.max(entry.cursor);
                        last = Some(entry.cursor);
                        self.count(entry.message.cost());
                    }
                    // A road that reads by cursor takes everything; it may pass one by all the same.
                    Taken::TooLarge | Taken::Rejected => {}
                    Taken::Stop => self.over = true,
                }
            }
        }
        state.shown = shown;
        self.turn_page(state, after, last.unwrap_or(after));
        if let Some(last) = last.filter(|_| state.seldom.streamed.is_some()) {
            state.seldom.change(|seldom| seldom.streamed = seldom.streamed.max(Some(last)));
        }
        if let Some(lsn) = held
            && self.link.core.durable_or_wait(lsn, &self.link.signal, DELIVERABLE)
        {
            self.link.signal.note(DELIVERABLE);
        }
        self.taken
    }

    /// Before a page is shown, what may no longer be shown goes.
    fn drop_spoilt(&mut self, state: &mut State, after: Cursor) {
        let mut spoilt = Vec::new();
        for entry in state.queue.after(after).take(self.left.messages) {
            spoilt.extend(self.spoilt(state, &entry.message).map(|cause| (entry.cursor, cause)));
        }
        for (cursor, cause) in spoilt {
            if let Some(entry) = state.queue.remove(cursor) {
                state.drop_entry(&entry, cause, &mut self.account);
            }
        }
        let mut spoilt = Vec::new();
        for (tag, sent) in state.inflight.iter().filter(|(_, sent)| sent.entry.cursor > after) {
            spoilt.extend(self.spoilt_under_way(&sent.entry, sent.stage).map(|cause| (tag, cause)));
        }
        for (tag, cause) in spoilt {
            self.drop_sent(state, tag, cause);
        }
    }

    fn drop_sent(&mut self, state: &mut State, tag: Tag, cause: DropCause) {
        if let Some(sent) = state.inflight.remove(tag) {
            state.drop_entry(&sent.entry, cause, &mut self.account);
        }
    }

    /// Why a waiting message must not be delivered after all.
    fn spoilt(&mut self, state: &State, message: &Message) -> Option<DropCause> {
        if message.expires().is_some() && message.expired(self.now()) {
            return Some(DropCause::Expired);
        }
        // Rights are asked again only if something about them changed since the message was let in.
        let changed = state.policy != self.link.core.rights.policy();
        (changed && !self.may_receive(message)).then_some(DropCause::NotAuthorized)
    }

    /// Why a message that was sent and not settled must not be sent again. Rare, so the rights are always asked.
    fn spoilt_under_way(&mut self, entry: &Entry, stage: Stage) -> Option<DropCause> {
        if stage == Stage::Received {
            // It was delivered; only PUBREL is owed.
            return None;
        }
        // Of QoS 2 the client may hold the identifier, and would take the next message under it for this one.
        if entry.qos == Qos::AtLeastOnce && entry.message.expires().is_some() && entry.message.expired(self.now()) {
            return Some(DropCause::Expired);
        }
        (!self.may_receive(&entry.message)).then_some(DropCause::NotAuthorized)
    }

    fn may_receive(&self, message: &Message) -> bool {
        self.link.core.rights.may_receive(self.link.principal(), self.link.client_id(), message.topic())
    }

    pub(super) fn now(&mut self) -> Time {
        *self.now.get_or_insert_with(|| self.link.core.clock.now())
    }

    /// Seconds left, rounded up: a message that is not expired has some left [MQTT-3.3.2-6].
    pub(super) fn expiry_left(&mut self, message: Option<&Message>) -> Option<u32> {
        let at = message?.expires()?;
        let left = at.since(self.now()).as_millis().div_ceil(1_000);
        Some(u32::try_from(left).unwrap_or(u32::MAX))
    }

    fn is_durable(&mut self, lsn: Lsn) -> bool {
        lsn == Lsn::default() || lsn <= *self.durable.get_or_insert_with(|| self.link.core.store.durable())
    }

    pub(super) fn goes_on(&self) -> bool {
        !self.over && self.left.messages > 0
    }

    pub(super) fn fits(&mut self, cost: usize) -> bool {
        let fits = self.taken == 0 || cost <= self.left.bytes;
        self.over |= !fits;
        fits
    }

    pub(super) fn count(&mut self, cost: usize) {
        self.taken += 1;
        self.left.messages -= 1;
        self.left.bytes = self.left.bytes.saturating_sub(cost);
    }

    /// What is left over is announced again, so that a driver that polls until nothing happens misses nothing.
    fn look_again(&self, state: &State) {
        if (self.over || self.left.messages == 0) && state.deliverable() {
            self.link.signal.note(DELIVERABLE);
        }
    }
}

pub(super) fn delivery(
    entry: &Entry,
    tag: Option<Tag>,
    stage: Stage,
    missed: u64,
    expiry: Option<u32>,
) -> Delivery<'_> {
    Delivery {
        message: &entry.message,
        qos: entry.qos,
        retain: entry.retain,
        tag,
        cursor: entry.cursor,
        stage,
        redelivered: entry.redelivered,
        missed: u32::try_from(missed).unwrap_or(u32::MAX),
        identifiers: entry.identifiers(),
        expiry,
    }
}
