//! The machine over a link that loses, duplicates, delays and reorders, in simulated time: whatever the link does,
//! QoS 2 arrives once, QoS 1 at least once, and the bounds hold.
//!
//! MQTT-SN has no sequence numbers, so some link must be assumed: a datagram is not delayed for longer than T_retry,
//! and its duplicate follows it at once. (A copy of a PUBLISH that outlived its whole exchange would be a new message
//! to anybody.)

use super::{held::MAX_HELD, *};
use crate::{
    codec::{Connect, Publish, PublishQos, Subscribe, TopicName, TopicRef, decode, encode},
    config::Config,
};
use futures_util::FutureExt;
use proptest::prelude::*;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
    task::Waker,
};
use waystation_broker::{Broker, Clock, Limits, ManualClock, Parts, Qos};

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
const MESSAGES: u16 = 12;

/// A board as the specification has it: one exchange at a time, repeated until it is answered.
struct Device {
    id: &'static str,
    /// What it asks, in order.
    plan: VecDeque<Step>,
    /// What it asked last, and when to ask again.
    asked: Option<(Vec<u8>, u64)>,
    topic_id: u16,
    msg_id: u16,
    names: HashMap<u16, Vec<u8>>,
    /// QoS 2 received and not released.
    open: HashSet<u16>,
    heard: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Connect,
    Register,
    Subscribe(Qos),
    Publish(Qos, u8),
    Release,
    Sleep,
    Wake,
}

impl Device {
    fn new(id: &'static str, plan: impl IntoIterator<Item = Step>) -> Self {
        let plan = plan.into_iter().collect();
        let (names, open) = (HashMap::new(), HashSet::new());
        Self { id, plan, asked: None, topic_id: 0, msg_id: 0, names, open, heard: Vec::new() }
    }

    /// Its next question, if none is open.
    fn ask(&mut self, now: u64) -> Option<Vec<u8>> {
        if self.asked.is_some() {
            return None;
        }
        let step = *self.plan.front()?;
        if step != Step::Release {
            self.msg_id += 1;
        }
        let (msg_id, id) = (self.msg_id, self.id.as_bytes());
        let payload;
        let packet = match step {
            Step::Connect => Packet::Connect(Connect {
                will: false,
                clean_session: false,
                protocol_id: 1,
                duration_s: 0,
                client_id: id,
            }),
            Step::Register => Packet::Register { topic_id: 0, msg_id, name: b"a/b" },
            Step::Subscribe(qos) => {
                Packet::Subscribe(Subscribe { dup: false, qos, msg_id, topic: TopicName::Name(b"a/+") })
            }
            Step::Publish(qos, number) => {
                payload = [number];
                let (qos, topic) = (PublishQos::Mqtt(qos), TopicRef::Normal(self.topic_id));
                Packet::Publish(Publish { dup: false, qos, retain: false, topic, msg_id, payload: &payload })
            }
            Step::Release => Packet::PubRel { msg_id },
            Step::Sleep => Packet::Disconnect { duration_s: Some(u16::MAX) },
            Step::Wake => Packet::PingReq { client_id: id },
        };
        let mut datagram = Vec::new();
        encode(&packet, &mut datagram).unwrap();
        self.asked = Some((datagram.clone(), now + RETRY_MS));
        Some(datagram)
    }

    fn repeat(&mut self, now: u64) -> Option<Vec<u8>> {
        let (datagram, at) = self.asked.as_mut().filter(|(_, at)| *at <= now)?;
        *at = now + RETRY_MS;
        if datagram[1] == 0x0C {
            datagram[2] |= 0b1000_0000;
        }
        Some(datagram.clone())
    }

    fn hears(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        let reply = match (decode(datagram).unwrap(), self.plan.front().copied()) {
            (Packet::ConnAck(ReturnCode::Accepted), Some(Step::Connect))
            | (Packet::PingResp, Some(Step::Wake))
            | (Packet::Disconnect { .. }, Some(Step::Sleep)) => return self.answered(),
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
                assert_eq!(self.names.get(&topic_id).map(Vec::as_slice), Some(&b"a/b"[..]), "told before used");
                match publish.qos {
                    PublishQos::Mqtt(Qos::ExactlyOnce) => {
                        if self.open.insert(msg_id) {
                            self.heard.push(publish.payload[0]);
                        }
                        Packet::PubRec { msg_id }
                    }
                    _ => {
                        self.heard.push(publish.payload[0]);
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
        let mut datagram = Vec::new();
        encode(&reply, &mut datagram).unwrap();
        Some(datagram)
    }

    fn answered(&mut self) -> Option<Vec<u8>> {
        self.asked = None;
        self.plan.pop_front();
        None
    }
}

/// What is in the air: when it arrives, in which order it was sent, of which board, upwards or down.
type Flying = (u64, u64, usize, bool, Vec<u8>);

/// A broker, and two boards with the air between.
struct Simulation {
    air: Air,
    random: fastrand::Rng,
    clock: Arc<ManualClock>,
    broker: Broker,
    clients: [Client; 2],
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
        let settings = Arc::new(Settings::new("mqtt_sn".into(), &Config { retry_count: 1_000, ..Config::default() }));
        let client =
            |port| Client::new(settings.clone(), Address::direct(0, ([127, 0, 0, 1], port).into()), Way::Plain);
        let (clients, random) = ([client(1), client(2)], fastrand::Rng::with_seed(air.seed));
        Self { air, random, clock, broker, clients, devices, flying: BinaryHeap::new(), sent: 0, now: 0 }
    }

    /// Runs until both boards are through with their plans and nothing waits for them; gives how long that took.
    fn run(&mut self) -> Duration {
        loop {
            for board in 0..2 {
                let repeated = self.devices[board].repeat(self.now);
                for datagram in repeated.into_iter().chain(self.devices[board].ask(self.now)) {
                    self.send(board, true, &datagram);
                }
                self.turn(board, |_, _, _| {});
            }
            let done = self.devices.iter().all(|device| device.plan.is_empty() && device.open.is_empty());
            if done && self.flying.is_empty() && self.broker.waiting() == 0 {
                return Duration::from_millis(self.now);
            }
            assert!(
                self.now < 100_000_000,
                "it comes to no end: {:?}",
                self.devices.each_ref().map(|d| d.plan.clone())
            );
            match self.flying.pop() {
                Some(Reverse((at, _, board, up, datagram))) => {
                    self.pass_to(at);
                    self.arrive(board, up, &datagram);
                }
                None => self.pass_to(self.now + 1_000),
            }
        }
    }

    fn pass_to(&mut self, at: u64) {
        // The timers on the ground do not wait for the air.
        let at = at.max(self.now);
        self.clock.advance(Duration::from_millis(at - self.now));
        self.now = at;
        for board in 0..2 {
            self.turn(board, |client, now, out| {
                if client.poll_timeout().is_some_and(|at| at <= now) {
                    client.handle_timeout(now, out);
                }
            });
        }
    }

    fn arrive(&mut self, board: usize, up: bool, datagram: &[u8]) {
        if up {
            return self.turn(board, |client, now, out| {
                // Copies of what was answered long ago are out of place, and that is all.
                let _place = client.handle_packet(now, &decode(datagram).unwrap(), out);
            });
        }
        if let Some(reply) = self.devices[board].hears(datagram) {
            self.send(board, true, &reply);
        }
    }

    fn turn(&mut self, board: usize, act: impl FnOnce(&mut Client, Time, &mut Outbox)) {
        let (client, now, mut out) = (&mut self.clients[board], self.clock.now(), Outbox::default());
        act(client, now, &mut out);
        for _ in 0..2 {
            client.finish(now, &mut out);
            client.handle_events(now, &mut Context::from_waker(Waker::noop()), &mut out);
            if let Some(hello) = client.poll_attach() {
                let answer = self.broker.attach(hello).now_or_never().unwrap();
                client.handle_attached(now, answer, &mut out);
            }
        }
        assert!(client.held.len() <= MAX_HELD && client.staged.is_empty());
        let datagrams: Vec<Vec<u8>> = out.of_socket(0).map(|(_, datagram)| datagram.to_vec()).collect();
        for datagram in datagrams {
            self.send(board, false, &datagram);
        }
    }

    fn send(&mut self, board: usize, up: bool, datagram: &[u8]) {
        if self.random.u8(..100) < self.air.loss {
            return;
        }
        let at = self.now + self.random.u64(..=self.air.delay_ms);
        let copies = if self.random.u8(..100) < self.air.duplication { 2 } else { 1 };
        for _ in 0..copies {
            self.sent += 1;
            self.flying.push(Reverse((at, self.sent, board, up, datagram.to_vec())));
        }
    }
}

/// One board publishes everything with one QoS, the other has subscribed with it, and sleeps now and then.
fn heard(air: Air, qos: Qos, sleeps: bool) -> Vec<u8> {
    let publishes = (0..MESSAGES).map(|number| Step::Publish(qos, u8::try_from(number).unwrap()));
    let mut listens = vec![Step::Connect, Step::Subscribe(qos)];
    let subscriber = Device::new("to", listens.drain(..));
    let publisher = Device::new("from", []);
    let mut simulation = Simulation::new(air, [publisher, subscriber]);
    simulation.run();
    simulation.devices[0].plan = [Step::Connect, Step::Register].into_iter().chain(publishes).collect();
    if sleeps {
        simulation.devices[1].plan = [Step::Sleep, Step::Wake, Step::Wake, Step::Connect].into_iter().collect();
    }
    simulation.run();
    let [_, subscriber] = simulation.devices;
    subscriber.heard
}

fn air() -> impl Strategy<Value = Air> {
    (0_u8..40, 0_u8..40, 0_u64..4_000, any::<u64>()).prop_map(|(loss, duplication, delay_ms, seed)| Air {
        loss,
        duplication,
        delay_ms,
        seed,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn qos_2_arrives_once_and_in_order_whatever_the_link_does(air in air(), sleeps in any::<bool>()) {
        let expected: Vec<u8> = (0..u8::try_from(MESSAGES).unwrap()).collect();
        prop_assert_eq!(heard(air, Qos::ExactlyOnce, sleeps), expected);
    }

    #[test]
    fn qos_1_arrives_at_least_once_whatever_the_link_does(air in air(), sleeps in any::<bool>()) {
        let heard = heard(air, Qos::AtLeastOnce, sleeps);
        let times = heard.iter().fold(BTreeMap::<u8, usize>::new(), |mut times, number| {
            *times.entry(*number).or_default() += 1;
            times
        });
        prop_assert_eq!(times.len(), usize::from(MESSAGES), "{:?}", heard);
    }
}
