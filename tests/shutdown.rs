//! Signals: an orderly end, whatever the clients do, and a reload that cannot break anything.

use crate::harness::{Server, eventually};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// What the interface promises.
const AT_MOST: Duration = Duration::from_secs(5);

/// CONNECT of MQTT 3.1.1, clean session, keep alive 0, client id `a`.
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";

/// CONNACK: accepted, no session.
const CONNACK: [u8; 4] = [0x20, 0x02, 0x00, 0x00];

#[test]
fn both_signals_end_an_idle_server_with_code_0() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start();
        server.signal(signal);
        assert_eq!(server.wait(AT_MOST).code(), Some(0), "{signal}");
    }
}

#[test]
fn clients_are_let_go_and_the_server_ends_in_time() {
    let mut server = Server::start();
    let mut client = TcpStream::connect(server.address("mqtt")).unwrap();
    client.write_all(CONNECT).unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, CONNACK);
    server.signal("TERM");
    assert_eq!(server.wait(AT_MOST).code(), Some(0));
    // MQTT 3.1.1 has no DISCONNECT from the server: the connection just ends.
    assert_eq!(client.read(&mut answer).unwrap_or(0), 0);
}

#[test]
fn peers_that_say_half_a_word_or_never_read_do_not_hold_up_the_end() {
    let mut server = Server::start();
    let mut half = TcpStream::connect(server.address("mqtt")).unwrap();
    half.write_all(&CONNECT[..5]).unwrap();
    let silent = TcpStream::connect(server.address("rest")).unwrap();
    let mut request = TcpStream::connect(server.address("rest")).unwrap();
    request.write_all(b"GET /v1/topics/a?wait=50 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut unfinished = TcpStream::connect(server.address("rest")).unwrap();
    unfinished.write_all(b"POST /v1/topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc").unwrap();
    let started = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait(AT_MOST).code(), Some(0));
    assert!(started.elapsed() < AT_MOST);
    drop((half, silent, request, unfinished));
}

#[test]
fn a_broken_file_keeps_the_old_settings_and_says_why() {
    let mut server = Server::start_with("[limits]\nmax_qos = 1\n", &[]);
    server.rewrite_config("[limits]\nmax_qoss = 1\n");
    server.signal("HUP");
    eventually("the error is logged", || server.log().contains("config/waystation.toml:2: limits.max_qoss"));
    assert!(server.is_running());
    TcpStream::connect(server.address("mqtt")).unwrap();
    server.rewrite_config("[limits]\nmax_qos = 1\n");
    server.signal("HUP");
    eventually("the next reload works", || server.log().contains("configuration reloaded"));
    assert!(server.stop().success());
}
