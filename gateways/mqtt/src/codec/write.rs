//! Writing the data types of MQTT 5.0 §1.5, for packets that do not come once a message.

use super::{EncodeError, Property, SubscriptionIdentifiers, UserProperties, Version};

/// Longest packet body (§2.1.4).
pub(super) const MAX_REMAINING_LENGTH: usize = 268_435_455;

/// Writes a packet: its first byte, then the body behind a length that is put in when it is known.
pub(super) fn packet(
    out: &mut Vec<u8>,
    first_byte: u8,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.push(first_byte);
    let written = counted(out, body);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// Writes properties behind their length; nothing at all before MQTT 5.
pub(super) fn properties(
    out: &mut Vec<u8>,
    version: Version,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    if version == Version::V5 { counted(out, body) } else { Ok(()) }
}

fn counted(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>) -> Result<(), EncodeError> {
    let start = out.len();
    body(out)?;
    let body_end = out.len();
    varint(out, body_end - start)?;
    // The length was written last and belongs first.
    let length_bytes = out.len() - body_end;
    out[start..].rotate_right(length_bytes);
    Ok(())
}

#[inline]
pub(super) fn varint(out: &mut Vec<u8>, value: usize) -> Result<(), EncodeError> {
    if value > MAX_REMAINING_LENGTH {
        return Err(EncodeError::PacketTooLong { len: value });
    }
    let mut value = value;
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7F);
            return Ok(());
        }
        out.push(low | 0x80);
    }
}

#[inline]
pub(super) fn binary(out: &mut Vec<u8>, value: &[u8]) -> Result<(), EncodeError> {
    let len = u16::try_from(value.len()).map_err(|_| EncodeError::FieldTooLong { len: value.len() })?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(value);
    Ok(())
}

#[inline]
pub(super) fn string(out: &mut Vec<u8>, value: &str) -> Result<(), EncodeError> {
    binary(out, value.as_bytes())
}

pub(super) fn u8_property(out: &mut Vec<u8>, property: Property, value: Option<u8>) {
    if let Some(value) = value {
        out.extend_from_slice(&[property as u8, value]);
    }
}

pub(super) fn flag_property(out: &mut Vec<u8>, property: Property, value: Option<bool>) {
    u8_property(out, property, value.map(u8::from));
}

pub(super) fn u16_property(out: &mut Vec<u8>, property: Property, value: Option<u16>) {
    if let Some(value) = value {
        out.push(property as u8);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(super) fn u32_property(out: &mut Vec<u8>, property: Property, value: Option<u32>) {
    if let Some(value) = value {
        out.push(property as u8);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(super) fn binary_property(out: &mut Vec<u8>, property: Property, value: Option<&[u8]>) -> Result<(), EncodeError> {
    let Some(value) = value else { return Ok(()) };
    out.push(property as u8);
    binary(out, value)
}

pub(super) fn string_property(out: &mut Vec<u8>, property: Property, value: Option<&str>) -> Result<(), EncodeError> {
    binary_property(out, property, value.map(str::as_bytes))
}

pub(super) fn subscription_identifiers(
    out: &mut Vec<u8>,
    identifiers: &SubscriptionIdentifiers<'_>,
) -> Result<(), EncodeError> {
    for identifier in identifiers.iter() {
        out.push(Property::SubscriptionIdentifier as u8);
        varint(out, identifier.get() as usize)?;
    }
    Ok(())
}

pub(super) fn user_properties(out: &mut Vec<u8>, user: &UserProperties<'_>) -> Result<(), EncodeError> {
    for (name, value) in user.iter() {
        out.push(Property::UserProperty as u8);
        string(out, name)?;
        string(out, value)?;
    }
    Ok(())
}
