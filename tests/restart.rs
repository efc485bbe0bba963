//! What was acknowledged is there after any end of the server, whatever road it came by.

use crate::{
    clients::{curl, rest_session},
    harness::{Ended, Server, eventually, run_in},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// Everything a session holds, read by cursor.
pub(crate) fn read_all(server: &Server, session: &str) -> Vec<String> {
    let (mut texts, mut after) = (Vec::new(), String::new());
    loop {
        let answer = curl(server, &format!("/v1/sessions/{session}/messages?max=1000{after}"), &[]);
        if answer.status == 204 {
            return texts;
        }
        let page = answer.json();
        texts.extend(page["messages"].as_array().unwrap().iter().map(|m| m["payload"].as_str().unwrap().to_owned()));
        after = format!("&after={}", page["cursor"].as_str().unwrap());
    }
}

#[test]
fn a_server_that_stopped_in_order_goes_on_where_it_was() {
    let server = Server::start();
    rest_session(&server, "reader", "a/#", "");
    curl(&server, "/v1/topics/a/1", &["--data", "one"]);
    curl(&server, "/v1/topics/a/2", &["--data", "two"]);
    curl(&server, "/v1/topics/state", &["-X", "PUT", "--data", "on"]);
    let page = curl(&server, "/v1/sessions/reader/messages?max=1", &[]).json();
    let cursor = page["cursor"].as_str().unwrap().to_owned();
    let (ended, dir) = server.stop_and_keep();
    assert!(ended.success());
    let server = Server::start_in(dir, &[]).unwrap();
    assert_eq!(curl(&server, "/v1/topics/state", &[]).body, "on");
    let rest = curl(&server, &format!("/v1/sessions/reader/messages?after={cursor}"), &[]).json();
    assert_eq!(rest["messages"][0]["payload"], "two");
    assert!(!server.log().contains("torn tail"), "a stop in order leaves none: {}", server.log());
}

#[test]
fn what_the_softer_settings_acknowledge_survives_a_kill_and_a_stop_in_order() {
    for sync in ["interval", "never"] {
        let mut server = Server::start_with(&format!("[durability]\nsync = \"{sync}\"\ninterval_ms = 60_000\n"), &[]);
        assert_eq!(curl(&server, "/healthz", &[]).json()["survives"], "kill");
        rest_session(&server, "reader", "a", "");
        let mut wanted = Vec::new();
        for round in 0..4 {
            for n in 0..20 {
                let text = format!("{round} {n}");
                assert_eq!(curl(&server, "/v1/topics/a?qos=2", &["--data", &text]).status, 200);
                wanted.push(text);
            }
            let dir = if round % 2 == 0 { server.kill() } else { server.stop_and_keep().1 };
            server = Server::start_in(dir, &[]).unwrap();
        }
        assert_eq!(read_all(&server, "reader"), wanted, "{sync}");
    }
}

#[test]
fn a_data_folder_serves_one_server_at_a_time() {
    let server = Server::start();
    let second = run_in(server.dir(), &["run", "--set", "gateways.mqtt.listen=127.0.0.1:0"], &[]);
    let Ended { code, stderr, .. } = second;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("is in use by another server"), "{stderr}");
}

#[test]
fn damage_is_told_with_file_and_offset_and_refused_when_it_is_to_be() {
    let server = Server::start();
    rest_session(&server, "reader", "a", "");
    for n in 0..10 {
        curl(&server, "/v1/topics/a", &["--data", &format!("{n}")]);
    }
    let dir = server.kill();
    let journals = std::fs::read_dir(dir.path().join("data/db")).unwrap().map(|entry| entry.unwrap().path());
    let journal = journals.filter(|path| path.extension().is_some_and(|e| e == "jnl")).max().unwrap();
    let mut bytes = std::fs::read(&journal).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    // In the payload of a message in the middle.
    let at = (end / 2..end).find(|at| bytes[*at..].starts_with(b"application/x-www-form-urlencoded")).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&journal, bytes).unwrap();

    let refused = run_in(dir.path(), &["run", "--set", "durability.on_damage=refuse"], &[]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains(".jnl at offset"), "{}", refused.stderr);
    let checked = run_in(dir.path(), &["check", "--data"], &[]);
    assert_eq!(checked.code, Some(1));
    assert!(checked.stderr.contains("damage in") && checked.stderr.contains("at offset"), "{}", checked.stderr);

    let server = Server::start_in(dir, &[]).unwrap();
    assert_eq!(read_all(&server, "reader").len(), 9);
    assert!(server.log().contains("the journal is damaged"), "{}", server.log());
    assert!(server.dir().join("data/quarantine").exists());
    let (_, dir) = server.stop_and_keep();
    let checked = run_in(dir.path(), &["check", "--data"], &[]);
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));
    assert!(checked.stdout.contains("# data folder"), "{}", checked.stdout);
}

#[test]
fn a_will_fires_after_the_server_was_killed() {
    let server = Server::start();
    let mut socket = TcpStream::connect(server.address("mqtt")).unwrap();
    // CONNECT of MQTT 3.1.1: clean, keep alive 1 s, will "gone" on "will" with QoS 1, retained.
    let connect = b"\x10\x1d\x00\x04MQTT\x04\x2e\x00\x01\x00\x05board\x00\x04will\x00\x04gone";
    socket.write_all(connect).unwrap();
    socket.read_exact(&mut [0; 4]).unwrap();
    let dir = server.kill();
    let server = Server::start_in(dir, &[]).unwrap();
    eventually("its client did not come back", || curl(&server, "/v1/topics/will", &[]).body == "gone");
}
