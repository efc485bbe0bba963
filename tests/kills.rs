//! `kill -9` at any moment, again and again, while numbered streams run by every road: nothing acknowledged is lost,
//! QoS 2 comes once, order is kept, and whatever else was acknowledged is there.
//!
//! `WAYSTATION_KILL_ROUNDS=500 cargo test --test e2e kills` goes on for longer.

mod publishers;
mod readers;

use crate::{
    clients::curl,
    harness::{PATIENCE, Server, eventually, within},
    webhooks::Receiver,
    wire::{
        client::Client,
        say::{Connect, Will},
    },
};
use publishers::{Board, Mqtt, Stream, over_rest};
use readers::{ByCursor, Subscriber};
use serde_json::json;
use std::{
    thread,
    time::{Duration, Instant},
};
use waystation_mqtt::codec::Version::V5;

/// Enough that kills meet every stage of every exchange, in half a minute.
const ROUNDS: u32 = 20;

/// On a busy machine fewer must do: after this time half of them.
const LONGEST: Duration = Duration::from_secs(45);

const CONFIG: &str = "[limits]\nmax_queued_messages = 1_000_000\n[gateways.rest]\nallow_private_targets = true\n";

/// Numbers of one stream in the order of their coming.
fn numbers(texts: &[String], name: &str) -> Vec<u32> {
    texts.iter().filter_map(|text| text.strip_prefix(name)?.strip_prefix('-')?.parse().ok()).collect()
}

/// Each acknowledged one came, and what came first came in order; of QoS 2 each came once.
fn check(reader: &str, texts: &[String], stream: &Stream) {
    let seen = numbers(texts, stream.name);
    let mut first = Vec::new();
    for number in &seen {
        if first.last().is_none_or(|last| last < number) {
            first.push(*number);
        }
    }
    let wanted: Vec<u32> = (1..=stream.acknowledged).collect();
    // The last may have come without its acknowledgement having reached the publisher.
    assert_eq!(first[..wanted.len().min(first.len())], wanted, "{}: lost or out of order for {reader}", stream.name);
    assert!(first.len() <= wanted.len() + 1, "{}: made up for {reader}", stream.name);
    if stream.qos == 2 {
        assert_eq!(seen, first, "{}: more than once for {reader}", stream.name);
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_qos_2_comes_once_over_kills_at_any_moment() {
    let asked: Option<u32> = std::env::var("WAYSTATION_KILL_ROUNDS").ok().map(|rounds| rounds.parse().unwrap());
    let began = Instant::now();
    let goes_on = |round| match asked {
        Some(rounds) => round < rounds,
        None => round < ROUNDS / 2 || (round < ROUNDS && began.elapsed() < LONGEST),
    };
    let mut server = Server::start_with(CONFIG, &[]);
    let filters = ["mqtt", "sn", "rest"].map(|filter| json!({"filter": filter, "qos": 2}));
    let session = json!({"subscriptions": filters, "expiry": 3_600}).to_string();
    assert_eq!(curl(&server, "/v1/sessions/by-cursor", &["-X", "PUT", "--data", &session]).status, 201);
    let receiver = Receiver::start("");
    let webhook = json!({"url": receiver.url, "filters": ["rest"], "qos": 2}).to_string();
    assert_eq!(curl(&server, "/v1/webhooks/hook", &["-X", "PUT", "--data", &webhook]).status, 201);

    let mut mqtt = [Mqtt::new("once", 1), Mqtt::new("exactly", 2)];
    let mut boards = [Board::new("board-1", 1), Board::new("board-2", 2)];
    let (mut by_cursor, mut subscriber) = (ByCursor::default(), Subscriber::default());
    subscriber.subscribe(server.address("mqtt"), &["mqtt", "sn", "rest"]);
    let (mut rest, mut next) = (Vec::new(), 1);
    // Seeded, so that a failure comes again.
    let mut pause = 0x2545_F491_u32;
    let mut rounds = 0;
    for round in (0..).take_while(|round| goes_on(*round)) {
        rounds = round + 1;
        pause ^= pause << 13;
        pause ^= pause >> 17;
        pause ^= pause << 5;
        let [tcp, udp, http] = ["mqtt", "mqtt_sn", "rest"].map(|name| server.address(name));
        let (acknowledged, dir) = thread::scope(|scope| {
            mqtt.iter_mut().for_each(|stream| drop(scope.spawn(|| stream.run(tcp))));
            boards.iter_mut().for_each(|stream| drop(scope.spawn(|| stream.run(udp))));
            scope.spawn(|| by_cursor.read_on(http));
            scope.spawn(|| subscriber.read_on(tcp));
            let rest = scope.spawn(|| over_rest(http, next));
            let patient = deeds(&server, round);
            thread::sleep(Duration::from_millis(u64::from(pause % 400)));
            let dir = server.kill();
            drop(patient);
            (rest.join().unwrap(), dir)
        });
        next = acknowledged.last().map_or(next, |last| last + 1) + 1;
        rest.extend(acknowledged);
        // Now with everything in memory that waits, now with next to nothing.
        let memory = ["durability.memory_per_session=262_144", "durability.memory_per_session=50"];
        let memory = memory[round as usize % 2];
        server = Server::start_in(dir, &["--set", memory]).unwrap_or_else(|ended| panic!("round {round}: {ended:?}"));
    }
    // What was sent and not acknowledged is sent again, as clients do.
    let [tcp, udp] = ["mqtt", "mqtt_sn"].map(|name| server.address(name));
    mqtt.iter_mut().for_each(|stream| stream.finish(tcp));
    boards.iter_mut().for_each(|stream| stream.finish(udp));
    by_cursor.read_the_rest(server.address("rest"));
    subscriber.read_the_rest(tcp);

    for stream in mqtt.iter().map(|stream| &stream.0).chain(boards.iter().map(|board| &board.0)) {
        assert!(stream.acknowledged > rounds, "{}: {} acknowledged", stream.name, stream.acknowledged);
        check("a cursor", &by_cursor.texts, stream);
        check("MQTT", &subscriber.texts, stream);
    }
    for (reader, texts) in [("a cursor", &by_cursor.texts), ("MQTT", &subscriber.texts)] {
        let seen = numbers(texts, "rest");
        assert!(rest.iter().all(|n| seen.contains(n)), "over REST lost for {reader}: {rest:?} but {seen:?}");
    }
    let seen = numbers(&by_cursor.texts, "rest");
    assert!(seen.is_sorted(), "over REST out of order: {seen:?}");
    let hooked = || -> Vec<String> {
        receiver.requests().iter().map(|request| request["body"].as_str().unwrap().to_owned()).collect()
    };
    let last = *rest.last().expect("something was acknowledged over REST");
    within(PATIENCE * 3, "the webhook catches up", || numbers(&hooked(), "rest").contains(&last));
    let seen = numbers(&hooked(), "rest");
    assert!(rest.iter().all(|n| seen.contains(n)), "lost for the webhook: {rest:?} but {seen:?}");
    still_there(&server, rounds);
}

/// What a round does beside the streams, each acknowledged before the kill; somebody with a will stays.
fn deeds(server: &Server, round: u32) -> Client {
    let state = format!("state-{round}");
    assert_eq!(curl(server, &format!("/v1/topics/{state}"), &["-X", "PUT", "--data", &state]).status, 200);
    assert_eq!(curl(server, "/v1/topics/state", &["-X", "PUT", "--data", &state]).status, 200);
    let (mut subscriber, present) = Client::persistent(server, V5, "subscriber");
    assert_eq!(present, round > 0);
    assert_eq!(subscriber.subscribe(&format!("f/{round}"), 1), 1);
    if let Some(before) = round.checked_sub(1) {
        assert_eq!(subscriber.unsubscribe(&[&format!("f/{before}")]), [0]);
    }
    subscriber.disconnect();
    let (topic, payload) = (format!("will-{round}"), b"gone");
    let will = Will { topic: &topic, payload, qos: 1, retain: true, ..Will::default() };
    Client::connect(server, &Connect::new(V5, &topic).keep_alive(1).will(&will)).0
}

fn still_there(server: &Server, rounds: u32) {
    for round in 0..rounds {
        let state = format!("state-{round}");
        assert_eq!(curl(server, &format!("/v1/topics/{state}"), &[]).body, state);
        // Nobody came back for it.
        eventually("the will of a client that was there at a kill", || {
            curl(server, &format!("/v1/topics/will-{round}"), &[]).body == "gone"
        });
    }
    let last = rounds - 1;
    assert_eq!(curl(server, "/v1/topics/state", &[]).body, format!("state-{last}"));
    let session = curl(server, "/v1/sessions/subscriber", &[]).json();
    let filters: Vec<_> = session["subscriptions"].as_array().unwrap().iter().map(|it| &it["filter"]).collect();
    assert_eq!(filters, [&json!(format!("f/{last}"))]);
}
