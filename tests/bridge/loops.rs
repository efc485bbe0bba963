//! Nothing goes in circles.

use super::{bridge, connected, figure, route, site};
use crate::{
    clients::{V5, mosquitto_pub, mosquitto_sub},
    harness::{Cloud, Line, Server, eventually},
};
use std::time::Duration;

/// All that these bridges have carried so far.
fn carried(bridges: &[(&Server, &str)]) -> u64 {
    bridges.iter().map(|(server, name)| figure(server, name, "sent") + figure(server, name, "received")).sum()
}

/// It comes to rest: nothing is carried for a while.
fn comes_to_rest(bridges: &[(&Server, &str)]) -> u64 {
    let mut before = carried(bridges);
    eventually("the bridges come to rest", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = carried(bridges);
        std::mem::replace(&mut before, now) == now
    });
    before
}

#[test]
fn a_bridge_does_not_take_back_what_it_brought() {
    let cloud = Cloud::start();
    let site = site(&(bridge("cloud", &cloud, V5, "") + &route("both", "shared/#", "qos = 1")));
    let there = mosquitto_sub(&cloud, V5, &["-t", "shared/#", "-q", "1", "-C", "2"]);
    let here = mosquitto_sub(&site, V5, &["-t", "shared/#", "-q", "1", "-C", "2"]);
    mosquitto_pub(&site, V5, &["-t", "shared/a", "-q", "1", "-m", "of the site"]);
    eventually("it is there", || there.lines().iter().any(|line| line == "of the site"));
    mosquitto_pub(&cloud, V5, &["-t", "shared/a", "-q", "1", "-m", "of the cloud"]);
    assert_eq!(there.finish(), ["of the site", "of the cloud"]);
    assert_eq!(here.finish(), ["of the site", "of the cloud"]);
    assert_eq!(comes_to_rest(&[(&site, "cloud")]), 2);
}

#[test]
fn two_bridges_in_a_ring_do_not_loop() {
    let way = Line::cut_off();
    let shared = route("both", "ring/#", "qos = 1");
    let one = Server::start_with(&(bridge("other", &way, V5, "") + &shared), &[]);
    let other = Server::start_with(&(bridge("one", &one, V5, "") + &shared), &[]);
    way.lead_to(&other);
    connected(&one, "other");
    connected(&other, "one");
    let at_one = mosquitto_sub(&one, V5, &["-t", "ring/#", "-q", "1"]);
    let at_other = mosquitto_sub(&other, V5, &["-t", "ring/#", "-q", "1"]);
    for n in 0..5 {
        mosquitto_pub(&one, V5, &["-t", "ring/a", "-q", "1", "-m", &format!("one {n}")]);
        mosquitto_pub(&other, V5, &["-t", "ring/a", "-q", "1", "-m", &format!("other {n}")]);
    }
    for text in ["one 4", "other 4"] {
        for reader in [&at_one, &at_other] {
            eventually("it is on both sides", || reader.lines().iter().any(|line| line == text));
        }
    }
    // Each message crosses by each of the two bridges and once comes back, and no further.
    let carried = comes_to_rest(&[(&one, "other"), (&other, "one")]);
    assert!(carried <= 40, "{carried}");
    for reader in [&at_one, &at_other] {
        for n in 0..5 {
            for from in ["one", "other"] {
                let times = reader.lines().iter().filter(|line| **line == format!("{from} {n}")).count();
                assert!((1..=3).contains(&times), "{from} {n} came {times} times: {:?}", reader.lines());
            }
        }
    }
}

#[test]
fn three_bridges_in_a_ring_do_not_loop() {
    let way = Line::cut_off();
    let onward = |name: &str, far: &dyn Fn(&str) -> String| far(name) + &route("out", "ring/#", "qos = 1");
    let one = Server::start_with(&onward("two", &|name| bridge(name, &way, V5, "")), &[]);
    let three = Server::start_with(&onward("one", &|name| bridge(name, &one, V5, "")), &[]);
    let two = Server::start_with(&onward("three", &|name| bridge(name, &three, V5, "")), &[]);
    way.lead_to(&two);
    let all = [(&one, "two"), (&two, "three"), (&three, "one")];
    all.iter().for_each(|(server, name)| connected(server, name));
    let last = mosquitto_sub(&three, V5, &["-t", "ring/#", "-q", "1", "-C", "1"]);
    mosquitto_pub(&one, V5, &["-t", "ring/a", "-q", "1", "-m", "round"]);
    assert_eq!(last.finish(), ["round"]);
    let carried = comes_to_rest(&all);
    assert!((2..=3).contains(&carried), "once round at the most: {carried}");
}

#[test]
fn two_sites_bridged_to_one_topic_hear_each_other_once() {
    for waystation in [false, true] {
        let (mosquitto, server) = (Cloud::start(), Server::start());
        let table = |id: &str| {
            let far = if waystation { bridge("cloud", &server, V5, "") } else { bridge("cloud", &mosquitto, V5, "") };
            far.replace("site-cloud", id) + &route("both", "shared/#", "qos = 1")
        };
        let (one, two) = (site(&table("site-1")), site(&table("site-2")));
        let readers = [&one, &two].map(|site| mosquitto_sub(site, V5, &["-t", "shared/#", "-q", "1"]));
        mosquitto_pub(&one, V5, &["-t", "shared/a", "-q", "1", "-m", "of one"]);
        mosquitto_pub(&two, V5, &["-t", "shared/a", "-q", "1", "-m", "of two"]);
        for reader in &readers {
            for text in ["of one", "of two"] {
                eventually("both hear both", || reader.lines().iter().any(|line| line == text));
            }
        }
        assert_eq!(comes_to_rest(&[(&one, "cloud"), (&two, "cloud")]), 4);
        for reader in readers {
            assert_eq!(reader.lines().iter().filter(|line| line.starts_with("of ")).count(), 2, "{:?}", reader.lines());
        }
    }
}
