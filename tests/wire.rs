//! A bare MQTT connection, for what no well-behaved client does.

pub(crate) mod client;
pub(crate) mod heard;
pub(crate) mod say;

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
    say::Connect::new(version, id).bytes()
}

/// PUBLISH in MQTT 5 without properties: QoS 1, or 0 without a packet identifier.
pub(crate) fn publish(topic: &str, packet_id: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let qos = u8::from(packet_id.is_some());
    say::Publish { topic, payload, qos, id: packet_id.unwrap_or(0), ..Default::default() }.bytes(Version::V5)
}

/// SUBSCRIBE in MQTT 5 to one filter.
pub(crate) fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    say::subscribe(Version::V5, 1, &[(filter, qos)], &[])
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
