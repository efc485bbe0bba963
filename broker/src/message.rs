//! Messages: what is published, what is kept, what is handed out.

use crate::{
    access::{ClientId, Policy, Principal},
    clock::Time,
    idempotency::Idempotency,
    topic::Topic,
};
use bytes::Bytes;
use std::{num::NonZeroU16, sync::Arc};
use triomphe::ThinArc;

/// Quality of service (MQTT 5.0 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Qos {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl Qos {
    /// From 0, 1 or 2.
    #[must_use]
    pub fn from_u8(level: u8) -> Option<Self> {
        match level {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// What an application may say about its message beside topic and payload (MQTT 5.0 §3.3.2.3). The core carries
/// it unread and unaltered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// Payload format indicator 1: the payload is UTF-8.
    pub payload_is_utf8: bool,
    /// Content type.
    pub content_type: Option<Box<str>>,
    /// Response topic.
    pub response_topic: Option<Box<str>>,
    /// Correlation data.
    pub correlation_data: Option<Box<[u8]>>,
    /// User properties, in order [MQTT-3.3.2-18].
    pub user: Vec<(Box<str>, Box<str>)>,
}

impl Properties {
    /// Bytes of a user property beside its text.
    pub(crate) const PAIR: usize = size_of::<(Box<str>, Box<str>)>();

    /// Bytes they take in memory: a publisher may send a megabyte of them, most of it empty names and values.
    fn cost(&self) -> usize {
        let texts = [self.content_type.as_deref(), self.response_topic.as_deref()];
        let data = self.correlation_data.as_ref().map_or(0, |data| data.len());
        let user = self.user.iter().map(|(name, value)| name.len() + value.len() + Self::PAIR);
        texts.into_iter().flatten().map(str::len).sum::<usize>() + data + user.sum::<usize>()
    }
}

/// A message on its way in.
#[derive(Debug, Clone)]
pub struct Publish<'a> {
    /// Where to. From [`crate::Publisher::topic`], which remembers, or [`Topic::parse`].
    pub topic: Topic,
    /// Copied once, into the stored message.
    pub payload: &'a [u8],
    /// As the publisher sent it.
    pub qos: Qos,
    /// Keep it as the topic's state; an empty payload clears the state.
    pub retain: bool,
    /// The packet identifier of a QoS 2 publication: a repeat before `release` is a [`crate::Outcome::Duplicate`].
    pub exactly_once: Option<NonZeroU16>,
    /// Seconds until it is no longer worth delivering.
    pub expiry: Option<u32>,
    /// `None` where nothing is set, which is the common and cheap case.
    pub properties: Option<Box<Properties>>,
    /// Publish only if the topic's state is like this.
    pub condition: Option<Condition>,
    /// Publish only if this was not asked for before.
    pub idempotency: Option<Box<Idempotency>>,
}

impl<'a> Publish<'a> {
    /// A plain message.
    #[must_use]
    pub fn new(topic: Topic, payload: &'a [u8], qos: Qos) -> Self {
        Self {
            topic,
            payload,
            qos,
            retain: false,
            exactly_once: None,
            expiry: None,
            properties: None,
            condition: None,
            idempotency: None,
        }
    }
}

/// What a topic's retained message must be for a conditional publication to happen (RFC 9110 §13.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// There is none.
    Absent,
    /// There is one.
    Present,
    /// It is one of these publications.
    Is(Vec<MessageId>),
}

/// Names a publication; never used twice, not even after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// A will: a message the server publishes for a client that went without saying goodbye (MQTT 5.0 §3.1.2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Where to.
    pub topic: Topic,
    /// The payload.
    pub payload: Bytes,
    /// QoS it is published with.
    pub qos: Qos,
    /// Whether it is kept as the topic's state.
    pub retain: bool,
    /// Seconds between the loss of the connection and the publication [MQTT-3.1.3-9].
    pub delay_s: u32,
    /// Seconds of the client's keep alive, zero for none: after a restart of the server its client has one and a half
    /// times as long to come back.
    pub keep_alive_s: u16,
    /// Seconds, as for [`Publish::expiry`].
    pub expiry: Option<u32>,
    /// As for [`Publish::properties`].
    pub properties: Option<Box<Properties>>,
    /// Whether it stays with a session that outlives its connection, goodbye or not, for connections that keep it
    /// ([`crate::Hello::keeps_will`], MQTT-SN 1.2 §6.3). While its client is away such a will is not pending.
    pub stays: bool,
}

impl Will {
    /// Without delay, expiry and properties, for the one connection it is set on.
    #[must_use]
    pub fn new(topic: Topic, payload: Bytes, qos: Qos) -> Self {
        Self {
            topic,
            payload,
            qos,
            retain: false,
            delay_s: 0,
            keep_alive_s: 0,
            expiry: None,
            properties: None,
            stays: false,
        }
    }
}

/// A stored message: one allocation, however many queues refer to it.
#[derive(Clone)]
pub struct Message(ThinArc<Head, u8>);

/// What stands before the payload.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) topic: Topic,
    pub(crate) origin: Arc<Origin>,
    pub(crate) id: MessageId,
    pub(crate) time: Time,
    pub(crate) expires: Option<Time>,
    pub(crate) properties: Option<Box<Properties>>,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// The rights it was taken under; [`Policy::BEFORE`] for what comes from the store.
    pub(crate) policy: Policy,
}

/// Who published.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) client: Option<ClientId>,
    pub(crate) principal: Principal,
    /// The publisher's session, for No Local; zero when it has none.
    pub(crate) session: u32,
}

impl Message {
    pub(crate) fn new(head: Head, payload: &[u8]) -> Self {
        Self(ThinArc::from_header_and_slice(head, payload))
    }

    pub(crate) fn head(&self) -> &Head {
        &self.0.header.header
    }

    /// Where it was published.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.head().topic
    }

    /// What was published.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.0.slice
    }

    /// State that says what is now and means nothing after a restart: it is never written to the disk.
    pub(crate) fn is_transient(&self) -> bool {
        self.topic().as_str().starts_with("$SYS/")
    }

    /// The QoS it was published with.
    #[must_use]
    pub fn qos(&self) -> Qos {
        self.head().qos
    }

    /// Whether it was published with the retain flag.
    #[must_use]
    pub fn retain(&self) -> bool {
        self.head().retain
    }

    /// The publication's name.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.head().id
    }

    /// When the broker took it.
    #[must_use]
    pub fn time(&self) -> Time {
        self.head().time
    }

    /// When it is no longer worth delivering.
    #[must_use]
    pub fn expires(&self) -> Option<Time> {
        self.head().expires
    }

    /// What the publisher said about it.
    #[must_use]
    pub fn properties(&self) -> Option<&Properties> {
        self.head().properties.as_deref()
    }

    /// The publisher's client id, where its road has one.
    #[must_use]
    pub fn publisher(&self) -> Option<&ClientId> {
        self.head().origin.client.as_ref()
    }

    /// The publisher's user name.
    #[must_use]
    pub fn publisher_user(&self) -> Option<&str> {
        self.head().origin.principal.name()
    }

    /// Whether it is too late to deliver it.
    #[must_use]
    pub fn expired(&self, now: Time) -> bool {
        self.expires().is_some_and(|at| at <= now)
    }

    /// What it counts for in `max_queued_bytes`: topic, payload and properties.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.payload().len() + self.topic().as_str().len() + self.properties().map_or(0, Properties::cost)
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("head", self.head()).field("bytes", &self.payload().len()).finish()
    }
}
