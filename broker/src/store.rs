//! The port behind which state is kept. The core is written against [`Store`]; what is kept, and how safely, is the
//! store's business.

#[cfg(feature = "disk")]
pub mod disk;
pub mod memory;
pub mod record;
#[doc(hidden)]
pub mod rehearsal;

#[cfg(feature = "disk")]
pub use disk::Disk;
pub use memory::Memory;
pub use record::{Counts, Lapsed, Placed, Record, SessionKey};

use crate::{
    link::{Cursor, Lsn},
    message::Message,
};
use std::sync::Arc;

/// The store cannot write now: disk full, I/O error, failed sync. Nothing of the batch was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store cannot write")]
pub struct StoreUnavailable;

/// Hears what the store has to say. Called from any thread; must be quick and must not call the store.
pub trait Listener: Send + Sync {
    /// Everything up to here is durable.
    fn durable(&self, lsn: Lsn);
    /// The store writes again after [`StoreUnavailable`], or has room again after [`Store::has_room`] was false.
    fn available(&self);
}

/// Keeps records. No call may wait for a disk.
pub trait Store: Send + Sync {
    /// Whether anything survives the process. If not, the core builds no records at all.
    fn keeps(&self) -> bool;

    /// Appends a batch that becomes durable as one, and empties `records`. Gives its position.
    ///
    /// # Errors
    /// Nothing of the batch was taken; `records` is as it was.
    fn append(&self, records: &mut Vec<Record>) -> Result<Lsn, StoreUnavailable>;

    /// Like [`Store::append`], for what must not fail the caller: settlements, ends. While the store is down they are
    /// kept in memory and written when it is back; a crash before that means a redelivery, never a loss.
    fn append_lazily(&self, records: &mut Vec<Record>) -> Lsn;

    /// How it stands to what comes. Asked before anything begins, so that nothing is dropped for what is refused then.
    fn standing(&self) -> Standing;

    /// Everything up to here is durable.
    fn durable(&self) -> Lsn;

    /// False while more bytes than the ingress budget wait to become durable.
    fn has_room(&self) -> bool;

    /// Who wants to hear.
    fn listen(&self, listener: Arc<dyn Listener>);

    /// A number greater than that of every start before: numbers that leave the server begin with it, and so are
    /// never used twice.
    fn epoch(&self) -> u32;

    /// Shows everything kept, in an order in which it can be applied; called once, before anything else. Places in
    /// queues come after the sessions they belong to, in the order of their cursors.
    fn recover(&self, recovery: &mut dyn Recovery);

    /// Reads places in a queue that were durable when this was asked, and answers from a thread of its own: bounded by
    /// [`PageWanted::bytes`], and by one page a session at a time. A store that is down answers when it is back; one
    /// that closes, never.
    fn page(&self, wanted: PageWanted, answer: Box<dyn FnOnce(Page) + Send>);

    /// How it does.
    fn health(&self) -> Health;
}

/// Who puts state together again at a start.
pub trait Recovery {
    /// Applies a record.
    fn apply(&mut self, record: Record);
    /// Whether the message at this place is to be applied too, as a [`Record::Stored`]. If not it lies on disk alone
    /// from now on.
    fn wants(&mut self, place: Lying) -> bool;
}

/// A place in a queue, as far as it can be told without its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lying {
    /// Whose queue.
    pub session: SessionKey,
    /// Where in it.
    pub cursor: Cursor,
    /// What the message counts for ([`crate::Message::cost`]).
    pub cost: u64,
    /// It was queued for a shared subscription.
    pub shared: bool,
}

/// Which places to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageWanted {
    /// Whose queue.
    pub session: SessionKey,
    /// From just behind this place.
    pub after: Cursor,
    /// Up to and including this one.
    pub through: Cursor,
    /// Most bytes ([`crate::Message::cost`]); the first message is always read.
    pub bytes: u64,
}

/// What lies at some places of a queue.
#[derive(Debug)]
pub struct Page {
    /// Everything up to and including this place was looked at.
    pub through: Cursor,
    /// What was found, in order. What is missing cannot be read.
    pub messages: Vec<(Message, Placed)>,
}

/// How a store stands to what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It takes everything.
    Open,
    /// It takes only what must not fail ([`Store::append_lazily`]).
    Closed,
    /// What waits to be written has reached its bound in memory: nothing may begin that it would have to know of. What
    /// ends, and what is settled, is taken still; both are bounded by what began.
    Exhausted,
}

/// What a store says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What an acknowledgement means.
    pub promise: Promise,
    /// Why nothing that must be kept is accepted at the moment.
    pub trouble: Option<Trouble>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Records that were found damaged, since the start.
    pub damaged: u64,
}

/// What of the server an acknowledged message outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Nothing: it lives in memory.
    Connection,
    /// The process, but not the power.
    Process,
    /// The power.
    Power,
}

/// Why a store cannot write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The disk, or what the store may take of it, is full. Deletes and acknowledgements go on.
    #[error("the disk or the data folder is full")]
    Full,
    /// The disk failed; what it said.
    #[error("the disk fails: {0}")]
    Failing(String),
}
