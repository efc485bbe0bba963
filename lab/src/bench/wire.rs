//! The few MQTT packets a load generator needs, encoded and taken apart without an allocation a message.

use std::fmt;

use super::args::Mqtt;

pub(super) const CONNACK: u8 = 0x20;
pub(super) const PUBLISH: u8 = 0x30;
pub(super) const PUBACK: u8 = 0x40;
pub(super) const PUBREC: u8 = 0x50;
pub(super) const PUBREL: u8 = 0x62;
pub(super) const PUBCOMP: u8 = 0x70;
pub(super) const SUBACK: u8 = 0x90;
pub(super) const PINGRESP: u8 = 0xD0;
pub(super) const DISCONNECT: u8 = 0xE0;

pub(super) const PINGREQ_BYTES: [u8; 2] = [0xC0, 0];
pub(super) const DISCONNECT_BYTES: [u8; 2] = [DISCONNECT, 0];

/// Seconds; idle connections must survive a long run without a PINGREQ.
const KEEP_ALIVE: u16 = 7_200;

/// Seconds a kept session outlives its connection (MQTT 5): a run that breaks off leaves nothing for long.
const KEPT_S: u32 = 3_600;

/// What came is not MQTT, or not what a broker may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the broker sent a malformed packet: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// One packet: its first byte and what follows the remaining length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) first: u8,
    pub(super) body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The packet at the beginning of `bytes` and its length on the wire; `None` while it is incomplete.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let [first, rest @ ..] = bytes else { return Ok(None) };
        let Some((length, used)) = variable_integer(rest)? else { return Ok(None) };
        let start = 1 + used;
        match bytes.get(start..start + length) {
            Some(body) => Ok(Some((Self { first: *first, body }, start + length))),
            None => Ok(None),
        }
    }

    pub(super) fn kind(&self) -> u8 {
        // The low four bits are flags in a PUBLISH and fixed elsewhere (MQTT 3.1.1 §2.2.2).
        if self.first & 0xF0 == 0x60 { PUBREL } else { self.first & 0xF0 }
    }

    /// The packet identifier an acknowledgement begins with, and whether it is a refusal (MQTT 5 §3.4.2.1).
    pub(super) fn acknowledged(&self) -> Result<(u16, bool), Malformed> {
        match self.body {
            [high, low] => Ok((u16::from_be_bytes([*high, *low]), false)),
            [high, low, reason, ..] => Ok((u16::from_be_bytes([*high, *low]), *reason >= 0x80)),
            _ => Err(Malformed("an acknowledgement without packet identifier")),
        }
    }

    /// The parts of a PUBLISH a receiver cares for.
    pub(super) fn publish(&self, mqtt: Mqtt) -> Result<Publish<'a>, Malformed> {
        const SHORT: Malformed = Malformed("a PUBLISH shorter than its fields say");
        let qos = (self.first >> 1) & 3;
        let [high, low, ..] = self.body else { return Err(SHORT) };
        let mut at = 2 + usize::from(u16::from_be_bytes([*high, *low]));
        let mut id = 0;
        if qos > 0 {
            let Some([high, low]) = self.body.get(at..at + 2) else { return Err(SHORT) };
            id = u16::from_be_bytes([*high, *low]);
            at += 2;
        }
        if mqtt == Mqtt::V5 {
            let (length, used) = variable_integer(self.body.get(at..).ok_or(SHORT)?)?.ok_or(SHORT)?;
            at += used + length;
        }
        Ok(Publish { qos, id, payload: self.body.get(at..).ok_or(SHORT)? })
    }

    /// What a CONNACK says: a refusal's code, or the unacknowledged publishes the broker grants (MQTT 5 §3.2.2.3.3).
    pub(super) fn connack(&self, mqtt: Mqtt) -> Result<Result<u16, u8>, Malformed> {
        const SHORT: Malformed = Malformed("a CONNACK shorter than its fields say");
        let [_, code, rest @ ..] = self.body else { return Err(SHORT) };
        if *code != 0 {
            return Ok(Err(*code));
        }
        if mqtt == Mqtt::V3 {
            return Ok(Ok(u16::MAX));
        }
        let (length, used) = variable_integer(rest)?.ok_or(SHORT)?;
        let mut properties = rest.get(used..used + length).ok_or(SHORT)?;
        let mut receive_maximum = u16::MAX;
        while let [id, rest @ ..] = properties {
            let length = match id {
                0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
                0x13 | 0x21 | 0x22 => 2,
                0x11 | 0x27 => 4,
                0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => 2 + string_length(rest).ok_or(SHORT)?,
                0x26 => {
                    let name = 2 + string_length(rest).ok_or(SHORT)?;
                    name + 2 + string_length(rest.get(name..).ok_or(SHORT)?).ok_or(SHORT)?
                }
                _ => return Err(Malformed("a CONNACK with an unknown property")),
            };
            if let (0x21, [high, low, ..]) = (id, rest) {
                receive_maximum = u16::from_be_bytes([*high, *low]);
            }
            properties = rest.get(length..).ok_or(SHORT)?;
        }
        Ok(Ok(receive_maximum))
    }

    /// How many filters a SUBACK refuses.
    pub(super) fn refused_filters(&self, mqtt: Mqtt) -> Result<usize, Malformed> {
        const SHORT: Malformed = Malformed("a SUBACK shorter than its fields say");
        let mut codes = self.body.get(2..).ok_or(SHORT)?;
        if mqtt == Mqtt::V5 {
            let (length, used) = variable_integer(codes)?.ok_or(SHORT)?;
            codes = codes.get(used + length..).ok_or(SHORT)?;
        }
        Ok(codes.iter().filter(|code| **code >= 0x80).count())
    }
}

/// The parts of a PUBLISH a receiver cares for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Publish<'a> {
    pub(super) qos: u8,
    /// 0 at QoS 0.
    pub(super) id: u16,
    pub(super) payload: &'a [u8],
}

/// Where in an encoded PUBLISH the parts lie that change from message to message, from the buffer's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    /// `None` at QoS 0.
    pub(super) id: Option<usize>,
    pub(super) payload: usize,
}

/// What becomes of a session when its connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Session {
    /// It ends too, and begins empty.
    Clean,
    /// It goes on, and is resumed.
    Kept,
}

/// A name and its password.
pub(super) type Login<'a> = Option<(&'a str, &'a str)>;

pub(super) fn connect(out: &mut Vec<u8>, mqtt: Mqtt, client_id: &str, session: Session, login: Login<'_>) {
    let mut body = Vec::with_capacity(64);
    string(&mut body, "MQTT");
    // Clean session, clean start; name and password flags [MQTT-3.1.2-18, MQTT-3.1.2-20].
    let clean = if session == Session::Clean { 0x02 } else { 0 };
    body.extend([if mqtt == Mqtt::V5 { 5 } else { 4 }, if login.is_some() { 0xC0 | clean } else { clean }]);
    body.extend(KEEP_ALIVE.to_be_bytes());
    match (mqtt, session) {
        (Mqtt::V3, _) => {}
        (Mqtt::V5, Session::Clean) => body.push(0),
        (Mqtt::V5, Session::Kept) => {
            body.extend([5, 0x11]);
            body.extend(KEPT_S.to_be_bytes());
        }
    }
    string(&mut body, client_id);
    if let Some((user, password)) = login {
        string(&mut body, user);
        string(&mut body, password);
    }
    frame(out, 0x10, &body);
}

pub(super) fn subscribe(out: &mut Vec<u8>, mqtt: Mqtt, id: u16, filters: &[String], qos: u8) {
    let mut body = Vec::with_capacity(filters.len() * 32);
    body.extend(id.to_be_bytes());
    if mqtt == Mqtt::V5 {
        body.push(0);
    }
    for filter in filters {
        string(&mut body, filter);
        body.push(qos);
    }
    frame(out, 0x82, &body);
}

pub(super) fn publish(out: &mut Vec<u8>, mqtt: Mqtt, first: u8, topic: &str, payload: &[u8]) -> Places {
    let id = (first >> 1) & 3 > 0;
    let length = 2 + topic.len() + usize::from(id) * 2 + usize::from(mqtt == Mqtt::V5) + payload.len();
    out.push(first);
    push_variable_integer(out, length);
    string(out, topic);
    let id = id.then(|| {
        out.extend([0, 1]);
        out.len() - 2
    });
    if mqtt == Mqtt::V5 {
        out.push(0);
    }
    out.extend_from_slice(payload);
    Places { id, payload: out.len() - payload.len() }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP; two bytes of body mean success in MQTT 5 as well (§3.4.2.1).
pub(super) fn acknowledge(out: &mut Vec<u8>, kind: u8, id: u16) {
    let [high, low] = id.to_be_bytes();
    out.extend([kind, 2, high, low]);
}

fn frame(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    push_variable_integer(out, body.len());
    out.extend_from_slice(body);
}

fn string(out: &mut Vec<u8>, text: &str) {
    // Topics, client ids and logins here are short; a longer one is cut rather than framed wrongly.
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
}

fn string_length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [high, low, ..] => Some(usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}

fn push_variable_integer(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7F;
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// Value and bytes used; `None` while incomplete (MQTT 3.1.1 §2.2.3: at most four bytes).
fn variable_integer(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(4) {
        value |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() >= 4 { Err(Malformed("a length of more than four bytes")) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_only_when_complete() {
        let mut bytes = Vec::new();
        publish(&mut bytes, Mqtt::V3, PUBLISH, "a/b", &[7; 300]);
        for cut in 0..bytes.len() {
            assert_eq!(Frame::parse(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        let whole = bytes.len();
        bytes.extend([0xD0, 0]);
        let (frame, used) = Frame::parse(&bytes).unwrap().unwrap();
        assert_eq!((frame.first, used), (PUBLISH, whole));
        assert_eq!(frame.publish(Mqtt::V3).unwrap(), Publish { qos: 0, id: 0, payload: &[7; 300] });
        assert_eq!(Frame::parse(&bytes[used..]).unwrap().unwrap().0.kind(), PINGRESP);
    }

    #[test]
    fn a_kept_session_is_asked_for_in_both_versions() {
        let asked = |mqtt, session| {
            let mut bytes = Vec::new();
            connect(&mut bytes, mqtt, "c", session, Some(("u", "p")));
            (bytes[9], bytes[12..bytes.len() - 9].to_vec())
        };
        assert_eq!(asked(Mqtt::V3, Session::Clean), (0xC2, vec![]));
        assert_eq!(asked(Mqtt::V3, Session::Kept), (0xC0, vec![]));
        assert_eq!(asked(Mqtt::V5, Session::Clean), (0xC2, vec![0]));
        // Session Expiry Interval (MQTT 5 §3.1.2.11.2): an hour.
        assert_eq!(asked(Mqtt::V5, Session::Kept), (0xC0, vec![5, 0x11, 0, 0, 0x0E, 0x10]));
    }

    #[test]
    fn a_length_of_five_bytes_is_malformed() {
        assert!(Frame::parse(&[0x30, 0x80, 0x80, 0x80, 0x80, 0x01]).is_err());
        assert_eq!(Frame::parse(&[0x30, 0x80, 0x80, 0x80]), Ok(None));
    }

    #[test]
    fn publish_fields_lie_where_places_says() {
        for mqtt in [Mqtt::V3, Mqtt::V5] {
            let mut bytes = vec![0xAA; 5];
            let places = publish(&mut bytes, mqtt, PUBLISH | 0x02, "t", &[9; 20]);
            let id = places.id.unwrap();
            bytes[id..id + 2].copy_from_slice(&0x1234_u16.to_be_bytes());
            bytes[places.payload] = 1;
            let (frame, used) = Frame::parse(&bytes[5..]).unwrap().unwrap();
            let parsed = frame.publish(mqtt).unwrap();
            assert_eq!((parsed.qos, parsed.id, parsed.payload[0], parsed.payload.len()), (1, 0x1234, 1, 20));
            assert_eq!(used, bytes.len() - 5);
        }
    }

    #[test]
    fn a_publish_that_lies_about_its_fields_is_malformed() {
        let frame = Frame { first: PUBLISH, body: &[0, 9, b'a'] };
        assert!(frame.publish(Mqtt::V3).is_err());
        let frame = Frame { first: PUBLISH | 2, body: &[0, 1, b'a', 0] };
        assert!(frame.publish(Mqtt::V3).is_err());
        let frame = Frame { first: PUBLISH, body: &[0, 1, b'a', 5, 0] };
        assert!(frame.publish(Mqtt::V5).is_err());
    }

    #[test]
    fn connack_yields_receive_maximum_behind_other_properties() {
        let body = [0, 0, 13, 0x12, 0, 2, b'i', b'd', 0x24, 1, 0x21, 0, 20, 0x22, 0, 10];
        let frame = Frame { first: CONNACK, body: &body };
        assert_eq!(frame.connack(Mqtt::V5), Ok(Ok(20)));
        assert_eq!(Frame { first: CONNACK, body: &[0, 5] }.connack(Mqtt::V3), Ok(Err(5)));
        assert_eq!(Frame { first: CONNACK, body: &[0, 0] }.connack(Mqtt::V3), Ok(Ok(u16::MAX)));
    }

    #[test]
    fn acknowledgements_carry_identifier_and_refusal() {
        let mut bytes = Vec::new();
        acknowledge(&mut bytes, PUBREL, 0x0102);
        assert_eq!(bytes, [0x62, 2, 1, 2]);
        assert_eq!(Frame { first: PUBACK, body: &[1, 2, 0x97] }.acknowledged(), Ok((0x0102, true)));
        assert_eq!(Frame { first: PUBACK, body: &[1, 2, 0x10, 0] }.acknowledged(), Ok((0x0102, false)));
        assert_eq!(Frame { first: SUBACK, body: &[0, 1, 0x80, 1] }.refused_filters(Mqtt::V3), Ok(1));
        assert_eq!(Frame { first: SUBACK, body: &[0, 1, 0, 0x87, 1] }.refused_filters(Mqtt::V5), Ok(1));
    }
}
