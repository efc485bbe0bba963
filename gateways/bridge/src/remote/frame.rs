//! Where a packet ends.

/// A packet's fixed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its first byte: type and flags.
    pub(crate) first: u8,
    /// Bytes of the fixed header.
    pub(crate) header: usize,
    /// Bytes of all of it.
    pub(crate) total: usize,
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Not enough of them to tell.
    Unknown,
    /// A packet, whole or not.
    Known(Frame),
    /// No packet of MQTT has such a length (§2.1.4).
    Malformed,
}

/// Looks at the fixed header at the front of `input`.
pub(crate) fn frame(input: &[u8]) -> Framing {
    let Some((&first, lengths)) = input.split_first() else { return Framing::Unknown };
    let mut remaining = 0;
    for (at, byte) in lengths.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            let header = at + 2;
            return Framing::Known(Frame { first, header, total: header + remaining });
        }
    }
    if lengths.len() < 4 { Framing::Unknown } else { Framing::Malformed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_they_are_written() {
        let known = |header, total| Framing::Known(Frame { first: 0x30, header, total });
        assert_eq!(frame(&[]), Framing::Unknown);
        assert_eq!(frame(&[0x30]), Framing::Unknown);
        assert_eq!(frame(&[0x30, 0x80]), Framing::Unknown);
        assert_eq!(frame(&[0x30, 0]), known(2, 2));
        assert_eq!(frame(&[0x30, 127, 9]), known(2, 129));
        assert_eq!(frame(&[0x30, 0x80, 0x01]), known(3, 131));
        assert_eq!(frame(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]), known(5, super::super::LARGEST_PACKET));
        assert_eq!(frame(&[0x30, 0x80, 0x80, 0x80, 0x80]), Framing::Malformed);
    }
}
