//! Whatever is wrong with the configuration is named by key and place, with exit code 2 and nothing bound.

use crate::harness::{Ended, run, run_in, write_config};

fn run_with_file(config: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), config);
    run_in(dir.path(), arguments, environment)
}

fn assert_refused(ended: &Ended, parts: &[&str]) {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(ended.stdout, "", "nothing is announced");
    assert_eq!(ended.stderr.lines().count(), 1, "one line: {ended:?}");
    for part in parts {
        assert!(ended.stderr.contains(part), "no {part:?} in {:?}", ended.stderr);
    }
}

#[test]
fn an_unknown_key_in_the_file_is_named_with_its_line() {
    let config = "[limits]\nmax_qos = 1\nmax_conections = 10\n";
    for command in ["run", "check"] {
        let ended = run_with_file(config, &[command], &[]);
        assert_refused(&ended, &["config/waystation.toml:3", "limits.max_conections", "`max_connections`"]);
    }
}

#[test]
fn a_wrong_type_in_a_gateways_table_is_named_with_its_line() {
    let ended = run_with_file("\n[gateways.rest]\nlisten = 8080\n", &[], &[]);
    assert_refused(&ended, &["config/waystation.toml:3", "gateways.rest.listen", "expected"]);
}

#[test]
fn a_value_from_the_environment_is_named_by_its_variable() {
    let ended = run_with_file("[limits]\nmax_qos = 1\n", &[], &[("WAYSTATION__LIMITS__MAX_QOS", "many")]);
    assert_refused(&ended, &["WAYSTATION__LIMITS__MAX_QOS", "limits.max_qos", "expected a whole number"]);
}

#[test]
fn a_value_from_the_command_line_is_named_by_its_text() {
    assert_refused(&run(&["--set", "gateways.mqtt.lisen=127.0.0.1:0"]), &["--set gateways.mqtt.lisen", "`listen`"]);
    assert_refused(&run(&["--set", "limits.max_inflight=0"]), &["limits.max_inflight", "unlimited"]);
}

#[test]
fn a_listener_open_to_everybody_is_refused_until_asked_for() {
    let ended = run(&["--set", "gateways.mqtt.listen=0.0.0.0:0"]);
    assert_refused(&ended, &["gateways.mqtt.listen", "auth.anonymous_anywhere"]);
}

#[test]
fn a_file_that_is_not_there_or_no_toml_is_refused() {
    assert_refused(&run(&["--config", "nowhere.toml"]), &["nowhere.toml", "cannot be read"]);
    assert_refused(&run_with_file("[limits\n", &[], &[]), &["config/waystation.toml:1", "not TOML"]);
}

#[test]
fn check_prints_the_configuration_as_it_would_run() {
    let config = "[limits]\nmax_qos = 0\nmax_inflight = 7\n";
    let ended = run_with_file(
        config,
        &["check", "--set", "limits.max_inflight=9"],
        &[("WAYSTATION__LIMITS__MAX_QOS", "1"), ("WAYSTATION__GATEWAYS__MQTT__LISTEN", "127.0.0.1:9")],
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let printed: toml::Table = toml::from_str(&ended.stdout).unwrap();
    assert_eq!(printed["limits"]["max_qos"].as_integer(), Some(1), "the environment beats the file");
    assert_eq!(printed["limits"]["max_inflight"].as_integer(), Some(9), "--set beats the file");
    assert_eq!(printed["gateways"]["mqtt"]["listen"].as_str(), Some("127.0.0.1:9"));
}
