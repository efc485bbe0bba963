//! A CONNECT that is not yet answered, with the conversation about the will (§6.3). It stands beside the connection
//! that the board may still have, which goes on meanwhile: a late copy of a CONNECT must not end that, and a late copy
//! of something else must not end the conversation.

use super::{Client, Place, State, code_of, connect::Greeting, held::Answer};
use crate::{
    codec::{Packet, ReturnCode, WillTopic},
    outbox::Outbox,
};
use bytes::Bytes;
use waystation_broker::{ClientId, Detach, Qos, Start, Time, Topic, Will};

/// A CONNECT that is not yet answered.
pub(super) struct Opening {
    pub(super) id: ClientId,
    pub(super) greeting: Greeting,
    pub(super) start: Start,
    pub(super) stage: Stage,
    pub(super) will: Option<Will>,
    /// What WILLTOPIC said.
    will_topic: Option<(Topic, Qos, bool)>,
    /// When a conversation that is not finished is forgotten.
    until: Time,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The will topic is awaited.
    WillTopic,
    /// The will message is awaited.
    WillMessage,
    /// The hello is ready for the driver.
    Ready,
    /// The broker is being asked.
    Attaching,
}

impl Opening {
    pub(super) fn new(id: ClientId, greeting: Greeting, start: Start, until: Time) -> Self {
        let stage = if greeting.will { Stage::WillTopic } else { Stage::Ready };
        Self { id, greeting, start, stage, will: None, will_topic: None, until }
    }

    /// When to give it up; never while it is not the board's turn.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.is_conversation().then_some(self.until)
    }

    /// Whether the board is to say something.
    pub(super) fn is_conversation(&self) -> bool {
        matches!(self.stage, Stage::WillTopic | Stage::WillMessage)
    }
}

impl Client {
    pub(super) fn will_topic(&mut self, now: Time, topic: Option<WillTopic<'_>>, out: &mut Outbox) -> Place {
        let unheard = self.may_miss_connack();
        match (self.opening.as_deref_mut(), topic) {
            // §5.4.7: an empty WILLTOPIC means there is to be no will, not even the one there was.
            (Some(opening @ Opening { stage: Stage::WillTopic, .. }), None) => {
                opening.stage = Stage::Ready;
                self.go_on(now, out);
            }
            (Some(opening @ Opening { stage: Stage::WillTopic, .. }), Some(will)) => {
                if let Ok(name) = Topic::from_bytes(will.topic) {
                    opening.will_topic = Some((name, will.qos, will.retain));
                    opening.stage = Stage::WillMessage;
                    self.send(out, &Packet::WillMsgReq);
                } else {
                    self.send(out, &Packet::ConnAck(ReturnCode::InvalidTopicId));
                    self.leave(Detach::Clean);
                }
            }
            // Its repetition: our question was lost.
            (Some(Opening { stage: Stage::WillMessage, .. }), _) => self.send(out, &Packet::WillMsgReq),
            // Likewise: CONNACK is on its way, or was lost.
            (Some(_), _) => {}
            (None, _) if unheard => self.greet_again(out),
            _ => return Place::Wrong,
        }
        Place::Right
    }

    pub(super) fn will_message(&mut self, now: Time, message: &[u8], out: &mut Outbox) -> Place {
        let unheard = self.may_miss_connack();
        match self.opening.as_deref_mut() {
            Some(opening @ Opening { stage: Stage::WillMessage, .. }) => {
                let keep_alive_s = opening.greeting.duration_s;
                let stays = opening.greeting.is_persistent();
                opening.will = opening.will_topic.take().map(|(topic, qos, retain)| Will {
                    retain,
                    keep_alive_s,
                    stays,
                    ..Will::new(topic, Bytes::copy_from_slice(message), qos)
                });
                opening.stage = Stage::Ready;
                self.go_on(now, out);
            }
            // A CONNECT that was late, or said again, has begun the conversation anew.
            Some(Opening { stage: Stage::WillTopic, .. }) => self.send(out, &Packet::WillTopicReq),
            // Its repetition: CONNACK is on its way, or was lost.
            Some(_) => {}
            None if unheard => self.greet_again(out),
            _ => return Place::Wrong,
        }
        Place::Right
    }

    /// The conversation is over. A board that is in, and goes on with its session, has a new will and is welcome; what
    /// is under way stays so. Any other the broker is to be asked about.
    fn go_on(&mut self, now: Time, out: &mut Outbox) {
        let Some(link) = &mut self.link else { return };
        let Some(opening) = self.opening.take_if(|opening| opening.start == Start::Resume) else { return };
        match link.set_will(opening.will) {
            Ok(lsn) => {
                self.hold(lsn, Answer::ConnAck);
                self.resume(now, opening.greeting, out);
            }
            Err(refused) => {
                self.send(out, &Packet::ConnAck(code_of(refused)));
                self.leave(Detach::Clean);
            }
        }
    }

    /// Whether the board came in by such a conversation, and so may not know yet that it is over. What it said since
    /// proves nothing: that may be a late copy of what it said before.
    fn may_miss_connack(&self) -> bool {
        self.state == State::Active && self.greeting.will
    }
}
