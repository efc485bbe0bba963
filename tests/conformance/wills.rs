//! Wills: 3.1.1 §3.1.2.5, 5.0 §3.1.2.5 and §3.1.3.2.

use super::both;
use crate::{
    harness::Server,
    wire::{
        client::Client,
        say::{self, Connect, Will, property},
    },
};
use std::time::{Duration, Instant};
use waystation_mqtt::codec::Version::{self, V5};

fn mortal(version: Version) -> Connect {
    Connect::new(version, "mortal").will(&Will { topic: "will", payload: b"gone", qos: 1, ..Default::default() })
}

fn witness(server: &Server, version: Version) -> Client {
    let mut witness = Client::clean(server, version, "witness");
    witness.subscribe("will", 2);
    witness
}

#[test]
fn a_will_is_published_when_the_connection_breaks() {
    both(|server, version| {
        for (qos, retain) in [(0, false), (1, false), (2, false), (2, true)] {
            let mut witness = witness(server, version);
            let will = Will { topic: "will", payload: b"gone", qos, retain, ..Default::default() };
            drop(Client::connect(server, &Connect::new(version, "mortal").will(&will)));
            let heard = witness.message();
            assert_eq!((heard.text(), heard.qos, heard.retain), ("gone", qos, false));
            let mut late = Client::clean(server, version, "late");
            late.subscribe("will", 2);
            if retain {
                assert!(late.message().retain);
            }
            late.hears_nothing_more();
            witness.disconnect();
        }
    });
}

#[test]
fn a_will_is_forgotten_at_a_goodbye() {
    both(|server, version| {
        let mut witness = witness(server, version);
        Client::connect(server, &mortal(version)).0.disconnect();
        // And it is not kept for the next connection of the client.
        drop(Client::connect(server, &Connect::new(version, "mortal")));
        Client::clean(server, version, "mortal").disconnect();
        witness.hears_nothing_more();
    });
}

#[test]
fn a_will_is_published_once() {
    both(|server, version| {
        let mut witness = witness(server, version);
        drop(Client::connect(server, &mortal(version)));
        assert_eq!(witness.message().text(), "gone");
        drop(Client::connect(server, &Connect::new(version, "mortal")));
        Client::clean(server, version, "mortal").disconnect();
        witness.hears_nothing_more();
    });
}

#[test]
fn a_will_is_published_when_the_client_breaks_the_rules_or_is_silent_too_long() {
    both(|server, version| {
        let mut witness = witness(server, version);
        let (mut client, _) = Client::connect(server, &mortal(version));
        client.send(&[0x00, 0x00]);
        client.ends_with(0x81);
        assert_eq!(witness.message().text(), "gone");
        let (client, _) = Client::connect(server, &mortal(version).keep_alive(1));
        client.ends_with(0x8D);
        assert_eq!(witness.message().text(), "gone");
    });
}

#[test]
fn a_will_is_published_when_another_takes_the_session_over() {
    both(|server, version| {
        let mut witness = witness(server, version);
        let (_first, _) = Client::connect(server, &mortal(version));
        let (_second, _) = Client::connect(server, &Connect::new(version, "mortal"));
        assert_eq!(witness.message().text(), "gone");
        witness.hears_nothing_more();
    });
}

#[test]
fn a_disconnect_that_asks_for_the_will_gets_it() {
    let server = Server::start();
    let mut witness = witness(&server, V5);
    let (mut client, _) = Client::connect(&server, &mortal(V5));
    client.send(&say::disconnect(0x04, &[]));
    assert_eq!(client.ends(), None);
    assert_eq!(witness.message().text(), "gone");
}

#[test]
fn a_will_carries_its_properties() {
    let server = Server::start();
    let mut witness = witness(&server, V5);
    let properties = [
        property::text(property::CONTENT_TYPE, "text/plain"),
        property::user("b", "1"),
        property::user("a", "2"),
        property::text(property::RESPONSE_TOPIC, "why"),
    ]
    .concat();
    let will = Will { topic: "will", payload: b"gone", qos: 1, retain: false, properties };
    drop(Client::connect(&server, &Connect::new(V5, "mortal").will(&will)));
    let heard = witness.message();
    assert_eq!(heard.properties.text(property::CONTENT_TYPE), Some("text/plain"));
    assert_eq!(heard.properties.text(property::RESPONSE_TOPIC), Some("why"));
    assert_eq!(heard.properties.user(), ["b=1", "a=2"]);
    assert_eq!(heard.properties.number(property::WILL_DELAY), None, "it is no property of a publication");
}

fn delayed(seconds: u32, session: u32) -> Connect {
    let properties = property::four(property::WILL_DELAY, seconds);
    let will = Will { topic: "will", payload: b"gone", qos: 1, retain: false, properties };
    Connect::new(V5, "mortal").resume().property(property::session_expiry(session)).will(&will)
}

#[test]
fn a_delayed_will_is_never_early() {
    let server = Server::start();
    let mut witness = witness(&server, V5);
    let since = Instant::now();
    drop(Client::connect(&server, &delayed(1, 100)));
    assert_eq!(witness.message().text(), "gone");
    assert!(since.elapsed() >= Duration::from_millis(1_000), "{:?}", since.elapsed());
}

#[test]
fn a_delayed_will_is_not_published_when_its_client_is_back_in_time() {
    let server = Server::start();
    let mut witness = witness(&server, V5);
    drop(Client::connect(&server, &delayed(1, 100)));
    let (back, present) = Client::connect(&server, &Connect::new(V5, "mortal").persistent());
    assert!(present);
    std::thread::sleep(Duration::from_millis(1_500));
    witness.hears_nothing_more();
    back.disconnect();
}

#[test]
fn a_delayed_will_comes_at_the_end_of_its_session_at_the_latest() {
    let server = Server::start();
    let mut witness = witness(&server, V5);
    let since = Instant::now();
    drop(Client::connect(&server, &delayed(600, 1)));
    assert_eq!(witness.message().text(), "gone");
    assert!(since.elapsed() >= Duration::from_millis(900), "{:?}", since.elapsed());
    // And at once when the session ends at once, be it by a clean start of another.
    drop(Client::connect(&server, &delayed(600, 600)));
    let (_clean, _) = Client::connect(&server, &Connect::new(V5, "mortal"));
    assert_eq!(witness.message().text(), "gone");
}
