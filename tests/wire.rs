//! A bare MQTT connection, for what no well-behaved client does.

use crate::harness::{PATIENCE, Server};
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
};
use waystation_mqtt::codec::Version;

/// A TCP connection to the MQTT listener.
pub(crate) struct Wire {
    stream: TcpStream,
}

/// MQTT 5 reason codes, by the names that the specification gives them.
pub(crate) const SERVER_SHUTTING_DOWN: u8 = 0x8B;
pub(crate) const SESSION_TAKEN_OVER: u8 = 0x8E;
pub(crate) const QUOTA_EXCEEDED: u8 = 0x97;

impl Wire {
    /// Connected, and nothing said.
    pub(crate) fn open(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address("mqtt")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    /// Connected with a session that ends with the connection.
    pub(crate) fn connect(server: &Server, version: Version, id: &str) -> Self {
        let mut wire = Self::open(server);
        wire.send(&connect(version, id));
        let answer = wire.packet().expect("a CONNACK");
        assert_eq!((answer[0], reason(&answer)), (0x20, Some(0)), "{answer:02x?}");
        wire
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next packet, whole; `None` when the connection has ended.
    pub(crate) fn packet(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![self.byte()?];
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            packet.push(byte);
            length |= usize::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                break;
            }
        }
        let start = packet.len();
        packet.resize(start + length, 0);
        self.stream.read_exact(&mut packet[start..]).unwrap();
        Some(packet)
    }

    /// The server closes, after at most some packets; those.
    pub(crate) fn ends(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.packet()).collect()
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => None,
            Ok(_) => Some(byte[0]),
            // Closed with something of ours unread.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("neither a packet nor the end: {error}"),
        }
    }
}

/// CONNECT: a clean session, keep alive 0.
pub(crate) fn connect(version: Version, id: &str) -> Vec<u8> {
    let mut body = match version {
        Version::V3_1 => b"\x00\x06MQIsdp\x03\x02\x00\x00".to_vec(),
        Version::V3_1_1 => b"\x00\x04MQTT\x04\x02\x00\x00".to_vec(),
        Version::V5 => b"\x00\x04MQTT\x05\x02\x00\x00\x00".to_vec(),
    };
    body.extend(string(id));
    packet(0x10, &body)
}

/// PUBLISH in MQTT 5 without properties; QoS 0 without a packet identifier.
pub(crate) fn publish(topic: &str, packet_id: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut body = string(topic);
    body.extend(packet_id.iter().flat_map(|id| id.to_be_bytes()));
    body.push(0);
    body.extend(payload);
    packet(if packet_id.is_some() { 0x32 } else { 0x30 }, &body)
}

/// SUBSCRIBE in MQTT 5 to one filter.
pub(crate) fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1, 0];
    body.extend(string(filter));
    body.push(qos);
    packet(0x82, &body)
}

/// The reason code of a CONNACK, DISCONNECT, PUBACK or PUBREC.
pub(crate) fn reason(packet: &[u8]) -> Option<u8> {
    match packet.first()? {
        0xE0 => packet.get(2).copied(),
        0x20 => packet.get(3).copied(),
        0x40 | 0x50 => Some(packet.get(4).copied().unwrap_or(0)),
        _ => None,
    }
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut rest = body.len();
    loop {
        let low = u8::try_from(rest & 0x7F).expect("seven bits");
        rest >>= 7;
        packet.push(if rest == 0 { low } else { low | 0x80 });
        if rest == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

fn string(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short text");
    [&length.to_be_bytes(), text.as_bytes()].concat()
}
