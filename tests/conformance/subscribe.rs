//! SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK: 3.1.1 and 5.0 §3.8 to §3.11, and §3.3.4 of 5.0.

use super::both;
use crate::{
    harness::Server,
    wire::{
        client::Client,
        heard::{Heard, Publication},
        say::{self, Publish, property},
    },
};
use waystation_mqtt::codec::Version::{V3_1_1, V5};

/// Bit of the subscription options (5.0 §3.8.3.1).
const NO_LOCAL: u8 = 0x04;

#[test]
fn each_filter_is_answered_in_its_place() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        let filters = [("a", 2), ("$reply/x", 1), ("b/+", 0), ("c/#", 1), ("a", 1)];
        let refused = if version == V5 { 0x87 } else { 0x80 };
        assert_eq!(client.subscribe_with(&filters, &[]), [2, refused, 0, 1, 1]);
    });
}

#[test]
fn acknowledgements_carry_the_identifier_of_their_request() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        for id in [1, 7, 65_535] {
            client.send(&say::subscribe(version, id, &[("a", 0)], &[]));
            assert_eq!(client.hear(), Heard::SubAck { id, reasons: vec![0] });
            client.send(&say::unsubscribe(version, id, &["a", "never"]));
            let reasons = if version == V5 { vec![0, 0x11] } else { vec![] };
            assert_eq!(client.hear(), Heard::UnsubAck { id, reasons });
        }
    });
}

#[test]
fn the_same_filter_again_replaces_the_subscription() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.subscribe("a", 2);
        client.subscribe("a", 0);
        client.publish(&Publish { topic: "a", qos: 2, ..Default::default() });
        assert_eq!(client.message().qos, 0);
        client.hears_nothing_more();
    });
}

#[test]
fn no_message_is_lost_while_a_subscription_is_replaced() {
    both(|server, version| {
        let (mut client, mut publisher) =
            (Client::clean(server, version, "client"), Client::clean(server, version, "publisher"));
        client.subscribe("a", 1);
        for n in 0..40 {
            publisher.tell("a", &n.to_string());
            client.subscribe("a", 1);
        }
        let expected: Vec<_> = (0..40).map(|n| n.to_string()).collect();
        assert_eq!(client.texts(40), expected);
    });
}

#[test]
fn overlapping_subscriptions_give_the_highest_qos_once() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.subscribe_with(&[("a/b", 0), ("a/+", 2), ("#", 1)], &[]);
        client.publish(&Publish { topic: "a/b", qos: 2, ..Default::default() });
        assert_eq!(client.message().qos, 2);
        client.unsubscribe(&["a/b", "a/+", "#"]);
        client.hears_nothing_more();
    });
}

#[test]
fn subscription_identifiers_of_all_matching_subscriptions_come_with_the_message() {
    let server = Server::start();
    let mut client = Client::clean(&server, V5, "client");
    let identifiers = |heard: &Publication| {
        let mut all: Vec<u32> = heard
            .properties
            .all(property::SUBSCRIPTION_IDENTIFIER)
            .iter()
            .map(|bytes| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
            .collect();
        all.sort_unstable();
        all
    };
    client.subscribe_with(&[("a/+", 1)], &property::subscription_identifier(1));
    client.subscribe_with(&[("a/#", 0), ("b", 1)], &property::subscription_identifier(268_435_455));
    client.subscribe("+/x", 1);
    client.tell("a/x", "one copy");
    assert_eq!(identifiers(&client.message()), [1, 268_435_455]);
    client.tell("b", "one identifier");
    assert_eq!(identifiers(&client.message()), [268_435_455]);
    client.tell("z/x", "none");
    assert_eq!(identifiers(&client.message()), [0_u32; 0]);
    // The same filter again replaces the identifier too, or takes it away.
    client.subscribe_with(&[("a/+", 1)], &property::subscription_identifier(5));
    client.subscribe("a/#", 0);
    client.tell("a/x", "replaced");
    assert_eq!(identifiers(&client.message()), [5]);
    client.hears_nothing_more();
}

#[test]
fn a_publish_with_a_subscription_identifier_is_a_protocol_error() {
    let server = Server::start();
    let mut client = Client::clean(&server, V5, "client");
    let properties = property::subscription_identifier(1);
    client.send(&Publish { topic: "a", properties, ..Default::default() }.bytes(V5));
    client.ends_with(0x82);
}

#[test]
fn no_local_leaves_out_what_the_client_itself_published() {
    let server = Server::start();
    let mut client = Client::clean(&server, V5, "client");
    client.subscribe("a", 1 | NO_LOCAL);
    client.tell("a", "mine");
    client.hears_nothing_more();
    Client::clean(&server, V5, "other").tell("a", "theirs");
    assert_eq!(client.message().text(), "theirs");
    client.subscribe("a", 1);
    client.tell("a", "mine");
    assert_eq!(client.message().text(), "mine");
}

#[test]
fn unsubscribing_compares_filters_letter_by_letter() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.subscribe("a/+", 1);
        for filter in ["a/b", "A/+", "a/#", "+/+", "/a/+", "a/+/"] {
            let reasons = client.unsubscribe(&[filter]);
            assert_eq!(reasons, if version == V5 { vec![0x11] } else { vec![] }, "{filter}");
        }
        client.tell("a/b", "still");
        assert_eq!(client.texts(1), ["still"]);
        client.unsubscribe(&["a/+"]);
        client.tell("a/b", "over");
        client.hears_nothing_more();
    });
}

#[test]
fn what_is_under_way_when_unsubscribing_is_brought_to_its_end() {
    both(|server, version| {
        let (mut client, _) = Client::persistent(server, version, "client");
        client.subscribe_with(&[("a", 2), ("b", 1)], &[]);
        client.publish(&Publish { topic: "a", payload: b"two", qos: 2, ..Default::default() });
        client.publish(&Publish { topic: "b", payload: b"one", qos: 1, ..Default::default() });
        let sent = [client.publication(), client.publication()];
        client.unsubscribe(&["a", "b"]);
        drop(client);
        let (mut client, _) = Client::persistent(server, version, "client");
        for before in sent {
            let again = client.message();
            assert_eq!((again.id, again.payload, again.dup), (before.id, before.payload, true));
        }
        client.hears_nothing_more();
    });
}

#[test]
fn several_filters_are_unsubscribed_with_one_answer() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.subscribe_with(&[("a", 0), ("b", 0), ("c", 0)], &[]);
        let reasons = client.unsubscribe(&["a", "never", "c"]);
        assert_eq!(reasons, if version == V5 { vec![0, 0x11, 0] } else { vec![] });
        for topic in ["a", "b", "c"] {
            client.tell(topic, topic);
        }
        assert_eq!(client.texts(1), ["b"]);
        client.hears_nothing_more();
    });
}

#[test]
fn what_the_server_does_not_serve_is_refused() {
    let config = "[limits]\nwildcard_subscriptions = false\nshared_subscriptions = false\n\
        subscription_identifiers = false\n";
    let server = Server::start_with(config, &[]);
    let mut client = Client::clean(&server, V5, "client");
    assert_eq!(client.subscribe_with(&[("a/#", 0), ("$share/g/a", 0), ("a", 1)], &[]), [0xA2, 0x9E, 1]);
    assert_eq!(client.subscribe_with(&[("a", 0)], &property::subscription_identifier(1)), [0xA1]);
    let mut older = Client::clean(&server, V3_1_1, "older");
    assert_eq!(older.subscribe_with(&[("a/#", 0), ("a", 1)], &[]), [0x80, 1]);
}
