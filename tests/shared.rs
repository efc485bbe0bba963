//! Shared subscriptions (MQTT 5.0 §4.8.2), across clients and roads.

use crate::{
    clients::{V5, V311, curl, do_both, mosquitto_pub, mosquitto_pub_lines, mosquitto_sub, rest_session},
    harness::{Server, eventually},
    wire::client::Client,
};
use waystation_mqtt::codec::Version;

#[test]
fn each_message_goes_to_one_member_and_all_members_get_some() {
    do_both(|server, version| {
        let shared = ["-t", "$share/workers/jobs/+", "-q", "1", "-F", "job %p"];
        let members = [V311, V5, version].map(|version| mosquitto_sub(server, version, &shared));
        let jobs: Vec<String> = (0..30).map(|n| n.to_string()).collect();
        let lines: Vec<&str> = jobs.iter().map(String::as_str).collect();
        mosquitto_pub_lines(server, version, &["-t", "jobs/a", "-q", "1"], &lines);
        let done = || {
            let of = |lines: Vec<String>| lines.into_iter().filter(|line| line.starts_with("job ")).collect::<Vec<_>>();
            [0, 1, 2].map(|member| of(members[member].lines()))
        };
        eventually("every job is done", || done().iter().map(Vec::len).sum::<usize>() == 30);
        let mut all = done().concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 30, "each once");
        assert!(done().iter().all(|jobs| jobs.len() == 10), "in turn");
    });
}

#[test]
fn a_member_that_dies_in_the_middle_leaves_its_messages_to_another() {
    for version in [Version::V3_1_1, Version::V5] {
        let server = Server::start();
        let mut dying = Client::clean(&server, version, "dying");
        dying.subscribe("$share/g/t", 1);
        let mut publisher = Client::clean(&server, version, "publisher");
        for text in ["1", "2", "3"] {
            publisher.tell("t", text);
        }
        // It has them, acknowledges one, and is gone.
        let first = dying.publication();
        dying.publication();
        dying.publication();
        dying.accept(&first);
        let mut heir = Client::clean(&server, version, "heir");
        heir.subscribe("$share/g/t", 1);
        dying.ping();
        drop(dying);
        assert_eq!(heir.texts(2), ["2", "3"]);
        heir.hears_nothing_more();
    }
}

#[test]
fn a_reader_over_http_is_a_member_like_any_other() {
    let server = Server::start();
    rest_session(&server, "reader", "$share/g/t", "");
    let mut member = Client::clean(&server, Version::V5, "member");
    member.subscribe("$share/g/t", 1);
    for n in 0..4 {
        mosquitto_pub(&server, V5, &["-t", "t", "-q", "1", "-m", &n.to_string()]);
    }
    let page = curl(&server, "/v1/sessions/reader/messages", &[]).json();
    let read = page["messages"].as_array().unwrap().len();
    assert_eq!((read, member.texts(2).len()), (2, 2));
    member.hears_nothing_more();
}
