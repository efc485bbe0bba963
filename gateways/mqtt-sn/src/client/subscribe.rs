//! Wanting messages, and wanting them no more (§6.7).

use super::{
    Client, code_of,
    held::{Answer, MAX_HELD},
};
use crate::{
    codec::{Packet, ReturnCode, SubAck, Subscribe, TopicName, Unsubscribe},
    outbox::Outbox,
};
use waystation_broker::{Filter, Qos, Subscription, Topic};

impl Client {
    pub(super) fn subscribe(&mut self, subscribe: &Subscribe<'_>, out: &mut Outbox) {
        let msg_id = subscribe.msg_id;
        if self.owed.held.len() >= MAX_HELD || self.is_subscribing(msg_id) {
            return; // It comes again, or the answer is on its way.
        }
        let refuse = |code| Packet::SubAck(SubAck { qos: Qos::AtMostOnce, topic_id: 0x0000, msg_id, code });
        let Some(filter) = self.filter(subscribe.topic) else {
            return self.send(out, &refuse(ReturnCode::InvalidTopicId));
        };
        let Some(link) = &mut self.link else { return };
        let mut granted = Vec::with_capacity(1);
        let lsn = link.subscribe(&[Subscription::new(filter.clone(), subscribe.qos)], &mut granted);
        match granted.first() {
            Some(Ok(qos)) => {
                let topic_id = self.known_as(subscribe.topic, &filter);
                let ack = SubAck { qos: *qos, topic_id, msg_id, code: ReturnCode::Accepted };
                self.hold(lsn, Answer::SubAck(ack));
            }
            Some(Err(refused)) => self.send(out, &refuse(code_of(*refused))),
            None => {}
        }
    }

    pub(super) fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>, out: &mut Outbox) {
        let msg_id = unsubscribe.msg_id;
        let answer = Answer::UnsubAck { msg_id };
        if self.is_held(answer) || self.owed.held.len() >= MAX_HELD {
            return;
        }
        // UNSUBACK has no return code (§5.4.18): what cannot be a subscription is none any more.
        let Some(filter) = self.filter(unsubscribe.topic) else {
            return self.send(out, &Packet::UnsubAck { msg_id });
        };
        let Some(link) = &mut self.link else { return };
        let lsn = link.unsubscribe(&[filter], &mut Vec::new());
        self.hold(lsn, answer);
    }

    fn is_subscribing(&self, msg_id: u16) -> bool {
        self.owed.held.iter().any(|held| matches!(held.answer, Answer::SubAck(ack) if ack.msg_id == msg_id))
    }

    fn filter(&self, name: TopicName<'_>) -> Option<Filter> {
        match name {
            TopicName::Name(name) => Filter::parse(std::str::from_utf8(name).ok()?).ok(),
            TopicName::Predefined(id) => Filter::parse(self.settings.predefined(self.id.as_ref(), id)?.as_str()).ok(),
            TopicName::Short(name) => Filter::parse(std::str::from_utf8(&name).ok()?).ok(),
        }
    }

    /// The id that messages of this subscription will come under; 0x0000 where there is none (§5.4.16).
    fn known_as(&mut self, name: TopicName<'_>, filter: &Filter) -> u16 {
        match name {
            TopicName::Name(_) => Topic::parse(filter.pattern()).map_or(0x0000, |topic| self.topics.id_for(&topic)),
            TopicName::Predefined(id) => {
                if let Some(topic) = self.settings.predefined(self.id.as_ref(), id) {
                    self.topics.knows_predefined(topic, id);
                }
                id
            }
            TopicName::Short(_) => 0x0000,
        }
    }
}
