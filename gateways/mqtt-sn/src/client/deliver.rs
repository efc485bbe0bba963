//! Messages to the board: one at a time, REGISTER before the first of each topic (§6.10), again until answered.

use super::{Client, State, held::Answer};
use crate::{
    codec::{Packet, Publish, PublishQos, ReturnCode, encode},
    outbox::Outbox,
    topics::Standing,
};
use std::num::NonZeroU16;
use waystation_broker::{Budget, Delivery, Pick, Qos, Settle, Stage, Tag, Taken, Time, Topic};

/// Most messages of QoS 0 in one turn; the rest follows in the next.
const MAX_BURST: usize = 32;

/// Octets before a PUBLISH's payload: long length, type, flags, topic id, message id.
const PUBLISH_HEAD: usize = 9;

/// Octets before a REGISTER's topic name.
const REGISTER_HEAD: usize = 8;

/// Octets around a wireless node id: length, type, control (§5.5).
const ENCAPSULATION_HEAD: usize = 3;

/// The bit of the flags octet that says "perhaps again" (§5.3.4).
const DUP: u8 = 0b1000_0000;

/// What the board has not answered yet.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// REGISTER, and what goes out after it.
    Registering { datagram: Box<[u8]>, topic_id: u16, msg_id: u16, then: Option<Box<Refused>> },
    /// PUBLISH. `registered`: it was refused for its topic id before.
    Published { datagram: Box<[u8]>, tag: Tag, topic: Topic, qos: Qos, registered: bool },
    /// PUBREC came; its PUBREL waits for the store, or for PUBCOMP.
    Releasing { tag: Tag, sent: bool },
}

/// A PUBLISH that the board refused for its topic id; it goes out again under a new one.
#[derive(Debug)]
pub(super) struct Refused {
    tag: Tag,
    qos: Qos,
    datagram: Box<[u8]>,
}

impl Client {
    /// Takes what waits, as far as the board may have it.
    pub(super) fn deliver(&mut self, now: Time, out: &mut Outbox) {
        if !self.takes_deliveries() {
            return;
        }
        let at_most = match self.state {
            State::Awake => MAX_BURST.min(usize::try_from(self.left_of_visit).unwrap_or(MAX_BURST)),
            _ => MAX_BURST,
        };
        let max_datagram = self.room();
        let budget = Budget { messages: at_most, bytes: at_most * max_datagram };
        let Some(link) = &mut self.link else { return };
        let mut round = Round { topics: &self.topics, max_datagram, to: &self.address, out, next: None };
        let mut sent = link.take(Pick::Inflight, budget, |delivery| round.visit(delivery));
        if round.next.is_none() && sent < at_most {
            let budget = Budget { messages: at_most - sent, ..budget };
            sent += link.take(Pick::Unsent, budget, |delivery| round.visit(delivery));
        }
        let next = round.next;
        self.left_of_visit = self.left_of_visit.saturating_sub(u32::try_from(sent).unwrap_or(u32::MAX));
        match next {
            Some(Next::Register(topic)) => self.offer(now, &topic, None, out),
            Some(Next::Await(outgoing)) => {
                self.outgoing = Some(outgoing);
                self.await_answer(now);
            }
            // `take` says so itself if there is more.
            None if sent > 0 && self.left_of_visit > 0 => {}
            None => self.end_of_visit(out),
        }
    }

    /// Octets of the largest message, without what a forwarder needs.
    fn room(&self) -> usize {
        let wrapping = self.address.node.as_ref().map_or(0, |node| node.len() + ENCAPSULATION_HEAD);
        self.settings.max_datagram.saturating_sub(wrapping)
    }

    fn offer(&mut self, now: Time, topic: &Topic, then: Option<Box<Refused>>, out: &mut Outbox) {
        let topic_id = self.topics.offer(topic);
        self.next_msg_id = self.next_msg_id.checked_add(1).unwrap_or(1);
        let msg_id = self.next_msg_id;
        let mut datagram = Vec::new();
        let register = Packet::Register { topic_id, msg_id, name: topic.as_str().as_bytes() };
        if encode(&register, &mut datagram).is_ok() {
            out.push_bytes(&self.address, &datagram);
        }
        self.outgoing = Some(Outgoing::Registering { datagram: datagram.into(), topic_id, msg_id, then });
        self.await_answer(now);
    }

    pub(super) fn registered(&mut self, now: Time, id: u16, msg_id: u16, code: ReturnCode, out: &mut Outbox) {
        let Some(Outgoing::Registering { msg_id: expected, topic_id, .. }) = &self.outgoing else { return };
        if *expected != msg_id || *topic_id != id {
            return;
        }
        match code {
            ReturnCode::Congestion => return, // The retry timer tries again.
            ReturnCode::Accepted => self.topics.note(id, Standing::Told),
            _ => self.topics.note(id, Standing::Refused),
        }
        let Some(Outgoing::Registering { then, .. }) = self.outgoing.take() else { return };
        self.answered();
        match then.map(|refused| *refused) {
            Some(Refused { tag, qos, mut datagram }) if code == ReturnCode::Accepted => {
                rename(&mut datagram, id);
                out.push_bytes(&self.address, &datagram);
                if let Some(topic) = self.topics.topic(id).cloned() {
                    self.outgoing = Some(Outgoing::Published { datagram, tag, topic, qos, registered: true });
                    self.await_answer(now);
                }
            }
            Some(Refused { tag, .. }) => self.settle(tag, Settle::Rejected),
            None => {}
        }
    }

    pub(super) fn acknowledged(&mut self, now: Time, id: u16, msg_id: u16, code: ReturnCode, out: &mut Outbox) {
        // QoS 2 is not accepted by PUBACK, only refused.
        let fits = |qos: Qos| qos == Qos::AtLeastOnce || code != ReturnCode::Accepted;
        let ours = matches!(&self.outgoing, Some(Outgoing::Published { tag, qos, .. })
            if tag.0.get() == msg_id && fits(*qos));
        if !ours {
            if code == ReturnCode::InvalidTopicId {
                // A QoS 0 PUBLISH the board did not understand: it is lost, the next is registered first.
                self.topics.note(id, Standing::Untold);
            }
            return;
        }
        if code == ReturnCode::Congestion {
            return; // The retry timer tries again.
        }
        let Some(Outgoing::Published { datagram, tag, topic, qos, registered }) = self.outgoing.take() else { return };
        self.answered();
        match code {
            ReturnCode::Accepted => self.settle(tag, Settle::Acknowledged),
            ReturnCode::InvalidTopicId if !registered => {
                self.offer(now, &topic, Some(Box::new(Refused { tag, qos, datagram })), out);
            }
            _ => self.settle(tag, Settle::Rejected),
        }
    }

    pub(super) fn received(&mut self, msg_id: u16, out: &mut Outbox) {
        let Some(tag) = NonZeroU16::new(msg_id).map(Tag) else { return };
        match &self.outgoing {
            Some(Outgoing::Published { tag: expected, qos: Qos::AtLeastOnce, .. }) if *expected == tag => {}
            Some(Outgoing::Published { tag: expected, .. }) if *expected == tag => {
                let Some(link) = &mut self.link else { return };
                let lsn = link.settle(&[(tag, Settle::Received)], &mut Vec::new());
                self.answered();
                self.outgoing = Some(Outgoing::Releasing { tag, sent: false });
                self.hold(lsn, Answer::PubRel { msg_id });
            }
            // Our PUBREL waits for the store.
            Some(Outgoing::Releasing { tag: expected, sent: false }) if *expected == tag => {}
            // Its repetition, or one for something long done: it must come to an end.
            _ => self.send(out, &Packet::PubRel { msg_id }),
        }
    }

    /// What PUBREL speaks of is safe.
    pub(super) fn releases(&mut self, now: Time, msg_id: u16, out: &mut Outbox) {
        if let Some(Outgoing::Releasing { tag, sent }) = &mut self.outgoing
            && tag.0.get() == msg_id
        {
            *sent = true;
            self.send(out, &Packet::PubRel { msg_id });
            self.await_answer(now);
        }
    }

    pub(super) fn completed(&mut self, msg_id: u16) {
        if let Some(Outgoing::Releasing { tag, .. }) = self.outgoing
            && tag.0.get() == msg_id
        {
            self.outgoing = None;
            self.answered();
            self.settle(tag, Settle::Completed);
        }
    }

    /// Sends again what is unanswered (§6.13).
    pub(super) fn repeat(&mut self, out: &mut Outbox) {
        match &mut self.outgoing {
            Some(Outgoing::Registering { datagram, .. }) => out.push_bytes(&self.address, datagram),
            Some(Outgoing::Published { datagram, .. }) => {
                mark_repeated(datagram);
                out.push_bytes(&self.address, datagram);
            }
            Some(Outgoing::Releasing { tag, sent: true }) => {
                out.push(&self.address, &Packet::PubRel { msg_id: tag.0.get() });
            }
            Some(Outgoing::Releasing { .. }) => {}
            None => {}
        }
    }

    /// A board that is back is asked again at once for what it has not answered; but a copy of QoS 2 that is perhaps
    /// still under way must not be overtaken by the end of its exchange.
    pub(super) fn remind(&mut self, now: Time, out: &mut Outbox) {
        let again = self.timers.asked.after(self.settings.retry_interval);
        match &self.outgoing {
            None => {}
            Some(Outgoing::Published { qos: Qos::ExactlyOnce, .. }) if now < again => {
                (self.timers.retries, self.timers.retry) = (0, Some(again));
            }
            Some(_) => {
                self.repeat(out);
                self.await_answer(now);
            }
        }
    }

    fn settle(&mut self, tag: Tag, how: Settle) {
        if let Some(link) = &mut self.link {
            // The next message need not wait until this is safe: at worst it comes again after a crash.
            link.settle(&[(tag, how)], &mut Vec::new());
        }
    }
}

/// One `take`.
struct Round<'a> {
    topics: &'a crate::topics::Topics,
    max_datagram: usize,
    to: &'a crate::address::Address,
    out: &'a mut Outbox,
    next: Option<Next>,
}

enum Next {
    Register(Topic),
    Await(Outgoing),
}

impl Round<'_> {
    fn visit(&mut self, delivery: &Delivery<'_>) -> Taken {
        if self.next.is_some() {
            return Taken::Stop;
        }
        if let (Stage::Received, Some(tag)) = (delivery.stage, delivery.tag) {
            self.out.push(self.to, &Packet::PubRel { msg_id: tag.0.get() });
            self.next = Some(Next::Await(Outgoing::Releasing { tag, sent: true }));
            return Taken::Sent;
        }
        let (topic, payload) = (delivery.message.topic(), delivery.message.payload());
        let name = topic.as_str().len();
        if payload.len() + PUBLISH_HEAD > self.max_datagram {
            return Taken::TooLarge;
        }
        let reference = match self.topics.name_for(topic) {
            Some((reference, Standing::Told)) => reference,
            Some((_, Standing::Refused)) => return Taken::Rejected,
            Some((_, Standing::Untold)) | None if name + REGISTER_HEAD > self.max_datagram => return Taken::TooLarge,
            Some((_, Standing::Untold)) | None => {
                self.next = Some(Next::Register(topic.clone()));
                return Taken::Stop;
            }
        };
        let publish = Packet::Publish(Publish {
            dup: delivery.redelivered && delivery.tag.is_some(),
            qos: PublishQos::Mqtt(delivery.qos),
            retain: delivery.retain,
            topic: reference,
            msg_id: delivery.tag.map_or(0x0000, |tag| tag.0.get()),
            payload,
        });
        if let Some(tag) = delivery.tag {
            let mut datagram = Vec::with_capacity(payload.len() + PUBLISH_HEAD);
            if encode(&publish, &mut datagram).is_err() {
                return Taken::TooLarge;
            }
            self.out.push_bytes(self.to, &datagram);
            let topic = topic.clone();
            let datagram = datagram.into();
            self.next =
                Some(Next::Await(Outgoing::Published { datagram, tag, topic, qos: delivery.qos, registered: false }));
        } else {
            self.out.push(self.to, &publish);
        }
        Taken::Sent
    }
}

/// Where an encoded PUBLISH has its flags octet.
fn flags_at(datagram: &[u8]) -> usize {
    if datagram.first() == Some(&0x01) { 4 } else { 2 }
}

fn mark_repeated(datagram: &mut [u8]) {
    let at = flags_at(datagram);
    if let Some(flags) = datagram.get_mut(at) {
        *flags |= DUP;
    }
}

/// Puts another normal topic id into an encoded PUBLISH.
fn rename(datagram: &mut [u8], id: u16) {
    let at = flags_at(datagram);
    if let Some([flags, high, low]) = datagram.get_mut(at..at + 3) {
        *flags = (*flags & !0b11) | DUP;
        [*high, *low] = id.to_be_bytes();
    }
}
