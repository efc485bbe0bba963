//! A server from start to stop.

use crate::{
    auth::{FileError, Policy},
    config::{Config, ConfigError, Durability, Sys as SysConfig},
    gateways::Gateways,
    telemetry::Log,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, MissedTickBehavior},
};
use waystation_broker::{
    Broker, Clock, Limits, Parts, Store, Sys, SystemClock,
    store::{Disk, Memory, disk::OpenError},
};
use waystation_kit::{BindError, EnableError, GatewayStatus, Host, Loops, Registry};

/// A running server: a broker, and the gateways to it. Stop it with [`Server::stop`]; when it is dropped,
/// clients are told, but nobody waits for their farewells.
pub struct Server {
    broker: Broker,
    policy: Arc<Policy>,
    gateways: Arc<Gateways>,
    fixed: Fixed,
    loops: Loops,
    timer: JoinHandle<()>,
    figures: Option<JoinHandle<()>>,
    disk: Option<Arc<Disk>>,
}

/// What is taken as it is at the start, and by no reload.
struct Fixed {
    data_dir: String,
    durability: Durability,
    log: Log,
    limits: Limits,
    sys: SysConfig,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of users or rights cannot be used.
    #[error(transparent)]
    Auth(#[from] FileError),
    /// A gateway could not open what it needs.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The data folder cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The system refused what the server cannot go on without.
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
}

/// The most a stop takes for farewells. The interface promises five seconds for everything.
const FAREWELL: Duration = Duration::from_secs(3);

/// Between two looks at what is due, at most.
const TICK: Duration = Duration::from_secs(1);

impl Server {
    /// Starts a server with the gateways this crate comes with. Call it on a multi-thread tokio runtime.
    ///
    /// # Errors
    /// Something could not be opened; nothing is left open then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(crate::gateways::registry(), config).await
    }

    /// Starts a server with the kinds of gateway in `registry`, which `config` was read for.
    ///
    /// # Errors
    /// Something could not be opened; nothing is left open then.
    pub async fn start_with(registry: Registry, config: Config) -> Result<Self, StartError> {
        let Config { log, data_dir, durability, auth, limits, sys, gateways } = config;
        let fixed = Fixed { data_dir, durability, log, limits, sys };
        let Fixed { data_dir, durability, limits, sys, .. } = &fixed;
        let policy = Arc::new(Policy::read(auth)?);
        let clock = Arc::new(SystemClock::default());
        let disk = match durability.settings(data_dir) {
            None => {
                tracing::warn!("data_dir is empty: what this server holds does not survive its end");
                None
            }
            Some(settings) => {
                tracing::info!(data_dir, sync = ?durability.sync, "opening the data folder");
                // It reads files, which a task must not wait for.
                let opened = spawn_blocking(|| Disk::open(settings)).await.map_err(std::io::Error::other)??;
                Some(Arc::new(opened))
            }
        };
        let store: Arc<dyn Store> = match &disk {
            Some(disk) => disk.clone(),
            None => Arc::new(Memory::new(clock.now())),
        };
        let parts = Parts {
            limits: limits.clone(),
            authenticate: policy.clone(),
            authorize: policy.clone(),
            store,
            clock,
            memory_per_session: durability.memory_per_session,
        };
        // What was kept is read here.
        let broker = spawn_blocking(|| Broker::new(parts)).await.map_err(std::io::Error::other)?;
        // Starting and ending the loops waits for threads, which a task must not.
        let loops = spawn_blocking(Loops::start).await.map_err(std::io::Error::other)??;
        let started = Gateways::start(registry, broker.clone(), loops.clone(), gateways).await;
        let gateways = match started {
            Ok(gateways) => gateways,
            Err(error) => {
                end(loops).await;
                return Err(error.into());
            }
        };
        let timer = tokio::spawn(keep_time(broker.clone(), Arc::clone(&gateways)));
        let figures = sys.interval().map(|interval| tokio::spawn(say_figures(broker.clone(), interval)));
        Ok(Self { broker, policy, gateways, fixed, loops, timer, figures, disk })
    }

    /// The core, for those who publish and subscribe in this very process.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The gateways and what they have bound.
    #[must_use]
    pub fn gateways(&self) -> Vec<GatewayStatus> {
        self.gateways.gateways()
    }

    /// The address of a listener by its name in the ready line (`mqtt`, `mqtt_tls`).
    #[must_use]
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        let status = self.gateways();
        status.iter().flat_map(|gateway| &gateway.listening).find(|(name, _)| name == listener).map(|(_, at)| *at)
    }

    /// Starts or stops a gateway while the rest runs.
    ///
    /// # Errors
    /// There is no such gateway, or it could not open what it needs.
    pub async fn enable(&self, gateway: &str, on: bool) -> Result<(), EnableError> {
        self.gateways.enable(gateway, on).await
    }

    /// The line that tells everything is bound: `waystation ready mqtt=127.0.0.1:1883 ...`.
    #[must_use]
    pub fn ready_line(&self) -> String {
        let mut line = String::from("waystation ready");
        for (name, address) in self.gateways().iter().flat_map(|gateway| &gateway.listening) {
            line.push_str(&format!(" {name}={address}"));
        }
        line
    }

    /// Takes over what can change while the server runs: rights, and the tables of gateways.
    pub async fn reload(&self, config: Config) {
        let Config { log, data_dir, durability, auth, limits, sys, gateways } = config;
        for what in self.fixed.differences(&Fixed { data_dir, durability, log, limits, sys }) {
            tracing::warn!("{what} has changed and counts from the next start");
        }
        let policy = self.policy.reload(auth);
        match &policy {
            Ok(()) => self.broker.policy_changed(),
            Err(error) => tracing::error!(%error, "users and rights stay as they were"),
        }
        let refused = self.gateways.reload(gateways).await;
        for (gateway, error) in &refused {
            tracing::error!(%gateway, %error, "the gateway keeps its old settings");
        }
        if policy.is_ok() && refused.is_empty() {
            tracing::info!("configuration reloaded");
        }
    }

    /// Lets nobody in any more, tells clients, and waits for their farewells, but not long.
    pub async fn stop(self) {
        self.broker.stop();
        self.gateways.stop(Instant::now() + FAREWELL).await;
        end(self.loops.clone()).await;
        self.timer.abort();
        if let Some(disk) = self.disk.clone() {
            // A disk that hangs must not hold up the end for ever; what was acknowledged is on it already.
            let closed = spawn_blocking(move || disk.close());
            if tokio::time::timeout(Duration::from_secs(1), closed).await.is_err() {
                tracing::error!("the disk does not answer; what was not acknowledged is left unwritten");
            }
        }
    }
}

impl Fixed {
    /// The names of what differs.
    fn differences(&self, other: &Self) -> impl Iterator<Item = &'static str> {
        let differs = [
            ("data_dir", self.data_dir != other.data_dir),
            ("[durability]", self.durability != other.durability),
            ("[log]", self.log != other.log),
            ("[limits]", self.limits != other.limits),
            ("[sys]", self.sys != other.sys),
        ];
        differs.into_iter().filter_map(|(name, differs)| differs.then_some(name))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.timer.abort();
        if let Some(figures) = &self.figures {
            figures.abort();
        }
        self.broker.stop();
    }
}

/// Ends the loops; one that is stuck is left behind.
async fn end(loops: Loops) {
    let ended = spawn_blocking(move || loops.shutdown());
    if tokio::time::timeout(Duration::from_secs(1), ended).await.is_err() {
        tracing::warn!("a loop is stuck and is left behind");
    }
}

/// Says under `$SYS` how the server does.
async fn say_figures(broker: Broker, interval: Duration) {
    let mut sys = Sys::new(&broker, env!("CARGO_PKG_VERSION"));
    let mut turns = tokio::time::interval(interval);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        sys.tick(broker.now());
    }
}

/// Does what is due when it is due: wills, session ends.
async fn keep_time(broker: Broker, gateways: Arc<Gateways>) {
    loop {
        let pause = broker.run_due().map_or(TICK, |due| due.since(broker.now()));
        gateways.reap().await;
        // Never without a pause, whatever is due: this task must not hold a core.
        tokio::time::sleep(pause.clamp(Duration::from_millis(1), TICK)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(text: &str) -> Fixed {
        let Config { log, data_dir, durability, limits, sys, .. } = Config::from_toml(text).unwrap();
        Fixed { data_dir, durability, log, limits, sys }
    }

    #[test]
    fn what_a_reload_cannot_change_is_named() {
        let before = fixed("");
        assert_eq!(before.differences(&fixed("[auth]\nallow_anonymous = false\n")).count(), 0);
        let after =
            fixed("data_dir = \"d\"\n[durability]\nsync = \"never\"\n[log]\nlevel = \"warn\"\n[sys]\ninterval_s = 1\n");
        assert_eq!(before.differences(&after).collect::<Vec<_>>(), ["data_dir", "[durability]", "[log]", "[sys]"]);
        assert_eq!(before.differences(&fixed("[limits]\nmax_qos = 1\n")).collect::<Vec<_>>(), ["[limits]"]);
    }
}
