//! What `waystation bench durable` and `sync` count is what happened.

use crate::{
    clients::curl,
    harness::{Server, waystation},
};
use serde_json::Value;

/// Runs a scenario; it has to end well.
fn bench(arguments: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let output = waystation(dir.path()).arg("bench").args(arguments).arg("--json").output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing behind");
    serde_json::from_str(&report).unwrap()
}

#[test]
fn every_message_that_was_acknowledged_reaches_the_session_it_was_kept_for() {
    let server = Server::start();
    let url = server.url("mqtt", "mqtt");
    for (qos, session, version) in [("-q1", "away", "3.1.1"), ("-q1", "reading", "5"), ("-q2", "away", "5")] {
        let report = bench(
            &[
                &["durable", qos, "--flight", "40", "--publishers", "7", "--session", session][..],
                &["--messages", "2001", "--url", &url, "--mqtt", version],
            ]
            .concat(),
        );
        assert_eq!((&report["sent"], &report["delivered"]), (&2_001.into(), &2_001.into()), "{report}");
        assert_eq!(&report["acknowledgement"]["samples"], 2_001, "{report}");
    }
    let sessions = curl(&server, "/v1/sessions", &[]).json().to_string();
    assert!(!sessions.contains("bench-"), "a session was left behind: {sessions}");
}

#[test]
fn the_floor_syncs_whole_groups() {
    let report = bench(&["sync", "--group", "16", "--messages", "100"]);
    assert_eq!((&report["delivered"], &report["acknowledgement"]["samples"]), (&112.into(), &7.into()), "{report}");
}
