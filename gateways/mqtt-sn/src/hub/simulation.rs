//! Boards over a link that loses, duplicates, delays and reorders, in simulated time: whatever the link does, and
//! however the boards sleep, move and connect anew meanwhile, QoS 2 arrives once and in order, QoS 1 at least once,
//! and the bounds hold. Both boards publish, and both hear both.
//!
//! MQTT-SN has no sequence numbers, so some link must be assumed: a datagram is not delayed for longer than T_retry,
//! and its duplicate follows it at once. (A copy of a PUBLISH that outlived its whole exchange would be a new message
//! to anybody.)

use super::*;
use crate::{
    codec::{Connect, ReturnCode, Subscribe, TopicName, TopicRef, WillTopic, encapsulate, encode},
    config::Config,
};
use proptest::{array::uniform2, collection::vec, prelude::*};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    net::SocketAddr,
    time::Duration,
};
use waystation_broker::{Clock, Limits, ManualClock, Parts, Qos};

/// What the link does, in per cent and milliseconds.
#[derive(Debug, Clone)]
struct Air {
    loss: u8,
    duplication: u8,
    /// Longest delay; each datagram has its own, so they overtake each other.
    delay_ms: u64,
    seed: u64,
}

const RETRY_MS: u64 = 10_000;
const N_RETRY: u32 = 5;
const MESSAGES: u8 = 8;

/// How a board lives.
#[derive(Debug, Clone)]
struct Life {
    /// Behind a forwarder.
    wrapped: bool,
    /// It has a will, and is asked for it at each CONNECT.
    will: bool,
    /// What it does before each of its messages.
    between: Vec<Vec<Step>>,
}

/// A board as the specification has it: one exchange at a time, repeated until it is answered.
struct Device {
    id: String,
    port: u16,
    node: Option<u8>,
    will: bool,
    /// What it asks, in order.
    plan: VecDeque<Step>,
    /// What it asked last, and when to ask again.
    asked: Option<(Vec<u8>, u64)>,
    /// How often it asked that again.
    repeats: u32,
    /// What it had asked when it was sent away; to be asked again once it is back.
    broken_off: Option<Vec<u8>>,
    topic_id: u16,
    msg_id: u16,
    names: HashMap<u16, Vec<u8>>,
    /// QoS 2 received and not released.
    open: HashSet<u16>,
    heard: Vec<[u8; 2]>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Connect,
    Register,
    Subscribe(Qos),
    Publish(Qos, [u8; 2]),
    Release,
    Sleep,
    /// PINGREQ with its client id.
    Ping,
    /// Its port is another from now on.
    Move,
}

impl Device {
    fn new(number: u8, life: &Life, qos: Qos) -> Self {
        Self {
            id: format!("board-{number}"),
            port: 1_000 * (u16::from(number) + 1),
            node: life.wrapped.then_some(number),
            will: life.will,
            plan: [Step::Connect, Step::Subscribe(qos), Step::Register].into(),
            asked: None,
            repeats: 0,
            broken_off: None,
            topic_id: 0,
            msg_id: 0,
            names: HashMap::new(),
            open: HashSet::new(),
            heard: Vec::new(),
        }
    }

    fn address(&self) -> SocketAddr {
        ([192, 0, 2, 1], self.port).into()
    }

    fn is_done(&self) -> bool {
        self.plan.is_empty() && self.open.is_empty()
    }

    /// Its next question, if none is open.
    fn ask(&mut self, now: u64) -> Option<Vec<u8>> {
        if self.asked.is_some() {
            return None;
        }
        if let Some(datagram) = self.broken_off.take_if(|_| self.plan.front() != Some(&Step::Connect)) {
            self.asked = Some((datagram.clone(), now + RETRY_MS));
            return Some(datagram);
        }
        while self.plan.pop_front_if(|step| *step == Step::Move).is_some() {
            self.port += 1;
        }
        let step = *self.plan.front()?;
        if let Step::Register | Step::Subscribe(_) | Step::Publish(..) = step {
            self.msg_id += 1;
        }
        let (msg_id, id) = (self.msg_id, self.id.as_bytes());
        let datagram = match step {
            Step::Connect => bytes(&Packet::Connect(Connect {
                will: self.will,
                clean_session: false,
                protocol_id: 1,
                duration_s: 0,
                client_id: id,
            })),
            Step::Register => bytes(&Packet::Register { topic_id: 0, msg_id, name: b"a/b" }),
            Step::Subscribe(qos) => {
                bytes(&Packet::Subscribe(Subscribe { dup: false, qos, msg_id, topic: TopicName::Name(b"a/+") }))
            }
            Step::Publish(qos, ref payload) => {
                let (qos, topic) = (PublishQos::Mqtt(qos), TopicRef::Normal(self.topic_id));
                bytes(&Packet::Publish(Publish { dup: false, qos, retain: false, topic, msg_id, payload }))
            }
            Step::Release => bytes(&Packet::PubRel { msg_id }),
            Step::Sleep => bytes(&Packet::Disconnect { duration_s: Some(u16::MAX) }),
            Step::Ping => bytes(&Packet::PingReq { client_id: id }),
            Step::Move => return None,
        };
        self.asked = Some((datagram.clone(), now + RETRY_MS));
        Some(datagram)
    }

    fn repeat(&mut self, now: u64) -> Option<Vec<u8>> {
        let (datagram, at) = self.asked.as_mut().filter(|(_, at)| *at <= now)?;
        *at = now + RETRY_MS;
        self.repeats += 1;
        if self.repeats > N_RETRY && self.plan.front() == Some(&Step::Connect) {
            // §6.13: it begins with CONNECT anew.
            (self.asked, self.repeats) = (None, 0);
            return None;
        }
        if datagram[1] == 0x0C {
            datagram[2] |= 0b1000_0000;
        }
        Some(datagram.clone())
    }

    /// What it says to a datagram.
    fn hears(&mut self, now: u64, datagram: &[u8]) -> Option<Vec<u8>> {
        let reply = match (decode(datagram).unwrap(), self.plan.front().copied()) {
            (Packet::ConnAck(code), Some(Step::Connect)) => {
                assert_eq!(code, ReturnCode::Accepted);
                return self.answered();
            }
            (Packet::WillTopicReq, Some(Step::Connect)) => {
                let topic = WillTopic { qos: Qos::AtMostOnce, retain: false, topic: b"wills" };
                return self.goes_on(now, &Packet::WillTopic(Some(topic)));
            }
            (Packet::WillMsgReq, Some(Step::Connect)) => return self.goes_on(now, &Packet::WillMsg(b"gone")),
            (Packet::PingResp, Some(Step::Ping)) | (Packet::Disconnect { .. }, Some(Step::Sleep)) => {
                return self.answered();
            }
            // A CONNECT of its own that was late has come from where it was before: §6.12.
            (Packet::Disconnect { .. }, step) => {
                if step != Some(Step::Connect) {
                    self.broken_off = self.asked.take().map(|(datagram, _)| datagram).or(self.broken_off.take());
                    self.plan.push_front(Step::Connect);
                }
                return None;
            }
            (Packet::RegAck { topic_id, msg_id, .. }, Some(Step::Register)) if msg_id == self.msg_id => {
                self.topic_id = topic_id;
                return self.answered();
            }
            (Packet::SubAck(ack), Some(Step::Subscribe(_))) if ack.msg_id == self.msg_id => return self.answered(),
            (Packet::PubAck { msg_id, code, .. }, Some(Step::Publish(..))) if msg_id == self.msg_id => {
                assert_eq!(code, ReturnCode::Accepted);
                return self.answered();
            }
            (Packet::PubRec { msg_id }, Some(Step::Publish(..))) if msg_id == self.msg_id => {
                self.answered();
                self.plan.push_front(Step::Release);
                return None;
            }
            (Packet::PubComp { msg_id }, Some(Step::Release)) if msg_id == self.msg_id => return self.answered(),
            (Packet::Register { topic_id, msg_id, name }, _) => {
                self.names.insert(topic_id, name.to_vec());
                Packet::RegAck { topic_id, msg_id, code: ReturnCode::Accepted }
            }
            (Packet::Publish(publish), _) => {
                let (topic_id, msg_id) = (publish.topic.raw(), publish.msg_id);
                let payload = publish.payload.try_into().unwrap();
                let known = topic_id == self.topic_id || self.names.get(&topic_id).is_some_and(|name| name == b"a/b");
                assert!(known, "told before used");
                match publish.qos {
                    PublishQos::Mqtt(Qos::ExactlyOnce) => {
                        if self.open.insert(msg_id) {
                            self.heard.push(payload);
                        }
                        Packet::PubRec { msg_id }
                    }
                    _ => {
                        self.heard.push(payload);
                        Packet::PubAck { topic_id, msg_id, code: ReturnCode::Accepted }
                    }
                }
            }
            (Packet::PubRel { msg_id }, _) => {
                self.open.remove(&msg_id);
                Packet::PubComp { msg_id }
            }
            _ => return None,
        };
        Some(bytes(&reply))
    }

    fn answered(&mut self) -> Option<Vec<u8>> {
        (self.asked, self.repeats) = (None, 0);
        self.plan.pop_front();
        None
    }

    /// The conversation goes on with this, which is repeated in its turn.
    fn goes_on(&mut self, now: u64, packet: &Packet<'_>) -> Option<Vec<u8>> {
        let datagram = bytes(packet);
        self.asked = Some((datagram.clone(), now + RETRY_MS));
        Some(datagram)
    }
}

fn bytes(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, &mut bytes).unwrap();
    bytes
}

/// A datagram in the air: when it arrives, in which order it was sent, between the hub and which address.
type Flying = (u64, u64, Direction, SocketAddr, Vec<u8>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    Up,
    Down,
}

/// A hub, and two boards with the air between.
struct Simulation {
    air: Air,
    random: fastrand::Rng,
    clock: Arc<ManualClock>,
    hub: Hub,
    devices: [Device; 2],
    flying: BinaryHeap<Reverse<Flying>>,
    sent: u64,
    now: u64,
}

impl Simulation {
    fn new(air: Air, devices: [Device; 2]) -> Self {
        let clock = Arc::new(ManualClock::default());
        let broker = Broker::new(Parts::in_memory(Limits::default(), clock.clone()));
        // The gateway is as patient as the link is bad.
        let settings = Settings::new("mqtt_sn".into(), &Config { retry_count: 1_000, ..Config::default() });
        let (hub, random) = (Hub::new(broker, Arc::new(settings)), fastrand::Rng::with_seed(air.seed));
        Self { air, random, clock, hub, devices, flying: BinaryHeap::new(), sent: 0, now: 0 }
    }

    /// Runs until both boards are through with their plans and nothing waits for them.
    fn run(&mut self) {
        loop {
            for board in 0..2 {
                let repeated = self.devices[board].repeat(self.now);
                for datagram in repeated.into_iter().chain(self.devices[board].ask(self.now)) {
                    self.rise(board, &datagram);
                }
            }
            let done = self.devices.iter().all(Device::is_done);
            if done && self.flying.is_empty() && self.hub.broker.waiting() == 0 {
                return;
            }
            let plans = self.devices.each_ref().map(|device| device.plan.clone());
            assert!(self.now < 10_000_000, "it comes to no end: {plans:?}");
            match self.flying.pop() {
                Some(Reverse((at, _, direction, address, datagram))) => {
                    self.pass_to(at);
                    self.arrive(direction, address, &datagram);
                }
                None => self.pass_to(self.now + 1_000),
            }
            self.turn();
        }
    }

    fn pass_to(&mut self, at: u64) {
        // The timers on the ground do not wait for the air.
        let at = at.max(self.now);
        self.clock.advance(Duration::from_millis(at - self.now));
        self.now = at;
    }

    fn arrive(&mut self, direction: Direction, address: SocketAddr, datagram: &[u8]) {
        if direction == Direction::Up {
            return self.hub.datagram(self.clock.now(), &Address::direct(0, address), &Way::Plain, datagram);
        }
        let (node, message) = match decode(datagram).unwrap() {
            Packet::Encapsulated { node, message, .. } => (Some(node[0]), message),
            _ => (None, datagram),
        };
        let there = |device: &Device| device.address() == address && device.node == node;
        let Some(board) = self.devices.iter().position(there) else { return };
        if let Some(reply) = self.devices[board].hears(self.now, message) {
            self.rise(board, &reply);
        }
    }

    /// A turn of the driver; the bells of timers are not waited for.
    fn turn(&mut self) {
        let now = self.clock.now();
        let due = self.hub.peers.iter_mut().filter(|peer| peer.client.poll_timeout().is_some_and(|at| at <= now));
        self.hub.touched.extend(due.map(|peer| peer.key()));
        self.hub.look_after(now);
        assert!(self.hub.peers.iter_mut().all(|peer| peer.client.is_within_bounds()));
        let datagrams: Vec<_> = self.hub.outbox.of_socket(0).map(|(to, datagram)| (to, datagram.to_vec())).collect();
        self.hub.outbox.clear();
        for (to, datagram) in datagrams {
            self.send(Direction::Down, to, &datagram);
        }
    }

    fn rise(&mut self, board: usize, message: &[u8]) {
        let device = &self.devices[board];
        let mut datagram = Vec::new();
        if let Some(node) = device.node {
            encapsulate(0, &[node], &mut datagram).unwrap();
        }
        datagram.extend_from_slice(message);
        self.send(Direction::Up, device.address(), &datagram);
    }

    fn send(&mut self, direction: Direction, address: SocketAddr, datagram: &[u8]) {
        if self.random.u8(..100) < self.air.loss {
            return;
        }
        let at = self.now + self.random.u64(..=self.air.delay_ms);
        let copies = if self.random.u8(..100) < self.air.duplication { 2 } else { 1 };
        for _ in 0..copies {
            self.sent += 1;
            self.flying.push(Reverse((at, self.sent, direction, address, datagram.to_vec())));
        }
    }
}

/// Both boards publish with one QoS what both have subscribed to with it; gives what each of them heard.
fn heard(air: Air, qos: Qos, lives: &[Life; 2]) -> [Vec<[u8; 2]>; 2] {
    let devices = [0, 1].map(|number| Device::new(number, &lives[usize::from(number)], qos));
    let mut simulation = Simulation::new(air, devices);
    simulation.run();
    for (number, (device, life)) in (0..).zip(simulation.devices.iter_mut().zip(lives)) {
        for message in 0..MESSAGES {
            device.plan.extend(life.between.get(usize::from(message)).into_iter().flatten());
            device.plan.push_back(Step::Publish(qos, [number, message]));
        }
    }
    simulation.run();
    assert!(simulation.hub.peers.len() <= 2, "nobody is left where a board was before");
    simulation.devices.map(|device| device.heard)
}

fn air() -> impl Strategy<Value = Air> {
    (0_u8..40, 0_u8..40, 0_u64..4_000, any::<u64>()).prop_map(|(loss, duplication, delay_ms, seed)| Air {
        loss,
        duplication,
        delay_ms,
        seed,
    })
}

fn life() -> impl Strategy<Value = Life> {
    let interlude = prop_oneof![
        4 => Just(vec![]),
        1 => Just(vec![Step::Connect]),
        1 => Just(vec![Step::Sleep, Step::Ping, Step::Ping, Step::Connect]),
        1 => Just(vec![Step::Sleep, Step::Move, Step::Ping, Step::Move, Step::Ping, Step::Connect]),
        1 => Just(vec![Step::Sleep, Step::Move, Step::Connect]),
        1 => Just(vec![Step::Move, Step::Ping]),
        1 => Just(vec![Step::Move, Step::Connect]),
    ];
    let between = vec(interlude, usize::from(MESSAGES));
    (any::<[bool; 2]>(), between).prop_map(|([wrapped, will], between)| Life { wrapped, will, between })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn qos_2_arrives_once_and_in_order_whatever_the_link_does(air in air(), lives in uniform2(life())) {
        let expected: Vec<u8> = (0..MESSAGES).collect();
        for heard in heard(air, Qos::ExactlyOnce, &lives) {
            for sender in 0..2 {
                let of_sender: Vec<u8> = heard.iter().filter(|it| it[0] == sender).map(|it| it[1]).collect();
                prop_assert_eq!(&of_sender, &expected);
            }
        }
    }

    #[test]
    fn qos_1_arrives_at_least_once_whatever_the_link_does(air in air(), lives in uniform2(life())) {
        for heard in heard(air, Qos::AtLeastOnce, &lives) {
            let different: HashSet<[u8; 2]> = heard.into_iter().collect();
            prop_assert_eq!(different.len(), 2 * usize::from(MESSAGES));
        }
    }
}
