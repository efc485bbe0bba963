//! `max_messages_per_wake`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, num::NonZeroU32};

/// How many messages a sleeping board gets at one PINGREQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessagesPerWake {
    /// `"all"`: everything that waits.
    All,
    /// A number; the rest waits for the next PINGREQ.
    AtMost(NonZeroU32),
}

impl<'de> Deserialize<'de> for MessagesPerWake {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = MessagesPerWake;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"all\" or a number from 1")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<MessagesPerWake, E> {
                match text {
                    "all" => Ok(MessagesPerWake::All),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<MessagesPerWake, E> {
                let at_most = u32::try_from(number).ok().and_then(NonZeroU32::new);
                at_most
                    .map(MessagesPerWake::AtMost)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for MessagesPerWake {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::AtMost(number) => serializer.serialize_u32(number.get()),
        }
    }
}
