//! Publications that must be journaled, may be refused, or change a topic's state: places first, then records.

use super::{
    Outcome, Publisher,
    batch::{Batch, Staged},
};
use crate::{
    broker::Core,
    idempotency::{Answer, Answers, Known},
    link::{Cursor, Lsn},
    message::{Condition, Message, MessageId, Qos},
    router::{Route, Target, retained::Retained},
    session::{Account, Copy, Full, KEPT, REJECTS, Session, State, queue::Footing, signal::Signal},
    store::{Placed, Record, SessionKey, Standing},
    topic::Filter,
};
use parking_lot::{MutexGuard, RwLockWriteGuard};
use std::{num::NonZeroU16, sync::Arc};

impl Publisher {
    /// Whether anything staged must be reserved or journaled before it is queued.
    pub(super) fn needs_journal(&self, batch: &Batch) -> bool {
        let own = batch.has_exactly_once && self.holder().is_some_and(|(session, _)| session.has(KEPT));
        let mut start = 0;
        own || batch.runs.iter().any(|run| {
            let promised = batch.staged[start..run.end].iter().any(|s| s.message.qos() != Qos::AtMostOnce);
            start = run.end;
            promised && run.route.any(KEPT | REJECTS)
        })
    }

    /// For messages that must be journaled, may be refused, or change a topic's state: reserves their places, appends
    /// them as one batch, sets the states. What is refused gets its verdict; `deliver` does the rest.
    pub(super) fn reserve_and_journal(&self, batch: &mut Batch) -> Lsn {
        let core = &self.core;
        let mut retained = batch.careful.then(|| core.retained.write());
        let with_keys = batch.staged.iter().any(|s| s.special.as_ref().is_some_and(|s| s.idempotency.is_some()));
        let mut journal = Journal {
            core,
            user: self.principal.name(),
            answers: with_keys.then(|| core.answers.lock()),
            answered: Vec::new(),
            repeated: Lsn::default(),
            waiting: self.holder().map(|(_, signal)| signal),
            open: core.store.standing() == Standing::Open,
            records: Vec::new(),
            placed: Vec::new(),
            plain: Vec::new(),
        };
        let own_key = self.holder().filter(|(session, _)| session.has(KEPT)).map(|(session, _)| session.key);
        let (mut start, mut stopped) = (0, None);
        for run in &batch.runs {
            for staged in batch.staged[start..run.end].iter_mut().filter(|s| s.verdict.is_none()) {
                let promised = staged.message.qos() != Qos::AtMostOnce;
                if promised && stopped.is_some() {
                    staged.verdict = stopped;
                    continue;
                }
                let incoming = own_key.zip(staged.exactly_once);
                staged.verdict = journal.take_in(&run.route, staged, incoming, retained.as_mut()).err();
                let waits = matches!(staged.verdict, Some(Outcome::QuotaExceeded | Outcome::StoreUnavailable));
                stopped = stopped.or(staged.verdict.filter(|_| batch.in_order && promised && waits));
            }
            start = run.end;
        }
        let open = journal.open;
        let appended = journal.append();
        if let Some((_, signal)) = self.holder().filter(|_| !open || appended.is_err()) {
            core.wait_for_store(signal);
        }
        match appended {
            Ok(lsn) => {
                if let Some(retained) = retained.as_mut() {
                    let accepted = batch.staged.iter().filter(|s| s.verdict.is_none() && s.message.retain());
                    accepted.for_each(|s| retained.set(&s.message));
                }
                lsn
            }
            Err(repeated) => {
                for staged in &mut batch.staged {
                    let promised = staged.message.qos() != Qos::AtMostOnce;
                    let hurt = promised || staged.message.retain() || staged.special.is_some();
                    if staged.verdict.is_none() && hurt {
                        staged.verdict = Some(Outcome::StoreUnavailable);
                    }
                }
                repeated
            }
        }
    }
}

/// One batch on its way into the journal.
struct Journal<'a> {
    core: &'a Arc<Core>,
    user: Option<&'a str>,
    waiting: Option<&'a Arc<Signal>>,
    /// The store takes what must be kept. If not, nothing is dropped to make room for what cannot come in.
    open: bool,
    /// Held over the batch if anything in it has an idempotency key.
    answers: Option<MutexGuard<'a, Answers>>,
    answered: Vec<Answer>,
    /// The position that repeated answers wait for.
    repeated: Lsn,
    records: Vec<Record>,
    placed: Vec<(&'a Arc<Session>, Cursor, Footing)>,
    /// What goes without a promise to members of groups that were chosen for it.
    plain: Vec<(&'a Target, Message)>,
}

impl<'a> Journal<'a> {
    /// Reserves a message's places and writes its record; all or nothing.
    fn take_in(
        &mut self,
        route: &'a Route,
        staged: &Staged,
        incoming: Option<(SessionKey, NonZeroU16)>,
        retained: Option<&mut RwLockWriteGuard<'_, Retained>>,
    ) -> Result<(), Outcome> {
        let (core, message) = (self.core, &staged.message);
        let (retain, special) = (message.retain(), staged.special.as_deref());
        let key = special.and_then(|special| special.idempotency.as_deref());
        // A repeat is answered whatever the topic's state is by now.
        if let Some((key, answers)) = key.zip(self.answers.as_mut()) {
            match answers.look(self.user, key, message.time(), &mut self.records) {
                Known::New => {}
                Known::Answered { id, matched, lsn } => {
                    self.repeated = self.repeated.max(lsn);
                    return Err(Outcome::Repeated { matched, id });
                }
                Known::Other => return Err(Outcome::KeyReused),
                Known::Full => return Err(Outcome::QuotaExceeded),
            }
        }
        if let Some(retained) = retained {
            let current = retained.current(message.topic().as_str(), message.time());
            let condition = special.and_then(|special| special.condition.as_ref());
            if condition.is_some_and(|condition| !condition.holds(current)) {
                return Err(Outcome::ConditionFailed { current });
            }
            if retain
                && !message.is_transient()
                && !message.payload().is_empty()
                && !retained.has_room(message, &core.budget.limits)
            {
                return Err(Outcome::QuotaExceeded);
            }
        }
        let places = self.reserve(route, message)?;
        if let Some((key, answers)) = key.zip(self.answers.as_mut()) {
            let matched = route.matched(message.head().origin.session);
            let answer = answers.keep(self.user, key, message.id(), message.time(), matched);
            if core.store.keeps() {
                self.records.push(Record::Answered(Box::new(answer.clone())));
            }
            self.answered.push(answer);
        }
        // The server's own states are made anew at each start.
        if core.store.keeps() && !message.is_transient() {
            if retain && message.payload().is_empty() {
                self.records.push(Record::Cleared(message.topic().clone()));
            }
            let retained = retain && !message.payload().is_empty();
            if !places.is_empty() || incoming.is_some() || retained {
                self.records.push(Record::Stored { message: message.clone(), places, incoming, retained });
            }
        }
        Ok(())
    }

    /// Reserves a place in every queue that must not miss the message; none, if one of them refuses.
    fn reserve(&mut self, route: &'a Route, message: &Message) -> Result<Vec<Placed>, Outcome> {
        let (first_place, first_plain) = (self.placed.len(), self.plain.len());
        let mut places = Vec::new();
        let Err(refused) = self.reserve_all(route, message, &mut places) else { return Ok(places) };
        for (session, cursor, _) in self.placed.drain(first_place..) {
            cancel(self.core, session, cursor);
        }
        self.plain.truncate(first_plain);
        // What made room for this message elsewhere stays gone; its records stay too.
        Err(refused)
    }

    fn reserve_all(&mut self, route: &'a Route, message: &Message, places: &mut Vec<Placed>) -> Result<(), Outcome> {
        for target in route.targets.iter().filter(|target| target.reserves(message)) {
            self.place(target, target.session.state.lock(), None, message, places)?;
        }
        if message.qos() == Qos::AtMostOnce {
            return Ok(());
        }
        for shared in &route.shared {
            let Some((member, state)) = shared.choose(message, &self.core.budget) else { continue };
            match member.qos_for(message) {
                Qos::AtMostOnce => self.plain.push((member, message.clone())),
                _ => self.place(member, state, Some(&shared.filter), message, places)?,
            }
        }
        Ok(())
    }

    fn place(
        &mut self,
        target: &'a Target,
        mut state: MutexGuard<'_, State>,
        shared: Option<&Filter>,
        message: &Message,
        places: &mut Vec<Placed>,
    ) -> Result<(), Outcome> {
        if !self.open && target.session.has(KEPT) {
            return Err(Outcome::StoreUnavailable);
        }
        let mut account = Account::new(&self.core.budget, &target.session);
        // The burst's own places may go again, or its newest messages would be lost in the place of the oldest.
        let is_own = |cursor| {
            let mut placed = self.placed.iter().rev();
            placed.any(|(session, place, _)| *place == cursor && Arc::ptr_eq(session, &target.session))
        };
        let pushed = state.push(&target.copy(message), false, is_own, &mut account);
        if let (Err(Full), Some(signal)) = (&pushed, self.waiting) {
            state.wait_for_room(signal);
        }
        drop(state);
        self.records.append(&mut account.records);
        if let Some(cursor) = pushed.map_err(|Full| Outcome::QuotaExceeded)? {
            let footing = if account.kept() { Footing::Store } else { Footing::Memory };
            self.placed.push((&target.session, cursor, footing));
            if account.kept() {
                places.push(target.placed(message, cursor, shared));
            }
        }
        Ok(())
    }

    /// Writes the records and makes the places ready, or gives them back. Gives the position to wait for; of an error,
    /// what repeated answers wait for.
    fn append(mut self) -> Result<Lsn, Lsn> {
        let (core, repeated) = (self.core, self.repeated);
        let appended = match self.records.is_empty() || !core.store.keeps() {
            true => Ok(Lsn::default()),
            false => core.store.append(&mut self.records),
        };
        let Ok(lsn) = appended else {
            // What was dropped to make room is gone all the same.
            self.records.retain(|record| {
                matches!(record, Record::Settled(..) | Record::Gone { .. } | Record::Counted(..) | Record::Lapsed(_))
            });
            core.note(&mut self.records);
            self.answered.iter().zip(self.answers.as_mut()).for_each(|(answer, answers)| answers.take_back(answer));
            self.placed.iter().for_each(|(session, cursor, _)| cancel(core, session, *cursor));
            return Err(repeated);
        };
        self.answered.iter().zip(self.answers.as_mut()).for_each(|(answer, answers)| answers.journaled(answer, lsn));
        for (session, cursor, footing) in self.placed {
            let mut state = session.state.lock();
            state.queue.fill(cursor, lsn, footing);
            core.tend(session, &mut state);
            state.ring();
        }
        for (member, message) in self.plain {
            core.push_one(member, member.session.state.lock(), &message);
        }
        Ok(lsn.max(repeated))
    }
}

/// Gives a reserved place back, as if the message had never come.
fn cancel(core: &Core, session: &Session, cursor: Cursor) {
    let mut state = session.state.lock();
    if let Some(entry) = state.queue.cancel(cursor) {
        let mut account = Account::unkept(&core.budget, session);
        state.give_back(&entry, &mut account);
        account.take_back();
    }
    state.ring();
}

impl Target {
    /// What the store is to know of a place.
    pub(super) fn placed(&self, message: &Message, cursor: Cursor, shared: Option<&Filter>) -> Placed {
        let Copy { qos, retain, .. } = self.copy(message);
        let identifiers = self.identifiers.as_ref().map_or_else(Box::default, |ids| ids.slice.into());
        Placed { session: self.session.key, cursor, qos, retain, identifiers, shared: shared.cloned() }
    }
}

impl Condition {
    fn holds(&self, current: Option<MessageId>) -> bool {
        match self {
            Self::Absent => current.is_none(),
            Self::Present => current.is_some(),
            Self::Is(ids) => current.is_some_and(|id| ids.contains(&id)),
        }
    }
}
