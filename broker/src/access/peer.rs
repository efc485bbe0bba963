//! Where a client speaks from, and by what kind of way.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// Where a client speaks from, and what its road knows about the way there. Kept for every connection, hence small.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    ip: IpAddr,
    port: u16,
    way: Way,
}

/// What is known about the way, a bit each.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Way(u8);

impl Way {
    /// No way at all: one of the server's own parts.
    const INTERNAL: u8 = 1;
    /// A proxy says that it speaks for somebody else.
    const PROXIED: u8 = 1 << 1;
    /// Nobody else can read along: TLS, DTLS.
    const ENCRYPTED: u8 = 1 << 2;
    /// The client showed a certificate or a pre-shared key that was verified.
    const CERTIFIED: u8 = 1 << 3;
}

impl Peer {
    /// One of the server's own parts.
    pub const INTERNAL: Self = Self { ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: 0, way: Way(Way::INTERNAL) };

    /// A client at this address.
    #[must_use]
    pub const fn direct(address: SocketAddr) -> Self {
        Self { ip: address.ip().to_canonical(), port: address.port(), way: Way(0) }
    }

    /// A proxy at this address, which says that it speaks for somebody else (`Forwarded`, `X-Forwarded-For`).
    #[must_use]
    pub const fn proxied(address: SocketAddr) -> Self {
        Self { way: Way(Way::PROXIED), ..Self::direct(address) }
    }

    /// The same over TLS or DTLS.
    #[must_use]
    pub const fn encrypted(self) -> Self {
        Self { way: Way(self.way.0 | Way::ENCRYPTED), ..self }
    }

    /// The same, encrypted, and the client's own certificate or pre-shared key was verified, whether or not a name
    /// is taken from it.
    #[must_use]
    pub const fn certified(self) -> Self {
        Self { way: Way(self.way.0 | Way::ENCRYPTED | Way::CERTIFIED), ..self }
    }

    /// The address; `None` for the server's own parts. IPv4 in IPv6 is shown as IPv4.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        if self.is_internal() { None } else { Some(SocketAddr::new(self.ip, self.port)) }
    }

    /// Whether this is one of the server's own parts.
    #[must_use]
    pub const fn is_internal(&self) -> bool {
        self.has(Way::INTERNAL)
    }

    /// Whether the other end of the connection is on this very machine (a proxy may be), or the server itself.
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        self.is_internal() || self.ip.is_loopback()
    }

    /// Whether it is on this very machine with no proxy before it, or the server itself.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        self.is_loopback() && !self.has(Way::PROXIED)
    }

    /// Whether nobody else can read along.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.is_internal() || self.has(Way::ENCRYPTED)
    }

    /// Whether the client's certificate or pre-shared key was verified.
    #[must_use]
    pub const fn is_certified(&self) -> bool {
        self.has(Way::CERTIFIED)
    }

    const fn has(&self, bit: u8) -> bool {
        self.way.0 & bit != 0
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(address) => address.fmt(f),
            None => f.write_str("internal"),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_without_a_proxy_is_local() {
        let near: SocketAddr = "127.0.0.1:5".parse().unwrap();
        assert!(Peer::direct(near).is_local());
        assert!(Peer::direct("[::1]:5".parse().unwrap()).is_local());
        assert!(Peer::direct("[::ffff:127.0.0.1]:5".parse().unwrap()).is_local());
        assert!(Peer::direct(near).encrypted().is_local());
        assert!(!Peer::proxied(near).is_local() && Peer::proxied(near).is_loopback());
        assert!(!Peer::direct("192.0.2.1:5".parse().unwrap()).is_local());
        assert!(Peer::INTERNAL.is_local());
    }

    #[test]
    fn a_verified_certificate_means_an_encrypted_way() {
        let plain = Peer::direct("192.0.2.1:5".parse().unwrap());
        assert!(!plain.is_encrypted() && !plain.is_certified());
        assert!(plain.encrypted().is_encrypted() && !plain.encrypted().is_certified());
        assert!(plain.certified().is_encrypted() && plain.certified().is_certified());
        assert_eq!(plain.certified().to_string(), "192.0.2.1:5");
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<Peer>() <= 20);
    }
}
