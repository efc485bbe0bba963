//! Topic names and filters: 3.1.1 and 5.0 §4.7.

use super::both;
use crate::wire::{client::Client, say::Publish};

#[test]
fn filters_match_as_the_specification_says() {
    const FILTERS: [&str; 16] = [
        "sport/tennis/player1/#",
        "sport/#",
        "#",
        "+",
        "sport/+",
        "sport/tennis/+",
        "+/+",
        "/+",
        "+/tennis/#",
        "sport/+/player1",
        "/",
        "a//b",
        "a/+/b",
        "$other/#",
        "$x/+",
        "+/x",
    ];
    const TOPICS: [(&str, &[&str]); 10] = [
        (
            "sport/tennis/player1",
            &["sport/tennis/player1/#", "sport/#", "#", "sport/tennis/+", "+/tennis/#", "sport/+/player1"],
        ),
        ("sport/tennis/player1/ranking", &["sport/tennis/player1/#", "sport/#", "#", "+/tennis/#"]),
        ("sport", &["sport/#", "#", "+"]),
        ("sport/", &["sport/#", "#", "sport/+", "+/+"]),
        ("/finance", &["#", "+/+", "/+"]),
        ("/", &["#", "+/+", "/+", "/"]),
        ("a//b", &["#", "a//b", "a/+/b"]),
        ("$x/y", &["$x/+"]),
        ("$x/x", &["$x/+"]),
        ("Sport", &["#", "+"]),
    ];
    both(|server, version| {
        let mut subscribers: Vec<_> = FILTERS
            .iter()
            .map(|filter| {
                let mut client = Client::clean(server, version, filter.trim_start_matches('$'));
                client.subscribe(filter, 0);
                client
            })
            .collect();
        let mut publisher = Client::clean(server, version, "publisher");
        for (topic, matching) in TOPICS {
            publisher.tell(topic, topic);
            for (filter, client) in FILTERS.iter().zip(&mut subscribers) {
                if matching.contains(filter) {
                    assert_eq!(client.message().topic, topic, "{filter}");
                }
            }
        }
        for (filter, client) in FILTERS.iter().zip(&mut subscribers) {
            eprintln!("{filter} hears nothing else");
            client.unsubscribe(&[filter]);
            client.hears_nothing_more();
        }
    });
}

#[test]
fn names_are_not_normalized() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        // Composed and decomposed, upper and lower case, with and without blanks, slashes and controls.
        let names = ["\u{E9}", "e\u{301}", "E", "e", " e", "e ", "/e", "e/", "//e", "e\u{200D}"];
        let filters: Vec<_> = names.iter().map(|name| (*name, 0)).collect();
        client.subscribe_with(&filters, &[]);
        for name in names {
            client.tell(name, name);
            let heard = client.message();
            assert_eq!((heard.topic.as_str(), heard.text()), (name, name));
        }
        client.unsubscribe(&["e"]);
        for name in names.iter().filter(|name| **name != "e") {
            client.tell(name, "x");
            assert_eq!(client.message().topic, *name);
        }
        client.tell("e", "x");
        client.hears_nothing_more();
    });
}

#[test]
fn the_longest_topic_goes_through() {
    both(|server, version| {
        let mut client = Client::clean(server, version, "client");
        let longest = "t".repeat(65_535);
        client.subscribe(&longest, 1);
        client.publish(&Publish { topic: &longest, payload: b"x", qos: 1, ..Default::default() });
        assert_eq!(client.message().topic, longest);
    });
}

#[test]
fn a_topic_with_a_wildcard_ends_the_connection() {
    both(|server, version| {
        for topic in ["a/+", "#", "a+b"] {
            let mut client = Client::clean(server, version, "client");
            client.send(&Publish { topic, ..Default::default() }.bytes(version));
            client.ends_with(0x90);
        }
    });
}
