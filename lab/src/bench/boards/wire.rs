//! The few MQTT-SN messages a board needs (MQTT-SN 1.2 §5.4).

pub(super) const CONNACK: u8 = 0x05;
pub(super) const REGACK: u8 = 0x0B;
pub(super) const PUBLISH: u8 = 0x0C;
pub(super) const PUBACK: u8 = 0x0D;
pub(super) const PUBCOMP: u8 = 0x0E;
pub(super) const PUBREC: u8 = 0x0F;
pub(super) const SUBACK: u8 = 0x13;
pub(super) const PINGRESP: u8 = 0x17;
pub(super) const GOODBYE: u8 = 0x18;

pub(super) const DISCONNECT: [u8; 2] = [2, GOODBYE];

/// A persistent session: a board that comes again under another address, or wakes, finds its topic id.
pub(super) fn connect(id: &str) -> Vec<u8> {
    // A minute and a half of keep alive covers any pause of a run.
    message(0x04, &[&[0, 1, 0, 90], id.as_bytes()])
}

pub(super) fn register(msg_id: u16, topic: &str) -> Vec<u8> {
    message(0x0A, &[&[0, 0], &msg_id.to_be_bytes(), topic.as_bytes()])
}

pub(super) fn publish(qos: u8, topic_id: u16, msg_id: u16, payload: &[u8]) -> Vec<u8> {
    message(PUBLISH, &[&[qos << 5], &topic_id.to_be_bytes(), &msg_id.to_be_bytes(), payload])
}

pub(super) fn subscribe(qos: u8, msg_id: u16, topic: &str) -> Vec<u8> {
    message(0x12, &[&[qos << 5], &msg_id.to_be_bytes(), topic.as_bytes()])
}

pub(super) fn acknowledge(topic_id: u16, msg_id: u16) -> Vec<u8> {
    message(PUBACK, &[&topic_id.to_be_bytes(), &msg_id.to_be_bytes(), &[0]])
}

pub(super) fn release(msg_id: u16) -> Vec<u8> {
    message(0x10, &[&msg_id.to_be_bytes()])
}

pub(super) fn ping(id: &str) -> Vec<u8> {
    message(0x16, &[id.as_bytes()])
}

pub(super) fn sleep(seconds: u16) -> Vec<u8> {
    message(GOODBYE, &[&seconds.to_be_bytes()])
}

/// Sets DUP in a PUBLISH.
pub(super) fn mark_repeated(datagram: &mut [u8]) {
    let flags = if datagram.first() == Some(&1) { 4 } else { 2 };
    if datagram.get(flags - 1) == Some(&PUBLISH) {
        datagram[flags] |= 0x80;
    }
}

/// A message's type and what follows it.
pub(super) fn parse(datagram: &[u8]) -> Option<(u8, &[u8])> {
    match datagram {
        [1, high, low, kind, body @ ..] => {
            (usize::from(u16::from_be_bytes([*high, *low])) == datagram.len()).then_some((*kind, body))
        }
        [length, kind, body @ ..] => (usize::from(*length) == datagram.len()).then_some((*kind, body)),
        _ => None,
    }
}

pub(super) fn word(body: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]))
}

fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut out = Vec::with_capacity(length + 4);
    match u8::try_from(length + 2) {
        Ok(short) => out.push(short),
        Err(_) => {
            out.push(1);
            // Payloads are bounded by what a datagram holds.
            out.extend(u16::try_from(length + 4).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    out.push(kind);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_length_they_say_in_both_forms() {
        assert_eq!(connect("b"), [7, 0x04, 0, 1, 0, 90, b'b']);
        assert_eq!(parse(&publish(1, 2, 3, b"x")), Some((0x0C, &[0x20, 0, 2, 0, 3, b'x'][..])));
        let long = publish(1, 2, 3, &[7; 300]);
        assert_eq!((long[0], long.len()), (1, 309));
        assert_eq!(parse(&long).map(|(kind, body)| (kind, body.len())), Some((0x0C, 305)));
        for mut datagram in [long, publish(1, 2, 3, b"x")] {
            mark_repeated(&mut datagram);
            assert_eq!(parse(&datagram).unwrap().1[0], 0xA0);
        }
        assert_eq!(parse(&[9, 0x05, 0]), None);
        assert_eq!(subscribe(1, 7, "t"), [6, 0x12, 0x20, 0, 7, b't']);
        assert_eq!(acknowledge(2, 3), [7, 0x0D, 0, 2, 0, 3, 0]);
    }
}
