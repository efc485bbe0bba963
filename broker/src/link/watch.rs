//! Watching a topic's state, for those who wait for it to change and want no deliveries.

use super::Link;
use crate::{broker::Core, session::signal::Signal, topic::Topic};
use std::sync::Arc;

/// While it lives its link's holder is told, by [`super::Event::Deliverable`], that the state of a topic may have
/// changed. Nothing is queued, and no route goes stale over it, as it would over a subscription.
pub struct Watch {
    core: Arc<Core>,
    topic: Topic,
    signal: Arc<Signal>,
}

impl Link {
    /// Watches the state of `topic`; [`crate::Broker::retained`] reads it. At most one topic a link.
    #[must_use]
    pub fn watch(&self, topic: &Topic) -> Watch {
        self.core.retained.write().watch(topic, self.signal.clone());
        Watch { core: self.core.clone(), topic: topic.clone(), signal: self.signal.clone() }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.core.retained.write().unwatch(&self.topic, &self.signal);
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("topic", &self.topic).finish_non_exhaustive()
    }
}
