//! What MQTT 5 carries beside the payload: §3.3.2.3.

use crate::{
    harness::Server,
    wire::{
        client::Client,
        heard::Publication,
        say::{self, PUBCOMP, PUBREC, PUBREL, Publish, property},
    },
};
use std::time::Duration;
use waystation_mqtt::codec::Version::{V3_1_1, V5};

#[test]
fn application_properties_arrive_unaltered_and_user_properties_in_order() {
    let server = Server::start();
    let properties = [
        property::byte(property::PAYLOAD_FORMAT, 1),
        property::user("b", "1"),
        property::text(property::CONTENT_TYPE, "text/plain; charset=\"ü\""),
        property::user("a", "2"),
        property::text(property::RESPONSE_TOPIC, "answers/1"),
        property::text(property::CORRELATION_DATA, "\u{1}binary\u{2}"),
        property::user("b", "1"),
        property::user("", ""),
    ]
    .concat();
    for qos in 0..=2 {
        let mut client = Client::clean(&server, V5, "client");
        client.subscribe("live", 2);
        for (topic, retain) in [("live", false), ("kept", true)] {
            let publish = Publish {
                topic,
                payload: "ü".as_bytes(),
                qos,
                retain,
                properties: properties.clone(),
                id: 0,
                dup: false,
            };
            client.publish(&publish);
        }
        unaltered(&client.message());
        client.subscribe("kept", 2);
        unaltered(&client.message());
        client.disconnect();
    }
}

fn unaltered(heard: &Publication) {
    let properties = &heard.properties;
    assert_eq!(properties.number(property::PAYLOAD_FORMAT), Some(1));
    assert_eq!(properties.text(property::CONTENT_TYPE), Some("text/plain; charset=\"ü\""));
    assert_eq!(properties.text(property::RESPONSE_TOPIC), Some("answers/1"));
    assert_eq!(properties.one(property::CORRELATION_DATA), Some(&b"\x01binary\x02"[..]));
    assert_eq!(properties.user(), ["b=1", "a=2", "b=1", "="]);
}

#[test]
fn an_older_client_gets_the_message_without_properties() {
    let server = Server::start();
    let mut older = Client::clean(&server, V3_1_1, "older");
    older.subscribe("a", 1);
    let mut client = Client::clean(&server, V5, "client");
    let properties = property::user("k", "v");
    client.publish(&Publish { topic: "a", payload: b"x", qos: 1, properties, ..Default::default() });
    assert_eq!(older.message().payload, b"x");
}

#[test]
fn a_payload_that_is_not_the_text_it_says_is_refused() {
    let server = Server::start();
    let mut client = Client::clean(&server, V5, "client");
    client.subscribe("a", 0);
    let wrong = Publish {
        topic: "a",
        payload: b"\xff",
        properties: property::byte(property::PAYLOAD_FORMAT, 1),
        ..Default::default()
    };
    for qos in [1, 2] {
        assert_eq!(client.publish(&Publish { qos, ..wrong.clone() }), 0x99);
    }
    client.hears_nothing_more();
    // QoS 0 has no acknowledgement to say it with.
    client.send(&wrong.bytes(V5));
    client.ends_with(0x99);
}

#[test]
fn message_expiry_runs_while_a_message_waits() {
    let server = Server::start();
    let (mut sleeper, _) = Client::persistent(&server, V5, "sleeper");
    sleeper.subscribe("a", 1);
    sleeper.disconnect();
    let mut client = Client::clean(&server, V5, "client");
    let expiring = |seconds| property::four(property::MESSAGE_EXPIRY, seconds);
    for (text, seconds) in [("brief", 1), ("long", 100)] {
        let publish = Publish { topic: "a", payload: text.as_bytes(), qos: 1, ..Default::default() };
        client.publish(&Publish { properties: expiring(seconds), ..publish });
    }
    let retained = Publish { topic: "kept", payload: b"brief", qos: 1, retain: true, ..Default::default() };
    client.publish(&Publish { properties: expiring(1), ..retained.clone() });
    client.publish(&Publish { topic: "kept/2", properties: expiring(100), ..retained });
    std::thread::sleep(Duration::from_millis(1_300));

    let (mut sleeper, _) = Client::persistent(&server, V5, "sleeper");
    let heard = sleeper.message();
    assert_eq!(heard.text(), "long");
    let left = heard.properties.number(property::MESSAGE_EXPIRY).expect("the time that is left");
    assert!((90..100).contains(&left), "{left}");
    sleeper.hears_nothing_more();
    sleeper.subscribe("kept/#", 1);
    let heard = sleeper.message();
    assert_eq!(heard.topic, "kept/2");
    assert!(heard.properties.number(property::MESSAGE_EXPIRY).is_some_and(|left| (90..100).contains(&left)));
    sleeper.hears_nothing_more();
}

#[test]
fn a_message_under_way_does_not_expire() {
    let server = Server::start();
    let (mut client, _) = Client::persistent(&server, V5, "client");
    client.subscribe("a", 2);
    let properties = property::four(property::MESSAGE_EXPIRY, 1);
    client.publish(&Publish { topic: "a", payload: b"x", qos: 2, properties, ..Default::default() });
    let sent = client.publication();
    drop(client);
    std::thread::sleep(Duration::from_millis(1_300));
    let (mut client, _) = Client::persistent(&server, V5, "client");
    let again = client.message();
    assert_eq!((again.id, again.dup, again.payload), (sent.id, true, sent.payload));
}

#[test]
fn an_exchange_of_qos_2_goes_on_though_its_message_has_expired() {
    let server = Server::start();
    let (mut sleeper, _) = Client::persistent(&server, V5, "sleeper");
    sleeper.subscribe("a", 2);
    sleeper.disconnect();
    let mut client = Client::clean(&server, V5, "client");
    let properties = property::four(property::MESSAGE_EXPIRY, 1);
    client.send(&Publish { topic: "a", qos: 2, id: 3, properties, ..Default::default() }.bytes(V5));
    assert_eq!(client.acknowledged(PUBREC, 3), 0);
    std::thread::sleep(Duration::from_millis(1_300));
    client.send(&say::acknowledge(PUBREL, 3));
    assert_eq!(client.acknowledged(PUBCOMP, 3), 0);
    let (mut sleeper, _) = Client::persistent(&server, V5, "sleeper");
    sleeper.hears_nothing_more();
}
