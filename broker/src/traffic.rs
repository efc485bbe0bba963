//! What goes through each gateway: counters that are added to once a batch, and read by whoever runs the place.

use parking_lot::RwLock;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

/// One gateway's counters, since the start.
///
/// The core counts messages and clients itself. A gateway gets its own by [`crate::Broker::traffic`], once, and adds
/// the bytes it reads and writes: once a read or a write, never once a message.
#[derive(Debug)]
pub struct Traffic {
    gateway: Arc<str>,
    clients: AtomicU32,
    messages_received: AtomicU64,
    messages_sent: AtomicU64,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    violations: AtomicU64,
}

impl Traffic {
    fn new(gateway: &Arc<str>) -> Self {
        let zero = AtomicU64::default;
        Self {
            gateway: gateway.clone(),
            clients: AtomicU32::default(),
            messages_received: zero(),
            messages_sent: zero(),
            bytes_received: zero(),
            bytes_sent: zero(),
            violations: zero(),
        }
    }

    /// Bytes that came from clients.
    #[inline]
    pub fn add_bytes_received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Relaxed);
    }

    /// Bytes that went to clients.
    #[inline]
    pub fn add_bytes_sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Relaxed);
    }

    /// A client broke its protocol: the gateway ignored what it said, or ended its connection.
    pub fn add_violation(&self) {
        self.violations.fetch_add(1, Relaxed);
    }

    pub(crate) fn add_messages_received(&self, messages: usize) {
        self.messages_received.fetch_add(messages as u64, Relaxed);
    }

    pub(crate) fn add_messages_sent(&self, messages: usize) {
        if messages > 0 {
            self.messages_sent.fetch_add(messages as u64, Relaxed);
        }
    }

    pub(crate) fn connected(&self) {
        self.clients.fetch_add(1, Relaxed);
    }

    pub(crate) fn disconnected(&self) {
        self.clients.fetch_sub(1, Relaxed);
    }

    /// The gateway's name.
    #[must_use]
    pub fn gateway(&self) -> &Arc<str> {
        &self.gateway
    }

    /// Clients connected now.
    #[must_use]
    pub fn clients(&self) -> u32 {
        self.clients.load(Relaxed)
    }

    /// Messages clients published, refused ones too.
    #[must_use]
    pub fn messages_received(&self) -> u64 {
        self.messages_received.load(Relaxed)
    }

    /// Messages handed out to clients, repeats too.
    #[must_use]
    pub fn messages_sent(&self) -> u64 {
        self.messages_sent.load(Relaxed)
    }

    /// Bytes that came from clients.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.bytes_received.load(Relaxed)
    }

    /// Bytes that went to clients.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Relaxed)
    }

    /// How often clients broke the gateway's protocol.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.violations.load(Relaxed)
    }
}

/// All gateways' counters by name. As many as the configuration names gateways; one that is switched off keeps its
/// own.
#[derive(Debug)]
pub(crate) struct Gateways {
    named: RwLock<BTreeMap<Arc<str>, Arc<Traffic>>>,
    none: Arc<Traffic>,
}

impl Default for Gateways {
    fn default() -> Self {
        Self { named: RwLock::default(), none: Arc::new(Traffic::new(&"".into())) }
    }
}

impl Gateways {
    /// What no client's gateway does, under no name: the server's own publications, sessions after a restart.
    pub(crate) fn none(&self) -> Arc<Traffic> {
        self.none.clone()
    }

    pub(crate) fn of(&self, gateway: &Arc<str>) -> Arc<Traffic> {
        if let Some(known) = self.named.read().get(gateway) {
            return known.clone();
        }
        self.named.write().entry(gateway.clone()).or_insert_with(|| Arc::new(Traffic::new(gateway))).clone()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Traffic>> {
        self.named.read().values().cloned().collect()
    }
}
