//! A client that says right things, wrong things, half things and things at the wrong time, as a seed has it.

use crate::{
    harness::Server,
    wire::{
        heard::{self, Heard},
        say::{self, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish, Will, property},
    },
};
use fastrand::Rng;
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};
use waystation_mqtt::codec::{
    Sender,
    Version::{self, V3_1, V3_1_1, V5},
    samples::{MALFORMED, Sample, WELL_FORMED},
};

/// A rude client; at times it has a connection.
pub(super) struct Rude {
    random: Rng,
    id: &'static str,
    line: Option<Line>,
    pub(super) tally: Tally,
}

/// What has been going on, or a run might test nothing.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) connections: u32,
    pub(super) welcomed: u32,
    pub(super) heard: u32,
    pub(super) acknowledged: u32,
    pub(super) closed: u32,
}

struct Line {
    stream: TcpStream,
    /// `None`: the CONNECT was damaged, so nobody knows how the answers are to be read.
    version: Option<Version>,
    unread: Vec<u8>,
    /// The end of a packet whose beginning is sent.
    rest: Vec<u8>,
    /// To be acknowledged: first byte of the right answer, and identifier.
    owed: Vec<(u8, u16)>,
}

const TOPICS: [&str; 6] =
    ["rude/a", "rude/b", "rude/b/c", "$rude", "rude/", "rude/a very long name that an alias may shorten"];
const FILTERS: [&str; 8] = ["rude/#", "rude/+", "#", "+/+", "rude/a", "$rude", "$share/g/rude/#", "$share/g/rude/a"];

impl Rude {
    pub(super) fn new(seed: u64, id: &'static str) -> Self {
        Self { random: Rng::with_seed(seed), id, line: None, tally: Tally::default() }
    }

    /// Says or does one thing.
    pub(super) fn act(&mut self, server: &Server) {
        if self.line.is_none() {
            self.connect(server);
        }
        // Now and then it does not look at what comes.
        if self.random.u8(..) > 40 {
            self.listen(Duration::ZERO);
        }
        let Some(line) = &mut self.line else { return };
        let random = &mut self.random;
        let version = line.version.unwrap_or(V5);
        let mut bytes = match random.u8(0..100) {
            0..30 => publish(random, version),
            30..45 => subscribe(random, version),
            45..48 => say::unsubscribe(version, 1 + random.u16(0..4), &[random.choice(FILTERS).unwrap_or("#")]),
            48..70 => acknowledge_what_is_owed(line, &mut self.tally),
            70..78 => acknowledge_anything(random),
            78..82 => say::PINGREQ.to_vec(),
            82..84 => connect(random, self.id, version).bytes(),
            84..88 => sample(random, MALFORMED).bytes.to_vec(),
            88..94 => sample(random, WELL_FORMED).bytes.to_vec(),
            94..96 => goodbye(random, version),
            96..98 => {
                self.line = None;
                return;
            }
            _ => return self.listen(Duration::from_millis(3)),
        };
        if random.u8(0..100) < 8 {
            damage(random, &mut bytes);
        }
        line.say(random, &bytes);
    }

    fn connect(&mut self, server: &Server) {
        let stream = TcpStream::connect(server.address("mqtt")).expect("the server lets everybody connect");
        stream.set_nonblocking(true).expect("a socket that does not block");
        self.tally.connections += 1;
        let random = &mut self.random;
        let version = [V3_1, V3_1_1, V5, V5][random.usize(0..4)];
        let mut bytes = connect(random, self.id, version).bytes();
        let whole = random.u8(0..100) > 5;
        if !whole {
            damage(random, &mut bytes);
        }
        let version = whole.then_some(version);
        let mut line = Line { stream, version, unread: Vec::new(), rest: Vec::new(), owed: Vec::new() };
        line.say(random, &bytes);
        self.line = Some(line);
    }

    /// Reads what is there, and waits at most so long for something to be there.
    fn listen(&mut self, patience: Duration) {
        let Some(line) = &mut self.line else { return };
        if line.listen(patience, &mut self.tally).is_err() {
            self.tally.closed += 1;
            self.line = None;
        }
    }
}

/// The server has closed.
struct Closed;

impl Line {
    /// Says it whole, or the beginning now and the rest before whatever comes next.
    fn say(&mut self, random: &mut Rng, bytes: &[u8]) {
        let mut all = std::mem::take(&mut self.rest);
        all.extend(bytes);
        if random.u8(0..100) < 15 && all.len() > 1 {
            self.rest = all.split_off(random.usize(1..all.len()));
        }
        // A server that does not read is not waited for; and its close shows when reading.
        let _ = self.stream.write(&all);
    }

    fn listen(&mut self, patience: Duration, tally: &mut Tally) -> Result<(), Closed> {
        if !patience.is_zero() {
            std::thread::sleep(patience);
        }
        let mut buffer = [0; 16_384];
        let ended = loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break true,
                Ok(count) => self.unread.extend(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
                Err(_) => break true,
            }
        };
        // Every packet of the server is well-formed, whatever it was told.
        let mut used = 0;
        while let Some(length) = whole_packet(&self.unread[used..]) {
            if let Some(version) = self.version {
                self.hear(&heard::read(version, &self.unread[used..used + length]), tally);
            }
            used += length;
        }
        self.unread.drain(..used);
        if ended { Err(Closed) } else { Ok(()) }
    }

    fn hear(&mut self, heard: &Heard, tally: &mut Tally) {
        match heard {
            Heard::ConnAck(connack) if connack.code == 0 => tally.welcomed += 1,
            Heard::Publication(publication) => {
                tally.heard += 1;
                match publication.qos {
                    0 => {}
                    1 => self.owed.push((PUBACK, publication.id)),
                    _ => self.owed.push((PUBREC, publication.id)),
                }
            }
            Heard::Ack { first: PUBREC, id, .. } => self.owed.push((PUBREL, *id)),
            Heard::Ack { first: PUBREL, id, .. } => self.owed.push((PUBCOMP, *id)),
            _ => {}
        }
    }
}

/// How long the first packet is, if it is all there.
fn whole_packet(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (n, shift) in [0, 7, 14, 21].into_iter().enumerate() {
        let byte = *bytes.get(1 + n)?;
        length |= usize::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            let whole = 2 + n + length;
            return (bytes.len() >= whole).then_some(whole);
        }
    }
    panic!("a remaining length of five bytes: {bytes:02x?}")
}

fn connect(random: &mut Rng, id: &str, version: Version) -> Connect {
    let mut connect = Connect::new(version, id).keep_alive([0, 0, 1, 60][random.usize(0..4)]);
    if random.bool() {
        connect = connect.persistent();
    }
    if version == V5 && random.bool() {
        connect = connect
            .property(property::two(property::RECEIVE_MAXIMUM, random.u16(1..20)))
            .property(property::two(property::TOPIC_ALIAS_MAXIMUM, random.u16(0..3)))
            .property(property::four(property::MAXIMUM_PACKET_SIZE, random.u32(30..300)));
    }
    if random.u8(0..4) == 0 {
        let delay = if version == V5 { property::four(property::WILL_DELAY, random.u32(0..2)) } else { Vec::new() };
        let topic = TOPICS[random.usize(0..TOPICS.len())];
        connect = connect.will(&Will {
            topic,
            payload: b"gone",
            qos: random.u8(0..3),
            retain: random.bool(),
            properties: delay,
        });
    }
    connect
}

fn publish(random: &mut Rng, version: Version) -> Vec<u8> {
    let most = [4, 200, 3_000][random.usize(0..3)];
    let payload = vec![b'x'; random.usize(0..most)];
    let qos = random.u8(0..3);
    let mut properties = Vec::new();
    if version == V5 && random.u8(0..4) == 0 {
        properties.extend(property::four(property::MESSAGE_EXPIRY, random.u32(0..3)));
        properties.extend(property::user("key", "value"));
        properties.extend(property::two(property::TOPIC_ALIAS, random.u16(1..4)));
    }
    let publish = Publish {
        topic: TOPICS[random.usize(0..TOPICS.len())],
        payload: &payload,
        qos,
        id: 1 + random.u16(0..8),
        dup: qos > 0 && random.u8(0..4) == 0,
        retain: random.u8(0..4) == 0,
        properties,
    };
    publish.bytes(version)
}

fn subscribe(random: &mut Rng, version: Version) -> Vec<u8> {
    // Of the bits of MQTT 5: no local, retain as published, retain handling.
    let more = if version == V5 { [0, 0x04, 0x08, 0x10, 0x20][random.usize(0..5)] } else { 0 };
    let filters = [(FILTERS[random.usize(0..FILTERS.len())], random.u8(0..3) | more), ("rude/b", random.u8(0..3))];
    let properties =
        if random.bool() { property::subscription_identifier(1 + random.usize(0..300)) } else { Vec::new() };
    say::subscribe(version, 1 + random.u16(0..4), &filters, &properties)
}

fn acknowledge_what_is_owed(line: &mut Line, tally: &mut Tally) -> Vec<u8> {
    tally.acknowledged += u32::try_from(line.owed.len()).expect("not so many");
    line.owed.drain(..).flat_map(|(first, id)| say::acknowledge(first, id)).collect()
}

fn acknowledge_anything(random: &mut Rng) -> Vec<u8> {
    let first = [PUBACK, PUBREC, PUBREL, PUBCOMP][random.usize(0..4)];
    let id = 1 + random.u16(0..8);
    if random.bool() { say::acknowledge(first, id) } else { say::acknowledge_with(first, id, 0x80 | random.u8(0..32)) }
}

fn goodbye(random: &mut Rng, version: Version) -> Vec<u8> {
    if version == V5 && random.bool() {
        say::disconnect([0, 4][random.usize(0..2)], &property::session_expiry(random.u32(0..2)))
    } else {
        say::DISCONNECT.to_vec()
    }
}

fn sample(random: &mut Rng, table: &'static [Sample]) -> &'static Sample {
    loop {
        let sample = &table[random.usize(0..table.len())];
        if sample.sender == Sender::Client {
            return sample;
        }
    }
}

fn damage(random: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..random.usize(1..4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.usize(0..bytes.len());
        match random.u8(0..4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.u8(..)),
            2 => drop(bytes.remove(at)),
            _ => bytes[at] ^= 1 << random.u8(0..8),
        }
    }
}
