//! What `waystation bench` measures over HTTP is what happened.

use crate::{
    clients::{V311, mosquitto_sub},
    harness::{Server, waystation},
};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

/// Runs a scenario; it has to end well.
fn bench(arguments: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let output = waystation(dir.path()).arg("bench").args(arguments).arg("--json").output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&report).unwrap()
}

#[test]
fn every_publish_over_http_that_is_counted_was_delivered() {
    let server = Server::start_with("[limits]\nmax_queued_messages = 50_000\n", &[]);
    let url = server.url("http", "rest");
    let subscriber = mosquitto_sub(&server, V311, &["-t", "bench/#", "-q", "1", "-C", "3000", "-F", "%t"]);
    let single = bench(&["http", "--url", &url, "-q1", "--messages", "1000", "--connections", "10"]);
    assert_eq!((&single["sent"], &single["delivered"]), (&1_000.into(), &1_000.into()), "{single}");
    let bulk =
        bench(&["http", "--bulk", "--url", &url, "-q1", "--messages", "2000", "--connections", "2", "--size", "3000"]);
    assert_eq!((&bulk["sent"], &bulk["delivered"]), (&2_000.into(), &2_000.into()), "{bulk}");
    assert_eq!(subscriber.finish().len(), 3_000);
}

#[test]
fn a_publish_that_is_refused_is_not_counted_as_one() {
    let server = Server::start_with("[auth]\nallow_anonymous = false\n", &[]);
    for bulk in [&[][..], &["--bulk"]] {
        let url = server.url("http", "rest");
        let dir = tempfile::tempdir().unwrap();
        let arguments = ["bench", "http", "--url", &url, "--messages", "10", "--connections", "1"];
        let output = waystation(dir.path()).args(arguments).args(bulk).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains("--user"), "{said}");
    }
}

#[test]
fn a_hand_over_is_timed_beside_mqtt() {
    let server = Server::start();
    let (mqtt, http) = (server.url("mqtt", "mqtt"), server.url("http", "rest"));
    for qos in ["-q0", "-q1"] {
        let report = bench(&["handover", "--url", &mqtt, "--http", &http, "--messages", "30", qos]);
        assert_eq!((&report["expected"], &report["delivered"]), (&60.into(), &60.into()), "{report}");
        assert_eq!((&report["latency"]["samples"], &report["mqtt_latency"]["samples"]), (&30.into(), &30.into()));
    }
}

#[test]
fn readers_that_are_held_stay_and_have_a_size() {
    let server = Server::start();
    let (url, pid) = (server.url("http", "rest"), server.pid().to_string());
    for on in ["state", "session", "stream"] {
        let report = bench(&["held", "--on", on, "--url", &url, "--pid", &pid, "--connections", "200"]);
        assert_eq!((&report["subscribers"], &report["disconnects"]), (&200.into(), &0.into()), "{report}");
        assert!(report["memory_per_item"].as_f64() < Some(100_000.0), "{report}");
    }
}

/// Ended with the test.
struct Floor(Child);

impl Drop for Floor {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_floor_takes_what_the_server_takes() {
    let dir = tempfile::tempdir().unwrap();
    let mut floor = Floor(waystation(dir.path()).args(["bench", "floor"]).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(floor.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("floor ready http=").unwrap();
    let report = bench(&["http", "--url", &format!("http://{address}"), "--messages", "200"]);
    assert_eq!((&report["sent"], &report["delivered"]), (&200.into(), &200.into()), "{report}");
}
