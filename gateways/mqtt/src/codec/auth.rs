//! AUTH (MQTT 5.0 §3.15).

use super::{
    EncodeError, Malformation, PacketType, Property, ReasonCode, Sender, UserProperties, Version, property::Section,
    read::Reader, write,
};

/// An AUTH packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success (from a server), continue, or re-authenticate (from a client).
    pub reason: ReasonCode,
    /// Its properties.
    pub properties: AuthProperties<'a>,
}

/// The properties of an AUTH (§3.15.2.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthProperties<'a> {
    /// Authentication method; missing only in the short form, which is success without more.
    pub method: Option<&'a str>,
    /// Authentication data.
    pub data: Option<&'a [u8]>,
    /// A text for people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user: UserProperties<'a>,
}

pub(super) fn decode(mut body: Reader<'_>, sender: Sender) -> Result<Auth<'_>, Malformation> {
    // §3.15.2.1: reason code and properties may be left out, which is success.
    let short = body.is_empty();
    let reason = if short { ReasonCode::SUCCESS } else { ReasonCode(body.u8("reason code")?) };
    if !reason.belongs_in(PacketType::Auth, sender) {
        return Err(Malformation::ReasonCode { got: reason });
    }
    let mut found = AuthProperties::default();
    if !short {
        let mut section = Section::open(&mut body)?;
        while let Some(p) = section.next()? {
            match p {
                Property::AuthenticationMethod => section.once(&mut found.method, p, Section::string)?,
                Property::AuthenticationData => section.once(&mut found.data, p, Section::binary)?,
                Property::ReasonString => section.once(&mut found.reason_string, p, Section::string)?,
                Property::UserProperty => section.user_property()?,
                property => return Err(Malformation::MisplacedProperty { property }),
            }
        }
        if found.method.is_none() {
            return Err(Malformation::MissingProperty { property: Property::AuthenticationMethod }); // §3.15.2.2.2
        }
        found.user = section.user_properties();
        body.end()?;
    }
    Ok(Auth { reason, properties: found })
}

impl Auth<'_> {
    /// Appends the packet, as short as it can be said. There is none before MQTT 5: nothing is appended then.
    ///
    /// # Errors
    /// A property is too long.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if version != Version::V5 {
            return Ok(());
        }
        let p = &self.properties;
        write::packet(out, PacketType::Auth.first_byte(), |out| {
            if self.reason == ReasonCode::SUCCESS && *p == AuthProperties::default() {
                return Ok(());
            }
            out.push(self.reason.0);
            write::properties(out, version, |out| {
                write::string_property(out, Property::AuthenticationMethod, p.method)?;
                write::binary_property(out, Property::AuthenticationData, p.data)?;
                write::string_property(out, Property::ReasonString, p.reason_string)?;
                write::user_properties(out, &p.user)
            })
        })
    }
}
