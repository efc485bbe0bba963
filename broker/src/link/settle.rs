//! A client's answers: what is done with leaves the session.

use super::{Cursor, Link, Lsn, Settle, Stage, Tag, UnknownCursor};
use crate::{
    message::{Message, Qos},
    metrics::DropCause,
    session::{Account, State, beyond::Gone, signal::DELIVERABLE},
    store::Record,
};

impl Link {
    /// Settles a burst of answers under one lock; whatever matched nothing is appended to `unknown`.
    pub fn settle(&mut self, answers: &[(Tag, Settle)], unknown: &mut Vec<(Tag, Settle)>) -> Lsn {
        let mut account = Account::new(&self.core.budget, &self.session);
        if let Some(mut state) = self.state() {
            for (tag, how) in answers {
                if !self.settle_one(&mut state, *tag, *how, &mut account) {
                    unknown.push((*tag, *how));
                }
            }
            if state.deliverable() {
                self.signal.note(DELIVERABLE);
            }
        }
        self.core.note(&mut account.records)
    }

    /// The message handed out under `tag` and not settled.
    #[must_use]
    pub fn under_way(&self, tag: Tag) -> Option<Message> {
        self.state()?.inflight.get_mut(tag).map(|sent| sent.entry.message.clone())
    }

    fn settle_one(&self, state: &mut State, tag: Tag, how: Settle, account: &mut Account<'_>) -> bool {
        let Some(sent) = state.inflight.get_mut(tag) else { return false };
        let fits = match how {
            Settle::Acknowledged => sent.entry.qos == Qos::AtLeastOnce,
            Settle::Received => sent.entry.qos == Qos::ExactlyOnce,
            Settle::Completed => sent.stage == Stage::Received,
            Settle::Done | Settle::Rejected => true,
        };
        if !fits {
            return false;
        }
        if how == Settle::Received {
            if sent.stage == Stage::Offered {
                sent.stage = Stage::Received;
                if account.kept() {
                    account.records.push(Record::Received(self.session.key, sent.entry.cursor, tag));
                }
            }
            return true;
        }
        if let Some(sent) = state.inflight.remove(tag) {
            match how {
                Settle::Rejected => state.drop_entry(&sent.entry, DropCause::Rejected, account),
                _ => state.count_delivered(&sent.entry, account),
            }
        }
        true
    }

    /// Settles everything up to and including `cursor`. Older than what was settled before is fine and does nothing.
    ///
    /// # Errors
    /// The cursor was never handed out, or the link was taken over.
    pub fn settle_through(&mut self, cursor: Cursor) -> Result<Lsn, UnknownCursor> {
        let mut records = Vec::new();
        {
            let mut guard = self.state().ok_or(UnknownCursor)?;
            let state = &mut *guard;
            if cursor <= state.settled {
                return Ok(Lsn::default());
            }
            if cursor > state.shown {
                return Err(UnknownCursor);
            }
            state.settled = cursor;
            let mut account = Account::new(&self.core.budget, &self.session);
            state.settle_missed(cursor, &mut account);
            let mut entries = Vec::new();
            state.queue.drain_through(cursor, |gone| entries.push(gone));
            // What another road handed out and did not settle, and is not past the point of no return.
            let tags: Vec<Tag> = state
                .inflight
                .iter()
                .filter(|(_, sent)| sent.stage == Stage::Offered && sent.entry.cursor <= cursor)
                .map(|(tag, _)| tag)
                .collect();
            let sent = tags.into_iter().filter_map(|tag| state.inflight.remove(tag));
            entries.extend(sent.map(|sent| Gone::Entry(sent.entry)));
            for gone in &entries {
                state.count_gone(gone, &mut account);
            }
            records.append(&mut account.records);
            if self.kept() {
                records.push(Record::SettledThrough(self.session.key, cursor));
            }
            if state.deliverable() {
                self.signal.note(DELIVERABLE);
            }
        }
        Ok(self.core.note(&mut records))
    }

    /// Whether messages that wait lie on disk, and are being read now: [`super::Event::Deliverable`] follows. A road
    /// that says "nothing waits" when `take` gives nothing asks this first.
    #[must_use]
    pub fn is_paging(&self) -> bool {
        self.state().is_some_and(|state| state.queue.is_paging())
    }

    /// The position up to which everything is settled by cursor.
    #[must_use]
    pub fn settled(&self) -> Cursor {
        self.session.state.lock().settled
    }

    /// A cursor whose acknowledgement covers what is missed when no message waits that could carry one; the same again
    /// until then. `None`: nothing is missed, or a message waits.
    #[must_use]
    pub fn behind_the_missed(&mut self) -> Option<Cursor> {
        let mut state = self.state()?;
        let waits = !state.queue.is_empty() || state.inflight.iter().any(|(_, sent)| sent.stage == Stage::Offered);
        if state.missed == 0 || waits {
            return None;
        }
        if state.last_cursor() <= state.settled {
            // The newcomers were lost: none of them was given a place.
            state.next_cursor();
        }
        state.shown = state.shown.max(state.last_cursor());
        Some(state.last_cursor())
    }

    /// From here on this link is a stream: what it hands out after `from` by cursor reaches the client at once, and is
    /// not missed when a full queue loses it before it is settled.
    pub fn stream(&mut self, from: Cursor) {
        if let Some(mut state) = self.state() {
            state.seldom.change(|seldom| (seldom.streamed, seldom.missed_shown) = (Some(from), 0));
        }
    }

    /// Messages lost to a full queue that this stream has neither sent nor told of.
    #[must_use]
    pub fn newly_missed(&mut self) -> u64 {
        self.state().map_or(0, |mut state| {
            let news = state.missed - state.seldom.missed_shown.min(state.missed);
            if news > 0 {
                let missed = state.missed;
                state.tell_missed(missed);
            }
            news
        })
    }

    /// Messages lost to a full queue since the settled position; told again until something after it is settled.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.state().map_or(0, |mut state| {
            let missed = state.missed;
            state.tell_missed(missed);
            missed
        })
    }
}
