//! MQTT over TLS, through clients of mosquitto and what it links.

use crate::{
    certificates::Authority,
    clients::{Program, V5, V311, mosquitto_sub},
    harness::{Server, eventually, run_in},
    wire,
};
use std::process::Command;
use waystation_mqtt::codec::Version;

/// `[gateways.mqtt.tls]` with the authority's files.
fn table(authority: &Authority, more: &str) -> String {
    let (cert, key) = (authority.name("server.pem"), authority.name("server.key"));
    format!("[gateways.mqtt.tls]\nlisten = \"127.0.0.1:0\"\ncert = \"{cert}\"\nkey = \"{key}\"\n{more}")
}

/// Clients need a certificate, and may not be on the list.
fn with_client_certificates(authority: &Authority) -> String {
    authority.revoke(&[8]);
    authority.issue("attic", 7, &["attic.example.com"]);
    authority.issue("stolen", 8, &["stolen.example.com"]);
    let (client_ca, crl) = (authority.name("ca.pem"), authority.name("crl.pem"));
    table(authority, &format!("client_ca = \"{client_ca}\"\ncrl = \"{crl}\"\nuse_identity = \"cn\"\n"))
}

/// A client of mosquitto on the TLS listener; `who` is the certificate it shows.
fn mosquitto(program: &str, server: &Server, authority: &Authority, who: Option<&str>) -> Command {
    let mut command = Command::new("stdbuf");
    let port = server.address("mqtt_tls").port().to_string();
    command.args(["-oL", program, "-h", "127.0.0.1", "-p", &port, "--cafile", &authority.name("ca.pem")]);
    if let Some(who) = who {
        let (cert, key) = (authority.name(&format!("{who}.pem")), authority.name(&format!("{who}.key")));
        command.args(["--cert", &cert, "--key", &key]);
    }
    command
}

/// Whether the client gets a message through.
fn publishes(server: &Server, authority: &Authority, who: Option<&str>, more: &[&str]) -> bool {
    let mut command = mosquitto("mosquitto_pub", server, authority, who);
    command.args(["-t", "a", "-q", "1", "-m", "hello"]).args(more).output().unwrap().status.success()
}

#[test]
fn messages_go_through_both_versions_of_tls_and_of_mqtt() {
    let authority = Authority::new();
    let server = Server::start_with(&table(&authority, ""), &[]);
    for tls in ["tlsv1.2", "tlsv1.3"] {
        for version in [V311, V5] {
            let subscriber = mosquitto_sub(&server, version, &["-t", "a", "-q", "1", "-C", "1"]);
            assert!(publishes(&server, &authority, None, &["--tls-version", tls, "-V", version]), "{tls} {version}");
            assert_eq!(subscriber.finish(), ["hello"], "{tls} {version}");
        }
    }
    let mut command = mosquitto("mosquitto_sub", &server, &authority, None);
    let mut subscriber = Program::start(command.args(["-d", "-t", "big", "-C", "1", "-F", "%l"]));
    subscriber.says("Subscribed (mid");
    let large = authority.path("large");
    std::fs::write(&large, vec![7; 900_000]).unwrap();
    assert!(publishes(&server, &authority, None, &["--tls-alpn", "mqtt"]));
    let mut publisher = mosquitto("mosquitto_pub", &server, &authority, None);
    assert!(publisher.args(["-t", "big", "-q", "2", "-f"]).arg(&large).output().unwrap().status.success());
    assert_eq!(subscriber.finish(), ["900000"]);
}

#[test]
fn only_clients_with_a_certificate_that_is_not_revoked_come_in() {
    let authority = Authority::new();
    let server = Server::start_with(&with_client_certificates(&authority), &[]);
    assert!(publishes(&server, &authority, Some("attic"), &[]));
    assert!(!publishes(&server, &authority, None, &[]), "without a certificate");
    assert!(!publishes(&server, &authority, Some("stolen"), &[]), "with a revoked one");
    let stranger = Authority::new();
    stranger.issue("attic", 7, &[]);
    let (cert, key) = (stranger.name("attic.pem"), stranger.name("attic.key"));
    assert!(!publishes(&server, &authority, None, &["--cert", &cert, "--key", &key]), "with another authority's");
    assert!(publishes(&server, &authority, Some("attic"), &["--tls-version", "tlsv1.2"]));
}

#[test]
fn the_certificates_name_is_the_user_whatever_connect_says() {
    let authority = Authority::new();
    let acl = authority.name("acl.toml");
    let rule = "[[rule]]\nuser = \"attic\"\nallow = [\"publish\"]\ntopics = [\"%u/#\"]\n";
    std::fs::write(&acl, rule).unwrap();
    let config = format!("{}\n[auth]\nacl_file = \"{acl}\"\n", with_client_certificates(&authority));
    let server = Server::start_with(&config, &[]);
    authority.issue("cellar", 9, &[]);
    let answer = |who: &str, topic: &str| {
        let mut command = mosquitto("mosquitto_pub", &server, &authority, Some(who));
        command.args(["-d", "-V", V5, "-q", "1", "-m", "x", "-u", "attic", "-P", "guess", "-t", topic]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(!answer("attic", "attic/t").contains("RC:135"), "it may");
    assert!(answer("attic", "cellar/t").contains("RC:135"), "not authorized");
    assert!(answer("cellar", "attic/t").contains("RC:135"), "it is not attic, though it says so");
}

#[test]
fn a_reload_takes_new_certificates_and_keeps_connections_and_a_broken_file_keeps_the_old() {
    let authority = Authority::new();
    let server = Server::start_with(&with_client_certificates(&authority), &[]);
    let mut command = mosquitto("mosquitto_sub", &server, &authority, Some("attic"));
    let mut subscriber = Program::start(command.args(["-d", "-t", "a", "-q", "1", "-C", "2"]));
    subscriber.says("Subscribed (mid");

    authority.revoke(&[]);
    authority.issue("server", 2, &["127.0.0.1"]);
    server.signal("HUP");
    eventually("the pardoned one comes in", || publishes(&server, &authority, Some("stolen"), &[]));

    std::fs::write(authority.path("server.pem"), "broken").unwrap();
    server.signal("HUP");
    eventually("the log says why", || {
        let log = server.log();
        log.contains("gateways.mqtt.tls.cert: ") && log.contains("server.pem holds no certificate")
    });
    assert!(publishes(&server, &authority, Some("attic"), &[]));
    assert_eq!(subscriber.finish(), ["hello", "hello"], "it was never cut off");
}

#[test]
fn a_file_that_cannot_be_used_is_named_at_start_and_by_check() {
    let authority = Authority::new();
    std::fs::write(authority.path("server.key"), "").unwrap();
    let config = table(&authority, "");
    let ended = Server::try_start(&config, &[]).err().expect("it must not start");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let key = authority.name("server.key");
    let line = format!("gateways.mqtt.tls.key: {key} holds no private key");
    assert!(ended.stderr.contains(&line), "{ended:?}");
    crate::harness::write_config(authority.path("").as_path(), &config);
    let checked = run_in(authority.path("").as_path(), &["check"], &[]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.stderr.contains(&line), "{checked:?}");
}

#[test]
fn clients_that_stall_in_the_handshake_are_let_go_and_hold_up_nobody() {
    use std::{io::Read, io::Write, net::TcpStream, time::Instant};
    let authority = Authority::new();
    let config = format!("{}\n[limits]\nconnect_timeout_ms = 1000\n", table(&authority, ""));
    let mut server = Server::start_with(&config, &[]);
    let mut stalled: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address("mqtt_tls")).unwrap();
            // A record that announces 512 bytes of ClientHello.
            stream.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
            stream
        })
        .collect();
    assert!(publishes(&server, &authority, None, &[]));
    let started = Instant::now();
    for stream in &mut stalled {
        stream.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(started.elapsed().as_secs() < 5);
    // And an end is not held up either.
    let mut late = TcpStream::connect(server.address("mqtt_tls")).unwrap();
    late.write_all(&[22, 3, 1]).unwrap();
    server.signal("TERM");
    assert_eq!(server.wait(std::time::Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn a_plain_client_on_the_encrypted_port_gets_nothing() {
    use std::io::{Read, Write};
    let authority = Authority::new();
    let server = Server::start_with(&table(&authority, ""), &[]);
    let mut stream = std::net::TcpStream::connect(server.address("mqtt_tls")).unwrap();
    stream.write_all(&wire::connect(Version::V5, "a")).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    // A TLS alert, or nothing: never a CONNACK.
    assert!(!answer.starts_with(&[0x20]), "{answer:02x?}");
}

#[test]
fn every_message_of_a_benchmark_arrives_over_tls() {
    let authority = Authority::new();
    let server = Server::start_with(&table(&authority, ""), &[]);
    let url = format!("mqtts://{}", server.address("mqtt_tls"));
    let dir = tempfile::tempdir().unwrap();
    for (scenario, size) in [("pairs", "16"), ("fan-in", "20000")] {
        let arguments = ["bench", scenario, "-q1", "--messages", "600", "--size", size];
        let connection = ["--url", &url, "--ca", &authority.name("ca.pem")];
        let ended = run_in(dir.path(), &[&arguments[..], &connection].concat(), &[]);
        assert_eq!(ended.code, Some(0), "{scenario}: {}{}", ended.stdout, ended.stderr);
    }
}
