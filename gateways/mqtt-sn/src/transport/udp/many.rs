//! `recvmmsg` and `sendmmsg`: many datagrams a system call.

use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt, sockopt},
};
use socket2::Socket;
use std::{
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddr,
    os::fd::AsRawFd,
};
use tokio::net::UdpSocket;

/// Datagrams a system call.
const MANY: usize = 64;

/// The largest datagram UDP has, and then some.
const LARGEST: usize = 65_536;

/// Asks for buffers of so many bytes: beyond the system's bound where we may, else up to it.
pub(super) fn set_buffers(socket: &Socket, bytes: usize) -> io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        socket.set_recv_buffer_size(bytes)?;
    }
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(())
}

/// Room for a burst, and what the system wants to know about it.
pub(super) struct Many {
    headers: MultiHeaders<SockaddrStorage>,
    /// Only what datagrams fill of it is ever touched, and so in memory.
    room: Vec<u8>,
}

impl Many {
    pub(super) fn new() -> Self {
        Self { headers: MultiHeaders::preallocate(MANY, None), room: vec![0; MANY * LARGEST] }
    }

    /// Shows one burst; whether it was full.
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        visit: &mut impl FnMut(SocketAddr, &[u8]),
    ) -> io::Result<bool> {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            self.room.chunks_exact_mut(LARGEST).map(|room| [IoSliceMut::new(room)]).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = recvmmsg(socket.as_raw_fd(), &mut self.headers, slices.iter_mut(), flags, None)?;
        let mut count = 0;
        for datagram in received {
            count += 1;
            let from = datagram.address.as_ref().and_then(address);
            if let Some(from) = from {
                // An empty datagram has no slice.
                visit(from, datagram.iovs().next().unwrap_or_default());
            }
        }
        Ok(count == MANY)
    }

    /// Sends the first of these; gives how many.
    pub(super) fn send(&mut self, socket: &UdpSocket, datagrams: &[(SocketAddr, &[u8])]) -> io::Result<usize> {
        let datagrams = &datagrams[..datagrams.len().min(MANY)];
        let slices: Vec<[IoSlice<'_>; 1]> = datagrams.iter().map(|(_, bytes)| [IoSlice::new(bytes)]).collect();
        let addresses: Vec<Option<SockaddrStorage>> = datagrams.iter().map(|(to, _)| Some((*to).into())).collect();
        let none: [ControlMessage<'_>; 0] = [];
        let flags = MsgFlags::MSG_DONTWAIT;
        // A call of its own: what the receiving side keeps about addresses is overwritten here.
        let mut headers = MultiHeaders::preallocate(slices.len(), None);
        match sendmmsg(socket.as_raw_fd(), &mut headers, slices.iter(), addresses, none, flags) {
            Ok(sent) => Ok(sent.count()),
            Err(Errno::EAGAIN) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error.into()),
        }
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|it| SocketAddr::from((it.ip(), it.port())));
    v4.or_else(|| storage.as_sockaddr_in6().map(|it| SocketAddr::V6((*it).into())))
}
