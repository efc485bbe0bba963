//! Packets as a client writes them, byte by byte: nothing of the server's own codec, so that a mistake there cannot
//! hide itself here.

use waystation_mqtt::codec::Version;

/// CONNECT: a clean session without keep alive, until told otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    id: String,
    flags: u8,
    keep_alive: u16,
    properties: Vec<u8>,
    will: Vec<u8>,
    credentials: Vec<u8>,
}

/// A will, for CONNECT.
#[derive(Debug, Clone, Default)]
pub(crate) struct Will<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// MQTT 5 only.
    pub(crate) properties: Vec<u8>,
}

impl Connect {
    pub(crate) fn new(version: Version, id: &str) -> Self {
        Self {
            version,
            id: id.to_owned(),
            flags: 0x02,
            keep_alive: 0,
            properties: Vec::new(),
            will: Vec::new(),
            credentials: Vec::new(),
        }
    }

    /// Clean Session 0, or Clean Start 0.
    pub(crate) fn resume(mut self) -> Self {
        self.flags &= !0x02;
        self
    }

    /// A session that is resumed and outlives its connection.
    pub(crate) fn persistent(self) -> Self {
        match self.version {
            Version::V5 => self.resume().property(property::session_expiry(600)),
            _ => self.resume(),
        }
    }

    /// Seconds.
    pub(crate) fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    /// Adds an MQTT 5 property.
    pub(crate) fn property(mut self, property: Vec<u8>) -> Self {
        self.properties.extend(property);
        self
    }

    pub(crate) fn will(mut self, will: &Will<'_>) -> Self {
        self.flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
        if self.version == Version::V5 {
            self.will.extend(with_length(&will.properties));
        }
        self.will.extend(string(will.topic));
        self.will.extend(data(will.payload));
        self
    }

    pub(crate) fn user(mut self, name: &str, password: &str) -> Self {
        self.flags |= 0xC0;
        self.credentials = [string(name), string(password)].concat();
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut body = match self.version {
            Version::V3_1 => b"\x00\x06MQIsdp\x03".to_vec(),
            Version::V3_1_1 => b"\x00\x04MQTT\x04".to_vec(),
            Version::V5 => b"\x00\x04MQTT\x05".to_vec(),
        };
        body.push(self.flags);
        body.extend(self.keep_alive.to_be_bytes());
        if self.version == Version::V5 {
            body.extend(with_length(&self.properties));
        }
        body.extend(string(&self.id));
        body.extend(&self.will);
        body.extend(&self.credentials);
        packet(0x10, &body)
    }
}

/// PUBLISH. QoS 0 carries no packet identifier.
#[derive(Debug, Clone, Default)]
pub(crate) struct Publish<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: u8,
    pub(crate) id: u16,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    /// MQTT 5 only.
    pub(crate) properties: Vec<u8>,
}

impl Publish<'_> {
    pub(crate) fn bytes(&self, version: Version) -> Vec<u8> {
        let mut body = string(self.topic);
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        if version == Version::V5 {
            body.extend(with_length(&self.properties));
        }
        body.extend(self.payload);
        packet(0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain), &body)
    }
}

/// SUBSCRIBE; each filter with its options byte, which before MQTT 5 is the QoS alone.
pub(crate) fn subscribe(version: Version, id: u16, filters: &[(&str, u8)], properties: &[u8]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.extend(with_length(properties));
    }
    for (filter, options) in filters {
        body.extend(string(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

/// UNSUBSCRIBE.
pub(crate) fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(filters.iter().flat_map(|filter| string(filter)));
    packet(0xA2, &body)
}

/// First bytes of the packets that acknowledge.
pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62;
pub(crate) const PUBCOMP: u8 = 0x70;

/// PUBACK, PUBREC, PUBREL or PUBCOMP in its short form: success.
pub(crate) fn acknowledge(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

/// The same with a reason code; MQTT 5 only.
pub(crate) fn acknowledge_with(first: u8, id: u16, reason: u8) -> Vec<u8> {
    packet(first, &[id.to_be_bytes().as_slice(), &[reason]].concat())
}

/// PINGREQ and DISCONNECT in its short form.
pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];

/// DISCONNECT with a reason code and properties; MQTT 5 only.
pub(crate) fn disconnect(reason: u8, properties: &[u8]) -> Vec<u8> {
    packet(0xE0, &[vec![reason], with_length(properties)].concat())
}

/// MQTT 5 properties by their names (§2.2.2.2), each with its identifier.
pub(crate) mod property {
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub(crate) const SESSION_EXPIRY: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(crate) const WILL_DELAY: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(crate) const RESPONSE_INFORMATION: u8 = 0x1A;
    pub(crate) const REASON_STRING: u8 = 0x1F;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const MAXIMUM_QOS: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;

    pub(crate) fn byte(identifier: u8, value: u8) -> Vec<u8> {
        vec![identifier, value]
    }

    pub(crate) fn two(identifier: u8, value: u16) -> Vec<u8> {
        [vec![identifier], value.to_be_bytes().to_vec()].concat()
    }

    pub(crate) fn four(identifier: u8, value: u32) -> Vec<u8> {
        [vec![identifier], value.to_be_bytes().to_vec()].concat()
    }

    pub(crate) fn text(identifier: u8, value: &str) -> Vec<u8> {
        [vec![identifier], super::string(value)].concat()
    }

    pub(crate) fn user(name: &str, value: &str) -> Vec<u8> {
        [vec![USER], super::string(name), super::string(value)].concat()
    }

    pub(crate) fn session_expiry(seconds: u32) -> Vec<u8> {
        four(SESSION_EXPIRY, seconds)
    }

    pub(crate) fn subscription_identifier(value: usize) -> Vec<u8> {
        [vec![SUBSCRIPTION_IDENTIFIER], super::variable(value)].concat()
    }
}

/// A packet of its first byte and everything behind its remaining length.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [vec![first], with_length(body)].concat()
}

/// A text behind its length.
pub(crate) fn string(text: &str) -> Vec<u8> {
    data(text.as_bytes())
}

fn data(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("short enough for its length");
    [&length.to_be_bytes(), bytes].concat()
}

pub(crate) fn with_length(bytes: &[u8]) -> Vec<u8> {
    [variable(bytes.len()), bytes.to_vec()].concat()
}

/// A variable byte integer (§1.5.5).
fn variable(mut rest: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(rest & 0x7F).expect("seven bits");
        rest >>= 7;
        bytes.push(if rest == 0 { low } else { low | 0x80 });
        if rest == 0 {
            return bytes;
        }
    }
}
