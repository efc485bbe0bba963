//! What `waystation check` refuses of a bridge, with exit code 2, and what it warns of.

use super::{bridge_to, route};
use crate::{
    clients::{V5, V311},
    harness::{Ended, run_in, write_config},
};

fn check(config: &str) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), config);
    run_in(dir.path(), &["check"], &[])
}

fn to_cloud(version: &str, more: &str) -> String {
    bridge_to("cloud", "mqtt://127.0.0.1:1", version, more)
}

#[test]
fn a_bridge_as_it_should_be_is_printed_without_its_secret() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "very secret").unwrap();
    write_config(dir.path(), &(to_cloud(V5, "username = \"a\"\nsecret_file = \"secret\"") + &route("both", "a/#", "")));
    let ended = run_in(dir.path(), &["check"], &[]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    for part in ["name = \"cloud\"", "filter = \"a/#\"", "keep_alive_s = 60", "max_messages = 1_000_000"] {
        assert!(ended.stdout.replace("1000000", "1_000_000").contains(part), "no {part} in {ended:?}");
    }
    assert!(!ended.stdout.contains("very secret"), "{ended:?}");
}

#[test]
fn what_cannot_work_is_refused_by_its_key() {
    let refused = [
        (to_cloud(V311, "") + &route("both", "a/#", ""), "direction", "3.1.1"),
        (to_cloud(V5, "").replace("mqtt://", "http://"), "url", "mqtt"),
        (to_cloud(V5, "").replace("\"5\"", "\"4\""), "protocol", "3.1.1"),
        (to_cloud(V5, "") + &route("up", "a/#", ""), "direction", "out"),
        (to_cloud(V5, "") + &route("out", "a/#/b", ""), "filter", "#"),
        (to_cloud(V5, "") + &route("out", "a", "remote_prefix = \"+/\""), "remote_prefix", "wildcard"),
        (to_cloud(V5, "") + &route("out", "$SYS/#", ""), "filter", "never crosses"),
        (to_cloud(V5, "") + &route("out", "a", "qos = 3"), "qos", "3"),
        (to_cloud(V5, "") + &route("out", "a", "retain = \"no\""), "retain", "strip"),
        (to_cloud(V5, "secret_file = \"a\"\nsecret_env = \"B\""), "secret_env", "secret_file"),
        (to_cloud(V5, "cert = \"a.pem\"").replace("mqtt://", "mqtts://"), "key", "cert"),
        (to_cloud(V5, "state_topic = \"a/#\""), "state_topic", "#"),
        (to_cloud(V5, "keepalive = 3"), "keepalive", "keep_alive_s"),
        (to_cloud(V5, "").replace("\"cloud\"", "\"mqtt\"") + &route("out", "a", ""), "name", "mqtt"),
        (to_cloud(V5, "") + &route("out", "a", "") + &to_cloud(V5, "") + &route("out", "a", ""), "name", "cloud"),
        (to_cloud(V5, ""), "route", "[[gateways.bridge.route]]"),
    ];
    for (config, key, part) in refused {
        let ended = check(&config);
        assert_eq!(ended.code, Some(2), "{config}{ended:?}");
        assert!(ended.stderr.contains(key) && ended.stderr.contains(part), "no {key} or {part}: {config}{ended:?}");
    }
}

#[test]
fn routes_that_bring_back_what_they_took_away_are_refused_over_3_1_1() {
    let echoes = [
        to_cloud(V311, "") + &route("out", "a/#", "") + &route("in", "a/b", ""),
        // Each round would add a level.
        to_cloud(V311, "")
            + &route("out", "#", "remote_prefix = \"site/\"")
            + &route("in", "#", "remote_prefix = \"site/\"\nlocal_prefix = \"back/\""),
    ];
    for config in echoes {
        let ended = check(&config);
        assert_eq!(ended.code, Some(2), "{config}{ended:?}");
        assert!(ended.stderr.contains("route[0]") && ended.stderr.contains("brings back"), "{ended:?}");
        let config = config.replace("\"3.1.1\"", "\"5\"");
        assert_eq!(check(&config).code, Some(0), "MQTT 5 knows better: {config}");
    }
    let apart = to_cloud(V311, "")
        + &route("out", "#", "local_prefix = \"up/\"\nremote_prefix = \"site-a/\"")
        + &route("in", "#", "local_prefix = \"down/\"\nremote_prefix = \"commands/\"");
    let ended = check(&apart);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
}

#[test]
fn two_bridges_that_would_take_messages_round_for_ever_are_refused() {
    let other = |version, url| bridge_to("other", url, version, "");
    let here = "mqtt://127.0.0.1:1";
    let round = to_cloud(V5, "") + &route("out", "a/#", "") + &other(V311, here) + &route("in", "#", "");
    let ended = check(&round);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for part in ["gateways.bridge[1].route[0]", "`cloud`", "round for ever", "prefixes"] {
        assert!(ended.stderr.contains(part), "no {part} in {ended:?}");
    }
    let comes_to_rest = [
        to_cloud(V5, "") + &route("out", "a/#", "") + &other(V5, here) + &route("in", "#", ""),
        to_cloud(V5, "") + &route("out", "a/#", "") + &other(V311, "mqtt://127.0.0.1:2") + &route("in", "#", ""),
        to_cloud(V5, "") + &route("out", "a/#", "") + &other(V311, here) + &route("in", "#", "local_prefix = \"b/\""),
        to_cloud(V311, "") + &route("out", "a/#", "") + &other(V311, here) + &route("out", "a/#", ""),
    ];
    for config in comes_to_rest {
        assert_eq!(check(&config).code, Some(0), "{config}");
    }
}
