//! What is to be sent: one buffer for a whole turn of the driver, datagrams end to end.

use crate::codec::{Packet, encode};
use std::{net::SocketAddr, ops::Range};

/// Datagrams that wait to be sent. Emptied every turn; a turn is bounded, so it is too.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    datagrams: Vec<(SocketAddr, Range<usize>)>,
}

impl Outbox {
    /// Adds a message. One that no length field can describe is not sent; callers check sizes before.
    pub fn push(&mut self, to: SocketAddr, packet: &Packet<'_>) {
        let start = self.bytes.len();
        if encode(packet, &mut self.bytes).is_ok() {
            self.datagrams.push((to, start..self.bytes.len()));
        }
    }

    /// Adds a message that was encoded before.
    pub fn push_bytes(&mut self, to: SocketAddr, datagram: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(datagram);
        self.datagrams.push((to, start..self.bytes.len()));
    }

    /// What waits, in order.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.datagrams.iter().map(|(to, range)| (*to, &self.bytes[range.clone()]))
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Forgets what was sent; keeps the room for more.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.datagrams.clear();
    }
}
