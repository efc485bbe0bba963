//! One board as a machine: datagrams, link events and time go in; datagrams and the next timeout come out. No socket,
//! no clock, no await.
//!
//! Order of calls: any `handle_*`, then [`Client::finish`], then, if [`Client::poll_attach`] gives a `Hello`, attach
//! and [`Client::handle_attached`]; [`Client::poll_timeout`] says when to call [`Client::handle_timeout`],
//! [`Client::status`] what to tell of it, and [`Client::is_gone`] when to forget the board.

mod asleep;
mod connect;
mod deliver;
mod held;
mod opening;
mod publish;
mod register;
mod status;
mod subscribe;
#[cfg(test)]
mod tests;
mod will;

pub(crate) use connect::client_id;
pub use status::{Standing, Status};

use crate::{
    address::Address,
    codec::{Packet, ReturnCode},
    outbox::Outbox,
    settings::Settings,
    topics::Topics,
};
use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use waystation_broker::{ClientId, Detach, Event, Interest, Link, Reason, Refused, Time};

/// Most link events obeyed in one turn; what is left has the board called again.
const MAX_EVENTS: usize = 16;

/// One board.
pub struct Client {
    settings: Arc<Settings>,
    address: Address,
    way: Way,
    state: State,
    /// Its name, from the moment it is let in.
    id: Option<ClientId>,
    link: Option<Link>,
    /// A CONNECT that is not yet answered. Boxed: it is gone a moment later.
    opening: Option<Box<opening::Opening>>,
    /// What the last answered CONNECT said.
    greeting: connect::Greeting,
    topics: Topics,
    owed: held::Owed,
    outgoing: Option<deliver::Outgoing>,
    next_msg_id: u16,
    /// Messages it may still get before it sleeps again.
    left_of_visit: u32,
    /// Asleep: when it will have slept as long as it said.
    next_wake: Option<Time>,
    /// Keep alive, or the length of the sleep; zero: never lost.
    patience: Duration,
    timers: Timers,
    /// Whether the board has said anything since that shows that it has its CONNACK: more than answers to what came
    /// behind it.
    spoke: bool,
}

/// What is known about the way to a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Anybody may have sent it.
    Plain,
    /// DTLS; the board showed nothing of its own.
    Encrypted,
    /// DTLS, and this is the name that its pre-shared key or certificate carries.
    Certified(Arc<str>),
}

/// Where the board stands (§6.14, figure 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// As in MQTT.
    Active,
    /// It sleeps; its messages wait.
    Asleep,
    /// It asked for what waits.
    Awake,
    /// It said goodbye or was sent away, or is not in yet.
    Gone,
    /// It was not heard of for too long.
    Lost,
}

/// What a message is to the board's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Place {
    /// It was obeyed, answered, or is a repetition.
    Right,
    /// Nobody who keeps to the specification says this now: it was ignored.
    Wrong,
}

/// All timers.
#[derive(Debug, Default)]
struct Timers {
    /// Past it the board is lost.
    silence: Option<Time>,
    /// What is unanswered is sent again, and how often that was done.
    retry: Option<Time>,
    retries: u32,
    /// When it last went out.
    asked: Time,
}

impl Client {
    /// A board that has said nothing yet.
    #[must_use]
    pub fn new(settings: Arc<Settings>, address: Address, way: Way) -> Self {
        Self {
            settings,
            address,
            way,
            state: State::Gone,
            id: None,
            link: None,
            opening: None,
            greeting: connect::Greeting::default(),
            topics: Topics::default(),
            owed: held::Owed::default(),
            outgoing: None,
            next_msg_id: 0,
            left_of_visit: 0,
            next_wake: None,
            patience: Duration::ZERO,
            timers: Timers::default(),
            spoke: false,
        }
    }

    /// Its name, once it was let in.
    #[must_use]
    pub fn id(&self) -> Option<&ClientId> {
        self.id.as_ref()
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What is known about the way to it.
    #[must_use]
    pub fn way(&self) -> &Way {
        &self.way
    }

    /// From now on it is there; what it is owed goes there.
    pub fn move_to(&mut self, address: Address) {
        self.address = address;
    }

    /// The configuration was read anew.
    pub fn configure(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
    }

    /// Whether its session outlives its connection (§6.3).
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.greeting.is_persistent()
    }

    /// Ends the connection if it has not ended, as that of a board that is lost; gives what to tell of it.
    pub fn leave_behind(&mut self) -> Option<Status> {
        if !self.is_gone() {
            self.lost();
        }
        self.status()
    }

    /// Takes out its registrations, for the next connection of the same session.
    pub fn take_topics(&mut self) -> Topics {
        std::mem::take(&mut self.topics)
    }

    /// Gives it the registrations of an earlier connection. Before [`Client::handle_attached`], which decides whether
    /// they still count.
    pub fn adopt_topics(&mut self, topics: Topics) {
        if self.topics.is_empty() {
            self.topics = topics;
        }
    }

    /// Obeys one message, if it is in its place.
    pub fn handle_packet(&mut self, now: Time, packet: &Packet<'_>, out: &mut Outbox) -> Place {
        if !matches!(packet, Packet::Publish(_)) {
            // What it published before comes before.
            self.flush(out);
        }
        match *packet {
            Packet::Connect(ref connect) => {
                self.connect(now, connect, out);
                return Place::Right;
            }
            Packet::WillTopic(topic) => return self.will_topic(now, topic, out),
            Packet::WillMsg(message) => return self.will_message(now, message, out),
            // Before CONNACK nothing else counts.
            _ if !self.is_in() => return Place::Wrong,
            _ => {}
        }
        self.heard(now);
        match *packet {
            Packet::Register { msg_id, name, .. } => self.register(msg_id, name, out),
            Packet::RegAck { topic_id, msg_id, code } => self.registered(now, topic_id, msg_id, code, out),
            Packet::Publish(ref publish) => self.publish(publish, out),
            Packet::PubAck { topic_id, msg_id, code } => self.acknowledged(now, topic_id, msg_id, code, out),
            Packet::PubRec { msg_id } => self.received(msg_id, out),
            Packet::PubComp { msg_id } => self.completed(msg_id),
            Packet::PubRel { msg_id } => self.release(msg_id, out),
            Packet::Subscribe(ref subscribe) => self.subscribe(subscribe, out),
            Packet::Unsubscribe(ref unsubscribe) => self.unsubscribe(unsubscribe, out),
            Packet::PingReq { client_id } => self.ping(now, client_id, out),
            Packet::Disconnect { duration_s } => self.disconnect(now, duration_s, out),
            Packet::WillTopicUpd(topic) => self.will_topic_update(topic, out),
            Packet::WillMsgUpd(message) => self.will_message_update(message, out),
            // What only gateways send, and what the hub deals with.
            _ => return Place::Wrong,
        }
        self.spoke |= !matches!(
            packet,
            Packet::RegAck { .. } | Packet::PubAck { .. } | Packet::PubRec { .. } | Packet::PubComp { .. }
        );
        Place::Right
    }

    /// Obeys what the link has to say; `cx` is woken when it has more.
    pub fn handle_events(&mut self, now: Time, cx: &mut Context<'_>, out: &mut Outbox) {
        for _ in 0..MAX_EVENTS {
            if !self.is_in() {
                return;
            }
            let interest = if self.takes_deliveries() { Interest::Everything } else { Interest::NoDeliveries };
            let Some(link) = &mut self.link else { return };
            match link.poll_event(cx, interest) {
                // Nothing is announced, so nothing waits.
                Poll::Pending => return self.end_of_visit(out),
                Poll::Ready(event) => self.handle_event(now, event, out),
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Obeys one event.
    pub fn handle_event(&mut self, now: Time, event: Event, out: &mut Outbox) {
        match event {
            Event::Deliverable => self.deliver(now, out),
            Event::Durable(_) => {
                self.let_go(now, out);
                self.deliver(now, out);
            }
            // A board that heard "congestion" tries again by itself (§5.3.10).
            Event::Room => {}
            Event::Detached(reason) => self.detached(reason, out),
        }
    }

    /// Ends a burst: routes what was published and sends what may be sent.
    pub fn finish(&mut self, now: Time, out: &mut Outbox) {
        self.flush(out);
        self.let_go(now, out);
        self.deliver(now, out);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Outbox) {
        if self.timers.silence.is_some_and(|at| at <= now) {
            return self.lost();
        }
        self.opening.take_if(|opening| opening.deadline().is_some_and(|at| at <= now));
        if self.timers.retry.is_some_and(|at| at <= now) {
            self.timers.retry = None;
            if self.timers.retries >= self.settings.retry_count {
                return self.unanswered(out);
            }
            self.timers.retries += 1;
            self.timers.asked = now;
            self.repeat(out);
            self.timers.retry = Some(now.after(self.settings.retry_interval));
        }
    }

    /// When [`Client::handle_timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let opening = self.opening.as_ref().and_then(|opening| opening.deadline());
        self.timers.silence.into_iter().chain(self.timers.retry).chain(opening).min()
    }

    /// Whether the board is to be forgotten.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        !self.is_in() && self.opening.is_none()
    }

    /// The gateway stops: says goodbye. The session stays.
    pub fn dismiss(&mut self, out: &mut Outbox) {
        if self.is_in() {
            self.detached(Reason::ServerStopping, out);
        }
    }

    /// Whether the board is connected, asleep or not.
    #[must_use]
    pub fn is_in(&self) -> bool {
        matches!(self.state, State::Active | State::Asleep | State::Awake)
    }

    /// Whether what it waits for is as little as it should be, between turns.
    #[cfg(test)]
    pub(crate) fn is_within_bounds(&self) -> bool {
        self.owed.held.len() <= held::MAX_HELD && self.owed.staged.is_empty()
    }

    fn detached(&mut self, reason: Reason, out: &mut Outbox) {
        self.send(out, &Packet::Disconnect { duration_s: None });
        // A takeover has decided about the will by now, and the server's stop is no failure of the board.
        let with_will = matches!(reason, Reason::Expired | Reason::NotAuthorized);
        self.leave(if with_will { Detach::WithWill } else { Detach::Clean });
    }

    /// Nothing was heard for too long.
    fn lost(&mut self) {
        tracing::debug!(board = %self.address, "board is lost");
        self.leave(Detach::WithWill);
        self.state = State::Lost;
    }

    /// N_retry repetitions went unanswered.
    fn unanswered(&mut self, out: &mut Outbox) {
        match self.state {
            // It fell asleep again before the end; the message is sent anew when it wakes.
            State::Awake | State::Asleep => self.fall_asleep(),
            _ => {
                self.send(out, &Packet::Disconnect { duration_s: None });
                self.lost();
            }
        }
    }

    fn leave(&mut self, how: Detach) {
        self.let_go_of_link(how);
        self.opening = None;
    }

    fn let_go_of_link(&mut self, how: Detach) {
        if let Some(link) = self.link.take() {
            link.detach(how);
        }
        self.end_connection();
        self.state = State::Gone;
    }

    /// Forgets what belonged to the connection.
    fn end_connection(&mut self) {
        self.owed = held::Owed::default();
        self.outgoing = None;
        self.patience = Duration::ZERO;
        self.timers = Timers::default();
        self.spoke = false;
    }

    /// §7.2: a board that said more than a minute has a tenth more than it said, any other half as much again.
    fn heard(&mut self, now: Time) {
        let tolerated = match self.patience {
            patience if patience > Duration::from_secs(60) => patience / 10 * 11,
            patience => patience / 2 * 3,
        };
        self.timers.silence = (!tolerated.is_zero()).then(|| now.after(tolerated));
    }

    fn await_answer(&mut self, now: Time) {
        self.timers.asked = now;
        self.timers.retries = 0;
        self.timers.retry = Some(now.after(self.settings.retry_interval));
    }

    fn answered(&mut self) {
        self.timers.retries = 0;
        self.timers.retry = None;
    }

    fn send(&self, out: &mut Outbox, packet: &Packet<'_>) {
        out.push(&self.address, packet);
    }
}

/// The one place where the broker's refusals become return codes (§5.3.10).
fn code_of(refused: Refused) -> ReturnCode {
    match refused {
        Refused::TooManyLevels => ReturnCode::InvalidTopicId,
        Refused::QuotaExceeded => ReturnCode::Congestion,
        Refused::NotAuthorized
        | Refused::QosNotSupported
        | Refused::RetainNotSupported
        | Refused::WildcardsNotSupported
        | Refused::SharedNotSupported
        | Refused::TooLarge
        | Refused::Fenced => ReturnCode::NotSupported,
    }
}
