//! One MQTT connection after its CONNECT: the protocol without socket, clock, spawn or await.
//!
//! The calling order: [`Connection::new`]; then, whenever something happened, `handle_bytes`, `handle_event`,
//! `handle_timeout` or `handle_drain`, each of which appends to `out` what is to be sent. After each of them look at
//! [`Connection::closing`], and wake up at [`Connection::poll_timeout`].

mod alias;
pub(crate) mod handshake;
mod inbound;
mod keepalive;
mod kept;
mod outbound;
#[cfg(test)]
mod tests;

use crate::{
    codec::{Disconnect, ReasonCode, Version},
    complaints,
};
use handshake::Terms;
use keepalive::KeepAlive;
use kept::Kept;
use std::{
    fmt,
    num::NonZeroU16,
    task::{Context, Poll},
};
use waystation_broker::{
    Attached, Broker, Detach, Event, Interest, Limits, Link, Lsn, Qos, Reason, Receipt, Settle, Tag, Time,
};
use waystation_kit::held::{Held, MOST_HELD};

/// Bytes of output at which no delivery is taken until they are written.
pub(crate) const HIGH_WATER: usize = 262_144;

/// Bytes of output at which a client that does not read what it is told is read no further.
const FULL: usize = 2 * HIGH_WATER;

/// See the module's documentation.
pub(crate) struct Connection {
    link: Link,
    keep_alive: KeepAlive,
    /// Acknowledgements that wait for the store.
    held: Option<Box<Held>>,
    /// MQTT 3.1.1: publications that were refused for now.
    kept: Option<Box<Kept>>,
    aliases: Option<Box<alias::Aliases>>,
    /// The session expiry of CONNECT, in seconds.
    expiry: u32,
    client_maximum: u32,
    /// QoS 1 and 2 publications of the client that it cannot yet know to be done with (MQTT 5.0 §4.9).
    open: u16,
    version: Version,
    /// CONNACK is out.
    greeted: bool,
    /// The session was resumed and may have deliveries to send again.
    resending: bool,
    closing: Option<Box<Closing>>,
}

/// How a connection ends.
#[derive(Debug)]
struct Closing {
    how: Detach,
    farewell: Option<ReasonCode>,
    /// What the client did wrong, in words.
    why: Option<String>,
}

/// What a loop's connections use one after the other while they obey a burst.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    receipts: Vec<Receipt>,
    pending: Vec<Pending>,
    answers: Vec<(Tag, Settle)>,
    unknown: Vec<(Tag, Settle)>,
    acks: Vec<u8>,
}

/// A QoS 1 or 2 PUBLISH of this burst.
#[derive(Debug)]
struct Pending {
    id: NonZeroU16,
    qos: Qos,
    /// `None` until its receipt is there.
    verdict: Option<Verdict>,
    /// Where the packet lies in the burst; for those that may have to be kept.
    at: (usize, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Answer(ReasonCode),
    /// To be offered again; only before MQTT 5.
    Keep,
}

/// What one burst has led to so far.
struct Burst<'a> {
    scratch: &'a mut Scratch,
    /// The burst's acknowledgements wait for this.
    lsn: Lsn,
    /// How many of them give the client room in our receive maximum.
    credits: usize,
}

impl Connection {
    /// A connection whose CONNACK waits for the session to be safe.
    pub(crate) fn new(terms: &Terms, attached: Attached, broker: &Broker, out: &mut Vec<u8>) -> Self {
        let connack = handshake::welcome(terms, &attached, broker);
        let mut this = Self {
            link: attached.link,
            keep_alive: KeepAlive::new(terms.keep_alive, broker.now()),
            held: None,
            kept: None,
            aliases: alias::Aliases::new(terms.client_aliases),
            expiry: terms.expiry,
            client_maximum: terms.client_maximum,
            open: 0,
            version: terms.version,
            greeted: false,
            resending: attached.resumed,
            closing: None,
        };
        if connack.len() > this.client_maximum as usize {
            this.fail(ReasonCode::PACKET_TOO_LARGE, &"it takes no packet as large as its CONNACK"); // [MQTT-3.1.2-24]
            return this;
        }
        this.release_or_hold(attached.lsn, &connack, 0, out);
        if this.greeted {
            this.deliver(out);
        }
        this
    }

    /// Whether the next bytes are wanted now. While they are not, keep alive stands still, unless it is for the
    /// client's own slowness.
    pub(crate) fn listens(&mut self, now: Time, unwritten: usize) -> bool {
        let room = self.greeted && self.link.publisher().has_room() && self.held_bytes() < MOST_HELD;
        self.keep_alive.listen(room, now);
        room && self.closing.is_none() && unwritten < FULL
    }

    /// What the core has: deliveries only while little waits to be written.
    pub(crate) fn link_event(&mut self, cx: &mut Context<'_>, unwritten: usize) -> Poll<Event> {
        let wanted = if self.greeted && unwritten < HIGH_WATER { Interest::Everything } else { Interest::NoDeliveries };
        self.link.poll_event(cx, wanted)
    }

    /// The core has something.
    pub(crate) fn handle_event(
        &mut self,
        now: Time,
        event: Event,
        limits: &Limits,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) {
        match event {
            Event::Deliverable => self.deliver(out),
            Event::Durable(lsn) => self.durable(lsn, out),
            Event::Room => self.offer_kept(now, limits, scratch, out),
            Event::Detached(reason) => self.dismiss(match reason {
                Reason::TakenOver => ReasonCode::SESSION_TAKEN_OVER,
                Reason::Administrative | Reason::SessionEnded => ReasonCode::ADMINISTRATIVE_ACTION,
                Reason::NotAuthorized => ReasonCode::NOT_AUTHORIZED,
                Reason::Expired => ReasonCode::MAXIMUM_CONNECT_TIME,
                Reason::ServerStopping => ReasonCode::SERVER_SHUTTING_DOWN,
            }),
        }
    }

    /// Looks at what may have run out.
    pub(crate) fn handle_timeout(&mut self, now: Time) {
        if self.keep_alive.is_over(now) {
            self.fail(ReasonCode::KEEP_ALIVE_TIMEOUT, &"silent for one and a half keep alives"); // [MQTT-3.1.2-24]
        } else if self.kept.as_ref().is_some_and(|kept| kept.deadline() <= now) {
            self.fail(ReasonCode::QUOTA_EXCEEDED, &"its publications found no room for 30 s");
        }
    }

    /// The gateway stops.
    pub(crate) fn handle_drain(&mut self) {
        self.dismiss(ReasonCode::SERVER_SHUTTING_DOWN);
    }

    /// The client hung up.
    pub(crate) fn handle_hang_up(&mut self) {
        self.close(Detach::WithWill, None, None);
    }

    /// When [`Connection::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let kept = self.kept.as_ref().map(|kept| kept.deadline());
        self.keep_alive.deadline().into_iter().chain(kept).min()
    }

    /// Whether it is over; [`Connection::leave`] then.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Says goodbye and lets go of the session.
    pub(crate) fn leave(self, out: &mut Vec<u8>) {
        let Some(closing) = self.closing else { return };
        if let (Some(reason), Version::V5, true) = (closing.farewell, self.version, self.greeted) {
            farewell(reason, closing.why.as_deref(), self.client_maximum, out);
        }
        self.link.detach(closing.how);
    }

    /// Where the client speaks from, for the log.
    pub(crate) fn peer(&self) -> waystation_broker::Peer {
        self.link.peer()
    }

    /// The client id, for the log.
    pub(crate) fn client(&self) -> &str {
        self.link.client_id().map_or("", |id| id.as_str())
    }

    /// Ends the connection by the client's fault, which it is told if its protocol has words, and the log. The first
    /// reason stays.
    fn fail(&mut self, reason: ReasonCode, why: &dyn fmt::Display) {
        if self.closing.is_none() {
            complaints::sent_away(self.peer(), self.client(), reason, why);
            // Silence and a lack of room are no breach of the protocol.
            if !matches!(reason, ReasonCode::KEEP_ALIVE_TIMEOUT | ReasonCode::QUOTA_EXCEEDED) {
                self.link.traffic().add_violation();
            }
            self.close(Detach::WithWill, Some(reason), Some(why.to_string()));
        }
    }

    /// Ends the connection for a reason that is not the client's fault.
    fn dismiss(&mut self, reason: ReasonCode) {
        self.close(Detach::WithWill, Some(reason), None);
    }

    /// The first to end the connection says how.
    fn close(&mut self, how: Detach, farewell: Option<ReasonCode>, why: Option<String>) {
        self.closing.get_or_insert_with(|| Box::new(Closing { how, farewell, why }));
    }

    fn held_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.len())
    }
}

/// Appends a DISCONNECT, with a Reason String where the client takes a packet of that size [MQTT-3.14.2-3].
fn farewell(reason: ReasonCode, why: Option<&str>, client_maximum: u32, out: &mut Vec<u8>) {
    let start = out.len();
    let mut disconnect = Disconnect::new(reason);
    disconnect.properties.reason_string = why;
    let mut encoded = disconnect.encode(Version::V5, out);
    if why.is_some() && out.len() - start > client_maximum as usize {
        out.truncate(start);
        encoded = Disconnect::new(reason).encode(Version::V5, out);
    }
    if let Err(error) = encoded {
        tracing::error!(%error, "DISCONNECT cannot be encoded");
    }
}
