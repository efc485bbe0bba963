//! From the far side: what it publishes is routed a burst at a time, and acknowledged once it is safe.

use crate::{
    config::Protocol,
    loops::{self, Round, Stamp},
    remote::{Answer, Arrival, Dialect, Framing, Heard, Welcome, frame},
    route::{self, NoWay, Routes},
    settings::Settings,
};
use bytes::{Buf, BytesMut};
use std::{collections::VecDeque, num::NonZeroU16, sync::Arc};
use waystation_broker::{DropCause, Limits, Link, Lsn, Outcome, Properties, Publish, Qos, Receipt, Refused};
use waystation_kit::names::{HOPS, MISSED, ORIGIN};

/// First four bits of a PUBLISH.
const PUBLISH: u8 = 3;

/// The token of publications that are not acknowledged.
const NO_TOKEN: u32 = u32::MAX;

/// See the module.
pub(super) struct Inward {
    name: Box<str>,
    routes: Arc<Routes>,
    /// Set where messages say where they came from: over MQTT 5.
    server: Option<Arc<str>>,
    /// The far side, where it has such a name.
    far: Option<Arc<str>>,
    limits: Limits,
    /// This burst's publications of QoS 1 and 2, in order.
    staged: Vec<Staged>,
    receipts: Vec<Receipt>,
    /// Those that the core had no room for: to be offered again, in order. They are unacknowledged, so that
    /// `limits.receive_maximum` and what one read holds bound them.
    kept: VecDeque<Arrival>,
    /// Publications of QoS 1 and 2 that are not acknowledged.
    open: usize,
    /// Acknowledgements of this burst that give the far side room.
    pub(super) released: usize,
    /// Bytes of a packet that is not wanted and still comes.
    unwanted: usize,
    /// A topic's name here, in the memory of the one before.
    topic: String,
}

struct Staged {
    arrival: Arrival,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not known yet.
    Open,
    /// Safe, or not meant for us: it is acknowledged.
    Settled,
    /// To be offered again.
    Kept,
}

impl Inward {
    pub(super) fn new(settings: &Settings, server: &Arc<str>, welcome: &Welcome, limits: Limits) -> Self {
        Self {
            name: settings.config.name.as_str().into(),
            routes: settings.routes.clone(),
            server: (settings.config.protocol == Protocol::V5).then(|| server.clone()),
            far: welcome.server.clone(),
            limits,
            staged: Vec::new(),
            receipts: Vec::new(),
            kept: VecDeque::new(),
            open: 0,
            released: 0,
            unwanted: 0,
            topic: String::new(),
        }
    }

    /// Whether the far side may send more. What is not acknowledged drains without its help.
    pub(super) fn has_room(&self) -> bool {
        self.open < usize::from(self.limits.receive_maximum)
    }

    /// Acknowledgements have gone out.
    pub(super) fn acknowledged(&mut self, count: usize) {
        self.open = self.open.saturating_sub(count);
    }

    /// The next packet, if it is there whole. One that is larger than we take is thrown away as it comes.
    pub(super) fn next(&mut self, dialect: &dyn Dialect, input: &mut BytesMut) -> Result<Option<Heard>, String> {
        let come = self.unwanted.min(input.len());
        input.advance(come);
        self.unwanted -= come;
        let frame = match frame(input) {
            Framing::Unknown => return Ok(None),
            Framing::Malformed => return Err("the far side sent what is no MQTT".into()),
            Framing::Known(frame) => frame,
        };
        if frame.total <= self.limits.max_packet_size as usize {
            if input.len() < frame.total {
                input.reserve(frame.total - input.len());
                return Ok(None);
            }
            let heard = dialect.read(input).map_err(|error| format!("the far side sent what is no MQTT: {error}"));
            return heard.map(Some);
        }
        if frame.first >> 4 != PUBLISH {
            return Err(format!("the far side sent a packet of {} bytes that is no message", frame.total));
        }
        // All that is needed of it is its identifier, which stands after the topic.
        let Some(length) = input.get(frame.header..frame.header + 2) else { return Ok(None) };
        let after_topic = frame.header + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        let open = match Qos::from_u8(frame.first >> 1 & 3) {
            None => return Err("the far side sent a message with a QoS that is none".into()),
            Some(Qos::AtMostOnce) => None,
            Some(qos) => {
                let Some(id) = input.get(after_topic..after_topic + 2) else { return Ok(None) };
                let id = NonZeroU16::new(u16::from_be_bytes([id[0], id[1]]));
                Some((id.ok_or("the far side sent a message without a packet identifier")?, qos))
            }
        };
        tracing::warn!(
            bridge = %self.name, bytes = frame.total,
            "the far side sent a message larger than limits.max_packet_size; it is dropped"
        );
        self.unwanted = frame.total;
        Ok(Some(Heard::TooLarge(open)))
    }

    /// A message that is larger than we take is dropped: kept back it would come again for ever.
    pub(super) fn too_large(
        &mut self,
        link: &mut Link,
        open: Option<(NonZeroU16, Qos)>,
        dialect: &dyn Dialect,
        acks: &mut BytesMut,
    ) {
        link.publisher().lose(None, DropCause::TooLarge);
        if let Some((id, qos)) = open {
            dialect.answer(answer(qos), id, acks);
        }
    }

    /// Keeps a message for the burst's end.
    pub(super) fn stage(&mut self, link: &mut Link, arrival: Arrival) -> Result<(), String> {
        let promised = arrival.id.is_some();
        if promised {
            self.open += 1;
            if !self.kept.is_empty() {
                // Behind those that found no room, or their order would be lost.
                self.kept.push_back(arrival);
                return Ok(());
            }
        }
        let token = u32::try_from(self.staged.len()).unwrap_or(NO_TOKEN);
        let staged = self.hand_over(link, &arrival, if promised { token } else { NO_TOKEN })?;
        if promised {
            let fate = if staged { Fate::Open } else { Fate::Settled };
            self.staged.push(Staged { arrival, fate });
        }
        Ok(())
    }

    /// Stages a message with the core, if it is meant for us and may come in.
    fn hand_over(&mut self, link: &mut Link, arrival: &Arrival, token: u32) -> Result<bool, String> {
        let name = std::str::from_utf8(&arrival.topic).map_err(|_| "the far side sent a topic that is not UTF-8")?;
        if name.is_empty() {
            // It would go by a topic alias, and we granted none [MQTT-3.3.2-8], [MQTT-4.7.3-1].
            return Err("the far side sent a message without a topic".into());
        }
        // A far side that keeps our session may still send for a route that is gone.
        let way = match route::find(&self.routes.inward, name, &mut self.topic) {
            Ok(way) => way,
            Err(NoWay::NotMeant) => return Ok(false),
            Err(NoWay::NoName) => {
                link.publisher().lose(None, DropCause::Refused);
                return Ok(false);
            }
        };
        let properties = match &self.server {
            Some(server) => match stamped(arrival.properties.as_ref(), server, self.far.as_deref(), &self.name) {
                Ok(properties) => Some(Box::new(properties)),
                Err(Round) => return Ok(false),
            },
            None => None,
        };
        let publisher = link.publisher();
        let Ok(topic) = publisher.topic(self.topic.as_bytes()) else {
            publisher.lose(None, DropCause::Refused);
            return Ok(false);
        };
        let most = Qos::from_u8(self.limits.max_qos).unwrap_or(Qos::ExactlyOnce);
        let message = Publish {
            retain: arrival.retain && way.keep_retain && self.limits.retain_available,
            exactly_once: arrival.id.filter(|_| arrival.qos == Qos::ExactlyOnce),
            expiry: arrival.expiry,
            properties,
            ..Publish::new(topic, &arrival.payload, arrival.qos.min(way.qos).min(most))
        };
        match publisher.stage(message, token) {
            // A fenced link's messages count no more; it hears of it by its event.
            Ok(()) | Err(Refused::Fenced) => Ok(true),
            Err(refused) => {
                // The far side is told nothing, so the ledger is.
                let cause = if refused == Refused::TooLarge { DropCause::TooLarge } else { DropCause::Refused };
                if refused != Refused::NotAuthorized {
                    let topic = publisher.topic(self.topic.as_bytes()).ok();
                    publisher.lose(topic.as_ref(), cause);
                }
                tracing::debug!(bridge = %self.name, topic = self.topic, %refused, "a message may not come in");
                Ok(false)
            }
        }
    }

    /// Routes what is staged and acknowledges what is settled. Gives how many messages came in.
    pub(super) fn flush(&mut self, link: &mut Link, dialect: &dyn Dialect, acks: &mut BytesMut, lsn: &mut Lsn) -> u64 {
        // What is kept is offered again: nothing may overtake it.
        *lsn = (*lsn).max(link.publisher().flush_in_order(&mut self.receipts));
        let mut received = 0;
        for receipt in self.receipts.drain(..) {
            let fate = match receipt.outcome {
                Outcome::QuotaExceeded | Outcome::StoreUnavailable => Fate::Kept,
                Outcome::Accepted { .. } => {
                    received += 1;
                    Fate::Settled
                }
                // We set no condition and no key.
                Outcome::Duplicate
                | Outcome::Repeated { .. }
                | Outcome::KeyReused
                | Outcome::ConditionFailed { .. } => Fate::Settled,
            };
            if let Some(staged) = self.staged.get_mut(receipt.token as usize) {
                staged.fate = fate;
            }
        }
        for Staged { arrival, fate } in self.staged.drain(..) {
            match (fate, arrival.id) {
                // Acknowledgements keep the order of the publications [MQTT-4.6.0-2].
                (Fate::Settled, Some(id)) if self.kept.is_empty() => {
                    dialect.answer(answer(arrival.qos), id, acks);
                    self.released += 1;
                }
                (Fate::Settled | Fate::Kept, _) => self.kept.push_back(arrival),
                // The link was taken over.
                (Fate::Open, _) => {}
            }
        }
        received
    }

    /// Offers again what found no room.
    pub(super) fn offer_kept(&mut self, link: &mut Link) -> Result<(), String> {
        for arrival in std::mem::take(&mut self.kept) {
            // It was counted when it came.
            self.open -= 1;
            self.stage(link, arrival)?;
        }
        Ok(())
    }
}

/// What acknowledges a publication.
fn answer(qos: Qos) -> Answer {
    if qos == Qos::ExactlyOnce { Answer::PubRec } else { Answer::PubAck }
}

/// A message's properties as they are to be kept here: with the stamps of this crossing, and without what is between
/// the far side and us.
fn stamped(said: Option<&Properties>, server: &str, far: Option<&str>, bridge: &str) -> Result<Properties, Round> {
    let user = said.map(|said| said.user.as_slice()).unwrap_or_default();
    let pairs = || user.iter().map(|(name, value)| (&**name, &**value));
    let stamp = Stamp::of(pairs()).inward(server, far)?;
    for (_, missed) in pairs().filter(|(name, _)| *name == MISSED) {
        tracing::warn!(bridge, missed = %missed.escape_debug(), "the far side lost messages that were meant for us");
    }
    let own = user.iter().filter(|(name, _)| !loops::is_ours(name)).cloned();
    let stamps = [(ORIGIN, stamp.origin.unwrap_or_default().into()), (HOPS, stamp.hops.to_string().into())];
    let user = own.chain(stamps.map(|(name, value)| (name.into(), value))).collect();
    Ok(match said {
        None => Properties { user, ..Properties::default() },
        Some(said) => Properties {
            payload_is_utf8: said.payload_is_utf8,
            content_type: said.content_type.clone(),
            response_topic: said.response_topic.clone(),
            correlation_data: said.correlation_data.clone(),
            user,
        },
    })
}
