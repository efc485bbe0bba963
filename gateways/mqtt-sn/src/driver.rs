//! One task for the gateway's sockets: reads bursts, has the [`Hub`] obey them, sends once. Protocol is in
//! [`crate::client`] and [`crate::hub`]; here are the sockets and what has no board: the multicast group.

use crate::{
    address::Address,
    client::Way,
    codec::{Packet, decode, encode},
    discovery::Discovery,
    hub::Hub,
    settings::Settings,
    transport::{
        dtls::{Credentials, Listener},
        udp::Udp,
    },
};
use futures_util::StreamExt;
use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};
use tokio::sync::{oneshot, watch};
use waystation_broker::{Broker, Time};

/// The longest sleep between two looks at the clock.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Serves the gateway's sockets.
pub struct Driver {
    hub: Hub,
    sockets: Vec<Udp>,
    /// Their numbers follow those of `sockets`.
    secured: Vec<Listener>,
    group: Option<Group>,
}

/// A multicast group: the socket that hears it, and when to say what.
struct Group {
    address: SocketAddr,
    socket: Udp,
    discovery: Discovery,
}

/// What the driver is told when the configuration was read anew.
#[derive(Clone)]
pub struct News {
    /// For boards.
    pub settings: Arc<Settings>,
    /// For DTLS; `None`: those there are stay.
    pub credentials: Option<Arc<Credentials>>,
}

/// What the driver is made of: sockets, not yet registered with any runtime.
pub struct Parts {
    /// Those boards speak to.
    pub sockets: Vec<std::net::UdpSocket>,
    /// Those boards speak DTLS to, and what they are known by.
    pub secured: Option<(Vec<std::net::UdpSocket>, Arc<Credentials>)>,
    /// A multicast group and the socket that hears it.
    pub group: Option<(SocketAddr, std::net::UdpSocket)>,
}

impl Driver {
    /// A driver; to be made on the loop it is to run on.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(parts: Parts, broker: Broker, settings: Arc<Settings>) -> io::Result<Self> {
        let sockets = parts.sockets.into_iter().map(Udp::new).collect::<io::Result<_>>()?;
        let discovery = Discovery::new(broker.now());
        let group = match parts.group {
            Some((address, socket)) => Some(Group { address, socket: Udp::new(socket)?, discovery }),
            None => None,
        };
        let most = usize::try_from(broker.limits().max_connections).unwrap_or(usize::MAX);
        let mut secured = Vec::new();
        if let Some((sockets, credentials)) = parts.secured {
            for socket in sockets {
                secured.push(Listener::new(
                    Udp::new(socket)?,
                    credentials.clone(),
                    most,
                    broker.traffic(&settings.gateway),
                ));
            }
        }
        Ok(Self { hub: Hub::new(broker, settings), sockets, secured, group })
    }

    /// Serves until told to stop, then says goodbye to every board.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>, mut news: watch::Receiver<News>) {
        let ready = self.hub.ready.clone();
        loop {
            let sleep = self.sleep();
            let Self { hub, sockets, secured, group } = &mut self;
            tokio::select! {
                _ = &mut stop => break,
                () = readable(sockets, secured, group.as_ref()) => self.read(),
                () = ready.changed.notified() => {}
                Some((key, answer)) = hub.attaching.next(), if !hub.attaching.is_empty() => hub.attached(key, answer),
                Ok(()) = news.changed() => {
                    let News { settings, credentials } = news.borrow_and_update().clone();
                    hub.configure(settings);
                    for listener in secured {
                        credentials.iter().for_each(|credentials| listener.configure(credentials.clone()));
                    }
                }
                () = tokio::time::sleep(sleep) => {}
            }
            let now = self.hub.now();
            self.secured.iter_mut().for_each(|listener| listener.time_out(Instant::now()));
            self.hub.look_after(now);
            self.announce(now);
            self.send().await;
        }
        self.hub.dismiss();
        self.send().await;
        for listener in &mut self.secured {
            listener.close(Instant::now());
            listener.send().await;
        }
    }

    fn sleep(&self) -> Duration {
        let next = self.group.as_ref().map(|group| group.discovery.poll_timeout().since(self.hub.now()));
        let handshake = self.secured.iter().filter_map(Listener::poll_timeout).min();
        let handshake = handshake.map(|at| at.saturating_duration_since(Instant::now()));
        let next = next.into_iter().chain(handshake).min();
        // A clock that stands still (in tests) must not make this a busy loop.
        next.map_or(LONGEST_SLEEP, |sleep| sleep.clamp(Duration::from_millis(1), LONGEST_SLEEP))
    }

    fn read(&mut self) {
        let now = self.hub.now();
        for (at, socket) in (0_u16..).zip(&mut self.sockets) {
            socket.read(|from, bytes| self.hub.datagram(now, &Address::direct(at, from), &Way::Plain, bytes));
        }
        let first = u16::try_from(self.sockets.len()).unwrap_or(u16::MAX);
        for (at, listener) in (first..).zip(&mut self.secured) {
            let hub = &mut self.hub;
            listener.read(Instant::now(), |from, way, bytes| hub.datagram(now, &Address::direct(at, from), way, bytes));
        }
        let Some(Group { address, socket, discovery }) = &mut self.group else { return };
        socket.read(|from, bytes| {
            if let Ok(Packet::SearchGw { radius }) = decode(bytes) {
                discovery.searched(now, radius, fastrand::u64(..));
                // One who did not join the group hears it too, from the socket that it can connect to.
                let socket = if from.is_ipv4() == address.is_ipv4() { 0 } else { return };
                self.hub.datagram(now, &Address::direct(socket, from), &Way::Plain, bytes);
            }
        });
    }

    /// Says to the group what is due.
    fn announce(&mut self, now: Time) {
        let Some(Group { address, discovery, .. }) = &mut self.group else { return };
        let (gateway, interval) = (self.hub.settings().gateway_id, self.hub.settings().advertise_interval_s);
        while let Some(said) = discovery.poll_transmit(now, gateway, interval) {
            let mut datagram = Vec::new();
            if encode(&said.packet, &mut datagram).is_err() {
                continue;
            }
            for socket in &self.sockets {
                if let Err(error) = socket.announce(*address, said.hops, &datagram) {
                    tracing::warn!(%error, group = %address, "the multicast group is not reached (gateways.mqtt_sn.advertise)");
                }
            }
        }
    }

    async fn send(&mut self) {
        let first = u16::try_from(self.sockets.len()).unwrap_or(u16::MAX);
        for (at, listener) in (first..).zip(&mut self.secured) {
            for (to, message) in self.hub.outbox.of_socket(at) {
                listener.say(Instant::now(), to, message);
            }
            let octets = listener.send().await;
            self.hub.traffic().add_bytes_sent(octets);
        }
        if self.hub.outbox.is_empty() {
            return;
        }
        for (at, socket) in (0_u16..).zip(&mut self.sockets) {
            let octets = socket.send(self.hub.outbox.of_socket(at)).await;
            self.hub.traffic().add_bytes_sent(octets);
        }
        self.hub.outbox.clear();
    }
}

/// Waits until one of the sockets may be read.
async fn readable(sockets: &[Udp], secured: &[Listener], group: Option<&Group>) {
    poll_fn(|cx| {
        let secured = secured.iter().map(|listener| &listener.socket);
        let all = sockets.iter().chain(secured).chain(group.map(|group| &group.socket));
        // Every one is asked, so that every one rings.
        let readable = all.filter(|socket| socket.poll_readable(cx).is_ready()).count();
        if readable > 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
