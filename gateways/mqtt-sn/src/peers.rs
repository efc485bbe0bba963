//! The bounded table of boards by address.

use crate::client::Client;
use hashbrown::HashMap;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};
use tokio::sync::Notify;
use waystation_broker::Time;

/// Names a board in the table; never used for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u64);

/// One board, and what the driver keeps beside it.
pub struct Peer {
    /// The machine.
    pub client: Client,
    /// Puts the board on the ready list.
    pub bell: Arc<Bell>,
    /// The bell as the link wants it.
    pub waker: Waker,
    /// The earliest entry of the driver's timer heap that is for this board.
    pub scheduled: Option<Time>,
    address: SocketAddr,
}

/// All boards.
pub struct Peers {
    by_key: HashMap<Key, Peer>,
    by_address: HashMap<SocketAddr, Key>,
    ready: Arc<Ready>,
    last: u64,
    most: usize,
}

impl Peers {
    /// An empty table for at most so many boards.
    #[must_use]
    pub fn new(most: usize, ready: Arc<Ready>) -> Self {
        Self { by_key: HashMap::new(), by_address: HashMap::new(), ready, last: 0, most }
    }

    /// The board at an address.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Option<Key> {
        self.by_address.get(&address).copied()
    }

    /// A board by its key.
    pub fn get(&mut self, key: Key) -> Option<&mut Peer> {
        self.by_key.get_mut(&key)
    }

    /// Adds a board; `None` when the table is full.
    pub fn insert(&mut self, address: SocketAddr, client: Client) -> Option<Key> {
        if self.by_key.len() >= self.most {
            return None;
        }
        self.last += 1;
        let key = Key(self.last);
        let bell = Arc::new(Bell { key, rung: AtomicBool::new(false), ready: self.ready.clone() });
        let waker = Waker::from(bell.clone());
        self.by_key.insert(key, Peer { client, bell, waker, scheduled: None, address });
        self.by_address.insert(address, key);
        Some(key)
    }

    /// Forgets a board.
    pub fn remove(&mut self, key: Key) {
        if let Some(peer) = self.by_key.remove(&key) {
            self.by_address.remove(&peer.address);
        }
    }

    /// All boards.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.by_key.values_mut()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

/// The boards whose links have something to say. Holds each at most once.
#[derive(Debug, Default)]
pub struct Ready {
    keys: Mutex<Vec<Key>>,
    /// Rung when the list gets its first key.
    pub changed: Notify,
}

impl Ready {
    /// Exchanges the list for an empty one.
    pub fn swap(&self, keys: &mut Vec<Key>) {
        keys.clear();
        std::mem::swap(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner), keys);
    }
}

/// One board's waker.
#[derive(Debug)]
pub struct Bell {
    key: Key,
    rung: AtomicBool,
    ready: Arc<Ready>,
}

impl Bell {
    /// From here on it may ring again. Call it before looking at what it rang for.
    pub fn reset(&self) {
        self.rung.store(false, Ordering::Release);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut keys = self.ready.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.push(self.key);
        if keys.len() == 1 {
            drop(keys);
            self.ready.changed.notify_one();
        }
    }
}
