//! Flow control, packet sizes and topic aliases of MQTT 5: §3.1.2.11, §3.3.2.3.4, §3.3.4, §4.9.

use crate::{
    clients::curl,
    harness::{Server, eventually},
    wire::{
        client::Client,
        heard::Publication,
        say::{self, Connect, PUBREC, PUBREL, Publish, property},
    },
};
use waystation_mqtt::codec::Version::V5;

fn receive_maximum(value: u16) -> Vec<u8> {
    property::two(property::RECEIVE_MAXIMUM, value)
}

#[test]
fn no_more_is_under_way_than_the_client_takes() {
    let server = Server::start();
    let connect = Connect::new(V5, "narrow").property(receive_maximum(2));
    let (mut narrow, _) = Client::connect(&server, &connect);
    narrow.subscribe_with(&[("a", 2), ("plain", 0)], &[]);
    let mut publisher = Client::clean(&server, V5, "publisher");
    for n in 0..5 {
        publisher.publish(&Publish { topic: "a", payload: &[n], qos: 1 + n % 2, ..Default::default() });
    }
    let held = [narrow.publication(), narrow.publication()];
    // Everything else goes on: QoS 0, PINGRESP, SUBACK [MQTT-3.3.4-10], [MQTT-4.9.0-3].
    publisher.publish(&Publish { topic: "plain", payload: b"p", ..Default::default() });
    assert_eq!(narrow.publication().topic, "plain");
    narrow.ping();
    narrow.hears_nothing_more();
    // One comes for each that is done; a QoS 2 is done at PUBCOMP, not before.
    narrow.accept(&held[0]);
    let third = narrow.publication();
    assert_eq!((held[1].qos, third.payload.as_slice()), (2, &[2][..]));
    narrow.send(&say::acknowledge(PUBREC, held[1].id));
    assert_eq!(narrow.acknowledged(PUBREL, held[1].id), 0);
    narrow.hears_nothing_more();
    narrow.send(&say::acknowledge(say::PUBCOMP, held[1].id));
    assert_eq!(narrow.publication().payload, [3]);
    narrow.hears_nothing_more();
}

#[test]
fn a_smaller_window_after_reconnecting_is_obeyed() {
    let server = Server::start();
    let (mut client, _) = Client::persistent(&server, V5, "client");
    client.subscribe("a", 1);
    let mut publisher = Client::clean(&server, V5, "publisher");
    for n in 0..4 {
        publisher.publish(&Publish { topic: "a", payload: &[n], qos: 1, ..Default::default() });
    }
    for _ in 0..4 {
        client.publication();
    }
    drop(client);
    let connect = Connect::new(V5, "client").persistent().property(receive_maximum(1));
    let (mut client, _) = Client::connect(&server, &connect);
    for n in 0..4 {
        let heard = client.publication();
        assert_eq!((heard.payload.as_slice(), heard.dup), (&[n][..], true));
        client.ping();
        client.accept(&heard);
    }
}

#[test]
fn more_than_the_server_takes_is_told_before_the_close() {
    let server = Server::start_with("[limits]\nreceive_maximum = 3\n", &[]);
    let mut client = Client::clean(&server, V5, "pushy");
    let publish = |id| Publish { topic: "a", qos: 2, id, ..Default::default() }.bytes(V5);
    for id in 1..=3 {
        client.send(&publish(id));
        client.acknowledged(PUBREC, id);
    }
    // Two in one segment behind it: the word is readable all the same.
    client.send(&[publish(4), publish(5)].concat());
    client.ends_with(0x93);
}

#[test]
fn the_server_has_room_again_once_it_has_answered() {
    let server = Server::start_with("[limits]\nreceive_maximum = 1\n", &[]);
    let mut client = Client::clean(&server, V5, "polite");
    for n in 0..20 {
        client.publish(&Publish { topic: "a", qos: 1 + n % 2, ..Default::default() });
        // A refused one is over as well.
        assert_eq!(client.publish(&Publish { topic: "$SYS/a", qos: 2, ..Default::default() }), 0x87);
    }
}

#[test]
fn a_message_too_large_for_a_client_is_left_out_and_counted() {
    let server = Server::start();
    let connect = Connect::new(V5, "small").property(property::four(property::MAXIMUM_PACKET_SIZE, 40));
    let (mut small, _) = Client::connect(&server, &connect);
    small.subscribe("a", 2);
    let mut roomy = Client::clean(&server, V5, "roomy");
    roomy.subscribe("a", 2);
    let large = [b'x'; 100];
    let mut publisher = Client::clean(&server, V5, "publisher");
    for qos in 0..=2 {
        publisher.publish(&Publish { topic: "a", payload: &large, qos, ..Default::default() });
        publisher.publish(&Publish { topic: "a", payload: b"fits", qos, ..Default::default() });
        assert_eq!(roomy.message().payload, large);
        assert_eq!(roomy.message().text(), "fits");
        let heard = small.message();
        assert!(heard.size <= 40 && heard.text() == "fits", "{heard:?}");
    }
    let metrics = curl(&server, "/v1/sessions/small", &[]);
    if metrics.status == 200 {
        eventually("the drops are counted", || curl(&server, "/v1/sessions/small", &[]).json()["dropped"] == 3);
    }
}

#[test]
fn a_packet_of_exactly_the_clients_maximum_is_sent() {
    let server = Server::start();
    let mut plain = Client::clean(&server, V5, "plain");
    plain.subscribe("a", 1);
    plain.tell("a", "0123456789");
    let size = u32::try_from(plain.message().size).unwrap();
    for (maximum, arrives) in [(size, true), (size - 1, false)] {
        let connect = Connect::new(V5, "exact").property(property::four(property::MAXIMUM_PACKET_SIZE, maximum));
        let (mut exact, _) = Client::connect(&server, &connect);
        exact.subscribe("a", 1);
        plain.tell("a", "0123456789");
        plain.message();
        if arrives {
            exact.message();
        }
        exact.hears_nothing_more();
        exact.disconnect();
    }
}

fn alias(value: u16) -> Vec<u8> {
    property::two(property::TOPIC_ALIAS, value)
}

#[test]
fn an_alias_stands_for_its_topic_until_it_is_set_anew() {
    let server = Server::start_with("[limits]\ntopic_alias_maximum = 2\n", &[]);
    let mut client = Client::clean(&server, V5, "client");
    client.subscribe("+", 1);
    let steps = [("a", 1, "a"), ("", 1, "a"), ("b", 2, "b"), ("", 1, "a"), ("", 2, "b"), ("c", 1, "c"), ("", 1, "c")];
    for (topic, number, means) in steps {
        client.publish(&Publish { topic, qos: 1, properties: alias(number), ..Default::default() });
        let heard = client.message();
        assert_eq!(heard.topic, means);
        assert_eq!(heard.properties.number(property::TOPIC_ALIAS), None, "it asked for none [MQTT-3.1.2-27]");
    }
}

#[test]
fn aliases_the_server_does_not_know_end_the_connection() {
    let server = Server::start_with("[limits]\ntopic_alias_maximum = 2\n", &[]);
    for (topic, number, reason) in [("a", 3, 0x94), ("a", 0, 0x94), ("", 1, 0x82)] {
        let mut client = Client::clean(&server, V5, "client");
        client.send(&Publish { topic, properties: alias(number), ..Default::default() }.bytes(V5));
        client.ends_with(reason);
    }
}

#[test]
fn an_alias_does_not_outlive_its_connection() {
    let server = Server::start();
    let (mut client, _) = Client::persistent(&server, V5, "client");
    client.publish(&Publish { topic: "a", qos: 1, properties: alias(1), ..Default::default() });
    client.disconnect();
    let (mut client, present) = Client::persistent(&server, V5, "client");
    assert!(present);
    client.send(&Publish { topic: "", qos: 1, id: 9, properties: alias(1), ..Default::default() }.bytes(V5));
    client.ends_with(0x82);
}

#[test]
fn the_servers_aliases_keep_to_the_clients_maximum_and_stand_for_the_right_topics() {
    let server = Server::start();
    let connect = Connect::new(V5, "client").property(property::two(property::TOPIC_ALIAS_MAXIMUM, 3));
    let (mut client, _) = Client::connect(&server, &connect);
    client.subscribe("topic/+", 1);
    let mut publisher = Client::clean(&server, V5, "publisher");
    let mut known: [Option<String>; 4] = Default::default();
    let mut used = 0;
    for round in 0..4 {
        for n in 0..6 {
            let topic = format!("topic/{n}");
            publisher.tell(&topic, &round.to_string());
            let heard = client.message();
            assert_eq!(meaning(&heard, &mut known, &mut used), topic);
        }
    }
    assert!(used > 0, "aliases are used");
}

#[test]
fn a_qos_2_message_always_has_its_name() {
    // Some clients forget at PUBREL what an alias alone stood for.
    let server = Server::start();
    let connect = Connect::new(V5, "client").property(property::two(property::TOPIC_ALIAS_MAXIMUM, 3));
    let (mut client, _) = Client::connect(&server, &connect);
    client.subscribe("topic/+", 2);
    for _ in 0..3 {
        client.publish(&Publish { topic: "topic/1", qos: 2, ..Default::default() });
        assert_eq!(client.message().topic, "topic/1");
    }
}

/// The topic that a client understands.
fn meaning(heard: &Publication, known: &mut [Option<String>; 4], used: &mut u32) -> String {
    let Some(alias) = heard.properties.number(property::TOPIC_ALIAS) else { return heard.topic.clone() };
    assert!((1..=3).contains(&alias), "{heard:?}");
    let place = &mut known[alias as usize];
    if heard.topic.is_empty() {
        *used += 1;
        place.clone().expect("an alias that was introduced")
    } else {
        place.insert(heard.topic.clone()).clone()
    }
}

#[test]
fn a_packet_larger_than_the_server_takes_ends_the_connection() {
    let server = Server::start_with("[limits]\nmax_packet_size = 1000\n", &[]);
    let mut client = Client::clean(&server, V5, "large");
    client.send(&Publish { topic: "a", payload: &[0; 1_000], ..Default::default() }.bytes(V5));
    client.ends_with(0x95);
}
