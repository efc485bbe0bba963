//! MQTT 3.1, 3.1.1 and 5.0 on the wire: bytes to packets and back, nothing else.
//!
//! [`decode`] parses in place: a [`Packet`] borrows from the buffer, lists are iterators over bytes that were
//! checked before, and nothing is allocated by a length that a peer announced. What it returns obeys every rule
//! that one packet alone can break; what depends on the connection (a second CONNECT, unknown aliases, quotas)
//! is the connection's to judge. Both directions are here: clients are what tests and the load generator are.

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod error;
mod fixed_header;
mod property;
mod publication;
mod publish;
mod read;
mod reason;
#[doc(hidden)]
pub mod samples;
mod subscribe;
mod unsubscribe;
mod write;

pub use ack::{Ack, AckProperties, encode_ack};
pub use auth::{Auth, AuthProperties};
pub use connack::{ConnAck, ConnAckProperties};
pub use connect::{Connect, ConnectProperties, Will, WillProperties};
pub use disconnect::{Disconnect, DisconnectProperties};
pub use error::{DecodeError, EncodeError, Malformation};
pub use fixed_header::PacketType;
pub use property::{Property, SubscriptionIdentifiers, UserProperties};
pub use publication::{MISSED, Measured, Publication};
pub use publish::{Publish, PublishProperties};
pub use reason::ReasonCode;
pub use subscribe::{Filters, SubAck, Subscribe, SubscribeTo};
pub use unsubscribe::{TopicFilters, UnsubAck, Unsubscribe};

use fixed_header::FixedHeader;
use read::Reader;

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V3_1,
    /// MQTT 3.1.1: level 4.
    V3_1_1,
    /// MQTT 5.0: level 5.
    V5,
}

/// Who sent a packet; some packets, properties and reason codes are for one side only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// A client.
    Client,
    /// A server.
    Server,
}

/// A packet, borrowed from the bytes it was read from, or from what its maker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// CONNECT; boxed, because it is large and comes once a connection.
    Connect(Box<Connect<'a>>),
    /// CONNACK; boxed likewise.
    ConnAck(Box<ConnAck<'a>>),
    /// PUBLISH.
    Publish(Publish<'a>),
    /// PUBACK.
    PubAck(Ack<'a>),
    /// PUBREC.
    PubRec(Ack<'a>),
    /// PUBREL.
    PubRel(Ack<'a>),
    /// PUBCOMP.
    PubComp(Ack<'a>),
    /// SUBSCRIBE.
    Subscribe(Subscribe<'a>),
    /// SUBACK.
    SubAck(SubAck<'a>),
    /// UNSUBSCRIBE.
    Unsubscribe(Unsubscribe<'a>),
    /// UNSUBACK.
    UnsubAck(UnsubAck<'a>),
    /// PINGREQ.
    PingReq,
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect(Disconnect<'a>),
    /// AUTH (MQTT 5 only).
    Auth(Auth<'a>),
}

/// Decodes the first packet of `buf` as a server does: the sender is a client. Gives the packet and how many bytes
/// it took; `None` while bytes are missing. A CONNECT tells its own version, whatever `version` says.
///
/// # Errors
/// The peer broke the specification. Flags, sender and size are judged as soon as the fixed header is there, so
/// that nobody buffers what will be refused.
#[inline]
pub fn decode(buf: &[u8], version: Version, max_packet_size: u32) -> Result<Option<(Packet<'_>, usize)>, DecodeError> {
    decode_from(buf, Sender::Client, version, max_packet_size)
}

/// Decodes the first packet of `buf` as a client does: the sender is a server.
///
/// # Errors
/// As [`decode`].
#[inline]
pub fn decode_from_server(
    buf: &[u8],
    version: Version,
    max_packet_size: u32,
) -> Result<Option<(Packet<'_>, usize)>, DecodeError> {
    decode_from(buf, Sender::Server, version, max_packet_size)
}

/// Decodes the first packet of a connection, which must be a CONNECT [MQTT-3.1.0-1]; its first byte tells.
///
/// # Errors
/// As [`decode`]; [`DecodeError::version`] says in which version to answer, where that is known.
pub fn decode_connect(buf: &[u8], max_packet_size: u32) -> Result<Option<(Connect<'_>, usize)>, DecodeError> {
    if let Some(&first) = buf.first()
        && first >> 4 != PacketType::Connect as u8
    {
        let kind = Malformation::NotConnect { got: first };
        return Err(DecodeError { kind, packet: PacketType::from_first_byte(first), version: None });
    }
    let unknown_version = |kind| DecodeError { kind, packet: Some(PacketType::Connect), version: None };
    let parsed = FixedHeader::parse(buf, Sender::Client, Version::V3_1_1, max_packet_size).map_err(unknown_version)?;
    let Some(header) = parsed else { return Ok(None) };
    Ok(Some((connect::decode(&header)?, header.size)))
}

#[inline]
fn decode_from(
    buf: &[u8],
    sender: Sender,
    version: Version,
    max_packet_size: u32,
) -> Result<Option<(Packet<'_>, usize)>, DecodeError> {
    let header = match FixedHeader::parse(buf, sender, version, max_packet_size) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Ok(None),
        Err(kind) => {
            let packet = buf.first().and_then(|first| PacketType::from_first_byte(*first));
            return Err(DecodeError { kind, packet, version: Some(version) });
        }
    };
    let body = Reader::new(header.body);
    let packet = match header.packet {
        PacketType::Publish => publish::decode(body, header.flags, sender, version).map(Packet::Publish),
        PacketType::PubAck => ack::decode(body, header.packet, version).map(Packet::PubAck),
        PacketType::PubRec => ack::decode(body, header.packet, version).map(Packet::PubRec),
        PacketType::PubRel => ack::decode(body, header.packet, version).map(Packet::PubRel),
        PacketType::PubComp => ack::decode(body, header.packet, version).map(Packet::PubComp),
        PacketType::Connect => {
            return Ok(Some((Packet::Connect(Box::new(connect::decode(&header)?)), header.size)));
        }
        other => decode_rare(body, other, sender, version),
    };
    match packet {
        Ok(packet) => Ok(Some((packet, header.size))),
        Err(kind) => Err(DecodeError { kind, packet: Some(header.packet), version: Some(version) }),
    }
}

/// What does not come once a message.
fn decode_rare(
    body: Reader<'_>,
    packet: PacketType,
    sender: Sender,
    version: Version,
) -> Result<Packet<'_>, Malformation> {
    Ok(match packet {
        PacketType::Subscribe => Packet::Subscribe(subscribe::decode(body, version)?),
        PacketType::SubAck => Packet::SubAck(subscribe::decode_suback(body, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(unsubscribe::decode(body, version)?),
        PacketType::UnsubAck => Packet::UnsubAck(unsubscribe::decode_unsuback(body, version)?),
        PacketType::PingReq => body.end().map(|()| Packet::PingReq)?,
        PacketType::PingResp => body.end().map(|()| Packet::PingResp)?,
        PacketType::Disconnect => Packet::Disconnect(disconnect::decode(body, sender, version)?),
        PacketType::ConnAck => Packet::ConnAck(Box::new(connack::decode(body, version)?)),
        PacketType::Auth => Packet::Auth(auth::decode(body, sender)?),
        // The caller handles these; as input they cannot arrive here.
        other => return Err(Malformation::ReservedPacketType { got: other as u8 }),
    })
}

impl Packet<'_> {
    /// Which packet it is.
    #[must_use]
    pub fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Appends the packet to `out`. What `version` has no words for (properties, reasons) is left out; a CONNECT
    /// is written in its own version.
    ///
    /// # Errors
    /// Something is longer than MQTT can say; `out` is as it was.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Connect(packet) => packet.encode(out),
            Self::ConnAck(packet) => packet.encode(version, out),
            Self::Publish(packet) => packet.encode(version, out),
            Self::PubAck(packet) | Self::PubRec(packet) | Self::PubRel(packet) | Self::PubComp(packet) => {
                packet.encode(self.packet_type(), version, out)
            }
            Self::Subscribe(packet) => packet.encode(version, out),
            Self::SubAck(packet) => packet.encode(version, out),
            Self::Unsubscribe(packet) => packet.encode(version, out),
            Self::UnsubAck(packet) => packet.encode(version, out),
            Self::PingReq => encode_empty(PacketType::PingReq, out),
            Self::PingResp => encode_empty(PacketType::PingResp, out),
            Self::Disconnect(packet) => packet.encode(version, out),
            Self::Auth(packet) => packet.encode(version, out),
        }
    }
}

fn encode_empty(packet: PacketType, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    out.extend_from_slice(&[packet.first_byte(), 0]);
    Ok(())
}
