//! Conversations for fuzzing: a script of bytes is acted out by three connections against the real core, without a
//! socket, and then somebody well-behaved looks whether all is well.

#![expect(clippy::panic, reason = "it is there to fail what called it")]

use crate::{
    codec::{self, Connect, PacketType, Version},
    connection::{Connection, Scratch, handshake},
};
use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use waystation_broker::{Broker, Limits, ManualClock, Parts, Peer};

/// Scenes of a script: who acts, how many bytes follow, and those.
const SILENCE: u8 = 0x40;
const HANG_UP: u8 = 0x80;

/// How many act.
const ACTORS: usize = 3;

/// Acts a script out. Each scene begins with two bytes: the low bits of the first say who acts, `0x80` that it hangs
/// up, `0x40` that time passes, in tenths of a second by the second byte; else so many bytes follow, which it says.
///
/// # Panics
/// The server said something malformed, or a well-behaved client is not served any more.
pub fn act_out(script: &[u8]) {
    let clock = Arc::new(ManualClock::default());
    let limits = Limits {
        max_queued_messages: 50,
        max_inflight: 10,
        receive_maximum: 10,
        max_packet_size: 4_096,
        max_retained_messages: 20,
        ..Limits::default()
    };
    let broker = Broker::new(Parts::in_memory(limits, clock.clone()));
    let mut actors: [Actor; ACTORS] = Default::default();
    let mut rest = script;
    while let [who, length, after @ ..] = rest {
        let said = after.len().min(usize::from(*length));
        let actor = &mut actors[usize::from(who & 0x3F) % ACTORS];
        if who & HANG_UP != 0 {
            actor.hang_up();
        } else if who & SILENCE != 0 {
            clock.advance(Duration::from_millis(100) * u32::from(*length));
            broker.run_due();
        } else {
            actor.says(&broker, &after[..said]);
        }
        rest = if who & (HANG_UP | SILENCE) == 0 { &after[said..] } else { after };
        for actor in &mut actors {
            actor.settle(&broker);
        }
    }
    actors.iter_mut().for_each(Actor::hang_up);
    the_well_behaved_are_served(&broker);
}

/// One connection after the other.
#[derive(Default)]
struct Actor {
    connection: Option<(Version, Connection)>,
    /// What it said of a packet that is not whole.
    carry: Vec<u8>,
    scratch: Scratch,
    out: Vec<u8>,
}

impl Actor {
    fn says(&mut self, broker: &Broker, bytes: &[u8]) {
        self.carry.extend_from_slice(bytes);
        if self.connection.is_none() {
            self.knock(broker);
        }
        let Some((_, connection)) = &mut self.connection else { return };
        let now = broker.now();
        while connection.listens(now, self.out.len()) {
            let used = connection.handle_bytes(now, &self.carry, broker.limits(), &mut self.scratch, &mut self.out);
            self.carry.drain(..used);
            if used == 0 {
                break;
            }
        }
        assert!(self.carry.len() <= 8_192, "{} bytes wait for the end of their packet", self.carry.len());
    }

    fn knock(&mut self, broker: &Broker) {
        let knock = match handshake::knock(&self.carry, &"mqtt".into(), Peer::INTERNAL, broker.limits()) {
            Ok(Some((knock, used))) => {
                self.carry.drain(..used);
                knock
            }
            Ok(None) => return,
            Err(_) => return self.carry.clear(),
        };
        let handshake::Knock { hello, terms } = *knock;
        match ready(broker.attach(hello)) {
            Ok(attached) => {
                let connection = Connection::new(&terms, attached, broker, &mut self.out);
                self.connection = Some((terms.version, connection));
            }
            Err(_) => self.carry.clear(),
        }
    }

    /// Events until there are none, then the end if it is one. What it heard is well-formed.
    fn settle(&mut self, broker: &Broker) {
        let Some((version, mut connection)) = self.connection.take() else { return };
        let (now, limits) = (broker.now(), broker.limits());
        let mut cx = Context::from_waker(Waker::noop());
        while !connection.is_closing()
            && let Poll::Ready(event) = connection.link_event(&mut cx, self.out.len())
        {
            connection.handle_event(now, event, limits, &mut self.scratch, &mut self.out);
        }
        connection.handle_timeout(now);
        if connection.is_closing() {
            connection.leave(&mut self.out);
            self.carry.clear();
        } else {
            self.connection = Some((version, connection));
        }
        let mut unread = self.out.as_slice();
        while !unread.is_empty() {
            let heard = codec::decode_from_server(unread, version, u32::MAX)
                .unwrap_or_else(|error| panic!("the server said {unread:02x?}: {error}"));
            let (_, used) = heard.expect("and says it whole");
            unread = &unread[used..];
        }
        self.out.clear();
    }

    fn hang_up(&mut self) {
        self.carry.clear();
        if let Some((_, mut connection)) = self.connection.take() {
            connection.handle_hang_up();
            connection.leave(&mut self.out);
        }
        self.out.clear();
    }
}

/// A message to oneself, QoS 1.
fn the_well_behaved_are_served(broker: &Broker) {
    let mut calm = Actor::default();
    let mut connect = Vec::new();
    Connect::new(Version::V3_1_1, "calm").encode(&mut connect).expect("a short CONNECT");
    calm.says(broker, &connect);
    calm.says(broker, b"\x82\x09\x00\x01\x00\x04calm\x01\x32\x09\x00\x04calm\x00\x02x");
    let Some((_, connection)) = &mut calm.connection else { panic!("the calm are not let in") };
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(event) = connection.link_event(&mut cx, calm.out.len()) {
        connection.handle_event(broker.now(), event, broker.limits(), &mut calm.scratch, &mut calm.out);
    }
    let mut kinds: Vec<u8> = Vec::new();
    let mut unread = calm.out.as_slice();
    while let Ok(Some((packet, used))) = codec::decode_from_server(unread, Version::V3_1_1, u32::MAX) {
        kinds.push(packet.packet_type() as u8);
        unread = &unread[used..];
    }
    let expected =
        [PacketType::ConnAck, PacketType::SubAck, PacketType::PubAck, PacketType::Publish].map(|it| it as u8);
    assert_eq!(kinds, expected);
}

fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("nothing here has to wait"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{
        Sender,
        samples::{MALFORMED, Sample, WELL_FORMED},
    };
    use fastrand::Rng;

    /// Scenes of samples, whole, cut and damaged, always alike.
    fn script(random: &mut Rng) -> Vec<u8> {
        let mut script = Vec::new();
        for _ in 0..random.usize(2..40) {
            let who = random.u8(0..3);
            match random.u8(0..20) {
                0 => script.extend([who | HANG_UP, 0]),
                1 => script.extend([SILENCE, random.u8(..)]),
                _ => {
                    let table: &[Sample] = if random.u8(0..10) == 0 { MALFORMED } else { WELL_FORMED };
                    let sample = table[random.usize(0..table.len())];
                    // Twins and others: the samples all have one client id.
                    if sample.sender == Sender::Server || sample.bytes.len() > 255 {
                        continue;
                    }
                    let mut bytes = sample.bytes.to_vec();
                    if random.u8(0..10) == 0 {
                        let at = random.usize(0..bytes.len());
                        bytes[at] ^= 1 << random.u8(0..8);
                    }
                    let cut = if random.u8(0..5) == 0 { random.usize(0..bytes.len()) } else { 0 };
                    for part in [&bytes[..cut], &bytes[cut..]] {
                        script.extend([who, u8::try_from(part.len()).unwrap()]);
                        script.extend(part);
                    }
                }
            }
        }
        script
    }

    #[test]
    fn no_script_disturbs_the_well_behaved() {
        let mut random = Rng::with_seed(0x5EED);
        for _ in 0..2_000 {
            act_out(&script(&mut random));
        }
    }
}
