//! From the client: every packet of a burst is obeyed in place; what it published is routed together, and
//! acknowledged together.

use super::{Burst, Connection, Pending, Scratch, Verdict, kept::Kept};
use crate::codec::{
    self, Ack, AckProperties, Disconnect, EncodeError, Packet, PacketType, Publish, ReasonCode, SubAck, Subscribe,
    UnsubAck, Unsubscribe, Version, encode_ack,
};
use std::borrow::Cow;
use waystation_broker::{
    self as core, Detach, Filter, Limits, Lsn, Outcome, Qos, Refused, Settle, Subscription, Tag, Time, Topic,
};

/// What is wrong with a publication, for the client and for the log.
type Fault = (ReasonCode, Cow<'static, str>);

/// The token of publications that are not acknowledged.
const NO_TOKEN: u32 = u32::MAX;

impl Connection {
    /// Obeys every whole packet in `bytes`; gives how many bytes they took.
    pub(crate) fn handle_bytes(
        &mut self,
        now: Time,
        bytes: &[u8],
        limits: &Limits,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut burst = Burst { scratch, lsn: Lsn::default(), credits: 0 };
        let mut used = 0;
        while self.closing.is_none() {
            match codec::decode(&bytes[used..], self.version, limits.max_packet_size) {
                Ok(None) => break,
                Ok(Some((packet, len))) => {
                    self.handle_packet(packet, (used, used + len), bytes, now, limits, &mut burst, out);
                    used += len;
                }
                Err(error) => {
                    // A second CONNECT, whatever else is wrong with it [MQTT-3.1.0-2]: some of its reasons are none of
                    // DISCONNECT's [MQTT-3.14.2-1].
                    let again = bytes[used] == PacketType::Connect.first_byte();
                    self.fail(if again { ReasonCode::PROTOCOL_ERROR } else { error.reason() }, &error);
                }
            }
        }
        if used > 0 {
            self.keep_alive.heard(now);
        }
        self.route(bytes, now, limits, &mut burst);
        self.settle(&mut burst);
        let Burst { scratch, lsn, credits } = burst;
        self.release_or_hold(lsn, &scratch.acks, credits, out);
        scratch.acks.clear();
        used
    }

    #[expect(clippy::too_many_arguments, reason = "one call a packet, all of it borrowed from the caller")]
    fn handle_packet(
        &mut self,
        packet: Packet<'_>,
        at: (usize, usize),
        bytes: &[u8],
        now: Time,
        limits: &Limits,
        burst: &mut Burst<'_>,
        out: &mut Vec<u8>,
    ) {
        match packet {
            Packet::Publish(publish) => self.handle_publish(&publish, at, bytes, now, limits, burst),
            Packet::PubAck(ack) => burst.answer(&ack, Settle::Acknowledged),
            Packet::PubRec(ack) => burst.answer(&ack, Settle::Received),
            Packet::PubComp(ack) => burst.answer(&ack, Settle::Completed),
            Packet::PubRel(ack) => self.handle_pubrel(&ack, burst),
            // What was published before takes effect before.
            Packet::Subscribe(subscribe) => {
                self.route(bytes, now, limits, burst);
                self.handle_subscribe(&subscribe, limits, burst);
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.route(bytes, now, limits, burst);
                self.handle_unsubscribe(&unsubscribe, burst);
            }
            Packet::PingReq => out.extend_from_slice(&[PacketType::PingResp.first_byte(), 0]),
            Packet::Disconnect(disconnect) => self.handle_disconnect(&disconnect),
            // A second CONNECT [MQTT-3.1.0-2]; AUTH without a method in CONNECT [MQTT-4.12.0-6]; the rest is the
            // server's to send, and the codec refuses it.
            Packet::Connect(_) => self.fail(ReasonCode::PROTOCOL_ERROR, &"a second CONNECT"),
            Packet::Auth(_) => self.fail(ReasonCode::PROTOCOL_ERROR, &"AUTH without a method in CONNECT"),
            _ => self.fail(ReasonCode::PROTOCOL_ERROR, &"a packet that only a server sends"),
        }
    }

    fn handle_publish(
        &mut self,
        publish: &Publish<'_>,
        at: (usize, usize),
        bytes: &[u8],
        now: Time,
        limits: &Limits,
        burst: &mut Burst<'_>,
    ) {
        if publish.packet_id.is_some() && self.version == Version::V5 {
            if self.open >= limits.receive_maximum {
                let why = &"more publications unacknowledged than limits.receive_maximum";
                return self.fail(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, why); // [MQTT-3.3.4-7], [MQTT-3.3.4-8]
            }
            self.open += 1;
        }
        let topic = match self.topic(publish, limits) {
            Ok(topic) => topic,
            Err((reason, why)) => return self.fail(reason, &why),
        };
        if publish.packet_id.is_some() && self.kept.is_some() {
            // Behind those that were refused, or their order would be lost.
            return self.keep(&bytes[at.0..at.1], now, limits);
        }
        let verdict = self.stage(publish, topic, burst.scratch.pending.len());
        let verdict = match verdict {
            Ok(()) => None,
            Err((reason, _)) if self.may_acknowledge(publish, reason) => Some(Verdict::Answer(reason)),
            Err((reason, why)) => return self.fail(reason, &why),
        };
        if let Some(id) = publish.packet_id {
            burst.scratch.pending.push(Pending { id, qos: publish.qos, verdict, at });
        }
    }

    /// The topic a PUBLISH names, by itself or by an alias.
    fn topic(&mut self, publish: &Publish<'_>, limits: &Limits) -> Result<Topic, Fault> {
        let invalid = |_| (ReasonCode::TOPIC_NAME_INVALID, Cow::Borrowed("the topic name is invalid"));
        let Some(alias) = publish.properties.topic_alias else {
            return self.link.publisher().topic(publish.topic.as_bytes()).map_err(invalid);
        };
        if alias.get() > limits.topic_alias_maximum {
            let why = Cow::Borrowed("a topic alias above limits.topic_alias_maximum");
            return Err((ReasonCode::TOPIC_ALIAS_INVALID, why)); // [MQTT-3.3.2-9]
        }
        if publish.topic.is_empty() {
            let known = self.aliases.as_ref().and_then(|aliases| aliases.inbound.get(alias.get()));
            // §3.3.2.3.4
            return known.cloned().ok_or((ReasonCode::PROTOCOL_ERROR, Cow::Borrowed("a topic alias it never set")));
        }
        let topic = self.link.publisher().topic(publish.topic.as_bytes()).map_err(invalid)?;
        let aliases = self.aliases.get_or_insert_default();
        if aliases.inbound.set(alias.get(), topic.clone(), limits.topic_alias_maximum) {
            Ok(topic)
        } else {
            Err((ReasonCode::QUOTA_EXCEEDED, Cow::Borrowed("topic aliases for too many bytes of topics")))
        }
    }

    fn stage(&mut self, publish: &Publish<'_>, topic: Topic, token: usize) -> Result<(), Fault> {
        let properties = &publish.properties;
        if properties.payload_is_utf8 && std::str::from_utf8(publish.payload).is_err() {
            // §3.3.2.3.2
            return Err((ReasonCode::PAYLOAD_FORMAT_INVALID, Cow::Borrowed("a payload that is not UTF-8 as it says")));
        }
        let message = core::Publish {
            retain: publish.retain,
            exactly_once: publish.packet_id.filter(|_| publish.qos == Qos::ExactlyOnce),
            expiry: properties.message_expiry,
            properties: properties.application(),
            ..core::Publish::new(topic, publish.payload, publish.qos)
        };
        let token = publish.packet_id.and_then(|_| u32::try_from(token).ok()).unwrap_or(NO_TOKEN);
        match self.link.publisher().stage(message, token) {
            // A fenced link's messages count no more; it hears of it by its event.
            Ok(()) | Err(Refused::Fenced) => Ok(()),
            Err(refused) => Err((refusal(refused), refused.to_string().into())),
        }
    }

    /// Whether the connection can go on after a publication that is refused for good. Rights are not for the client
    /// to know, so refusing is quiet where no acknowledgement could say it; what else is wrong with a publication is
    /// not [MQTT-3.4.2-1].
    fn may_acknowledge(&self, publish: &Publish<'_>, reason: ReasonCode) -> bool {
        match reason {
            ReasonCode::NOT_AUTHORIZED => true,
            ReasonCode::TOPIC_NAME_INVALID | ReasonCode::QUOTA_EXCEEDED | ReasonCode::PAYLOAD_FORMAT_INVALID => {
                publish.packet_id.is_some() && self.version == Version::V5
            }
            _ => false,
        }
    }

    /// Routes what is staged, and answers it.
    fn route(&mut self, bytes: &[u8], now: Time, limits: &Limits, burst: &mut Burst<'_>) {
        let mqtt5 = self.version == Version::V5;
        let receipts = &mut burst.scratch.receipts;
        let publisher = self.link.publisher();
        // What is kept is offered again: nothing may overtake it.
        let lsn = if mqtt5 { publisher.flush(receipts) } else { publisher.flush_in_order(receipts) };
        burst.lsn = burst.lsn.max(lsn);
        let Scratch { receipts, pending, .. } = &mut *burst.scratch;
        for receipt in receipts.drain(..).filter(|receipt| receipt.token != NO_TOKEN) {
            if let Some(pending) = pending.get_mut(receipt.token as usize) {
                pending.verdict = Some(verdict(receipt.outcome, mqtt5));
            }
        }
        let pending = std::mem::take(pending);
        for publish in &pending {
            match publish.verdict {
                Some(Verdict::Answer(reason)) if self.kept.is_none() => self.acknowledge(publish, reason, burst),
                // Acknowledgements keep the order of the publications too [MQTT-4.6.0-2].
                Some(_) => self.keep(&bytes[publish.at.0..publish.at.1], now, limits),
                // The link was taken over.
                None => {}
            }
        }
        burst.scratch.pending = pending;
        burst.scratch.pending.clear();
    }

    fn acknowledge(&self, publish: &Pending, reason: ReasonCode, burst: &mut Burst<'_>) {
        let packet = if publish.qos == Qos::ExactlyOnce { PacketType::PubRec } else { PacketType::PubAck };
        // An exchange of QoS 2 that is not refused goes on.
        if packet == PacketType::PubAck || reason.is_error() {
            burst.credits += 1;
        }
        encode_ack(&mut burst.scratch.acks, packet, self.version, publish.id, reason);
    }

    fn keep(&mut self, packet: &[u8], now: Time, limits: &Limits) {
        let kept = self.kept.get_or_insert_with(|| Box::new(Kept::new(now)));
        if !kept.push(packet, limits.receive_maximum) {
            self.fail(ReasonCode::QUOTA_EXCEEDED, &"more publications than can be kept until there is room");
        }
    }

    /// Offers the kept publications again.
    pub(super) fn offer_kept(&mut self, now: Time, limits: &Limits, scratch: &mut Scratch, out: &mut Vec<u8>) {
        let Some(mut kept) = self.kept.take() else { return };
        let before = kept.len();
        let since = kept.deadline();
        // One run of bytes, so that it is a burst like any other; at most the bound of what may be kept.
        let bytes: Vec<u8> = kept.take().into_iter().flatten().collect();
        let heard = self.keep_alive;
        self.handle_bytes(now, &bytes, limits, scratch, out);
        // It was not the client that spoke.
        self.keep_alive = heard;
        if let Some(again) = &mut self.kept {
            if again.len() < before {
                again.moved(now);
            } else {
                again.wait_until(since);
            }
        }
    }

    fn handle_pubrel(&mut self, ack: &Ack<'_>, burst: &mut Burst<'_>) {
        let (lsn, known) = self.link.release(ack.packet_id);
        let reason = if known { ReasonCode::SUCCESS } else { ReasonCode::PACKET_IDENTIFIER_NOT_FOUND };
        burst.lsn = burst.lsn.max(lsn);
        burst.credits += 1;
        encode_ack(&mut burst.scratch.acks, PacketType::PubComp, self.version, ack.packet_id, reason);
    }

    fn handle_subscribe(&mut self, subscribe: &Subscribe<'_>, limits: &Limits, burst: &mut Burst<'_>) {
        let unserved = subscribe.identifier.is_some() && !limits.subscription_identifiers;
        let wanted: Vec<Option<Subscription>> = subscribe
            .filters
            .iter()
            .map(|it| {
                Some(Subscription {
                    filter: Filter::parse(it.filter).ok()?,
                    qos: it.qos,
                    no_local: it.no_local,
                    retain_as_published: it.retain_as_published,
                    retain_handling: it.retain_handling,
                    identifier: subscribe.identifier,
                })
            })
            .collect();
        let valid: Vec<Subscription> = wanted.iter().filter(|_| !unserved).flatten().cloned().collect();
        let mut granted = Vec::with_capacity(valid.len());
        let lsn = self.link.subscribe(&valid, &mut granted);
        burst.lsn = burst.lsn.max(lsn);
        let mut granted = granted.into_iter();
        let reasons: Vec<u8> = wanted
            .iter()
            .map(|it| match it {
                _ if unserved => ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
                None => ReasonCode::TOPIC_FILTER_INVALID,
                Some(_) => granted.next().map_or(ReasonCode::UNSPECIFIED_ERROR, grant),
            })
            .map(|reason| match self.version {
                Version::V5 => reason.0,
                // 3.1.1 §3.9.3 has one code for every failure.
                _ if reason.is_error() => 0x80,
                _ => reason.0,
            })
            .collect();
        let suback = SubAck { packet_id: subscribe.packet_id, properties: AckProperties::default(), reasons: &reasons };
        let before = burst.scratch.acks.len();
        let encoded = suback.encode(self.version, &mut burst.scratch.acks);
        self.check_answer(encoded, before, burst);
    }

    fn handle_unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>, burst: &mut Burst<'_>) {
        let filters: Vec<Option<Filter>> = unsubscribe.filters.iter().map(|it| Filter::parse(it).ok()).collect();
        let valid: Vec<Filter> = filters.iter().flatten().cloned().collect();
        let mut existed = Vec::with_capacity(valid.len());
        let lsn = self.link.unsubscribe(&valid, &mut existed);
        burst.lsn = burst.lsn.max(lsn);
        let mut existed = existed.into_iter();
        let reasons: Vec<u8> = filters
            .iter()
            .map(|it| match it.as_ref().and_then(|_| existed.next()) {
                Some(true) => ReasonCode::SUCCESS.0,
                _ => ReasonCode::NO_SUBSCRIPTION_EXISTED.0,
            })
            .collect();
        let unsuback =
            UnsubAck { packet_id: unsubscribe.packet_id, properties: AckProperties::default(), reasons: &reasons };
        let before = burst.scratch.acks.len();
        let encoded = unsuback.encode(self.version, &mut burst.scratch.acks);
        self.check_answer(encoded, before, burst);
    }

    /// An answer that begins at `before` must not be larger than the client takes [MQTT-3.1.2-24]; an exchange
    /// without its answer cannot go on.
    fn check_answer(&mut self, encoded: Result<(), EncodeError>, before: usize, burst: &mut Burst<'_>) {
        let size = burst.scratch.acks.len() - before;
        if encoded.is_err() || size > self.client_maximum as usize {
            burst.scratch.acks.truncate(before);
            self.fail(ReasonCode::PACKET_TOO_LARGE, &"it asked for more at once than it takes in one answer");
        }
    }

    fn handle_disconnect(&mut self, disconnect: &Disconnect<'_>) {
        if let Some(expiry) = disconnect.properties.session_expiry {
            if self.expiry == 0 && expiry != 0 {
                return self.fail(ReasonCode::PROTOCOL_ERROR, &"a session expiry that was zero is set"); // §3.14.2.2.2
            }
            self.link.set_expiry(expiry);
        }
        // [MQTT-3.14.4-3]: only success discards the will.
        let how = if disconnect.reason == ReasonCode::SUCCESS { Detach::Clean } else { Detach::WithWill };
        self.close(how, None, None);
    }

    /// Gives the client's answers to the core, and answers its PUBRECs.
    fn settle(&mut self, burst: &mut Burst<'_>) {
        let Scratch { answers, unknown, acks, .. } = &mut *burst.scratch;
        if answers.is_empty() {
            return;
        }
        let lsn = self.link.settle(answers, unknown);
        burst.lsn = burst.lsn.max(lsn);
        let mut unknown_in_order = unknown.drain(..).peekable();
        for answer in answers.drain(..) {
            let is_unknown = unknown_in_order.next_if_eq(&answer).is_some();
            // [MQTT-4.3.3-4]: PUBREL answers PUBREC, in the order of the PUBRECs [MQTT-4.6.0-3].
            if let (Tag(id), Settle::Received) = answer {
                let reason = if is_unknown { ReasonCode::PACKET_IDENTIFIER_NOT_FOUND } else { ReasonCode::SUCCESS };
                encode_ack(acks, PacketType::PubRel, self.version, id, reason);
            }
        }
    }
}

impl Burst<'_> {
    fn answer(&mut self, ack: &Ack<'_>, success: Settle) {
        let settle = match success {
            // A PUBCOMP ends the exchange whatever it says.
            Settle::Completed => Settle::Completed,
            _ if ack.reason.is_error() => Settle::Rejected,
            success => success,
        };
        self.scratch.answers.push((Tag(ack.packet_id), settle));
    }
}

/// What a publication is answered with.
fn verdict(outcome: Outcome, mqtt5: bool) -> Verdict {
    match outcome {
        Outcome::Accepted { matched: 0, .. } => Verdict::Answer(ReasonCode::NO_MATCHING_SUBSCRIBERS),
        Outcome::Accepted { .. } | Outcome::Duplicate => Verdict::Answer(ReasonCode::SUCCESS),
        Outcome::QuotaExceeded | Outcome::StoreUnavailable if mqtt5 => Verdict::Answer(ReasonCode::QUOTA_EXCEEDED),
        Outcome::QuotaExceeded | Outcome::StoreUnavailable => Verdict::Keep,
        // We set no condition and no key.
        Outcome::ConditionFailed { .. } | Outcome::Repeated { .. } | Outcome::KeyReused => {
            Verdict::Answer(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR)
        }
    }
}

/// The core's neutral reasons in MQTT's words.
fn refusal(refused: Refused) -> ReasonCode {
    match refused {
        Refused::NotAuthorized => ReasonCode::NOT_AUTHORIZED,
        Refused::TooManyLevels => ReasonCode::TOPIC_NAME_INVALID,
        Refused::QosNotSupported => ReasonCode::QOS_NOT_SUPPORTED,
        Refused::RetainNotSupported => ReasonCode::RETAIN_NOT_SUPPORTED,
        Refused::WildcardsNotSupported => ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
        Refused::SharedNotSupported => ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
        Refused::QuotaExceeded => ReasonCode::QUOTA_EXCEEDED,
        Refused::TooLarge => ReasonCode::PACKET_TOO_LARGE,
        Refused::Fenced => ReasonCode::UNSPECIFIED_ERROR,
    }
}

fn grant(result: Result<Qos, Refused>) -> ReasonCode {
    match result {
        Ok(qos) => ReasonCode(qos as u8),
        Err(Refused::TooManyLevels) => ReasonCode::TOPIC_FILTER_INVALID,
        Err(refused) => refusal(refused),
    }
}
