//! What all requests share.

use crate::{config::Config, readers::Readers, routes::request::Turns, webhook::Webhooks};
use parking_lot::RwLock;
use std::{net::SocketAddr, sync::Arc};
use tokio::sync::watch;
use waystation_broker::{Broker, Peer, Traffic};
use waystation_kit::Host;

/// What all requests share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

/// See [`App`].
pub(crate) struct Shared {
    pub(crate) broker: Broker,
    /// What only the host can do.
    pub(crate) host: Arc<dyn Host>,
    /// The gateway's name, which sessions are held by.
    pub(crate) gateway: Arc<str>,
    pub(crate) readers: Readers,
    pub(crate) webhooks: Webhooks,
    pub(crate) turns: Turns,
    /// What goes through this gateway.
    pub(crate) traffic: Arc<Traffic>,
    config: RwLock<Arc<Config>>,
    draining: watch::Sender<bool>,
}

/// What is known of the connection a request came by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    /// The address we listen on.
    pub(crate) local: SocketAddr,
    /// It came over TLS.
    pub(crate) encrypted: bool,
    /// Its certificate was verified.
    pub(crate) certified: bool,
}

impl Connection {
    /// The client as the policy sees it.
    pub(crate) fn peer(&self, proxied: bool) -> Peer {
        let peer = if proxied { Peer::proxied(self.peer) } else { Peer::direct(self.peer) };
        match (self.encrypted, self.certified) {
            (_, true) => peer.certified(),
            (true, false) => peer.encrypted(),
            (false, false) => peer,
        }
    }
}

impl App {
    pub(crate) fn new(broker: Broker, host: Arc<dyn Host>, gateway: Arc<str>, config: Config) -> Self {
        Self(Arc::new(Shared {
            traffic: broker.traffic(&gateway),
            broker,
            host,
            gateway,
            readers: Readers::default(),
            webhooks: Webhooks::default(),
            turns: Turns::default(),
            config: RwLock::new(Arc::new(config)),
            draining: watch::Sender::new(false),
        }))
    }

    /// The settings as they are now.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.0.config.read().clone()
    }

    /// New settings, for requests from now on.
    pub(crate) fn configure(&self, config: Config) {
        *self.0.config.write() = Arc::new(config);
    }

    /// Held reads and streams end.
    pub(crate) fn drain(&self) {
        self.0.draining.send_replace(true);
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.0.draining.borrow()
    }

    /// Completes when held reads and streams are to end.
    pub(crate) async fn drained(&self) {
        // The sender lives in `self`: the wait cannot fail.
        drop(self.0.draining.subscribe().wait_for(|draining| *draining).await);
    }
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
