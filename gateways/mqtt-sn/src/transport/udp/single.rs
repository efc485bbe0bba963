//! One datagram a system call, where the system has no calls for many.

use std::{io, net::SocketAddr};
use tokio::net::UdpSocket;

/// Datagrams before others get a turn.
const MANY: usize = 64;

/// Asks for buffers of so many bytes.
pub(super) fn set_buffers(socket: &socket2::Socket, bytes: usize) -> io::Result<()> {
    socket.set_recv_buffer_size(bytes)?;
    socket.set_send_buffer_size(bytes)
}

/// Room for one datagram.
pub(super) struct Many {
    room: Vec<u8>,
}

impl Many {
    pub(super) fn new() -> Self {
        Self { room: vec![0; 65_536] }
    }

    /// Shows one burst; whether it was full.
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        visit: &mut impl FnMut(SocketAddr, &[u8]),
    ) -> io::Result<bool> {
        for _ in 0..MANY {
            match socket.try_recv_from(&mut self.room) {
                Ok((length, from)) => visit(from, &self.room[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Sends the first of these; gives how many.
    pub(super) fn send(&mut self, socket: &UdpSocket, datagrams: &[(SocketAddr, &[u8])]) -> io::Result<usize> {
        let Some((to, bytes)) = datagrams.first() else { return Ok(0) };
        socket.try_send_to(bytes, *to).map(|_| 1)
    }
}
