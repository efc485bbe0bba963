//! What is to be sent: one buffer for a whole turn of the driver, datagrams end to end.

use crate::{
    address::Address,
    codec::{Packet, encapsulate, encode},
};
use std::{net::SocketAddr, ops::Range};

/// Datagrams that wait to be sent. Emptied every turn; a turn is bounded, so it is too.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    datagrams: Vec<Outgoing>,
}

#[derive(Debug)]
struct Outgoing {
    socket: u16,
    to: SocketAddr,
    range: Range<usize>,
}

impl Outbox {
    /// Adds a message. One that no length field can describe is not sent; callers check sizes before.
    pub fn push(&mut self, to: &Address, packet: &Packet<'_>) {
        self.add(to, |bytes| encode(packet, bytes).is_ok());
    }

    /// Adds a message that was encoded before.
    pub fn push_bytes(&mut self, to: &Address, message: &[u8]) {
        self.add(to, |bytes| {
            bytes.extend_from_slice(message);
            true
        });
    }

    fn add(&mut self, to: &Address, message: impl FnOnce(&mut Vec<u8>) -> bool) {
        let start = self.bytes.len();
        let wrapped = to.node.as_ref().is_none_or(|node| encapsulate(0, node, &mut self.bytes).is_ok());
        if wrapped && message(&mut self.bytes) {
            self.datagrams.push(Outgoing { socket: to.socket, to: to.from, range: start..self.bytes.len() });
        } else {
            self.bytes.truncate(start);
        }
    }

    /// What waits for one socket, in order.
    pub fn of_socket(&self, socket: u16) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.datagrams.iter().filter(move |it| it.socket == socket).map(|it| (it.to, &self.bytes[it.range.clone()]))
    }

    /// How many datagrams wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.datagrams.len()
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
