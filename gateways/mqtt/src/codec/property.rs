//! Properties (MQTT 5.0 §2.2.2): their identifiers, reading a section of them, and the two that may repeat.

use super::{Malformation, read::Reader};
use std::{
    fmt,
    num::{NonZeroU16, NonZeroU32},
};

/// A property, by its identifier (§2.2.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub enum Property {
    PayloadFormatIndicator = 0x01,
    MessageExpiryInterval = 0x02,
    ContentType = 0x03,
    ResponseTopic = 0x08,
    CorrelationData = 0x09,
    SubscriptionIdentifier = 0x0B,
    SessionExpiryInterval = 0x11,
    AssignedClientIdentifier = 0x12,
    ServerKeepAlive = 0x13,
    AuthenticationMethod = 0x15,
    AuthenticationData = 0x16,
    RequestProblemInformation = 0x17,
    WillDelayInterval = 0x18,
    RequestResponseInformation = 0x19,
    ResponseInformation = 0x1A,
    ServerReference = 0x1C,
    ReasonString = 0x1F,
    ReceiveMaximum = 0x21,
    TopicAliasMaximum = 0x22,
    TopicAlias = 0x23,
    MaximumQos = 0x24,
    RetainAvailable = 0x25,
    UserProperty = 0x26,
    MaximumPacketSize = 0x27,
    WildcardSubscriptionAvailable = 0x28,
    SubscriptionIdentifierAvailable = 0x29,
    SharedSubscriptionAvailable = 0x2A,
}

impl Property {
    fn from_id(id: u8) -> Option<Self> {
        Some(match id {
            0x01 => Self::PayloadFormatIndicator,
            0x02 => Self::MessageExpiryInterval,
            0x03 => Self::ContentType,
            0x08 => Self::ResponseTopic,
            0x09 => Self::CorrelationData,
            0x0B => Self::SubscriptionIdentifier,
            0x11 => Self::SessionExpiryInterval,
            0x12 => Self::AssignedClientIdentifier,
            0x13 => Self::ServerKeepAlive,
            0x15 => Self::AuthenticationMethod,
            0x16 => Self::AuthenticationData,
            0x17 => Self::RequestProblemInformation,
            0x18 => Self::WillDelayInterval,
            0x19 => Self::RequestResponseInformation,
            0x1A => Self::ResponseInformation,
            0x1C => Self::ServerReference,
            0x1F => Self::ReasonString,
            0x21 => Self::ReceiveMaximum,
            0x22 => Self::TopicAliasMaximum,
            0x23 => Self::TopicAlias,
            0x24 => Self::MaximumQos,
            0x25 => Self::RetainAvailable,
            0x26 => Self::UserProperty,
            0x27 => Self::MaximumPacketSize,
            0x28 => Self::WildcardSubscriptionAvailable,
            0x29 => Self::SubscriptionIdentifierAvailable,
            0x2A => Self::SharedSubscriptionAvailable,
            _ => return None,
        })
    }

    /// The specification's name, lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PayloadFormatIndicator => "payload format indicator",
            Self::MessageExpiryInterval => "message expiry interval",
            Self::ContentType => "content type",
            Self::ResponseTopic => "response topic",
            Self::CorrelationData => "correlation data",
            Self::SubscriptionIdentifier => "subscription identifier",
            Self::SessionExpiryInterval => "session expiry interval",
            Self::AssignedClientIdentifier => "assigned client identifier",
            Self::ServerKeepAlive => "server keep alive",
            Self::AuthenticationMethod => "authentication method",
            Self::AuthenticationData => "authentication data",
            Self::RequestProblemInformation => "request problem information",
            Self::WillDelayInterval => "will delay interval",
            Self::RequestResponseInformation => "request response information",
            Self::ResponseInformation => "response information",
            Self::ServerReference => "server reference",
            Self::ReasonString => "reason string",
            Self::ReceiveMaximum => "receive maximum",
            Self::TopicAliasMaximum => "topic alias maximum",
            Self::TopicAlias => "topic alias",
            Self::MaximumQos => "maximum QoS",
            Self::RetainAvailable => "retain available",
            Self::UserProperty => "user property",
            Self::MaximumPacketSize => "maximum packet size",
            Self::WildcardSubscriptionAvailable => "wildcard subscription available",
            Self::SubscriptionIdentifierAvailable => "subscription identifier available",
            Self::SharedSubscriptionAvailable => "shared subscription available",
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads a section of properties: `while let Some(property) = section.next()?`, then one value call each.
pub(super) struct Section<'a> {
    whole: &'a [u8],
    rest: Reader<'a>,
    has_user: bool,
    has_identifier: bool,
}

impl<'a> Section<'a> {
    /// Property length and properties, from where they begin.
    #[inline]
    pub(super) fn open(body: &mut Reader<'a>) -> Result<Self, Malformation> {
        let len = body.varint("property length")?;
        let whole = body.take(len as usize, "properties")?;
        Ok(Self { whole, rest: Reader::new(whole), has_user: false, has_identifier: false })
    }

    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Property>, Malformation> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        // All identifiers there are take one byte of their variable byte integer.
        let id = self.rest.u8("property identifier")?;
        Property::from_id(id).map(Some).ok_or(Malformation::UnknownProperty { id })
    }

    /// Keeps what may come once.
    pub(super) fn once<T>(
        &mut self,
        slot: &mut Option<T>,
        property: Property,
        value: impl FnOnce(&mut Self, Property) -> Result<T, Malformation>,
    ) -> Result<(), Malformation> {
        if slot.is_some() {
            return Err(Malformation::DuplicateProperty { property });
        }
        *slot = Some(value(self, property)?);
        Ok(())
    }

    pub(super) fn u8(&mut self, property: Property) -> Result<u8, Malformation> {
        self.rest.u8(property.name())
    }

    pub(super) fn u16(&mut self, property: Property) -> Result<u16, Malformation> {
        self.rest.u16(property.name())
    }

    pub(super) fn u32(&mut self, property: Property) -> Result<u32, Malformation> {
        self.rest.u32(property.name())
    }

    pub(super) fn binary(&mut self, property: Property) -> Result<&'a [u8], Malformation> {
        self.rest.binary(property.name())
    }

    pub(super) fn string(&mut self, property: Property) -> Result<&'a str, Malformation> {
        self.rest.string(property.name())
    }

    /// A response topic: no wildcard [MQTT-3.3.2-14], and a topic name after all [MQTT-4.7.3-1].
    pub(super) fn topic(&mut self, property: Property) -> Result<&'a str, Malformation> {
        self.rest.nonempty_topic(property.name())
    }

    /// A byte that is 0 or 1; anything else is a Protocol Error wherever the specification has such a byte.
    pub(super) fn flag(&mut self, property: Property) -> Result<bool, Malformation> {
        match self.u8(property)? {
            0 => Ok(false),
            1 => Ok(true),
            got => Err(Malformation::PropertyValue { property, got: got.into() }),
        }
    }

    /// A two byte integer of which 0 is a Protocol Error.
    pub(super) fn nonzero_u16(&mut self, property: Property) -> Result<NonZeroU16, Malformation> {
        let value = self.u16(property)?;
        NonZeroU16::new(value).ok_or(Malformation::PropertyValue { property, got: 0 })
    }

    /// A four byte integer of which 0 is a Protocol Error.
    pub(super) fn nonzero_u32(&mut self, property: Property) -> Result<NonZeroU32, Malformation> {
        let value = self.u32(property)?;
        NonZeroU32::new(value).ok_or(Malformation::PropertyValue { property, got: 0 })
    }

    /// A subscription identifier: 1 to 268,435,455 (§3.8.2.1.2).
    pub(super) fn subscription_identifier(&mut self, property: Property) -> Result<NonZeroU32, Malformation> {
        self.has_identifier = true;
        let value = self.rest.varint(property.name())?;
        NonZeroU32::new(value).ok_or(Malformation::PropertyValue { property, got: 0 })
    }

    /// Checks a user property; [`Self::user_properties`] gives them all in the end.
    pub(super) fn user_property(&mut self) -> Result<(), Malformation> {
        self.has_user = true;
        self.rest.string("user property name")?;
        self.rest.string("user property value")?;
        Ok(())
    }

    pub(super) fn user_properties(&self) -> UserProperties<'a> {
        UserProperties(if self.has_user { Source::Wire(self.whole) } else { Source::List(&[]) })
    }

    pub(super) fn subscription_identifiers(&self) -> SubscriptionIdentifiers<'a> {
        SubscriptionIdentifiers(if self.has_identifier { Source::Wire(self.whole) } else { Source::List(&[]) })
    }
}

/// Where a list comes from: a section that was checked, or its maker's slice.
#[derive(Clone, Copy)]
enum Source<'a, T> {
    Wire(&'a [u8]),
    List(&'a [T]),
}

/// User properties in their order [MQTT-3.1.3-10].
#[derive(Clone, Copy)]
pub struct UserProperties<'a>(Source<'a, (&'a str, &'a str)>);

impl<'a> UserProperties<'a> {
    /// To be sent.
    #[must_use]
    pub fn new(pairs: &'a [(&'a str, &'a str)]) -> Self {
        Self(Source::List(pairs))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Source::List([]))
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let (section, list): (&[u8], &[_]) = match self.0 {
            Source::Wire(section) => (section, &[]),
            Source::List(list) => (&[], list),
        };
        let mut checked = Checked(Reader::new(section));
        std::iter::from_fn(move || checked.next_user_property()).chain(list.iter().copied())
    }
}

impl Default for UserProperties<'_> {
    fn default() -> Self {
        Self(Source::List(&[]))
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// The identifiers of the subscriptions a message is for; only servers send several (§3.3.2.3.8).
#[derive(Clone, Copy)]
pub struct SubscriptionIdentifiers<'a>(Source<'a, NonZeroU32>);

impl<'a> SubscriptionIdentifiers<'a> {
    /// To be sent.
    #[must_use]
    pub fn new(identifiers: &'a [NonZeroU32]) -> Self {
        Self(Source::List(identifiers))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Source::List([]))
    }

    /// The identifiers.
    pub fn iter(&self) -> impl Iterator<Item = NonZeroU32> + use<'a> {
        let (section, list): (&[u8], &[_]) = match self.0 {
            Source::Wire(section) => (section, &[]),
            Source::List(list) => (&[], list),
        };
        let mut checked = Checked(Reader::new(section));
        std::iter::from_fn(move || checked.next_subscription_identifier()).chain(list.iter().copied())
    }
}

impl Default for SubscriptionIdentifiers<'_> {
    fn default() -> Self {
        Self(Source::List(&[]))
    }
}

impl PartialEq for SubscriptionIdentifiers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIdentifiers<'_> {}

impl fmt::Debug for SubscriptionIdentifiers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A section that was checked once, read again for one of its lists.
struct Checked<'a>(Reader<'a>);

impl<'a> Checked<'a> {
    fn next_user_property(&mut self) -> Option<(&'a str, &'a str)> {
        self.find(Property::UserProperty)?;
        Some((self.0.string("").ok()?, self.0.string("").ok()?))
    }

    fn next_subscription_identifier(&mut self) -> Option<NonZeroU32> {
        self.find(Property::SubscriptionIdentifier)?;
        NonZeroU32::new(self.0.varint("").ok()?)
    }

    /// Skips to the value of the next property of this kind.
    fn find(&mut self, wanted: Property) -> Option<()> {
        loop {
            let property = Property::from_id(self.0.u8("").ok()?)?;
            if property == wanted {
                return Some(());
            }
            self.skip(property)?;
        }
    }

    fn skip(&mut self, property: Property) -> Option<()> {
        let len = match property {
            Property::PayloadFormatIndicator
            | Property::RequestProblemInformation
            | Property::RequestResponseInformation
            | Property::MaximumQos
            | Property::RetainAvailable
            | Property::WildcardSubscriptionAvailable
            | Property::SubscriptionIdentifierAvailable
            | Property::SharedSubscriptionAvailable => 1,
            Property::ServerKeepAlive
            | Property::ReceiveMaximum
            | Property::TopicAliasMaximum
            | Property::TopicAlias => 2,
            Property::MessageExpiryInterval
            | Property::SessionExpiryInterval
            | Property::WillDelayInterval
            | Property::MaximumPacketSize => 4,
            Property::SubscriptionIdentifier => return self.0.varint("").ok().map(drop),
            Property::UserProperty => {
                self.0.binary("").ok()?;
                return self.0.binary("").ok().map(drop);
            }
            Property::ContentType
            | Property::ResponseTopic
            | Property::CorrelationData
            | Property::AssignedClientIdentifier
            | Property::AuthenticationMethod
            | Property::AuthenticationData
            | Property::ResponseInformation
            | Property::ServerReference
            | Property::ReasonString => return self.0.binary("").ok().map(drop),
        };
        self.0.take(len, "").ok().map(drop)
    }
}
