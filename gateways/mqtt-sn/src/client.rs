//! One board as a machine: datagrams, link events and time go in; datagrams and the next timeout come out. No socket,
//! no clock, no await.
//!
//! Order of calls: any `handle_*`, then [`Client::finish`], then, if [`Client::poll_attach`] gives a [`Hello`], attach
//! and [`Client::handle_attached`]; [`Client::poll_timeout`] says when to call [`Client::handle_timeout`], and
//! [`Client::is_gone`] when to forget the board.

mod asleep;
mod connect;
mod deliver;
mod held;
mod publish;
mod register;
mod subscribe;
#[cfg(test)]
mod tests;
mod will;

use crate::{
    codec::{Packet, ReturnCode},
    outbox::Outbox,
    topics::{Predefined, Topics},
};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use waystation_broker::{Detach, Event, Hello, Interest, Link, Reason, Refused, Time, Will};

/// Most link events obeyed in one turn; what is left has the board called again.
const MAX_EVENTS: usize = 16;

/// What all boards of a gateway have in common.
#[derive(Debug)]
pub struct Settings {
    /// The gateway's name.
    pub gateway: Arc<str>,
    /// T_retry (§7.2).
    pub retry_interval: Duration,
    /// N_retry (§7.2).
    pub retry_count: u32,
    /// Bytes of the largest datagram to a board.
    pub max_datagram: usize,
    /// The ids all boards know beforehand.
    pub predefined: Predefined,
}

/// One board.
pub struct Client {
    settings: Arc<Settings>,
    address: SocketAddr,
    state: State,
    link: Option<Link>,
    opening: Option<connect::Opening>,
    topics: Topics,
    will: Option<Will>,
    staged: Vec<publish::Staged>,
    /// At most [`held::MAX_HELD`].
    held: VecDeque<held::Held>,
    outgoing: Option<deliver::Outgoing>,
    next_msg_id: u16,
    /// Keep alive, or the length of the sleep; zero: never lost.
    patience: Duration,
    timers: Timers,
    /// Whether the board has said anything since its CONNACK.
    spoke: bool,
}

/// Where the board stands (§6.14, figure 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// CONNECT came; its will topic is awaited.
    WillTopic,
    /// Its will message is awaited.
    WillMessage,
    /// The hello is ready for the driver.
    Ready,
    /// The broker is being asked.
    Attaching,
    /// As in MQTT.
    Active,
    /// It sleeps; its messages wait.
    Asleep,
    /// It asked for what waits.
    Awake,
    /// Forget it.
    Gone,
}

/// All timers.
#[derive(Debug, Default)]
struct Timers {
    /// Past it the board is lost.
    silence: Option<Time>,
    /// What is unanswered is sent again, and how often that was done.
    retry: Option<Time>,
    retries: u32,
}

impl Client {
    /// A board that has said nothing yet.
    #[must_use]
    pub fn new(settings: Arc<Settings>, address: SocketAddr) -> Self {
        Self {
            settings,
            address,
            state: State::Gone,
            link: None,
            opening: None,
            topics: Topics::default(),
            will: None,
            staged: Vec::new(),
            held: VecDeque::new(),
            outgoing: None,
            next_msg_id: 0,
            patience: Duration::ZERO,
            timers: Timers::default(),
            spoke: false,
        }
    }

    /// Obeys one message.
    pub fn handle_packet(&mut self, now: Time, packet: &Packet<'_>, out: &mut Outbox) {
        self.heard(now);
        if !matches!(packet, Packet::Publish(_)) {
            // What it published before comes before.
            self.flush(out);
        }
        match *packet {
            Packet::Connect(ref connect) => return self.connect(now, connect, out),
            Packet::WillTopic(topic) => return self.will_topic(now, topic, out),
            Packet::WillMsg(message) => return self.will_message(message, out),
            // Before CONNACK nothing else counts.
            _ if self.link.is_none() => return,
            Packet::Register { msg_id, name, .. } => self.register(msg_id, name, out),
            Packet::RegAck { topic_id, msg_id, code } => self.registered(now, topic_id, msg_id, code, out),
            Packet::Publish(ref publish) => self.publish(publish, out),
            Packet::PubAck { topic_id, msg_id, code } => self.acknowledged(now, topic_id, msg_id, code, out),
            Packet::PubRec { msg_id } => self.received(now, msg_id, out),
            Packet::PubComp { msg_id } => self.completed(now, msg_id, out),
            Packet::PubRel { msg_id } => self.release(msg_id, out),
            Packet::Subscribe(ref subscribe) => self.subscribe(subscribe, out),
            Packet::Unsubscribe(ref unsubscribe) => self.unsubscribe(unsubscribe, out),
            Packet::PingReq { client_id } => self.ping(now, client_id, out),
            Packet::Disconnect { duration_s } => self.disconnect(now, duration_s, out),
            Packet::WillTopicUpd(topic) => self.will_topic_update(topic, out),
            Packet::WillMsgUpd(message) => self.will_message_update(message, out),
            // What only gateways send, and what the driver deals with.
            _ => {}
        }
        self.spoke = true;
    }

    /// Obeys what the link has to say; `cx` is woken when it has more.
    pub fn handle_events(&mut self, now: Time, cx: &mut Context<'_>, out: &mut Outbox) {
        for _ in 0..MAX_EVENTS {
            let interest = if self.takes_deliveries() { Interest::Everything } else { Interest::NoDeliveries };
            let Some(link) = &mut self.link else { return };
            match link.poll_event(cx, interest) {
                Poll::Pending => return,
                Poll::Ready(event) => self.handle_event(now, event, out),
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Obeys one event.
    pub fn handle_event(&mut self, now: Time, event: Event, out: &mut Outbox) {
        match event {
            Event::Deliverable => self.deliver(now, out),
            Event::Durable(_) => self.let_go(now, out),
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
        if self.timers.retry.is_some_and(|at| at <= now) {
            self.timers.retry = None;
            if self.timers.retries >= self.settings.retry_count {
                return self.unanswered(out);
            }
            self.timers.retries += 1;
            self.repeat(out);
            self.timers.retry = Some(now.after(self.settings.retry_interval));
        }
    }

    /// When [`Client::handle_timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.silence.into_iter().chain(self.timers.retry).min()
    }

    /// What to attach with, once.
    pub fn poll_attach(&mut self) -> Option<Hello> {
        if self.state != State::Ready {
            return None;
        }
        self.state = State::Attaching;
        self.hello()
    }

    /// Whether the board is to be forgotten.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.state == State::Gone
    }

    /// The gateway stops: says goodbye. The session stays.
    pub fn dismiss(&mut self, out: &mut Outbox) {
        self.detached(Reason::ServerStopping, out);
    }

    fn detached(&mut self, reason: Reason, out: &mut Outbox) {
        self.send(out, &Packet::Disconnect { duration_s: None });
        // A takeover has decided about the will by now, and the server's stop is no failure of the board.
        let with_will = matches!(reason, Reason::Expired | Reason::NotAuthorized);
        self.leave(if with_will { Detach::WithWill } else { Detach::Clean });
    }

    /// Nothing was heard for too long.
    fn lost(&mut self) {
        tracing::debug!(peer = %self.address, "board is lost");
        self.leave(Detach::WithWill);
    }

    /// N_retry repetitions went unanswered.
    fn unanswered(&mut self, out: &mut Outbox) {
        match self.state {
            // It fell asleep again before the end; the message is sent anew when it wakes.
            State::Awake | State::Asleep => self.state = State::Asleep,
            _ => {
                self.send(out, &Packet::Disconnect { duration_s: None });
                self.lost();
            }
        }
    }

    fn leave(&mut self, how: Detach) {
        if let Some(link) = self.link.take() {
            link.detach(how);
        }
        self.forget();
        self.state = State::Gone;
    }

    /// Forgets what belonged to the connection.
    fn forget(&mut self) {
        self.opening = None;
        self.topics = Topics::default();
        self.will = None;
        self.staged.clear();
        self.held.clear();
        self.outgoing = None;
        self.patience = Duration::ZERO;
        self.timers = Timers::default();
        self.spoke = false;
    }

    /// §6.13: lost after 1.5 times the keep alive or sleep duration without a word.
    fn heard(&mut self, now: Time) {
        self.timers.silence = (!self.patience.is_zero()).then(|| now.after(self.patience * 3 / 2));
    }

    fn await_answer(&mut self, now: Time) {
        self.timers.retries = 0;
        self.timers.retry = Some(now.after(self.settings.retry_interval));
    }

    fn answered(&mut self) {
        self.timers.retries = 0;
        self.timers.retry = None;
    }

    fn send(&self, out: &mut Outbox, packet: &Packet<'_>) {
        out.push(self.address, packet);
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
