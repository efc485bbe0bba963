//! Coming in (§6.2).

use super::{
    Client, State, Way,
    held::Answer,
    opening::{Opening, Stage},
};
use crate::{
    codec::{Connect, Packet, ReturnCode},
    outbox::Outbox,
    topics::Topics,
};
use std::time::Duration;
use waystation_broker::{Attached, ClientId, Credentials, Detach, Hello, Refusal, Start, Time, WhileAway};

/// What a CONNECT says beside the name: its repetition says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Greeting {
    clean: bool,
    pub(super) will: bool,
    pub(super) duration_s: u16,
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
        let (1, Some(id)) = (connect.protocol_id, client_id(connect.client_id)) else {
            return self.send(out, &Packet::ConnAck(ReturnCode::NotSupported));
        };
        let greeting = Greeting { clean: connect.clean_session, will: connect.will, duration_s: connect.duration_s };
        if self.opening.as_ref().is_some_and(|opening| opening.id == id && !opening.is_conversation()) {
            return; // Its repetition; the answer is on its way.
        }
        let known = self.link.is_some() && self.id.as_ref() == Some(&id);
        if known && self.state == State::Active && !self.spoke && greeting == self.greeting {
            return self.greet_again(out);
        }
        // §6.14: CONNECT from asleep or awake is the way back to active, whatever its flags say of sessions: what
        // waits for a sleeper was acknowledged to its publisher. One that is active and asks for a clean session has
        // begun anew.
        let goes_on = known && (self.state != State::Active || !greeting.clean);
        if goes_on && !greeting.will {
            // Its will stays (§6.3, table 6).
            self.opening = None;
            return self.resume(now, greeting, out);
        }
        if !known {
            // One that took over another's address means that other is lost.
            self.leave(Detach::WithWill);
            (self.topics, self.id) = (Topics::default(), None);
        }
        let start = if goes_on || !greeting.clean { Start::Resume } else { Start::Clean };
        // What gets lost in a conversation is for the board to repeat (§6.13): to an address that has not connected
        // nothing is sent unasked.
        let until = now.after(self.settings.opening_time());
        self.opening = Some(Box::new(Opening::new(id, greeting, start, until)));
        if greeting.will {
            self.send(out, &Packet::WillTopicReq);
        }
    }

    /// What to attach with, once.
    pub fn poll_attach(&mut self) -> Option<Hello> {
        let opening = self.opening.as_mut().filter(|opening| opening.stage == Stage::Ready)?;
        opening.stage = Stage::Attaching;
        // A board that begins anew is not lost: its will is not for publishing.
        self.let_go_of_link(Detach::Clean);
        self.hello()
    }

    fn hello(&self) -> Option<Hello> {
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
        let Some(opening) = self.opening.take_if(|opening| opening.stage == Stage::Attaching) else {
            // The board has gone, or begun anew, meanwhile.
            if let Ok(attached) = answer {
                attached.link.detach(Detach::Clean);
            }
            return;
        };
        match answer {
            Ok(attached) => {
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

    /// A board that is in goes on with its session.
    pub(super) fn resume(&mut self, now: Time, greeting: Greeting, out: &mut Outbox) {
        if let Some(link) = &mut self.link {
            link.set_expiry(greeting.expiry());
        }
        self.topics.may_be_forgotten();
        self.wake_up();
        self.welcome(now, greeting, out);
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
    pub(super) fn greet_again(&self, out: &mut Outbox) {
        if !self.owed.held.iter().any(|held| held.answer == Answer::ConnAck) {
            self.send(out, &Packet::ConnAck(ReturnCode::Accepted));
        }
    }
}

/// The client id that these bytes are; `None`: none that a board may have.
pub(crate) fn client_id(bytes: &[u8]) -> Option<ClientId> {
    std::str::from_utf8(bytes).ok().and_then(ClientId::new).filter(|id| !id.is_own())
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
