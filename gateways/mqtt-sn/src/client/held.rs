//! Acknowledgements that wait until what they speak of is safe.

use super::{Client, State};
use crate::{
    codec::{Packet, ReturnCode, SubAck},
    outbox::Outbox,
};
use waystation_broker::{Lsn, Time};

/// Most acknowledgements held for one board, which should have one request open at a time (§6.12). More requests
/// are answered with "congestion", or not at all.
pub(super) const MAX_HELD: usize = 64;

#[derive(Debug)]
pub(super) struct Held {
    lsn: Lsn,
    pub(super) answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    ConnAck,
    PubAck {
        topic_id: u16,
        msg_id: u16,
    },
    PubRec {
        msg_id: u16,
    },
    PubComp {
        msg_id: u16,
    },
    /// To a PUBREC of the board.
    PubRel {
        msg_id: u16,
    },
    SubAck(SubAck),
    UnsubAck {
        msg_id: u16,
    },
    WillTopicResp,
    WillMsgResp,
}

impl Client {
    pub(super) fn hold(&mut self, lsn: Lsn, answer: Answer) {
        self.held.push_back(Held { lsn, answer });
    }

    pub(super) fn is_held(&self, answer: Answer) -> bool {
        self.held.iter().any(|held| held.answer == answer)
    }

    /// Sends what is safe by now, in order.
    pub(super) fn let_go(&mut self, now: Time, out: &mut Outbox) {
        while let (Some(held), Some(link)) = (self.held.front(), &mut self.link) {
            if !link.hold(held.lsn) {
                return;
            }
            let answer = held.answer;
            self.held.pop_front();
            let packet = match answer {
                Answer::ConnAck => Packet::ConnAck(ReturnCode::Accepted),
                Answer::PubAck { topic_id, msg_id } => Packet::PubAck { topic_id, msg_id, code: ReturnCode::Accepted },
                Answer::PubRec { msg_id } => Packet::PubRec { msg_id },
                Answer::PubComp { msg_id } => Packet::PubComp { msg_id },
                Answer::PubRel { msg_id } => {
                    self.releases(now, msg_id, out);
                    continue;
                }
                Answer::SubAck(ack) => Packet::SubAck(ack),
                Answer::UnsubAck { msg_id } => Packet::UnsubAck { msg_id },
                Answer::WillTopicResp => Packet::WillTopicResp(ReturnCode::Accepted),
                Answer::WillMsgResp => Packet::WillMsgResp(ReturnCode::Accepted),
            };
            self.send(out, &packet);
        }
    }

    /// Whether messages may go to the board now.
    pub(super) fn takes_deliveries(&self) -> bool {
        // Nothing overtakes CONNACK or SUBACK: the board would not know the topic id.
        matches!(self.state, State::Active | State::Awake) && self.outgoing.is_none() && self.held.is_empty()
    }
}
