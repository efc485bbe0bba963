//! DISCONNECT (MQTT 5.0 §3.14).

use super::{
    EncodeError, Malformation, PacketType, Property, ReasonCode, Sender, UserProperties, Version, property::Section,
    read::Reader, write,
};

/// A DISCONNECT packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Success is a normal disconnection, which is all there is before MQTT 5.
    pub reason: ReasonCode,
    /// Empty before MQTT 5.
    pub properties: DisconnectProperties<'a>,
}

/// The properties of a DISCONNECT (§3.14.2.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DisconnectProperties<'a> {
    /// Seconds; only a client sends it [MQTT-3.14.2-2].
    pub session_expiry: Option<u32>,
    /// A text for people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user: UserProperties<'a>,
    /// Another server; only a server sends it.
    pub server_reference: Option<&'a str>,
}

pub(super) fn decode(mut body: Reader<'_>, sender: Sender, version: Version) -> Result<Disconnect<'_>, Malformation> {
    if version != Version::V5 {
        if sender == Sender::Server {
            return Err(Malformation::WrongSender { expected: Sender::Client }); // 3.1.1 §3.14
        }
        body.end()?;
        return Ok(Disconnect::default());
    }
    // §3.14.2.1, §3.14.2.2.1: reason code and property length may be left out.
    if body.is_empty() {
        return Ok(Disconnect::default());
    }
    let reason = ReasonCode(body.u8("reason code")?);
    if !reason.belongs_in(PacketType::Disconnect, sender) {
        return Err(Malformation::ReasonCode { got: reason });
    }
    let mut found = DisconnectProperties::default();
    if !body.is_empty() {
        let mut section = Section::open(&mut body)?;
        while let Some(p) = section.next()? {
            match p {
                Property::SessionExpiryInterval if sender == Sender::Server => {
                    return Err(Malformation::WrongSender { expected: Sender::Client }); // [MQTT-3.14.2-2]
                }
                Property::ServerReference if sender == Sender::Client => {
                    return Err(Malformation::WrongSender { expected: Sender::Server });
                }
                Property::SessionExpiryInterval => section.once(&mut found.session_expiry, p, Section::u32)?,
                Property::ServerReference => section.once(&mut found.server_reference, p, Section::string)?,
                Property::ReasonString => section.once(&mut found.reason_string, p, Section::string)?,
                Property::UserProperty => section.user_property()?,
                property => return Err(Malformation::MisplacedProperty { property }),
            }
        }
        found.user = section.user_properties();
    }
    body.end()?;
    Ok(Disconnect { reason, properties: found })
}

impl Disconnect<'_> {
    /// With a reason and nothing more.
    #[must_use]
    pub fn new(reason: ReasonCode) -> Self {
        Self { reason, properties: DisconnectProperties::default() }
    }

    /// Appends the packet, as short as it can be said.
    ///
    /// # Errors
    /// A property is too long.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let p = &self.properties;
        write::packet(out, PacketType::Disconnect.first_byte(), |out| {
            let plain = *p == DisconnectProperties::default();
            if version != Version::V5 || plain && self.reason == ReasonCode::SUCCESS {
                return Ok(());
            }
            out.push(self.reason.0);
            if plain {
                return Ok(());
            }
            write::properties(out, version, |out| {
                write::u32_property(out, Property::SessionExpiryInterval, p.session_expiry);
                write::string_property(out, Property::ReasonString, p.reason_string)?;
                write::string_property(out, Property::ServerReference, p.server_reference)?;
                write::user_properties(out, &p.user)
            })
        })
    }
}
