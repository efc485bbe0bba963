//! Delivery with QoS 1 and 2 both ways, redelivery and order: 3.1.1 and 5.0 §4.3, §4.4, §4.6.

use super::both;
use crate::{
    harness::Server,
    wire::{
        client::Client,
        heard::{Heard, Publication},
        say::{self, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish},
    },
};
use std::collections::HashSet;
use waystation_mqtt::codec::Version::{self, V5};

#[test]
fn each_acknowledgement_carries_the_identifier_of_its_publish() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.subscribe("a", 0);
        for id in [1, 7, 255, 256, 65_535] {
            client.publish(&Publish { topic: "a", qos: 1, id, ..Default::default() });
            client.publish(&Publish { topic: "a", qos: 2, id, ..Default::default() });
            client.message();
            client.message();
        }
    });
}

#[test]
fn acknowledgements_come_in_the_order_of_the_publishes() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.subscribe("nothing", 0);
        for (qos, first) in [(1, PUBACK), (2, PUBREC)] {
            let ids = [5, 3, 9, 1, 200];
            let packets = ids.map(|id| Publish { topic: "a", qos, id, ..Default::default() }.bytes(version));
            client.send(&packets.concat());
            for id in ids {
                client.acknowledged(first, id);
            }
        }
        client.send(&[9, 3].map(|id| say::acknowledge(PUBREL, id)).concat());
        assert_eq!(client.acknowledged(PUBCOMP, 9), 0);
        assert_eq!(client.acknowledged(PUBCOMP, 3), 0);
    });
}

#[test]
fn a_qos_1_identifier_used_again_is_a_new_message() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.subscribe("a", 1);
        for dup in [false, true] {
            let publish = Publish { topic: "a", payload: b"x", qos: 1, id: 4, dup, ..Default::default() };
            client.publish(&publish);
            client.message();
        }
        client.hears_nothing_more();
    });
}

#[test]
fn a_qos_2_publish_sent_again_is_delivered_once() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.subscribe("a", 2);
        let publish = Publish { topic: "a", payload: b"once", qos: 2, id: 4, ..Default::default() };
        for dup in [false, true, true] {
            client.send(&Publish { dup, ..publish.clone() }.bytes(version));
            assert!(client.acknowledged(PUBREC, 4) < 0x80);
        }
        client.send(&say::acknowledge(PUBREL, 4));
        assert_eq!(client.acknowledged(PUBCOMP, 4), 0);
        assert_eq!(client.message().text(), "once");
        client.hears_nothing_more();
        // After PUBCOMP the identifier begins a new message.
        client.publish(&publish);
        assert_eq!(client.message().text(), "once");
        client.hears_nothing_more();
    });
}

#[test]
fn a_qos_2_publish_sent_again_on_a_new_connection_is_delivered_once() {
    both(|server, version| {
        let mut witness = Client::clean(server, version, "witness");
        witness.subscribe("a", 2);
        let (mut client, _) = Client::persistent(server, version, "client");
        let publish = Publish { topic: "a", payload: b"once", qos: 2, id: 4, ..Default::default() };
        client.send(&publish.bytes(version));
        client.acknowledged(PUBREC, 4);
        drop(client);
        let (mut client, present) = Client::persistent(server, version, "client");
        assert!(present);
        client.send(&Publish { dup: true, ..publish }.bytes(version));
        client.acknowledged(PUBREC, 4);
        client.send(&say::acknowledge(PUBREL, 4));
        assert_eq!(client.acknowledged(PUBCOMP, 4), 0);
        assert_eq!(witness.message().text(), "once");
        witness.hears_nothing_more();
    });
}

#[test]
fn a_release_of_nothing_is_completed_all_the_same() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.send(&say::acknowledge(PUBREL, 99));
        let reason = client.acknowledged(PUBCOMP, 99);
        assert_eq!(reason, if version == V5 { 0x92 } else { 0 });
    });
}

#[test]
fn a_refused_qos_2_publish_leaves_its_identifier_free() {
    let server = Server::start();
    let mut client = Client::clean(&server, V5, "client");
    client.subscribe("a", 0);
    assert_eq!(client.publish(&Publish { topic: "$SYS/a", qos: 2, id: 5, ..Default::default() }), 0x87);
    assert!(client.publish(&Publish { topic: "a", payload: b"x", qos: 2, id: 5, ..Default::default() }) < 0x80);
    assert_eq!(client.message().text(), "x");
}

#[test]
fn acknowledgements_nobody_waits_for_change_nothing() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.subscribe("a", 2);
        client.send(&say::acknowledge(PUBACK, 77));
        client.send(&say::acknowledge(PUBCOMP, 78));
        client.ping();
        // PUBREC is answered, so that the other side comes to an end [MQTT-4.3.3-4].
        client.send(&say::acknowledge(PUBREC, 79));
        assert_eq!(client.acknowledged(PUBREL, 79), if version == V5 { 0x92 } else { 0 });
        client.tell("a", "x");
        assert_eq!(client.message().text(), "x");
    });
}

/// A persistent session of `subscriber` with these messages under way: sent and not acknowledged.
fn under_way(server: &Server, version: Version, qos: u8, count: u8) -> (Client, Vec<Publication>) {
    let (mut subscriber, _) = Client::persistent(server, version, "subscriber");
    subscriber.subscribe("a", qos);
    let mut publisher = Client::clean(server, version, "publisher");
    for n in 0..count {
        publisher.publish(&Publish { topic: "a", payload: &[n], qos, ..Default::default() });
    }
    let sent: Vec<_> = (0..count).map(|_| subscriber.publication()).collect();
    assert!(sent.iter().all(|it| !it.dup && it.qos == qos));
    let ids: HashSet<_> = sent.iter().map(|it| it.id).collect();
    assert_eq!(ids.len(), usize::from(count), "each has an identifier of its own");
    (subscriber, sent)
}

#[test]
fn what_was_not_acknowledged_comes_again_in_order_with_its_identifier_and_dup() {
    both(|server, version| {
        for qos in [1, 2] {
            let (subscriber, sent) = under_way(server, version, qos, 5);
            drop(subscriber);
            let (mut subscriber, present) = Client::persistent(server, version, "subscriber");
            assert!(present);
            for before in &sent {
                let again = subscriber.publication();
                assert_eq!(again, Publication { dup: true, ..before.clone() });
                subscriber.accept(&again);
            }
            subscriber.hears_nothing_more();
            // And never a third time.
            subscriber.disconnect();
            let (mut subscriber, _) = Client::persistent(server, version, "subscriber");
            subscriber.hears_nothing_more();
            subscriber.disconnect();
            Client::clean(server, version, "subscriber").disconnect();
        }
    });
}

#[test]
fn nothing_is_sent_again_while_the_connection_lasts() {
    both(|server, version| {
        let (mut subscriber, sent) = under_way(server, version, 1, 3);
        std::thread::sleep(std::time::Duration::from_millis(500));
        subscriber.hears_nothing_more();
        for message in &sent {
            subscriber.accept(message);
        }
        subscriber.ping();
    });
}

#[test]
fn after_pubrec_only_pubrel_is_sent_again() {
    both(|server, version| {
        let (mut subscriber, sent) = under_way(server, version, 2, 2);
        for message in &sent {
            subscriber.send(&say::acknowledge(PUBREC, message.id));
            assert_eq!(subscriber.acknowledged(PUBREL, message.id), 0);
        }
        drop(subscriber);
        let (mut subscriber, _) = Client::persistent(server, version, "subscriber");
        for message in &sent {
            assert_eq!(subscriber.hear(), Heard::Ack { first: PUBREL, id: message.id, reason: 0 });
            subscriber.send(&say::acknowledge(PUBCOMP, message.id));
        }
        subscriber.hears_nothing_more();
        drop(subscriber);
        let (mut subscriber, _) = Client::persistent(server, version, "subscriber");
        subscriber.hears_nothing_more();
    });
}

#[test]
fn releases_come_in_the_order_of_the_pubrecs() {
    both(|server, version| {
        let (mut subscriber, sent) = under_way(server, version, 2, 4);
        let order = [2, 0, 3, 1].map(|n| sent[n].id);
        subscriber.send(&order.map(|id| say::acknowledge(PUBREC, id)).concat());
        for id in order {
            assert_eq!(subscriber.acknowledged(PUBREL, id), 0);
        }
    });
}

#[test]
fn an_identifier_is_not_given_to_another_message_before_it_is_free() {
    both(|server, version| {
        let (mut subscriber, sent) = under_way(server, version, 2, 1);
        let taken = sent[0].id;
        subscriber.send(&say::acknowledge(PUBREC, taken));
        assert_eq!(subscriber.acknowledged(PUBREL, taken), 0);
        let mut publisher = Client::clean(server, version, "other");
        for _ in 0..50 {
            publisher.tell("a", "x");
            assert_ne!(subscriber.message().id, taken);
        }
    });
}

#[test]
fn a_refused_message_is_not_sent_again() {
    let server = Server::start();
    for (qos, first) in [(1, PUBACK), (2, PUBREC)] {
        let (mut subscriber, sent) = under_way(&server, V5, qos, 2);
        subscriber.send(&say::acknowledge_with(first, sent[0].id, 0x83));
        // A refusal ends the exchange: no PUBREL.
        subscriber.ping();
        drop(subscriber);
        let (mut subscriber, _) = Client::persistent(&server, V5, "subscriber");
        let again = subscriber.message();
        assert_eq!((again.payload, again.dup), (sent[1].payload.clone(), true));
        subscriber.hears_nothing_more();
        Client::clean(&server, V5, "subscriber").disconnect();
    }
}

#[test]
fn order_is_kept_for_each_topic_and_qos() {
    const COUNT: usize = 300;
    both(|server, version| {
        let mut subscriber = Client::clean(server, version, "subscriber");
        subscriber.subscribe("a/#", 2);
        let mut publisher = Client::clean(server, version, "publisher");
        let mut bursts = Vec::new();
        for n in 0..COUNT {
            let (qos, topic) = (u8::try_from(n % 2).unwrap(), ["a/x", "a/y"][n / 2 % 2]);
            let (payload, id) = (n.to_string(), u16::try_from(n + 1).unwrap());
            let publish = Publish { topic, payload: payload.as_bytes(), qos, id, ..Default::default() };
            bursts.extend(publish.bytes(version));
        }
        publisher.send(&bursts);
        let heard: Vec<_> = (0..COUNT).map(|_| subscriber.message()).collect();
        for topic in ["a/x", "a/y"] {
            for qos in 0..2 {
                let numbers = heard.iter().filter(|it| it.topic == topic && it.qos == qos);
                let numbers: Vec<usize> = numbers.map(|it| it.text().parse().unwrap()).collect();
                assert_eq!(numbers.len(), COUNT / 4);
                assert!(numbers.is_sorted(), "{topic} QoS {qos}: {numbers:?}");
            }
        }
    });
}
