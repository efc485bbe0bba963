//! Plain UDP: bursts received and sent with one system call each where the system has one.

use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    task::{Context, Poll},
};
use tokio::{io::Interest, net::UdpSocket};

#[cfg(target_os = "linux")]
mod many;
#[cfg(not(target_os = "linux"))]
#[path = "udp/single.rs"]
mod many;

/// Bytes of the kernel's buffers we wish for: boards send in bursts, and are answered in bursts. The system may grant
/// less.
const BUFFER: usize = 4 * 1_024 * 1_024;

/// Bursts read before what came is obeyed and answered.
const MAX_BURSTS: usize = 4;

/// Opens a socket, not yet registered with any runtime.
///
/// # Errors
/// What the system says.
pub fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    many::set_buffers(&socket, BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Opens a socket that hears what is said to a multicast group, on the network that `listen` belongs to; other
/// gateways on this machine may hear it too.
///
/// # Errors
/// What the system says.
pub fn join(group: SocketAddr, listen: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Bound to the group it hears nothing else; where systems do not allow that, to its port.
    if socket.bind(&group.into()).is_err() {
        let any: SocketAddr = match group {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, group.port()).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, group.port()).into(),
        };
        socket.bind(&any.into())?;
    }
    match (group.ip(), listen.ip()) {
        (IpAddr::V4(group), IpAddr::V4(interface)) => socket.join_multicast_v4(&group, &interface)?,
        (IpAddr::V4(group), IpAddr::V6(_)) => socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?,
        (IpAddr::V6(group), _) => socket.join_multicast_v6(&group, 0)?,
    }
    Ok(socket.into())
}

/// A socket on a loop.
pub struct Udp {
    socket: UdpSocket,
    many: many::Many,
}

impl Udp {
    /// Registers a socket with the runtime of this thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        Ok(Self { socket: UdpSocket::from_std(socket)?, many: many::Many::new() })
    }

    /// Whether there may be something to read.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error is about one datagram (a port unreachable) or passes; the read tells.
        self.socket.poll_recv_ready(cx).map(drop)
    }

    /// Reads what waits, within bounds, and shows it. Call it when [`Udp::poll_readable`] said so.
    pub fn read(&mut self, mut visit: impl FnMut(SocketAddr, &[u8])) {
        let Self { socket, many } = self;
        for _ in 0..MAX_BURSTS {
            let mut full = false;
            // A burst that is not full has emptied the socket: said as "would block", so that nobody asks again
            // before the system rings.
            let read = socket.try_io(Interest::READABLE, || {
                full = many.receive(socket, &mut visit)?;
                if full { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
            });
            match read {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => tracing::debug!(%error, "datagram was not read"),
            }
        }
    }

    /// Sends datagrams. A full send buffer is waited for: it empties without anybody's help. A datagram that the
    /// system refuses (no route) is lost, as datagrams may be. Gives the octets sent.
    pub async fn send<'a>(&mut self, datagrams: impl Iterator<Item = (SocketAddr, &'a [u8])>) -> usize {
        let datagrams: Vec<(SocketAddr, &[u8])> = datagrams.collect();
        let (mut rest, mut octets) = (datagrams.as_slice(), 0);
        while let Some(((to, _), later)) = rest.split_first() {
            let Self { socket, many } = self;
            match socket.try_io(Interest::WRITABLE, || many.send(socket, rest)) {
                Ok(sent) => {
                    let (done, left) = rest.split_at(sent.clamp(1, rest.len()));
                    octets += done.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
                    rest = left;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if socket.writable().await.is_err() {
                        return octets;
                    }
                }
                Err(error) => {
                    tracing::debug!(peer = %to, %error, "datagram was not sent");
                    rest = later;
                }
            }
        }
        octets
    }

    /// Says something to a multicast group, over at most so many hops.
    ///
    /// # Errors
    /// What the system says.
    pub fn announce(&self, group: SocketAddr, hops: u8, datagram: &[u8]) -> io::Result<()> {
        let socket = socket2::SockRef::from(&self.socket);
        match (group, self.socket.local_addr()?.ip()) {
            (SocketAddr::V4(_), IpAddr::V4(interface)) => {
                if !interface.is_unspecified() {
                    socket.set_multicast_if_v4(&interface)?;
                }
                socket.set_multicast_ttl_v4(hops.into())?;
            }
            (SocketAddr::V6(_), IpAddr::V6(_)) => socket.set_multicast_hops_v6(hops.into())?,
            _ => return Ok(()),
        }
        self.socket.try_send_to(datagram, group).map(drop)
    }
}
