//! What the core asks the store to keep.

use crate::{
    access::ClientId,
    clock::Time,
    idempotency::Answer,
    link::{Cursor, SessionOptions, Subscription, Tag, WhileAway},
    message::{Message, MessageId, Qos, Will},
    topic::{Filter, Topic},
};
use bytes::Bytes;
use std::num::{NonZeroU16, NonZeroU32};

/// Names a session in the store; never used twice, unlike client ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u64);

/// A change of state.
#[derive(Debug, Clone)]
pub enum Record {
    /// A session was made, or its terms changed at a CONNECT.
    Session {
        /// Which.
        session: SessionKey,
        /// Its name.
        client: ClientId,
        /// Whom it belongs to.
        owner: Option<Box<str>>,
        /// Seconds it outlives its connection.
        expiry: u32,
        /// Its own bounds.
        options: SessionOptions,
        /// What happens to QoS 0 while it is away.
        while_away: WhileAway,
    },
    /// Its client went away; it ends at the given time unless the client returns.
    Away {
        /// Which.
        session: SessionKey,
        /// When it ends; `None`: never.
        ends: Option<Time>,
    },
    /// A session ended, with all that was its own.
    Ended(SessionKey),
    /// A subscription was added or replaced.
    Subscribed(SessionKey, Subscription),
    /// A subscription was removed.
    Unsubscribed(SessionKey, Filter),
    /// A message, the queues it is in, and the publisher's QoS 2 identifier: one atom, or exactly-once breaks.
    Stored {
        /// The message, stored once.
        message: Message,
        /// Where it waits.
        places: Vec<Placed>,
        /// The publisher's session and packet identifier, if it was published with QoS 2 into a kept session.
        incoming: Option<(SessionKey, NonZeroU16)>,
        /// Whether it is its topic's state from now on.
        retained: bool,
    },
    /// A topic's state was cleared.
    Cleared(Topic),
    /// A delivery was handed out under a tag. Lazy: what may have been sent counts as sent.
    Sent(SessionKey, Cursor, Tag),
    /// PUBREC came for the delivery under this tag: only PUBREL is owed.
    Received(SessionKey, Cursor, Tag),
    /// A delivery is done with. Its message is named, so that one that nobody waits for any more can go.
    Settled(SessionKey, Cursor, MessageId),
    /// Places at consecutive cursors that lie on disk alone are done with, from `first` on. All of them are durable.
    Gone {
        /// Whose.
        session: SessionKey,
        /// The first.
        first: Cursor,
        /// How many.
        count: u64,
    },
    /// The position that a client which reads by cursor has acknowledged. What it covers is settled beside it.
    SettledThrough(SessionKey, Cursor),
    /// What was lost of its queue so far. In one batch with the loss.
    Counted(SessionKey, Counts),
    /// Only at a start: the publisher has not released this QoS 2 identifier.
    Unreleased(SessionKey, NonZeroU16),
    /// The publisher released an incoming QoS 2 identifier.
    Released(SessionKey, NonZeroU16),
    /// The will of a connected client, or none any more.
    Will(SessionKey, Option<Box<Will>>),
    /// A document that a part of the server keeps; see [`crate::Broker::keep`].
    Kept {
        /// What kind of thing it describes.
        kind: Box<str>,
        /// Its name among those of its kind.
        name: Box<str>,
        /// `None`: it is kept no longer.
        document: Option<Bytes>,
    },
    /// A publication with an idempotency key was answered. In one batch with the message.
    Answered(Box<Answer>),
    /// An answer need not be kept any longer.
    Lapsed(Box<Lapsed>),
}

/// What a session has lost; numbers as they are, not what was added to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Messages lost to a full queue that its client was not yet told of.
    pub missed: u64,
    /// Messages lost, all causes.
    pub dropped: u64,
}

/// Names an answer: whose, and to which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lapsed {
    /// Who asked.
    pub user: Option<Box<str>>,
    /// With which key.
    pub key: Box<str>,
}

/// A message's place in one session's queue.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Whose queue.
    pub session: SessionKey,
    /// Where in it.
    pub cursor: Cursor,
    /// QoS to deliver with.
    pub qos: Qos,
    /// Retain flag to deliver with.
    pub retain: bool,
    /// Subscription identifiers to deliver with.
    pub identifiers: Box<[NonZeroU32]>,
    /// The shared subscription it was queued for, if it was.
    pub shared: Option<Filter>,
}
