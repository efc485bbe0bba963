//! Plain UDP.

use crate::outbox::Outbox;
use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::SocketAddr};
use tokio::net::UdpSocket;

/// Bytes of the kernel's receive buffer we wish for: boards send in bursts. The system may grant less.
const RECEIVE_BUFFER: usize = 4 * 1_024 * 1_024;

/// Opens a socket, not yet registered with any runtime.
///
/// # Errors
/// What the system says.
pub fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Sends all that waits. A full send buffer is waited for: it empties without anybody's help. A datagram that the
/// system refuses (no route) is lost, as datagrams may be.
pub async fn send(socket: &UdpSocket, outbox: &mut Outbox) {
    for (to, datagram) in outbox.iter() {
        if let Err(error) = socket.send_to(datagram, to).await {
            tracing::debug!(peer = %to, %error, "datagram was not sent");
        }
    }
    outbox.clear();
}
