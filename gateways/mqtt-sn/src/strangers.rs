//! QoS -1 (§6.8): boards that publish and never connect.

use crate::{codec::Publish, settings::Settings, topics::short_topic};
use futures_util::FutureExt;
use waystation_broker::{Broker, Credentials, Peer, Principal, Publish as Message, Publisher, Qos};

use crate::codec::TopicRef;

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

    /// Stages a message. Nobody hears of it if that is refused (§6.8).
    pub fn publish(&mut self, settings: &Settings, from: Peer, publish: &Publish<'_>) {
        // §6.8: predefined ids and short names only; there is no registration without a connection.
        let topic = match publish.topic {
            TopicRef::Normal(_) => None,
            TopicRef::Predefined(id) => settings.predefined(None, id).cloned(),
            TopicRef::Short(name) => short_topic(name).ok(),
        };
        let Some(topic) = topic.filter(|_| settings.publish_without_connect) else {
            return tracing::debug!(peer = %from, "QoS -1 is switched off, or its topic id is unknown");
        };
        let Some(publisher) = self.publisher(settings, from) else { return };
        if !publisher.has_room() {
            return;
        }
        let mut message = Message::new(topic, publish.payload, Qos::AtMostOnce);
        message.retain = publish.retain;
        match publisher.stage(message, 0) {
            Ok(()) => self.staged = true,
            Err(error) => tracing::debug!(peer = %from, %error, "QoS -1 refused"),
        }
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
            tracing::debug!(peer = %from, "QoS -1 refused: anonymous clients are not let in from there");
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
