//! CONNECT (MQTT 5.0 §3.1).

use super::{
    DecodeError, EncodeError, Malformation, PacketType, Property, UserProperties, Version, fixed_header::FixedHeader,
    property::Section, publish, read::Reader, write,
};
use std::num::{NonZeroU16, NonZeroU32};
use waystation_broker::{Properties, Qos};

/// A CONNECT packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    /// What the client wants to speak from here on.
    pub version: Version,
    /// Clean Start; before MQTT 5 Clean Session.
    pub clean_start: bool,
    /// Seconds; 0 turns it off.
    pub keep_alive: u16,
    /// Client identifier; empty where the server is to assign one.
    pub client_id: &'a str,
    /// The will.
    pub will: Option<Will<'a>>,
    /// User name.
    pub user_name: Option<&'a str>,
    /// Password; without user name in MQTT 5 only.
    pub password: Option<&'a [u8]>,
    /// Empty before MQTT 5.
    pub properties: ConnectProperties<'a>,
}

/// The properties of a CONNECT (§3.1.2.11).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectProperties<'a> {
    /// Seconds the session outlives the connection; absent means 0.
    pub session_expiry: Option<u32>,
    /// QoS 1 and 2 messages the client takes unacknowledged; absent means 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// Largest packet the client takes; absent means any.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// Highest topic alias the client takes; absent means 0.
    pub topic_alias_maximum: Option<u16>,
    /// Whether response information may be sent; absent means no.
    pub request_response_information: Option<bool>,
    /// Whether reason strings and user properties may be sent beyond PUBLISH, CONNACK and DISCONNECT; absent
    /// means yes.
    pub request_problem_information: Option<bool>,
    /// User properties.
    pub user: UserProperties<'a>,
    /// Authentication method.
    pub authentication_method: Option<&'a str>,
    /// Authentication data; only with a method.
    pub authentication_data: Option<&'a [u8]>,
}

/// A will as CONNECT carries it (§3.1.3.2 to §3.1.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will<'a> {
    /// Will QoS.
    pub qos: Qos,
    /// Will Retain.
    pub retain: bool,
    /// A topic name: not empty, no wildcard.
    pub topic: &'a str,
    /// The payload.
    pub payload: &'a [u8],
    /// Empty before MQTT 5.
    pub properties: WillProperties<'a>,
}

/// The properties of a will (§3.1.3.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WillProperties<'a> {
    /// Seconds; absent means 0.
    pub delay: Option<u32>,
    /// Payload format indicator 1.
    pub payload_is_utf8: bool,
    /// Message expiry interval, in seconds.
    pub message_expiry: Option<u32>,
    /// Content type.
    pub content_type: Option<&'a str>,
    /// Response topic.
    pub response_topic: Option<&'a str>,
    /// Correlation data.
    pub correlation_data: Option<&'a [u8]>,
    /// User properties.
    pub user: UserProperties<'a>,
}

impl WillProperties<'_> {
    /// As [`super::PublishProperties::application`].
    #[must_use]
    pub fn application(&self) -> Option<Box<Properties>> {
        publish::application(
            self.payload_is_utf8,
            self.content_type,
            self.response_topic,
            self.correlation_data,
            &self.user,
        )
    }
}

const USER_NAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_QOS: u8 = 0b11 << WILL_QOS_SHIFT;
const WILL: u8 = 0x04;
const CLEAN_START: u8 = 0x02;
const RESERVED: u8 = 0x01;

pub(super) fn decode<'a>(header: &FixedHeader<'a>) -> Result<Connect<'a>, DecodeError> {
    let mut body = Reader::new(header.body);
    let error = |version| move |kind| DecodeError { kind, packet: Some(PacketType::Connect), version };
    let version = decode_version(&mut body).map_err(error(None))?;
    if version == Version::V5 && !header.minimal {
        return Err(error(Some(version))(Malformation::NotMinimal { field: "remaining length" }));
    }
    decode_rest(body, version).map_err(error(Some(version)))
}

fn decode_version(body: &mut Reader<'_>) -> Result<Version, Malformation> {
    let name = body.binary("protocol name")?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(Malformation::ProtocolName); // [MQTT-3.1.2-1]
    }
    match (name, body.u8("protocol level")?) {
        (b"MQIsdp", 3) => Ok(Version::V3_1),
        (b"MQTT", 4) => Ok(Version::V3_1_1),
        (b"MQTT", 5) => Ok(Version::V5),
        (_, got) => Err(Malformation::ProtocolLevel { got }), // [MQTT-3.1.2-2]
    }
}

fn decode_rest(mut body: Reader<'_>, version: Version) -> Result<Connect<'_>, Malformation> {
    let flags = body.u8("connect flags")?;
    if flags & RESERVED != 0 && version != Version::V3_1 {
        return Err(Malformation::ReservedConnectFlag); // [MQTT-3.1.2-3]; 3.1 calls the bit unused
    }
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(Malformation::WillFlags); // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
    }
    let will_qos = Qos::from_u8((flags & WILL_QOS) >> WILL_QOS_SHIFT).ok_or(Malformation::Qos { field: "will QoS" })?;
    if flags & (USER_NAME | PASSWORD) == PASSWORD && version != Version::V5 {
        return Err(Malformation::PasswordWithoutUserName); // 3.1.1 [MQTT-3.1.2-22]
    }
    let clean_start = flags & CLEAN_START != 0;
    let keep_alive = body.u16("keep alive")?;
    let properties = ConnectProperties::decode(&mut body, version)?;
    let client_id = body.string("client identifier")?;
    // 3.1.1 [MQTT-3.1.3-7]; 3.1 asks for 1 to 23 characters; the upper bound is for
    // the connection to judge.
    let may_be_empty = version == Version::V5 || version == Version::V3_1_1 && clean_start;
    if client_id.is_empty() && !may_be_empty {
        return Err(Malformation::EmptyClientId);
    }
    let will = if flags & WILL == 0 {
        None
    } else {
        let properties = WillProperties::decode(&mut body, version)?;
        let topic = body.nonempty_topic("will topic")?;
        let payload = body.binary("will payload")?;
        Some(Will { qos: will_qos, retain: flags & WILL_RETAIN != 0, topic, payload, properties })
    };
    // 3.1 §3.1: the remaining length takes precedence; a user name or password that is flagged may be missing.
    let present = |body: &Reader<'_>| version != Version::V3_1 || !body.is_empty();
    let user_name = if flags & USER_NAME != 0 && present(&body) { Some(body.string("user name")?) } else { None };
    let password = if flags & PASSWORD != 0 && present(&body) { Some(body.binary("password")?) } else { None };
    body.end()?;
    Ok(Connect { version, clean_start, keep_alive, client_id, will, user_name, password, properties })
}

impl<'a> ConnectProperties<'a> {
    fn decode(body: &mut Reader<'a>, version: Version) -> Result<Self, Malformation> {
        let mut found = Self::default();
        if version != Version::V5 {
            return Ok(found);
        }
        let mut section = Section::open(body)?;
        while let Some(p) = section.next()? {
            match p {
                Property::SessionExpiryInterval => section.once(&mut found.session_expiry, p, Section::u32)?,
                Property::ReceiveMaximum => section.once(&mut found.receive_maximum, p, Section::nonzero_u16)?,
                Property::MaximumPacketSize => {
                    section.once(&mut found.maximum_packet_size, p, Section::nonzero_u32)?;
                }
                Property::TopicAliasMaximum => section.once(&mut found.topic_alias_maximum, p, Section::u16)?,
                Property::RequestResponseInformation => {
                    section.once(&mut found.request_response_information, p, Section::flag)?;
                }
                Property::RequestProblemInformation => {
                    section.once(&mut found.request_problem_information, p, Section::flag)?;
                }
                Property::UserProperty => section.user_property()?,
                Property::AuthenticationMethod => {
                    section.once(&mut found.authentication_method, p, Section::string)?;
                }
                Property::AuthenticationData => section.once(&mut found.authentication_data, p, Section::binary)?,
                property => return Err(Malformation::MisplacedProperty { property }),
            }
        }
        if found.authentication_data.is_some() && found.authentication_method.is_none() {
            return Err(Malformation::MissingProperty { property: Property::AuthenticationMethod }); // §3.1.2.11.10
        }
        found.user = section.user_properties();
        Ok(found)
    }

    fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write::properties(out, version, |out| {
            write::u32_property(out, Property::SessionExpiryInterval, self.session_expiry);
            write::u16_property(out, Property::ReceiveMaximum, self.receive_maximum.map(NonZeroU16::get));
            write::u32_property(out, Property::MaximumPacketSize, self.maximum_packet_size.map(NonZeroU32::get));
            write::u16_property(out, Property::TopicAliasMaximum, self.topic_alias_maximum);
            write::flag_property(out, Property::RequestResponseInformation, self.request_response_information);
            write::flag_property(out, Property::RequestProblemInformation, self.request_problem_information);
            write::string_property(out, Property::AuthenticationMethod, self.authentication_method)?;
            write::binary_property(out, Property::AuthenticationData, self.authentication_data)?;
            write::user_properties(out, &self.user)
        })
    }
}

impl<'a> WillProperties<'a> {
    fn decode(body: &mut Reader<'a>, version: Version) -> Result<Self, Malformation> {
        let mut found = Self::default();
        if version != Version::V5 {
            return Ok(found);
        }
        let mut section = Section::open(body)?;
        let mut payload_is_utf8 = None;
        while let Some(p) = section.next()? {
            match p {
                Property::WillDelayInterval => section.once(&mut found.delay, p, Section::u32)?,
                Property::PayloadFormatIndicator => section.once(&mut payload_is_utf8, p, Section::flag)?,
                Property::MessageExpiryInterval => section.once(&mut found.message_expiry, p, Section::u32)?,
                Property::ContentType => section.once(&mut found.content_type, p, Section::string)?,
                Property::ResponseTopic => section.once(&mut found.response_topic, p, Section::topic)?,
                Property::CorrelationData => section.once(&mut found.correlation_data, p, Section::binary)?,
                Property::UserProperty => section.user_property()?,
                property => return Err(Malformation::MisplacedProperty { property }),
            }
        }
        found.payload_is_utf8 = payload_is_utf8.unwrap_or(false);
        found.user = section.user_properties();
        Ok(found)
    }

    fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write::properties(out, version, |out| {
            write::u32_property(out, Property::WillDelayInterval, self.delay);
            write::flag_property(out, Property::PayloadFormatIndicator, self.payload_is_utf8.then_some(true));
            write::u32_property(out, Property::MessageExpiryInterval, self.message_expiry);
            write::string_property(out, Property::ContentType, self.content_type)?;
            write::string_property(out, Property::ResponseTopic, self.response_topic)?;
            write::binary_property(out, Property::CorrelationData, self.correlation_data)?;
            write::user_properties(out, &self.user)
        })
    }
}

impl<'a> Connect<'a> {
    /// A clean start without will, credentials and keep alive.
    #[must_use]
    pub fn new(version: Version, client_id: &'a str) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive: 0,
            client_id,
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties::default(),
        }
    }

    /// Appends the packet.
    ///
    /// # Errors
    /// A field or the packet is too long.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write::packet(out, PacketType::Connect.first_byte(), |out| {
            let (name, level) = match self.version {
                Version::V3_1 => ("MQIsdp", 3),
                Version::V3_1_1 => ("MQTT", 4),
                Version::V5 => ("MQTT", 5),
            };
            write::string(out, name)?;
            out.extend_from_slice(&[level, self.flags()]);
            out.extend_from_slice(&self.keep_alive.to_be_bytes());
            self.properties.encode(self.version, out)?;
            write::string(out, self.client_id)?;
            if let Some(will) = &self.will {
                will.properties.encode(self.version, out)?;
                write::string(out, will.topic)?;
                write::binary(out, will.payload)?;
            }
            if let Some(user_name) = self.user_name {
                write::string(out, user_name)?;
            }
            if let Some(password) = self.password {
                write::binary(out, password)?;
            }
            Ok(())
        })
    }

    fn flags(&self) -> u8 {
        let flag = |set, bit| if set { bit } else { 0 };
        let will = self
            .will
            .as_ref()
            .map_or(0, |will| WILL | ((will.qos as u8) << WILL_QOS_SHIFT) | flag(will.retain, WILL_RETAIN));
        will | flag(self.clean_start, CLEAN_START)
            | flag(self.user_name.is_some(), USER_NAME)
            | flag(self.password.is_some(), PASSWORD)
    }
}
