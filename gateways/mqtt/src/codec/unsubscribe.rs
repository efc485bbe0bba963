//! UNSUBSCRIBE and UNSUBACK (MQTT 5.0 §3.10, §3.11).

use super::{
    AckProperties, EncodeError, Malformation, PacketType, Property, ReasonCode, Sender, UserProperties, Version,
    property::Section, read::Reader, subscribe, write,
};
use std::{fmt, num::NonZeroU16};

/// An UNSUBSCRIBE packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Comes back in the UNSUBACK.
    pub packet_id: NonZeroU16,
    /// User properties (MQTT 5).
    pub user: UserProperties<'a>,
    /// The filters; at least one.
    pub filters: TopicFilters<'a>,
}

/// The topic filters of an UNSUBSCRIBE in their order; as for [`super::SubscribeTo::filter`].
#[derive(Clone, Copy)]
pub struct TopicFilters<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// Checked when the packet was decoded.
    Wire(&'a [u8]),
    List(&'a [&'a str]),
}

impl<'a> TopicFilters<'a> {
    /// To be sent.
    #[must_use]
    pub fn new(list: &'a [&'a str]) -> Self {
        Self(Source::List(list))
    }

    /// The filters.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let (bytes, list): (&[u8], &[_]) = match self.0 {
            Source::Wire(bytes) => (bytes, &[]),
            Source::List(list) => (&[], list),
        };
        let mut body = Reader::new(bytes);
        std::iter::from_fn(move || body.string("").ok()).chain(list.iter().copied())
    }
}

impl PartialEq for TopicFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for TopicFilters<'_> {}

impl fmt::Debug for TopicFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

pub(super) fn decode(mut body: Reader<'_>, version: Version) -> Result<Unsubscribe<'_>, Malformation> {
    let packet_id = body.packet_id()?;
    let mut user = UserProperties::default();
    if version == Version::V5 {
        let mut section = Section::open(&mut body)?;
        while let Some(property) = section.next()? {
            match property {
                Property::UserProperty => section.user_property()?,
                _ => return Err(Malformation::MisplacedProperty { property }),
            }
        }
        user = section.user_properties();
    }
    let filters = TopicFilters(Source::Wire(body.rest()));
    if body.is_empty() {
        return Err(Malformation::NoFilters); // [MQTT-3.10.3-2]
    }
    while !body.is_empty() {
        subscribe::check_filter(&mut body, version)?;
    }
    Ok(Unsubscribe { packet_id, user, filters })
}

impl Unsubscribe<'_> {
    /// Appends the packet.
    ///
    /// # Errors
    /// A field or the packet is too long.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write::packet(out, PacketType::Unsubscribe.first_byte(), |out| {
            out.extend_from_slice(&self.packet_id.get().to_be_bytes());
            write::properties(out, version, |out| write::user_properties(out, &self.user))?;
            self.filters.iter().try_for_each(|filter| write::string(out, filter))
        })
    }
}

/// An UNSUBACK packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// The UNSUBSCRIBE it answers.
    pub packet_id: NonZeroU16,
    /// Empty before MQTT 5.
    pub properties: AckProperties<'a>,
    /// One code per filter, in their order [MQTT-3.11.3-1]; empty before MQTT 5.
    pub reasons: &'a [u8],
}

pub(super) fn decode_unsuback(mut body: Reader<'_>, version: Version) -> Result<UnsubAck<'_>, Malformation> {
    let packet_id = body.packet_id()?;
    if version != Version::V5 {
        body.end()?;
        return Ok(UnsubAck { packet_id, properties: AckProperties::default(), reasons: &[] });
    }
    let properties = AckProperties::decode(&mut body)?;
    let reasons = body.rest();
    if reasons.is_empty() {
        return Err(Malformation::NoReasons);
    }
    match reasons.iter().find(|code| !ReasonCode(**code).belongs_in(PacketType::UnsubAck, Sender::Server)) {
        Some(&got) => Err(Malformation::ReasonCode { got: ReasonCode(got) }),
        None => Ok(UnsubAck { packet_id, properties, reasons }),
    }
}

impl UnsubAck<'_> {
    /// Appends the packet.
    ///
    /// # Errors
    /// A property or the packet is too long.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write::packet(out, PacketType::UnsubAck.first_byte(), |out| {
            out.extend_from_slice(&self.packet_id.get().to_be_bytes());
            if version == Version::V5 {
                self.properties.encode(version, out)?;
                out.extend_from_slice(self.reasons);
            }
            Ok(())
        })
    }
}
