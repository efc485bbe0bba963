//! Shared subscriptions: 5.0 §4.8.2. MQTT 3.1.1 has them here as well.

use super::both;
use crate::{
    harness::Server,
    wire::{
        client::Client,
        say::{self, PUBACK, PUBREC, Publish},
    },
};
use waystation_mqtt::codec::Version::{self, V5};

const GROUP: &str = "$share/crew/jobs/#";

/// A member with a session that outlives its connection.
fn member(server: &Server, version: Version, id: &str, qos: u8) -> Client {
    let (mut client, _) = Client::persistent(server, version, id);
    assert_eq!(client.subscribe(GROUP, qos), qos);
    client
}

#[test]
fn each_message_goes_to_one_member_with_the_qos_granted_to_it() {
    both(|server, version| {
        let mut members = [0, 1, 2].map(|qos| member(server, version, &format!("member-{qos}"), qos));
        let mut publisher = Client::clean(server, version, "publisher");
        for n in 0..30 {
            publisher.publish(&Publish { topic: "jobs/1", payload: &[n], qos: 2, ..Default::default() });
        }
        let mut heard = Vec::new();
        for (granted, client) in (0..).zip(&mut members) {
            client.subscribe("$last", 0);
            publisher.publish(&Publish { topic: "$last", ..Default::default() });
            loop {
                let message = client.message();
                if message.topic == "$last" {
                    break;
                }
                assert_eq!(message.qos, granted);
                heard.extend(message.payload);
            }
        }
        heard.sort_unstable();
        assert_eq!(heard, (0..30).collect::<Vec<u8>>(), "each once");
    });
}

#[test]
fn a_qos_2_message_under_way_waits_for_its_member_to_come_back() {
    both(|server, version| {
        let mut first = member(server, version, "first", 2);
        let mut publisher = Client::clean(server, version, "publisher");
        publisher.publish(&Publish { topic: "jobs/1", payload: b"once", qos: 2, ..Default::default() });
        let sent = first.publication();
        let mut second = member(server, version, "second", 2);
        drop(first);
        second.hears_nothing_more();
        let (mut first, present) = Client::persistent(server, version, "first");
        assert!(present);
        let again = first.message();
        assert_eq!((again.id, again.dup, again.text()), (sent.id, true, "once"));
        second.hears_nothing_more();
    });
}

#[test]
fn a_qos_2_message_of_a_member_whose_session_ended_goes_to_nobody() {
    both(|server, version| {
        let mut first = member(server, version, "first", 2);
        let mut publisher = Client::clean(server, version, "publisher");
        publisher.publish(&Publish { topic: "jobs/1", payload: b"once", qos: 2, ..Default::default() });
        first.publication();
        let mut second = member(server, version, "second", 2);
        drop(first);
        Client::clean(server, version, "first").disconnect();
        second.hears_nothing_more();
    });
}

#[test]
fn a_qos_1_message_of_a_member_whose_session_ended_goes_to_another() {
    both(|server, version| {
        let mut first = member(server, version, "first", 1);
        Client::clean(server, version, "publisher").tell("jobs/1", "again");
        first.publication();
        let mut second = member(server, version, "second", 1);
        drop(first);
        Client::clean(server, version, "first").disconnect();
        assert_eq!(second.message().text(), "again");
    });
}

#[test]
fn what_a_member_refuses_goes_to_nobody() {
    let server = Server::start();
    for (qos, answer) in [(1, PUBACK), (2, PUBREC)] {
        let mut first = member(&server, V5, "first", qos);
        let mut publisher = Client::clean(&server, V5, "publisher");
        publisher.publish(&Publish { topic: "jobs/1", payload: b"no", qos, ..Default::default() });
        let sent = first.publication();
        let mut second = member(&server, V5, "second", qos);
        first.send(&say::acknowledge_with(answer, sent.id, 0x83));
        first.hears_nothing_more();
        drop(first);
        Client::clean(&server, V5, "first").disconnect();
        second.hears_nothing_more();
        second.disconnect();
        Client::clean(&server, V5, "second").disconnect();
    }
}

#[test]
fn a_new_member_gets_no_retained_messages() {
    both(|server, version| {
        Client::clean(server, version, "publisher").retain("jobs/1", "old");
        member(server, version, "member", 1).hears_nothing_more();
    });
}
