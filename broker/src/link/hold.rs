//! The hold itself: who holds, events, and letting go.

use super::{Detach, Event, Interest, Lsn, Refused, SessionOptions};
use crate::{
    access::{ClientId, Peer, Principal},
    broker::Core,
    limits::Overflow,
    message::Will,
    publisher::Publisher,
    session::{
        KEPT, REJECTS, Session, State,
        signal::{DELIVERABLE, DURABLE, ROOM, Signal},
    },
    store::{Record, Standing},
    topic::Topic,
    traffic::Traffic,
};
use parking_lot::MutexGuard;
use std::{
    future::poll_fn,
    num::NonZeroU16,
    sync::Arc,
    task::{Context, Poll},
};

/// One front-end's hold on one session. Dropping it is [`Detach::WithWill`].
pub struct Link {
    pub(super) core: Arc<Core>,
    pub(super) session: Arc<Session>,
    pub(super) signal: Arc<Signal>,
    publisher: Publisher,
}

impl Link {
    pub(crate) fn new(core: Arc<Core>, session: Arc<Session>, signal: Arc<Signal>, principal: Principal) -> Self {
        let publisher = Publisher::of_session(core.clone(), principal, session.clone(), signal.clone());
        Self { core, session, signal, publisher }
    }

    /// The way in for what this client publishes.
    #[inline]
    pub fn publisher(&mut self) -> &mut Publisher {
        &mut self.publisher
    }

    /// The counters of the gateway it came by.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.signal.traffic
    }

    /// The session's name; `None` when unnamed.
    #[must_use]
    pub fn client_id(&self) -> Option<&ClientId> {
        self.session.client.as_ref()
    }

    /// Where the client speaks from. Takes the session's lock.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.session.state.lock().peer
    }

    /// Who the client is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.publisher.principal
    }

    /// The session's state, unless another link holds it by now.
    pub(super) fn state(&self) -> Option<MutexGuard<'_, State>> {
        let state = self.session.state.lock();
        state.held_by(&self.signal).then_some(state)
    }

    pub(super) fn kept(&self) -> bool {
        self.session.has(KEPT)
    }

    /// Incoming QoS 2: PUBREL frees the publisher's packet identifier. `false`: it was not in use.
    pub fn release(&mut self, packet_id: NonZeroU16) -> (Lsn, bool) {
        let mut incoming = self.session.incoming.lock();
        if self.signal.detached().is_some() || !incoming.remove(packet_id) {
            return (Lsn::default(), false);
        }
        if !self.kept() {
            return (Lsn::default(), true);
        }
        (self.core.note(&mut vec![Record::Released(self.session.key, packet_id)]), true)
    }

    /// Frees every packet identifier of incoming QoS 2: the publisher has forgotten its side of the session.
    pub fn release_all(&mut self) -> Lsn {
        let mut incoming = self.session.incoming.lock();
        if self.signal.detached().is_some() {
            return Lsn::default();
        }
        let freed = incoming.clear();
        let mut records: Vec<_> = match self.kept() {
            true => freed.into_iter().map(|id| Record::Released(self.session.key, id)).collect(),
            false => Vec::new(),
        };
        self.core.note(&mut records)
    }

    /// Incoming QoS 2 publications that await their PUBREL (for the receive maximum).
    #[must_use]
    pub fn unreleased(&self) -> usize {
        self.session.incoming.lock().len()
    }

    /// Whether everything up to `lsn` is as safe as promised. If not, an [`Event::Durable`] will come for it.
    pub fn hold(&mut self, lsn: Lsn) -> bool {
        lsn == Lsn::default() || self.core.durable_or_wait(lsn, &self.signal, DURABLE)
    }

    /// The session expiry in force, in seconds.
    #[must_use]
    pub fn expiry(&self) -> u32 {
        self.session.state.lock().expiry
    }

    /// Changes the session expiry (MQTT 5 DISCONNECT), in seconds. Gives the expiry granted.
    pub fn set_expiry(&mut self, expiry: u32) -> u32 {
        let granted = expiry.min(self.core.budget.limits.max_session_expiry);
        let mut records = Vec::new();
        if let Some(mut state) = self.state() {
            state.expiry = granted;
            self.core.record_session(&self.session, &mut state, &mut records);
        }
        self.core.note(&mut records);
        granted
    }

    /// Changes the session's own bounds.
    pub fn set_options(&mut self, options: SessionOptions) -> Lsn {
        let mut records = Vec::new();
        if let Some(mut state) = self.state() {
            let limits = &self.core.budget.limits;
            let options = options.of(self.client_id(), limits);
            state.seldom.change(|seldom| seldom.options = options);
            let rejects = state.overflow(limits) == Overflow::Reject;
            self.session.set_trait(REJECTS, rejects);
            self.core.record_session(&self.session, &mut state, &mut records);
        }
        self.core.note(&mut records)
    }

    /// The will in force.
    #[must_use]
    pub fn will(&self) -> Option<Will> {
        self.state().and_then(|state| state.will.as_deref().cloned())
    }

    /// Whether its client sleeps and wants no QoS 0 kept for it meanwhile (MQTT-SN 1.2 §6.14). What is dropped so is
    /// not counted: nothing was promised.
    pub fn doze(&mut self, dozing: bool) {
        if let Some(mut state) = self.state() {
            state.dozing = dozing;
        }
    }

    /// Sets, replaces or discards the will (MQTT-SN WILLTOPICUPD, WILLMSGUPD).
    ///
    /// # Errors
    /// The will's topic may not be published to, or the store cannot keep it.
    pub fn set_will(&mut self, will: Option<Will>) -> Result<Lsn, Refused> {
        let may = |topic: &Topic| self.core.rights.may_publish(self.principal(), self.client_id(), topic, false);
        if will.as_ref().is_some_and(|will| !may(&will.topic)) {
            return Err(Refused::NotAuthorized);
        }
        if will.is_some() && self.core.store.standing() == Standing::Exhausted {
            return Err(Refused::QuotaExceeded);
        }
        let mut records = Vec::new();
        if let Some(mut state) = self.state().filter(|state| state.will.as_deref() != will.as_ref()) {
            state.will = will.map(Box::new);
            match self.kept() {
                true => records.push(Record::Will(self.session.key, state.will.clone())),
                false => self.core.record_session(&self.session, &mut state, &mut records),
            }
        }
        Ok(self.core.note(&mut records))
    }

    /// The one thing to await; cancel-safe. The waker of the last call is woken once for any number of events.
    pub fn poll_event(&mut self, cx: &mut Context<'_>, interest: Interest) -> Poll<Event> {
        let wanted = match interest {
            Interest::Everything => DELIVERABLE | DURABLE | ROOM,
            Interest::NoDeliveries => DURABLE | ROOM,
        };
        if let Some(event) = self.next_event(wanted) {
            return Poll::Ready(event);
        }
        self.signal.register(cx.waker());
        // What was raised before the waker stood would not wake it.
        self.next_event(wanted).map_or(Poll::Pending, Poll::Ready)
    }

    #[inline]
    fn next_event(&self, wanted: u16) -> Option<Event> {
        if let Some(reason) = self.signal.detached() {
            return Some(Event::Detached(reason));
        }
        self.signal.take(wanted).map(|bit| match bit {
            DURABLE => Event::Durable(self.core.store.durable()),
            ROOM => Event::Room,
            _ => Event::Deliverable,
        })
    }

    /// [`Link::poll_event`] as a future.
    pub async fn event(&mut self, interest: Interest) -> Event {
        poll_fn(|cx| self.poll_event(cx, interest)).await
    }

    /// Lets go of the session.
    pub fn detach(self, how: Detach) {
        // What is dropped afterwards holds nothing any more.
        self.core.detach(&self.session, &self.signal, how == Detach::WithWill);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.core.detach(&self.session, &self.signal, true);
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("client", &self.session.client).finish_non_exhaustive()
    }
}
