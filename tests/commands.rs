//! `waystation pub` and `waystation sub`, on every road.

use crate::harness::{Ended, Server, run};

/// Every road, as scheme and listener.
const ROADS: [(&str, &str); 3] = [("mqtt", "mqtt"), ("mqttsn", "mqtt_sn"), ("http", "rest")];

fn assert_done(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_state_published_on_one_road_is_read_on_every_road() {
    let server = Server::start();
    for (scheme, listener) in ROADS {
        let url = server.url(scheme, listener);
        assert_done(&run(&["pub", "-t", "house/kitchen", "-m", listener, "-r", "-q", "1", "--url", &url]));
        for (scheme, other) in ROADS {
            let url = server.url(scheme, other);
            let read = run(&["sub", "-t", "house/+", "-n", "1", "-v", "-q", "1", "--url", &url]);
            assert_done(&read);
            assert_eq!(read.stdout, format!("house/kitchen {listener}\n"), "{listener} to {other}");
        }
    }
}

#[test]
fn every_qos_and_both_versions_wait_for_their_acknowledgement() {
    let server = Server::start();
    let url = server.url("mqtt", "mqtt");
    for version in ["3.1.1", "5"] {
        for qos in ["0", "1", "2"] {
            let text = format!("{version} {qos}");
            assert_done(&run(&["pub", "-t", "a", "-m", &text, "-r", "-q", qos, "-V", version, "--url", &url]));
            let read = run(&["sub", "-t", "a", "-n", "1", "-q", qos, "-V", version, "--url", &url]);
            assert_done(&read);
            assert_eq!(read.stdout, format!("{text}\n"));
        }
    }
}

#[test]
fn nobody_there_is_one_line_and_not_success() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for scheme in ["mqtt", "http"] {
        for command in [["pub", "-t", "a", "-m", "x"].as_slice(), ["sub", "-t", "a"].as_slice()] {
            let url = format!("{scheme}://{free}");
            let ended = run(&[command, &["--url", &url]].concat());
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
            assert!(ended.stderr.contains(&free.to_string()), "{ended:?}");
        }
    }
}

#[test]
fn what_can_never_be_published_is_refused_with_its_reason() {
    let server = Server::start();
    let ended = run(&["pub", "-t", "a/#", "-m", "x", "--url", &server.url("mqtt", "mqtt")]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("wildcard"), "{ended:?}");
    for (scheme, listener) in ROADS {
        let ended = run(&["pub", "-t", "$SYS/x", "-m", "x", "--url", &server.url(scheme, listener)]);
        assert_eq!(ended.code, Some(1), "{scheme}: {ended:?}");
        assert!(ended.stderr.contains("refuse"), "{scheme}: {ended:?}");
    }
}
