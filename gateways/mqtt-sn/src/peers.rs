//! The bounded table of boards: by key, by address, by client id.

use crate::{
    address::Address,
    client::{Client, Status},
};
use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;
use std::{
    hash::BuildHasher,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};
use tokio::sync::Notify;
use waystation_broker::{ClientId, Time};
use waystation_kit::Timer;

/// Names a board in the table; never used for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    place: u32,
    /// Boards are counted, so that who takes a place that was left is not mistaken for who left it.
    number: u32,
}

/// One board, and what the driver keeps beside it.
pub struct Peer {
    /// The machine.
    pub client: Client,
    /// Wakes the bell.
    pub timer: Timer,
    /// When the timer will fire, or a moment later.
    pub scheduled: Option<Time>,
    /// What the world was last told of it.
    pub told: Option<Status>,
    bell: Arc<Bell>,
    /// The client id by which the table finds it.
    named: Option<ClientId>,
}

impl Peer {
    /// Its name in the table.
    #[must_use]
    pub fn key(&self) -> Key {
        self.bell.key
    }

    /// Puts the board on the ready list.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker::from(self.bell.clone())
    }

    /// From here on it may ring again. Call it before looking at what it rang for.
    pub fn reset_bell(&self) {
        self.bell.rung.store(false, Ordering::Release);
    }
}

/// All boards.
pub struct Peers {
    boards: Slab<Box<Peer>>,
    by_address: HashTable<u32>,
    by_id: HashTable<u32>,
    hasher: DefaultHashBuilder,
    ready: Arc<Ready>,
    last: u32,
    most: usize,
}

impl Peers {
    /// An empty table for at most so many boards.
    #[must_use]
    pub fn new(most: usize, ready: Arc<Ready>) -> Self {
        Self {
            boards: Slab::new(),
            by_address: HashTable::new(),
            by_id: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            ready,
            last: 0,
            most,
        }
    }

    /// The board at an address.
    #[must_use]
    pub fn at(&self, address: &Address) -> Option<Key> {
        let boards = &self.boards;
        let is_there = |place: &u32| boards.get(*place as usize).is_some_and(|it| it.client.address() == address);
        self.by_address.find(self.hasher.hash_one(address), is_there).and_then(|place| self.key(*place))
    }

    /// The board that was last let in under a client id.
    #[must_use]
    pub fn named(&self, id: &str) -> Option<Key> {
        let boards = &self.boards;
        let is_it = |place: &u32| id_of(boards, *place).is_some_and(|it| it.as_str() == id);
        self.by_id.find(self.hasher.hash_one(id), is_it).and_then(|place| self.key(*place))
    }

    /// A board by its key.
    pub fn get(&mut self, key: Key) -> Option<&mut Peer> {
        self.boards.get_mut(key.place as usize).map(|it| &mut **it).filter(|it| it.bell.key == key)
    }

    /// Adds a board; `None` when the table is full.
    pub fn insert(&mut self, client: Client) -> Option<Key> {
        if self.boards.len() >= self.most {
            return None;
        }
        self.last = self.last.wrapping_add(1);
        let entry = self.boards.vacant_entry();
        let key = Key { place: u32::try_from(entry.key()).ok()?, number: self.last };
        let hash = self.hasher.hash_one(client.address());
        let bell = Arc::new(Bell { key, rung: AtomicBool::new(false), ready: self.ready.clone() });
        entry.insert(Box::new(Peer { client, timer: Timer::new(), scheduled: None, told: None, bell, named: None }));
        let Self { boards, by_address, hasher, .. } = self;
        by_address.insert_unique(hash, key.place, |place| address_hash(boards, hasher, *place));
        Some(key)
    }

    /// Makes the board found by its client id, in place of another that had it.
    pub fn name(&mut self, key: Key) {
        let id = self.boards.get(key.place as usize).and_then(|peer| peer.client.id()).cloned();
        let Some(id) = id.filter(|id| id_of(&self.boards, key.place) != Some(id)) else { return };
        self.forget_name(key.place);
        if let Some(other) = self.named(id.as_str()) {
            self.forget_name(other.place);
        }
        let hash = self.hasher.hash_one(id.as_str());
        let Self { boards, by_id, hasher, .. } = self;
        if let Some(peer) = boards.get_mut(key.place as usize) {
            peer.named = Some(id);
        }
        by_id
            .insert_unique(hash, key.place, |place| id_of(boards, *place).map_or(0, |id| hasher.hash_one(id.as_str())));
    }

    /// A board has another address from now on. Nobody else may be there.
    pub fn move_to(&mut self, key: Key, address: Address) {
        self.forget_address(key);
        let hash = self.hasher.hash_one(&address);
        let Self { boards, by_address, hasher, .. } = self;
        if let Some(peer) = boards.get_mut(key.place as usize) {
            peer.client.move_to(address);
            by_address.insert_unique(hash, key.place, |place| address_hash(boards, hasher, *place));
        }
    }

    /// Forgets a board.
    pub fn remove(&mut self, key: Key) -> Option<Box<Peer>> {
        self.get(key)?;
        self.forget_address(key);
        self.forget_name(key.place);
        self.boards.try_remove(key.place as usize)
    }

    /// All boards.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.boards.iter_mut().map(|(_, peer)| &mut **peer)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.boards.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.boards.is_empty()
    }

    fn key(&self, place: u32) -> Option<Key> {
        self.boards.get(place as usize).map(|it| it.bell.key)
    }

    fn forget_address(&mut self, key: Key) {
        let hash = address_hash(&self.boards, &self.hasher, key.place);
        if let Ok(entry) = self.by_address.find_entry(hash, |place| *place == key.place) {
            entry.remove();
        }
    }

    fn forget_name(&mut self, place: u32) {
        let Some(id) = self.boards.get_mut(place as usize).and_then(|it| it.named.take()) else { return };
        let hash = self.hasher.hash_one(id.as_str());
        if let Ok(entry) = self.by_id.find_entry(hash, |it| *it == place) {
            entry.remove();
        }
    }
}

fn address_hash(boards: &Slab<Box<Peer>>, hasher: &DefaultHashBuilder, place: u32) -> u64 {
    boards.get(place as usize).map_or(0, |it| hasher.hash_one(it.client.address()))
}

fn id_of(boards: &Slab<Box<Peer>>, place: u32) -> Option<&ClientId> {
    boards.get(place as usize)?.named.as_ref()
}

/// The boards whose links or timers have something to say. Holds each at most once.
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
struct Bell {
    key: Key,
    rung: AtomicBool,
    ready: Arc<Ready>,
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
