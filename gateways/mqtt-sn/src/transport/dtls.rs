//! DTLS 1.2 on a socket of its own: a connection a peer address, each a pure machine (dimpl) that this file feeds.

mod credentials;

pub use credentials::Credentials;

use crate::{client::Way, transport::udp::Udp};
use dimpl::{Dtls, Output};
use hashbrown::HashMap;
use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};
use waystation_broker::Traffic;

/// Most handshakes under way. Past it the one that began first is given up: whoever answers the cookie (RFC 6347
/// §4.2.1) is through in a moment.
const MAX_HANDSHAKES: usize = 1_024;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Room for one record: 16 KiB of content and what is around it.
const LARGEST: usize = 18_432;

/// What a record begins with (RFC 6347 §4.1): content type, version, epoch.
const HANDSHAKE_RECORD: u8 = 22;

/// A listener.
pub struct Listener {
    /// Its socket.
    pub socket: Udp,
    credentials: Arc<Credentials>,
    /// At most `most`.
    open: HashMap<SocketAddr, Connection>,
    /// At most [`MAX_HANDSHAKES`]. A board that starts anew shakes hands beside its old connection, which ends when
    /// it is through: a forged hello ends nothing (RFC 6347 §4.2.8).
    opening: HashMap<SocketAddr, Connection>,
    most: usize,
    traffic: Arc<Traffic>,
    room: Vec<u8>,
    /// Records to be sent.
    records: Vec<(SocketAddr, Vec<u8>)>,
}

struct Connection {
    dtls: Dtls,
    proof: credentials::Proof,
    began: Instant,
    heard: Instant,
    due: Option<Instant>,
    way: Option<Way>,
}

/// What became of a connection when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lives,
    Opened,
    Over,
    /// Over, because the other side broke the protocol or proved nothing.
    Broken,
}

impl Fate {
    fn is_end(self) -> bool {
        matches!(self, Self::Over | Self::Broken)
    }
}

impl Listener {
    /// A listener for at most so many connections.
    #[must_use]
    pub fn new(socket: Udp, credentials: Arc<Credentials>, most: usize, traffic: Arc<Traffic>) -> Self {
        let (open, opening) = (HashMap::new(), HashMap::new());
        Self { socket, credentials, open, opening, most, traffic, room: vec![0; LARGEST], records: Vec::new() }
    }

    /// New connections are judged by these.
    pub fn configure(&mut self, credentials: Arc<Credentials>) {
        self.credentials = credentials;
    }

    /// Reads what waits and shows what boards say.
    pub fn read(&mut self, now: Instant, mut visit: impl FnMut(SocketAddr, &Way, &[u8])) {
        let mut datagrams: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
        self.socket.read(|from, bytes| datagrams.push((from, bytes.to_vec())));
        for (from, bytes) in datagrams {
            self.datagram(now, from, &bytes, &mut visit);
        }
    }

    fn datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
        visit: &mut impl FnMut(SocketAddr, &Way, &[u8]),
    ) {
        if is_hello(bytes) && !self.opening.contains_key(&from) {
            self.begin(now, from);
        }
        let (room, records) = (&mut self.room, &mut self.records);
        let mut known = false;
        if let Some(connection) = self.opening.get_mut(&from) {
            known = true;
            match connection.handle(now, from, Some(bytes), room, records, visit) {
                Fate::Lives => {}
                fate @ (Fate::Over | Fate::Broken) => {
                    self.opening.remove(&from);
                    self.tell(fate);
                }
                Fate::Opened => {
                    if let Some(connection) = self.opening.remove(&from) {
                        self.make_room();
                        self.open.insert(from, connection);
                    }
                    return;
                }
            }
        }
        let (room, records) = (&mut self.room, &mut self.records);
        if let Some(connection) = self.open.get_mut(&from) {
            known = true;
            // What is in the clear is an old word of its handshake, or forged.
            if !is_plain(bytes) {
                let fate = connection.handle(now, from, Some(bytes), room, records, visit);
                if fate.is_end() {
                    self.open.remove(&from);
                }
                self.tell(fate);
            }
        }
        if !known {
            self.tell(Fate::Broken);
        }
    }

    /// Counts what broke the protocol.
    fn tell(&self, fate: Fate) {
        if fate == Fate::Broken {
            self.traffic.add_violation();
        }
    }

    fn begin(&mut self, now: Instant, from: SocketAddr) {
        if self.opening.len() >= MAX_HANDSHAKES {
            let first = self.opening.iter().min_by_key(|(_, it)| it.began).map(|(address, _)| *address);
            first.map(|address| self.opening.remove(&address));
        }
        if let Some((dtls, proof)) = self.credentials.server(now) {
            let connection = Connection { dtls, proof, began: now, heard: now, due: None, way: None };
            self.opening.insert(from, connection);
        }
    }

    /// At the bound the connection that was silent for longest goes; its board shakes hands anew.
    fn make_room(&mut self) {
        while self.open.len() >= self.most {
            let Some(silent) = self.open.iter().min_by_key(|(_, it)| it.heard).map(|(address, _)| *address) else {
                return;
            };
            self.open.remove(&silent);
        }
    }

    /// Says something to a board; nothing if its connection is gone.
    pub fn say(&mut self, now: Instant, to: SocketAddr, message: &[u8]) {
        let Some(connection) = self.open.get_mut(&to) else { return };
        let said = connection.dtls.send_application_data(message).is_ok();
        let nobody = &mut |_: SocketAddr, _: &Way, _: &[u8]| {};
        let fate = connection.handle(now, to, None, &mut self.room, &mut self.records, nobody);
        if !said || fate.is_end() {
            self.open.remove(&to);
        }
    }

    /// Lets time pass: repeats handshakes and gives up those that take too long.
    pub fn time_out(&mut self, now: Instant) {
        let (room, records) = (&mut self.room, &mut self.records);
        let nobody = &mut |_: SocketAddr, _: &Way, _: &[u8]| {};
        self.opening.retain(|address, connection| {
            if now.saturating_duration_since(connection.began) > HANDSHAKE {
                return false;
            }
            connection.due.is_none_or(|due| due > now)
                || !connection.handle(now, *address, None, room, records, nobody).is_end()
        });
    }

    /// When [`Listener::time_out`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.opening.values().map(|it| it.due.unwrap_or(it.began + HANDSHAKE).min(it.began + HANDSHAKE)).min()
    }

    /// Ends all connections in order.
    pub fn close(&mut self, now: Instant) {
        let (room, records) = (&mut self.room, &mut self.records);
        let nobody = &mut |_: SocketAddr, _: &Way, _: &[u8]| {};
        for (address, mut connection) in self.open.drain() {
            if connection.dtls.close().is_ok() {
                connection.handle(now, address, None, room, records, nobody);
            }
        }
    }

    /// Sends the records that wait; gives their octets.
    pub async fn send(&mut self) -> usize {
        let records = std::mem::take(&mut self.records);
        self.socket.send(records.iter().map(|(to, record)| (*to, record.as_slice()))).await
    }
}

impl Connection {
    /// Feeds the machine and obeys it. A bug of the library ends this connection and no other.
    fn handle(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        bytes: Option<&[u8]>,
        room: &mut Vec<u8>,
        records: &mut Vec<(SocketAddr, Vec<u8>)>,
        visit: &mut impl FnMut(SocketAddr, &Way, &[u8]),
    ) -> Fate {
        let mut said = Vec::new();
        let act = AssertUnwindSafe(|| self.obey(now, peer, bytes, room, records, &mut said));
        let fate = catch_unwind(act).unwrap_or_else(|_| {
            tracing::error!(%peer, "DTLS connection ended by panic");
            Fate::Over
        });
        if let Some(way) = &self.way {
            said.iter().for_each(|message| visit(peer, way, message));
        }
        fate
    }

    fn obey(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        bytes: Option<&[u8]>,
        room: &mut Vec<u8>,
        records: &mut Vec<(SocketAddr, Vec<u8>)>,
        said: &mut Vec<Vec<u8>>,
    ) -> Fate {
        let alive = self.dtls.handle_timeout(now).and_then(|()| match bytes {
            Some(bytes) => {
                self.heard = now;
                self.dtls.handle_packet(bytes)
            }
            None => Ok(()),
        });
        let mut fate = Fate::Lives;
        loop {
            match self.dtls.poll_output(room) {
                Output::Packet(record) => records.push((peer, record.to_vec())),
                Output::BufferTooSmall { needed } => room.resize(needed, 0),
                Output::PeerCert(certificate) => {
                    if let Err(why) = self.proof.certificate(certificate) {
                        tracing::debug!(%peer, why, "certificate is refused");
                        return Fate::Broken;
                    }
                }
                Output::Connected => match self.proof.way() {
                    Some(way) => {
                        self.way = Some(way);
                        fate = Fate::Opened;
                    }
                    None => return Fate::Broken,
                },
                Output::ApplicationData(message) => said.push(message.to_vec()),
                Output::CloseNotify => fate = Fate::Over,
                Output::Timeout(at) => {
                    self.due = Some(at);
                    break;
                }
                // Keys for SRTP, which nobody here speaks.
                _ => {}
            }
        }
        if let Err(error) = alive {
            tracing::debug!(%peer, %error, "DTLS connection is over");
            return Fate::Broken;
        }
        fate
    }
}

/// A record in the clear.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.get(3..5) == Some(&[0, 0])
}

/// The beginning of a handshake: ClientHello (1) in the clear.
fn is_hello(bytes: &[u8]) -> bool {
    bytes.first() == Some(&HANDSHAKE_RECORD) && is_plain(bytes) && bytes.get(13) == Some(&1)
}
