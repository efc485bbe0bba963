//! What breaks the specification: it is told why, its connection ends, and nobody else notices.

use crate::{
    clients::{V5, curl, mosquitto_pub, mosquitto_sub},
    harness::{Server, eventually},
    wire::{self, Wire, reason},
};
use std::{io::Write, net::TcpStream, time::Instant};
use waystation_mqtt::codec::{
    ReasonCode, Sender, Version,
    samples::{MALFORMED, Sample, WELL_FORMED},
};

#[test]
fn each_malformed_packet_ends_its_connection_with_its_reason_and_nobody_else_notices() {
    let server = Server::start();
    let bystander = mosquitto_sub(&server, V5, &["-t", "calm", "-q", "1", "-C", "1"]);
    let mut wrong = Vec::new();
    for sample in MALFORMED.iter().filter(|sample| sample.sender == Sender::Client) {
        let last = last_word(&server, sample);
        if !expected(sample).contains(&last) {
            wrong.push(format!("{}: {last:02x?} and not {:02x?}", sample.name, expected(sample)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    mosquitto_pub(&server, V5, &["-t", "calm", "-q", "1", "-m", "still here"]);
    assert_eq!(bystander.finish(), ["still here"]);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// The reason in the last packet before the end.
fn last_word(server: &Server, sample: &Sample) -> Option<u8> {
    let mut wire =
        if is_connect(sample) { Wire::open(server) } else { Wire::connect(server, sample.version, "clumsy") };
    wire.send(sample.bytes);
    wire.ends().last().and_then(|packet| reason(packet))
}

/// What may be said; `None` is the end without a word.
fn expected(sample: &Sample) -> Vec<Option<u8>> {
    let code = sample.expected.expect("a reason");
    match (is_connect(sample), sample.version) {
        // A CONNECT whose version could not be read, or is none, cannot be answered in that version: MQTT 5 leaves it
        // to the server whether to speak (3.1.2.1, 3.1.2.2), and [MQTT-3.1.2-2] of MQTT 3.1.1 knows a code.
        (true, Version::V5) if sample.bytes[0] != 0x10 || sample.bytes.get(6..9) != Some(b"TT\x05") => {
            vec![None, Some(code.0), Some(0x01)]
        }
        (_, Version::V5) => vec![Some(code.0)],
        // Before MQTT 5 a server just closes, except for what CONNACK has a code for [MQTT-3.1.2-2], [MQTT-3.1.3-8].
        (true, _) if code == ReasonCode::UNSUPPORTED_PROTOCOL_VERSION => vec![Some(0x01)],
        (true, _) if code == ReasonCode::CLIENT_IDENTIFIER_NOT_VALID => vec![Some(0x02)],
        _ => vec![None],
    }
}

fn is_connect(sample: &Sample) -> bool {
    sample.bytes[0] >> 4 == 1
}

#[test]
fn a_first_packet_that_is_no_connect_closes_the_connection() {
    let server = Server::start();
    for first in
        [b"\xc0\x00".as_slice(), b"0\x04\x00\x01ax", b"\x82\x06\x00\x01\x00\x01a\x00", b"GET / HTTP/1.1\r\n\r\n"]
    {
        let mut wire = Wire::open(&server);
        wire.send(first);
        assert_eq!(wire.ends(), Vec::<Vec<u8>>::new(), "{first:02x?}");
    }
}

#[test]
fn a_second_connect_is_a_protocol_error() {
    let server = Server::start();
    for (version, word) in [(Version::V3_1, None), (Version::V3_1_1, None), (Version::V5, Some(0x82))] {
        let mut wire = Wire::connect(&server, version, "twice");
        wire.send(&wire::connect(version, "twice"));
        assert_eq!(wire.ends().last().and_then(|packet| reason(packet)), word, "{version:?}");
    }
}

#[test]
fn every_well_formed_connect_is_answered() {
    let server = Server::start();
    for sample in WELL_FORMED.iter().filter(|sample| is_connect(sample) && sample.sender == Sender::Client) {
        let mut wire = Wire::open(&server);
        wire.send(sample.bytes);
        let answer = wire.packet();
        assert!(answer.as_ref().is_some_and(|packet| packet[0] == 0x20), "{}: {answer:02x?}", sample.name);
    }
}

#[test]
fn lengths_that_are_announced_and_not_sent_cost_no_memory() {
    let server = Server::start();
    let mut before_all = Wire::connect(&server, Version::V5, "steady");
    let before = server.resident_bytes();
    // 256 MB less a byte in CONNECT, and as much as is allowed in PUBLISH, whose answer is to wait for the rest.
    let bombs: Vec<_> = (0..200)
        .map(|n| {
            let mut stream = TcpStream::connect(server.address("mqtt")).unwrap();
            if n % 2 == 0 {
                stream.write_all(b"\x10\xff\xff\xff\x7f").unwrap();
            } else {
                stream.write_all(&wire::connect(Version::V5, &format!("bomb-{n}"))).unwrap();
                stream.write_all(b"\x32\xf0\xff\x3f\x00\x01a").unwrap();
            }
            stream
        })
        .collect();
    before_all.send(b"\xc0\x00");
    assert_eq!(before_all.packet().unwrap(), [0xD0, 0x00]);
    mosquitto_pub(&server, V5, &["-t", "calm", "-q", "1", "-m", "still here"]);
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 32 * 1024 * 1024, "200 connections that sent 12 bytes cost {grown} bytes");
    drop(bombs);
}

#[test]
fn connections_that_say_nothing_or_half_a_word_are_closed_in_time() {
    let server = Server::start_with("", &["--set", "limits.connect_timeout_ms=300"]);
    let started = Instant::now();
    let mut silent = Wire::open(&server);
    let mut half = Wire::open(&server);
    half.send(&wire::connect(Version::V5, "slow")[..7]);
    assert_eq!(silent.ends().len(), 0);
    assert_eq!(half.ends().len(), 0);
    assert!(started.elapsed().as_millis() >= 250, "closed after {:?}", started.elapsed());
    assert!(started.elapsed().as_secs() < 5, "closed after {:?}", started.elapsed());
    // Not prolonged by single bytes: whoever drips is closed before its CONNECT is whole.
    let mut dripping = TcpStream::connect(server.address("mqtt")).unwrap();
    let mut bytes = wire::connect(Version::V5, &"x".repeat(10_000)).into_iter();
    eventually("the dripping connection is closed", || {
        bytes.next().is_some_and(|byte| dripping.write_all(&[byte]).is_err())
    });
}

#[test]
fn rest_answers_malformed_calls_with_problems() {
    let server = Server::start();
    for (path, arguments, status) in [
        ("/v1/topics/a%ZZ", ["-X", "POST"].as_slice(), 400),
        ("/v1/topics/a/%23", &["-X", "POST", "--data", "x"], 400),
        ("/v1/topics/a?qos=3", &["-X", "POST", "--data", "x"], 400),
        ("/v1/topics/a?wat=1", &[], 400),
        ("/v1/messages", &["--json", "{"], 400),
        ("/v1/messages", &["--data", "{}"], 400),
        ("/v1/messages", &["-H", "Content-Type: text/plain", "--data", "{}"], 415),
        ("/v1/sessions/none/messages", &[], 404),
    ] {
        let answer = curl(&server, path, arguments);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert_eq!(answer.json()["status"], status, "{path}: {answer:?}");
    }
}

#[test]
fn the_log_says_once_why_a_client_is_sent_away() {
    let server = Server::start();
    let mut client = Wire::connect(&server, Version::V5, "rude\nclient");
    client.send(&wire::publish("a/#", None, b"x"));
    client.ends();
    let line = || server.log().lines().filter(|line| line.contains("client sent away")).map(str::to_owned).collect();
    eventually("a line in the log", || !Vec::<String>::is_empty(&line()));
    let lines: Vec<String> = line();
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in [r"rude\nclient", "0x90", "wildcard"] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    let page = curl(&server, "/v1/gateways", &[]).json();
    let counted = page["gateways"].as_array().unwrap().iter().find(|gateway| gateway["name"] == "mqtt");
    assert_eq!(counted.unwrap()["violations"], 1, "{page}");
}
