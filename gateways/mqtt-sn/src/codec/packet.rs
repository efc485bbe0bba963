//! What an MQTT-SN message says (§5.4). Names and payloads are slices of the datagram, not yet checked: a topic name
//! that is no UTF-8 is answered by the client machine, with a return code, not thrown away by the codec.

use std::fmt;
use waystation_broker::Qos;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A gateway tells the network of itself (§5.4.1).
    Advertise {
        /// Its id.
        gateway: u8,
        /// Seconds until the next one.
        duration_s: u16,
    },
    /// Is there a gateway? (§5.4.2)
    SearchGw {
        /// Broadcast radius.
        radius: u8,
    },
    /// There is one (§5.4.3).
    GwInfo {
        /// Its id.
        gateway: u8,
        /// Its address; empty when the gateway itself answers.
        address: &'a [u8],
    },
    /// A client wants in (§5.4.4).
    Connect(Connect<'a>),
    /// The answer (§5.4.5).
    ConnAck(ReturnCode),
    /// Asks for the will topic (§5.4.6).
    WillTopicReq,
    /// The will topic; `None` means there is to be no will (§5.4.7).
    WillTopic(Option<WillTopic<'a>>),
    /// Asks for the will message (§5.4.8).
    WillMsgReq,
    /// The will message (§5.4.9).
    WillMsg(&'a [u8]),
    /// Gives a topic name an id, or (from a client) asks for one (§5.4.10).
    Register {
        /// 0x0000 from a client.
        topic_id: u16,
        /// Comes back in REGACK.
        msg_id: u16,
        /// The topic name.
        name: &'a [u8],
    },
    /// The answer (§5.4.11).
    RegAck {
        /// The id given.
        topic_id: u16,
        /// Of the REGISTER.
        msg_id: u16,
        /// Accepted or why not.
        code: ReturnCode,
    },
    /// A message (§5.4.12).
    Publish(Publish<'a>),
    /// QoS 1 acknowledged, or any PUBLISH refused (§5.4.13).
    PubAck {
        /// Of the PUBLISH, as it stood there.
        topic_id: u16,
        /// Of the PUBLISH.
        msg_id: u16,
        /// Accepted or why not.
        code: ReturnCode,
    },
    /// QoS 2, first answer (§5.4.14).
    PubRec {
        /// Of the PUBLISH.
        msg_id: u16,
    },
    /// QoS 2, release (§5.4.14).
    PubRel {
        /// Of the PUBLISH.
        msg_id: u16,
    },
    /// QoS 2, done (§5.4.14).
    PubComp {
        /// Of the PUBLISH.
        msg_id: u16,
    },
    /// A client wants messages (§5.4.15).
    Subscribe(Subscribe<'a>),
    /// The answer (§5.4.16).
    SubAck(SubAck),
    /// A client wants them no more (§5.4.17).
    Unsubscribe(Unsubscribe<'a>),
    /// The answer (§5.4.18).
    UnsubAck {
        /// Of the UNSUBSCRIBE.
        msg_id: u16,
    },
    /// Are you there; from a sleeping client with its id: give me what waits (§5.4.19).
    PingReq {
        /// Empty unless the client sleeps.
        client_id: &'a [u8],
    },
    /// I am; nothing more waits (§5.4.20).
    PingResp,
    /// Goodbye, or good night (§5.4.21).
    Disconnect {
        /// Seconds of sleep.
        duration_s: Option<u16>,
    },
    /// Replaces the will topic; `None` deletes the will (§5.4.22).
    WillTopicUpd(Option<WillTopic<'a>>),
    /// The answer (§5.4.24).
    WillTopicResp(ReturnCode),
    /// Replaces the will message (§5.4.23).
    WillMsgUpd(&'a [u8]),
    /// The answer (§5.4.25).
    WillMsgResp(ReturnCode),
    /// A message handed on by a forwarder (§5.5).
    Encapsulated {
        /// Broadcast radius, 0 to 3.
        radius: u8,
        /// Names the board behind the forwarder.
        node: &'a [u8],
        /// The board's message, not yet decoded.
        message: &'a [u8],
    },
}

/// CONNECT (§5.4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Whether the gateway is to ask for a will.
    pub will: bool,
    /// Whether the session begins anew and ends with the connection.
    pub clean_session: bool,
    /// 0x01 is MQTT-SN 1.2.
    pub protocol_id: u8,
    /// Keep alive in seconds.
    pub duration_s: u16,
    /// The client's name.
    pub client_id: &'a [u8],
}

/// WILLTOPIC and WILLTOPICUPD, when they carry a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WillTopic<'a> {
    /// QoS of the will.
    pub qos: Qos,
    /// Whether the will is kept as the topic's state.
    pub retain: bool,
    /// Where to.
    pub topic: &'a [u8],
}

/// PUBLISH (§5.4.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// It may have been sent before.
    pub dup: bool,
    /// How sure.
    pub qos: PublishQos,
    /// Keep it as the topic's state, or: it is the topic's state.
    pub retain: bool,
    /// Where to.
    pub topic: TopicRef,
    /// 0x0000 for QoS 0 and -1.
    pub msg_id: u16,
    /// The message itself.
    pub payload: &'a [u8],
}

/// SUBSCRIBE (§5.4.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// It may have been sent before.
    pub dup: bool,
    /// Most QoS wanted.
    pub qos: Qos,
    /// Comes back in SUBACK.
    pub msg_id: u16,
    /// What is wanted.
    pub topic: TopicName<'a>,
}

/// SUBACK (§5.4.16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubAck {
    /// QoS granted.
    pub qos: Qos,
    /// The id messages will come under; 0x0000 for wildcards and short names.
    pub topic_id: u16,
    /// Of the SUBSCRIBE.
    pub msg_id: u16,
    /// Accepted or why not.
    pub code: ReturnCode,
}

/// UNSUBSCRIBE (§5.4.17).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Comes back in UNSUBACK.
    pub msg_id: u16,
    /// What is wanted no more.
    pub topic: TopicName<'a>,
}

/// The topic of a PUBLISH (§5.3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TopicRef {
    /// An id from REGISTER or SUBACK.
    Normal(u16),
    /// An id both sides know beforehand.
    Predefined(u16),
    /// A topic name of two octets.
    Short([u8; 2]),
}

impl TopicRef {
    /// The two octets as they stand on the wire.
    #[must_use]
    pub fn raw(self) -> u16 {
        match self {
            Self::Normal(id) | Self::Predefined(id) => id,
            Self::Short(name) => u16::from_be_bytes(name),
        }
    }
}

/// The topic of a SUBSCRIBE or UNSUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicName<'a> {
    /// A name, perhaps with wildcards.
    Name(&'a [u8]),
    /// An id both sides know beforehand.
    Predefined(u16),
    /// A topic name of two octets.
    Short([u8; 2]),
}

/// QoS of a PUBLISH: the three of MQTT, and -1 for clients that never connect (§6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishQos {
    /// One of MQTT's.
    Mqtt(Qos),
    /// QoS -1: no connection, no answer.
    MinusOne,
}

/// Return codes (§5.3.10, table 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReturnCode {
    /// 0x00
    Accepted,
    /// 0x01: try again later.
    Congestion,
    /// 0x02
    InvalidTopicId,
    /// 0x03: never.
    NotSupported,
    /// 0x04 to 0xFF.
    Reserved(u8),
}

impl fmt::Display for ReturnCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::Congestion => f.write_str("congestion, try again later"),
            Self::InvalidTopicId => f.write_str("invalid topic id"),
            Self::NotSupported => f.write_str("not supported, or not allowed"),
            Self::Reserved(code) => write!(f, "reserved return code {code:#04x}"),
        }
    }
}

impl From<u8> for ReturnCode {
    fn from(code: u8) -> Self {
        match code {
            0x00 => Self::Accepted,
            0x01 => Self::Congestion,
            0x02 => Self::InvalidTopicId,
            0x03 => Self::NotSupported,
            other => Self::Reserved(other),
        }
    }
}

impl From<ReturnCode> for u8 {
    fn from(code: ReturnCode) -> Self {
        match code {
            ReturnCode::Accepted => 0x00,
            ReturnCode::Congestion => 0x01,
            ReturnCode::InvalidTopicId => 0x02,
            ReturnCode::NotSupported => 0x03,
            ReturnCode::Reserved(other) => other,
        }
    }
}
