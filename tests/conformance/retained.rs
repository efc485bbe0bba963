//! Retained messages: 3.1.1 §3.3.1.3, 5.0 §3.3.1.3 and §3.8.3.1.

use super::both;
use crate::{
    harness::Server,
    wire::{
        client::Client,
        say::{Connect, Publish},
    },
};
use waystation_mqtt::codec::Version::V5;

/// Bits of the subscription options (5.0 §3.8.3.1).
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const ONLY_IF_NEW: u8 = 0x10;
const NEVER: u8 = 0x20;

#[test]
fn a_new_subscriber_gets_the_last_retained_message_of_each_topic() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.retain("a/1", "old");
        client.retain("a/1", "new");
        client.retain("a/2", "two");
        client.retain("b", "other");
        client.subscribe("a/+", 1);
        let mut heard: Vec<_> = (0..2).map(|_| client.message()).collect();
        heard.sort_by(|x, y| x.topic.cmp(&y.topic));
        let shown: Vec<_> = heard.iter().map(|it| (it.topic.as_str(), it.text(), it.retain, it.qos)).collect();
        assert_eq!(shown, [("a/1", "new", true, 1), ("a/2", "two", true, 1)]);
        client.hears_nothing_more();
    });
}

#[test]
fn who_is_subscribed_already_gets_it_without_the_flag() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.subscribe("a", 1);
        client.retain("a", "x");
        assert!(!client.message().retain);
    });
}

#[test]
fn an_empty_retained_message_clears_the_topic_and_is_heard_as_any_other() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.retain("a", "x");
        client.subscribe("a", 1);
        assert_eq!(client.message().text(), "x");
        client.retain("a", "");
        assert_eq!(client.message().text(), "");
        let mut late = Client::clean(server, version, "late");
        late.subscribe("a", 1);
        late.hears_nothing_more();
    });
}

#[test]
fn a_message_without_the_flag_leaves_the_retained_one_alone() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.tell("never", "x");
        client.retain("a", "kept");
        client.tell("a", "passing");
        client.tell("a", "");
        client.subscribe_with(&[("never", 1), ("a", 1)], &[]);
        assert_eq!(client.message().text(), "kept");
        client.hears_nothing_more();
    });
}

#[test]
fn a_retained_message_of_qos_0_replaces_the_one_before() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.retain("a", "old");
        client.publish(&Publish { topic: "a", payload: b"new", retain: true, ..Default::default() });
        client.subscribe("a", 2);
        let heard = client.message();
        assert_eq!((heard.text(), heard.qos, heard.retain), ("new", 0, true));
    });
}

#[test]
fn a_retained_message_is_sent_with_the_lower_of_both_qos() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.publish(&Publish { topic: "a", payload: b"x", qos: 2, retain: true, ..Default::default() });
        for granted in 0..=2 {
            client.subscribe("a", granted);
            assert_eq!(client.message().qos, granted);
        }
    });
}

#[test]
fn the_same_subscription_again_gets_the_retained_messages_again() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        client.retain("a", "x");
        for _ in 0..2 {
            client.subscribe("a", 1);
            assert!(client.message().retain);
        }
        client.hears_nothing_more();
    });
}

#[test]
fn retained_messages_outlive_the_session_that_sent_them() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "publisher");
        client.retain("a", "x");
        client.disconnect();
        let (again, present) = Client::connect(server, &Connect::new(version, "publisher"));
        assert!(!present);
        again.disconnect();
        let mut late = Client::clean(server, version, "late");
        late.subscribe("a", 1);
        assert_eq!(late.message().text(), "x");
    });
}

#[test]
fn retain_handling_says_when_retained_messages_are_sent() {
    let server = Server::start();
    let mut client = Client::clean(&server, V5, "client");
    client.retain("a", "x");
    client.subscribe("a", 1 | NEVER);
    client.hears_nothing_more();
    client.subscribe("a", 1 | ONLY_IF_NEW);
    client.hears_nothing_more();
    client.subscribe("a", 1);
    assert!(client.message().retain);
    client.unsubscribe(&["a"]);
    client.subscribe("a", 1 | ONLY_IF_NEW);
    assert!(client.message().retain);
    client.hears_nothing_more();
}

#[test]
fn retain_as_published_keeps_the_flag() {
    let server = Server::start();
    let mut client = Client::clean(&server, V5, "client");
    client.subscribe_with(&[("a", 1 | RETAIN_AS_PUBLISHED), ("b", 1)], &[]);
    client.retain("a", "x");
    assert!(client.message().retain);
    client.tell("a", "x");
    assert!(!client.message().retain);
    client.retain("b", "x");
    assert!(!client.message().retain);
}
