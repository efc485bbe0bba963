//! Bytes to packets.

use super::{
    flag, kind,
    packet::{
        Connect, Packet, Publish, PublishQos, ReturnCode, SubAck, Subscribe, TopicName, TopicRef, Unsubscribe,
        WillTopic,
    },
};
use waystation_broker::Qos;

/// Why a datagram is no MQTT-SN message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not even a length and a type.
    #[error("ends before its message type")]
    NoHeader,
    /// The length field and the datagram disagree.
    #[error("says it has {told} octets and has {got}")]
    Length {
        /// What the length field says.
        told: usize,
        /// What came.
        got: usize,
    },
    /// A reserved message type.
    #[error("has the reserved message type {0:#04x}")]
    Type(u8),
    /// A field is missing or cut.
    #[error("of type {0:#04x} ends within a field")]
    Short(u8),
    /// More fields than its type has.
    #[error("of type {0:#04x} goes on after its last field")]
    Long(u8),
    /// Topic id type 0b11.
    #[error("has the reserved topic id type 0b11")]
    TopicIdType,
    /// QoS -1 where only PUBLISH may have it.
    #[error("has QoS -1, which only PUBLISH may have")]
    Qos,
}

/// Reads one datagram. Both forms of the length field are taken for any length: §5.2.1 says that short messages
/// *may* use the one-octet form.
///
/// # Errors
/// What of §5 the datagram breaks.
pub fn decode(datagram: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (told, header) = match *datagram {
        [0x01, high, low, ..] => (usize::from(u16::from_be_bytes([high, low])), 3),
        [0x01, ..] | [] => return Err(Malformed::NoHeader),
        [length, ..] => (usize::from(length), 1),
    };
    let &kind = datagram.get(header).ok_or(Malformed::NoHeader)?;
    if kind == kind::ENCAPSULATED {
        return encapsulated(datagram, told, header);
    }
    if told != datagram.len() {
        return Err(Malformed::Length { told, got: datagram.len() });
    }
    let mut body = Body { kind, rest: &datagram[header + 1..] };
    let packet = packet(kind, &mut body)?;
    if body.rest.is_empty() { Ok(packet) } else { Err(Malformed::Long(kind)) }
}

fn packet<'a>(kind: u8, body: &mut Body<'a>) -> Result<Packet<'a>, Malformed> {
    Ok(match kind {
        kind::ADVERTISE => Packet::Advertise { gateway: body.octet()?, duration_s: body.word()? },
        kind::SEARCHGW => Packet::SearchGw { radius: body.octet()? },
        kind::GWINFO => Packet::GwInfo { gateway: body.octet()?, address: body.tail() },
        kind::CONNECT => {
            let flags = body.octet()?;
            Packet::Connect(Connect {
                will: flags & flag::WILL != 0,
                clean_session: flags & flag::CLEAN_SESSION != 0,
                protocol_id: body.octet()?,
                duration_s: body.word()?,
                client_id: body.tail(),
            })
        }
        kind::CONNACK => Packet::ConnAck(body.code()?),
        kind::WILLTOPICREQ => Packet::WillTopicReq,
        kind::WILLTOPIC => Packet::WillTopic(body.will_topic()?),
        kind::WILLMSGREQ => Packet::WillMsgReq,
        kind::WILLMSG => Packet::WillMsg(body.tail()),
        kind::REGISTER => Packet::Register { topic_id: body.word()?, msg_id: body.word()?, name: body.tail() },
        kind::REGACK => Packet::RegAck { topic_id: body.word()?, msg_id: body.word()?, code: body.code()? },
        kind::PUBLISH => {
            let flags = body.octet()?;
            let topic = match (flags & flag::TOPIC_ID_TYPE, body.word()?) {
                (0, id) => TopicRef::Normal(id),
                (1, id) => TopicRef::Predefined(id),
                (2, name) => TopicRef::Short(name.to_be_bytes()),
                _ => return Err(Malformed::TopicIdType),
            };
            Packet::Publish(Publish {
                dup: flags & flag::DUP != 0,
                qos: qos(flags).map_or(PublishQos::MinusOne, PublishQos::Mqtt),
                retain: flags & flag::RETAIN != 0,
                topic,
                msg_id: body.word()?,
                payload: body.tail(),
            })
        }
        kind::PUBACK => Packet::PubAck { topic_id: body.word()?, msg_id: body.word()?, code: body.code()? },
        kind::PUBCOMP => Packet::PubComp { msg_id: body.word()? },
        kind::PUBREC => Packet::PubRec { msg_id: body.word()? },
        kind::PUBREL => Packet::PubRel { msg_id: body.word()? },
        kind::SUBSCRIBE => {
            let flags = body.octet()?;
            Packet::Subscribe(Subscribe {
                dup: flags & flag::DUP != 0,
                qos: qos(flags).ok_or(Malformed::Qos)?,
                msg_id: body.word()?,
                topic: body.topic_name(flags)?,
            })
        }
        kind::SUBACK => {
            let flags = body.octet()?;
            Packet::SubAck(SubAck {
                qos: qos(flags).ok_or(Malformed::Qos)?,
                topic_id: body.word()?,
                msg_id: body.word()?,
                code: body.code()?,
            })
        }
        kind::UNSUBSCRIBE => {
            let flags = body.octet()?;
            Packet::Unsubscribe(Unsubscribe { msg_id: body.word()?, topic: body.topic_name(flags)? })
        }
        kind::UNSUBACK => Packet::UnsubAck { msg_id: body.word()? },
        kind::PINGREQ => Packet::PingReq { client_id: body.tail() },
        kind::PINGRESP => Packet::PingResp,
        kind::DISCONNECT if body.rest.is_empty() => Packet::Disconnect { duration_s: None },
        kind::DISCONNECT => Packet::Disconnect { duration_s: Some(body.word()?) },
        kind::WILLTOPICUPD => Packet::WillTopicUpd(body.will_topic()?),
        kind::WILLTOPICRESP => Packet::WillTopicResp(body.code()?),
        kind::WILLMSGUPD => Packet::WillMsgUpd(body.tail()),
        kind::WILLMSGRESP => Packet::WillMsgResp(body.code()?),
        reserved => return Err(Malformed::Type(reserved)),
    })
}

/// §5.5: the length is one octet and ends with the wireless node id; the board's message follows it.
fn encapsulated(datagram: &[u8], told: usize, header: usize) -> Result<Packet<'_>, Malformed> {
    if header != 1 {
        return Err(Malformed::Length { told, got: datagram.len() });
    }
    if told < 3 {
        return Err(Malformed::Short(kind::ENCAPSULATED));
    }
    if told > datagram.len() {
        return Err(Malformed::Length { told, got: datagram.len() });
    }
    let (head, message) = datagram.split_at(told);
    Ok(Packet::Encapsulated { radius: head[2] & 0b11, node: &head[3..], message })
}

/// `None` is QoS -1.
fn qos(flags: u8) -> Option<Qos> {
    Qos::from_u8((flags & flag::QOS) >> 5)
}

/// What is left of a message's variable part.
struct Body<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    fn octet(&mut self) -> Result<u8, Malformed> {
        let (&octet, rest) = self.rest.split_first().ok_or(Malformed::Short(self.kind))?;
        self.rest = rest;
        Ok(octet)
    }

    fn word(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes([self.octet()?, self.octet()?]))
    }

    fn code(&mut self) -> Result<ReturnCode, Malformed> {
        self.octet().map(ReturnCode::from)
    }

    fn tail(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// An empty WILLTOPIC carries not even flags (§5.4.7).
    fn will_topic(&mut self) -> Result<Option<WillTopic<'a>>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let flags = self.octet()?;
        let qos = qos(flags).ok_or(Malformed::Qos)?;
        Ok(Some(WillTopic { qos, retain: flags & flag::RETAIN != 0, topic: self.tail() }))
    }

    fn topic_name(&mut self, flags: u8) -> Result<TopicName<'a>, Malformed> {
        match flags & flag::TOPIC_ID_TYPE {
            0 => Ok(TopicName::Name(self.tail())),
            1 => self.word().map(TopicName::Predefined),
            2 => self.word().map(|name| TopicName::Short(name.to_be_bytes())),
            _ => Err(Malformed::TopicIdType),
        }
    }
}
