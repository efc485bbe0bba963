//! An MQTT client of bare packets: it says exactly what a test wants, and shows exactly what came.

use super::{
    Wire,
    heard::{self, ConnAck, Heard, Publication},
    say::{self, Connect, PINGREQ, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish},
};
use crate::harness::Server;
use std::collections::VecDeque;
use waystation_mqtt::codec::Version;

/// See the module's documentation.
pub(crate) struct Client {
    pub(crate) version: Version,
    wire: Wire,
    /// Publications that came while something else was waited for.
    early: VecDeque<Heard>,
    last_id: u16,
}

impl Client {
    /// Connects; what the server answered.
    pub(crate) fn open(server: &Server, connect: &Connect) -> (Self, ConnAck) {
        let mut client =
            Self { version: connect.version, wire: Wire::open(server), early: VecDeque::new(), last_id: 0 };
        client.send(&connect.bytes());
        match client.hear() {
            Heard::ConnAck(connack) => (client, connack),
            other => panic!("not a CONNACK: {other:?}"),
        }
    }

    /// Connected as it asked; whether its session was there.
    pub(crate) fn connect(server: &Server, connect: &Connect) -> (Self, bool) {
        let (client, connack) = Self::open(server, connect);
        assert_eq!(connack.code, 0, "{connack:?}");
        (client, connack.session_present)
    }

    /// With a session that ends with the connection.
    pub(crate) fn clean(server: &Server, version: Version, id: &str) -> Self {
        let (client, present) = Self::connect(server, &Connect::new(version, id));
        assert!(!present);
        client
    }

    /// With a session that outlives the connection; whether it was there.
    pub(crate) fn persistent(server: &Server, version: Version, id: &str) -> (Self, bool) {
        Self::connect(server, &Connect::new(version, id).persistent())
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.wire.send(bytes);
    }

    /// The next packet.
    pub(crate) fn hear(&mut self) -> Heard {
        self.early.pop_front().or_else(|| self.next()).expect("a packet, and not the end")
    }

    /// The server closes; the last packet before.
    pub(crate) fn ends(mut self) -> Option<Heard> {
        std::iter::from_fn(|| self.next()).last()
    }

    /// The server closes, and before it says why if MQTT has a word for it.
    pub(crate) fn ends_with(self, reason: u8) {
        let word = (self.version == Version::V5).then_some(Heard::Disconnect { reason });
        assert_eq!(self.ends(), word);
    }

    /// SUBSCRIBE to one filter and its SUBACK.
    pub(crate) fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_with(&[(filter, options)], &[])[0]
    }

    /// SUBSCRIBE and its SUBACK; MQTT 5 properties count only there.
    pub(crate) fn subscribe_with(&mut self, filters: &[(&str, u8)], properties: &[u8]) -> Vec<u8> {
        let id = self.next_id();
        self.send(&say::subscribe(self.version, id, filters, properties));
        match self.hear_but_publications() {
            Heard::SubAck { id: answered, reasons } if answered == id && reasons.len() == filters.len() => reasons,
            other => panic!("not the SUBACK: {other:?}"),
        }
    }

    /// UNSUBSCRIBE and its UNSUBACK.
    pub(crate) fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.next_id();
        self.send(&say::unsubscribe(self.version, id, filters));
        match self.hear_but_publications() {
            Heard::UnsubAck { id: answered, reasons } if answered == id => reasons,
            other => panic!("not the UNSUBACK: {other:?}"),
        }
    }

    /// PUBLISH with a packet identifier of its own, and the whole exchange; the reason code.
    pub(crate) fn publish(&mut self, publish: &Publish<'_>) -> u8 {
        let id = if publish.id == 0 { self.next_id() } else { publish.id };
        self.send(&Publish { id, ..publish.clone() }.bytes(self.version));
        match publish.qos {
            0 => 0,
            1 => self.acknowledged(PUBACK, id),
            _ => {
                let reason = self.acknowledged(PUBREC, id);
                if reason < 0x80 {
                    self.send(&say::acknowledge(PUBREL, id));
                    assert_eq!(self.acknowledged(PUBCOMP, id), 0);
                }
                reason
            }
        }
    }

    /// PUBLISH of a text, QoS 1.
    pub(crate) fn tell(&mut self, topic: &str, text: &str) {
        let reason = self.publish(&Publish { topic, payload: text.as_bytes(), qos: 1, ..Default::default() });
        assert!(reason < 0x80, "{reason:#x}");
    }

    /// PUBLISH of a retained text, QoS 1.
    pub(crate) fn retain(&mut self, topic: &str, text: &str) {
        let publish = Publish { topic, payload: text.as_bytes(), qos: 1, retain: true, ..Default::default() };
        let reason = self.publish(&publish);
        assert!(reason < 0x80, "{reason:#x}");
    }

    /// The next acknowledgement is this one; its reason code.
    pub(crate) fn acknowledged(&mut self, first: u8, id: u16) -> u8 {
        match self.hear_but_publications() {
            Heard::Ack { first: kind, id: answered, reason } if (kind, answered) == (first, id) => reason,
            other => panic!("not {first:#x} of {id}: {other:?}"),
        }
    }

    /// The next packet is a publication; not acknowledged.
    pub(crate) fn publication(&mut self) -> Publication {
        match self.hear() {
            Heard::Publication(publication) => publication,
            other => panic!("not a publication: {other:?}"),
        }
    }

    /// The next publication, acknowledged to the end.
    pub(crate) fn message(&mut self) -> Publication {
        let message = self.publication();
        self.accept(&message);
        message
    }

    /// Acknowledges a publication to the end.
    pub(crate) fn accept(&mut self, message: &Publication) {
        match message.qos {
            0 => {}
            1 => self.send(&say::acknowledge(PUBACK, message.id)),
            _ => {
                self.send(&say::acknowledge(PUBREC, message.id));
                assert_eq!(self.acknowledged(PUBREL, message.id), 0);
                self.send(&say::acknowledge(PUBCOMP, message.id));
            }
        }
    }

    /// The texts of the next publications, acknowledged.
    pub(crate) fn texts(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.message().text().to_owned()).collect()
    }

    /// Nothing is there but what is heard here: what others had acknowledged before is in the queue, and a message that
    /// is sent to oneself comes behind it.
    pub(crate) fn hears_nothing_more(&mut self) {
        self.subscribe("$end", 0);
        self.send(&Publish { topic: "$end", ..Default::default() }.bytes(self.version));
        let next = self.publication();
        assert_eq!(next.topic, "$end", "{next:?}");
        self.unsubscribe(&["$end"]);
    }

    /// PINGREQ and PINGRESP: the connection is well.
    pub(crate) fn ping(&mut self) {
        self.send(&PINGREQ);
        assert_eq!(self.hear_but_publications(), Heard::PingResp);
    }

    /// DISCONNECT, and the server closes.
    pub(crate) fn disconnect(mut self) {
        self.send(&say::DISCONNECT);
        self.wire.ends();
    }

    /// The bare connection, for what is not to be understood.
    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }

    fn next(&mut self) -> Option<Heard> {
        self.wire.packet().map(|packet| heard::read(self.version, &packet))
    }

    fn hear_but_publications(&mut self) -> Heard {
        loop {
            match self.next().expect("a packet, and not the end") {
                early @ Heard::Publication(_) => self.early.push_back(early),
                other => return other,
            }
        }
    }

    fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id % 60_000 + 1;
        self.last_id
    }
}
