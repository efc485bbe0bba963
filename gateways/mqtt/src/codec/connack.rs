//! CONNACK (MQTT 5.0 §3.2).

use super::{
    EncodeError, Malformation, PacketType, Property, ReasonCode, Sender, UserProperties, Version, property::Section,
    read::Reader, write,
};
use std::num::{NonZeroU16, NonZeroU32};

/// A CONNACK packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// The server had the session; only with success [MQTT-3.2.2-6].
    pub session_present: bool,
    /// An MQTT 5 reason, or before MQTT 5 the return code as it stands on the wire: see
    /// [`ReasonCode::to_return_code`].
    pub reason: ReasonCode,
    /// Empty before MQTT 5.
    pub properties: ConnAckProperties<'a>,
}

/// The properties of a CONNACK (§3.2.2.3).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnAckProperties<'a> {
    /// Seconds, where it is not what the client asked for.
    pub session_expiry: Option<u32>,
    /// QoS 1 and 2 messages the server takes unacknowledged.
    pub receive_maximum: Option<NonZeroU16>,
    /// Highest QoS the server takes, where it is not 2: 0 or 1.
    pub maximum_qos: Option<u8>,
    /// Whether the server keeps retained messages.
    pub retain_available: Option<bool>,
    /// Largest packet the server takes.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// The client identifier the server chose.
    pub assigned_client_id: Option<&'a str>,
    /// Highest topic alias the server takes.
    pub topic_alias_maximum: Option<u16>,
    /// A text for people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user: UserProperties<'a>,
    /// Whether wildcard subscriptions work.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether subscription identifiers work.
    pub subscription_identifier_available: Option<bool>,
    /// Whether shared subscriptions work.
    pub shared_subscription_available: Option<bool>,
    /// Seconds, which the client must use instead of its own [MQTT-3.2.2-21].
    pub server_keep_alive: Option<u16>,
    /// What response topics are made from.
    pub response_information: Option<&'a str>,
    /// Another server.
    pub server_reference: Option<&'a str>,
    /// Authentication method.
    pub authentication_method: Option<&'a str>,
    /// Authentication data.
    pub authentication_data: Option<&'a [u8]>,
}

const SESSION_PRESENT: u8 = 1;

pub(super) fn decode(mut body: Reader<'_>, version: Version) -> Result<ConnAck<'_>, Malformation> {
    let flags = body.u8("connect acknowledge flags")?;
    let reason = ReasonCode(body.u8("reason code")?);
    let known = match version {
        Version::V5 => reason.belongs_in(PacketType::ConnAck, Sender::Server),
        _ => reason.0 <= 5, // 3.1.1 §3.2.2.3
    };
    if !known {
        return Err(Malformation::ReasonCode { got: reason });
    }
    let session_present = match (flags, version) {
        (_, Version::V3_1) => false, // 3.1 §3.2: the byte is not used
        (0, _) => false,
        (SESSION_PRESENT, _) if reason == ReasonCode::SUCCESS => true,
        (got, _) => return Err(Malformation::ConnAckFlags { got }),
    };
    let properties = ConnAckProperties::decode(&mut body, version)?;
    body.end()?;
    Ok(ConnAck { session_present, reason, properties })
}

impl<'a> ConnAckProperties<'a> {
    fn decode(body: &mut Reader<'a>, version: Version) -> Result<Self, Malformation> {
        let mut found = Self::default();
        if version != Version::V5 {
            return Ok(found);
        }
        let mut section = Section::open(body)?;
        while let Some(p) = section.next()? {
            let s = &mut section;
            match p {
                Property::SessionExpiryInterval => s.once(&mut found.session_expiry, p, Section::u32)?,
                Property::ReceiveMaximum => s.once(&mut found.receive_maximum, p, Section::nonzero_u16)?,
                Property::MaximumQos => s.once(&mut found.maximum_qos, p, |s, p| s.flag(p).map(u8::from))?,
                Property::RetainAvailable => s.once(&mut found.retain_available, p, Section::flag)?,
                Property::MaximumPacketSize => s.once(&mut found.maximum_packet_size, p, Section::nonzero_u32)?,
                Property::AssignedClientIdentifier => s.once(&mut found.assigned_client_id, p, Section::string)?,
                Property::TopicAliasMaximum => s.once(&mut found.topic_alias_maximum, p, Section::u16)?,
                Property::ReasonString => s.once(&mut found.reason_string, p, Section::string)?,
                Property::UserProperty => s.user_property()?,
                Property::WildcardSubscriptionAvailable => {
                    s.once(&mut found.wildcard_subscription_available, p, Section::flag)?;
                }
                Property::SubscriptionIdentifierAvailable => {
                    s.once(&mut found.subscription_identifier_available, p, Section::flag)?;
                }
                Property::SharedSubscriptionAvailable => {
                    s.once(&mut found.shared_subscription_available, p, Section::flag)?;
                }
                Property::ServerKeepAlive => s.once(&mut found.server_keep_alive, p, Section::u16)?,
                Property::ResponseInformation => s.once(&mut found.response_information, p, Section::string)?,
                Property::ServerReference => s.once(&mut found.server_reference, p, Section::string)?,
                Property::AuthenticationMethod => s.once(&mut found.authentication_method, p, Section::string)?,
                Property::AuthenticationData => s.once(&mut found.authentication_data, p, Section::binary)?,
                property => return Err(Malformation::MisplacedProperty { property }),
            }
        }
        found.user = section.user_properties();
        Ok(found)
    }

    fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write::properties(out, version, |out| {
            write::u32_property(out, Property::SessionExpiryInterval, self.session_expiry);
            write::u16_property(out, Property::ReceiveMaximum, self.receive_maximum.map(NonZeroU16::get));
            write::u8_property(out, Property::MaximumQos, self.maximum_qos);
            write::flag_property(out, Property::RetainAvailable, self.retain_available);
            write::u32_property(out, Property::MaximumPacketSize, self.maximum_packet_size.map(NonZeroU32::get));
            write::string_property(out, Property::AssignedClientIdentifier, self.assigned_client_id)?;
            write::u16_property(out, Property::TopicAliasMaximum, self.topic_alias_maximum);
            write::string_property(out, Property::ReasonString, self.reason_string)?;
            write::flag_property(out, Property::WildcardSubscriptionAvailable, self.wildcard_subscription_available);
            write::flag_property(
                out,
                Property::SubscriptionIdentifierAvailable,
                self.subscription_identifier_available,
            );
            write::flag_property(out, Property::SharedSubscriptionAvailable, self.shared_subscription_available);
            write::u16_property(out, Property::ServerKeepAlive, self.server_keep_alive);
            write::string_property(out, Property::ResponseInformation, self.response_information)?;
            write::string_property(out, Property::ServerReference, self.server_reference)?;
            write::string_property(out, Property::AuthenticationMethod, self.authentication_method)?;
            write::binary_property(out, Property::AuthenticationData, self.authentication_data)?;
            write::user_properties(out, &self.user)
        })
    }
}

impl ConnAck<'_> {
    /// Appends the packet.
    ///
    /// # Errors
    /// A property is too long.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write::packet(out, PacketType::ConnAck.first_byte(), |out| {
            // 3.1 has no Session Present.
            let flags = if self.session_present && version != Version::V3_1 { SESSION_PRESENT } else { 0 };
            let code = if version == Version::V5 { self.reason } else { self.reason.to_return_code() };
            out.extend_from_slice(&[flags, code.0]);
            self.properties.encode(version, out)
        })
    }
}

impl ReasonCode {
    /// The MQTT 3 return code (3.1.1 §3.2.2.3) that says it best. Return codes stay what they are.
    #[must_use]
    pub fn to_return_code(self) -> Self {
        Self(match self {
            Self(code @ 0..=5) => code,
            Self::UNSUPPORTED_PROTOCOL_VERSION => 1,
            Self::CLIENT_IDENTIFIER_NOT_VALID => 2,
            Self::BAD_USER_NAME_OR_PASSWORD | Self::BAD_AUTHENTICATION_METHOD => 4,
            Self::NOT_AUTHORIZED | Self::BANNED => 5,
            _ => 3, // server unavailable
        })
    }
}
