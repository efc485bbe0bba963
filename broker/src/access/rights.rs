//! The rights as the core asks for them: one question for each way out, and the server's own topics.

use super::{Action, Authorize, ClientId, Peer, Principal};
use crate::topic::{Filter, Topic};
use std::sync::Arc;

/// Asks the host's port, except about the server itself and about topics that are nobody's to give.
pub(crate) struct Rights(Arc<dyn Authorize>);

impl Rights {
    pub(crate) fn new(port: Arc<dyn Authorize>) -> Self {
        Self(port)
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
                _ => self.0.may(who, client, Action::Publish(topic)),
            }
    }

    /// Whether `who` may subscribe.
    pub(crate) fn may_subscribe(&self, who: &Principal, client: Option<&ClientId>, filter: &Filter) -> bool {
        // Nobody may listen to the replies of others.
        let reply = own_level(filter.pattern()) == Some("$reply");
        who.is_server() || (!reply && self.0.may(who, client, Action::Subscribe(filter)))
    }

    /// Whether `who` may be given what is published there, or read its state.
    pub(crate) fn may_receive(&self, who: &Principal, client: Option<&ClientId>, topic: &Topic) -> bool {
        who.is_server() || self.0.may(who, client, Action::Receive(topic))
    }

    pub(crate) fn may_admin(&self, who: &Principal, peer: Peer) -> bool {
        who.is_server() || self.0.may(who, None, Action::Admin(peer))
    }

    pub(crate) fn may_reject(&self, who: &Principal, client: Option<&ClientId>, peer: Peer) -> bool {
        who.is_server() || self.0.may(who, client, Action::Reject(peer))
    }
}

/// The first level, if it begins with `$`.
fn own_level(name: &str) -> Option<&str> {
    name.split('/').next().filter(|level| level.starts_with('$'))
}
