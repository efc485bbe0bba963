//! Readers that keep what they have received over the server's ends, and go on where they were.

use super::publishers::open;
use serde_json::Value;
use std::{
    collections::HashSet,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

/// Reads session `by-cursor`, and keeps its cursor with its results.
#[derive(Default)]
pub(crate) struct ByCursor {
    pub(crate) texts: Vec<String>,
    after: String,
}

impl ByCursor {
    /// Reads until the server is gone.
    pub(crate) fn read_on(&mut self, server: SocketAddr) {
        while self.page(server, 1).is_some() {}
    }

    /// Reads until nothing waits.
    pub(crate) fn read_the_rest(&mut self, server: SocketAddr) {
        while self.page(server, 0).expect("the server is there") > 0 {}
    }

    /// Reads a page; how many messages were in it. `None`: there was no whole answer.
    fn page(&mut self, server: SocketAddr, wait: u8) -> Option<usize> {
        let mut get = Command::new("curl");
        get.args(["-s", "--fail", "-w", "\n%{http_code}"]);
        let url = format!("http://{server}/v1/sessions/by-cursor/messages?max=500&wait={wait}{}", self.after);
        let output = get.arg(url).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n')?;
        match (output.status.success(), status) {
            (true, "200") => {}
            (true, "204") => return Some(0),
            _ => return None,
        }
        let page: Value = serde_json::from_str(body).unwrap();
        let texts = page["messages"].as_array().unwrap().iter().map(|m| m["payload"].as_str().unwrap().to_owned());
        let before = self.texts.len();
        self.texts.extend(texts);
        self.after = format!("&after={}", page["cursor"].as_str().unwrap());
        Some(self.texts.len() - before)
    }
}

/// An MQTT 3.1.1 subscriber whose session stays.
#[derive(Default)]
pub(crate) struct Subscriber {
    pub(crate) texts: Vec<String>,
    /// Packet identifiers of QoS 2 that were received and not released.
    held: HashSet<[u8; 2]>,
}

impl Subscriber {
    pub(crate) fn subscribe(&mut self, server: SocketAddr, topics: &[&str]) {
        let mut socket = open(server, "by-mqtt").unwrap();
        let filter = |topic: &&str| [&[0, u8::try_from(topic.len()).unwrap()], topic.as_bytes(), &[2]].concat();
        let filters: Vec<u8> = topics.iter().flat_map(filter).collect();
        let head = [0x82, u8::try_from(filters.len() + 2).unwrap(), 0, 1];
        socket.write_all(&[&head, &filters[..]].concat()).unwrap();
        let mut suback = vec![0; 4 + topics.len()];
        socket.read_exact(&mut suback).unwrap();
        assert!(suback[4..].iter().all(|granted| *granted == 2), "{suback:?}");
    }

    /// Receives until the connection breaks.
    pub(crate) fn read_on(&mut self, server: SocketAddr) {
        let _ = open(server, "by-mqtt").and_then(|socket| self.receive(socket));
    }

    /// Receives until nothing more comes.
    pub(crate) fn read_the_rest(&mut self, server: SocketAddr) {
        let socket = open(server, "by-mqtt").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let ended = self.receive(socket).unwrap_err();
        assert!(matches!(ended.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{ended}");
    }

    fn receive(&mut self, mut socket: TcpStream) -> io::Result<()> {
        loop {
            let mut head = [0; 2];
            socket.read_exact(&mut head)?;
            let mut body = vec![0; head[1].into()];
            socket.read_exact(&mut body)?;
            let qos = head[0] >> 1 & 3;
            match head[0] & 0xF0 {
                0x30 => {
                    let topic = 2 + usize::from(body[1]);
                    let id = [body[topic], body[topic + 1]];
                    // What is held was received before [MQTT-4.3.3-2].
                    if qos == 1 || self.held.insert(id) {
                        self.texts.push(String::from_utf8(body[topic + 2..].to_vec()).unwrap());
                    }
                    socket.write_all(&[if qos == 1 { 0x40 } else { 0x50 }, 2, id[0], id[1]])?;
                }
                0x60 => {
                    let id = [body[0], body[1]];
                    self.held.remove(&id);
                    socket.write_all(&[0x70, 2, id[0], id[1]])?;
                }
                other => panic!("{other:#x} to a subscriber"),
            }
        }
    }
}
