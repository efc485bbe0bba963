#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that finds what it did not expect is to fail")]
//! The core as its front-ends see it: through the seam, with a clock that is moved and a store that is rehearsed.

#[cfg(feature = "disk")]
mod disk;
mod drops;
mod expiry;
mod harness;
mod idempotency;
mod interleavings;
mod ledger;
mod order;
mod own;
mod paging;
mod queues;
mod retained;
mod rights;
mod sessions;
mod shared;
mod storing;
mod sys;
mod wills;
