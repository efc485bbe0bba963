//! What the core counts. Every copy of a message that a session takes in ends as delivered, waiting, or dropped with
//! a cause: the ledger.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a copy of a message was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropCause {
    /// The session's queue, or the memory of all queues, was full.
    QueueFull,
    /// Its expiry ran out before it was delivered.
    Expired,
    /// It is larger than the client takes.
    TooLarge,
    /// The rights changed while it waited.
    NotAuthorized,
    /// Its session ended.
    SessionEnded,
    /// The client refused it with a reason code of 0x80 or above.
    Rejected,
    /// It lay on disk and can be read there no more.
    Damaged,
    /// A publication that was refused: by the rights, by a queue that rejects when full, for want of a store that can
    /// keep it. It never became a copy, and so is no part of the ledger's balance.
    Refused,
}

impl DropCause {
    /// All causes.
    pub const ALL: [Self; 8] = [
        Self::QueueFull,
        Self::Expired,
        Self::TooLarge,
        Self::NotAuthorized,
        Self::SessionEnded,
        Self::Rejected,
        Self::Damaged,
        Self::Refused,
    ];

    /// The cause's name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::NotAuthorized => "not_authorized",
            Self::SessionEnded => "session_ended",
            Self::Rejected => "rejected",
            Self::Damaged => "damaged",
            Self::Refused => "refused",
        }
    }
}

/// Counters, since the start. Read them in any order; each only grows.
#[derive(Debug, Default)]
pub struct Metrics {
    pub(crate) published: AtomicU64,
    pub(crate) published_bytes: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) copies: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) dropped: [AtomicU64; DropCause::ALL.len()],
    pub(crate) expired_sessions: AtomicU64,
}

impl Metrics {
    /// Messages accepted from publishers.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.published.load(Relaxed)
    }

    /// Bytes (topic, payload and properties) of them.
    #[must_use]
    pub fn published_bytes(&self) -> u64 {
        self.published_bytes.load(Relaxed)
    }

    /// Messages refused (quota, store).
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Copies that sessions were to get: one per accepted message and session.
    #[must_use]
    pub fn copies(&self) -> u64 {
        self.copies.load(Relaxed)
    }

    /// Copies settled (QoS 0: handed out).
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    /// Copies dropped, by cause.
    #[must_use]
    pub fn dropped(&self, cause: DropCause) -> u64 {
        self.dropped[cause as usize].load(Relaxed)
    }

    /// Sessions that ended because their client stayed away for longer than their expiry.
    #[must_use]
    pub fn expired_sessions(&self) -> u64 {
        self.expired_sessions.load(Relaxed)
    }

    /// Copies that wait, or are handed out and not settled: what the ledger's balance leaves.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let settled = self.delivered() + self.dropped_total() - self.dropped(DropCause::Refused);
        // The counters are not read at one moment.
        self.copies().saturating_sub(settled)
    }

    /// Messages dropped, all causes.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(|n| n.load(Relaxed)).sum()
    }

    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        if n > 0 {
            counter.fetch_add(n, Relaxed);
        }
    }

    pub(crate) fn count_drop(&self, cause: DropCause, n: u64) {
        Self::add(&self.dropped[cause as usize], n);
    }
}
