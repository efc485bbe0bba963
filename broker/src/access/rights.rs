//! The rights as the core asks for them: one question for each way out, and the server's own topics.

use super::{Action, Authorize, ClientId, Peer, Principal};
use crate::{
    message::Message,
    topic::{Filter, Topic},
};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// Asks the host's port, except about the server itself and about topics that are nobody's to give.
pub(crate) struct Rights {
    port: Arc<dyn Authorize>,
    policy: AtomicU32,
}

/// Which rights a message was taken under; it is asked anew whether it still stands when others are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy(u32);

impl Policy {
    /// None that ever is in force: whatever was let in under it is asked about again.
    pub(crate) const NONE: Self = Self(0);
    /// Of a start before: what was let in then stands.
    pub(crate) const BEFORE: Self = Self(u32::MAX);
}

impl Rights {
    pub(crate) fn new(port: Arc<dyn Authorize>) -> Self {
        Self { port, policy: AtomicU32::new(1) }
    }

    /// Which rights are in force.
    pub(crate) fn policy(&self) -> Policy {
        Policy(self.policy.load(Ordering::Acquire))
    }

    /// Others are in force from now on.
    pub(crate) fn change(&self) {
        self.policy.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether `who` may publish there. `listened`: somebody waits for what comes to this very topic.
    pub(crate) fn may_publish(
        &self,
        who: &Principal,
        client: Option<&ClientId>,
        topic: &Topic,
        listened: bool,
    ) -> bool {
        who.is_server()
            || match own_level(topic.as_str()) {
                Some("$SYS" | "$dead" | "$share") => false,
                // Whoever knows the name of an open reply may reply: a name is 128 random bits.
                Some("$reply") => listened,
                _ => self.port.may(who, client, Action::Publish(topic)),
            }
    }

    /// Whether `who` may subscribe.
    pub(crate) fn may_subscribe(&self, who: &Principal, client: Option<&ClientId>, filter: &Filter) -> bool {
        // Nobody may listen to the replies of others.
        let reply = own_level(filter.pattern()) == Some("$reply");
        who.is_server() || (!reply && self.port.may(who, client, Action::Subscribe(filter)))
    }

    /// Whether `who` may be given what is published there, or read its state.
    pub(crate) fn may_receive(&self, who: &Principal, client: Option<&ClientId>, topic: &Topic) -> bool {
        who.is_server() || self.port.may(who, client, Action::Receive(topic))
    }

    /// Whether a retained message may be given to `who`: as its reader, and as far as its publisher might still
    /// publish it (what is revoked stops at once, also what was left behind).
    pub(crate) fn may_read(&self, who: &Principal, client: Option<&ClientId>, message: &Message) -> bool {
        self.may_receive(who, client, message.topic()) && self.stands(message)
    }

    fn stands(&self, message: &Message) -> bool {
        let (policy, origin) = (message.head().policy, &message.head().origin);
        policy == self.policy()
            || policy == Policy::BEFORE
            || self.may_publish(&origin.principal, origin.client.as_ref(), message.topic(), false)
    }

    pub(crate) fn may_admin(&self, who: &Principal, peer: Peer) -> bool {
        who.is_server() || self.port.may(who, None, Action::Admin(peer))
    }

    pub(crate) fn may_reject(&self, who: &Principal, client: Option<&ClientId>, peer: Peer) -> bool {
        who.is_server() || self.port.may(who, client, Action::Reject(peer))
    }
}

/// The first level, if it begins with `$`.
fn own_level(name: &str) -> Option<&str> {
    name.split('/').next().filter(|level| level.starts_with('$'))
}
