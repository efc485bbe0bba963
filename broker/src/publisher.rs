//! Publishing: stage a burst, route it at once.

use crate::{
    link::{Lsn, Refused},
    message::{MessageId, Publish},
    topic::{InvalidTopic, Topic},
};

/// What became of a staged message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// What the caller gave to `stage`.
    pub token: u32,
    /// The outcome.
    pub outcome: Outcome,
}

/// What became of a staged message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in every queue it belongs in (and safe once the flush's position is durable).
    Accepted {
        /// Sessions that get it.
        matched: u32,
        /// Its name; as retained state, its ETag.
        id: MessageId,
    },
    /// A QoS 2 publication that was accepted before and not yet released: acknowledge it again.
    Duplicate,
    /// A queue with `overflow = "reject"` is full, or the retained limits are reached; the message reached nobody.
    /// [`crate::Event::Room`] tells when to try again.
    QuotaExceeded,
    /// The store cannot write; nothing was queued. [`crate::Event::Room`] tells when to try again.
    StoreUnavailable,
    /// [`Publish::condition`] does not hold; nothing was published.
    ConditionFailed {
        /// The state there is.
        current: Option<MessageId>,
    },
}

/// Publishes as one principal. Buffers like `BufWriter`: `stage` checks and keeps, `flush` routes the whole burst.
/// What is staged and not flushed is forgotten when it is dropped.
#[derive(Debug)]
pub struct Publisher {}

impl Publisher {
    /// The topic of these bytes: the last one again without looking, or a known one, or a new one.
    ///
    /// # Errors
    /// They are no topic name.
    pub fn topic(&mut self, _name: &[u8]) -> Result<Topic, InvalidTopic> {
        todo!()
    }

    /// Keeps a message for the next flush; `token` comes back in its receipt.
    ///
    /// # Errors
    /// What can never succeed is refused at once, and is not staged.
    pub fn stage(&mut self, _message: Publish<'_>, _token: u32) -> Result<(), Refused> {
        todo!()
    }

    /// Routes what is staged: one lock and one wake-up a subscriber. Appends one receipt per staged message, in
    /// order. Hold acknowledgements until the position is durable. A fenced link's messages vanish without receipt.
    pub fn flush(&mut self, _receipts: &mut Vec<Receipt>) -> Lsn {
        todo!()
    }

    /// False while the bytes staged and not yet durable exceed the ingress budget: stop reading, or say
    /// "congestion". [`crate::Event::Room`] follows. Never false because of a session's queue.
    #[must_use]
    pub fn has_room(&self) -> bool {
        todo!()
    }
}
