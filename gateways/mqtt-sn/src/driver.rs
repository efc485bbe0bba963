//! One task a socket: reads a burst, has every board obey it, sends once. Protocol is in [`crate::client`]; here are
//! the socket, the timers, and what needs no board: SEARCHGW and QoS -1.

use crate::{
    client::{Client, Settings},
    codec::{Malformed, Packet, Publish, PublishQos, decode},
    outbox::Outbox,
    peers::{Key, Peers, Ready},
    topics::Topics,
    transport::udp,
};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use std::{
    cmp::Reverse, collections::BinaryHeap, future::Future, net::SocketAddr, pin::Pin, sync::Arc, task::Context,
    time::Duration,
};
use tokio::{net::UdpSocket, sync::oneshot};
use waystation_broker::{
    Attached, Broker, Credentials, Detach, Hello, Peer as Address, Principal, Publish as Message, Publisher, Qos,
    Refusal, Time,
};

/// Most datagrams read before they are obeyed and answered.
const MAX_BURST: usize = 256;

/// The largest datagram UDP has.
const MAX_DATAGRAM: usize = 65_535;

/// The longest sleep between two looks at the clock.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

type Attaching = Pin<Box<dyn Future<Output = (Key, Result<Attached, Refusal>)> + Send>>;

/// Serves one socket.
pub struct Driver {
    socket: UdpSocket,
    broker: Broker,
    settings: Arc<Settings>,
    gateway_id: u8,
    /// `None`: QoS -1 is switched off.
    stranger: Option<Stranger>,
    peers: Peers,
    ready: Arc<Ready>,
    /// At most one for each board.
    attaching: FuturesUnordered<Attaching>,
    /// Stale entries are recognised by [`crate::peers::Peer::scheduled`].
    timers: BinaryHeap<Reverse<(Time, Key)>>,
    outbox: Outbox,
    /// Boards to be looked after before this turn ends.
    touched: Vec<Key>,
}

/// Publishes for everybody who never connects.
struct Stranger {
    publisher: Publisher,
    staged: bool,
}

impl Driver {
    /// A driver for a socket. With `stranger`, QoS -1 is published as that principal.
    #[must_use]
    pub fn new(
        socket: UdpSocket,
        broker: Broker,
        settings: Arc<Settings>,
        gateway_id: u8,
        stranger: Option<Principal>,
    ) -> Self {
        let ready = Arc::new(Ready::default());
        let most = usize::try_from(broker.limits().max_connections).unwrap_or(usize::MAX);
        let stranger =
            stranger.map(|who| Stranger { publisher: broker.publisher(&settings.gateway, who, None), staged: false });
        Self {
            peers: Peers::new(most, ready.clone()),
            socket,
            broker,
            settings,
            gateway_id,
            stranger,
            ready,
            attaching: FuturesUnordered::new(),
            timers: BinaryHeap::new(),
            outbox: Outbox::default(),
            touched: Vec::new(),
        }
    }

    /// Serves until told to stop, then says goodbye to every board.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut buffer = vec![0; MAX_DATAGRAM];
        let mut ready = Vec::new();
        let known = self.ready.clone();
        loop {
            let sleep = self.sleep();
            tokio::select! {
                _ = &mut stop => break,
                // An error here is about one datagram (a port unreachable) or passes; the read below tells.
                _ = self.socket.readable() => self.read(&mut buffer),
                () = known.changed.notified() => {}
                Some((key, answer)) = self.attaching.next(), if !self.attaching.is_empty() => {
                    self.attached(key, answer);
                }
                () = tokio::time::sleep(sleep) => {}
            }
            let now = self.broker.now();
            self.ready.swap(&mut ready);
            self.touched.append(&mut ready);
            self.time_out(now);
            self.look_after(now);
            udp::send(&self.socket, &mut self.outbox).await;
        }
        for peer in self.peers.iter_mut() {
            peer.client.dismiss(&mut self.outbox);
        }
        udp::send(&self.socket, &mut self.outbox).await;
    }

    fn sleep(&self) -> Duration {
        let next = self.timers.peek().map(|Reverse((at, _))| at.since(self.broker.now()));
        // A clock that stands still (in tests) must not make this a busy loop.
        next.map_or(LONGEST_SLEEP, |sleep| sleep.clamp(Duration::from_millis(1), LONGEST_SLEEP))
    }

    fn read(&mut self, buffer: &mut [u8]) {
        let now = self.broker.now();
        for _ in 0..MAX_BURST {
            match self.socket.try_recv_from(buffer) {
                Ok((length, from)) => self.datagram(now, from, &buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => tracing::debug!(%error, "datagram was not read"),
            }
        }
        if let Some(stranger) = &mut self.stranger
            && std::mem::take(&mut stranger.staged)
        {
            // Nobody waits for the receipts (§6.8).
            stranger.publisher.flush(&mut Vec::new());
        }
    }

    fn datagram(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) {
        let packet = match decode(bytes) {
            Ok(packet) => packet,
            Err(error) => return malformed(from, error),
        };
        if let Packet::SearchGw { .. } = packet {
            // §6.1. Three octets for three: no use to an attacker who lies about the address.
            return self.outbox.push(from, &Packet::GwInfo { gateway: self.gateway_id, address: &[] });
        }
        let known = self.peers.at(from);
        if let (Packet::Publish(publish @ Publish { qos: PublishQos::MinusOne, .. }), None) = (&packet, known) {
            return self.publish_without_connect(from, publish);
        }
        let key = match (known, &packet) {
            (Some(key), _) => key,
            (None, Packet::Connect(_)) => {
                let client = Client::new(self.settings.clone(), from);
                let Some(key) = self.peers.insert(from, client) else {
                    tracing::debug!(peer = %from, "too many boards (limits.max_connections)");
                    let code = crate::codec::ReturnCode::Congestion;
                    return self.outbox.push(from, &Packet::ConnAck(code));
                };
                key
            }
            // It believes it is connected. Two octets, never more than it sent, and never in answer to a DISCONNECT,
            // so that two gateways cannot be made to talk to each other for ever.
            (
                None,
                Packet::Publish(_)
                | Packet::Register { .. }
                | Packet::Subscribe(_)
                | Packet::Unsubscribe(_)
                | Packet::PingReq { .. },
            ) => return self.outbox.push(from, &Packet::Disconnect { duration_s: None }),
            (None, _) => return,
        };
        if let Some(peer) = self.peers.get(key) {
            peer.client.handle_packet(now, &packet, &mut self.outbox);
            self.touched.push(key);
        }
    }

    fn publish_without_connect(&mut self, from: SocketAddr, publish: &Publish<'_>) {
        let Some(stranger) = &mut self.stranger else { return };
        // §6.8: predefined ids and short names only; there is no registration without a connection.
        let Some(topic) = Topics::default().resolve(publish.topic, &self.settings.predefined) else {
            tracing::debug!(peer = %from, "QoS -1 to an unknown topic id");
            return;
        };
        if !stranger.publisher.has_room() {
            return;
        }
        let mut message = Message::new(topic, publish.payload, Qos::AtMostOnce);
        message.retain = publish.retain;
        match stranger.publisher.stage(message, 0) {
            Ok(()) => stranger.staged = true,
            Err(error) => tracing::debug!(peer = %from, %error, "QoS -1 refused"),
        }
    }

    fn attached(&mut self, key: Key, answer: Result<Attached, Refusal>) {
        let now = self.broker.now();
        match (self.peers.get(key), answer) {
            (Some(peer), answer) => {
                peer.client.handle_attached(now, answer, &mut self.outbox);
                self.touched.push(key);
            }
            (None, Ok(attached)) => attached.link.detach(Detach::Clean),
            (None, Err(_)) => {}
        }
    }

    fn time_out(&mut self, now: Time) {
        while let Some(&Reverse((at, key))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            let Some(peer) = self.peers.get(key) else { continue };
            if peer.scheduled != Some(at) {
                continue;
            }
            peer.scheduled = None;
            peer.client.handle_timeout(now, &mut self.outbox);
            self.touched.push(key);
        }
    }

    /// Ends the turn for every board that something happened to.
    fn look_after(&mut self, now: Time) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for &key in &touched {
            self.look_after_one(now, key);
        }
        // A hello is mostly answered at once: then CONNACK goes out with this turn.
        while let Some(Some((key, answer))) = self.attaching.next().now_or_never() {
            self.attached(key, answer);
            self.touched.clear();
            self.look_after_one(now, key);
        }
        touched.clear();
        self.touched = touched;
    }

    fn look_after_one(&mut self, now: Time, key: Key) {
        let Some(peer) = self.peers.get(key) else { return };
        peer.bell.reset();
        peer.client.finish(now, &mut self.outbox);
        peer.client.handle_events(now, &mut Context::from_waker(&peer.waker), &mut self.outbox);
        if let Some(hello) = peer.client.poll_attach() {
            self.attaching.push(attach(self.broker.clone(), key, hello));
        }
        if peer.client.is_gone() {
            return self.peers.remove(key);
        }
        if let Some(at) = peer.client.poll_timeout()
            && peer.scheduled.is_none_or(|scheduled| at < scheduled)
        {
            peer.scheduled = Some(at);
            self.timers.push(Reverse((at, key)));
        }
    }
}

fn attach(broker: Broker, key: Key, hello: Hello) -> Attaching {
    Box::pin(async move { (key, broker.attach(hello).await) })
}

fn malformed(from: SocketAddr, error: Malformed) {
    tracing::debug!(peer = %from, %error, "malformed datagram");
}

/// Who publishes with QoS -1 from nowhere: the anonymous principal, if there may be one.
pub async fn stranger(broker: &Broker, gateway: &str) -> Option<Principal> {
    match broker.authenticate(&Credentials::Anonymous, Address::INTERNAL).await {
        Ok(who) => Some(who),
        Err(error) => {
            tracing::info!(gateway, %error, "QoS -1 is off: anonymous clients are not let in");
            None
        }
    }
}
