//! What crosses, under which name, and what of it.

use super::{bridge, connected, route, site};
use crate::{
    clients::{V5, V311, curl, mosquitto_pub, mosquitto_sub, mosquitto_sub_to_the_end},
    harness::{Cloud, Server, eventually},
};

#[test]
fn messages_go_out_and_come_in_under_their_prefixes() {
    for version in [V311, V5] {
        let cloud = Cloud::start();
        let site = site(
            &(bridge("cloud", &cloud, version, "")
                + &route("out", "sensors/#", "qos = 2\nlocal_prefix = \"here/\"\nremote_prefix = \"site-a/\"")
                + &route("in", "valves/+", "local_prefix = \"here/\"\nremote_prefix = \"commands/\"")),
        );
        for qos in ["0", "1", "2"] {
            let there = mosquitto_sub(&cloud, version, &["-t", "#", "-q", "2", "-C", "1", "-F", "%t %q %p"]);
            mosquitto_pub(&site, version, &["-t", "here/sensors/attic/t", "-q", qos, "-m", "21.5"]);
            assert_eq!(there.finish(), [format!("site-a/sensors/attic/t {qos} 21.5")], "{version}");
        }
        let here = mosquitto_sub(&site, version, &["-t", "#", "-q", "1", "-C", "1", "-F", "%t %q %p"]);
        mosquitto_pub(&cloud, version, &["-t", "commands/valves/7", "-q", "1", "-m", "open"]);
        assert_eq!(here.finish(), ["here/valves/7 1 open"], "{version}");
    }
}

#[test]
fn what_no_route_covers_stays_where_it_is() {
    let cloud = Cloud::start();
    let site = site(&(bridge("cloud", &cloud, V5, "") + &route("out", "out/+", "") + &route("in", "in/+", "")));
    let there = mosquitto_sub(&cloud, V5, &["-t", "#", "-q", "1", "-C", "1", "-F", "%t"]);
    for topic in ["in/a", "out", "out/a/b", "other", "out/a"] {
        mosquitto_pub(&site, V5, &["-t", topic, "-q", "1", "-m", "x"]);
    }
    assert_eq!(there.finish(), ["out/a"]);
    let here = mosquitto_sub(&site, V5, &["-t", "#", "-q", "1", "-C", "1", "-F", "%t"]);
    for topic in ["out/b", "in", "in/a/b", "other", "in/a"] {
        mosquitto_pub(&cloud, V5, &["-t", topic, "-q", "1", "-m", "x"]);
    }
    assert_eq!(here.finish(), ["in/a"]);
}

#[test]
fn a_route_caps_the_qos_both_ways() {
    for version in [V311, V5] {
        let cloud = Cloud::start();
        let site = site(
            &(bridge("cloud", &cloud, version, "")
                + &route("out", "out/0", "qos = 0")
                + &route("out", "out/1", "qos = 1")
                + &route("in", "in/0", "qos = 0")
                + &route("in", "in/1", "qos = 1")),
        );
        for (topic, qos) in [("out/0", "0"), ("out/1", "1")] {
            let there = mosquitto_sub(&cloud, version, &["-t", "#", "-q", "2", "-C", "1", "-F", "%t %q"]);
            mosquitto_pub(&site, version, &["-t", topic, "-q", "2", "-m", "x"]);
            assert_eq!(there.finish(), [format!("{topic} {qos}")]);
        }
        for (topic, qos) in [("in/0", "0"), ("in/1", "1")] {
            let here = mosquitto_sub(&site, version, &["-t", "#", "-q", "2", "-C", "1", "-F", "%t %q"]);
            mosquitto_pub(&cloud, version, &["-t", topic, "-q", "2", "-m", "x"]);
            assert_eq!(here.finish(), [format!("{topic} {qos}")]);
        }
    }
}

#[test]
fn state_crosses_as_state_where_the_route_keeps_it() {
    for version in [V311, V5] {
        let cloud = Cloud::start();
        let config = bridge("cloud", &cloud, version, "")
            + &route("out", "kept/#", "retain = \"keep\"")
            + &route("out", "event/#", "retain = \"strip\"")
            + &route("in", "set/#", "")
            + &route("in", "said/#", "retain = \"strip\"");
        // Set before the bridge came, on either side.
        mosquitto_pub(&cloud, version, &["-t", "set/before", "-r", "-q", "1", "-m", "old"]);
        mosquitto_pub(&cloud, version, &["-t", "said/before", "-r", "-q", "1", "-m", "old"]);
        let server = Server::start();
        mosquitto_pub(&server, version, &["-t", "kept/before", "-r", "-q", "1", "-m", "old"]);
        let (_, dir) = server.stop_and_keep();
        crate::harness::write_config(dir.path(), &config);
        let site = Server::start_in(dir, &[]).unwrap();
        connected(&site, "cloud");

        for topic in ["kept/a", "event/a"] {
            mosquitto_pub(&site, version, &["-t", topic, "-r", "-q", "1", "-m", "new"]);
        }
        // The last of them is there, so the others are.
        let live = mosquitto_sub(&cloud, version, &["-t", "event/last", "-q", "1", "-C", "1"]);
        mosquitto_pub(&site, version, &["-t", "event/last", "-q", "1", "-m", "x"]);
        live.finish();
        let mut there = mosquitto_sub_to_the_end(
            &cloud,
            version,
            &["-t", "kept/#", "-t", "event/#", "-q", "1", "-C", "2", "-W", "10", "-F", "%t %r %p"],
        );
        there.sort();
        assert_eq!(there, ["kept/a 1 new", "kept/before 1 old"], "{version}");

        eventually("the command set before is state here", || curl(&site, "/v1/topics/set/before", &[]).body == "old");
        let said = mosquitto_sub(&site, version, &["-t", "said/a", "-q", "1", "-C", "1"]);
        mosquitto_pub(&cloud, version, &["-t", "said/a", "-r", "-q", "1", "-m", "new"]);
        said.finish();
        for topic in ["said/a", "said/before"] {
            assert_eq!(curl(&site, &format!("/v1/topics/{topic}"), &[]).status, 404, "{version} {topic}");
        }
        // Cleared there, cleared here; with 3.1.1 a live message does not say that it was state.
        if version == V5 {
            mosquitto_pub(&cloud, version, &["-t", "set/a", "-r", "-q", "1", "-m", "new"]);
            eventually("state set there is state here", || curl(&site, "/v1/topics/set/a", &[]).body == "new");
            mosquitto_pub(&cloud, version, &["-t", "set/a", "-r", "-q", "1", "-n"]);
            eventually("and is cleared", || curl(&site, "/v1/topics/set/a", &[]).status == 404);
        }
        assert_eq!(curl(&site, "/v1/topics/kept/a", &["-X", "DELETE"]).status, 204);
        eventually("state cleared here is cleared there", || {
            let arguments = ["-t", "kept/#", "-q", "1", "-C", "1", "-W", "10", "-F", "%t"];
            mosquitto_sub_to_the_end(&cloud, version, &arguments) == ["kept/before"]
        });
    }
}

/// A message with every property a publisher can set, and how mosquitto_sub shows it.
const PROPERTIES: [&str; 24] = [
    "-q",
    "1",
    "-m",
    "21.5",
    "-D",
    "publish",
    "content-type",
    "text/plain",
    "-D",
    "publish",
    "response-topic",
    "answers/7",
    "-D",
    "publish",
    "correlation-data",
    "c7",
    "-D",
    "publish",
    "payload-format-indicator",
    "1",
    "-D",
    "publish",
    "message-expiry-interval",
    "3600",
];
const USER_PROPERTIES: [&str; 10] =
    ["-D", "publish", "user-property", "unit", "C", "-D", "publish", "user-property", "place", "attic"];
const SHOWN: &str = "%p|%C|%R|%D|%F|%E|%P";

/// What mosquitto_sub has shown, the expiry apart: it runs.
fn assert_complete(shown: &[String]) {
    let [line] = shown else { panic!("one message: {shown:?}") };
    let fields: Vec<&str> = line.split('|').collect();
    assert_eq!(fields[..5], ["21.5", "text/plain", "answers/7", "c7", "1"], "{line}");
    let left: u32 = fields[5].parse().unwrap();
    assert!((3_500..=3_600).contains(&left), "{line}");
    let (unit, place) = (fields[6].find("unit:C"), fields[6].find("place:attic"));
    assert!(unit.is_some() && unit < place, "user properties in their order: {line}");
}

#[test]
fn properties_cross_to_mosquitto_and_come_from_it() {
    let cloud = Cloud::start();
    let site = site(&(bridge("cloud", &cloud, V5, "") + &route("out", "out", "") + &route("in", "in", "")));
    let there = mosquitto_sub(&cloud, V5, &["-t", "out", "-q", "1", "-C", "1", "-F", SHOWN]);
    mosquitto_pub(&site, V5, &[&["-t", "out"], &PROPERTIES[..], &USER_PROPERTIES].concat());
    assert_complete(&there.finish());
    let here = mosquitto_sub(&site, V5, &["-t", "in", "-q", "1", "-C", "1", "-F", SHOWN]);
    mosquitto_pub(&cloud, V5, &[&["-t", "in"], &PROPERTIES[..], &USER_PROPERTIES].concat());
    assert_complete(&here.finish());
}

#[test]
fn properties_cross_between_two_waystations() {
    let cloud = Server::start();
    let site = site(&(bridge("cloud", &cloud, V5, "") + &route("both", "shared/#", "")));
    for (from, to) in [(&site, &cloud), (&cloud, &site)] {
        let there = mosquitto_sub(to, V5, &["-t", "shared/a", "-q", "1", "-C", "1", "-F", SHOWN]);
        mosquitto_pub(from, V5, &[&["-t", "shared/a"], &PROPERTIES[..], &USER_PROPERTIES].concat());
        assert_complete(&there.finish());
    }
}

#[test]
fn the_servers_own_topics_never_cross() {
    let cloud = Cloud::start_with("allow_anonymous true\nsys_interval 1");
    let far = Server::start_with("[sys]\ninterval_s = 1\n", &[]);
    let config = "[sys]\ninterval_s = 1\n".to_owned()
        + &bridge("cloud", &cloud, V5, "")
        + &route("out", "#", "remote_prefix = \"site-a/\"")
        + &route("in", "#", "local_prefix = \"cloud/\"")
        + &bridge("far", &far, V5, "")
        + &route("out", "#", "remote_prefix = \"site-a/\"");
    let site = site(&config);
    connected(&site, "far");
    // Long enough for both to have told their figures.
    eventually("its figures are told", || curl(&site, "/v1/topics/$SYS/broker/uptime", &[]).status == 200);
    for broker in [cloud_topics(&cloud, &site), cloud_topics(&far, &site)] {
        assert!(broker.iter().all(|topic| !topic.contains("$SYS")), "{broker:?}");
    }
    let here = curl(&site, "/v1/topics?filter=cloud/%23", &[]);
    assert!(!here.body.contains("$SYS"), "{here:?}");
}

/// All that has come there once a message of now has.
fn cloud_topics(there: &impl crate::harness::Broker, site: &Server) -> Vec<String> {
    let mut all = mosquitto_sub(there, V5, &["-t", "#", "-q", "1", "-F", "%t"]);
    mosquitto_pub(site, V5, &["-t", "now", "-q", "1", "-m", "x"]);
    all.says("site-a/now");
    all.lines()
}
