//! How a bridge stands, for the log, `/v1/bridges`, the metrics and `$SYS`.

use crate::settings::session_id;
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use waystation_broker::{Broker, Time};
use waystation_kit::{Remote, RemoteStatus};

/// The figures of one bridge, from its start on.
pub(crate) struct Figures {
    name: Arc<str>,
    broker: Broker,
    state: Mutex<State>,
    /// Sent and not acknowledged.
    pub(crate) in_flight: AtomicU64,
    /// Taken to the far side: acknowledged, or written with QoS 0.
    pub(crate) sent: AtomicU64,
    /// Taken from the far side.
    pub(crate) received: AtomicU64,
    /// Went with less than they asked for.
    pub(crate) reduced: AtomicU64,
}

struct State {
    url: String,
    connected: bool,
    since: Time,
    error: Option<String>,
    /// The error was told, and nothing has worked since.
    told: bool,
}

impl Figures {
    /// Those of a bridge that is not connected yet.
    pub(crate) fn new(name: &Arc<str>, broker: &Broker) -> Self {
        let state = State { url: String::new(), connected: false, since: broker.now(), error: None, told: false };
        Self {
            name: name.clone(),
            broker: broker.clone(),
            state: Mutex::new(state),
            in_flight: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            reduced: AtomicU64::new(0),
        }
    }

    /// Where it goes.
    pub(crate) fn bound_for(&self, url: String) {
        self.state.lock().url = url;
    }

    /// The far side is reached, or no more.
    pub(crate) fn connected(&self, connected: bool) {
        {
            let mut state = self.state.lock();
            if state.connected != connected {
                (state.connected, state.since, state.told) = (connected, self.broker.now(), false);
            }
        }
        self.in_flight.store(0, Ordering::Relaxed);
        self.announce(if connected { "1" } else { "0" });
    }

    /// Something went wrong. Gives whether that is news.
    pub(crate) fn failed(&self, why: &str) -> bool {
        let mut state = self.state.lock();
        let news = !state.told || state.error.as_deref() != Some(why);
        (state.error, state.told) = (Some(why.to_owned()), true);
        news
    }

    /// Sets `$SYS/broker/connection/NAME/state`.
    fn announce(&self, value: &str) {
        // A bridge's name was checked and makes a topic.
        let _ = self.broker.announce(&state_name(&self.name), value);
    }
}

/// What of `$SYS/broker/` says whether a bridge is connected.
pub(crate) fn state_name(bridge: &str) -> String {
    format!("connection/{bridge}/state")
}

impl Remote for Figures {
    fn status(&self) -> RemoteStatus {
        let session = session_id(&self.name).and_then(|id| self.broker.session(&id));
        let state = self.state.lock();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RemoteStatus {
            name: self.name.clone(),
            url: state.url.clone(),
            connected: state.connected,
            since: state.since,
            error: state.error.clone(),
            queued: session.as_ref().map_or(0, |session| session.queued),
            in_flight: read(&self.in_flight),
            sent: read(&self.sent),
            received: read(&self.received),
            dropped: session.map_or(0, |session| session.dropped),
            reduced: read(&self.reduced),
        }
    }
}
