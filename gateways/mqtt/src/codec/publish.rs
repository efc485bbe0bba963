//! PUBLISH (MQTT 5.0 §3.3) as it is read, and as a client writes it.

use super::{
    EncodeError, MISSED, Malformation, PacketType, Property, Sender, SubscriptionIdentifiers, UserProperties, Version,
    property::Section, read::Reader, write,
};
use std::num::NonZeroU16;
use waystation_broker::{InvalidTopic, Properties, Qos};

/// A PUBLISH packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before, perhaps.
    pub dup: bool,
    /// How surely it is to be delivered.
    pub qos: Qos,
    /// Keep it (from a client), or: it was kept (from a server).
    pub retain: bool,
    /// A topic name without wildcard; empty only in MQTT 5 where a topic alias stands for it.
    pub topic: &'a str,
    /// There is one exactly when the QoS is 1 or 2.
    pub packet_id: Option<NonZeroU16>,
    /// Empty before MQTT 5.
    pub properties: PublishProperties<'a>,
    /// The application message.
    pub payload: &'a [u8],
}

/// The properties of a PUBLISH (§3.3.2.3).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    /// Payload format indicator 1. Whether the payload keeps the promise is not checked here.
    pub payload_is_utf8: bool,
    /// Message expiry interval, in seconds.
    pub message_expiry: Option<u32>,
    /// Topic alias; never 0 [MQTT-3.3.2-8].
    pub topic_alias: Option<NonZeroU16>,
    /// Response topic: no wildcard, not empty.
    pub response_topic: Option<&'a str>,
    /// Correlation data.
    pub correlation_data: Option<&'a [u8]>,
    /// User properties.
    pub user: UserProperties<'a>,
    /// Subscription identifiers; only a server sends them [MQTT-3.3.4-6].
    pub subscription_identifiers: SubscriptionIdentifiers<'a>,
    /// Content type.
    pub content_type: Option<&'a str>,
}

impl PublishProperties<'_> {
    /// What the core carries unread, copied; `None` where nothing is set. The server's own user property
    /// [`MISSED`] is left out: nobody else may say it.
    #[must_use]
    pub fn application(&self) -> Option<Box<Properties>> {
        application(self.payload_is_utf8, self.content_type, self.response_topic, self.correlation_data, &self.user)
    }
}

/// What PUBLISH and wills have in common, copied for the core.
pub(super) fn application(
    payload_is_utf8: bool,
    content_type: Option<&str>,
    response_topic: Option<&str>,
    correlation_data: Option<&[u8]>,
    user: &UserProperties<'_>,
) -> Option<Box<Properties>> {
    if !payload_is_utf8
        && content_type.is_none()
        && response_topic.is_none()
        && correlation_data.is_none()
        && user.is_empty()
    {
        return None;
    }
    let properties = Properties {
        payload_is_utf8,
        content_type: content_type.map(Box::from),
        response_topic: response_topic.map(Box::from),
        correlation_data: correlation_data.map(Box::from),
        user: user
            .iter()
            .filter(|(name, _)| *name != MISSED)
            .map(|(name, value)| (Box::from(name), Box::from(value)))
            .collect(),
    };
    (properties != Properties::default()).then(|| Box::new(properties))
}

const DUP: u8 = 0b1000;
const RETAIN: u8 = 0b0001;

#[inline]
pub(super) fn decode<'a>(
    mut body: Reader<'a>,
    flags: u8,
    sender: Sender,
    version: Version,
) -> Result<Publish<'a>, Malformation> {
    let qos = Qos::from_u8((flags >> 1) & 0b11).ok_or(Malformation::Qos { field: "QoS" })?; // [MQTT-3.3.1-4]
    let dup = flags & DUP != 0;
    if dup && qos == Qos::AtMostOnce {
        return Err(Malformation::DupWithQos0); // [MQTT-3.3.1-2]
    }
    let topic = body.topic("topic name")?;
    let packet_id = if qos == Qos::AtMostOnce { None } else { Some(body.packet_id()?) };
    let properties =
        if version == Version::V5 { decode_properties(&mut body, sender)? } else { PublishProperties::default() };
    if topic.is_empty() && properties.topic_alias.is_none() {
        // §3.3.2.3.4: without a topic there must be an alias; before MQTT 5 there is none [MQTT-4.7.3-1].
        return Err(Malformation::Topic { field: "topic name", why: InvalidTopic::Empty });
    }
    let retain = flags & RETAIN != 0;
    Ok(Publish { dup, qos, retain, topic, packet_id, properties, payload: body.rest() })
}

#[inline]
fn decode_properties<'a>(body: &mut Reader<'a>, sender: Sender) -> Result<PublishProperties<'a>, Malformation> {
    // Most have none.
    if body.rest().first() == Some(&0) {
        body.u8("property length")?;
        return Ok(PublishProperties::default());
    }
    decode_some_properties(body, sender)
}

fn decode_some_properties<'a>(body: &mut Reader<'a>, sender: Sender) -> Result<PublishProperties<'a>, Malformation> {
    let mut section = Section::open(body)?;
    let mut found = PublishProperties::default();
    let mut payload_is_utf8 = None;
    while let Some(property) = section.next()? {
        match property {
            Property::PayloadFormatIndicator => section.once(&mut payload_is_utf8, property, Section::flag)?,
            Property::MessageExpiryInterval => section.once(&mut found.message_expiry, property, Section::u32)?,
            Property::TopicAlias => section.once(&mut found.topic_alias, property, Section::nonzero_u16)?,
            Property::ResponseTopic => section.once(&mut found.response_topic, property, Section::topic)?,
            Property::CorrelationData => section.once(&mut found.correlation_data, property, Section::binary)?,
            Property::ContentType => section.once(&mut found.content_type, property, Section::string)?,
            Property::UserProperty => section.user_property()?,
            Property::SubscriptionIdentifier if sender == Sender::Server => {
                section.subscription_identifier(property)?;
            }
            // [MQTT-3.3.4-6], which is a Protocol Error rather than a Malformed Packet.
            Property::SubscriptionIdentifier => {
                return Err(Malformation::WrongSender { expected: Sender::Server });
            }
            _ => return Err(Malformation::MisplacedProperty { property }),
        }
    }
    found.payload_is_utf8 = payload_is_utf8.unwrap_or(false);
    found.user = section.user_properties();
    found.subscription_identifiers = section.subscription_identifiers();
    Ok(found)
}

impl Publish<'_> {
    /// Appends the packet. [`super::Publication`] is the way for many.
    ///
    /// # Errors
    /// A field or the packet is too long, or the packet identifier does not fit the QoS.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let first = first_byte(self.dup, self.qos, self.retain);
        if self.packet_id.is_some() == (self.qos == Qos::AtMostOnce) {
            return Err(EncodeError::PacketId);
        }
        write::packet(out, first, |out| {
            write::string(out, self.topic)?;
            if let Some(id) = self.packet_id {
                out.extend_from_slice(&id.get().to_be_bytes());
            }
            let p = &self.properties;
            write::properties(out, version, |out| {
                write::flag_property(out, Property::PayloadFormatIndicator, p.payload_is_utf8.then_some(true));
                write::u32_property(out, Property::MessageExpiryInterval, p.message_expiry);
                write::u16_property(out, Property::TopicAlias, p.topic_alias.map(NonZeroU16::get));
                write::string_property(out, Property::ResponseTopic, p.response_topic)?;
                write::binary_property(out, Property::CorrelationData, p.correlation_data)?;
                write::string_property(out, Property::ContentType, p.content_type)?;
                write::subscription_identifiers(out, &p.subscription_identifiers)?;
                write::user_properties(out, &p.user)
            })?;
            out.extend_from_slice(self.payload);
            Ok(())
        })
    }
}

/// The first byte of a PUBLISH (§3.3.1).
#[inline]
pub(super) fn first_byte(dup: bool, qos: Qos, retain: bool) -> u8 {
    PacketType::Publish.first_byte() | if dup { DUP } else { 0 } | ((qos as u8) << 1) | if retain { RETAIN } else { 0 }
}
