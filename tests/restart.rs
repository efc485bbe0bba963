//! What was acknowledged is there after any end of the server, whatever road it came by.

use crate::{
    clients::{curl, rest_session},
    harness::{Ended, PATIENCE, Server, eventually, run_in},
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

/// A publisher of MQTT 3.1.1 that keeps to its session: numbered messages, one at a time, each sent again over the next
/// connection until the exchange is done.
struct Stream {
    name: &'static str,
    qos: u8,
    /// The message under way, counted from 1.
    number: u32,
    received: bool,
    /// The last number whose exchange was acknowledged.
    acknowledged: u32,
}

impl Stream {
    fn new(name: &'static str, qos: u8) -> Self {
        Self { name, qos, number: 1, received: false, acknowledged: 0 }
    }

    /// Publishes until the connection breaks.
    fn run(&mut self, server: SocketAddr) {
        let _ = self.publish(server);
    }

    fn publish(&mut self, server: SocketAddr) -> std::io::Result<()> {
        let mut socket = TcpStream::connect(server)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let id = self.name.as_bytes();
        let length = u8::try_from(12 + id.len()).unwrap();
        let mut connect = vec![0x10, length, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 60, 0, length - 12];
        connect.extend_from_slice(id);
        socket.write_all(&connect)?;
        socket.read_exact(&mut [0; 4])?;
        loop {
            let id = u16::try_from(self.number % 60_000 + 1).unwrap().to_be_bytes();
            if !self.received {
                let text = format!("{}-{:06}", self.name, self.number);
                let topic = "stream";
                let length = u8::try_from(2 + topic.len() + 2 + text.len()).unwrap();
                let mut packet = vec![0x30 | self.qos << 1, length, 0, u8::try_from(topic.len()).unwrap()];
                packet.extend_from_slice(topic.as_bytes());
                packet.extend_from_slice(&id);
                packet.extend_from_slice(text.as_bytes());
                socket.write_all(&packet)?;
                expect(&mut socket, if self.qos == 1 { 0x40 } else { 0x50 }, id)?;
                self.acknowledged = self.number;
            }
            if self.qos == 2 {
                self.received = true;
                socket.write_all(&[0x62, 2, id[0], id[1]])?;
                expect(&mut socket, 0x70, id)?;
            }
            self.received = false;
            self.number += 1;
        }
    }
}

fn expect(socket: &mut TcpStream, kind: u8, id: [u8; 2]) -> std::io::Result<()> {
    let mut answer = [0; 4];
    socket.read_exact(&mut answer)?;
    assert_eq!(answer, [kind, 2, id[0], id[1]], "the acknowledgement of what was sent");
    Ok(())
}

/// Publishes over REST until the server is gone; gives the numbers that were acknowledged.
fn over_rest(server: SocketAddr, from: u32) -> Vec<u32> {
    let mut acknowledged = Vec::new();
    for number in from.. {
        let mut post = Command::new("curl");
        post.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--data", &format!("rest-{number:06}")]);
        let output = post.arg(format!("http://{server}/v1/topics/stream")).output().unwrap();
        match &output.stdout[..] {
            b"200" => acknowledged.push(number),
            _ => break,
        }
    }
    acknowledged
}

/// Everything a session holds, read by cursor.
fn read_all(server: &Server, session: &str) -> Vec<String> {
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

/// Numbers of one stream in the order of their coming.
fn numbers(texts: &[String], name: &str) -> Vec<u32> {
    texts.iter().filter_map(|text| text.strip_prefix(name)?.strip_prefix('-')?.parse().ok()).collect()
}

#[test]
fn nothing_acknowledged_is_lost_and_qos_2_comes_once_over_kills_at_any_moment() {
    let mut server = Server::start_with("[limits]\nmax_queued_messages = 1000000\n", &[]);
    rest_session(&server, "reader", "stream", "");
    curl(&server, "/v1/topics/state", &["-X", "PUT", "--data", "kept"]);
    let mut once = Stream::new("once", 1);
    let mut exactly = Stream::new("exactly", 2);
    let (mut rest, mut next) = (Vec::new(), 1);
    // Seeded, so that a failure comes again.
    let mut pause = 0x2545_F491_u32;
    for round in 0..4 {
        pause ^= pause << 13;
        pause ^= pause >> 17;
        pause ^= pause << 5;
        let (mqtt, http) = (server.address("mqtt"), server.address("rest"));
        let publishers = thread::scope(|scope| {
            scope.spawn(|| once.run(mqtt));
            scope.spawn(|| exactly.run(mqtt));
            let rest = scope.spawn(|| over_rest(http, next));
            thread::sleep(Duration::from_millis(500 + u64::from(pause % 1_000)));
            let dir = server.kill();
            (rest.join().unwrap(), dir)
        });
        let (acknowledged, dir) = publishers;
        next = acknowledged.last().map_or(next, |last| last + 1) + 1;
        rest.extend(acknowledged);
        server = Server::start_in(dir, &[]).unwrap_or_else(|ended| panic!("round {round}: {ended:?}"));
    }
    assert_eq!(curl(&server, "/v1/topics/state", &[]).body, "kept");
    let texts = read_all(&server, "reader");
    assert!(once.acknowledged > 0 && exactly.acknowledged > 0 && !rest.is_empty(), "something was acknowledged");
    let seen = numbers(&texts, "once");
    assert!((1..=once.acknowledged).all(|n| seen.contains(&n)), "QoS 1 lost: {seen:?}");
    assert!(seen.is_sorted(), "QoS 1 out of order: {seen:?}");
    let seen = numbers(&texts, "exactly");
    let wanted: Vec<u32> = (1..=exactly.acknowledged).collect();
    // The last may have come without its acknowledgement having reached the publisher.
    assert_eq!(&seen[..wanted.len()], wanted, "QoS 2 comes once and in order");
    assert!(seen.len() <= wanted.len() + 1, "{seen:?}");
    let seen = numbers(&texts, "rest");
    assert!(rest.iter().all(|n| seen.contains(n)), "over REST lost: {seen:?}, acknowledged {rest:?}");
    assert!(seen.is_sorted(), "over REST out of order: {seen:?}");
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
