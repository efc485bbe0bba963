//! The words of the seam: what a front-end says to the core and hears from it, and its hold on a session, [`Link`].

mod deliver;
mod hold;
mod replay;
mod settle;
mod subscribe;
mod watch;

pub use hold::Link;
pub use watch::Watch;

use crate::{
    access::{ClientId, Credentials, Peer},
    limits::{Limits, Overflow},
    message::{Message, Qos, Will},
    metrics::DropCause,
    topic::Filter,
};
use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::Duration,
};

/// What a client says to come in.
#[derive(Clone)]
pub struct Hello {
    /// The gateway's name (its metrics label).
    pub gateway: Arc<str>,
    /// Where the client speaks from.
    pub peer: Peer,
    /// `None`: an unnamed session, which nobody can resume or see (streams, waits, replies). Its expiry is zero.
    pub client_id: Option<ClientId>,
    /// Who it says it is.
    pub credentials: Credentials,
    /// New or resumed.
    pub start: Start,
    /// What to do if another client holds the session.
    pub takeover: Takeover,
    /// Seconds the session outlives its connection; `u32::MAX` is for ever. Lowered to `limits.max_session_expiry`.
    pub expiry: u32,
    /// Most unsettled QoS 1 and 2 deliveries; the broker lowers it to `limits.max_inflight`. Zero counts as one.
    pub window: u16,
    /// Whether QoS 0 is queued while the client is away.
    pub while_away: WhileAway,
    /// How long the client counts as present after it has let go, for roads that let go after every call: a shared
    /// subscription gives messages to members that are present.
    pub lingers: Duration,
    /// Published if the link is lost.
    pub will: Option<Will>,
    /// Without a will of its own, the one that stayed with the resumed session is in force again (MQTT-SN 1.2 §6.3).
    pub keeps_will: bool,
    /// Whether the client's road carries a message's properties, a response topic among them (MQTT 5).
    pub properties: bool,
    /// The session's own bounds, where it has any.
    pub options: SessionOptions,
}

impl Hello {
    /// A new anonymous session that ends with its connection; adjust what differs.
    #[must_use]
    pub fn new(gateway: Arc<str>, peer: Peer, client_id: Option<ClientId>) -> Self {
        Self {
            gateway,
            peer,
            client_id,
            credentials: Credentials::Anonymous,
            start: Start::Clean,
            takeover: Takeover::Always,
            expiry: 0,
            window: u16::MAX,
            while_away: WhileAway::DropQos0,
            lingers: Duration::ZERO,
            will: None,
            keeps_will: false,
            properties: false,
            options: SessionOptions::default(),
        }
    }
}

/// Which session a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A new one; what there was under the id ends.
    Clean,
    /// The one there is, else a new one.
    Resume,
    /// The one there is, else [`crate::Refusal::NoSession`].
    Existing,
}

/// Whom a newcomer may push aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// Whoever holds the session (MQTT 5.0 §3.1.4 [MQTT-3.1.4-3]).
    Always,
    /// Only a holder that came by the same gateway; else [`crate::Refusal::InUse`].
    SameGateway,
}

/// Whether QoS 0 messages are queued for a session whose client is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhileAway {
    /// They are dropped, as MQTT brokers do. Not counted: nothing was promised.
    DropQos0,
    /// They are queued like the others.
    KeepQos0,
}

/// A session's own bounds; `None` means those of `[limits]`. Those of clients' sessions are lowered to `[limits]`; the
/// server's own parts may go beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionOptions {
    /// In place of `limits.max_queued_messages`.
    pub max_queued_messages: Option<u32>,
    /// In place of `limits.max_queued_bytes`.
    pub max_queued_bytes: Option<u64>,
    /// In place of `limits.overflow`.
    pub overflow: Option<Overflow>,
}

impl SessionOptions {
    /// The same as `client` may have them.
    pub(crate) fn of(self, client: Option<&ClientId>, limits: &Limits) -> Self {
        if client.is_some_and(ClientId::is_own) {
            return self;
        }
        Self {
            max_queued_messages: self.max_queued_messages.map(|most| most.min(limits.max_queued_messages)),
            max_queued_bytes: self.max_queued_bytes.map(|most| most.min(limits.max_queued_bytes)),
            ..self
        }
    }
}

/// What [`crate::Broker::attach`] gives.
#[derive(Debug)]
pub struct Attached {
    /// The hold on the session.
    pub link: Link,
    /// Whether the session was there before (MQTT's Session Present).
    pub resumed: bool,
    /// Seconds of session expiry actually granted.
    pub expiry: u32,
    /// Hold CONNACK until this is durable.
    pub lsn: Lsn,
}

/// A position in the journal. Ordered; the durable position only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

/// A wish for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Which topics.
    pub filter: Filter,
    /// Most QoS to deliver with.
    pub qos: Qos,
    /// MQTT 5: not what this client published itself.
    pub no_local: bool,
    /// MQTT 5: forward the retain flag as it was published.
    pub retain_as_published: bool,
    /// MQTT 5: which retained messages come at once.
    pub retain_handling: RetainHandling,
    /// MQTT 5: comes back with each message.
    pub identifier: Option<NonZeroU32>,
}

impl Subscription {
    /// As MQTT 3.1.1 subscribes.
    #[must_use]
    pub fn new(filter: Filter, qos: Qos) -> Self {
        Self {
            filter,
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
            identifier: None,
        }
    }
}

/// MQTT 5.0 §3.8.3.1, Retain Handling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetainHandling {
    /// 0: at every subscribe.
    Send,
    /// 1: only if the subscription is new.
    SendIfNew,
    /// 2: never.
    DoNotSend,
}

/// Why a subscription or a publication was refused, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The rights refuse it.
    #[error("not authorized")]
    NotAuthorized,
    /// More levels than `limits.max_topic_levels`.
    #[error("the topic has more levels than limits.max_topic_levels")]
    TooManyLevels,
    /// Above `limits.max_qos` (publications only; subscriptions are lowered).
    #[error("the QoS is above limits.max_qos")]
    QosNotSupported,
    /// `limits.retain_available` is false.
    #[error("retained messages are switched off (limits.retain_available)")]
    RetainNotSupported,
    /// `limits.wildcard_subscriptions` is false.
    #[error("wildcards are switched off (limits.wildcard_subscriptions)")]
    WildcardsNotSupported,
    /// `limits.shared_subscriptions` is false.
    #[error("shared subscriptions are switched off (limits.shared_subscriptions)")]
    SharedNotSupported,
    /// `limits.max_subscriptions`, or the store cannot keep it.
    #[error("a quota is used up (limits.max_subscriptions)")]
    QuotaExceeded,
    /// Topic and payload together exceed `limits.max_packet_size`.
    #[error("the message is larger than limits.max_packet_size")]
    TooLarge,
    /// The link was taken over; nothing it says counts any more.
    #[error("the link was taken over")]
    Fenced,
}

/// Names an unsettled delivery of QoS 1 or 2: MQTT's packet identifier, stable until settled, over reconnects and
/// from road to road.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub NonZeroU16);

/// A position in a session's queue; only grows, never used twice, valid across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cursor(pub u64);

/// A message as one session is to get it. Borrowed from the queue: encode it, do not keep it.
#[derive(Debug)]
pub struct Delivery<'a> {
    /// The stored message. Clone it to keep it; a clone is a reference count.
    pub message: &'a Message,
    /// The QoS to deliver with.
    pub qos: Qos,
    /// The retain flag to deliver with [MQTT-3.3.1-12], [MQTT-3.3.1-13].
    pub retain: bool,
    /// The packet identifier; `None` for QoS 0 and for [`Pick::Oldest`].
    pub tag: Option<Tag>,
    /// Its place in the queue.
    pub cursor: Cursor,
    /// How far a QoS 2 delivery got.
    pub stage: Stage,
    /// It may have been sent before: DUP.
    pub redelivered: bool,
    /// How many messages this session lost just before this one.
    pub missed: u32,
    /// The identifiers of all subscriptions it matched [MQTT-3.3.4-3].
    pub identifiers: &'a [NonZeroU32],
    /// Seconds left of its expiry [MQTT-3.3.2-6].
    pub expiry: Option<u32>,
}

/// How far a QoS 2 delivery got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Not yet received, as far as we know.
    Offered,
    /// PUBREC came: only its PUBREL is still owed.
    Received,
}

/// Which deliveries to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// Not yet handed out; gives tags, and settles QoS 0 by taking it (MQTT, MQTT-SN). Nothing while
    /// [`Pick::Inflight`] has something.
    Unsent,
    /// After a resume: handed out before and not settled, to send again under the same tags, in the order of first
    /// sending. Each once per link.
    Inflight,
    /// Everything unsettled from just after the given cursor, QoS 0 too, without settling it; gives no tags (REST:
    /// a cursor settles). What awaits PUBREL is skipped.
    Oldest(Cursor),
}

/// Most to take at once.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Messages.
    pub messages: usize,
    /// Bytes of topic and payload; the first message is always taken.
    pub bytes: usize,
}

/// What the visitor of [`Link::take`] did with a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It goes out.
    Sent,
    /// It never can (too large for this client): dropped and counted; its tag is free again.
    TooLarge,
    /// The client has refused it beforehand (its topic, say): dropped and counted likewise.
    Rejected,
    /// Not now: it stays where it is, and `take` ends.
    Stop,
}

impl Taken {
    /// Why the delivery is dropped, if it is.
    fn drop_cause(self) -> Option<DropCause> {
        match self {
            Self::TooLarge => Some(DropCause::TooLarge),
            Self::Rejected => Some(DropCause::Rejected),
            Self::Sent | Self::Stop => None,
        }
    }
}

/// A client's answer to a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// PUBACK: ends QoS 1; any other QoS under this tag is an [`UnknownTag`].
    Acknowledged,
    /// PUBREC: QoS 2 is received, PUBREL is owed. Repeating it is fine.
    Received,
    /// PUBCOMP: ends QoS 2 after [`Settle::Received`].
    Completed,
    /// Done, whatever the QoS (roads that acknowledge in one step).
    Done,
    /// The client refused it for good (reason code ≥ 0x80): it is done with, and counted as refused.
    Rejected,
}

/// No delivery with this tag waits for this answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no delivery with this packet identifier waits for this answer")]
pub struct UnknownTag;

/// No such place in this session's queue was ever handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this cursor was never handed out by this session")]
pub struct UnknownCursor;

/// What a waiter wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// All events.
    Everything,
    /// All but [`Event::Deliverable`]: for a reader whose output is still full.
    NoDeliveries,
}

/// What happened to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// `take` would return something (or would have a moment ago).
    Deliverable,
    /// All up to here is safe: acknowledgements held for it may go out, in order. Only after [`Link::hold`].
    Durable(Lsn),
    /// `has_room` turned true again, or a queue that refused a message of ours has room.
    Room,
    /// The link is dead; the session may live on without it.
    Detached(Reason),
}

/// Why the broker ended a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Another client came with the same id.
    TakenOver,
    /// An operator disconnected it.
    Administrative,
    /// The rights changed, and its client would not be let in any more.
    NotAuthorized,
    /// Its credentials ran out.
    Expired,
    /// Its session was ended by somebody who may.
    SessionEnded,
    /// The server stops.
    ServerStopping,
}

/// How a link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detach {
    /// The client said goodbye: the will is discarded [MQTT-3.14.4-3].
    Clean,
    /// The client is lost, or said goodbye "with will": the will is published.
    WithWill,
}
