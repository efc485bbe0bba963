//! Dead letters: what could not be delivered, published on `$dead/{name}/{topic}` and kept in the session
//! `$dead/{name}`, where operators read it.

use std::sync::Arc;
use waystation_broker::{
    Broker, ClientId, Credentials, Filter, Hello, Lsn, Message, Outcome, Overflow, Peer, Principal, Properties,
    Publish, Qos, Reason, Receipt, Refusal, SessionOptions, Start, Subscription, Topic, WhileAway,
};

/// What the sessions of dead letters begin with.
pub const SESSIONS: &str = "$dead/";

/// Where one sender's dead letters go.
#[derive(Clone)]
pub struct DeadLetters {
    broker: Broker,
    gateway: Arc<str>,
    name: Box<str>,
}

/// The store cannot write now. Nothing was kept: all of it again, later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store cannot write")]
pub struct NotNow;

/// How the session of dead letters `id` is held: for the server itself, whoever reads them.
#[must_use]
pub fn hello(gateway: &Arc<str>, id: ClientId) -> Hello {
    Hello {
        credentials: Credentials::Known(Principal::server()),
        start: Start::Resume,
        expiry: u32::MAX,
        while_away: WhileAway::KeepQos0,
        // A graveyard that is full must not stop whoever fills it.
        options: SessionOptions { overflow: Some(Overflow::DropOldest), ..SessionOptions::default() },
        ..Hello::new(Arc::clone(gateway), Peer::INTERNAL, Some(id))
    }
}

impl DeadLetters {
    /// Those of `name`, which is part of topics and of a client id.
    #[must_use]
    pub fn of(broker: &Broker, gateway: &Arc<str>, name: &str) -> Self {
        Self { broker: broker.clone(), gateway: gateway.clone(), name: name.into() }
    }

    fn session_id(&self) -> Option<ClientId> {
        ClientId::new(&format!("{SESSIONS}{}", self.name))
    }

    /// Makes the session, if it is not there.
    ///
    /// # Errors
    /// The server stops.
    pub async fn open(&self) -> Result<Lsn, Refusal> {
        let (Some(id), Ok(filter)) = (self.session_id(), Filter::parse(&format!("{SESSIONS}{}/#", self.name))) else {
            return Err(Refusal::InvalidClientId);
        };
        let mut attached = self.broker.attach(hello(&self.gateway, id)).await?;
        // The server itself is refused nothing.
        let lsn = attached.link.subscribe(&[Subscription::new(filter, Qos::ExactlyOnce)], &mut Vec::new());
        Ok(lsn.max(attached.lsn))
    }

    /// Whether the session is there.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.session_id().is_some_and(|id| self.broker.session(&id).is_some())
    }

    /// Ends the session unless there is something to read in it.
    pub fn close(&self) {
        let Some(id) = self.session_id() else { return };
        if self.broker.session(&id).is_some_and(|session| session.queued == 0) {
            self.broker.end_session(&id, Reason::SessionEnded);
        }
    }

    /// Publishes messages as dead letters, with why and after how many attempts. They are safe once the position is
    /// durable.
    ///
    /// # Errors
    /// The store cannot write now.
    pub fn publish<'a>(
        &self,
        letters: impl Iterator<Item = (&'a Message, &'a str)>,
        attempts: u32,
    ) -> Result<Lsn, NotNow> {
        let mut publisher = self.broker.publisher(&self.gateway, Principal::server(), None);
        let most = Qos::from_u8(self.broker.limits().max_qos).unwrap_or_default();
        for (message, reason) in letters {
            let Some(topic) = self.topic(message) else { continue };
            let publish = Publish {
                // A message that came with QoS 0 is worth keeping once it is an operator's business.
                qos: message.qos().max(Qos::AtLeastOnce).min(most),
                properties: Some(Box::new(properties(message, reason, attempts))),
                ..Publish::new(topic, message.payload(), Qos::AtLeastOnce)
            };
            if let Err(error) = publisher.stage(publish, 0) {
                tracing::error!(name = &*self.name, %error, "a dead letter cannot be kept and is lost");
            }
        }
        let mut receipts: Vec<Receipt> = Vec::new();
        let lsn = publisher.flush(&mut receipts);
        let down = receipts.iter().any(|receipt| receipt.outcome == Outcome::StoreUnavailable);
        if down { Err(NotNow) } else { Ok(lsn) }
    }

    /// `$dead/{name}/{topic}`; a topic that is too long for it is found in the letter's properties only.
    fn topic(&self, message: &Message) -> Option<Topic> {
        let whole = format!("{SESSIONS}{}/{}", self.name, message.topic().as_str());
        Topic::parse(&whole).or_else(|_| Topic::parse(&format!("{SESSIONS}{}", self.name))).ok()
    }
}

/// The message's own, and why it is here.
fn properties(message: &Message, reason: &str, attempts: u32) -> Properties {
    let mut properties = message.properties().cloned().unwrap_or_default();
    let notes = [
        ("waystation-dead-reason", reason.to_owned()),
        ("waystation-dead-attempts", attempts.to_string()),
        ("waystation-dead-id", format!("{:016x}", message.id().0)),
    ];
    properties.user.extend(notes.map(|(name, value)| (name.into(), value.into())));
    properties
}
