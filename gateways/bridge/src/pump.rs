//! The conversation with the far side after its CONNACK: the protocol without socket, clock, spawn or await.
//!
//! The calling order: [`Pump::new`]; then, whenever something happened, `handle_input`, `handle_event` or
//! `handle_timeout`, each of which appends to `out` what is to be sent. After each of them look at [`Pump::over`], and
//! wake up at [`Pump::poll_timeout`]. [`Pump::leave`] says goodbye.

mod inward;
mod outward;
#[cfg(test)]
mod tests;

use crate::{
    backoff::Cause,
    figures::Figures,
    remote::{self, Answer, Dialect, Heard, Parcel, Verdict, Welcome, Wish},
    route::Routes,
    settings::Settings,
};
use bytes::BytesMut;
use inward::Inward;
use outward::Outward;
use std::{
    collections::VecDeque,
    num::NonZeroU16,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use waystation_broker::{Attached, Event, Interest, Limits, Link, Lsn, Qos, Reason, Settle, Tag, Time};
use waystation_kit::{
    dead::{DeadLetters, NotNow},
    held::{Held, MOST_HELD},
};

/// Bytes of output at which no message is taken until they are written.
pub(crate) const HIGH_WATER: usize = 262_144;

/// Filters in one SUBSCRIBE: AWS IoT Core takes no more.
const FILTERS: usize = 8;

/// Before what the far side, or the store, had no room for is tried again; doubled each time, up to a bound.
const FIRST_AGAIN: Duration = Duration::from_secs(1);
const LAST_AGAIN: Duration = Duration::from_secs(15);

/// The least time the far side has to answer PINGREQ.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(crate) struct Pump {
    link: Link,
    dialect: Box<dyn Dialect>,
    outward: Outward,
    inward: Inward,
    figures: Arc<Figures>,
    /// Acknowledgements that wait for the store.
    held: Held,
    keep_alive: KeepAlive,
    subscribing: Subscribing,
    state_topic: String,
    /// Answers of the burst that is being obeyed.
    answers: Vec<(Tag, Settle)>,
    unknown: Vec<(Tag, Settle)>,
    /// Acknowledgements of the burst.
    acks: BytesMut,
    graves: Graves,
    /// When what the far side had no room for is sent again; nothing goes out until then.
    again: Option<Time>,
    /// How often in a row it had none.
    refusals: u32,
    /// The server stops: a goodbye is due.
    leaving: bool,
    over: Option<Over>,
}

/// Who the bridge is, on both sides.
pub(crate) struct Parties {
    pub(crate) settings: Arc<Settings>,
    pub(crate) figures: Arc<Figures>,
    /// What names this server in [`waystation_kit::names::ORIGIN`].
    pub(crate) server: Arc<str>,
    /// Inward routes to subscribe to, by their places.
    pub(crate) wanted: Vec<usize>,
    /// Those of this server.
    pub(crate) limits: Limits,
    /// Where goes what the far side will never take.
    pub(crate) letters: DeadLetters,
}

/// Messages that the far side will never take, on their way to the dead letters. At most a window of them.
struct Graves {
    letters: DeadLetters,
    /// Not published yet.
    refused: Vec<(Tag, String)>,
    /// Published, and not safe yet.
    dug: VecDeque<(Lsn, Tag)>,
    /// When to try again what the store would not take.
    retry: Option<Time>,
}

/// Why a conversation ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Over {
    pub(crate) why: String,
    pub(crate) cause: Cause,
}

/// The subscriptions on the far side, a few at a time.
struct Subscribing {
    routes: Arc<Routes>,
    /// Places of the inward routes that are still to be asked for.
    left: VecDeque<usize>,
    /// What was asked for and is not answered.
    asked: Option<(NonZeroU16, Vec<usize>)>,
    /// What was refused, with the reason.
    refused: Vec<(usize, String)>,
}

impl Pump {
    /// A conversation that begins with the far side's welcome.
    pub(crate) fn new(
        parties: Parties,
        dialect: Box<dyn Dialect>,
        welcome: &Welcome,
        attached: Attached,
        now: Time,
        out: &mut BytesMut,
    ) -> Self {
        let Parties { settings, figures, server, wanted, limits, letters } = parties;
        let config = &settings.config;
        let mut link = attached.link;
        if !welcome.session_present {
            // What the far side began to send with QoS 2 it will begin anew, under any identifier. What is acknowledged
            // from now on is durable no sooner than this.
            link.release_all();
        }
        let keep_alive_s = welcome.terms.keep_alive_s.unwrap_or(config.keep_alive_s);
        let mut this = Self {
            outward: Outward::new(&settings.routes, welcome, &server, link.client_id(), attached.resumed),
            inward: Inward::new(&settings, &server, welcome, limits),
            link,
            dialect,
            figures,
            held: Held::default(),
            keep_alive: KeepAlive::new(keep_alive_s, now),
            subscribing: Subscribing {
                routes: settings.routes.clone(),
                left: wanted.into(),
                asked: None,
                refused: Vec::new(),
            },
            state_topic: config.state_topic.clone(),
            answers: Vec::new(),
            unknown: Vec::new(),
            acks: BytesMut::new(),
            graves: Graves { letters, refused: Vec::new(), dug: VecDeque::new(), retry: None },
            again: None,
            refusals: 0,
            leaving: false,
            over: None,
        };
        this.say_state("1", out);
        this.subscribe(out);
        this.deliver(now, out);
        this
    }

    /// Whether it is over, and why.
    pub(crate) fn over(&self) -> Option<&Over> {
        self.over.as_ref()
    }

    /// Whether the server stops, so that [`Pump::leave`] is due.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Whether bytes from the far side are wanted now: not while the store has more to write than it may, or while too
    /// much waits to be acknowledged.
    pub(crate) fn listens(&mut self) -> bool {
        let listens = self.inward.has_room() && self.link.publisher().has_room() && self.held.len() < MOST_HELD;
        if !listens {
            self.keep_alive.deaf = true;
        }
        listens
    }

    /// What the core has; messages only while little waits to be written.
    pub(crate) async fn event(&mut self, unwritten: usize) -> Event {
        let open = unwritten < HIGH_WATER && self.subscribing.is_done();
        self.link.event(if open { Interest::Everything } else { Interest::NoDeliveries }).await
    }

    /// When [`Pump::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let again = self.again.filter(|_| self.outward.in_flight() == 0);
        self.keep_alive.due().into_iter().chain(again).chain(self.graves.retry).min()
    }

    /// The far side was heard: obeys every whole packet in `input`.
    pub(crate) fn handle_input(&mut self, now: Time, input: &mut BytesMut, out: &mut BytesMut) {
        self.keep_alive.heard(now);
        let mut lsn = Lsn::default();
        while self.over.is_none() {
            match self.inward.next(&*self.dialect, input) {
                Ok(Some(heard)) => self.handle_packet(now, heard, &mut lsn, out),
                Ok(None) => break,
                Err(why) => self.fail(why),
            }
        }
        self.publish(&mut lsn);
        self.settle(&mut lsn);
        self.release_or_hold(lsn, out);
        if !self.graves.refused.is_empty() {
            self.bury(now);
        }
        self.deliver(now, out);
    }

    fn handle_packet(&mut self, now: Time, heard: Heard, lsn: &mut Lsn, out: &mut BytesMut) {
        match heard {
            Heard::Publish(arrival) => {
                if let Err(why) = self.inward.stage(&mut self.link, *arrival) {
                    self.fail(why);
                }
            }
            Heard::Verdict(answer, id, verdict) => self.judge(now, answer, Tag(id), verdict),
            Heard::TooLarge(open) => {
                self.inward.too_large(&mut self.link, open, &*self.dialect, &mut self.acks);
            }
            Heard::PubRel(id) => {
                let (freed, _) = self.link.release(id);
                *lsn = (*lsn).max(freed);
                self.dialect.answer(Answer::PubComp, id, &mut self.acks);
            }
            Heard::SubAck(id, results) => self.subscribed(id, results, out),
            Heard::PingResp => {}
            Heard::Disconnect(why) => self.fail(format!("the far side disconnected: {why}")),
            Heard::ConnAck(_) | Heard::OutOfPlace => {
                self.fail("the far side sent a packet that is out of place".into());
            }
        }
    }

    /// What the far side says to a message of ours.
    fn judge(&mut self, now: Time, answer: Answer, tag: Tag, verdict: Verdict) {
        match (verdict, answer) {
            (Verdict::Taken, Answer::PubRec) => self.answers.push((tag, Settle::Received)),
            (Verdict::Taken, Answer::PubComp) => self.answers.push((tag, Settle::Completed)),
            // The message may have asked for more than the way gives.
            (Verdict::Taken, _) => self.answers.push((tag, Settle::Done)),
            (Verdict::NoRoom, _) => self.no_room(now),
            (Verdict::Refused(why), _) => {
                self.outward.answered(1);
                self.graves.refused.push((tag, why));
            }
        }
    }

    /// The far side has no room now. Nothing more goes out until all else is answered and some time has passed; then
    /// everything unsettled is sent again, in order.
    fn no_room(&mut self, now: Time) {
        self.outward.answered(1);
        if self.again.is_none() {
            let pause = FIRST_AGAIN.saturating_mul(1 << self.refusals.min(8)).min(LAST_AGAIN);
            self.refusals = self.refusals.saturating_add(1);
            self.again = Some(now.after(pause));
            self.figures.failed("the far side has no room now (quota exceeded)");
        }
    }

    /// Whether it is time to attach to the session anew, for [`Pump::renew`].
    pub(crate) fn wants_anew(&self, now: Time) -> bool {
        self.outward.in_flight() == 0 && self.again.is_some_and(|again| again <= now)
    }

    /// Goes on with a new hold on the session, which gives everything unsettled again.
    pub(crate) fn renew(&mut self, now: Time, link: Link, out: &mut BytesMut) {
        self.link = link;
        self.outward.renew();
        self.again = None;
        // What waits to be durable is waited for by the new one.
        self.durable(Lsn::default(), out);
        self.bury(now);
        self.deliver(now, out);
    }

    /// Makes dead letters of what the far side will never take, and lets go of those that are safe.
    fn bury(&mut self, now: Time) {
        let Graves { letters, refused, dug, retry } = &mut self.graves;
        *retry = None;
        if !refused.is_empty() && !letters.is_open() {
            return self.fail("somebody ended the session of its dead letters; it is made anew".into());
        }
        if !refused.is_empty() {
            let link = &self.link;
            let found: Vec<_> = refused.iter().filter_map(|(tag, why)| Some((link.under_way(*tag)?, why))).collect();
            match letters.publish(found.iter().map(|(message, why)| (message, why.as_str())), 1) {
                Ok(lsn) => {
                    for (message, why) in &found {
                        let topic = message.topic();
                        tracing::warn!(client = ?link.client_id(), %topic, %why, "a message became a dead letter");
                    }
                    dug.extend(refused.drain(..).map(|(tag, _)| (lsn, tag)));
                }
                Err(NotNow) => *retry = Some(now.after(FIRST_AGAIN)),
            }
        }
        let mut safe = Vec::new();
        // Asks to be told of the first that is not.
        while dug.front().is_some_and(|(lsn, _)| self.link.hold(*lsn)) {
            safe.extend(dug.pop_front().map(|(_, tag)| (tag, Settle::Rejected)));
        }
        if !safe.is_empty() {
            self.link.settle(&safe, &mut Vec::new());
        }
    }

    /// What the core has.
    pub(crate) fn handle_event(&mut self, now: Time, event: Event, out: &mut BytesMut) {
        match event {
            Event::Deliverable => self.deliver(now, out),
            Event::Durable(lsn) => {
                self.durable(lsn, out);
                self.bury(now);
            }
            Event::Room => {
                let mut lsn = Lsn::default();
                if let Err(why) = self.inward.offer_kept(&mut self.link) {
                    self.fail(why);
                }
                self.publish(&mut lsn);
                self.release_or_hold(lsn, out);
            }
            Event::Detached(Reason::ServerStopping) => self.leaving = true,
            Event::Detached(reason) => self.fail(format!("its session was taken away ({reason:?})")),
        }
    }

    /// Looks at what may have run out, and asks the far side whether it is there.
    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut BytesMut) {
        if self.graves.retry.is_some_and(|retry| retry <= now) {
            self.bury(now);
        }
        match self.keep_alive.check(now) {
            Alive::Quiet => {}
            Alive::Ask => remote::ping(out),
            Alive::Lost => self.fail("the far side has been silent for one and a half keep alives".into()),
        }
    }

    /// Says goodbye: nothing is lost by it.
    pub(crate) fn leave(mut self, out: &mut BytesMut) -> Link {
        self.say_state("0", out);
        remote::goodbye(out);
        self.link
    }

    /// What of the subscriptions was refused, and whether all were answered.
    pub(crate) fn subscriptions(&self) -> (bool, &[(usize, String)]) {
        (self.subscribing.is_done(), &self.subscribing.refused)
    }

    /// Routes what came in, and answers it.
    fn publish(&mut self, lsn: &mut Lsn) {
        let received = self.inward.flush(&mut self.link, &*self.dialect, &mut self.acks, lsn);
        if received > 0 {
            self.figures.received.fetch_add(received, Ordering::Relaxed);
        }
    }

    /// Gives the far side's answers to the core; a PUBREC is answered in turn.
    fn settle(&mut self, lsn: &mut Lsn) {
        if self.answers.is_empty() {
            return;
        }
        let settled = self.link.settle(&self.answers, &mut self.unknown);
        *lsn = (*lsn).max(settled);
        let mut unknown = self.unknown.drain(..).peekable();
        let mut done = 0;
        for answer in self.answers.drain(..) {
            let is_unknown = unknown.next_if_eq(&answer).is_some();
            match answer {
                // Whatever we know of it, this ends the exchange [MQTT-4.3.3-4].
                (Tag(id), Settle::Received) => self.dialect.answer(Answer::PubRel, id, &mut self.acks),
                _ if !is_unknown => done += 1,
                _ => {}
            }
        }
        if done > 0 {
            self.refusals = 0;
        }
        self.outward.answered(done);
        self.figures.sent.fetch_add(done, Ordering::Relaxed);
        self.figures.in_flight.store(self.outward.in_flight(), Ordering::Relaxed);
    }

    /// Sends a burst's acknowledgements, or keeps them until `lsn` is durable.
    fn release_or_hold(&mut self, lsn: Lsn, out: &mut BytesMut) {
        let released = std::mem::take(&mut self.inward.released);
        if self.acks.is_empty() {
            return;
        }
        let durable = self.link.hold(lsn);
        if durable && self.held.is_empty() {
            out.extend_from_slice(&self.acks);
            self.inward.acknowledged(released);
        } else {
            self.held.push(lsn, &self.acks, released);
        }
        self.acks.clear();
        if durable && !self.held.is_empty() {
            self.durable(lsn, out);
        }
    }

    /// Sends the acknowledgements that are safe by now.
    fn durable(&mut self, mut durable: Lsn, out: &mut BytesMut) {
        loop {
            let released = self.held.release(durable, out);
            self.inward.acknowledged(released);
            match self.held.next() {
                // Asks to be told of the next.
                Some(next) if self.link.hold(next) => durable = next,
                _ => return,
            }
        }
    }

    /// Takes what waits for the far side, as far as its window and our output have room.
    fn deliver(&mut self, now: Time, out: &mut BytesMut) {
        if self.over.is_some() || self.again.is_some() || !self.subscribing.is_done() || out.len() >= HIGH_WATER {
            return;
        }
        let before = out.len();
        let round = self.outward.deliver(&mut self.link, &mut *self.dialect, out);
        if out.len() > before {
            self.keep_alive.spoke(now);
        }
        if round.sent > 0 {
            self.figures.sent.fetch_add(round.sent, Ordering::Relaxed);
        }
        if round.reduced > 0 {
            self.figures.reduced.fetch_add(round.reduced, Ordering::Relaxed);
        }
        self.figures.in_flight.store(self.outward.in_flight(), Ordering::Relaxed);
    }

    /// Sets the state topic on the far side. Sent with QoS 0: it counts as long as the connection does.
    fn say_state(&mut self, state: &str, out: &mut BytesMut) {
        if self.state_topic.is_empty() {
            return;
        }
        let parcel = Parcel {
            topic: &self.state_topic,
            payload: state.as_bytes(),
            qos: Qos::AtMostOnce,
            retain: true,
            duplicate: false,
            id: None,
            properties: None,
            expiry: None,
            stamp: None,
        };
        // It was checked to be a topic.
        let _ = self.dialect.publish(&parcel, out);
    }

    /// Asks for the next subscriptions. Nothing else goes out meanwhile, so that no packet identifier is taken twice.
    fn subscribe(&mut self, out: &mut BytesMut) {
        let Subscribing { routes, left, asked, .. } = &mut self.subscribing;
        let places: Vec<usize> = left.drain(..FILTERS.min(left.len())).collect();
        if places.is_empty() {
            return;
        }
        let ids = (1..=u16::MAX).rev().filter_map(NonZeroU16::new);
        let id = ids.into_iter().find(|id| self.link.under_way(Tag(*id)).is_none());
        let wishes: Vec<_> = places.iter().filter_map(|place| routes.inward.get(*place)).collect();
        let wishes: Vec<_> = wishes.iter().map(|way| Wish { filter: way.source.as_str(), qos: way.qos }).collect();
        match id.map(|id| (id, self.dialect.subscribe(id, &wishes, out))) {
            Some((id, Ok(()))) => *asked = Some((id, places)),
            _ => self.fail("the subscriptions cannot be written".into()),
        }
    }

    fn subscribed(&mut self, id: NonZeroU16, results: Vec<Result<(), String>>, out: &mut BytesMut) {
        let Some((_, places)) = self.subscribing.asked.take_if(|(asked, _)| *asked == id) else {
            return self.fail("the far side answers a subscription that nobody asked for".into());
        };
        if results.len() != places.len() {
            return self.fail("the far side answers another number of subscriptions than were asked for".into());
        }
        for (place, result) in places.into_iter().zip(results) {
            self.subscribing.refused.extend(result.err().map(|why| (place, why)));
        }
        self.subscribe(out);
    }

    fn fail(&mut self, why: String) {
        self.over.get_or_insert(Over { why, cause: Cause::Fault });
    }
}

impl Subscribing {
    fn is_done(&self) -> bool {
        self.left.is_empty() && self.asked.is_none()
    }
}

/// Who has been silent for how long.
struct KeepAlive {
    /// Zero: nobody asks.
    every: Duration,
    spoke: Time,
    heard: Time,
    /// When PINGREQ went out, until anything is heard.
    asked: Option<Time>,
    /// We did not listen, so that silence says nothing.
    deaf: bool,
}

enum Alive {
    Quiet,
    Ask,
    Lost,
}

impl KeepAlive {
    fn new(seconds: u16, now: Time) -> Self {
        Self { every: Duration::from_secs(seconds.into()), spoke: now, heard: now, asked: None, deaf: false }
    }

    fn heard(&mut self, now: Time) {
        (self.heard, self.asked, self.deaf) = (now, None, false);
    }

    fn spoke(&mut self, now: Time) {
        self.spoke = now;
    }

    /// The next moment at which there may be something to do.
    fn due(&self) -> Option<Time> {
        if self.every.is_zero() {
            return None;
        }
        Some(match self.asked {
            Some(asked) => asked.after((self.every / 2).max(SHORTEST_PATIENCE)),
            // Whoever only sends asks too: it is the answer that shows that the far side is there.
            None => self.spoke.min(self.heard).after(self.every),
        })
    }

    fn check(&mut self, now: Time) -> Alive {
        if self.due().is_none_or(|due| due > now) {
            return Alive::Quiet;
        }
        let before = self.asked.replace(now);
        match before {
            None => {
                self.spoke = now;
                Alive::Ask
            }
            Some(_) if self.deaf => Alive::Quiet,
            Some(_) => Alive::Lost,
        }
    }
}
