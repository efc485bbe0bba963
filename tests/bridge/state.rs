//! How a bridge stands, for everybody who asks, and how operators turn it.

use super::{bridge, connected, figure, parted, route, site, status};
use crate::{
    clients::{V5, V311, curl, mosquitto_pub, mosquitto_sub, mosquitto_sub_to_the_end},
    harness::{Broker, Cloud, Line, Server, eventually},
};

/// Retained, on a broker.
fn state(broker: &impl Broker, topic: &str) -> String {
    let arguments = ["-t", topic, "-q", "1", "-C", "1", "-W", "1", "-F", "%r %p"];
    let mut command = crate::clients::mosquitto("mosquitto_sub", broker, V5);
    let output = command.args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn local_state(site: &Server) -> String {
    curl(site, "/v1/topics/$SYS/broker/connection/cloud/state", &[]).body
}

#[test]
fn the_state_is_right_on_both_sides_through_ten_reconnects_over_3_1_1() {
    through_ten_reconnects(V311);
}

#[test]
fn the_state_is_right_on_both_sides_through_ten_reconnects_over_5() {
    through_ten_reconnects(V5);
}

fn through_ten_reconnects(version: &str) {
    let cloud = Cloud::start();
    let line = Line::to(&cloud);
    let config = bridge("cloud", &line, version, "state_topic = \"sites/a/state\"") + &route("out", "a", "");
    let site = site(&config);
    let told = mosquitto_sub(&cloud, version, &["-t", "sites/a/state", "-q", "1", "-F", "told %p"]);
    for round in 1..=10 {
        eventually("both sides say 1", || local_state(&site) == "1" && state(&cloud, "sites/a/state") == "1 1");
        // After a connection that was of no use the pause would grow.
        mosquitto_pub(&site, version, &["-t", "a", "-q", "1", "-m", "x"]);
        eventually("the connection is of use", || figure(&site, "cloud", "sent") == round);
        line.cut();
        eventually("both sides say 0", || local_state(&site) == "0" && state(&cloud, "sites/a/state") == "1 0");
        line.lead_to(&cloud);
    }
    let said = || told.lines().into_iter().filter(|line| line.starts_with("told ")).collect::<Vec<_>>();
    eventually("the last is told", || said().len() == 21);
    let wanted: Vec<&str> = (0..21).map(|n| if n % 2 == 0 { "told 1" } else { "told 0" }).collect();
    assert_eq!(said(), wanted);
}

#[test]
fn the_state_begins_with_0_and_ends_with_it() {
    let cloud = Cloud::start();
    let line = Line::cut_off();
    let config = bridge("cloud", &line, V5, "state_topic = \"sites/a/state\"") + &route("out", "a", "");
    let site = Server::start_with(&config, &[]);
    eventually("it begins with 0", || local_state(&site) == "0");
    line.lead_to(&cloud);
    connected(&site, "cloud");
    eventually("it is 1", || state(&cloud, "sites/a/state") == "1 1");
    assert!(site.stop().success());
    assert_eq!(state(&cloud, "sites/a/state"), "1 0", "a stop in order says so");
}

#[test]
fn it_is_switched_off_and_on_over_the_api_and_keeps_what_comes_in_between() {
    let cloud = Cloud::start();
    let config = bridge("cloud", &cloud, V5, "state_topic = \"sites/a/state\"") + &route("out", "a", "");
    let site = site(&config);
    let there = mosquitto_sub(&cloud, V5, &["-t", "a", "-q", "1", "-C", "2"]);
    let switch = |on: bool| {
        let body = format!(r#"{{"enabled":{on}}}"#);
        let answer = curl(&site, "/v1/gateways/cloud", &["-X", "PUT", "--data", &body]);
        assert_eq!((answer.status, &answer.json()["enabled"]), (200, &on.into()), "{answer:?}");
    };
    switch(false);
    eventually("both sides say 0", || local_state(&site) == "0" && state(&cloud, "sites/a/state") == "1 0");
    mosquitto_pub(&site, V5, &["-t", "a", "-q", "1", "-m", "in between"]);
    switch(true);
    connected(&site, "cloud");
    eventually("both sides say 1", || local_state(&site) == "1" && state(&cloud, "sites/a/state") == "1 1");
    mosquitto_pub(&site, V5, &["-t", "a", "-q", "1", "-m", "afterwards"]);
    assert_eq!(there.finish(), ["in between", "afterwards"]);
}

#[test]
fn a_reload_changes_one_bridge_and_leaves_the_other_connected() {
    let (one, two) = (Cloud::start(), Cloud::start());
    let lines = [Line::to(&one), Line::to(&two)];
    let config = |prefix: &str| {
        bridge("cloud", &lines[0], V5, "")
            + &route("out", "a", &format!("remote_prefix = \"{prefix}\""))
            + &bridge("quiet", &lines[1], V5, "")
            + &route("out", "a", "")
    };
    let site = site(&config("old/"));
    connected(&site, "quiet");
    let since = status(&site, "quiet")["since"].clone();
    site.rewrite_config(&config("new/"));
    site.signal("HUP");
    eventually("the new prefix counts", || {
        let there = mosquitto_sub(&one, V5, &["-t", "+/a", "-q", "1", "-C", "1", "-F", "%t"]);
        mosquitto_pub(&site, V5, &["-t", "a", "-q", "1", "-m", "x"]);
        there.finish() == ["new/a"]
    });
    assert_eq!((&status(&site, "quiet")["since"], lines[1].calls()), (&since, 1));

    // A broken file changes nothing.
    site.rewrite_config(&config("#/"));
    site.signal("HUP");
    eventually("the log says why", || site.log().contains("remote_prefix"));
    let there = mosquitto_sub(&one, V5, &["-t", "+/a", "-q", "1", "-C", "1", "-F", "%t"]);
    mosquitto_pub(&site, V5, &["-t", "a", "-q", "1", "-m", "x"]);
    assert_eq!(there.finish(), ["new/a"]);
    assert_eq!((&status(&site, "quiet")["since"], lines[1].calls()), (&since, 1));
}

#[test]
fn a_reload_switches_a_bridge_off_and_on_and_what_waits_stays() {
    let cloud = Cloud::start();
    let config = |enabled: bool| bridge("cloud", &cloud, V5, &format!("enabled = {enabled}")) + &route("out", "a", "");
    let site = site(&config(true));
    site.rewrite_config(&config(false));
    site.signal("HUP");
    parted(&site, "cloud");
    mosquitto_pub(&site, V5, &["-t", "a", "-q", "1", "-m", "waited"]);
    let there = mosquitto_sub(&cloud, V5, &["-t", "a", "-q", "1", "-C", "1"]);
    site.rewrite_config(&config(true));
    site.signal("HUP");
    assert_eq!(there.finish(), ["waited"]);
}

#[test]
fn what_waited_for_a_bridge_goes_by_its_new_table() {
    let cloud = Cloud::start();
    let line = Line::cut_off();
    let table = |far: &dyn Fn() -> String| far() + &route("out", "a", "");
    let site = Server::start_with(&table(&|| bridge("cloud", &line, V5, "")), &[]);
    mosquitto_pub(&site, V5, &["-t", "a", "-q", "1", "-m", "waited"]);
    let there = mosquitto_sub(&cloud, V5, &["-t", "a", "-q", "1", "-C", "1"]);
    site.rewrite_config(&table(&|| bridge("cloud", &cloud, V5, "keep_alive_s = 30")));
    site.signal("HUP");
    assert_eq!(there.finish(), ["waited"]);
}

#[test]
fn its_figures_are_in_the_list_and_in_the_metrics() {
    let cloud = Cloud::start();
    let line = Line::to(&cloud);
    let config = bridge("cloud", &line, V5, "") + &route("out", "out", "") + &route("in", "in", "");
    let site = site(&config);
    mosquitto_pub(&site, V5, &["-t", "out", "-q", "1", "-m", "x"]);
    mosquitto_pub(&cloud, V5, &["-t", "in", "-q", "1", "-m", "x"]);
    eventually("both are counted", || figure(&site, "cloud", "sent") == 1 && figure(&site, "cloud", "received") == 1);
    let seen = status(&site, "cloud");
    assert_eq!((&seen["queued"], &seen["dropped"], &seen["error"]), (&0.into(), &0.into(), &serde_json::Value::Null));
    assert!(seen["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{seen}");
    let metrics = curl(&site, "/metrics", &[]).body;
    for line in
        ["waystation_bridge_connected{bridge=\"cloud\"} 1", "waystation_bridge_messages_sent_total{bridge=\"cloud\"} 1"]
    {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    line.cut();
    parted(&site, "cloud");
    assert!(status(&site, "cloud")["error"].is_string());
    mosquitto_pub(&site, V5, &["-t", "out", "-q", "1", "-m", "x"]);
    assert_eq!(figure(&site, "cloud", "queued"), 1);
    let gateways = curl(&site, "/v1/gateways", &[]).json();
    let listed =
        gateways["gateways"].as_array().unwrap().iter().any(|it| it["name"] == "cloud" && it["kind"] == "bridge");
    assert!(listed, "{gateways}");
    let retained = mosquitto_sub_to_the_end(&site, V5, &["-t", "$SYS/broker/connection/+/state", "-C", "1"]);
    assert_eq!(retained, ["0"]);
}
