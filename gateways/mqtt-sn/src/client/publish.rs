//! What the board publishes (§6.6), QoS -1 apart.

use super::{
    Client, code_of,
    held::{Answer, MAX_HELD},
};
use crate::{
    codec::{Packet, Publish, PublishQos, ReturnCode, TopicRef},
    outbox::Outbox,
    topics::short_topic,
};
use std::{cell::RefCell, num::NonZeroU16};
use waystation_broker::{Outcome, Publish as Message, Qos, Receipt, Topic};

/// Most messages staged before they are routed.
pub(super) const MAX_STAGED: usize = 256;

thread_local! {
    /// Receipts of one flush; kept for the room it grew.
    static RECEIPTS: RefCell<Vec<Receipt>> = const { RefCell::new(Vec::new()) };
}

/// A message that the next flush answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Staged {
    qos: Qos,
    topic_id: u16,
    msg_id: u16,
}

impl Staged {
    /// `None` for QoS 0.
    fn answer(self) -> Option<Answer> {
        match self.qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce => Some(Answer::PubAck { topic_id: self.topic_id, msg_id: self.msg_id }),
            Qos::ExactlyOnce => Some(Answer::PubRec { msg_id: self.msg_id }),
        }
    }
}

impl Client {
    pub(super) fn publish(&mut self, publish: &Publish<'_>, out: &mut Outbox) {
        let (topic_id, msg_id) = (publish.topic.raw(), publish.msg_id);
        let silent = publish.qos == PublishQos::MinusOne;
        if let Err(code) = self.stage(publish, out)
            && !silent
        {
            self.send(out, &Packet::PubAck { topic_id, msg_id, code });
        }
    }

    fn stage(&mut self, publish: &Publish<'_>, out: &mut Outbox) -> Result<(), ReturnCode> {
        let qos = match publish.qos {
            PublishQos::Mqtt(qos) => qos,
            PublishQos::MinusOne => Qos::AtMostOnce,
        };
        let staged = Staged { qos, topic_id: publish.topic.raw(), msg_id: publish.msg_id };
        if let Some(answer) = staged.answer()
            && (self.is_held(answer) || self.owed.staged.iter().any(|other| other.answer() == Some(answer)))
        {
            return Ok(()); // A repetition; the answer is on its way.
        }
        let topic = self.resolve(publish.topic).ok_or(ReturnCode::InvalidTopicId)?;
        if self.owed.staged.len() >= MAX_STAGED {
            self.flush(out);
        }
        let Some(link) = &mut self.link else { return Ok(()) };
        // QoS 0 needs neither an answer nor, unless it is kept as state, the store.
        let answered = qos != Qos::AtMostOnce;
        if answered && self.owed.held.len() + self.owed.staged.len() >= MAX_HELD
            || (answered || publish.retain) && !link.publisher().has_room()
        {
            return Err(ReturnCode::Congestion);
        }
        let mut message = Message::new(topic, publish.payload, qos);
        message.retain = publish.retain;
        if qos == Qos::ExactlyOnce {
            message.exactly_once = Some(NonZeroU16::new(publish.msg_id).ok_or(ReturnCode::NotSupported)?);
        }
        let token = u32::try_from(self.owed.staged.len()).unwrap_or(u32::MAX);
        link.publisher().stage(message, token).map_err(code_of)?;
        self.owed.lists().staged.push(staged);
        Ok(())
    }

    /// The topic the board means. `None`: an id nobody gave, or a short name that is no topic.
    pub(super) fn resolve(&self, reference: TopicRef) -> Option<Topic> {
        match reference {
            TopicRef::Normal(id) => self.topics.topic(id).cloned(),
            TopicRef::Predefined(id) => self.settings.predefined(self.id.as_ref(), id).cloned(),
            TopicRef::Short(name) => short_topic(name).ok(),
        }
    }

    /// Routes what is staged, and holds or refuses.
    pub(super) fn flush(&mut self, out: &mut Outbox) {
        if self.owed.staged.is_empty() {
            return;
        }
        let Some(link) = &mut self.link else { return self.owed.lists().staged.clear() };
        let mut receipts = RECEIPTS.take();
        let lsn = link.publisher().flush(&mut receipts);
        for receipt in receipts.drain(..) {
            let staged = usize::try_from(receipt.token).ok().and_then(|at| self.owed.staged.get(at).copied());
            let Some(staged) = staged else { continue };
            match (receipt.outcome, staged.answer()) {
                (Outcome::Accepted { .. } | Outcome::Duplicate, Some(answer)) => self.hold(lsn, answer),
                (Outcome::QuotaExceeded | Outcome::StoreUnavailable, Some(_)) => {
                    let (topic_id, msg_id) = (staged.topic_id, staged.msg_id);
                    self.send(out, &Packet::PubAck { topic_id, msg_id, code: ReturnCode::Congestion });
                }
                _ => {}
            }
        }
        self.owed.lists().staged.clear();
        RECEIPTS.set(receipts);
    }

    /// PUBREL: the board may use the message id again.
    pub(super) fn release(&mut self, msg_id: u16, out: &mut Outbox) {
        let answer = Answer::PubComp { msg_id };
        if self.is_held(answer) || self.owed.held.len() >= MAX_HELD {
            return; // It comes again.
        }
        let (Some(link), Some(packet_id)) = (&mut self.link, NonZeroU16::new(msg_id)) else {
            return self.send(out, &Packet::PubComp { msg_id });
        };
        let (lsn, _) = link.release(packet_id);
        self.hold(lsn, answer);
    }
}
