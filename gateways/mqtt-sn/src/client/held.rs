//! Acknowledgements that wait until what they speak of is safe.

use super::{Client, State, publish::Staged};
use crate::{
    codec::{Packet, ReturnCode, SubAck},
    outbox::Outbox,
};
use std::{cell::RefCell, collections::VecDeque, ops::Deref};
use waystation_broker::{Lsn, Time};

/// Most acknowledgements held for one board, which should have one request open at a time (§6.12). More requests
/// are answered with "congestion", or not at all.
pub(super) const MAX_HELD: usize = 64;

/// Lists that a loop keeps for the next board that has something to wait for.
const POOLED: usize = 64;

thread_local! {
    #[expect(clippy::vec_box, reason = "the boxes are what is lent")]
    static POOL: RefCell<Vec<Box<Lists>>> = const { RefCell::new(Vec::new()) };
}

/// What a board waits to hear. Most boards are silent most of the time, and then it takes no room.
#[derive(Debug, Default)]
pub(super) struct Owed(Option<Box<Lists>>);

#[derive(Debug, Default)]
pub(super) struct Lists {
    /// At most [`super::publish::MAX_STAGED`].
    pub(super) staged: Vec<Staged>,
    /// At most [`MAX_HELD`].
    pub(super) held: VecDeque<Held>,
}

impl Owed {
    /// The lists, to be added to.
    pub(super) fn lists(&mut self) -> &mut Lists {
        self.0.get_or_insert_with(|| POOL.with_borrow_mut(Vec::pop).unwrap_or_default())
    }

    /// Gives up the room if nothing is left in it.
    fn rest(&mut self) {
        if let Some(lists) = self.0.take_if(|lists| lists.staged.is_empty() && lists.held.is_empty()) {
            POOL.with_borrow_mut(|pool| {
                if pool.len() < POOLED {
                    pool.push(lists);
                }
            });
        }
    }
}

impl Deref for Owed {
    type Target = Lists;

    fn deref(&self) -> &Lists {
        static NOTHING: Lists = Lists { staged: Vec::new(), held: VecDeque::new() };
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

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
        self.owed.lists().held.push_back(Held { lsn, answer });
    }

    pub(super) fn is_held(&self, answer: Answer) -> bool {
        self.owed.held.iter().any(|held| held.answer == answer)
    }

    /// Sends what is safe by now, in order.
    pub(super) fn let_go(&mut self, now: Time, out: &mut Outbox) {
        while let (Some(held), Some(link)) = (self.owed.held.front(), &mut self.link) {
            if !link.hold(held.lsn) {
                return;
            }
            let answer = held.answer;
            self.owed.lists().held.pop_front();
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
        self.owed.rest();
    }

    /// Whether messages may go to the board now.
    pub(super) fn takes_deliveries(&self) -> bool {
        // Nothing overtakes CONNACK or SUBACK: the board would not know the topic id.
        matches!(self.state, State::Active | State::Awake) && self.outgoing.is_none() && self.owed.held.is_empty()
    }
}
