//! A burst of publications on its way: what is staged, and the room it is staged in.

use super::Outcome;
use crate::{
    clock::Time,
    drops::Tally,
    idempotency::Idempotency,
    message::{Condition, Message},
    router::Route,
};
use std::{cell::RefCell, num::NonZeroU16, ops::Range, sync::Arc};

/// What is staged and not flushed.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) staged: Vec<Staged>,
    /// Runs of staged messages with one route; each begins where the one before ends.
    pub(super) runs: Vec<Run>,
    /// Numbers fetched for messages and not used yet.
    pub(super) numbers: Range<u64>,
    pub(super) now: Option<Time>,
    /// What the rights refused.
    pub(super) refused: Option<Box<Tally>>,
    /// Something staged needs more than a push into queues.
    pub(super) careful: bool,
    pub(super) has_exactly_once: bool,
    /// What is refused holds back what comes after it.
    pub(super) in_order: bool,
}

thread_local! {
    #[expect(clippy::vec_box, reason = "a publisher holds a box too: eight bytes while it is idle")]
    /// Batches that are not in use, with the room they grew.
    static SPARE: RefCell<Vec<Box<Batch>>> = const { RefCell::new(Vec::new()) };
}

/// Spare batches a thread keeps; more are in use at once only while connections stage without flushing.
const MOST_SPARE: usize = 16;

impl Batch {
    pub(super) fn new() -> Box<Self> {
        SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    pub(super) fn recycle(mut self: Box<Self>) {
        self.staged.clear();
        self.runs.clear();
        (self.now, self.careful, self.has_exactly_once, self.in_order) = (None, false, false, false);
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MOST_SPARE {
                spare.push(self);
            }
        });
    }
}

pub(super) struct Run {
    pub(super) route: Arc<Route>,
    pub(super) end: usize,
}

pub(super) struct Staged {
    pub(super) message: Message,
    pub(super) token: u32,
    pub(super) exactly_once: Option<NonZeroU16>,
    pub(super) special: Option<Box<Special>>,
    /// Decided already; not to be routed.
    pub(super) verdict: Option<Outcome>,
}

/// What few publications come with.
pub(super) struct Special {
    pub(super) condition: Option<Condition>,
    pub(super) idempotency: Option<Box<Idempotency>>,
}
