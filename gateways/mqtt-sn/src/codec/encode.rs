//! Packets to bytes.

use super::{
    flag, kind,
    packet::{Packet, PublishQos, TopicName, TopicRef, WillTopic},
};
use waystation_broker::Qos;

/// A message that no length field can describe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message has {0} octets, more than its length field can say")]
pub struct TooLong(pub usize);

/// Appends one message to `out`, in the one-octet form of the length field where that suffices.
///
/// # Errors
/// More than 65,535 octets; for an encapsulated message, more than 252 octets of wireless node id. `out` is then as
/// it was.
pub fn encode(packet: &Packet<'_>, out: &mut Vec<u8>) -> Result<(), TooLong> {
    let mut fixed = Fixed::default();
    let (kind, tail) = parts(packet, &mut fixed);
    let short = 2 + fixed.len + tail.len();
    match (u8::try_from(short), u16::try_from(short + 2)) {
        (Ok(length), _) => out.push(length),
        (_, Ok(length)) if kind != kind::ENCAPSULATED => {
            out.push(0x01);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => return Err(TooLong(short)),
    }
    out.push(kind);
    out.extend_from_slice(&fixed.bytes[..fixed.len]);
    out.extend_from_slice(tail);
    if let Packet::Encapsulated { message, .. } = packet {
        out.extend_from_slice(message);
    }
    Ok(())
}

/// Appends what stands before a message that a forwarder is to hand on (§5.5).
///
/// # Errors
/// More than 252 octets of wireless node id.
pub fn encapsulate(radius: u8, node: &[u8], out: &mut Vec<u8>) -> Result<(), TooLong> {
    encode(&Packet::Encapsulated { radius, node, message: &[] }, out)
}

/// The message type and what follows the fixed fields.
fn parts<'a>(packet: &Packet<'a>, fixed: &mut Fixed) -> (u8, &'a [u8]) {
    match *packet {
        Packet::Advertise { gateway, duration_s } => (kind::ADVERTISE, fixed.octet(gateway).word(duration_s).end()),
        Packet::SearchGw { radius } => (kind::SEARCHGW, fixed.octet(radius).end()),
        Packet::GwInfo { gateway, address } => (kind::GWINFO, fixed.octet(gateway).then(address)),
        Packet::Connect(connect) => {
            let flags = bit(connect.will, flag::WILL) | bit(connect.clean_session, flag::CLEAN_SESSION);
            let fixed = fixed.octet(flags).octet(connect.protocol_id).word(connect.duration_s);
            (kind::CONNECT, fixed.then(connect.client_id))
        }
        Packet::ConnAck(code) => (kind::CONNACK, fixed.octet(code.into()).end()),
        Packet::WillTopicReq => (kind::WILLTOPICREQ, fixed.end()),
        Packet::WillTopic(topic) => (kind::WILLTOPIC, fixed.will_topic(topic)),
        Packet::WillMsgReq => (kind::WILLMSGREQ, fixed.end()),
        Packet::WillMsg(message) => (kind::WILLMSG, fixed.then(message)),
        Packet::Register { topic_id, msg_id, name } => (kind::REGISTER, fixed.word(topic_id).word(msg_id).then(name)),
        Packet::RegAck { topic_id, msg_id, code } => {
            (kind::REGACK, fixed.word(topic_id).word(msg_id).octet(code.into()).end())
        }
        Packet::Publish(publish) => {
            let (kind_of_id, id) = match publish.topic {
                TopicRef::Normal(id) => (0, id),
                TopicRef::Predefined(id) => (1, id),
                TopicRef::Short(name) => (2, u16::from_be_bytes(name)),
            };
            let qos = match publish.qos {
                PublishQos::Mqtt(qos) => bits(qos),
                PublishQos::MinusOne => flag::QOS,
            };
            let flags = bit(publish.dup, flag::DUP) | qos | bit(publish.retain, flag::RETAIN) | kind_of_id;
            (kind::PUBLISH, fixed.octet(flags).word(id).word(publish.msg_id).then(publish.payload))
        }
        Packet::PubAck { topic_id, msg_id, code } => {
            (kind::PUBACK, fixed.word(topic_id).word(msg_id).octet(code.into()).end())
        }
        Packet::PubRec { msg_id } => (kind::PUBREC, fixed.word(msg_id).end()),
        Packet::PubRel { msg_id } => (kind::PUBREL, fixed.word(msg_id).end()),
        Packet::PubComp { msg_id } => (kind::PUBCOMP, fixed.word(msg_id).end()),
        Packet::Subscribe(subscribe) => {
            let flags = bit(subscribe.dup, flag::DUP) | bits(subscribe.qos) | type_of(subscribe.topic);
            (kind::SUBSCRIBE, fixed.octet(flags).word(subscribe.msg_id).topic_name(subscribe.topic))
        }
        Packet::SubAck(ack) => {
            let fixed = fixed.octet(bits(ack.qos)).word(ack.topic_id).word(ack.msg_id);
            (kind::SUBACK, fixed.octet(ack.code.into()).end())
        }
        Packet::Unsubscribe(unsubscribe) => {
            let fixed = fixed.octet(type_of(unsubscribe.topic)).word(unsubscribe.msg_id);
            (kind::UNSUBSCRIBE, fixed.topic_name(unsubscribe.topic))
        }
        Packet::UnsubAck { msg_id } => (kind::UNSUBACK, fixed.word(msg_id).end()),
        Packet::PingReq { client_id } => (kind::PINGREQ, fixed.then(client_id)),
        Packet::PingResp => (kind::PINGRESP, fixed.end()),
        Packet::Disconnect { duration_s: None } => (kind::DISCONNECT, fixed.end()),
        Packet::Disconnect { duration_s: Some(duration_s) } => (kind::DISCONNECT, fixed.word(duration_s).end()),
        Packet::WillTopicUpd(topic) => (kind::WILLTOPICUPD, fixed.will_topic(topic)),
        Packet::WillTopicResp(code) => (kind::WILLTOPICRESP, fixed.octet(code.into()).end()),
        Packet::WillMsgUpd(message) => (kind::WILLMSGUPD, fixed.then(message)),
        Packet::WillMsgResp(code) => (kind::WILLMSGRESP, fixed.octet(code.into()).end()),
        Packet::Encapsulated { radius, node, .. } => (kind::ENCAPSULATED, fixed.octet(radius & 0b11).then(node)),
    }
}

fn bits(qos: Qos) -> u8 {
    (qos as u8) << 5
}

fn bit(set: bool, mask: u8) -> u8 {
    if set { mask } else { 0 }
}

fn type_of(topic: TopicName<'_>) -> u8 {
    match topic {
        TopicName::Name(_) => 0,
        TopicName::Predefined(_) => 1,
        TopicName::Short(_) => 2,
    }
}

/// The fields of fixed size, which no message has more than six octets of.
#[derive(Default)]
struct Fixed {
    bytes: [u8; 6],
    len: usize,
}

impl Fixed {
    fn octet(&mut self, octet: u8) -> &mut Self {
        self.bytes[self.len] = octet;
        self.len += 1;
        self
    }

    fn word(&mut self, word: u16) -> &mut Self {
        let [high, low] = word.to_be_bytes();
        self.octet(high).octet(low)
    }

    fn then<'a>(&mut self, tail: &'a [u8]) -> &'a [u8] {
        tail
    }

    fn end<'a>(&mut self) -> &'a [u8] {
        &[]
    }

    fn will_topic<'a>(&mut self, topic: Option<WillTopic<'a>>) -> &'a [u8] {
        let Some(WillTopic { qos, retain, topic }) = topic else { return &[] };
        self.octet(bits(qos) | bit(retain, flag::RETAIN)).then(topic)
    }

    fn topic_name<'a>(&mut self, topic: TopicName<'a>) -> &'a [u8] {
        match topic {
            TopicName::Name(name) => name,
            TopicName::Predefined(id) => self.word(id).end(),
            TopicName::Short(name) => self.word(u16::from_be_bytes(name)).end(),
        }
    }
}
