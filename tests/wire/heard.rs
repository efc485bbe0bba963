//! Packets as a client reads them, by a reader of the tests' own that forgives nothing: a byte too few, too many or in
//! the wrong place fails the test.

use super::say::property;
use waystation_mqtt::codec::Version;

/// A packet from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    ConnAck(ConnAck),
    Publication(Publication),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP, by its first byte.
    Ack {
        first: u8,
        id: u16,
        reason: u8,
    },
    SubAck {
        id: u16,
        reasons: Vec<u8>,
    },
    /// Before MQTT 5 there are no reasons.
    UnsubAck {
        id: u16,
        reasons: Vec<u8>,
    },
    PingResp,
    Disconnect {
        reason: u8,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnAck {
    pub(crate) session_present: bool,
    pub(crate) code: u8,
    pub(crate) properties: Properties,
}

/// A PUBLISH from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    /// Zero for QoS 0, which has none.
    pub(crate) id: u16,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) properties: Properties,
    /// Bytes of the whole packet.
    pub(crate) size: usize,
}

impl Publication {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a text")
    }
}

/// Properties in their order, each value as its bytes; of a text without its length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Properties(Vec<(u8, Vec<u8>)>);

impl Properties {
    /// Every value of one property.
    pub(crate) fn all(&self, identifier: u8) -> Vec<&[u8]> {
        self.0.iter().filter(|it| it.0 == identifier).map(|it| it.1.as_slice()).collect()
    }

    /// The value of a property that may be there once.
    pub(crate) fn one(&self, identifier: u8) -> Option<&[u8]> {
        let all = self.all(identifier);
        assert!(all.len() <= 1, "{identifier:#x} more than once: {self:02x?}");
        all.first().copied()
    }

    /// A property that is a number.
    pub(crate) fn number(&self, identifier: u8) -> Option<u32> {
        Some(self.one(identifier)?.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    /// A property that is a text.
    pub(crate) fn text(&self, identifier: u8) -> Option<&str> {
        self.one(identifier).map(|bytes| std::str::from_utf8(bytes).expect("a text"))
    }

    /// User properties, `name=value`.
    pub(crate) fn user(&self) -> Vec<String> {
        let all = self.all(property::USER).into_iter();
        all.map(|bytes| String::from_utf8(bytes.to_vec()).expect("a text")).collect()
    }
}

/// Reads a packet that is whole.
pub(crate) fn read(version: Version, packet: &[u8]) -> Heard {
    let mut body = Reader { bytes: &packet[1..], of: packet };
    let length = body.variable();
    assert_eq!(length, body.bytes.len(), "remaining length: {packet:02x?}");
    let heard = match packet[0] {
        0x20 => {
            let flags = body.byte();
            assert!(flags <= 1, "reserved flags of CONNACK: {packet:02x?}");
            let code = body.byte();
            let properties = body.properties(version);
            Heard::ConnAck(ConnAck { session_present: flags == 1, code, properties })
        }
        first @ 0x30..=0x3F => Heard::Publication(publication(version, first, &mut body)),
        first @ (0x40 | 0x50 | 0x62 | 0x70) => {
            let id = body.two();
            let reason = body.reason(version);
            Heard::Ack { first, id, reason }
        }
        0x90 => {
            let id = body.two();
            body.no_properties(version);
            Heard::SubAck { id, reasons: body.rest() }
        }
        0xB0 => {
            let id = body.two();
            body.no_properties(version);
            Heard::UnsubAck { id, reasons: body.rest() }
        }
        0xD0 => Heard::PingResp,
        0xE0 => Heard::Disconnect { reason: body.farewell(version) },
        _ => panic!("no packet that a server sends: {packet:02x?}"),
    };
    assert!(body.bytes.is_empty(), "bytes after the end: {packet:02x?}");
    assert!(belongs(version, &heard), "a reason of other packets: {heard:02x?}");
    heard
}

/// Whether the packet may carry its reason when it comes from a server (5.0 §2.4; 3.1.1 §3.2.2.3, §3.9.3).
fn belongs(version: Version, heard: &Heard) -> bool {
    let five = version == Version::V5;
    match heard {
        Heard::ConnAck(ConnAck { code, .. }) if five => {
            matches!(code, 0 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F)
        }
        Heard::ConnAck(ConnAck { code, .. }) => *code <= 5,
        Heard::Ack { first: 0x40 | 0x50, reason, .. } => {
            matches!(reason, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
        }
        Heard::Ack { reason, .. } => matches!(reason, 0 | 0x92),
        Heard::SubAck { reasons, .. } => reasons.iter().all(|reason| match reason {
            0..=2 | 0x80 => true,
            0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2 => five,
            _ => false,
        }),
        Heard::UnsubAck { reasons, .. } => {
            reasons.iter().all(|it| matches!(it, 0 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91))
        }
        Heard::Disconnect { reason } => {
            matches!(reason, 0 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B | 0x8D..=0x90 | 0x93..=0xA2)
        }
        Heard::Publication(_) | Heard::PingResp => true,
    }
}

fn publication(version: Version, first: u8, body: &mut Reader<'_>) -> Publication {
    let qos = first >> 1 & 3;
    assert!(qos < 3, "both QoS bits: {:02x?}", body.of);
    let topic = String::from_utf8(body.data()).expect("a topic");
    let id = if qos > 0 { body.two() } else { 0 };
    assert!(qos == 0 || id != 0, "packet identifier 0: {:02x?}", body.of);
    Publication {
        topic,
        qos,
        id,
        dup: first & 8 != 0,
        retain: first & 1 != 0,
        properties: body.properties(version),
        payload: body.rest(),
        size: body.of.len(),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    /// The whole packet, to show.
    of: &'a [u8],
}

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn two(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn data(&mut self) -> Vec<u8> {
        let length = self.two();
        self.take(length.into())
    }

    fn variable(&mut self) -> usize {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte();
            value |= usize::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                assert!(byte != 0 || shift == 0, "not the shortest form: {:02x?}", self.of);
                return value;
            }
        }
        panic!("more than four bytes: {:02x?}", self.of);
    }

    fn rest(&mut self) -> Vec<u8> {
        self.take(self.bytes.len())
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        assert!(count <= self.bytes.len(), "it ends too early: {:02x?}", self.of);
        let (taken, rest) = self.bytes.split_at(count);
        self.bytes = rest;
        taken.to_vec()
    }

    /// The reason of a DISCONNECT, with words beside it where the client did something wrong.
    fn farewell(&mut self, version: Version) -> u8 {
        if self.bytes.len() < 2 {
            return self.reason(version);
        }
        let reason = self.byte();
        let properties = self.properties(version);
        let words = properties.text(property::REASON_STRING).map_or(0, str::len);
        assert!(reason >= 0x80 && words > 0 && properties.0.len() == 1, "{:02x?}", self.of);
        reason
    }

    /// The reason at the end of an acknowledgement, which may be left out.
    fn reason(&mut self, version: Version) -> u8 {
        if self.bytes.is_empty() {
            return 0;
        }
        assert_eq!(version, Version::V5, "a reason before MQTT 5: {:02x?}", self.of);
        let reason = self.byte();
        if !self.bytes.is_empty() {
            self.no_properties(version);
        }
        reason
    }

    /// This server puts no reason strings into acknowledgements, and user properties into nothing but PUBLISH.
    fn no_properties(&mut self, version: Version) {
        let properties = self.properties(version);
        assert_eq!(properties, Properties::default(), "{:02x?}", self.of);
    }

    fn properties(&mut self, version: Version) -> Properties {
        if version != Version::V5 {
            return Properties::default();
        }
        let length = self.variable();
        let mut inside = Reader { bytes: &self.take(length), of: self.of };
        let mut found = Vec::new();
        while !inside.bytes.is_empty() {
            let identifier = inside.byte();
            let value = match identifier {
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2A => inside.take(1),
                0x13 | 0x21..=0x23 => inside.take(2),
                0x02 | 0x11 | 0x18 | 0x27 => inside.take(4),
                0x0B => u32::try_from(inside.variable()).expect("28 bits").to_be_bytes().to_vec(),
                0x26 => [inside.data(), b"=".to_vec(), inside.data()].concat(),
                0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => inside.data(),
                _ => panic!("property {identifier:#x}: {:02x?}", self.of),
            };
            found.push((identifier, value));
        }
        Properties(found)
    }
}
