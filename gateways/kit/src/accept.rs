//! Listening sockets, and accepting that survives a shortage of descriptors.

use crate::gateway::BindError;
use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::SocketAddr, time::Duration};
use tokio::time::Instant;

/// Connections the system keeps for us until we accept them.
const BACKLOG: i32 = 4_096;

/// Between attempts while descriptors or memory are short.
const PAUSE: Duration = Duration::from_millis(100);

/// Between two lines in the log about it.
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);

/// A listening TCP socket.
#[derive(Debug)]
pub struct Listener {
    socket: std::net::TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds and listens; `key` is the full configuration key, for the error.
    ///
    /// # Errors
    /// The address is in use or not ours.
    pub fn bind(key: &str, address: SocketAddr) -> Result<Self, BindError> {
        listen(address).map_err(|source| BindError::Address { key: key.to_owned(), address, source })
    }

    /// Binds all of them; on an error none stays bound.
    ///
    /// # Errors
    /// One of the addresses is in use or not ours.
    pub fn bind_all(key: &str, addresses: &[SocketAddr]) -> Result<Vec<Self>, BindError> {
        addresses.iter().map(|address| Self::bind(key, *address)).collect()
    }

    /// Where it listens, with the port the system chose.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ready to accept on the current runtime.
    ///
    /// # Errors
    /// The runtime's reactor has no room.
    pub fn acceptor(self) -> io::Result<Acceptor> {
        let socket = tokio::net::TcpListener::from_std(self.socket)?;
        Ok(Acceptor { socket, address: self.address, complained: None })
    }
}

fn listen(address: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `["0.0.0.0:1883", "[::]:1883"]` must be possible: an address means itself only.
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for the old connections' TIME_WAIT. (On Windows the option means something else.)
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let socket = std::net::TcpListener::from(socket);
    let address = socket.local_addr()?;
    Ok(Listener { socket, address })
}

/// Accepts connections.
#[derive(Debug)]
pub struct Acceptor {
    socket: tokio::net::TcpListener,
    address: SocketAddr,
    complained: Option<Instant>,
}

impl Acceptor {
    /// The next connection, with TCP_NODELAY set and registered nowhere: the loop that serves it does that.
    /// While descriptors are short it waits and tries again; it never gives up and never spins. Cancel-safe.
    pub async fn accept(&mut self) -> (std::net::TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await.and_then(|(stream, peer)| {
                stream.set_nodelay(true)?;
                Ok((stream.into_std()?, peer))
            }) {
                Ok(connection) => return connection,
                Err(error) if is_the_peers(&error) => tracing::debug!(%error, "connection was gone when accepted"),
                Err(error) => {
                    self.complain(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn complain(&mut self, error: &io::Error) -> bool {
        let now = Instant::now();
        if self.complained.is_some_and(|at| now.duration_since(at) < COMPLAINT_EVERY) {
            return false;
        }
        self.complained = Some(now);
        tracing::error!(
            address = %self.address, %error,
            "cannot accept connections; trying on (raise the limit on open files, or lower limits.max_connections)"
        );
        true
    }
}

/// One connection's misfortune, which says nothing about the next.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, InvalidInput, NotConnected,
    };
    // InvalidInput: some systems answer it when an option is set on a connection that was reset meanwhile.
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | InvalidInput | NotConnected
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[tokio::test]
    async fn an_accepted_connection_sends_at_once_and_belongs_to_nobody_yet() {
        let listener = Listener::bind("gateways.test.listen", any_port()).unwrap();
        let client = std::net::TcpStream::connect(listener.address()).unwrap();
        let (stream, peer) = listener.acceptor().unwrap().accept().await;
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
        tokio::net::TcpStream::from_std(stream).unwrap();
    }

    #[test]
    fn a_port_in_use_is_told_with_its_key_and_address() {
        let first = Listener::bind("gateways.test.listen", any_port()).unwrap();
        let message = Listener::bind("gateways.test.listen", first.address()).unwrap_err().to_string();
        assert!(
            message.contains("gateways.test.listen") && message.contains(&first.address().to_string()),
            "{message}"
        );
        assert!(message.contains("in use"), "{message}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shortage_is_told_once_a_minute() {
        let mut acceptor = Listener::bind("gateways.test.listen", any_port()).unwrap().acceptor().unwrap();
        let shortage = io::Error::from_raw_os_error(24);
        assert!(!is_the_peers(&shortage));
        assert!(acceptor.complain(&shortage));
        assert!(!acceptor.complain(&shortage));
        tokio::time::advance(COMPLAINT_EVERY).await;
        assert!(acceptor.complain(&shortage));
    }
}
