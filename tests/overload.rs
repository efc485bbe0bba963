//! More than there is room for.

use crate::{
    clients::{V5, curl, mosquitto_sub, rest_session},
    harness::{Server, eventually},
    wire::{self, QUOTA_EXCEEDED, Wire, reason},
};
use waystation_mqtt::codec::Version;

#[test]
fn a_subscriber_that_never_reads_costs_bounded_memory_and_holds_up_nobody() {
    const MESSAGES: usize = 50_000;
    let server = Server::start();
    let mut deaf = Wire::connect(&server, Version::V5, "deaf");
    deaf.send(&wire::subscribe("flood", 0));
    let mut witness = Wire::connect(&server, Version::V5, "witness");
    witness.send(&wire::subscribe("last", 0));
    assert_eq!(witness.packet().unwrap()[0], 0x90);
    let before = server.resident_bytes();

    let mut publisher = Wire::connect(&server, Version::V5, "publisher");
    let burst = wire::publish("flood", None, &[b'x'; 1024]).repeat(500);
    for _ in 0..MESSAGES / 500 {
        publisher.send(&burst);
    }
    publisher.send(&wire::publish("last", Some(1), b"done"));
    let acknowledged = publisher.packet().unwrap();
    assert_eq!((acknowledged[0], reason(&acknowledged)), (0x40, Some(0)));
    assert!(witness.packet().unwrap().ends_with(b"done"));

    // The default bound of a session is 10,000 messages, and 64 MiB of them.
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 100 << 20, "{MESSAGES} unread messages of 1 KiB cost {grown} bytes");
    drop(deaf);
}

#[test]
fn a_full_queue_that_rejects_tells_publishers_on_both_roads_and_takes_more_once_it_is_read() {
    let server = Server::start_with("[limits]\noverflow = \"reject\"\nmax_queued_messages = 3\n", &[]);
    rest_session(&server, "slow", "jobs", "");
    let mut publisher = Wire::connect(&server, Version::V5, "publisher");
    let mut publish = |id: u16| {
        publisher.send(&wire::publish("jobs", Some(id), b"x"));
        let answer = publisher.packet().unwrap();
        assert_eq!(answer[0], 0x40);
        reason(&answer).unwrap()
    };
    for id in 1..=3 {
        assert_eq!(publish(id), 0, "there is room for message {id}");
    }
    assert_eq!(publish(4), QUOTA_EXCEEDED);
    let refused = curl(&server, "/v1/topics/jobs", &["--include", "--data", "x"]);
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!(refused.body.to_lowercase().contains("retry-after:"), "{refused:?}");

    let read = curl(&server, "/v1/sessions/slow/messages", &[]).json();
    assert_eq!(read["messages"].as_array().map(Vec::len), Some(3), "{read}");
    assert!(read["missed"].as_u64().unwrap_or(0) == 0, "nothing is missed, the publishers know: {read}");
    let ack = format!(r#"{{"cursor":{}}}"#, read["cursor"]);
    assert_eq!(curl(&server, "/v1/sessions/slow/ack", &["--data", &ack]).status, 204);
    assert_eq!(publish(5), 0);
    assert_eq!(curl(&server, "/v1/topics/jobs", &["--data", "x"]).status, 200);
}

#[test]
fn a_refused_publish_reached_nobody() {
    let server = Server::start();
    rest_session(&server, "full", "jobs", r#","max_queued_messages":1,"overflow":"reject""#);
    rest_session(&server, "roomy", "jobs", "");
    assert_eq!(curl(&server, "/v1/topics/jobs", &["--data", "first"]).status, 200);
    assert_eq!(curl(&server, "/v1/topics/jobs", &["--data", "second"]).status, 429);
    let read = curl(&server, "/v1/sessions/roomy/messages", &[]).json();
    assert_eq!(read["messages"].as_array().map(Vec::len), Some(1), "{read}");
}

#[test]
fn a_full_queue_that_drops_keeps_the_newest_and_says_how_many_are_missed() {
    let server = Server::start_with("[limits]\nmax_queued_messages = 3\n", &[]);
    rest_session(&server, "slow", "jobs", "");
    for n in 0..5 {
        assert_eq!(curl(&server, "/v1/topics/jobs", &["--data", &n.to_string()]).status, 200);
    }
    let read = curl(&server, "/v1/sessions/slow/messages", &[]).json();
    let kept: Vec<_> = read["messages"].as_array().unwrap().iter().map(|it| it["payload"].as_str().unwrap()).collect();
    assert_eq!((kept, &read["missed"]), (vec!["2", "3", "4"], &2.into()), "{read}");
}

#[test]
fn losses_without_a_message_are_told_until_they_are_acknowledged() {
    let server = Server::start();
    rest_session(&server, "slow", "jobs", r#","max_queued_messages":1,"overflow":"drop_newest""#);
    let publish = |text: &str| assert_eq!(curl(&server, "/v1/topics/jobs", &["--data", text]).status, 200);
    let read = |query: &str| curl(&server, &format!("/v1/sessions/slow/messages{query}"), &[]);
    let after = |page: &serde_json::Value| format!("?after={}", page["cursor"].as_str().unwrap());
    publish("kept");
    let first = read("").json();
    assert_eq!(first["missed"], 0, "{first}");
    publish("lost");
    // The cursor of the first page is older than the loss: acknowledging it does not cover this.
    let second = read(&after(&first)).json();
    assert_eq!((second["messages"].as_array().map(Vec::len), &second["missed"]), (Some(0), &1.into()), "{second}");
    assert_eq!(read(&after(&first)).json(), second);
    assert_eq!(read(&after(&second)).status, 204);
}

#[test]
fn a_message_too_large_is_refused_on_both_roads() {
    let server = Server::start_with("[limits]\nmax_packet_size = 2048\n", &[]);
    let large = "x".repeat(4096);
    assert_eq!(curl(&server, "/v1/topics/a", &["--data", &large]).status, 413);
    let mut publisher = Wire::connect(&server, Version::V5, "publisher");
    publisher.send(&wire::publish("a", None, large.as_bytes()));
    assert_eq!(publisher.ends().last().and_then(|packet| reason(packet)), Some(0x95));
    let subscriber = mosquitto_sub(&server, V5, &["-t", "a", "-C", "1"]);
    eventually("a small one passes", || curl(&server, "/v1/topics/a", &["--data", "small"]).status == 200);
    assert_eq!(subscriber.finish(), ["small"]);
}
