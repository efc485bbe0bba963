//! Sessions: 3.1.1 §3.1.2.4, 5.0 §3.1.2.4, §3.1.2.11.2, §3.14.2.2.2, §4.1.

use super::both;
use crate::{
    harness::{Server, eventually},
    wire::{
        client::Client,
        say::{self, Connect, Publish, property},
    },
};
use std::time::{Duration, Instant};
use waystation_mqtt::codec::Version::{V3_1_1, V5};

#[test]
fn session_present_says_whether_there_was_one() {
    both(|server, version| {
        let (client, present) = Client::persistent(server, version, "client");
        assert!(!present, "there was none");
        client.disconnect();
        let (client, present) = Client::persistent(server, version, "client");
        assert!(present);
        client.disconnect();
        let (client, present) = Client::connect(server, &Connect::new(version, "client"));
        assert!(!present, "a clean one is new");
        client.disconnect();
        let (_, present) = Client::persistent(server, version, "client");
        assert!(!present, "a clean one ends with its connection");
    });
}

#[test]
fn a_session_keeps_its_subscriptions_and_what_came_meanwhile() {
    both(|server, version| {
        let (mut client, _) = Client::persistent(server, version, "client");
        client.subscribe_with(&[("a", 1), ("b", 2), ("c", 0)], &[]);
        client.disconnect();
        let mut publisher = Client::clean(server, version, "publisher");
        publisher.publish(&Publish { topic: "a", payload: b"1", qos: 1, ..Default::default() });
        publisher.publish(&Publish { topic: "b", payload: b"2", qos: 2, ..Default::default() });
        let (mut client, present) = Client::persistent(server, version, "client");
        assert!(present);
        assert_eq!(client.texts(2), ["1", "2"]);
        publisher.publish(&Publish { topic: "c", payload: b"3", ..Default::default() });
        assert_eq!(client.texts(1), ["3"], "the subscriptions are still there");
    });
}

#[test]
fn a_clean_session_knows_nothing_of_the_one_before() {
    both(|server, version| {
        let (mut client, _) = Client::persistent(server, version, "client");
        client.subscribe("a", 1);
        client.disconnect();
        let mut publisher = Client::clean(server, version, "publisher");
        publisher.tell("a", "old");
        let mut client = Client::clean(server, version, "client");
        publisher.tell("a", "new");
        client.hears_nothing_more();
    });
}

#[test]
fn a_session_lives_on_when_the_connection_breaks() {
    both(|server, version| {
        let (mut client, _) = Client::persistent(server, version, "client");
        client.subscribe("a", 1);
        drop(client);
        let mut publisher = Client::clean(server, version, "publisher");
        publisher.tell("a", "x");
        let (mut client, present) = Client::persistent(server, version, "client");
        assert!(present);
        assert_eq!(client.texts(1), ["x"]);
    });
}

#[test]
fn a_session_walks_between_the_versions() {
    let server = Server::start();
    for (from, to) in [(V3_1_1, V5), (V5, V3_1_1)] {
        let (mut client, _) = Client::persistent(&server, from, "client");
        client.subscribe("a", 1);
        client.disconnect();
        Client::clean(&server, from, "publisher").tell("a", "x");
        let (mut client, present) = Client::persistent(&server, to, "client");
        assert!(present);
        assert_eq!(client.texts(1), ["x"]);
        client.disconnect();
        Client::clean(&server, V5, "client").disconnect();
    }
}

/// Whether a session is there; it is left as it was found for `seconds` more.
fn present(server: &Server, id: &str) -> bool {
    let (client, present) =
        Client::connect(server, &Connect::new(V5, id).resume().property(property::session_expiry(0)));
    client.disconnect();
    present
}

#[test]
fn a_session_ends_when_its_expiry_has_passed() {
    let server = Server::start();
    for (id, expiry) in
        [("none", None), ("zero", Some(0)), ("brief", Some(1)), ("long", Some(100)), ("ever", Some(u32::MAX))]
    {
        let mut connect = Connect::new(V5, id);
        if let Some(seconds) = expiry {
            connect = connect.property(property::session_expiry(seconds));
        }
        Client::connect(&server, &connect).0.disconnect();
    }
    assert!(!present(&server, "none"));
    assert!(!present(&server, "zero"));
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(!present(&server, "brief"));
    assert!(present(&server, "long"));
    assert!(present(&server, "ever"));
}

#[test]
fn expiry_is_changed_at_disconnect_but_not_from_zero() {
    let server = Server::start();
    let connect = |id: &str, seconds| Connect::new(V5, id).property(property::session_expiry(seconds));
    for (id, first, second, kept) in [("ends", 100, 0, false), ("stays", 1, 100, true)] {
        let (mut client, _) = Client::connect(&server, &connect(id, first));
        client.send(&say::disconnect(0, &property::session_expiry(second)));
        assert_eq!(client.ends(), None);
        if kept {
            std::thread::sleep(Duration::from_millis(1_300));
        }
        assert_eq!(present(&server, id), kept, "{id}");
    }
    let (mut client, _) = Client::connect(&server, &connect("zero", 0));
    client.send(&say::disconnect(0, &property::session_expiry(10)));
    client.ends_with(0x82);
}

#[test]
fn expiry_counts_from_the_end_of_the_connection() {
    let server = Server::start();
    let connect = Connect::new(V5, "client").property(property::session_expiry(1));
    let (mut client, _) = Client::connect(&server, &connect);
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(1_500) {
        client.ping();
        std::thread::sleep(Duration::from_millis(100));
    }
    client.disconnect();
    assert!(present(&server, "client"), "its second had only begun");
}

#[test]
fn who_takes_over_gets_what_the_other_did_not_acknowledge() {
    both(|server, version| {
        let (mut first, _) = Client::persistent(server, version, "same");
        first.subscribe("a", 1);
        let mut publisher = Client::clean(server, version, "publisher");
        publisher.tell("a", "x");
        assert!(!first.publication().dup);
        let (mut second, present) = Client::persistent(server, version, "same");
        assert!(present);
        first.ends_with(0x8E);
        let again = second.message();
        assert_eq!((again.text(), again.dup), ("x", true));
    });
}

#[test]
fn an_acknowledgement_that_came_too_late_for_its_connection_counts_once() {
    both(|server, version| {
        let (mut client, _) = Client::persistent(server, version, "client");
        client.subscribe("a", 1);
        client.tell("a", "x");
        let sent = client.publication();
        client.accept(&sent);
        client.accept(&sent);
        client.ping();
        drop(client);
        eventually("nothing comes again", || {
            let (mut client, _) = Client::persistent(server, version, "client");
            client.hears_nothing_more();
            true
        });
    });
}
