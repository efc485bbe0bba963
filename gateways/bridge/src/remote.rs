//! The far side's language: packets in our own words, written and read by rumqttc, MQTT 3.1.1 in [`v4`] and 5.0 in [`v5`].

mod frame;
mod v4;
mod v5;

pub(crate) use frame::{Framing, frame};

use crate::{config::Protocol, loops::Stamp};
use bytes::{Bytes, BytesMut};
use std::{num::NonZeroU16, sync::Arc};
use waystation_broker::{Properties, Qos};

/// The largest packet there can be (MQTT 5.0 §2.1.4), its fixed header included.
pub(crate) const LARGEST_PACKET: usize = 268_435_460;

/// Longest MQTT string or binary data, in bytes.
const LONGEST_TEXT: usize = 65_535;

/// One version of the protocol.
pub(crate) trait Dialect: Send {
    /// CONNECT.
    fn connect(&self, hello: &Hello<'_>, out: &mut BytesMut) -> Result<(), Unwritable>;

    /// PUBLISH. What is appended when it fails is to be cut off again.
    fn publish(&mut self, parcel: &Parcel<'_>, out: &mut BytesMut) -> Result<(), Unwritable>;

    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    fn answer(&self, answer: Answer, id: NonZeroU16, out: &mut BytesMut);

    /// SUBSCRIBE.
    fn subscribe(&self, id: NonZeroU16, wishes: &[Wish<'_>], out: &mut BytesMut) -> Result<(), Unwritable>;

    /// Reads the packet at the front of `input`, which is there whole.
    fn read(&self, input: &mut BytesMut) -> Result<Heard, String>;
}

/// The dialect of a protocol.
pub(crate) fn dialect(protocol: Protocol) -> Box<dyn Dialect> {
    match protocol {
        Protocol::V311 => Box::new(v4::V4::default()),
        Protocol::V5 => Box::new(v5::V5::default()),
    }
}

/// PINGREQ, the same in both.
pub(crate) fn ping(out: &mut BytesMut) {
    out.extend_from_slice(&[0xC0, 0]);
}

/// DISCONNECT, "normal", the same in both.
pub(crate) fn goodbye(out: &mut BytesMut) {
    out.extend_from_slice(&[0xE0, 0]);
}

/// It does not fit into what MQTT can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is larger than MQTT can carry")]
pub(crate) struct Unwritable;

/// What CONNECT says.
pub(crate) struct Hello<'a> {
    pub(crate) client_id: &'a str,
    /// User name and password.
    pub(crate) login: Option<(&'a str, &'a str)>,
    pub(crate) keep_alive_s: u16,
    pub(crate) clean_start: bool,
    /// Most QoS 1 and 2 messages unacknowledged towards us.
    pub(crate) receive_maximum: u16,
    /// Largest packet towards us.
    pub(crate) maximum_packet: u32,
    /// What names this server among those with bridges.
    pub(crate) server: &'a str,
    /// Published as retained `0` when we are gone.
    pub(crate) state_topic: Option<&'a str>,
}

/// A message on its way out.
pub(crate) struct Parcel<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) duplicate: bool,
    /// Set for QoS 1 and 2.
    pub(crate) id: Option<NonZeroU16>,
    /// The rest only MQTT 5 can carry.
    pub(crate) properties: Option<&'a Properties>,
    /// Seconds.
    pub(crate) expiry: Option<u32>,
    pub(crate) stamp: Option<Stamp<'a>>,
}

/// The four words of acknowledgement.
#[expect(clippy::enum_variant_names, reason = "MQTT calls them so")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    PubAck,
    PubRec,
    PubRel,
    PubComp,
}

/// A subscription on the far side.
pub(crate) struct Wish<'a> {
    pub(crate) filter: &'a str,
    pub(crate) qos: Qos,
}

/// A packet from the far side.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    ConnAck(Result<Welcome, NotWelcome>),
    Publish(Box<Arrival>),
    /// A PUBLISH larger than we take, with its identifier and QoS where it has one.
    TooLarge(Option<(NonZeroU16, Qos)>),
    /// PUBACK, PUBREC, PUBCOMP.
    Verdict(Answer, NonZeroU16, Verdict),
    PubRel(NonZeroU16),
    /// One result a filter.
    SubAck(NonZeroU16, Vec<Result<(), String>>),
    PingResp,
    /// DISCONNECT, with its reason.
    Disconnect(String),
    /// What only a client sends.
    OutOfPlace,
}

/// We are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Welcome {
    /// The far side has our session.
    pub(crate) session_present: bool,
    /// What names it among servers with bridges, where it has such a name.
    pub(crate) server: Option<Arc<str>>,
    pub(crate) terms: Terms,
}

/// What the far side can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet: usize,
    pub(crate) maximum_qos: Qos,
    pub(crate) retain: bool,
    /// Seconds, in place of those we asked for.
    pub(crate) keep_alive_s: Option<u16>,
    /// Seconds it keeps our session, where it is less than we asked for.
    pub(crate) session_expiry_s: Option<u32>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            receive_maximum: u16::MAX,
            maximum_packet: LARGEST_PACKET,
            maximum_qos: Qos::ExactlyOnce,
            retain: true,
            keep_alive_s: None,
            session_expiry_s: None,
        }
    }
}

/// We are not in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotWelcome {
    /// In words.
    pub(crate) why: String,
    /// Whether it is about who we are, so that asking again soon is of no use.
    pub(crate) for_good: bool,
}

/// A message on its way in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Arrival {
    pub(crate) topic: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// Set for QoS 1 and 2.
    pub(crate) id: Option<NonZeroU16>,
    /// Seconds.
    pub(crate) expiry: Option<u32>,
    /// With what the far side says to bridges and subscribers among the user properties.
    pub(crate) properties: Option<Properties>,
}

/// What the far side says to a message of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has it.
    Taken,
    /// It has no room now (0x97).
    NoRoom,
    /// It will never take it.
    Refused(String),
}

/// What it says under a packet identifier, which cannot be zero.
fn judged(answer: Answer, id: u16, verdict: Verdict) -> Heard {
    NonZeroU16::new(id).map_or(Heard::OutOfPlace, |id| Heard::Verdict(answer, id, verdict))
}

/// Cuts `out` back if what was appended after `before` cannot be.
fn written(fits: bool, before: usize, out: &mut BytesMut) -> Result<(), Unwritable> {
    if fits && out.len() - before <= LARGEST_PACKET {
        return Ok(());
    }
    out.truncate(before);
    Err(Unwritable)
}
