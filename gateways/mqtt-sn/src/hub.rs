//! All boards of the gateway: finds each datagram's board, has it obey, and ends the turn for all that something
//! happened to. No socket; the driver owns those.

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use crate::{
    address::Address,
    client::{Client, Place, Way, client_id},
    codec::{Packet, Publish, PublishQos, ReturnCode, decode},
    config::Rebind,
    outbox::Outbox,
    peers::{Key, Peer, Peers, Ready},
    registrations::Registrations,
    settings::Settings,
    statuses::Statuses,
    strangers::{Strangers, Unwanted},
};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use std::{fmt::Display, future::Future, pin::Pin, sync::Arc, task::Context};
use waystation_broker::{Attached, Broker, Detach, Hello, Peer as From, Refusal, Time, Traffic};

type Attaching = Pin<Box<dyn Future<Output = (Key, Result<Attached, Refusal>)> + Send>>;

/// All boards.
pub struct Hub {
    /// What is to be sent when the turn is over.
    pub outbox: Outbox,
    /// The boards that rang.
    pub ready: Arc<Ready>,
    /// Hellos that the broker has not answered; at most one for each board.
    pub attaching: FuturesUnordered<Attaching>,
    broker: Broker,
    settings: Arc<Settings>,
    traffic: Arc<Traffic>,
    peers: Peers,
    strangers: Strangers,
    registrations: Registrations,
    statuses: Statuses,
    /// Boards to be looked after before this turn ends.
    touched: Vec<Key>,
}

impl Hub {
    /// Nobody is there yet.
    #[must_use]
    pub fn new(broker: Broker, settings: Arc<Settings>) -> Self {
        let ready = Arc::new(Ready::default());
        let most = usize::try_from(broker.limits().max_connections).unwrap_or(usize::MAX);
        Self {
            outbox: Outbox::default(),
            attaching: FuturesUnordered::new(),
            traffic: broker.traffic(&settings.gateway),
            peers: Peers::new(most, ready.clone()),
            strangers: Strangers::new(broker.clone()),
            registrations: Registrations::default(),
            statuses: Statuses::new(broker.clone()),
            touched: Vec::new(),
            ready,
            broker,
            settings,
        }
    }

    /// The core's time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.broker.now()
    }

    /// The configuration in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The configuration was read anew.
    pub fn configure(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
        for peer in self.peers.iter_mut() {
            peer.client.configure(self.settings.clone());
        }
    }

    /// Obeys one datagram that came to one of our sockets from an address.
    pub fn datagram(&mut self, now: Time, from: &Address, way: &Way, bytes: &[u8]) {
        self.traffic.add_bytes_received(bytes.len());
        match decode(bytes) {
            // §5.5: its board is known by its node id; what is wrapped twice is nobody's.
            Ok(Packet::Encapsulated { node, message, .. }) => match decode(message) {
                Ok(Packet::Encapsulated { .. }) => self.ignored(from, &"it is encapsulated twice"),
                Ok(packet) => self.packet(now, &Address { node: Some(node.into()), ..from.clone() }, way, &packet),
                Err(error) => self.ignored(from, &error),
            },
            Ok(packet) => self.packet(now, from, way, &packet),
            Err(error) => self.ignored(from, &error),
        }
    }

    fn packet(&mut self, now: Time, from: &Address, way: &Way, packet: &Packet<'_>) {
        let known = self.peers.at(from);
        match (*packet, known) {
            // §6.1. Three octets for three: no use to an attacker who lies about the address.
            (Packet::SearchGw { .. }, _) => {
                let gateway = self.settings.gateway_id;
                self.outbox.push(from, &Packet::GwInfo { gateway, address: &[] });
            }
            (Packet::PingReq { client_id }, _) if !client_id.is_empty() => {
                match self.pinged(known, from, way, client_id) {
                    Some(key) => self.obey(now, key, packet),
                    None => self.unknown(from, packet),
                }
            }
            // Another board is there now: nothing will be heard any more of the one that was.
            (Packet::Connect(connect), Some(key)) if self.is_another(key, connect.client_id) => {
                self.forget(key);
                self.packet(now, from, way, packet);
            }
            (_, Some(key)) => self.obey(now, key, packet),
            (Packet::Connect(_), None) => {
                let client = Client::new(self.settings.clone(), from.clone(), way.clone());
                match self.peers.insert(client) {
                    Some(key) => self.obey(now, key, packet),
                    None => {
                        tracing::debug!(peer = %from, "too many boards (limits.max_connections)");
                        self.outbox.push(from, &Packet::ConnAck(ReturnCode::Congestion));
                    }
                }
            }
            (Packet::Publish(ref publish @ Publish { qos: PublishQos::MinusOne, .. }), None) => {
                match self.strangers.publish(&self.settings, peer(from, way), publish) {
                    Ok(()) => {}
                    Err(why @ (Unwanted::SwitchedOff | Unwanted::Topic)) => self.ignored(from, &why),
                    Err(why) => tracing::debug!(peer = %from, %why, "QoS -1 refused"),
                }
            }
            // The repetition of a goodbye. No answer: two gateways cannot be made to talk to each other for ever.
            (Packet::Disconnect { .. }, None) => {}
            (_, None) => self.unknown(from, packet),
        }
    }

    /// A message of a board that nobody knows there. If it believes it is connected it is told better (§6.12): two
    /// octets, never more than it sent.
    fn unknown(&mut self, from: &Address, packet: &Packet<'_>) {
        self.ignored(from, &"no board is connected from there");
        if let Packet::Publish(_)
        | Packet::Register { .. }
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::PingReq { .. } = packet
        {
            self.outbox.push(from, &Packet::Disconnect { duration_s: None });
        }
    }

    /// Every message that is not obeyed passes here.
    fn ignored(&self, from: &Address, why: &dyn Display) {
        self.traffic.add_violation();
        tracing::debug!(peer = %from, %why, "datagram ignored");
    }

    /// Whether the board that is known there has another name than this, and this is one.
    fn is_another(&mut self, key: Key, id: &[u8]) -> bool {
        let before = self.peers.get(key).and_then(|peer| peer.client.id());
        client_id(id).is_some_and(|id| before.is_some_and(|before| *before != id))
    }

    /// A PINGREQ names its board: that one, if it may be where this came from. It is moved there.
    fn pinged(&mut self, known: Option<Key>, from: &Address, way: &Way, id: &[u8]) -> Option<Key> {
        let named = std::str::from_utf8(id).ok().and_then(|id| self.peers.named(id));
        if named == known {
            return named;
        }
        let (Some(key), rebind) = (named, self.settings.rebind) else { return None };
        let client = &self.peers.get(key)?.client;
        let may_move = *client.way() == *way
            && match (rebind, way) {
                (Rebind::Never, _) => false,
                (Rebind::Always, _) | (Rebind::SameHost, Way::Certified(_)) => true,
                (Rebind::SameHost, Way::Plain | Way::Encrypted) => client.address().is_same_host(from),
            };
        if !may_move {
            tracing::debug!(peer = %from, board = %client.address(), "PINGREQ from elsewhere (gateways.mqtt_sn.rebind)");
            return None;
        }
        if let Some(other) = known {
            // Its address is another's now: nothing will be heard of it any more.
            self.forget(other);
        }
        self.peers.move_to(key, from.clone());
        Some(key)
    }

    fn obey(&mut self, now: Time, key: Key, packet: &Packet<'_>) {
        if let Some(peer) = self.peers.get(key) {
            let place = peer.client.handle_packet(now, packet, &mut self.outbox);
            self.touched.push(key);
            if place == Place::Wrong {
                let from = peer.client.address().clone();
                self.ignored(&from, &"it is out of place");
            }
        }
    }

    /// The broker has answered a hello.
    pub fn attached(&mut self, key: Key, answer: Result<Attached, Refusal>) {
        let now = self.broker.now();
        if self.peers.get(key).is_none() {
            if let Ok(attached) = answer {
                attached.link.detach(Detach::Clean);
            }
            return;
        }
        let topics = answer.as_ref().ok().and_then(|attached| {
            let id = attached.link.client_id()?;
            // The board may have come from another address, and nobody has told its old self yet.
            let before = self.peers.named(id.as_str()).filter(|before| *before != key);
            let before = before.and_then(|before| self.peers.get(before)).map(|before| before.client.take_topics());
            before.or_else(|| self.registrations.take(id))
        });
        if let Some(peer) = self.peers.get(key) {
            peer.client.adopt_topics(topics.unwrap_or_default());
            peer.client.handle_attached(now, answer, &mut self.outbox);
            self.peers.name(key);
            self.touched.push(key);
        }
    }

    /// Ends the turn for every board that something happened to.
    pub fn look_after(&mut self, now: Time) {
        self.strangers.flush();
        let mut touched = Vec::new();
        self.ready.swap(&mut touched);
        touched.append(&mut self.touched);
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
        let Self { peers, outbox, .. } = self;
        let Some(peer) = peers.get(key) else { return };
        peer.reset_bell();
        if peer.client.poll_timeout().is_some_and(|at| at <= now) {
            peer.client.handle_timeout(now, outbox);
        }
        peer.client.finish(now, outbox);
        let waker = peer.waker();
        peer.client.handle_events(now, &mut Context::from_waker(&waker), outbox);
        if let Some(hello) = peer.client.poll_attach() {
            self.attaching.push(attach(self.broker.clone(), key, hello));
        }
        if peer.client.is_gone() {
            return self.forget(key);
        }
        if let (Some(status), Some(id)) = (peer.client.status(), peer.client.id())
            && peer.told != Some(status)
        {
            self.statuses.tell(id, peer.told, status);
            peer.told = Some(status);
        }
        schedule(peer, now);
    }

    /// The board is gone, or never came in.
    fn forget(&mut self, key: Key) {
        let Some(mut peer) = self.peers.remove(key) else { return };
        let Some(id) = peer.client.id().cloned() else { return };
        if self.peers.named(id.as_str()).is_some() {
            // It came again from elsewhere: there is nothing to tell of this one.
            return;
        }
        if let Some(status) = peer.client.leave_behind() {
            self.statuses.tell(&id, peer.told, status);
        }
        if peer.client.is_persistent() {
            self.registrations.keep(id, peer.client.take_topics());
        }
    }

    /// Says goodbye to every board.
    pub fn dismiss(&mut self) {
        for peer in self.peers.iter_mut() {
            peer.client.dismiss(&mut self.outbox);
        }
    }

    /// The gateway's counters.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }
}

/// Has the bell rung when the board's next timeout is due. A timer that fires too early is set again.
fn schedule(peer: &mut Peer, now: Time) {
    if peer.scheduled.is_some_and(|at| at <= now) {
        peer.scheduled = None;
    }
    if let Some(at) = peer.client.poll_timeout()
        && peer.scheduled.is_none_or(|scheduled| at < scheduled)
    {
        peer.scheduled = Some(at);
        let waker = peer.waker();
        peer.timer.arm(at.since(now), &waker);
    }
}

fn attach(broker: Broker, key: Key, hello: Hello) -> Attaching {
    Box::pin(async move { (key, broker.attach(hello).await) })
}

/// What the core is to know of an address.
pub(crate) fn peer(from: &Address, way: &Way) -> From {
    let peer = From::direct(from.from);
    match way {
        Way::Plain => peer,
        Way::Encrypted => peer.encrypted(),
        Way::Certified(_) => peer.certified(),
    }
}
