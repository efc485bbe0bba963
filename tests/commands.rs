//! `waystation pub` and `waystation sub`, on every road.

use crate::{
    certificates::Authority,
    harness::{Ended, Server, run, run_with_input},
};

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

/// Listeners over TLS and WebSocket, all of them with the authority's certificate; `more` for MQTT over TLS.
fn guarded(authority: &Authority, websocket: &str, more: &str) -> Server {
    let files = format!("cert = \"{}\"\nkey = \"{}\"\n", authority.name("server.pem"), authority.name("server.key"));
    let websocket_files = if websocket == "wss" { files.as_str() } else { "" };
    let config = format!(
        "[gateways.mqtt.tls]\nlisten = \"127.0.0.1:0\"\n{files}{more}\
         [gateways.mqtt.websocket]\nlisten = \"127.0.0.1:0\"\n{websocket_files}\
         [gateways.rest.tls]\nlisten = \"127.0.0.1:0\"\n{files}"
    );
    Server::start_with(&config, &[])
}

fn assert_fails(ended: &Ended, part: &str) {
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{ended:?}");
    assert!(ended.stderr.to_lowercase().contains(part), "no {part:?} in {ended:?}");
}

#[test]
fn websockets_and_encrypted_roads_carry_large_messages_lines_and_every_qos() {
    let authority = Authority::new();
    let ca = authority.name("ca.pem");
    let large = authority.name("large");
    std::fs::write(&large, vec![b'x'; 900_000]).unwrap();
    let (plain, secure) = (guarded(&authority, "ws", ""), guarded(&authority, "wss", ""));
    let roads = [
        (&plain, "mqtts", "mqtt_tls"),
        (&plain, "ws", "mqtt_ws"),
        (&secure, "wss", "mqtt_wss"),
        (&plain, "https", "rest_tls"),
    ];
    for (server, scheme, listener) in roads {
        let url = server.url(scheme, listener);
        for version in ["3.1.1", "5"] {
            let road = ["--url", &url, "--ca", &ca, "-V", version];
            for qos in ["0", "2"] {
                let text = format!("{version} {qos}");
                assert_done(&run(&[&["pub", "-t", "a", "-m", &text, "-r", "-q", qos], road.as_slice()].concat()));
                let read = run(&[&["sub", "-t", "a", "-n", "1", "-q", qos], road.as_slice()].concat());
                assert_done(&read);
                assert_eq!(read.stdout, format!("{text}\n"), "{scheme}");
            }
            if version == "3.1.1" {
                continue;
            }
            assert_done(&run(&[&["pub", "-t", "big", "-f", &large, "-r"], road.as_slice()].concat()));
            let read = run(&[&["sub", "-t", "big", "-n", "1"], road.as_slice()].concat());
            assert_eq!((read.code, read.stdout.len()), (Some(0), 900_001), "{scheme}: {}", read.stderr);
            let lines: String = (0..500).map(|line| format!("{line}\n")).collect();
            let arguments = [&["pub", "-t", "last", "-r", "--lines"], road.as_slice()].concat();
            assert_done(&run_with_input(authority.path("").as_path(), &arguments, &lines));
            let read = run(&[&["sub", "-t", "last", "-n", "1", "-v"], road.as_slice()].concat());
            assert_eq!(read.stdout, "last 499\n", "{scheme}");
        }
    }
}

#[test]
fn a_server_of_an_unknown_authority_is_not_trusted() {
    let authority = Authority::new();
    let (plain, secure) = (guarded(&authority, "ws", ""), guarded(&authority, "wss", ""));
    for url in [plain.url("mqtts", "mqtt_tls"), secure.url("wss", "mqtt_wss"), plain.url("https", "rest_tls")] {
        assert_fails(&run(&["pub", "-t", "a", "-m", "x", "--url", &url]), "certificate");
    }
    let url = plain.url("mqtts", "mqtt_tls");
    assert_fails(&run(&["pub", "-t", "a", "-m", "x", "--url", &url, "--ca", "nowhere.pem"]), "nowhere.pem");
}

#[test]
fn a_certificate_that_signed_itself_is_trusted_when_it_is_named_and_fits_the_host() {
    let authority = Authority::new();
    let server = Server::start_with(
        &format!(
            "[gateways.mqtt.tls]\nlisten = [\"127.0.0.1:0\"]\ncert = \"{0}/self.pem\"\nkey = \"{0}/self.key\"\n",
            authority.sign_itself("self", &["127.0.0.1"])
        ),
        &[],
    );
    let port = server.address("mqtt_tls").port();
    let publish = |host: &str, ca: &str| {
        run(&["pub", "-t", "a", "-m", "x", "--url", &format!("mqtts://{host}:{port}"), "--ca", &authority.name(ca)])
    };
    assert_done(&publish("127.0.0.1", "self.pem"));
    assert_fails(&publish("localhost", "self.pem"), "certificate");
    assert_fails(&publish("127.0.0.1", "ca.pem"), "certificate");
}

#[test]
fn a_server_that_wants_a_certificate_gets_it_or_says_so() {
    let authority = Authority::new();
    authority.issue("attic", 7, &["attic.example.com"]);
    let ca = authority.name("ca.pem");
    let server = guarded(&authority, "ws", &format!("client_ca = \"{ca}\"\n"));
    let url = server.url("mqtts", "mqtt_tls");
    let publish = ["pub", "-t", "a", "-m", "x", "-q", "1", "--url", &url, "--ca", &ca];
    assert_fails(&run(&publish), "certificate");
    let (cert, key) = (authority.name("attic.pem"), authority.name("attic.key"));
    assert_done(&run(&[publish.as_slice(), &["--cert", &cert, "--key", &key]].concat()));
}

#[test]
fn who_is_refused_is_told_why_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    assert_done(&run_with_input(dir.path(), &["passwd", "users", "anna", "--stdin"], "secret\n"));
    let users = format!("auth.password_file={}", dir.path().join("users").display());
    let websocket = "[gateways.mqtt.websocket]\nlisten = \"127.0.0.1:0\"\n";
    let server = Server::start_with(websocket, &["--set", &users, "--set", "auth.allow_anonymous=false"]);
    for (scheme, listener) in [("mqtt", "mqtt"), ("ws", "mqtt_ws"), ("http", "rest")] {
        let url = server.url(scheme, listener);
        for version in ["3.1.1", "5"] {
            let publish = ["pub", "-t", "a", "-m", "x", "--url", &url, "-V", version];
            assert_done(&run(&[publish.as_slice(), &["-u", "anna", "-P", "secret"]].concat()));
            assert_fails(&run(&[publish.as_slice(), &["-u", "anna", "-P", "wrong"]].concat()), "password");
            assert_fails(&run(&publish), if scheme == "http" { "401" } else { "not authorized" });
        }
    }
    assert_fails(&run(&["pub", "-t", "a", "-m", "x", "--url", &server.url("mqttsn", "mqtt_sn")]), "");
    assert_fails(&run(&["pub", "-t", "a", "-m", "x", "--url", &server.url("ws", "rest")]), "websocket");
}
