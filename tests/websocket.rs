//! MQTT over WebSocket: through paho, and through frames no library would send.

use crate::{
    certificates::Authority,
    clients::{V5, mosquitto_pub, mosquitto_sub, python},
    harness::{PATIENCE, Server},
    wire::{self, reason},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};
use waystation_mqtt::codec::Version;

const TABLE: &str = "[gateways.mqtt.websocket]\nlisten = \"127.0.0.1:0\"\n";

/// A connection to the WebSocket listener that speaks in raw frames.
struct Page(TcpStream);

impl Page {
    fn open(server: &Server, headers: &[&str]) -> (Self, String) {
        let address = server.address("mqtt_ws");
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = format!("GET /mqtt HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n");
        request += "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
        request += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        for header in headers {
            request += &format!("{header}\r\n");
        }
        request += "\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        (Self(stream), String::from_utf8(answer).unwrap())
    }

    /// Connected, MQTT 5.
    fn connected(server: &Server) -> Self {
        let (mut page, answer) = Self::open(server, &["Sec-WebSocket-Protocol: mqtt"]);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        page.send(&frame(0x82, &wire::connect(Version::V5, "page")));
        let (_, connack) = page.frame().unwrap();
        assert_eq!((connack[0], reason(&connack)), (0x20, Some(0)));
        page
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The next frame, if there is one: its first byte and its payload. Ours are never fragmented.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 2];
        self.0.read_exact(&mut header).ok()?;
        let length = match header[1] {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length).unwrap();
                u16::from_be_bytes(length).into()
            }
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).unwrap();
        Some((header[0], payload))
    }
}

/// A client's frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    let masked = payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key);
    [first, 0x80 | length].into_iter().chain(MASK).chain(masked).collect()
}

#[test]
fn paho_speaks_over_websocket_in_both_versions() {
    let server = Server::start_with(TABLE, &[]);
    let port = server.address("mqtt_ws").port().to_string();
    for version in ["3.1.1", "5"] {
        assert_eq!(python("websocket.py", 2, &[&port, version, "-", "60"]).finish(), ["all heard"], "{version}");
    }
}

#[test]
fn paho_speaks_over_websocket_and_tls() {
    let authority = Authority::new();
    let (cert, key, ca) = (authority.name("server.pem"), authority.name("server.key"), authority.name("ca.pem"));
    let server = Server::start_with(&format!("{TABLE}cert = \"{cert}\"\nkey = \"{key}\"\n"), &[]);
    let port = server.address("mqtt_wss").port().to_string();
    assert_eq!(python("websocket.py", 2, &[&port, "5", &ca, "60"]).finish(), ["all heard"]);
}

#[test]
fn packets_may_span_frames_and_share_them_and_messages_cross_roads() {
    let server = Server::start_with(TABLE, &[]);
    let mut page = Page::connected(&server);
    let bystander = mosquitto_sub(&server, V5, &["-t", "a", "-q", "1", "-C", "3"]);
    // SUBSCRIBE byte by byte, a frame each.
    for byte in wire::subscribe("a", 1) {
        page.send(&frame(0x82, &[byte]));
    }
    assert_eq!(page.frame().unwrap().1[0], 0x90);
    // Two packets and half of a third in a message of two frames, with a ping between them; then the other half.
    let publish = |n: u16| wire::publish("a", Some(n), format!("m{n}").as_bytes());
    let (first, rest) = ([publish(1), publish(2)].concat(), publish(3));
    let (half, other) = rest.split_at(5);
    page.send(&frame(0x02, &first));
    page.send(&frame(0x89, b"there?"));
    page.send(&frame(0x80, half));
    page.send(&frame(0x82, other));
    let (mut acknowledged, mut heard, mut pong) = (0, 0, false);
    while acknowledged < 3 || heard < 3 || !pong {
        let (first, payload) = page.frame().expect("more to come");
        if first == 0x8A {
            assert_eq!(payload, b"there?");
            pong = true;
            continue;
        }
        assert_eq!(first, 0x82, "a whole binary message");
        // Each of our frames holds whole packets here.
        let mut rest = payload.as_slice();
        while let [kind, length, ..] = rest {
            match kind >> 4 {
                4 => acknowledged += 1,
                3 => heard += 1,
                _ => panic!("{rest:02x?}"),
            }
            rest = &rest[2 + usize::from(*length)..];
        }
    }
    assert_eq!(bystander.finish(), ["m1", "m2", "m3"]);
    // A close is answered, and ends the connection.
    page.send(&frame(0x88, &[3, 232]));
    assert_eq!(page.frame(), Some((0x88, vec![3, 232])));
    assert_eq!(page.frame(), None);
}

#[test]
fn frames_that_break_the_rules_end_the_connection_with_their_status() {
    let server = Server::start_with(TABLE, &[]);
    let huge = [&[0x82, 0xFF, 0x7F][..], &[0xFF; 7], &[0; 4]].concat();
    for (bytes, status) in [(frame(0x81, b"text"), 1003_u16), (vec![0x82, 2, 0xC0, 0], 1002), (huge, 1009)] {
        let mut page = Page::connected(&server);
        // Whatever comes right before or behind.
        page.send(&[frame(0x82, &[0xC0, 0]), bytes.clone(), frame(0x82, &[0xC0, 0])].concat());
        assert_eq!(page.frame(), Some((0x88, status.to_be_bytes().to_vec())), "{bytes:02x?}");
        assert_eq!(page.frame(), None);
    }
    mosquitto_pub(&server, V5, &["-t", "a", "-m", "others notice nothing"]);
}

#[test]
fn a_page_of_another_origin_is_refused_unless_it_is_listed() {
    let server = Server::start_with(&format!("{TABLE}origins = [\"https://app.example.com\"]\n"), &[]);
    let own = format!("Origin: http://{}", server.address("mqtt_ws"));
    let status = |origin: &str| {
        let (_, answer) = Page::open(&server, &["Sec-WebSocket-Protocol: mqtt", origin]);
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(status(&own), "101");
    assert_eq!(status("Origin: https://app.example.com"), "101");
    assert_eq!(status("Origin: https://evil.example.com"), "403");
    assert_eq!(status("Origin: null"), "403");
}

#[test]
fn a_request_that_is_none_for_a_websocket_is_told_so() {
    let server = Server::start_with(TABLE, &[]);
    let address = server.address("mqtt_ws");
    let answer = |request: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.to_ascii_lowercase()
    };
    let plain = answer("GET /mqtt HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(plain.starts_with("http/1.1 426 ") && plain.contains("\r\nupgrade: websocket\r\n"), "{plain}");
    let upgrade = "GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    let old = answer(&format!("{upgrade}Sec-WebSocket-Version: 8\r\n\r\n"));
    assert!(old.starts_with("http/1.1 426 ") && old.contains("\r\nsec-websocket-version: 13\r\n"), "{old}");
    let keyless = answer(&format!("{upgrade}Sec-WebSocket-Version: 13\r\n\r\n"));
    assert!(keyless.starts_with("http/1.1 400 "), "{keyless}");
    let posted = answer("POST /mqtt HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert!(posted.starts_with("http/1.1 405 ") && posted.contains("\r\nallow: get\r\n"), "{posted}");
}

#[test]
fn the_server_says_goodbye_in_mqtt_and_then_in_websocket() {
    let mut server = Server::start_with(TABLE, &[]);
    let mut page = Page::connected(&server);
    server.signal("TERM");
    let (first, payload) = page.frame().unwrap();
    assert_eq!((first, payload[0], reason(&payload)), (0x82, 0xE0, Some(wire::SERVER_SHUTTING_DOWN)));
    assert_eq!(page.frame().map(|(first, _)| first), Some(0x88));
    assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn a_request_that_comes_byte_by_byte_is_not_waited_for_beyond_the_connect_timeout() {
    let server = Server::start_with(&format!("{TABLE}[limits]\nconnect_timeout_ms = 600\n"), &[]);
    let mut stream = TcpStream::connect(server.address("mqtt_ws")).unwrap();
    let started = std::time::Instant::now();
    let mut endless = b"GET /mqtt HTTP/1.1\r\nX: ".iter().copied().chain(std::iter::repeat(b'x'));
    while endless.next().is_some_and(|byte| stream.write_all(&[byte]).is_ok()) {
        assert!(started.elapsed() < Duration::from_secs(10), "it still listens");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(started.elapsed() >= Duration::from_millis(600));
}
