//! How a session's holder is told that something happened: one waker, a few bits.

use crate::{link::Reason, traffic::Traffic};
use atomic_waker::AtomicWaker;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    task::Waker,
};

pub(crate) const DELIVERABLE: u16 = 1;
pub(crate) const DURABLE: u16 = 2;
pub(crate) const ROOM: u16 = 4;
const DETACHED: u16 = 8;
/// It stands in the line of those who wait to deliver until something is durable.
const WAITING: u16 = 16;
const REASON_SHIFT: u16 = 8;

/// One link's bell. A takeover gives the session a new one, so an old link can never ring, or be rung, again.
#[derive(Debug)]
pub(crate) struct Signal {
    /// Of the gateway that holds the link.
    pub(crate) traffic: Arc<Traffic>,
    bits: AtomicU16,
    waker: AtomicWaker,
}

impl Signal {
    pub(crate) fn new(traffic: Arc<Traffic>) -> Self {
        Self { traffic, bits: AtomicU16::new(0), waker: AtomicWaker::new() }
    }

    /// Sets bits; wakes the holder if any of them is news.
    pub(crate) fn raise(&self, bits: u16) {
        if self.bits.fetch_or(bits, Ordering::AcqRel) & bits != bits {
            self.waker.wake();
        }
    }

    /// Sets bits without waking: for the holder's own calls, which it follows up itself.
    pub(crate) fn note(&self, bits: u16) {
        self.bits.fetch_or(bits, Ordering::AcqRel);
    }

    /// `false`: it waits already.
    pub(crate) fn begin_waiting(&self) -> bool {
        self.bits.fetch_or(WAITING, Ordering::AcqRel) & WAITING == 0
    }

    pub(crate) fn end_waiting(&self) {
        self.bits.fetch_and(!WAITING, Ordering::AcqRel);
    }

    /// Ends the link. The first reason stays.
    pub(crate) fn detach(&self, reason: Reason) {
        let code = DETACHED | ((reason as u16) << REASON_SHIFT);
        let done = self
            .bits
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |bits| (bits & DETACHED == 0).then_some(bits | code));
        if done.is_ok() {
            self.waker.wake();
        }
    }

    pub(crate) fn detached(&self) -> Option<Reason> {
        let bits = self.bits.load(Ordering::Acquire);
        (bits & DETACHED != 0).then_some(match bits >> REASON_SHIFT {
            0 => Reason::TakenOver,
            1 => Reason::Administrative,
            2 => Reason::NotAuthorized,
            3 => Reason::Expired,
            4 => Reason::SessionEnded,
            _ => Reason::ServerStopping,
        })
    }

    /// Takes the first of the wanted bits that is set, in the order of their values.
    pub(crate) fn take(&self, wanted: u16) -> Option<u16> {
        let set = self.bits.load(Ordering::Acquire) & wanted & (DELIVERABLE | DURABLE | ROOM);
        // Deliveries last: acknowledgements that may go out go first.
        let bit = [DURABLE, ROOM, DELIVERABLE].into_iter().find(|bit| set & bit != 0)?;
        self.bits.fetch_and(!bit, Ordering::AcqRel);
        Some(bit)
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Gateways;

    #[test]
    fn the_first_reason_is_the_one_that_is_told() {
        let reasons = [
            Reason::TakenOver,
            Reason::Administrative,
            Reason::NotAuthorized,
            Reason::Expired,
            Reason::SessionEnded,
            Reason::ServerStopping,
        ];
        for reason in reasons {
            let signal = Signal::new(Gateways::default().none());
            assert_eq!(signal.detached(), None);
            signal.detach(reason);
            signal.detach(Reason::ServerStopping);
            assert_eq!(signal.detached(), Some(reason));
        }
    }
}
