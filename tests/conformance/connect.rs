//! CONNECT and CONNACK: 3.1.1 §3.1, §3.2; 5.0 §3.1, §3.2, §4.12.

use super::both;
use crate::{
    harness::Server,
    wire::{
        Wire,
        client::Client,
        heard::Heard,
        say::{self, Connect, PINGREQ, Publish, Will, property},
    },
};
use std::time::{Duration, Instant};
use waystation_mqtt::codec::Version::{self, V3_1, V3_1_1, V5};

#[test]
fn the_first_packet_is_connack_whatever_the_client_sends_behind_connect() {
    both(|server, version| {
        let mut wire = Wire::open(server);
        let subscribe = say::subscribe(version, 1, &[("a", 0)], &[]);
        wire.send(&[Connect::new(version, "hasty").bytes(), subscribe, PINGREQ.to_vec()].concat());
        let heard: Vec<u8> = (0..3).map(|_| wire.packet().unwrap()[0]).collect();
        assert_eq!(heard[0], 0x20);
        assert!(heard[1..].contains(&0x90) && heard[1..].contains(&0xD0), "{heard:02x?}");
    });
}

#[test]
fn what_follows_a_refused_connect_is_not_obeyed() {
    let server = Server::start();
    for version in [V3_1_1, V5] {
        let mut witness = Client::clean(&server, version, "witness");
        witness.subscribe("a", 0);
        let mut wire = Wire::open(&server);
        // Client ids that begin with $ are the server's own.
        let refused = Connect::new(version, "$mine").bytes();
        let publish = Publish { topic: "a", ..Default::default() }.bytes(version);
        wire.send(&[refused, publish].concat());
        let answers = wire.ends();
        assert_eq!((answers.len(), answers[0][0], answers[0][2]), (1, 0x20, 0), "session present is 0: {answers:02x?}");
        assert_eq!(answers[0][3], if version == V5 { 0x85 } else { 0x02 });
        witness.hears_nothing_more();
    }
}

#[test]
fn an_unknown_version_is_told_so() {
    let server = Server::start();
    // What comes after MQTT 5 is answered in its form; all else, and what mosquitto's bridges say, in the oldest.
    for (level, answer) in [0, 1, 2, 0x84]
        .map(|level| (level, &[0x20, 0x02, 0x00, 0x01][..]))
        .into_iter()
        .chain([(6, &[0x20, 0x03, 0x00, 0x84, 0x00][..]), (0x7F, &[0x20, 0x03, 0x00, 0x84, 0x00][..])])
    {
        let mut wire = Wire::open(&server);
        let mut connect = Connect::new(V3_1_1, "c").bytes();
        connect[8] = level;
        wire.send(&connect);
        let answers = wire.ends();
        assert_eq!(answers, [answer], "level {level}");
    }
    for name in [b"MQTX", b"mqtt"] {
        let mut wire = Wire::open(&server);
        let mut connect = Connect::new(V3_1_1, "c").bytes();
        connect[4..8].copy_from_slice(name);
        wire.send(&connect);
        let answers = wire.ends();
        assert!(answers.iter().all(|answer| answer[0] == 0x20 && answer[3] != 0), "{name:?}: {answers:02x?}");
    }
}

#[test]
fn client_ids_of_all_kinds_are_let_in() {
    let server = Server::start();
    let alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let long = "x".repeat(1_000);
    for version in [V3_1, V3_1_1, V5] {
        for id in ["a", &alphabet[..23], &alphabet[23..46], &alphabet[39..], &long, "Grüße/+#", "\u{FEFF}bom"] {
            if version == V3_1 && id.len() > 23 {
                // 3.1 §3.1: identifier rejected.
                assert_eq!(Client::open(&server, &Connect::new(version, id)).1.code, 0x02);
                continue;
            }
            let mut client = Client::clean(&server, version, id);
            client.ping();
        }
    }
}

#[test]
fn a_byte_order_mark_is_part_of_the_text() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "\u{FEFF}a");
        let mut other = Client::clean(server, version, "a");
        client.ping();
        other.subscribe("t", 0);
        client.subscribe("\u{FEFF}t", 0);
        other.tell("\u{FEFF}t", "marked");
        assert_eq!(client.message().topic, "\u{FEFF}t");
        other.hears_nothing_more();
    });
}

#[test]
fn a_client_without_an_id_gets_one_of_its_own() {
    let server = Server::start();
    for version in [V3_1_1, V5] {
        let (mut one, first) = Client::open(&server, &Connect::new(version, ""));
        let (mut two, second) = Client::open(&server, &Connect::new(version, ""));
        assert_eq!((first.code, first.session_present, second.code), (0, false, 0));
        one.ping();
        two.ping();
        let assigned = |connack: &crate::wire::heard::ConnAck| {
            connack.properties.text(property::ASSIGNED_CLIENT_ID).map(str::to_owned)
        };
        if version == V5 {
            let id = assigned(&first).expect("an assigned client id");
            assert_ne!(Some(&id), assigned(&second).as_ref());
            // It is a client id as any other: who comes by it takes over.
            let _thief = Client::clean(&server, V5, &id);
            one.ends_with(0x8E);
        }
    }
}

#[test]
fn no_id_and_a_session_to_keep_is_refused_before_mqtt_5() {
    let server = Server::start();
    let (client, connack) = Client::open(&server, &Connect::new(V3_1_1, "").resume());
    assert_eq!((connack.code, connack.session_present), (2, false));
    assert_eq!(client.ends(), None);
    // MQTT 5 allows it, and says which id it got [MQTT-3.2.2-16].
    let (_, connack) = Client::open(&server, &Connect::new(V5, "").persistent());
    assert_eq!(connack.code, 0);
    assert!(connack.properties.text(property::ASSIGNED_CLIENT_ID).is_some());
}

#[test]
fn connack_says_what_the_server_grants() {
    let config = "[limits]\nmax_qos = 1\nretain_available = false\nmax_packet_size = 5000\nreceive_maximum = 7\n\
        topic_alias_maximum = 3\nmax_keep_alive = 30\nmax_session_expiry = 100\n";
    let server = Server::start_with(config, &[]);
    let connect = Connect::new(V5, "curious").keep_alive(60).property(property::session_expiry(500));
    let (_, connack) = Client::open(&server, &connect);
    let number = |identifier| connack.properties.number(identifier);
    assert_eq!(number(property::MAXIMUM_QOS), Some(1));
    assert_eq!(number(property::RETAIN_AVAILABLE), Some(0));
    assert_eq!(number(property::MAXIMUM_PACKET_SIZE), Some(5000));
    assert_eq!(number(property::RECEIVE_MAXIMUM), Some(7));
    assert_eq!(number(property::TOPIC_ALIAS_MAXIMUM), Some(3));
    assert_eq!(number(property::SERVER_KEEP_ALIVE), Some(30));
    assert_eq!(number(property::SESSION_EXPIRY), Some(100));
    // Nothing of what the client got as it asked for it.
    let (_, connack) = Client::open(&server, &Connect::new(V5, "modest").keep_alive(20));
    assert_eq!(connack.properties.number(property::SERVER_KEEP_ALIVE), None);
    assert_eq!(connack.properties.number(property::SESSION_EXPIRY), None);
    assert_eq!(connack.properties.text(property::ASSIGNED_CLIENT_ID), None);
}

#[test]
fn response_information_is_not_given_unasked() {
    let server = Server::start();
    for ask in [None, Some(0)] {
        let mut connect = Connect::new(V5, "asks");
        if let Some(value) = ask {
            connect = connect.property(property::byte(property::REQUEST_RESPONSE_INFORMATION, value));
        }
        let (_, connack) = Client::open(&server, &connect);
        assert_eq!(connack.properties.text(property::RESPONSE_INFORMATION), None);
    }
}

#[test]
fn a_client_that_wants_no_problem_information_gets_no_reason_strings() {
    let server = Server::start();
    let quiet = Connect::new(V5, "quiet").property(property::byte(property::REQUEST_PROBLEM_INFORMATION, 0));
    let (mut client, _) = Client::connect(&server, &quiet);
    client.send(&Publish { topic: "$SYS/x", qos: 1, id: 1, ..Default::default() }.bytes(V5));
    let mut wire = client.into_wire();
    let answer = wire.packet().unwrap();
    assert_eq!(answer, [0x40, 3, 0, 1, 0x87], "no properties");
}

#[test]
fn a_refusal_says_why_if_the_client_takes_as_much() {
    let server = Server::start();
    for (most, words) in [(100, Some("enhanced authentication is not offered")), (20, None)] {
        let connect = Connect::new(V5, "scram")
            .property(property::text(property::AUTHENTICATION_METHOD, "SCRAM-SHA-1"))
            .property(property::four(property::MAXIMUM_PACKET_SIZE, most));
        let (_, connack) = Client::open(&server, &connect);
        assert_eq!((connack.code, connack.properties.text(property::REASON_STRING)), (0x8C, words));
    }
}

#[test]
fn a_client_that_is_sent_away_reads_why_if_it_takes_as_much() {
    let server = Server::start();
    let why = "malformed PUBLISH: packet identifier is 0, expected 1 to 65535";
    let words = [&[property::REASON_STRING], say::string(why).as_slice()].concat();
    let told = say::packet(0xE0, &[&[0x82], say::with_length(&words).as_slice()].concat());
    for (most, told) in [(80, told.as_slice()), (40, &[0xE0, 1, 0x82])] {
        let connect = Connect::new(V5, "zero").property(property::four(property::MAXIMUM_PACKET_SIZE, most));
        let (mut client, _) = Client::connect(&server, &connect);
        client.send(&Publish { topic: "a", qos: 1, id: 0, ..Default::default() }.bytes(V5));
        assert_eq!(client.into_wire().packet().unwrap(), told);
    }
}

#[test]
fn enhanced_authentication_is_refused() {
    let server = Server::start();
    let connect = Connect::new(V5, "scram").property(property::text(property::AUTHENTICATION_METHOD, "SCRAM-SHA-1"));
    let (client, connack) = Client::open(&server, &connect);
    assert_eq!((connack.code, connack.session_present), (0x8C, false));
    assert_eq!(client.ends(), None);
    // Nobody who gave no method is asked for one, nor may begin.
    let (mut client, connack) = Client::open(&server, &Connect::new(V5, "plain"));
    assert_eq!(connack.properties.text(property::AUTHENTICATION_METHOD), None);
    client.send(&say::packet(0xF0, b"\x18\x04\x15\x00\x01m"));
    client.ends_with(0x82);
}

#[test]
fn a_will_beyond_what_the_server_offers_is_refused() {
    let server = Server::start_with("[limits]\nmax_qos = 1\nretain_available = false\n", &[]);
    let will = Will { topic: "w", payload: b"x", ..Default::default() };
    for (will, code) in
        [(Will { qos: 2, ..will.clone() }, 0x9B), (Will { retain: true, ..will.clone() }, 0x9A), (will, 0)]
    {
        let (client, connack) = Client::open(&server, &Connect::new(V5, "mortal").will(&will));
        assert_eq!(connack.code, code);
        if code != 0 {
            assert_eq!(client.ends(), None);
        }
    }
}

#[test]
fn publications_beyond_what_the_server_offers_end_the_connection() {
    let server = Server::start_with("[limits]\nmax_qos = 1\nretain_available = false\n", &[]);
    for (publish, reason) in [
        (Publish { topic: "a", qos: 2, id: 1, ..Default::default() }, 0x9B),
        (Publish { topic: "a", retain: true, ..Default::default() }, 0x9A),
    ] {
        let mut client = Client::clean(&server, V5, "greedy");
        assert_eq!(client.subscribe("a", 2), 1, "SUBSCRIBE with QoS 2 is granted less [MQTT-3.2.2-10]");
        client.send(&publish.bytes(V5));
        client.ends_with(reason);
    }
}

#[test]
fn a_silent_client_is_closed_at_one_and_a_half_keep_alives() {
    both(|server, version| {
        let (client, _) = Client::connect(server, &Connect::new(version, "silent").keep_alive(1));
        let since = Instant::now();
        client.ends_with(0x8D);
        let waited = since.elapsed();
        assert!(waited >= Duration::from_millis(1_400) && waited < Duration::from_secs(8), "{waited:?}");
    });
}

#[test]
fn the_keep_alive_of_the_server_counts_for_both() {
    let server = Server::start_with("[limits]\nmax_keep_alive = 1\n", &[]);
    let since = Instant::now();
    let (client, connack) = Client::open(&server, &Connect::new(V5, "silent").keep_alive(600));
    assert_eq!(connack.properties.number(property::SERVER_KEEP_ALIVE), Some(1));
    client.ends_with(0x8D);
    assert!(since.elapsed() < Duration::from_secs(8));
}

#[test]
fn whatever_a_client_says_keeps_it_alive() {
    both(|server, version| {
        let (mut client, _) = Client::connect(server, &Connect::new(version, "lively").keep_alive(1));
        client.subscribe("a", 1);
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(2_500) {
            client.tell("a", "x");
            client.message();
            client.ping();
            std::thread::sleep(Duration::from_millis(200));
        }
    });
}

#[test]
fn a_second_connect_ends_the_connection() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "twice");
        client.send(&Connect::new(version, "twice").bytes());
        client.ends_with(0x82);
        // Whatever is wrong with it beside: "unsupported version" is no reason for a DISCONNECT.
        let mut client = Client::clean(server, version, "twice");
        let mut connect = Connect::new(version, "twice").bytes();
        connect[8] = 9;
        client.send(&connect);
        client.ends_with(0x82);
    });
}

#[test]
fn a_newcomer_with_the_same_id_takes_over() {
    both(|server, version| {
        let first = Client::clean(server, version, "same");
        let mut second = Client::clean(server, version, "same");
        first.ends_with(0x8E);
        second.ping();
    });
}

#[test]
fn nothing_follows_the_servers_disconnect() {
    let server = Server::start();
    let mut client = Client::clean(&server, V5, "wrong");
    client.subscribe("a", 0);
    // A protocol error, and behind it a message to itself in the same segment.
    let publish = Publish { topic: "a", ..Default::default() }.bytes(V5);
    client.send(&[say::packet(0x20, &[0, 0, 0]), publish].concat());
    assert_eq!(client.hear(), Heard::Disconnect { reason: 0x82 });
    assert_eq!(client.ends(), None);
}

#[test]
fn user_and_password_are_read_where_they_are_flagged() {
    both(|server, version: Version| {
        let will = Will { topic: "w", payload: b"x", ..Default::default() };
        let connect = Connect::new(version, "user").will(&will).user("someone", "secret");
        let (mut client, _) = Client::connect(server, &connect);
        client.ping();
    });
}
