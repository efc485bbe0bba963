//! What the other side cannot do, or will not.

use super::{bridge, figure, route, site, status};
use crate::{
    clients::{V5, curl, mosquitto_pub, mosquitto_pub_lines, mosquitto_sub, mosquitto_sub_to_the_end},
    harness::{Cloud, Server, eventually},
};

#[test]
fn a_maximum_qos_is_told_at_connect_and_kept_to() {
    let cloud = Cloud::start_with("allow_anonymous true\nmax_qos 1");
    let site = site(&(bridge("cloud", &cloud, V5, "") + &route("out", "a", "qos = 2")));
    eventually("it is told", || site.log().to_lowercase().contains("qos"));
    let there = mosquitto_sub(&cloud, V5, &["-t", "a", "-q", "1", "-C", "1", "-F", "%q %p"]);
    mosquitto_pub(&site, V5, &["-t", "a", "-q", "2", "-m", "lowered"]);
    assert_eq!(there.finish(), ["1 lowered"]);
    assert_eq!(figure(&site, "cloud", "reduced"), 1);
    assert_eq!(status(&site, "cloud")["connected"], true);
}

#[test]
fn a_cloud_that_retains_nothing_gets_events() {
    let cloud = Cloud::start_with("allow_anonymous true\nretain_available false");
    let config = bridge("cloud", &cloud, V5, "") + &route("out", "a", "");
    let site = site(&config);
    eventually("it is told", || site.log().to_lowercase().contains("retain"));
    let there = mosquitto_sub(&cloud, V5, &["-t", "a", "-q", "1", "-C", "1", "-F", "%r %p"]);
    mosquitto_pub(&site, V5, &["-t", "a", "-r", "-q", "1", "-m", "state"]);
    assert_eq!(there.finish(), ["0 state"]);
    assert_eq!(figure(&site, "cloud", "reduced"), 1);
}

#[test]
fn a_message_too_large_for_the_cloud_is_counted_and_the_next_one_follows() {
    let cloud = Cloud::start_with("allow_anonymous true\nmax_packet_size 500");
    let site = site(&(bridge("cloud", &cloud, V5, "") + &route("out", "a", "")));
    let there = mosquitto_sub(&cloud, V5, &["-t", "a", "-q", "1", "-C", "1"]);
    let large = "x".repeat(2_000);
    mosquitto_pub_lines(&site, V5, &["-t", "a", "-q", "1"], &[&large, "small"]);
    assert_eq!(there.finish(), ["small"]);
    assert_eq!(figure(&site, "cloud", "dropped"), 1);
    let drops = curl(&site, "/v1/drops", &[]).json();
    let told = drops["drops"].as_array().unwrap().iter().any(|drop| drop["topic"] == "a" && drop["count"] == 1);
    assert!(told, "{drops}");
    assert_eq!(status(&site, "cloud")["connected"], true);
}

#[test]
fn a_message_that_the_cloud_refuses_becomes_a_dead_letter_and_the_next_one_follows() {
    let rights = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(rights.path(), "topic readwrite free/#\n").unwrap();
    let cloud = Cloud::start_with(&format!("allow_anonymous true\nacl_file {}", rights.path().display()));
    let site = site(&(bridge("cloud", &cloud, V5, "") + &route("out", "#", "qos = 2")));
    let there = mosquitto_sub(&cloud, V5, &["-t", "#", "-q", "1", "-C", "1", "-F", "%t"]);
    for (topic, qos) in [("t/1", "1"), ("t/2", "2"), ("free/t", "1")] {
        mosquitto_pub(&site, V5, &["-t", topic, "-q", qos, "-m", "x"]);
    }
    assert_eq!(there.finish(), ["free/t"]);
    let dead = "/v1/sessions/%24dead%2Fbridge%2Fcloud/messages";
    eventually("both are dead letters", || {
        let answer = curl(&site, dead, &[]);
        answer.status == 200 && answer.json()["messages"].as_array().is_some_and(|list| list.len() == 2)
    });
    let letters = curl(&site, dead, &[]).json();
    let topics: Vec<_> =
        letters["messages"].as_array().unwrap().iter().map(|it| it["topic"].as_str().unwrap()).collect();
    assert_eq!(topics, ["$dead/bridge/cloud/t/1", "$dead/bridge/cloud/t/2"]);
    assert_eq!((status(&site, "cloud")["connected"].clone(), figure(&site, "cloud", "queued")), (true.into(), 0));

    // Who ends their session does away with those that are in it, not with those to come.
    assert_eq!(curl(&site, "/v1/sessions/%24dead%2Fbridge%2Fcloud", &["-X", "DELETE"]).status, 204);
    mosquitto_pub(&site, V5, &["-t", "t/3", "-q", "1", "-m", "x"]);
    eventually("the next is a dead letter too", || {
        let answer = curl(&site, dead, &[]);
        answer.status == 200 && answer.json()["messages"][0]["topic"] == "$dead/bridge/cloud/t/3"
    });
}

#[test]
fn a_cloud_without_room_for_now_gets_the_message_later() {
    let config = "[limits]\nmax_queued_messages = 2\noverflow = \"reject\"\n";
    let cloud = Server::start_with(config, &[]);
    crate::clients::rest_session(&cloud, "slow", "a", "");
    let site = site(&(bridge("cloud", &cloud, V5, "") + &route("out", "a", "")));
    mosquitto_pub_lines(&site, V5, &["-t", "a", "-q", "1"], &["1", "2", "3", "4"]);
    let mut seen = Vec::new();
    let mut after = String::new();
    eventually("all arrive in their order", || {
        let answer = curl(&cloud, &format!("/v1/sessions/slow/messages?{after}"), &[]);
        if answer.status == 200 {
            let page = answer.json();
            seen.extend(
                page["messages"].as_array().unwrap().iter().map(|it| it["payload"].as_str().unwrap().to_owned()),
            );
            after = format!("after={}", page["cursor"].as_str().unwrap());
        }
        seen.len() >= 4
    });
    assert_eq!(seen, ["1", "2", "3", "4"]);
    assert_eq!(figure(&site, "cloud", "dropped"), 0);
}

#[test]
fn a_cloud_that_does_not_answer_is_given_up_and_tried_again() {
    // It takes the connection and says nothing.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("mqtt://{}", deaf.local_addr().unwrap());
    let config = super::bridge_to("cloud", &url, V5, "keep_alive_s = 5") + &route("out", "a", "");
    let site = Server::start_with(&config, &[]);
    eventually("the reason is told", || status(&site, "cloud")["error"].is_string());
    let retained = mosquitto_sub_to_the_end(&site, V5, &["-t", "$SYS/broker/connection/cloud/state", "-C", "1"]);
    assert_eq!(retained, ["0"]);
}
