//! Publishers that keep to their sessions: numbered messages, one at a time, each sent again over the next connection
//! until its exchange is done. Of bare packets, so that nothing is repeated but what is meant to be.

use crate::harness::PATIENCE;
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    process::Command,
    time::Duration,
};

/// Where a stream is.
pub(crate) struct Stream {
    pub(crate) name: &'static str,
    pub(crate) qos: u8,
    /// The message under way, counted from 1.
    number: u32,
    /// PUBREC came for it.
    received: bool,
    /// The last number that was acknowledged.
    pub(crate) acknowledged: u32,
}

impl Stream {
    fn new(name: &'static str, qos: u8) -> Self {
        Self { name, qos, number: 1, received: false, acknowledged: 0 }
    }

    fn id(&self) -> [u8; 2] {
        u16::try_from(self.number % 60_000 + 1).unwrap().to_be_bytes()
    }

    fn text(&self) -> String {
        format!("{}-{:06}", self.name, self.number)
    }

    /// Publishes `count` messages, or until the connection breaks. `exchange` says a packet and waits for its answer.
    fn run(&mut self, count: u32, mut exchange: impl FnMut(Say<'_>) -> io::Result<()>) -> io::Result<()> {
        for _ in 0..count {
            let id = self.id();
            if !self.received {
                exchange(Say::Publish { qos: self.qos, id, text: &self.text() })?;
                self.acknowledged = self.number;
            }
            if self.qos == 2 {
                self.received = true;
                exchange(Say::Release { id })?;
            }
            self.received = false;
            self.number += 1;
        }
        Ok(())
    }
}

/// What a publisher says, and expects the answer to.
enum Say<'a> {
    Publish { qos: u8, id: [u8; 2], text: &'a str },
    Release { id: [u8; 2] },
}

/// MQTT 3.1.1, topic `mqtt`.
pub(crate) struct Mqtt(pub(crate) Stream);

impl Mqtt {
    pub(crate) fn new(name: &'static str, qos: u8) -> Self {
        Self(Stream::new(name, qos))
    }

    /// Publishes until the connection breaks.
    pub(crate) fn run(&mut self, server: SocketAddr) {
        let _ = self.publish(server, u32::MAX);
    }

    /// Publishes what is under way to its end.
    pub(crate) fn finish(&mut self, server: SocketAddr) {
        self.publish(server, 1).unwrap();
    }

    fn publish(&mut self, server: SocketAddr, count: u32) -> io::Result<()> {
        let mut socket = open(server, self.0.name)?;
        self.0.run(count, |say| {
            let (packet, kind, id) = match say {
                Say::Publish { qos, id, text } => {
                    let body = [b"\0\x04mqtt", &id[..], text.as_bytes()].concat();
                    let first = [0x30 | qos << 1, u8::try_from(body.len()).unwrap()];
                    ([&first[..], &body].concat(), if qos == 1 { 0x40 } else { 0x50 }, id)
                }
                Say::Release { id } => (vec![0x62, 2, id[0], id[1]], 0x70, id),
            };
            socket.write_all(&packet)?;
            let mut answer = [0; 4];
            socket.read_exact(&mut answer)?;
            assert_eq!(answer, [kind, 2, id[0], id[1]], "the acknowledgement of what was sent");
            Ok(())
        })
    }
}

/// A connection of MQTT 3.1.1 into a session that stays.
pub(super) fn open(server: SocketAddr, id: &str) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let length = u8::try_from(id.len()).unwrap();
    let head = [0x10, length + 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 60, 0, length];
    socket.write_all(&[&head, id.as_bytes()].concat())?;
    socket.read_exact(&mut [0; 4])?;
    Ok(socket)
}

/// MQTT-SN 1.2, short topic name `sn`.
pub(crate) struct Board(pub(crate) Stream);

impl Board {
    pub(crate) fn new(name: &'static str, qos: u8) -> Self {
        Self(Stream::new(name, qos))
    }

    /// Publishes until nobody answers any more.
    pub(crate) fn run(&mut self, server: SocketAddr) {
        let _ = self.publish(server, u32::MAX);
    }

    /// Publishes what is under way to its end.
    pub(crate) fn finish(&mut self, server: SocketAddr) {
        self.publish(server, 1).unwrap();
    }

    fn publish(&mut self, server: SocketAddr, count: u32) -> io::Result<()> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(server)?;
        // No Clean Session, keep alive 600 s.
        let connect = [&[0x04, 0, 1, 2, 88][..], self.0.name.as_bytes()].concat();
        ask(&socket, &connect, &[0x05, 0], false)?;
        self.0.run(count, |say| match say {
            Say::Publish { qos, id, text } => {
                let publish = [&[0x0C, qos << 5 | 0b10, b's', b'n', id[0], id[1]], text.as_bytes()].concat();
                match qos {
                    1 => ask(&socket, &publish, &[0x0D, b's', b'n', id[0], id[1], 0], true),
                    _ => ask(&socket, &publish, &[0x0F, id[0], id[1]], true),
                }
            }
            Say::Release { id } => ask(&socket, &[0x10, id[0], id[1]], &[0x0E, id[0], id[1]], false),
        })
    }
}

/// Says a message until its answer comes; `marks` a repeated PUBLISH.
fn ask(socket: &UdpSocket, message: &[u8], wanted: &[u8], marks: bool) -> io::Result<()> {
    const T_RETRY: Duration = Duration::from_millis(200);
    socket.set_read_timeout(Some(T_RETRY))?;
    let mut packet = [&[u8::try_from(message.len() + 1).unwrap()], message].concat();
    for _ in 0..50 {
        socket.send(&packet)?;
        let mut answer = [0; 100];
        match socket.recv(&mut answer) {
            Ok(length) if &answer[1..length] == wanted => return Ok(()),
            // The answer to what was said twice, or a wait that is over.
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(gone) => return Err(gone),
        }
        packet[2] |= u8::from(marks) << 7;
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Publishes over REST, topic `rest`, until the server is gone; gives the numbers that were acknowledged.
pub(crate) fn over_rest(server: SocketAddr, from: u32) -> Vec<u32> {
    let mut acknowledged = Vec::new();
    for number in from.. {
        let mut post = Command::new("curl");
        post.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--data", &format!("rest-{number:06}")]);
        let output = post.arg(format!("http://{server}/v1/topics/rest")).output().unwrap();
        match &output.stdout[..] {
            b"200" => acknowledged.push(number),
            _ => break,
        }
    }
    acknowledged
}
