//! The broker: the way in for gateways, and for whoever runs the place.

use crate::{
    access::{Authenticate, Authorize, ClientId, Credentials, Peer, Principal, Refusal},
    clock::{Clock, Time},
    limits::Limits,
    link::{Attached, Hello, Lsn, Reason},
    message::Message,
    publisher::Publisher,
    topic::{Filter, Topic},
};
use std::sync::Arc;

/// The core. Cheap to clone; all clones are the same broker.
#[derive(Clone)]
pub struct Broker(Arc<()>);

/// What a broker is made of.
pub struct Parts {
    /// Bounds.
    pub limits: Limits,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who clients are.
    pub authenticate: Arc<dyn Authenticate>,
    /// What they may.
    pub authorize: Arc<dyn Authorize>,
}

impl Broker {
    /// A broker with nothing in it, or with what the store recovers.
    #[must_use]
    pub fn new(_parts: Parts) -> Self {
        todo!()
    }

    /// Authenticates, then opens or resumes the session, taking it over from whoever holds it. Returns once the old
    /// link is fenced: its calls then change nothing. The only way in.
    ///
    /// # Errors
    /// Why the client may not come in.
    pub async fn attach(&self, _hello: Hello) -> Result<Attached, Refusal> {
        todo!()
    }

    /// For roads without a session (REST, MQTT-SN QoS -1): who is this?
    ///
    /// # Errors
    /// Why the credentials are refused.
    pub async fn authenticate(&self, _who: &Credentials, _peer: Peer) -> Result<Principal, Refusal> {
        todo!()
    }

    /// A way to publish without a session.
    #[must_use]
    pub fn publisher(&self, _gateway: &Arc<str>, _who: Principal, _client: Option<ClientId>) -> Publisher {
        todo!()
    }

    /// The retained message of a topic, if there is one that `who` may read and that has not expired.
    ///
    /// # Errors
    /// `who` may not read the topic.
    pub fn retained(&self, _who: &Principal, _topic: &Topic) -> Result<Option<Message>, Refusal> {
        todo!()
    }

    /// Retained messages under `filter` that `who` may read, level by level in byte order, after `after`, at most
    /// `limit`, appended to `out`.
    pub fn retained_under(
        &self,
        _who: &Principal,
        _filter: &Filter,
        _after: Option<&Topic>,
        _limit: usize,
        _out: &mut Vec<Message>,
    ) {
        todo!()
    }

    /// Completes when everything up to `lsn` is as safe as `[durability]` promises.
    pub async fn durable(&self, _lsn: Lsn) {
        todo!()
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        todo!()
    }

    /// The core's time.
    #[must_use]
    pub fn now(&self) -> Time {
        todo!()
    }

    /// Whether `who` may use what is meant for operators.
    #[must_use]
    pub fn may_admin(&self, _who: &Principal) -> bool {
        todo!()
    }

    /// Whether `who` may make sessions with `overflow = "reject"`.
    #[must_use]
    pub fn may_reject(&self, _who: &Principal) -> bool {
        todo!()
    }

    /// A named session's figures.
    #[must_use]
    pub fn session(&self, _id: &ClientId) -> Option<SessionInfo> {
        todo!()
    }

    /// Named sessions in the order of their ids, after `after`, at most `limit`.
    #[must_use]
    pub fn sessions(&self, _after: Option<&ClientId>, _limit: usize) -> Vec<SessionInfo> {
        todo!()
    }

    /// Ends a named session for good; its holder is detached with `reason`. `false`: there is none.
    pub fn end_session(&self, _id: &ClientId, _reason: Reason) -> bool {
        todo!()
    }

    /// Detaches a session's holder; the session stays. `false`: nobody holds it.
    pub fn disconnect(&self, _id: &ClientId, _reason: Reason) -> bool {
        todo!()
    }

    /// The rights changed: what was decided is decided anew.
    pub fn policy_changed(&self) {
        todo!()
    }

    /// Fires what is due (wills, session ends); gives when to call again. The host calls it.
    pub fn run_due(&self) -> Option<Time> {
        todo!()
    }

    /// From now on nobody gets in, and every link hears [`Reason::ServerStopping`].
    pub fn stop(&self) {
        todo!()
    }
}

/// A session's figures.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// The client id.
    pub id: ClientId,
    /// The user it belongs to; `None` when made anonymously.
    pub owner: Option<String>,
    /// The gateway that holds it now.
    pub held_by: Option<Arc<str>>,
    /// Where its client speaks from.
    pub peer: Option<Peer>,
    /// Seconds it outlives its connection; `u32::MAX` is for ever.
    pub expiry: u32,
    /// Its subscriptions.
    pub subscriptions: Vec<crate::link::Subscription>,
    /// Messages waiting, and handed out but not settled.
    pub queued: u64,
    /// Bytes of them.
    pub queued_bytes: u64,
    /// When the broker took the oldest of them.
    pub oldest: Option<Time>,
    /// Messages settled (QoS 0: handed out) since the session was made.
    pub delivered: u64,
    /// Messages lost, all causes.
    pub dropped: u64,
    /// Its most messages.
    pub max_queued_messages: u32,
    /// What it does when full.
    pub overflow: crate::limits::Overflow,
}
