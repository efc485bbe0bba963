//! The gateway's connections: how they learn that it drains, and how it learns that the last one is gone.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};
use tokio::sync::Notify;

/// All connections of one gateway.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    draining: AtomicBool,
    /// One place a connection; bounded by the system's descriptors.
    places: Mutex<Places>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Places {
    wakers: Vec<Option<Waker>>,
    free: Vec<u32>,
}

/// A connection's place; give it back with [`Clients::leave`].
#[derive(Debug)]
pub(crate) struct Place(u32);

impl Clients {
    /// A newcomer; its task is woken when the gateway begins to drain.
    pub(crate) fn join(&self, waker: &Waker) -> Place {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let waker = Some(waker.clone());
        match places.free.pop() {
            Some(index) => {
                places.wakers[index as usize] = waker;
                Place(index)
            }
            None => {
                places.wakers.push(waker);
                Place(u32::try_from(places.wakers.len() - 1).unwrap_or(u32::MAX))
            }
        }
    }

    /// A connection has ended.
    pub(crate) fn leave(&self, place: &Place) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.wakers[place.0 as usize] = None;
        places.free.push(place.0);
        if places.free.len() == places.wakers.len() {
            *places = Places::default();
            drop(places);
            self.changed.notify_waiters();
        }
    }

    /// Whether connections are to take leave.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Tells every connection to take leave.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        let wakers: Vec<Waker> = {
            let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.wakers.iter().flatten().cloned().collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Completes when no connection is left.
    pub(crate) async fn gone(&self) {
        loop {
            let changed = self.changed.notified();
            if self.places.lock().unwrap_or_else(PoisonError::into_inner).wakers.is_empty() {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gone_completes_when_the_last_connection_has_left() {
        let clients = std::sync::Arc::new(Clients::default());
        let (one, two) = (clients.join(Waker::noop()), clients.join(Waker::noop()));
        clients.leave(&one);
        let three = clients.join(Waker::noop());
        let waiting = tokio::spawn({
            let clients = clients.clone();
            async move { clients.gone().await }
        });
        tokio::task::yield_now().await;
        clients.leave(&two);
        assert!(!waiting.is_finished());
        clients.leave(&three);
        waiting.await.unwrap();
    }
}
