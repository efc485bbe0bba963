//! PUBLISH and its flags: 3.1.1 §3.3, 5.0 §3.3.1.

use super::both;
use crate::{
    harness::Server,
    wire::{client::Client, say::Publish},
};
use waystation_mqtt::codec::Version::{V3_1, V3_1_1, V5};

#[test]
fn messages_arrive_with_the_lower_of_both_qos() {
    both(|server, version| {
        for published in 0..=2 {
            for granted in 0..=2 {
                let mut subscriber = Client::clean(server, version, "subscriber");
                assert_eq!(subscriber.subscribe("a", granted), granted);
                let mut publisher = Client::clean(server, version, "publisher");
                publisher.publish(&Publish { topic: "a", payload: b"x", qos: published, ..Default::default() });
                let heard = subscriber.message();
                assert_eq!((heard.qos, heard.dup, heard.retain), (published.min(granted), false, false));
                publisher.disconnect();
                subscriber.disconnect();
            }
        }
    });
}

#[test]
fn each_version_hears_the_others() {
    let server = Server::start();
    for from in [V3_1, V3_1_1, V5] {
        for to in [V3_1, V3_1_1, V5] {
            let mut subscriber = Client::clean(&server, to, "subscriber");
            subscriber.subscribe("a/+", 2);
            let mut publisher = Client::clean(&server, from, "publisher");
            for qos in 0..=2 {
                publisher.publish(&Publish { topic: "a/b", payload: &[qos], qos, ..Default::default() });
                let heard = subscriber.message();
                assert_eq!((heard.topic.as_str(), heard.payload.as_slice(), heard.qos), ("a/b", &[qos][..], qos));
            }
            publisher.disconnect();
            subscriber.disconnect();
        }
    }
}

#[test]
fn dup_of_the_publisher_is_not_passed_on() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.subscribe("a", 2);
        for qos in [1, 2] {
            client.publish(&Publish { topic: "a", qos, dup: true, ..Default::default() });
            assert!(!client.message().dup);
        }
    });
}

#[test]
fn an_empty_payload_is_a_message() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.subscribe("a", 2);
        for qos in 0..=2 {
            client.publish(&Publish { topic: "a", qos, ..Default::default() });
            assert_eq!(client.message().payload, b"");
        }
    });
}

#[test]
fn a_publication_that_is_not_allowed_reaches_nobody_and_is_answered() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.subscribe("$SYS/mine", 2);
        for qos in [1, 2] {
            let reason = client.publish(&Publish { topic: "$SYS/mine", qos, ..Default::default() });
            // Before MQTT 5 there is no refusal [MQTT-3.3.5-2].
            assert_eq!(reason, if version == V5 { 0x87 } else { 0 });
        }
        client.hears_nothing_more();
    });
}

#[test]
fn a_packet_identifier_is_free_again_after_its_exchange() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.subscribe("a", 0);
        for qos in [1, 2, 1, 2] {
            client.publish(&Publish { topic: "a", qos, id: 7, ..Default::default() });
            client.message();
        }
        client.hears_nothing_more();
    });
}

#[test]
fn a_message_that_nobody_wants_is_acknowledged() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        for qos in [1, 2] {
            let reason = client.publish(&Publish { topic: "nobody", qos, ..Default::default() });
            assert_eq!(reason, if version == V5 { 0x10 } else { 0 });
        }
    });
}
