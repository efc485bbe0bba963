//! To the far side: messages straight from the core's queue into the output, under their tags as packet identifiers.

use super::HIGH_WATER;
use crate::{
    loops::Stamp,
    remote::{Answer, Dialect, Parcel, Terms, Welcome},
    route::{self, NoWay, Routes},
    settings::SESSIONS,
};
use bytes::BytesMut;
use std::sync::Arc;
use waystation_broker::{Budget, ClientId, Delivery, Link, Pick, Qos, Settle, Stage, Tag, Taken};

/// Messages taken before others get their turn.
const BATCH: usize = 1_024;

/// See the module.
pub(super) struct Outward {
    routes: Arc<Routes>,
    terms: Terms,
    /// The far side has what it knew of our session.
    remembered: bool,
    server: Arc<str>,
    /// The far side's name among servers with bridges.
    far: Option<Arc<str>>,
    own: Option<ClientId>,
    /// There may be messages to send again.
    resending: bool,
    /// Sent and not answered.
    in_flight: u64,
    /// What is done with as soon as it is written, or before.
    done: Vec<(Tag, Settle)>,
    naming: Naming,
}

/// What became of what was taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// Written with QoS 0.
    pub(super) sent: u64,
    /// Written with less than they asked for.
    pub(super) reduced: u64,
}

/// The last topic, and what it is called on the far side: consecutive messages mostly have the same.
#[derive(Default)]
struct Naming {
    topic: String,
    /// Its name there; unless it has none.
    name: String,
    /// The place of its route; `None` before the first topic.
    way: Option<Result<usize, NoWay>>,
}

impl Outward {
    pub(super) fn new(
        routes: &Arc<Routes>,
        welcome: &Welcome,
        server: &Arc<str>,
        own: Option<&ClientId>,
        resumed: bool,
    ) -> Self {
        Self {
            routes: routes.clone(),
            terms: welcome.terms.clone(),
            remembered: welcome.session_present,
            server: server.clone(),
            far: welcome.server.clone(),
            own: own.cloned(),
            resending: resumed,
            in_flight: 0,
            done: Vec::new(),
            naming: Naming::default(),
        }
    }

    /// Messages sent and not answered.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// So many of them are answered.
    pub(super) fn answered(&mut self, count: u64) {
        self.in_flight = self.in_flight.saturating_sub(count);
    }

    /// There is a new hold on the session, which gives what is unsettled again.
    pub(super) fn renew(&mut self) {
        (self.resending, self.in_flight) = (true, 0);
    }

    /// Takes what waits, up to the high-water mark.
    pub(super) fn deliver(&mut self, link: &mut Link, dialect: &mut dyn Dialect, out: &mut BytesMut) -> Round {
        let mut round = Round::default();
        let budget = Budget { messages: BATCH, bytes: HIGH_WATER.saturating_sub(out.len()) };
        if self.resending {
            // What was sent before comes again first, in its order [MQTT-4.4.0-1], [MQTT-4.6.0-1].
            link.take(Pick::Inflight, budget, |delivery| self.write(delivery, dialect, out, &mut round));
        }
        if link.take(Pick::Unsent, budget, |delivery| self.write(delivery, dialect, out, &mut round)) > 0 {
            self.resending = false; // the core gives nothing new before the old is exhausted
        }
        if !self.done.is_empty() {
            link.settle(&self.done, &mut Vec::new());
            self.done.clear();
        }
        round
    }

    fn write(
        &mut self,
        delivery: &Delivery<'_>,
        dialect: &mut dyn Dialect,
        out: &mut BytesMut,
        round: &mut Round,
    ) -> Taken {
        if out.len() >= HIGH_WATER {
            return Taken::Stop;
        }
        let id = delivery.tag.map(|Tag(id)| id);
        if let (Stage::Received, Some(id), true) = (delivery.stage, id, self.remembered) {
            dialect.answer(Answer::PubRel, id, out);
            self.in_flight += 1;
            return Taken::Sent;
        }
        let message = delivery.message;
        let publisher = message.publisher();
        if publisher.is_some() && publisher == self.own.as_ref() {
            return self.pass_by(delivery); // it came in over this very bridge
        }
        let way = match self.naming.find(&self.routes, message.topic().as_str()) {
            Ok(way) => way,
            Err(NoWay::NotMeant) => return self.pass_by(delivery),
            Err(NoWay::NoName) => return Taken::Rejected,
        };
        let by_bridge = publisher.is_some_and(|client| client.as_str().starts_with(SESSIONS));
        let said = Stamp::stored(message.properties());
        let Ok(stamp) = said.outward(&self.server, self.far.as_deref(), by_bridge) else {
            return self.pass_by(delivery);
        };
        let way = &self.routes.outward[way];
        let wanted = (delivery.qos.min(way.qos), delivery.retain && way.keep_retain);
        let given = (wanted.0.min(self.terms.maximum_qos), wanted.1 && self.terms.retain);
        let promised = given.0 != Qos::AtMostOnce;
        let parcel = Parcel {
            topic: &self.naming.name,
            payload: message.payload(),
            qos: given.0,
            retain: given.1,
            duplicate: delivery.redelivered && promised, // [MQTT-3.3.1-2]
            id: id.filter(|_| promised),
            properties: message.properties(),
            expiry: delivery.expiry,
            stamp: Some(stamp),
        };
        let before = out.len();
        if dialect.publish(&parcel, out).is_err() || out.len() - before > self.terms.maximum_packet {
            out.truncate(before);
            return Taken::TooLarge;
        }
        round.reduced += u64::from(given != wanted);
        match (promised, delivery.tag) {
            (true, _) => self.in_flight += 1,
            (false, tag) => {
                round.sent += 1;
                self.done.extend(tag.map(|tag| (tag, Settle::Done)));
            }
        }
        Taken::Sent
    }

    /// A message that is not to go out is done with.
    fn pass_by(&mut self, delivery: &Delivery<'_>) -> Taken {
        self.done.extend(delivery.tag.map(|tag| (tag, Settle::Done)));
        Taken::Sent
    }
}

impl Naming {
    /// The place of the route that is meant for a topic; its name on the far side is in `name` then.
    fn find(&mut self, routes: &Routes, topic: &str) -> Result<usize, NoWay> {
        if let Some(way) = self.way.filter(|_| self.topic == topic) {
            return way;
        }
        self.topic.clear();
        self.topic.push_str(topic);
        let way = route::find(&routes.outward, topic, &mut self.name).and_then(|way| {
            let place = routes.outward.iter().position(|other| std::ptr::eq(other, way));
            place.ok_or(NoWay::NotMeant)
        });
        *self.way.insert(way)
    }
}
