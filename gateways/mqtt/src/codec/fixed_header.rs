//! The fixed header (MQTT 5.0 §2.1): type, flags, remaining length.

use super::{Malformation, Sender, Version, read};
use std::fmt;

/// A control packet type (§2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// The type a packet's first byte names; `None` for the reserved type 0.
    #[inline]
    #[must_use]
    pub fn from_first_byte(first: u8) -> Option<Self> {
        Some(match first >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The first byte of such a packet; of a PUBLISH without DUP, QoS and RETAIN.
    #[inline]
    #[must_use]
    pub fn first_byte(self) -> u8 {
        ((self as u8) << 4) | self.flags()
    }

    /// The flags a packet must carry (§2.1.3); PUBLISH has its own.
    #[inline]
    fn flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// The one side that sends it; `None`: both do.
    fn sender(self) -> Option<Sender> {
        match self {
            Self::Connect | Self::Subscribe | Self::Unsubscribe | Self::PingReq => Some(Sender::Client),
            Self::ConnAck | Self::SubAck | Self::UnsubAck | Self::PingResp => Some(Sender::Server),
            _ => None,
        }
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        })
    }
}

/// A fixed header that was checked, and what it announces.
pub(super) struct FixedHeader<'a> {
    pub(super) packet: PacketType,
    pub(super) flags: u8,
    /// False when the remaining length used more bytes than it needs; a CONNECT is judged once it told its version.
    pub(super) minimal: bool,
    /// What follows the header.
    pub(super) body: &'a [u8],
    /// Bytes of the whole packet.
    pub(super) size: usize,
}

impl<'a> FixedHeader<'a> {
    /// `None` while bytes are missing.
    #[inline]
    pub(super) fn parse(
        buf: &'a [u8],
        sender: Sender,
        version: Version,
        max_packet_size: u32,
    ) -> Result<Option<Self>, Malformation> {
        let Some((&first, rest)) = buf.split_first() else { return Ok(None) };
        let flags = first & 0x0F;
        let packet = PacketType::from_first_byte(first).ok_or(Malformation::ReservedPacketType { got: first >> 4 })?;
        if packet != PacketType::Publish {
            check(packet, flags, sender, version)?;
        }
        let Some((remaining, length_bytes)) = read::varint(rest, "remaining length")? else { return Ok(None) };
        let minimal = length_bytes == read::varint_len(remaining);
        if !minimal && version == Version::V5 && packet != PacketType::Connect {
            return Err(Malformation::NotMinimal { field: "remaining length" });
        }
        let header_bytes = 1 + length_bytes;
        // 268,435,455 and five more bytes fit in 32 bits.
        let size = remaining + header_bytes;
        if size > max_packet_size {
            return Err(Malformation::PacketTooLarge { size, limit: max_packet_size });
        }
        let (header_bytes, size) = (header_bytes as usize, size as usize);
        Ok(buf.get(header_bytes..size).map(|body| Self { packet, flags, minimal, body, size }))
    }
}

fn check(packet: PacketType, flags: u8, sender: Sender, version: Version) -> Result<(), Malformation> {
    if let Some(expected) = packet.sender()
        && expected != sender
    {
        return Err(Malformation::WrongSender { expected });
    }
    if packet == PacketType::Auth && version != Version::V5 {
        return Err(Malformation::NotInVersion);
    }
    let expected = packet.flags();
    // MQTT 3.1 sets DUP when it repeats a PUBREL, SUBSCRIBE or UNSUBSCRIBE (3.1 §2.1).
    let ignored = if version == Version::V3_1 && expected != 0 { 0b1000 } else { 0 };
    if flags & !ignored != expected {
        return Err(Malformation::FixedHeaderFlags { expected, got: flags });
    }
    Ok(())
}
