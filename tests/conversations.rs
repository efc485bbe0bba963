//! Fuzzing whole conversations: rude clients, two of them under one client id, and witnesses who must notice nothing.
//!
//! The test is bounded and always says the same. `WAYSTATION_FUZZ_SECONDS=600 cargo test --test e2e conversations`
//! goes on with seed after seed for so long; `WAYSTATION_FUZZ_SEED=N` begins with the seed that a failure named.

mod rude;

use crate::{
    harness::Server,
    wire::{
        client::Client,
        heard::Publication,
        say::{PUBREC, PUBREL, Publish, acknowledge},
    },
};
use rude::{Rude, Tally};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use waystation_mqtt::codec::Version::{V3_1_1, V5};

/// Small bounds, so that they are reached.
const CONFIG: &str = "[limits]\nmax_queued_messages = 200\nmax_queued_bytes = 100_000\nmax_packet_size = 65_536\n\
    max_inflight = 50\nreceive_maximum = 20\nmax_retained_messages = 500\nconnect_timeout_ms = 2_000\n";

/// Seeds of the bounded run, and things that each client does with each.
const SEEDS: u64 = 250;
const ACTS: usize = 400;

#[test]
fn whatever_rude_clients_say_nobody_else_notices() {
    let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = setting("WAYSTATION_FUZZ_SEED").unwrap_or(1);
    let until = setting("WAYSTATION_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let server = &Server::start_with(CONFIG, &[]);
    let over = &AtomicBool::new(false);
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let witnesses = [V3_1_1, V5].map(|version| scope.spawn(move || witness(server, version, over)));
        // Whatever ends this scope ends the witnesses.
        let _end = EndOf(over);
        let mut settled = 0;
        for seed in first.. {
            if until.map_or(seed >= first + SEEDS, |until| Instant::now() >= until) {
                break;
            }
            converse(server, seed, &mut tally);
            assert!(!server.log().contains("panicked"), "seed {seed}");
            assert!(witnesses.iter().all(|witness| !witness.is_finished()), "a witness gave up at seed {seed}");
            // What a server keeps for itself it has after a while.
            if seed == first + SEEDS / 5 {
                settled = server.resident_bytes();
            } else if seed > first + SEEDS / 5 {
                let now = server.resident_bytes();
                assert!(now < settled + (32 << 20), "seed {seed}: {settled} bytes have become {now}");
            }
            if seed % 1_000 == 0 {
                eprintln!("seed {seed}: {tally:?}, {} bytes", server.resident_bytes());
            }
        }
        over.store(true, Ordering::Relaxed);
        let messages: u32 = witnesses.into_iter().map(|witness| witness.join().expect("a calm witness")).sum();
        eprintln!("{tally:?}; the witnesses heard {messages} messages");
        assert!(messages > 100, "{messages}");
    });
    let Tally { connections, welcomed, heard, acknowledged, closed } = tally;
    // How many are heard before they end themselves is for the machine to say; that much is much.
    assert!(welcomed > 1_000 && connections > 1_000 && closed > 1_000, "{tally:?}");
    assert!(heard > 10_000 && acknowledged > 1_000, "{tally:?}");
}

/// Three rude clients, two of whom are one to the server, in turns.
fn converse(server: &Server, seed: u64, tally: &mut Tally) {
    eprintln!("seed {seed}");
    let mut clients = [("twin", 0), ("twin", 1), ("other", 2)].map(|(id, n)| Rude::new(seed * 3 + n, id));
    for _ in 0..ACTS {
        for client in &mut clients {
            client.act(server);
        }
    }
    for client in clients {
        let new = client.tally;
        tally.connections += new.connections;
        tally.welcomed += new.welcomed;
        tally.heard += new.heard;
        tally.acknowledged += new.acknowledged;
        tally.closed += new.closed;
    }
}

/// Publishes and hears, everything in order and QoS 2 exactly once; now and then its connection breaks. How many
/// messages it heard.
fn witness(server: &Server, version: waystation_mqtt::codec::Version, over: &AtomicBool) -> u32 {
    let name = format!("{version:?} witness");
    let topic = format!("calm/{version:?}");
    let mut publisher = Client::clean(server, version, &format!("{name}'s friend"));
    let (mut subscriber, _) = Client::persistent(server, version, &name);
    subscriber.subscribe(&topic, 2);
    let mut heard = 0;
    while !over.load(Ordering::Relaxed) {
        for qos in [1, 2] {
            heard += 1;
            let payload = heard.to_string();
            publisher.publish(&Publish { topic: &topic, payload: payload.as_bytes(), qos, ..Default::default() });
            let message = subscriber.publication();
            assert_eq!((message.text(), message.qos, message.dup), (payload.as_str(), qos, false), "{name}");
            if heard % 20 < 2 {
                subscriber = breaks(server, subscriber, &name, &message, heard % 3 == 0);
            } else {
                subscriber.accept(&message);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    subscriber.hears_nothing_more();
    heard
}

/// The connection breaks before the message is acknowledged, or in the middle of that.
fn breaks(server: &Server, mut subscriber: Client, name: &str, message: &Publication, midway: bool) -> Client {
    // What it acknowledged before has been read.
    subscriber.ping();
    let received = midway && message.qos == 2;
    if received {
        subscriber.send(&acknowledge(PUBREC, message.id));
        subscriber.acknowledged(PUBREL, message.id);
    }
    let version = subscriber.version;
    drop(subscriber);
    let (mut subscriber, present) = Client::persistent(server, version, name);
    assert!(present, "{name} lost its session");
    if received {
        // Only the release comes again.
        subscriber.acknowledged(PUBREL, message.id);
        subscriber.send(&acknowledge(crate::wire::say::PUBCOMP, message.id));
    } else {
        let again = subscriber.message();
        assert_eq!(again, Publication { dup: true, ..message.clone() }, "{name}");
    }
    subscriber
}

/// Sets it when dropped.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
