//! What a peer did wrong, and which MQTT 5 reason code says so.

use super::{PacketType, Property, ReasonCode, Sender, Version};
use std::fmt;
use waystation_broker::InvalidTopic;

/// The peer sent what the specification forbids. Close the connection; an MQTT 5 peer is told [`Self::reason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    /// What is wrong.
    pub kind: Malformation,
    /// In which packet; `None` when the first byte names none.
    pub packet: Option<PacketType>,
    /// The version spoken. In a first packet `None` until the CONNECT has told it.
    pub version: Option<Version>,
}

impl DecodeError {
    /// The reason code to answer with (in CONNACK or DISCONNECT, MQTT 5.0 §4.13).
    #[must_use]
    pub fn reason(&self) -> ReasonCode {
        self.kind.reason()
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.packet {
            Some(packet) => write!(f, "malformed {packet}: {}", self.kind),
            None => write!(f, "malformed packet: {}", self.kind),
        }
    }
}

impl std::error::Error for DecodeError {}

/// A way to break the specification within one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformation {
    /// Packet type 0 (§2.1.2).
    #[error("packet type {got} is reserved")]
    ReservedPacketType {
        /// The type.
        got: u8,
    },
    /// Something else came before CONNECT [MQTT-3.1.0-1].
    #[error("the first packet must be a CONNECT, got first byte {got:#04x}")]
    NotConnect {
        /// The first byte.
        got: u8,
    },
    /// A packet of the other side.
    #[error("only a {expected} may send this packet")]
    WrongSender {
        /// Who may.
        expected: Sender,
    },
    /// AUTH before MQTT 5.
    #[error("this protocol version has no such packet")]
    NotInVersion,
    /// Flag bits other than the packet's own [MQTT-2.1.3-1].
    #[error("fixed header flags are {got:#06b}, expected {expected:#06b}")]
    FixedHeaderFlags {
        /// What the specification asks for.
        expected: u8,
        /// What came.
        got: u8,
    },
    /// A variable byte integer of more than four bytes (§1.5.5).
    #[error("{field} is a variable byte integer of more than 4 bytes")]
    VarintTooLong {
        /// Which.
        field: &'static str,
    },
    /// A variable byte integer that needs fewer bytes [MQTT-1.5.5-1].
    #[error("{field} is a variable byte integer of more bytes than its value needs")]
    NotMinimal {
        /// Which.
        field: &'static str,
    },
    /// Larger than the server takes [MQTT-3.2.2-15].
    #[error("{size} bytes announced, at most {limit} are accepted (limits.max_packet_size)")]
    PacketTooLarge {
        /// The whole packet.
        size: u32,
        /// The limit.
        limit: u32,
    },
    /// The packet ends inside a field.
    #[error("ends inside {field}")]
    Truncated {
        /// Which.
        field: &'static str,
    },
    /// Bytes after the last field.
    #[error("{count} bytes too many")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// A string that is no UTF-8 [MQTT-1.5.4-1].
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// Which.
        field: &'static str,
    },
    /// A string with U+0000 [MQTT-1.5.4-2].
    #[error("{field} holds the character U+0000")]
    Nul {
        /// Which.
        field: &'static str,
    },
    /// A topic name that is empty or holds a wildcard [MQTT-4.7.3-1], [MQTT-3.3.2-2].
    #[error("{field} {why}")]
    Topic {
        /// Which.
        field: &'static str,
        /// What rule it breaks.
        why: InvalidTopic,
    },
    /// A topic filter that breaks the rules of §4.7.
    #[error("topic filter {why}")]
    Filter {
        /// What rule it breaks.
        why: InvalidTopic,
    },
    /// A packet identifier of zero [MQTT-2.2.1-3].
    #[error("packet identifier is 0, expected 1 to 65535")]
    PacketIdZero,
    /// QoS 3 in a PUBLISH or will [MQTT-3.3.1-4], [MQTT-3.1.2-12].
    #[error("{field} is 3, expected 0, 1 or 2")]
    Qos {
        /// Which.
        field: &'static str,
    },
    /// DUP with QoS 0 [MQTT-3.3.1-2].
    #[error("DUP is set with QoS 0")]
    DupWithQos0,
    /// The protocol name is not `MQTT` (3.1: `MQIsdp`) [MQTT-3.1.2-1].
    #[error("protocol name is neither MQTT nor MQIsdp")]
    ProtocolName,
    /// A protocol level the server does not speak [MQTT-3.1.2-2].
    #[error("protocol level {got} with this protocol name, expected MQTT with 4 or 5, or MQIsdp with 3")]
    ProtocolLevel {
        /// The level.
        got: u8,
    },
    /// The reserved connect flag is set [MQTT-3.1.2-3].
    #[error("reserved connect flag is set")]
    ReservedConnectFlag,
    /// Will QoS or will retain without a will [MQTT-3.1.2-11], [MQTT-3.1.2-13].
    #[error("will QoS or will retain is set without the will flag")]
    WillFlags,
    /// A password without a user name before MQTT 5 [MQTT-3.1.2-22].
    #[error("password without a user name, which only MQTT 5 allows")]
    PasswordWithoutUserName,
    /// An empty client identifier where none is assigned [MQTT-3.1.3-8].
    #[error("client identifier is empty, which needs MQTT 3.1.1 with a clean session, or MQTT 5")]
    EmptyClientId,
    /// A property identifier that does not exist (§2.2.2.2).
    #[error("property {id:#04x} does not exist")]
    UnknownProperty {
        /// The identifier.
        id: u8,
    },
    /// A property of other packets (§2.2.2.2).
    #[error("property {property} does not belong here")]
    MisplacedProperty {
        /// Which.
        property: Property,
    },
    /// A property that may come once came twice.
    #[error("property {property} comes more than once")]
    DuplicateProperty {
        /// Which.
        property: Property,
    },
    /// A property with a value its section forbids.
    #[error("property {property} is {got}")]
    PropertyValue {
        /// Which.
        property: Property,
        /// The value.
        got: u32,
    },
    /// A property without which the packet means nothing.
    #[error("property {property} is missing")]
    MissingProperty {
        /// Which.
        property: Property,
    },
    /// SUBSCRIBE or UNSUBSCRIBE without a filter [MQTT-3.8.3-2], [MQTT-3.10.3-2].
    #[error("holds no topic filter")]
    NoFilters,
    /// SUBACK or UNSUBACK without a reason code [MQTT-3.8.4-6].
    #[error("holds no reason code")]
    NoReasons,
    /// Reserved bits in subscription options [MQTT-3.8.3-5].
    #[error("reserved bits are set in subscription options {got:#010b}")]
    SubscriptionOptions {
        /// The byte.
        got: u8,
    },
    /// Maximum QoS 3 in subscription options (§3.8.3.1).
    #[error("subscription options ask for QoS 3, expected 0, 1 or 2")]
    SubscriptionQos,
    /// Retain Handling 3 (§3.8.3.1).
    #[error("subscription options ask for retain handling 3, expected 0, 1 or 2")]
    RetainHandling,
    /// No Local on a shared subscription [MQTT-3.8.3-4].
    #[error("subscription options ask for no local on a shared subscription")]
    NoLocalOnShared,
    /// A reason code that this packet cannot carry.
    #[error("reason code {got} does not belong here")]
    ReasonCode {
        /// The code.
        got: ReasonCode,
    },
    /// CONNACK flags other than Session Present [MQTT-3.2.2-1], or Session Present with a refusal [MQTT-3.2.2-6].
    #[error("connect acknowledge flags are {got:#010b}, expected at most session present, and that only on success")]
    ConnAckFlags {
        /// The byte.
        got: u8,
    },
}

impl Malformation {
    /// The reason code to answer with.
    #[must_use]
    pub fn reason(&self) -> ReasonCode {
        match self {
            Self::PacketTooLarge { .. } => ReasonCode::PACKET_TOO_LARGE,
            Self::ProtocolName | Self::ProtocolLevel { .. } => ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
            Self::EmptyClientId => ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
            Self::Topic { why: InvalidTopic::Wildcard, .. } => ReasonCode::TOPIC_NAME_INVALID,
            Self::PropertyValue { property: Property::TopicAlias, .. } => ReasonCode::TOPIC_ALIAS_INVALID,
            // What §3 calls a Protocol Error; all else cannot be parsed by the rules, which is Malformed (§1.2).
            Self::NotConnect { .. }
            | Self::WrongSender { .. }
            | Self::NotInVersion
            | Self::Topic { .. }
            | Self::PacketIdZero
            | Self::DuplicateProperty { .. }
            | Self::PropertyValue { .. }
            | Self::MissingProperty { .. }
            | Self::NoFilters
            | Self::NoReasons
            | Self::SubscriptionQos
            | Self::RetainHandling
            | Self::NoLocalOnShared
            | Self::ReasonCode { .. } => ReasonCode::PROTOCOL_ERROR,
            _ => ReasonCode::MALFORMED_PACKET,
        }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// A packet that MQTT cannot express; our side's mistake, not the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string or binary value of more than 65,535 bytes (§1.5.4, §1.5.6).
    #[error("a string or binary value has {len} bytes, at most 65535 can be sent")]
    FieldTooLong {
        /// Its bytes.
        len: usize,
    },
    /// A packet of more than 268,435,455 bytes (§2.1.4).
    #[error("the packet has {len} bytes, at most 268435455 can be sent")]
    PacketTooLong {
        /// Its bytes.
        len: usize,
    },
    /// QoS 1 and 2 need a packet identifier [MQTT-2.2.1-2], and QoS 0 has none.
    #[error("a packet identifier and QoS 0 exclude each other, QoS 1 and 2 need one")]
    PacketId,
}
