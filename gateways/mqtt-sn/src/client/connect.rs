//! Coming in (§6.2), with the conversation about the will (§6.3).

use super::{Client, State, held::Answer};
use crate::{
    codec::{Connect, Packet, ReturnCode, WillTopic},
    outbox::Outbox,
};
use std::time::Duration;
use waystation_broker::{Attached, ClientId, Detach, Hello, Peer, Qos, Refusal, Start, Time, Topic, WhileAway, Will};

/// A CONNECT that is not yet answered.
#[derive(Debug)]
pub(super) struct Opening {
    id: ClientId,
    clean: bool,
    keep_alive: Duration,
    will: Option<(Topic, Qos, bool)>,
}

impl Client {
    pub(super) fn connect(&mut self, now: Time, connect: &Connect<'_>, out: &mut Outbox) {
        // §5.3.8: the only protocol id there is.
        let id = std::str::from_utf8(connect.client_id).ok().and_then(ClientId::new);
        let (1, Some(id)) = (connect.protocol_id, id) else {
            return self.send(out, &Packet::ConnAck(ReturnCode::NotSupported));
        };
        let same = self.link.as_ref().is_some_and(|link| link.client_id() == Some(&id));
        let being_asked = matches!(self.state, State::Ready | State::Attaching);
        if being_asked && self.opening.as_ref().is_some_and(|opening| opening.id == id) {
            return; // Its repetition; the answer is on its way.
        }
        if same && !self.spoke && self.state == State::Active {
            return self.greet_again(out);
        }
        let keep_alive = Duration::from_secs(connect.duration_s.into());
        if same && !connect.clean_session && !connect.will {
            // §6.14: back from sleep, or a board that is not sure it is connected. Its will stays (§6.3, table 6).
            if let Some(link) = &mut self.link {
                link.set_expiry(u32::MAX);
            }
            self.topics.may_be_forgotten();
            return self.welcome(now, keep_alive, out);
        }
        if let Some(link) = self.link.take() {
            // A board that comes again is not lost; one that took over another's address means that other is.
            link.detach(if same { Detach::Clean } else { Detach::WithWill });
        }
        self.forget();
        self.opening = Some(Opening { id, clean: connect.clean_session, keep_alive, will: None });
        if connect.will {
            self.state = State::WillTopic;
            self.send(out, &Packet::WillTopicReq);
            self.await_answer(now);
        } else {
            self.state = State::Ready;
        }
    }

    pub(super) fn will_topic(&mut self, now: Time, topic: Option<WillTopic<'_>>, out: &mut Outbox) {
        let Some(opening) = &mut self.opening else { return };
        if self.state == State::WillMessage {
            // Its repetition: our question was lost.
            return self.send(out, &Packet::WillMsgReq);
        }
        if self.state != State::WillTopic {
            return;
        }
        let Some(will) = topic else {
            // §5.4.7: an empty WILLTOPIC means there is to be no will.
            self.state = State::Ready;
            return self.answered();
        };
        let Ok(name) = Topic::from_bytes(will.topic) else {
            self.send(out, &Packet::ConnAck(ReturnCode::InvalidTopicId));
            return self.leave(Detach::Clean);
        };
        opening.will = Some((name, will.qos, will.retain));
        self.state = State::WillMessage;
        self.send(out, &Packet::WillMsgReq);
        self.await_answer(now);
    }

    pub(super) fn will_message(&mut self, message: &[u8], out: &mut Outbox) {
        match self.state {
            State::WillMessage => {
                let will = self.opening.as_mut().and_then(|opening| opening.will.take());
                self.will = will.map(|(topic, qos, retain)| Will {
                    topic,
                    payload: bytes::Bytes::copy_from_slice(message),
                    qos,
                    retain,
                    delay_s: 0,
                    expiry: None,
                    properties: None,
                    stays: false,
                });
                self.answered();
                self.state = State::Ready;
            }
            // Its repetition: CONNACK was lost.
            State::Active if !self.spoke => self.greet_again(out),
            _ => {}
        }
    }

    pub(super) fn hello(&self) -> Option<Hello> {
        let opening = self.opening.as_ref()?;
        let mut hello = Hello::new(self.settings.gateway.clone(), Peer::direct(self.address), Some(opening.id.clone()));
        if !opening.clean {
            hello.start = Start::Resume;
            hello.expiry = u32::MAX;
        }
        hello.window = 1;
        hello.while_away = WhileAway::DropQos0;
        hello.will.clone_from(&self.will);
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
                self.link = Some(attached.link);
                self.hold(attached.lsn, Answer::ConnAck);
                self.welcome(now, opening.keep_alive, out);
            }
            Err(refusal) => {
                self.send(out, &Packet::ConnAck(code_of(&refusal)));
                self.leave(Detach::Clean);
            }
        }
    }

    fn welcome(&mut self, now: Time, keep_alive: Duration, out: &mut Outbox) {
        if !self.held.iter().any(|held| held.answer == Answer::ConnAck) {
            self.send(out, &Packet::ConnAck(ReturnCode::Accepted));
        }
        self.state = State::Active;
        self.patience = keep_alive;
        self.spoke = false;
        self.heard(now);
        if self.outgoing.is_some() {
            self.repeat(out);
            self.await_answer(now);
        }
    }

    fn greet_again(&self, out: &mut Outbox) {
        if !self.held.iter().any(|held| held.answer == Answer::ConnAck) {
            self.send(out, &Packet::ConnAck(ReturnCode::Accepted));
        }
    }
}

fn code_of(refusal: &Refusal) -> ReturnCode {
    match refusal {
        Refusal::ServerBusy | Refusal::ServerUnavailable | Refusal::InUse => ReturnCode::Congestion,
        Refusal::BadCredentials
        | Refusal::NotAuthorized
        | Refusal::EncryptionRequired
        | Refusal::InvalidClientId
        | Refusal::NoSession
        | Refusal::WillRefused => ReturnCode::NotSupported,
    }
}
