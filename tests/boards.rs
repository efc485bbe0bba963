//! Fleets of MQTT-SN boards, as `waystation bench boards` plays them.

use crate::{
    clients::{V311, mosquitto_sub},
    harness::{Server, waystation},
};
use serde_json::Value;
use std::process::Command;

/// Runs a fleet with QoS 1; it has to end well.
fn fleet(server: &Server, arguments: &[&str]) -> Value {
    let url = format!("mqttsn://{}", server.address("mqtt_sn"));
    let output = Command::new(env!("CARGO_BIN_EXE_waystation"))
        .args(["bench", "boards", "--url", &url, "--qos", "1", "--json"])
        .args(arguments)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&report).unwrap()
}

#[test]
fn ten_thousand_boards_connected_at_once_publish_and_nothing_is_lost() {
    let server = Server::start_with("[limits]\nmax_queued_messages = 50_000\n", &[]);
    let subscriber = mosquitto_sub(&server, V311, &["-t", "bench/#", "-q", "1", "-C", "20000", "-F", "%t"]);
    let report = fleet(&server, &["--boards", "10000", "--messages", "20000", "--size", "16"]);
    assert_eq!((&report["publishers"], &report["sent"], &report["lost"]), (&10_000.into(), &20_000.into(), &0.into()));
    let mut topics = subscriber.finish();
    assert_eq!(topics.len(), 20_000);
    topics.sort_unstable();
    topics.dedup();
    assert_eq!(topics.len(), 10_000, "every board has a topic of its own");
}

#[test]
fn boards_that_sleep_and_move_behind_bad_air_lose_nothing() {
    let server = Server::start();
    let report = fleet(
        &server,
        &[
            ["--boards", "40"],
            ["--messages", "800"],
            ["--loss", "5"],
            ["--duplication", "5"],
            ["--reordering", "5"],
            ["--sleep-every", "7"],
            ["--move-every", "5"],
            ["--retry-ms", "200"],
        ]
        .concat(),
    );
    assert_eq!((&report["sent"], &report["lost"]), (&800.into(), &0.into()), "{report}");
    assert!(report["repeats"].as_u64() > Some(0), "the air was bad: {report}");
}

#[test]
fn what_is_published_by_mqtt_reaches_all_boards_or_each_in_turn() {
    let server = Server::start();
    let from = server.url("mqtt", "mqtt");
    for (qos, down, messages, delivered) in [("0", "all", 30, 600), ("1", "all", 30, 600), ("1", "one", 100, 100)] {
        let url = format!("mqttsn://{}", server.address("mqtt_sn"));
        let dir = tempfile::tempdir().unwrap();
        let output = waystation(dir.path())
            .args(["bench", "boards", "--url", &url, "--qos", qos, "--json", "--boards", "20"])
            .args(["--down", down, "--from", &from, "--messages", &messages.to_string()])
            .output()
            .unwrap();
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_str(&report).unwrap();
        assert_eq!((&report["delivered"], &report["lost"]), (&delivered.into(), &0.into()), "{report}");
        assert_eq!(&report["latency"]["samples"], delivered, "{report}");
    }
}
