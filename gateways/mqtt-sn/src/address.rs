//! Where a board is.

use std::{fmt, net::SocketAddr};

/// Where a board is: which of our sockets it speaks to, from which address, and behind a forwarder its wireless node
/// id. Two boards never share one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Index of the gateway's socket.
    pub socket: u16,
    /// Where its datagrams come from.
    pub from: SocketAddr,
    /// Behind a forwarder (§5.5): which of its boards.
    pub node: Option<Box<[u8]>>,
}

impl Address {
    /// A board that is behind no forwarder.
    #[must_use]
    pub fn direct(socket: u16, from: SocketAddr) -> Self {
        Self { socket, from, node: None }
    }

    /// Whether both may be the same board under another port, as address translation has it.
    #[must_use]
    pub fn is_same_host(&self, other: &Self) -> bool {
        self.from.ip() == other.from.ip() && self.node == other.node
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.from.fmt(f)?;
        if let Some(node) = &self.node {
            f.write_str("#")?;
            node.iter().try_for_each(|octet| write!(f, "{octet:02x}"))?;
        }
        Ok(())
    }
}
