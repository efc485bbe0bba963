//! Coming in (§6.2), with the conversation about the will (§6.3).

use super::{Client, Place, State, Way, held::Answer};
use crate::{
    codec::{Connect, Packet, ReturnCode, WillTopic},
    outbox::Outbox,
    topics::Topics,
};
use bytes::Bytes;
use std::time::Duration;
use waystation_broker::{
    Attached, ClientId, Credentials, Detach, Hello, Qos, Refusal, Start, Time, Topic, WhileAway, Will,
};

/// A CONNECT that is not yet answered.
pub(super) struct Opening {
    id: ClientId,
    greeting: Greeting,
    start: Start,
    /// What WILLTOPIC said.
    will_topic: Option<(Topic, Qos, bool)>,
    will: Option<Will>,
}

/// What a CONNECT says beside the name: its repetition says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Greeting {
    clean: bool,
    will: bool,
    duration_s: u16,
}

impl Greeting {
    fn keep_alive(self) -> Duration {
        Duration::from_secs(self.duration_s.into())
    }

    pub(super) fn is_persistent(self) -> bool {
        !self.clean
    }

    /// §6.3: seconds the session outlives its connection.
    fn expiry(self) -> u32 {
        if self.clean { 0 } else { u32::MAX }
    }
}

impl Client {
    pub(super) fn connect(&mut self, now: Time, connect: &Connect<'_>, out: &mut Outbox) {
        // §5.3.8: the only protocol id there is.
        let id = std::str::from_utf8(connect.client_id).ok().and_then(ClientId::new);
        let (1, Some(id)) = (connect.protocol_id, id) else {
            return self.send(out, &Packet::ConnAck(ReturnCode::NotSupported));
        };
        let greeting = Greeting { clean: connect.clean_session, will: connect.will, duration_s: connect.duration_s };
        let known = self.is_in() && self.id.as_ref() == Some(&id);
        match self.state {
            State::Ready | State::Attaching if self.opening.as_ref().is_some_and(|opening| opening.id == id) => {
                return; // Its repetition; the answer is on its way.
            }
            State::Active if known && !self.spoke && greeting == self.greeting => return self.greet_again(out),
            _ => {}
        }
        // §6.14: CONNECT from asleep or awake is the way back to active, whatever its flags say of sessions: what
        // waits for a sleeper was acknowledged to its publisher. One that is active and asks for a clean session has
        // begun anew.
        let goes_on = known && (self.state != State::Active || !greeting.clean);
        if goes_on && !greeting.will {
            if let Some(link) = &mut self.link {
                // Its will stays (§6.3, table 6).
                link.set_expiry(greeting.expiry());
            }
            self.topics.may_be_forgotten();
            self.wake_up();
            return self.welcome(now, greeting, out);
        }
        if !goes_on && let Some(link) = self.link.take() {
            // A board that comes again is not lost; one that took over another's address means that other is.
            link.detach(if known { Detach::Clean } else { Detach::WithWill });
        }
        if !known {
            (self.topics, self.id) = (Topics::default(), None);
        }
        self.end_connection();
        let start = if goes_on || !greeting.clean { Start::Resume } else { Start::Clean };
        self.opening = Some(Box::new(Opening { id, greeting, start, will_topic: None, will: None }));
        if greeting.will {
            self.state = State::WillTopic;
            self.send(out, &Packet::WillTopicReq);
            // What gets lost in this conversation is for the board to repeat (§6.13): to an address that has not
            // connected nothing is sent unasked.
            self.timers.silence = Some(now.after(self.settings.opening_time()));
        } else {
            self.state = State::Ready;
        }
    }

    pub(super) fn will_topic(&mut self, topic: Option<WillTopic<'_>>, out: &mut Outbox) -> Place {
        match (self.state, &mut self.opening, topic) {
            // Its repetition: our question was lost.
            (State::WillMessage, ..) => self.send(out, &Packet::WillMsgReq),
            // §5.4.7: an empty WILLTOPIC means there is to be no will, not even the one there was.
            (State::WillTopic, _, None) => self.state = State::Ready,
            (State::WillTopic, Some(opening), Some(will)) => match Topic::from_bytes(will.topic) {
                Ok(name) => {
                    opening.will_topic = Some((name, will.qos, will.retain));
                    self.state = State::WillMessage;
                    self.send(out, &Packet::WillMsgReq);
                }
                Err(_) => {
                    self.send(out, &Packet::ConnAck(ReturnCode::InvalidTopicId));
                    self.leave(Detach::Clean);
                }
            },
            // The repetition of an empty one: CONNACK was lost, or is on its way.
            (State::Active, None, None) if self.greeting.will && !self.spoke => self.greet_again(out),
            (State::Ready | State::Attaching, Some(_), None) => {}
            _ => return Place::Wrong,
        }
        Place::Right
    }

    pub(super) fn will_message(&mut self, message: &[u8], out: &mut Outbox) -> Place {
        match (self.state, &mut self.opening) {
            (State::WillMessage, Some(opening)) => {
                let keep_alive_s = opening.greeting.duration_s;
                let stays = opening.start == Start::Resume;
                opening.will = opening.will_topic.take().map(|(topic, qos, retain)| Will {
                    topic,
                    payload: Bytes::copy_from_slice(message),
                    qos,
                    retain,
                    delay_s: 0,
                    keep_alive_s,
                    expiry: None,
                    properties: None,
                    stays,
                });
                self.state = State::Ready;
            }
            // Its repetition: CONNACK was lost, or is on its way.
            (State::Active, None) if self.greeting.will && !self.spoke => self.greet_again(out),
            (State::Ready | State::Attaching, Some(opening)) if opening.will.is_some() => {}
            _ => return Place::Wrong,
        }
        Place::Right
    }

    pub(super) fn hello(&self) -> Option<Hello> {
        let Opening { id, greeting, start, will, .. } = &**self.opening.as_ref()?;
        let vouched = match &self.way {
            Way::Plain | Way::Encrypted => self.settings.user(id),
            // Who has proved a name is nobody else.
            Way::Certified(name) => Some(&**name),
        };
        let peer = crate::hub::peer(&self.address, &self.way);
        let mut hello = Hello::new(self.settings.gateway.clone(), peer, Some(id.clone()));
        if let Some(name) = vouched {
            hello.credentials = Credentials::Vouched(name.to_owned());
        }
        hello.start = *start;
        hello.expiry = greeting.expiry();
        // One message in flight to a board.
        hello.window = 1;
        hello.while_away = WhileAway::DropQos0;
        hello.will.clone_from(will);
        hello.keeps_will = !greeting.will;
        Some(hello)
    }

    /// The broker has answered.
    pub fn handle_attached(&mut self, now: Time, answer: Result<Attached, Refusal>, out: &mut Outbox) {
        let (State::Attaching, Some(opening)) = (self.state, self.opening.take()) else {
            // The board has gone, or begun anew, meanwhile.
            if let Ok(attached) = answer {
                attached.link.detach(Detach::Clean);
            }
            return;
        };
        match answer {
            Ok(attached) => {
                // The link it had, if any, is fenced by now.
                self.link = Some(attached.link);
                self.id = Some(opening.id);
                if attached.resumed {
                    self.topics.may_be_forgotten();
                } else {
                    self.topics = Topics::default();
                }
                self.hold(attached.lsn, Answer::ConnAck);
                self.welcome(now, opening.greeting, out);
            }
            Err(refusal) => {
                tracing::debug!(board = %self.address, id = %opening.id, %refusal, "board is not let in");
                self.send(out, &Packet::ConnAck(code_of(&refusal)));
                self.leave(Detach::Clean);
            }
        }
    }

    fn welcome(&mut self, now: Time, greeting: Greeting, out: &mut Outbox) {
        self.greet_again(out);
        self.state = State::Active;
        self.greeting = greeting;
        self.patience = greeting.keep_alive();
        self.spoke = false;
        self.heard(now);
        self.remind(now, out);
    }

    /// CONNACK, unless it waits for the store.
    fn greet_again(&self, out: &mut Outbox) {
        if !self.held.iter().any(|held| held.answer == Answer::ConnAck) {
            self.send(out, &Packet::ConnAck(ReturnCode::Accepted));
        }
    }
}

fn code_of(refusal: &Refusal) -> ReturnCode {
    match refusal {
        Refusal::ServerBusy | Refusal::ServerUnavailable | Refusal::StoreUnavailable | Refusal::InUse => {
            ReturnCode::Congestion
        }
        Refusal::BadCredentials
        | Refusal::NotAuthorized
        | Refusal::EncryptionRequired
        | Refusal::InvalidClientId
        | Refusal::NoSession
        | Refusal::WillRefused => ReturnCode::NotSupported,
    }
}
