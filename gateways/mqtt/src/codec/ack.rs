//! PUBACK, PUBREC, PUBREL and PUBCOMP (MQTT 5.0 §3.4 to §3.7), which are alike but for their reason codes.

use super::{
    EncodeError, Malformation, PacketType, Property, ReasonCode, Sender, UserProperties, Version, property::Section,
    read::Reader, write,
};
use std::num::NonZeroU16;

/// A PUBACK, PUBREC, PUBREL or PUBCOMP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The PUBLISH it is about.
    pub packet_id: NonZeroU16,
    /// Success before MQTT 5.
    pub reason: ReasonCode,
    /// Empty before MQTT 5.
    pub properties: AckProperties<'a>,
}

/// The properties of acknowledgements of every kind (§3.4.2.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AckProperties<'a> {
    /// A text for people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user: UserProperties<'a>,
}

#[inline]
pub(super) fn decode(mut body: Reader<'_>, packet: PacketType, version: Version) -> Result<Ack<'_>, Malformation> {
    let packet_id = body.packet_id()?;
    // §3.4.2.1: without reason code it is success, without property length there are no properties.
    if body.is_empty() {
        return Ok(Ack { packet_id, reason: ReasonCode::SUCCESS, properties: AckProperties::default() });
    }
    decode_long(body, packet_id, packet, version)
}

fn decode_long(
    mut body: Reader<'_>,
    packet_id: NonZeroU16,
    packet: PacketType,
    version: Version,
) -> Result<Ack<'_>, Malformation> {
    if version != Version::V5 {
        return Err(Malformation::TrailingBytes { count: body.rest().len() });
    }
    let reason = ReasonCode(body.u8("reason code")?);
    if !reason.belongs_in(packet, Sender::Client) {
        return Err(Malformation::ReasonCode { got: reason });
    }
    let properties = if body.is_empty() { AckProperties::default() } else { AckProperties::decode(&mut body)? };
    body.end()?;
    Ok(Ack { packet_id, reason, properties })
}

impl<'a> AckProperties<'a> {
    pub(super) fn decode(body: &mut Reader<'a>) -> Result<Self, Malformation> {
        let mut section = Section::open(body)?;
        let mut found = Self::default();
        while let Some(property) = section.next()? {
            match property {
                Property::ReasonString => section.once(&mut found.reason_string, property, Section::string)?,
                Property::UserProperty => section.user_property()?,
                _ => return Err(Malformation::MisplacedProperty { property }),
            }
        }
        found.user = section.user_properties();
        Ok(found)
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user.is_empty()
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write::properties(out, version, |out| {
            write::string_property(out, Property::ReasonString, self.reason_string)?;
            write::user_properties(out, &self.user)
        })
    }
}

impl Ack<'_> {
    /// Without properties.
    #[must_use]
    pub fn new(packet_id: NonZeroU16, reason: ReasonCode) -> Self {
        Self { packet_id, reason, properties: AckProperties::default() }
    }

    /// Appends it as a packet of this type, as short as it can be said.
    ///
    /// # Errors
    /// A property is too long.
    pub fn encode(&self, packet: PacketType, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if version != Version::V5 || self.properties.is_empty() {
            encode_ack(out, packet, version, self.packet_id, self.reason);
            return Ok(());
        }
        write::packet(out, packet.first_byte(), |out| {
            out.extend_from_slice(&self.packet_id.get().to_be_bytes());
            out.push(self.reason.0);
            self.properties.encode(version, out)
        })
    }
}

/// Appends a PUBACK, PUBREC, PUBREL or PUBCOMP without properties: 4 bytes, or 5 for an MQTT 5 reason that is not
/// success. Cannot fail.
#[inline]
pub fn encode_ack(out: &mut Vec<u8>, packet: PacketType, version: Version, packet_id: NonZeroU16, reason: ReasonCode) {
    let [high, low] = packet_id.get().to_be_bytes();
    if version != Version::V5 || reason == ReasonCode::SUCCESS {
        out.extend_from_slice(&[packet.first_byte(), 2, high, low]);
    } else {
        out.extend_from_slice(&[packet.first_byte(), 3, high, low, reason.0]);
    }
}
