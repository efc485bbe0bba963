//! QoS -1 (§6.8): boards that publish and never connect.

use crate::{codec::Publish, settings::Settings, topics::short_topic};
use futures_util::FutureExt;
use waystation_broker::{Broker, Credentials, Peer, Principal, Publish as Message, Publisher, Qos, Refused};

use crate::codec::TopicRef;

/// Why nobody gets a message with QoS -1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unwanted {
    /// `publish_without_connect` is false.
    #[error("it is switched off (gateways.mqtt_sn.publish_without_connect)")]
    SwitchedOff,
    /// An id that is not predefined, or a short name that is no topic.
    #[error("it goes to predefined ids and short names only")]
    Topic,
    /// Anonymous clients are not let in from there.
    #[error("it publishes as nobody, and nobody is let in from there without a name")]
    Anonymous,
    /// The store is behind.
    #[error("the store is behind")]
    NoRoom,
    /// The rights or the limits.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Publishes for everybody who never connects.
pub struct Strangers {
    broker: Broker,
    /// As whom, and through what. One at a time: they are all anonymous.
    way_in: Option<(Principal, Publisher)>,
    staged: bool,
}

impl Strangers {
    /// Nobody has said anything yet.
    #[must_use]
    pub fn new(broker: Broker) -> Self {
        Self { broker, way_in: None, staged: false }
    }

    /// Stages a message. Its board does not hear of it if that is refused (§6.8).
    ///
    /// # Errors
    /// Why nobody gets it.
    pub fn publish(&mut self, settings: &Settings, from: Peer, publish: &Publish<'_>) -> Result<(), Unwanted> {
        if !settings.publish_without_connect {
            return Err(Unwanted::SwitchedOff);
        }
        // §6.8: predefined ids and short names only; there is no registration without a connection.
        let topic = match publish.topic {
            TopicRef::Normal(_) => None,
            TopicRef::Predefined(id) => settings.predefined(None, id).cloned(),
            TopicRef::Short(name) => short_topic(name).ok(),
        };
        let topic = topic.ok_or(Unwanted::Topic)?;
        let publisher = self.publisher(settings, from).ok_or(Unwanted::Anonymous)?;
        // Only what is kept needs the store.
        if publish.retain && !publisher.has_room() {
            return Err(Unwanted::NoRoom);
        }
        let mut message = Message::new(topic, publish.payload, Qos::AtMostOnce);
        message.retain = publish.retain;
        let staged = publisher.stage(message, 0);
        // What is refused is entered into the ledger with the burst.
        self.staged = true;
        Ok(staged?)
    }

    /// Routes what was staged.
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.staged)
            && let Some((_, publisher)) = &mut self.way_in
        {
            publisher.flush(&mut Vec::new());
        }
    }

    fn publisher(&mut self, settings: &Settings, from: Peer) -> Option<&mut Publisher> {
        // Who shows nothing is judged at once; whether anonymous clients are let in may depend on the address.
        let answer = self.broker.authenticate(&Credentials::Anonymous, from).now_or_never();
        let Some(Ok(who)) = answer else {
            return None;
        };
        if self.way_in.as_ref().is_none_or(|(before, _)| *before != who) {
            self.flush();
            let publisher = self.broker.publisher(&settings.gateway, who.clone(), None);
            self.way_in = Some((who, publisher));
        }
        self.way_in.as_mut().map(|(_, publisher)| publisher)
    }
}
