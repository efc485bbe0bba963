//! PUBLISH as the server writes it: once a delivery, hence measured first, without allocation.

use super::{
    EncodeError, Property, Version, publish,
    write::{self, MAX_REMAINING_LENGTH},
};
use std::num::{NonZeroU16, NonZeroU32};
use waystation_broker::{Properties, Qos};

/// The user property that tells a client how many messages it missed; only the server says it.
pub use waystation_kit::names::MISSED;

/// A message to be sent, in the core's terms. Before MQTT 5 everything from `properties` to `missed` is left out.
///
/// [`Self::measure`], compare with the client's maximum packet size, then [`Measured::write`].
#[derive(Debug, Clone, Copy)]
pub struct Publication<'a> {
    /// The receiver's version.
    pub version: Version,
    /// Sent before, perhaps [MQTT-3.3.1-1].
    pub dup: bool,
    /// The QoS of this delivery.
    pub qos: Qos,
    /// The retain flag of this delivery.
    pub retain: bool,
    /// The topic name; empty where an alias stands for it.
    pub topic: &'a str,
    /// Exactly with QoS 1 and 2.
    pub packet_id: Option<NonZeroU16>,
    /// What the publisher said about the message.
    pub properties: Option<&'a Properties>,
    /// Seconds left.
    pub expiry: Option<u32>,
    /// The subscriptions it is for [MQTT-3.3.4-3].
    pub identifiers: &'a [NonZeroU32],
    /// Topic alias.
    pub alias: Option<NonZeroU16>,
    /// Goes out as user property [`MISSED`], appended last, unless zero.
    pub missed: u32,
    /// The payload.
    pub payload: &'a [u8],
}

/// A [`Publication`] whose size is known, so that writing it cannot fail.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'a> {
    publication: Publication<'a>,
    properties: usize,
    remaining: usize,
}

impl<'a> Publication<'a> {
    /// A QoS 0 message.
    #[must_use]
    pub fn new(version: Version, topic: &'a str, payload: &'a [u8]) -> Self {
        Self {
            version,
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic,
            packet_id: None,
            properties: None,
            expiry: None,
            identifiers: &[],
            alias: None,
            missed: 0,
            payload,
        }
    }

    /// How large it will be.
    ///
    /// # Errors
    /// It cannot be said in MQTT: a field or the whole is too long, or the packet identifier does not fit the QoS.
    #[inline]
    pub fn measure(self) -> Result<Measured<'a>, EncodeError> {
        if self.packet_id.is_some() == (self.qos == Qos::AtMostOnce) {
            return Err(EncodeError::PacketId);
        }
        let mut remaining = field(self.topic.len())? + if self.packet_id.is_some() { 2 } else { 0 };
        let mut properties = 0;
        if self.version == Version::V5 {
            properties = self.measure_properties()?;
            remaining += varint_len(properties) + properties;
        }
        remaining += self.payload.len();
        if remaining > MAX_REMAINING_LENGTH {
            return Err(EncodeError::PacketTooLong { len: remaining });
        }
        Ok(Measured { publication: self, properties, remaining })
    }

    /// Appends the packet.
    ///
    /// # Errors
    /// As [`Self::measure`]; `out` is as it was.
    #[inline]
    pub fn encode(self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.measure()?.write(out);
        Ok(())
    }

    #[inline]
    fn measure_properties(&self) -> Result<usize, EncodeError> {
        let mut len = if self.expiry.is_some() { 5 } else { 0 } + if self.alias.is_some() { 3 } else { 0 };
        for identifier in self.identifiers {
            len += 1 + varint_len(identifier.get() as usize);
        }
        if let Some(properties) = self.properties {
            len += measure_application(properties)?;
        }
        if self.missed != 0 {
            len += 1 + 2 + MISSED.len() + 2 + Decimal::new(self.missed).as_bytes().len();
        }
        Ok(len)
    }
}

impl Measured<'_> {
    /// Bytes of the whole packet.
    #[inline]
    #[must_use]
    pub fn size(&self) -> usize {
        1 + varint_len(self.remaining) + self.remaining
    }

    /// Appends the packet.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.size());
        self.write_head(out);
        out.extend_from_slice(self.publication.payload);
    }

    /// Appends all but the payload, for a caller that sends that from where it lies.
    #[inline]
    pub fn write_head(&self, out: &mut Vec<u8>) {
        let p = &self.publication;
        out.push(publish::first_byte(p.dup, p.qos, p.retain));
        put_varint(out, self.remaining);
        put_binary(out, p.topic.as_bytes());
        if let Some(id) = p.packet_id {
            out.extend_from_slice(&id.get().to_be_bytes());
        }
        if p.version == Version::V5 {
            put_varint(out, self.properties);
            if self.properties != 0 {
                self.write_properties(out);
            }
        }
    }

    fn write_properties(&self, out: &mut Vec<u8>) {
        let p = &self.publication;
        write::u32_property(out, Property::MessageExpiryInterval, p.expiry);
        write::u16_property(out, Property::TopicAlias, p.alias.map(NonZeroU16::get));
        for identifier in p.identifiers {
            out.push(Property::SubscriptionIdentifier as u8);
            put_varint(out, identifier.get() as usize);
        }
        if let Some(properties) = p.properties {
            write_application(properties, out);
        }
        if p.missed != 0 {
            out.push(Property::UserProperty as u8);
            put_binary(out, MISSED.as_bytes());
            put_binary(out, Decimal::new(p.missed).as_bytes());
        }
    }
}

fn measure_application(properties: &Properties) -> Result<usize, EncodeError> {
    let mut len = if properties.payload_is_utf8 { 2 } else { 0 };
    if let Some(text) = &properties.content_type {
        len += 1 + field(text.len())?;
    }
    if let Some(text) = &properties.response_topic {
        len += 1 + field(text.len())?;
    }
    if let Some(bytes) = &properties.correlation_data {
        len += 1 + field(bytes.len())?;
    }
    for (name, value) in &properties.user {
        len += 1 + field(name.len())? + field(value.len())?;
    }
    Ok(len)
}

fn write_application(properties: &Properties, out: &mut Vec<u8>) {
    if properties.payload_is_utf8 {
        out.extend_from_slice(&[Property::PayloadFormatIndicator as u8, 1]);
    }
    if let Some(text) = &properties.content_type {
        out.push(Property::ContentType as u8);
        put_binary(out, text.as_bytes());
    }
    if let Some(text) = &properties.response_topic {
        out.push(Property::ResponseTopic as u8);
        put_binary(out, text.as_bytes());
    }
    if let Some(bytes) = &properties.correlation_data {
        out.push(Property::CorrelationData as u8);
        put_binary(out, bytes);
    }
    for (name, value) in &properties.user {
        out.push(Property::UserProperty as u8);
        put_binary(out, name.as_bytes());
        put_binary(out, value.as_bytes());
    }
}

/// Bytes of a field with its length in front.
#[inline]
fn field(len: usize) -> Result<usize, EncodeError> {
    if len > usize::from(u16::MAX) { Err(EncodeError::FieldTooLong { len }) } else { Ok(2 + len) }
}

#[inline]
fn varint_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// For values that `measure` has found to fit.
#[inline]
fn put_varint(out: &mut Vec<u8>, value: usize) {
    let fits = write::varint(out, value);
    debug_assert!(fits.is_ok(), "measured before");
}

/// For values that `measure` has found to fit.
#[inline]
fn put_binary(out: &mut Vec<u8>, value: &[u8]) {
    let fits = write::binary(out, value);
    debug_assert!(fits.is_ok(), "measured before");
}

/// A number as text, without an allocation.
struct Decimal {
    digits: [u8; 10],
    start: usize,
}

impl Decimal {
    fn new(mut value: u32) -> Self {
        let mut digits = [b'0'; 10];
        let mut start = digits.len();
        while value != 0 && start > 0 {
            start -= 1;
            let [digit, ..] = (value % 10).to_le_bytes();
            digits[start] = b'0' + digit;
            value /= 10;
        }
        Self { digits, start }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}
