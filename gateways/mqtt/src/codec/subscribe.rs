//! SUBSCRIBE and SUBACK (MQTT 5.0 §3.8, §3.9).

use super::{
    AckProperties, EncodeError, Malformation, PacketType, Property, ReasonCode, Sender, UserProperties, Version,
    property::Section, read::Reader, write,
};
use std::{
    fmt,
    num::{NonZeroU16, NonZeroU32},
};
use waystation_broker::{Filter, InvalidTopic, Qos, RetainHandling};

/// A SUBSCRIBE packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Comes back in the SUBACK.
    pub packet_id: NonZeroU16,
    /// Subscription identifier (MQTT 5).
    pub identifier: Option<NonZeroU32>,
    /// User properties (MQTT 5).
    pub user: UserProperties<'a>,
    /// What is subscribed to; at least one.
    pub filters: Filters<'a>,
}

/// One subscription of a SUBSCRIBE (§3.8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscribeTo<'a> {
    /// A topic filter by §4.7. Before MQTT 5 it may begin with `$share` and be no shared subscription: refuse that
    /// one with 0x80, as [`Filter::parse`] does.
    pub filter: &'a str,
    /// Maximum QoS.
    pub qos: Qos,
    /// Not one's own messages (MQTT 5).
    pub no_local: bool,
    /// The retain flag as the publisher set it (MQTT 5).
    pub retain_as_published: bool,
    /// Which retained messages to send (MQTT 5).
    pub retain_handling: RetainHandling,
}

impl<'a> SubscribeTo<'a> {
    /// As MQTT 3.1.1 subscribes.
    #[must_use]
    pub fn new(filter: &'a str, qos: Qos) -> Self {
        let retain_handling = RetainHandling::Send;
        Self { filter, qos, no_local: false, retain_as_published: false, retain_handling }
    }

    fn options(&self, version: Version) -> u8 {
        let qos = self.qos as u8;
        if version != Version::V5 {
            return qos;
        }
        let retain_handling: u8 = match self.retain_handling {
            RetainHandling::Send => 0,
            RetainHandling::SendIfNew => 1,
            RetainHandling::DoNotSend => 2,
        };
        qos | (u8::from(self.no_local) << 2) | (u8::from(self.retain_as_published) << 3) | (retain_handling << 4)
    }
}

/// The subscriptions of a SUBSCRIBE in their order.
#[derive(Clone, Copy)]
pub struct Filters<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// Checked when the packet was decoded.
    Wire(&'a [u8], Version),
    List(&'a [SubscribeTo<'a>]),
}

impl<'a> Filters<'a> {
    /// To be sent.
    #[must_use]
    pub fn new(list: &'a [SubscribeTo<'a>]) -> Self {
        Self(Source::List(list))
    }

    /// The subscriptions.
    pub fn iter(&self) -> impl Iterator<Item = SubscribeTo<'a>> + use<'a> {
        let (bytes, version, list): (&[u8], _, &[_]) = match self.0 {
            Source::Wire(bytes, version) => (bytes, version, &[]),
            Source::List(list) => (&[], Version::V5, list),
        };
        let mut body = Reader::new(bytes);
        let wire = std::iter::from_fn(move || {
            let filter = body.string("").ok()?;
            with_options(filter, body.u8("").ok()?, version).ok()
        });
        wire.chain(list.iter().copied())
    }
}

impl PartialEq for Filters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Filters<'_> {}

impl fmt::Debug for Filters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

pub(super) fn decode(mut body: Reader<'_>, version: Version) -> Result<Subscribe<'_>, Malformation> {
    let packet_id = body.packet_id()?;
    let (mut identifier, mut user) = (None, UserProperties::default());
    if version == Version::V5 {
        let mut section = Section::open(&mut body)?;
        while let Some(property) = section.next()? {
            match property {
                Property::SubscriptionIdentifier => {
                    section.once(&mut identifier, property, Section::subscription_identifier)?;
                }
                Property::UserProperty => section.user_property()?,
                _ => return Err(Malformation::MisplacedProperty { property }),
            }
        }
        user = section.user_properties();
    }
    let filters = Filters(Source::Wire(body.rest(), version));
    if body.is_empty() {
        return Err(Malformation::NoFilters); // [MQTT-3.8.3-2]
    }
    while !body.is_empty() {
        let filter = check_filter(&mut body, version)?;
        let wanted = with_options(filter, body.u8("subscription options")?, version)?;
        if wanted.no_local && filter.starts_with("$share/") {
            return Err(Malformation::NoLocalOnShared); // [MQTT-3.8.3-4]
        }
    }
    Ok(Subscribe { packet_id, identifier, user, filters })
}

/// A topic filter that the core will take.
pub(super) fn check_filter<'a>(body: &mut Reader<'a>, version: Version) -> Result<&'a str, Malformation> {
    let filter = body.string("topic filter")?;
    match Filter::parse(filter) {
        Ok(_) => Ok(filter),
        // Before MQTT 5 `$share` is a name like others: no reason to close, only to refuse.
        Err(InvalidTopic::Share) if version != Version::V5 => Ok(filter),
        Err(why) => Err(Malformation::Filter { why }),
    }
}

fn with_options(filter: &str, options: u8, version: Version) -> Result<SubscribeTo<'_>, Malformation> {
    let reserved = match version {
        Version::V3_1 => 0, // 3.1 §3.8: the upper six bits are not used
        Version::V3_1_1 => 0b1111_1100,
        Version::V5 => 0b1100_0000,
    };
    if options & reserved != 0 {
        return Err(Malformation::SubscriptionOptions { got: options }); // [MQTT-3.8.3-5], 3.1.1 [MQTT-3-8.3-4]
    }
    let qos = Qos::from_u8(options & 0b11).ok_or(Malformation::SubscriptionQos)?;
    if version != Version::V5 {
        return Ok(SubscribeTo::new(filter, qos));
    }
    let retain_handling = match (options >> 4) & 0b11 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return Err(Malformation::RetainHandling),
    };
    let (no_local, retain_as_published) = (options & 0b0100 != 0, options & 0b1000 != 0);
    Ok(SubscribeTo { filter, qos, no_local, retain_as_published, retain_handling })
}

impl Subscribe<'_> {
    /// Appends the packet.
    ///
    /// # Errors
    /// A field or the packet is too long.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write::packet(out, PacketType::Subscribe.first_byte(), |out| {
            out.extend_from_slice(&self.packet_id.get().to_be_bytes());
            write::properties(out, version, |out| {
                if let Some(identifier) = self.identifier {
                    out.push(Property::SubscriptionIdentifier as u8);
                    write::varint(out, identifier.get() as usize)?;
                }
                write::user_properties(out, &self.user)
            })?;
            for wanted in self.filters.iter() {
                write::string(out, wanted.filter)?;
                out.push(wanted.options(version));
            }
            Ok(())
        })
    }
}

/// A SUBACK packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// The SUBSCRIBE it answers.
    pub packet_id: NonZeroU16,
    /// Empty before MQTT 5.
    pub properties: AckProperties<'a>,
    /// One code per subscription, in their order [MQTT-3.8.4-6]: the granted QoS, or what went wrong.
    pub reasons: &'a [u8],
}

pub(super) fn decode_suback(mut body: Reader<'_>, version: Version) -> Result<SubAck<'_>, Malformation> {
    let packet_id = body.packet_id()?;
    let properties = if version == Version::V5 { AckProperties::decode(&mut body)? } else { AckProperties::default() };
    let reasons = body.rest();
    if reasons.is_empty() {
        return Err(Malformation::NoReasons);
    }
    let belongs = |code: &u8| match version {
        Version::V5 => ReasonCode(*code).belongs_in(PacketType::SubAck, Sender::Server),
        _ => matches!(code, 0..=2 | 0x80), // 3.1.1 [MQTT-3.9.3-2]
    };
    match reasons.iter().find(|code| !belongs(code)) {
        Some(&got) => Err(Malformation::ReasonCode { got: ReasonCode(got) }),
        None => Ok(SubAck { packet_id, properties, reasons }),
    }
}

impl SubAck<'_> {
    /// Appends the packet. Before MQTT 5 every failure is 0x80.
    ///
    /// # Errors
    /// A property or the packet is too long.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write::packet(out, PacketType::SubAck.first_byte(), |out| {
            out.extend_from_slice(&self.packet_id.get().to_be_bytes());
            self.properties.encode(version, out)?;
            match version {
                Version::V5 => out.extend_from_slice(self.reasons),
                _ => out.extend(self.reasons.iter().map(|code| if *code < 0x80 { *code } else { 0x80 })),
            }
            Ok(())
        })
    }
}
