//! Hours without the other side, in seconds: what was acknowledged here arrives there, in order.

use super::{bridge, connected, figure, parted, route, site, status};
use crate::{
    clients::{
        Program, V5, V311, curl, mosquitto_pub, mosquitto_pub_lines, mosquitto_sub, mosquitto_sub_to_the_end,
        rest_session,
    },
    harness::{Broker, Cloud, Line, Server, eventually, within},
    restart::read_all,
};
use std::time::Duration;

/// Messages of each of the two levels.
const EACH: usize = 5_000;
const LEVELS: [&str; 2] = ["1", "2"];

/// Numbered messages of both levels, each level on a topic of its own; all acknowledged when this returns.
fn publish(site: &Server, numbers: std::ops::Range<usize>) {
    let lines: Vec<String> = numbers.map(|n| n.to_string()).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    std::thread::scope(|scope| {
        for qos in LEVELS {
            let topic = format!("readings/{qos}");
            let lines = &lines;
            scope.spawn(move || mosquitto_pub_lines(site, V311, &["-t", &topic, "-q", qos], lines));
        }
    });
}

/// Somebody at the cloud who shows what comes, as it comes. At mosquitto with QoS 0: a subscriber that has to acknowledge
/// gets messages in another order than they came in.
fn reader(cloud: &impl Broker, qos: &str) -> Program {
    mosquitto_sub(cloud, V311, &["-q", qos, "-t", "site-a/readings/#", "-F", "%t %p"])
}

/// The numbers behind this beginning, in the order of their coming.
fn numbers(lines: &[String], start: &str) -> Vec<usize> {
    lines.iter().filter_map(|line| line.strip_prefix(start)?.parse().ok()).collect()
}

/// What a reader's lines of one level begin with.
fn reading(qos: &str) -> String {
    format!("site-a/readings/{qos} ")
}

/// Everything has come, in order, QoS 2 once.
fn assert_all(reader: &Program) {
    within(Duration::from_secs(60), "the last of both levels has come", || {
        let lines = reader.lines();
        LEVELS.iter().all(|qos| lines.iter().rev().any(|line| *line == format!("{}{}", reading(qos), EACH - 1)))
    });
    let lines = reader.lines();
    let wanted: Vec<usize> = (0..EACH).collect();
    assert_eq!(numbers(&lines, &reading("2")), wanted, "QoS 2 comes once and in order");
    // At least once: what was under way when a connection broke may come again, from there on in order.
    let mut next = 0;
    for number in numbers(&lines, &reading("1")) {
        assert!(number <= next, "{number} came before {next}");
        next = next.max(number + 1);
    }
    assert_eq!(next, EACH);
}

/// The site is killed in the middle of the outage and in the middle of what follows it.
fn outage(line: &Line, version: &str, far: &impl Broker, reader: &Program) {
    let config = "[limits]\nmax_inflight = 50\n".to_owned()
        + &bridge("cloud", line, version, "")
        + &route("out", "readings/#", "qos = 2\nremote_prefix = \"site-a/\"");
    let site = site(&config);
    line.cut();
    parted(&site, "cloud");
    publish(&site, 0..EACH / 2);
    let site = Server::start_in(site.kill(), &[]).unwrap();
    publish(&site, EACH / 2..EACH);
    eventually("all wait", || figure(&site, "cloud", "queued") == 2 * EACH as u64);
    line.lead_to(far);
    eventually("the backlog drains", || reader.lines().len() > 500);
    let site = Server::start_in(site.kill(), &[]).unwrap();
    assert_all(reader);
    eventually("nothing waits", || figure(&site, "cloud", "queued") == 0);
}

#[test]
fn ten_thousand_messages_of_an_outage_with_kills_arrive_at_mosquitto_over_3_1_1() {
    at_mosquitto(V311);
}

#[test]
fn ten_thousand_messages_of_an_outage_with_kills_arrive_at_mosquitto_over_5() {
    at_mosquitto(V5);
}

fn at_mosquitto(version: &str) {
    let cloud = Cloud::start();
    let line = Line::to(&cloud);
    let reader = reader(&cloud, "0");
    outage(&line, version, &cloud, &reader);
}

#[test]
fn ten_thousand_messages_of_an_outage_with_kills_arrive_at_another_waystation() {
    let cloud = Server::start_with("[limits]\nmax_queued_messages = 100_000\n", &[]);
    let line = Line::to(&cloud);
    let reader = reader(&cloud, "2");
    outage(&line, V5, &cloud, &reader);
}

#[test]
fn a_cloud_that_ends_and_comes_back_gets_what_came_in_between() {
    for version in [V311, V5] {
        let mut cloud = Cloud::start();
        let line = Line::to(&cloud);
        let first = reader(&cloud, "0");
        let config =
            bridge("cloud", &line, version, "") + &route("out", "readings/#", "qos = 2\nremote_prefix = \"site-a/\"");
        let site = site(&config);
        let all = |reader: &Program, last: usize| {
            LEVELS.iter().all(|qos| numbers(&reader.lines(), &reading(qos)).contains(&last))
                && figure(&site, "cloud", "queued") == 0
        };
        publish(&site, 0..100);
        eventually("the first have come", || all(&first, 99));
        // It would come back by itself.
        let before = first.lines();
        drop(first);
        cloud.stop();
        parted(&site, "cloud");
        line.cut();
        publish(&site, 100..200);
        cloud.resume();
        let second = reader(&cloud, "0");
        line.lead_to(&cloud);
        publish(&site, 200..300);
        eventually("all have come", || all(&second, 299));
        for qos in LEVELS {
            let came = [numbers(&before, &reading(qos)), numbers(&second.lines(), &reading(qos))].concat();
            assert_eq!(came, (0..300).collect::<Vec<_>>(), "{version} QoS {qos}");
        }
    }
}

#[test]
fn what_waits_keeps_its_retain_flag_and_its_properties_over_a_kill() {
    let cloud = Cloud::start();
    let line = Line::to(&cloud);
    let site = site(&(bridge("cloud", &line, V5, "") + &route("out", "meters/#", "")));
    line.cut();
    parted(&site, "cloud");
    let properties = ["-D", "publish", "content-type", "text/plain", "-D", "publish", "user-property", "unit", "kWh"];
    mosquitto_pub(&site, V5, &[&["-t", "meters/1", "-r", "-q", "1", "-m", "12.5"], &properties[..]].concat());
    let site = Server::start_in(site.kill(), &[]).unwrap();
    line.lead_to(&cloud);
    eventually("it is sent", || figure(&site, "cloud", "sent") == 1);
    let state = ["-t", "meters/1", "-q", "1", "-C", "1", "-W", "10", "-F", "%r %p %C %P"];
    let state = mosquitto_sub_to_the_end(&cloud, V5, &state);
    assert!(state[0].starts_with("1 12.5 text/plain") && state[0].contains("unit:kWh"), "{state:?}");
}

#[test]
fn messages_of_qos_0_are_not_kept_for_the_other_side() {
    let cloud = Cloud::start();
    let line = Line::to(&cloud);
    let site = site(&(bridge("cloud", &line, V5, "") + &route("out", "#", "qos = 1")));
    line.cut();
    parted(&site, "cloud");
    mosquitto_pub(&site, V5, &["-t", "a", "-q", "0", "-m", "fleeting"]);
    mosquitto_pub(&site, V5, &["-t", "a", "-q", "1", "-m", "kept"]);
    let there = mosquitto_sub(&cloud, V5, &["-t", "a", "-q", "1", "-C", "1"]);
    line.lead_to(&cloud);
    assert_eq!(there.finish(), ["kept"]);
}

#[test]
fn commands_of_an_outage_arrive_when_it_is_over() {
    for version in [V311, V5] {
        let cloud = Cloud::start();
        let line = Line::to(&cloud);
        let site = site(&(bridge("cloud", &line, version, "") + &route("in", "valves/#", "qos = 1")));
        line.cut();
        parted(&site, "cloud");
        let texts: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        let lines: Vec<&str> = texts.iter().map(String::as_str).collect();
        mosquitto_pub_lines(&cloud, version, &["-t", "valves/7", "-q", "1"], &lines[..25]);
        // The site is off as a whole, too.
        let dir = site.kill();
        mosquitto_pub_lines(&cloud, version, &["-t", "valves/7", "-q", "1"], &lines[25..]);
        let site = Server::start_in(dir, &[]).unwrap();
        let here = mosquitto_sub(&site, version, &["-t", "valves/#", "-q", "1", "-C", "50"]);
        line.lead_to(&cloud);
        assert_eq!(here.finish(), lines, "{version}");
    }
}

/// A backlog of commands comes in while the site is killed. Gives the numbers of each level as they are in a session.
fn commands_over_a_kill(cloud: &impl Broker, version: &str) -> [Vec<usize>; 2] {
    let line = Line::to(cloud);
    let site = site(&(bridge("cloud", &line, version, "") + &route("in", "commands", "qos = 2")));
    rest_session(&site, "app", "commands", "");
    line.cut();
    parted(&site, "cloud");
    for qos in LEVELS {
        let texts: Vec<String> = (0..1_000).map(|n| format!("{qos}-{n}")).collect();
        let lines: Vec<&str> = texts.iter().map(String::as_str).collect();
        mosquitto_pub_lines(cloud, V311, &["-t", "commands", "-q", qos], &lines);
    }
    line.lead_to(cloud);
    let queued = |site: &Server| curl(site, "/v1/sessions/app", &[]).json()["queued"].as_u64().unwrap();
    eventually("some have come", || queued(&site) > 300);
    let site = Server::start_in(site.kill(), &[]).unwrap();
    eventually("all have come", || queued(&site) >= 2_000);
    let texts = read_all(&site, "app");
    LEVELS.map(|qos| numbers(&texts, &format!("{qos}-")))
}

#[test]
fn commands_come_in_over_a_kill_and_those_of_qos_2_once() {
    let wanted: Vec<usize> = (0..1_000).collect();
    for version in [V311, V5] {
        let [mut once, mut exactly] = commands_over_a_kill(&Cloud::start(), version);
        // mosquitto gives its subscribers another order.
        exactly.sort_unstable();
        assert_eq!(exactly, wanted, "{version}");
        once.sort_unstable();
        once.dedup();
        assert_eq!(once, wanted, "{version}");
    }
    let [mut once, exactly] = commands_over_a_kill(&Server::start(), V5);
    assert_eq!(exactly, wanted, "exactly once and in order");
    once.sort_unstable();
    once.dedup();
    assert_eq!(once, wanted);
}

#[test]
fn a_clean_start_leaves_the_commands_of_an_outage_behind() {
    let cloud = Cloud::start();
    let line = Line::to(&cloud);
    let site = site(&(bridge("cloud", &line, V5, "clean_start = true") + &route("in", "valves/#", "qos = 1")));
    line.cut();
    parted(&site, "cloud");
    mosquitto_pub(&cloud, V5, &["-t", "valves/7", "-q", "1", "-m", "stale"]);
    let here = mosquitto_sub(&site, V5, &["-t", "valves/#", "-q", "1", "-C", "1"]);
    line.lead_to(&cloud);
    connected(&site, "cloud");
    // It is subscribed a moment after it is connected.
    eventually("a fresh one arrives", || {
        mosquitto_pub(&cloud, V5, &["-t", "valves/7", "-q", "1", "-m", "fresh"]);
        !here.lines().iter().all(|line| line.starts_with("Client ") || line.starts_with("Subscribed "))
    });
    assert_eq!(here.finish(), ["fresh"]);
}

#[test]
fn a_full_queue_loses_the_oldest_and_counts_them() {
    let cloud = Cloud::start();
    let line = Line::to(&cloud);
    let small = "queue = { max_messages = 10, max_bytes = 1_000_000 }";
    let site = site(&(bridge("cloud", &line, V5, small) + &route("out", "readings/#", "")));
    line.cut();
    parted(&site, "cloud");
    let texts: Vec<String> = (0..25).map(|n| n.to_string()).collect();
    let lines: Vec<&str> = texts.iter().map(String::as_str).collect();
    mosquitto_pub_lines(&site, V5, &["-t", "readings/1", "-q", "1"], &lines);
    let seen = status(&site, "cloud");
    assert_eq!((&seen["queued"], &seen["dropped"]), (&10.into(), &15.into()), "{seen}");
    let drops = curl(&site, "/v1/drops", &[]).json();
    let drops = drops["drops"].as_array().unwrap();
    let counted: u64 =
        drops.iter().filter(|drop| drop["topic"] == "readings/1").filter_map(|drop| drop["count"].as_u64()).sum();
    assert_eq!(counted, 15, "{drops:?}");
    let there = mosquitto_sub(&cloud, V5, &["-t", "readings/#", "-q", "1", "-C", "10", "-F", "%p %P"]);
    line.lead_to(&cloud);
    let said = there.finish();
    let texts: Vec<&str> = said.iter().map(|line| line.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(texts, lines[15..]);
    assert!(
        !said.iter().any(|line| line.contains("waystation-missed")),
        "that is between us and our clients: {said:?}"
    );
}

#[test]
fn new_messages_go_behind_the_backlog() {
    let cloud = Cloud::start();
    let line = Line::to(&cloud);
    let site = site(&(bridge("cloud", &line, V5, "") + &route("out", "a", "")));
    line.cut();
    parted(&site, "cloud");
    let texts: Vec<String> = (0..400).map(|n| n.to_string()).collect();
    let lines: Vec<&str> = texts.iter().map(String::as_str).collect();
    mosquitto_pub_lines(&site, V5, &["-t", "a", "-q", "1"], &lines[..200]);
    let there = mosquitto_sub(&cloud, V5, &["-t", "a", "-q", "1", "-C", "400"]);
    line.lead_to(&cloud);
    mosquitto_pub_lines(&site, V5, &["-t", "a", "-q", "1"], &lines[200..]);
    assert_eq!(there.finish(), lines);
}
