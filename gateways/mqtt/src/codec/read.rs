//! Reading the data types of MQTT 5.0 §1.5 out of a packet's body.

use super::Malformation;
use std::num::NonZeroU16;
use waystation_broker::InvalidTopic;

/// What is left of a packet's body.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    #[inline]
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// There must be nothing left.
    #[inline]
    pub(super) fn end(self) -> Result<(), Malformation> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(Malformation::TrailingBytes { count }),
        }
    }

    #[inline]
    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, Malformation> {
        let (&value, rest) = self.rest.split_first().ok_or(Malformation::Truncated { field })?;
        self.rest = rest;
        Ok(value)
    }

    #[inline]
    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, Malformation> {
        let (value, rest) = self.rest.split_first_chunk().ok_or(Malformation::Truncated { field })?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*value))
    }

    #[inline]
    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, Malformation> {
        let (value, rest) = self.rest.split_first_chunk().ok_or(Malformation::Truncated { field })?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*value))
    }

    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<NonZeroU16, Malformation> {
        NonZeroU16::new(self.u16("packet identifier")?).ok_or(Malformation::PacketIdZero)
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], Malformation> {
        let (value, rest) = self.rest.split_at_checked(len).ok_or(Malformation::Truncated { field })?;
        self.rest = rest;
        Ok(value)
    }

    /// Binary data (§1.5.6).
    #[inline]
    pub(super) fn binary(&mut self, field: &'static str) -> Result<&'a [u8], Malformation> {
        let len = self.u16(field)?;
        self.take(usize::from(len), field)
    }

    /// A UTF-8 encoded string (§1.5.4). Rust's UTF-8 has no surrogates either [MQTT-1.5.4-1].
    #[inline]
    pub(super) fn string(&mut self, field: &'static str) -> Result<&'a str, Malformation> {
        let bytes = self.binary(field)?;
        let text = std::str::from_utf8(bytes).map_err(|_| Malformation::NotUtf8 { field })?;
        if bytes.contains(&0) {
            return Err(Malformation::Nul { field });
        }
        Ok(text)
    }

    /// A topic name, which may be empty where the caller allows it.
    #[inline]
    pub(super) fn topic(&mut self, field: &'static str) -> Result<&'a str, Malformation> {
        let bytes = self.binary(field)?;
        let text = std::str::from_utf8(bytes).map_err(|_| Malformation::NotUtf8 { field })?;
        // No early end: the compiler makes vector code of it, and nearly every topic passes.
        let bad = bytes.iter().fold(false, |bad, &b| bad | (b == 0) | (b == b'+') | (b == b'#'));
        if bad {
            return Err(match bytes.contains(&0) {
                true => Malformation::Nul { field },
                false => Malformation::Topic { field, why: InvalidTopic::Wildcard },
            });
        }
        Ok(text)
    }

    /// A topic name of at least one character [MQTT-4.7.3-1].
    pub(super) fn nonempty_topic(&mut self, field: &'static str) -> Result<&'a str, Malformation> {
        match self.topic(field)? {
            "" => Err(Malformation::Topic { field, why: InvalidTopic::Empty }),
            topic => Ok(topic),
        }
    }

    /// A variable byte integer of MQTT 5, minimal as it must be [MQTT-1.5.5-1].
    #[inline]
    pub(super) fn varint(&mut self, field: &'static str) -> Result<u32, Malformation> {
        let (value, len) = varint(self.rest, field)?.ok_or(Malformation::Truncated { field })?;
        if len != varint_len(value) {
            return Err(Malformation::NotMinimal { field });
        }
        self.take(len as usize, field)?;
        Ok(value)
    }
}

/// A variable byte integer (§1.5.5) and how many bytes it took; `None` while bytes are missing.
#[inline]
pub(super) fn varint(bytes: &[u8], field: &'static str) -> Result<Option<(u32, u32)>, Malformation> {
    let mut value = 0;
    for (len, &byte) in (1..=4).zip(bytes) {
        value |= u32::from(byte & 0x7F) << (7 * (len - 1));
        if byte & 0x80 == 0 {
            return Ok(Some((value, len)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(Malformation::VarintTooLong { field }) }
}

/// How many bytes a variable byte integer needs.
#[inline]
pub(super) fn varint_len(value: u32) -> u32 {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}
