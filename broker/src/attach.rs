//! The only way to a session: authenticate, fence the old holder, make or resume.

use crate::{
    access::{ClientId, Policy, Principal, Refusal},
    broker::{Broker, Core},
    limits::Overflow,
    link::{Attached, Hello, Link, Lsn, Reason, Start, Takeover},
    message::Will,
    session::{
        Incoming, KEPT, KNOWN, PRESENT, PROPERTIES, REJECTS, Session, State,
        signal::{DELIVERABLE, Signal},
    },
    store::{Record, Standing},
    timetable::Due,
    traffic::Traffic,
};
use hashbrown::hash_map::Entry;
use parking_lot::Mutex;
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

impl Broker {
    /// Authenticates, then opens or resumes the session, taking it over from whoever holds it. Returns once the old
    /// link is fenced: its calls then change nothing. The only way in.
    ///
    /// # Errors
    /// Why the client may not come in.
    pub async fn attach(&self, hello: Hello) -> Result<Attached, Refusal> {
        // Ids that begin with $ are the server's own.
        if !hello.peer.is_internal() && hello.client_id.as_ref().is_some_and(ClientId::is_own) {
            return Err(Refusal::InvalidClientId);
        }
        let principal = self.authenticate(&hello.credentials, hello.peer).await?;
        self.0.attach(hello, principal)
    }
}

impl Core {
    fn attach(self: &Arc<Self>, hello: Hello, principal: Principal) -> Result<Attached, Refusal> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Refusal::ServerUnavailable);
        }
        if let Some(will) = &hello.will {
            // The rights are asked now, and again when it is fired.
            if !self.rights.may_publish(&principal, hello.client_id.as_ref(), &will.topic, false) {
                return Err(Refusal::WillRefused);
            }
        }
        if self.would_reject(&hello) && !self.rights.may_reject(&principal, hello.client_id.as_ref(), hello.peer) {
            return Err(Refusal::NotAuthorized);
        }
        if self.store.standing() == Standing::Exhausted && self.must_be_known(&hello) {
            return Err(Refusal::StoreUnavailable);
        }
        // Counted before anything is made; a takeover gives the old holder's place back when it is fenced.
        let connection = Connection::of(&hello, self.gateways.of(&hello.gateway));
        self.count_connection(&connection)?;
        self.open(hello, principal).inspect_err(|_| self.uncount(&connection))
    }

    /// Whether this makes a session that may refuse other people's messages, where there was none.
    fn would_reject(&self, hello: &Hello) -> bool {
        let limits = &self.budget.limits;
        let rejects = hello.options.overflow == Some(Overflow::Reject) && limits.overflow != Overflow::Reject;
        rejects && {
            let there = hello.client_id.as_ref().and_then(|id| self.sessions.read().get(id).cloned());
            there.is_none_or(|session| session.state.lock().overflow(limits) != Overflow::Reject)
        }
    }

    /// Whether the store would have to know of this. The server's own parts are few, and are let in.
    fn must_be_known(&self, hello: &Hello) -> bool {
        let Some(client) = hello.client_id.as_ref().filter(|_| !hello.peer.is_internal()) else { return false };
        hello.expiry > 0
            || hello.will.is_some()
            || self.sessions.read().get(client).is_some_and(|session| session.has(KNOWN))
    }

    fn open(self: &Arc<Self>, hello: Hello, principal: Principal) -> Result<Attached, Refusal> {
        let Some(client) = hello.client_id.clone() else {
            return Ok(self.hold(&self.make(&hello, &principal), hello, principal, false));
        };
        let existing = {
            // Held while the old holder is looked at, so that two newcomers do not both find the session free.
            let mut sessions = self.sessions.write();
            match sessions.get(&client).cloned() {
                Some(session) => {
                    session.state.lock().admit(&hello, &principal)?;
                    session
                }
                None if hello.start == Start::Existing => return Err(Refusal::NoSession),
                None => {
                    let session = self.make(&hello, &principal);
                    sessions.insert(session.clone());
                    drop(sessions);
                    return Ok(self.hold(&session, hello, principal, false));
                }
            }
        };
        let resume = hello.start != Start::Clean;
        let old_will = self.fence(&existing, resume);
        if let Some((old, will)) = old_will {
            self.publish_will(&existing, &old, &will);
        }
        if resume && !existing.state.lock().ended {
            return Ok(self.hold(&existing, hello, principal, true));
        }
        self.end_session(&existing, Reason::TakenOver);
        let fresh = self.make(&hello, &principal);
        let before = self.sessions.write().insert(fresh.clone());
        if let Some(other) = before {
            // Somebody came in between; of two newcomers the later wins.
            self.end_session(&other, Reason::TakenOver);
        }
        Ok(self.hold(&fresh, hello, principal, false))
    }

    /// Ends the old holder's link: from here on its calls change nothing. Gives its will if that is to be published
    /// now: always when the session does not go on; else only without a delay [MQTT-3.1.3-9]. One that stays with the
    /// session is only ever published for a holder, and not when the newcomer may go on with it.
    fn fence(&self, session: &Arc<Session>, resume: bool) -> Option<(Principal, Box<Will>)> {
        // A flush under way is waited for.
        let _incoming = session.incoming.lock();
        let mut state = session.state.lock();
        let held = state.signal.take();
        if let Some(old) = &held {
            old.detach(Reason::TakenOver);
            self.disconnected(session, &state);
        }
        let now = match &state.will {
            Some(will) if will.stays && resume => return None,
            Some(will) if will.stays => held.is_some(),
            Some(will) => !resume || (held.is_some() && will.delay_s == 0),
            None => return None,
        };
        let will = state.will.take().filter(|_| now);
        will.map(|will| (state.principal.clone(), will))
    }

    fn make(self: &Arc<Self>, hello: &Hello, principal: &Principal) -> Arc<Session> {
        let state = State::new(principal.clone(), self.gateways.of(&hello.gateway), self.first_cursor());
        self.router.add_session(|id| {
            Arc::new(Session {
                id,
                key: self.session_key(),
                client: hello.client_id.clone(),
                traits: AtomicU8::new(0),
                incoming: Mutex::new(Incoming::default()),
                state: Mutex::new(state),
            })
        })
    }

    /// Gives the session to its new holder.
    fn hold(self: &Arc<Self>, session: &Arc<Session>, hello: Hello, principal: Principal, resumed: bool) -> Attached {
        let limits = &self.budget.limits;
        let own = hello.client_id.as_ref().is_some_and(ClientId::is_own);
        let expiry = match hello.client_id {
            // The bound is for clients' wishes.
            Some(_) if own => hello.expiry,
            Some(_) => hello.expiry.min(limits.max_session_expiry),
            None => 0,
        };
        let traffic = self.gateways.of(&hello.gateway);
        let signal = Arc::new(Signal::new(traffic.clone()));
        let mut records = Vec::new();
        {
            let mut guard = session.state.lock();
            let state = &mut *guard;
            if state.ended {
                // Ended in this moment, by somebody who may: the newcomer is too.
                signal.detach(Reason::SessionEnded);
                self.uncount(&Connection::of(&hello, traffic));
                let link = Link::new(self.clone(), session.clone(), signal, principal);
                return Attached { link, resumed, expiry, lsn: Lsn::default() };
            }
            if let Some(other) = state.signal.replace(signal.clone()) {
                // Two newcomers raced past the fence; the later wins.
                other.detach(Reason::TakenOver);
                self.disconnected(session, state);
            }
            state.traffic = traffic;
            state.peer = hello.peer;
            state.expiry = expiry;
            state.window = hello.window.min(limits.max_inflight).max(1);
            state.while_away = hello.while_away;
            // The server's own parts say for whom they hold a session, and may change that.
            let before = state.owner.take().filter(|_| !own);
            state.owner = before.or_else(|| principal.name().map(Into::into));
            if state.principal != principal {
                // Other rights apply to what waits and to what is subscribed.
                state.principal = principal.clone();
                state.policy = Policy::NONE;
                self.router.bump();
            }
            let resend = state.inflight.rest();
            state.seldom.change(|seldom| {
                (seldom.resend, seldom.ends) = (resend, None);
                (seldom.lingers, seldom.present_until) = (hello.lingers, None);
                seldom.streamed = None;
                if hello.options != crate::link::SessionOptions::default() {
                    seldom.options = hello.options.of(session.client.as_ref(), limits);
                }
            });
            let kept = state.will.take().filter(|will| will.stays && hello.keeps_will);
            state.will = hello.will.map(Box::new).or(kept);
            state.dozing = false;
            let rejects = state.overflow(limits) == Overflow::Reject;
            session.set_trait(REJECTS, rejects);
            session.set_trait(PROPERTIES, hello.properties);
            session.set_trait(PRESENT, true);
            if state.deliverable() {
                signal.note(DELIVERABLE);
            }
            self.record_session(session, state, &mut records);
        }
        self.timetable.set(session, Due::End, None);
        self.timetable.set(session, Due::Will, None);
        self.timetable.set(session, Due::Credentials, principal.expires());
        let lsn = self.note(&mut records);
        let link = Link::new(self.clone(), session.clone(), signal, principal);
        Attached { link, resumed, expiry, lsn }
    }

    /// The session's terms have changed: what must survive of it is itself if it outlives its connection, and its will
    /// anyway.
    pub(crate) fn record_session(&self, session: &Session, state: &mut State, records: &mut Vec<Record>) {
        let Some(client) = session.client.clone().filter(|_| self.store.keeps()) else { return };
        let was_kept = session.has(KEPT);
        // What it has on disk alone stays there until its connection ends.
        let kept = state.expiry > 0 || state.queue.reaches_beyond();
        session.set_trait(KEPT, kept);
        if was_kept && !kept {
            state.queue.keep_in_memory();
        }
        if !kept && session.has(KNOWN) {
            // From now on it dies with its connection: nothing of it is worth keeping.
            session.set_trait(KNOWN, false);
            records.push(Record::Ended(session.key));
        }
        if !kept && state.will.is_none() {
            return;
        }
        session.set_trait(KNOWN, true);
        records.push(Record::Session {
            session: session.key,
            client,
            owner: state.owner.clone(),
            expiry: state.expiry,
            options: state.seldom.options,
            while_away: state.while_away,
        });
        records.push(Record::Will(session.key, state.will.clone()));
        if session.has(KEPT) && !was_kept {
            // What it holds already was not worth keeping until now.
            let shared = |group| self.router.group_filter(group);
            state.record_contents(session.key, shared, records);
        }
    }

    fn count_connection(&self, connection: &Connection) -> Result<(), Refusal> {
        let limits = &self.budget.limits;
        let mut connections = self.connections.lock();
        if let Some(address) = connection.address {
            if connections.count >= limits.max_connections {
                return Err(Refusal::ServerBusy);
            }
            let here = connections.by_address.entry(address).or_insert(0);
            if *here >= limits.max_connections_per_address && !address.is_loopback() {
                return Err(Refusal::ServerBusy);
            }
            *here += 1;
            connections.count += 1;
            connections.most = connections.most.max(connections.count);
            connection.traffic.connected();
        }
        connections.named += u32::from(connection.named);
        Ok(())
    }

    /// One connection fewer: the session's holder is gone.
    pub(crate) fn disconnected(&self, session: &Session, state: &State) {
        let address = state.peer.address().map(|peer| peer.ip());
        self.uncount(&Connection { address, named: session.client.is_some(), traffic: state.traffic.clone() });
    }

    fn uncount(&self, connection: &Connection) {
        let mut connections = self.connections.lock();
        connections.named -= u32::from(connection.named);
        let Some(address) = connection.address else { return };
        connections.count -= 1;
        connection.traffic.disconnected();
        if let Entry::Occupied(mut entry) = connections.by_address.entry(address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    /// Lets go of a session on behalf of its holder.
    pub(crate) fn detach(self: &Arc<Self>, session: &Arc<Session>, signal: &Arc<Signal>, with_will: bool) {
        let now = self.clock.now();
        let mut records = Vec::new();
        let (will_now, will_at, ends) = {
            let mut guard = session.state.lock();
            let state = &mut *guard;
            if !state.held_by(signal) {
                return;
            }
            state.signal = None;
            session.set_trait(PROPERTIES, false);
            signal.detach(Reason::TakenOver);
            self.disconnected(session, state);
            state.queue.shrink();
            if !with_will && state.will.as_ref().is_some_and(|will| !will.stays) {
                state.will = None;
                if session.has(KNOWN) {
                    records.push(Record::Will(session.key, None));
                }
            }
            let ends = match state.expiry {
                u32::MAX => None,
                expiry => Some(now.after(Duration::from_secs(expiry.into()))),
            };
            let lingers = state.seldom.lingers;
            state.seldom.change(|seldom| {
                (seldom.ends, seldom.streamed) = (ends, None);
                seldom.present_until = (!lingers.is_zero()).then(|| now.after(lingers));
            });
            session.set_trait(PRESENT, !lingers.is_zero());
            let delay = state.will.as_ref().filter(|_| with_will).map(|will| will.delay_s.min(state.expiry));
            let will_now = match delay {
                Some(0) => state.spend_will(),
                _ => None,
            };
            let will_at = delay.filter(|s| *s > 0).map(|s| now.after(Duration::from_secs(s.into())));
            if session.has(KEPT) {
                records.push(Record::Away { session: session.key, ends });
            }
            (will_now, will_at, (state.expiry, ends))
        };
        if let Some((principal, will)) = will_now {
            self.publish_will(session, &principal, &will);
        }
        self.note(&mut records);
        match ends {
            // Unless somebody resumed it in this moment.
            (0, _) => drop(self.end_session_if(session, Reason::SessionEnded, |state| state.signal.is_none())),
            (_, at) => {
                self.timetable.set(session, Due::Credentials, None);
                self.timetable.set(session, Due::Will, will_at);
                self.timetable.set(session, Due::End, at);
            }
        }
    }
}

/// What is counted of a connection.
struct Connection {
    /// `None`: one of the server's own parts, which is no client.
    address: Option<IpAddr>,
    named: bool,
    traffic: Arc<Traffic>,
}

impl Connection {
    fn of(hello: &Hello, traffic: Arc<Traffic>) -> Self {
        Self { address: hello.peer.address().map(|peer| peer.ip()), named: hello.client_id.is_some(), traffic }
    }
}

impl State {
    /// Whether the newcomer may have this session.
    fn admit(&self, hello: &Hello, principal: &Principal) -> Result<(), Refusal> {
        // A session belongs to the user who made it; one made anonymously to the first user who resumes it.
        let own = hello.client_id.as_ref().is_some_and(ClientId::is_own);
        if !own && self.owner.is_some() && self.owner.as_deref() != principal.name() {
            return Err(Refusal::NotAuthorized);
        }
        let other_road = self.signal.is_some() && *self.traffic.gateway() != hello.gateway;
        if other_road && hello.takeover == Takeover::SameGateway {
            return Err(Refusal::InUse);
        }
        Ok(())
    }
}

impl Broker {
    /// Ends a named session for good; its holder is detached with `reason`. Gives the position at which that is
    /// durable; `None`: there is no such session.
    pub fn end_session(&self, id: &ClientId, reason: Reason) -> Option<Lsn> {
        let session = self.0.sessions.read().get(id)?.clone();
        Some(self.0.end_session(&session, reason))
    }

    /// Detaches a session's holder; the session stays. `false`: nobody holds it.
    pub fn disconnect(&self, id: &ClientId, reason: Reason) -> bool {
        let session = self.0.sessions.read().get(id).cloned();
        session.is_some_and(|session| match &session.state.lock().signal {
            Some(signal) => {
                signal.detach(reason);
                true
            }
            None => false,
        })
    }
}
