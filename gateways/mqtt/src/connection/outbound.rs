//! To the client: deliveries, straight from the core's queue into the output, and acknowledgements once they are safe.

use super::{
    Connection, HIGH_WATER,
    alias::{Naming, Outbound},
};
use crate::codec::{PacketType, Publication, ReasonCode, Version, encode_ack};
use waystation_broker::{Budget, Delivery, Lsn, Pick, Qos, Stage, Tag, Taken};

/// Deliveries a connection takes before others get their turn.
const BATCH: usize = 1_024;

impl Connection {
    /// Takes what waits for the client, up to the high-water mark.
    pub(super) fn deliver(&mut self, out: &mut Vec<u8>) {
        if !self.greeted {
            return;
        }
        let budget = Budget { messages: BATCH, bytes: HIGH_WATER.saturating_sub(out.len()) };
        let mut writer = Writer {
            version: self.version,
            maximum: self.client_maximum,
            aliases: self.aliases.as_mut().and_then(|aliases| aliases.outbound.as_mut()),
            out,
        };
        if self.resending {
            // What was sent before comes again first, in its order [MQTT-4.4.0-1], [MQTT-4.6.0-1].
            self.link.take(Pick::Inflight, budget, |delivery| writer.write(delivery));
        }
        if self.link.take(Pick::Unsent, budget, |delivery| writer.write(delivery)) > 0 {
            self.resending = false; // the core gives nothing new before the old is exhausted
        }
    }

    /// Sends a burst's acknowledgements, or keeps them until `lsn` is durable.
    pub(super) fn release_or_hold(&mut self, lsn: Lsn, acks: &[u8], credits: usize, out: &mut Vec<u8>) {
        if acks.is_empty() {
            return;
        }
        let durable = self.link.hold(lsn);
        match &mut self.held {
            None if durable => {
                out.extend_from_slice(acks);
                self.released(credits);
            }
            held => held.get_or_insert_default().push(lsn, acks, credits),
        }
        if durable && self.held.is_some() {
            self.durable(lsn, out);
        }
    }

    /// Sends the acknowledgements that are safe by now.
    pub(super) fn durable(&mut self, mut durable: Lsn, out: &mut Vec<u8>) {
        while let Some(held) = &mut self.held {
            let credits = held.release(durable, out);
            let next = held.next();
            self.released(credits);
            match next {
                None => self.held = None,
                // Asks to be told of the next.
                Some(next) if self.link.hold(next) => durable = next,
                Some(_) => return,
            }
        }
    }

    /// Acknowledgements are out; the first of them is CONNACK.
    fn released(&mut self, credits: usize) {
        self.greeted = true;
        self.open = self.open.saturating_sub(u16::try_from(credits).unwrap_or(u16::MAX));
    }
}

struct Writer<'a> {
    version: Version,
    maximum: u32,
    aliases: Option<&'a mut Outbound>,
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    #[inline]
    fn write(&mut self, delivery: &Delivery<'_>) -> Taken {
        if self.out.len() >= HIGH_WATER {
            return Taken::Stop;
        }
        let packet_id = delivery.tag.map(|Tag(id)| id);
        if let (Stage::Received, Some(id)) = (delivery.stage, packet_id) {
            encode_ack(self.out, PacketType::PubRel, self.version, id, ReasonCode::SUCCESS);
            return Taken::Sent;
        }
        let message = delivery.message;
        let naming = match &self.aliases {
            // QoS 2 has its name: mqtt.js forgets at PUBREL what an alias alone stood for.
            Some(aliases) if delivery.qos != Qos::ExactlyOnce => aliases.name(message.topic()),
            _ => Naming::Full,
        };
        let (topic, alias) = match naming {
            Naming::Full => (message.topic().as_str(), None),
            Naming::Introduce(alias) => (message.topic().as_str(), Some(alias)),
            Naming::Alias(alias) => ("", Some(alias)),
        };
        let publication = Publication {
            version: self.version,
            dup: delivery.redelivered && packet_id.is_some(), // [MQTT-3.3.1-2]
            qos: delivery.qos,
            retain: delivery.retain,
            topic,
            packet_id,
            properties: message.properties(),
            expiry: delivery.expiry,
            identifiers: delivery.identifiers,
            alias,
            missed: delivery.missed,
            payload: message.payload(),
        };
        let measured = match publication.measure() {
            Ok(measured) if measured.size() <= self.maximum as usize => measured,
            // [MQTT-3.1.2-25]: the server acts as if it had been sent.
            _ => return Taken::TooLarge,
        };
        measured.write(self.out);
        if let (Naming::Introduce(alias), Some(aliases)) = (naming, &mut self.aliases) {
            aliases.introduced(message.topic(), alias);
        }
        Taken::Sent
    }
}
