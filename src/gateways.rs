//! The gateways: which kinds this server knows, and those of the configuration, started, stopped and reloaded by name
//! while the rest runs.

mod ports;

use crate::config::GatewayConfig;
use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::Instant;
use waystation_broker::Broker;
use waystation_kit::{
    BindError, Bound, Context, EnableError, GatewayStatus, Host, InvalidConfig, Kind, Loops, Registry, Remote,
    RemoteStatus, Running,
};

/// Every kind of gateway this server comes with. A new front-end is one crate and one line here.
#[must_use]
pub fn registry() -> Registry {
    Registry::default()
        .with::<waystation_mqtt::Mqtt>()
        .with::<waystation_mqtt_sn::MqttSn>()
        .with::<waystation_rest::Rest>()
        .with::<waystation_bridge::Bridge>()
}

/// The gateways of one server.
pub struct Gateways {
    registry: Registry,
    broker: Broker,
    loops: Loops,
    me: Weak<Self>,
    /// Held while gateways come and go, over their awaits; one change at a time.
    entries: tokio::sync::Mutex<Vec<Entry>>,
    /// What `entries` last came to, for those who cannot wait.
    status: parking_lot::Mutex<Vec<GatewayStatus>>,
    /// Gateways that dial out, those that were switched off among them, in the order of their names.
    remotes: parking_lot::Mutex<BTreeMap<Arc<str>, Arc<dyn Remote>>>,
}

struct Entry {
    config: GatewayConfig,
    running: Option<Running>,
    listening: Vec<(String, SocketAddr)>,
}

/// What a gateway that is switched off may take for its farewells.
const SWITCH_OFF: Duration = Duration::from_secs(2);

impl Gateways {
    /// Binds every enabled gateway, then starts them all: either all serve, or nothing does.
    ///
    /// # Errors
    /// The first that cannot open what it needs.
    pub async fn start(
        registry: Registry,
        broker: Broker,
        loops: Loops,
        configs: Vec<GatewayConfig>,
    ) -> Result<Arc<Self>, BindError> {
        let gateways = Arc::new_cyclic(|me| Self {
            registry,
            broker,
            loops,
            me: me.clone(),
            entries: tokio::sync::Mutex::default(),
            status: parking_lot::Mutex::default(),
            remotes: parking_lot::Mutex::default(),
        });
        gateways.forget_others(&configs);
        let mut bound = Vec::with_capacity(configs.len());
        for config in configs {
            let gateway = if config.enabled { Some(gateways.bind(&config).await?) } else { None };
            bound.push((config, gateway));
        }
        let mut entries = gateways.entries.lock().await;
        for (config, gateway) in bound {
            let mut entry = Entry { config, running: None, listening: Vec::new() };
            if let Some(gateway) = gateway {
                entry.run(gateway);
            }
            entries.push(entry);
        }
        gateways.publish(&entries);
        drop(entries);
        Ok(gateways)
    }

    /// Gives running gateways their tables anew, and keeps the tables for those that are off. Those that the
    /// configuration no longer has end, new ones begin. Of a plural kind, those that it now switches on or off follow; a
    /// switch set while the server runs stays as long as the configuration says what it said.
    pub async fn reload(&self, configs: Vec<GatewayConfig>) -> Vec<(Arc<str>, InvalidConfig)> {
        let mut refused = Vec::new();
        let mut entries = self.entries.lock().await;
        let deadline = Instant::now() + SWITCH_OFF;
        let gone = |entry: &mut Entry| !configs.iter().any(|config| config.name == entry.config.name);
        for mut entry in entries.extract_if(.., gone) {
            entry.leave(deadline).await;
            self.remotes.lock().remove(&entry.config.name);
            tracing::info!(gateway = %entry.config.name, "the gateway is no longer in the configuration and has ended");
        }
        self.forget_others(&configs);
        for config in configs {
            let Some(entry) = entries.iter_mut().find(|entry| entry.config.name == config.name) else {
                let mut entry = Entry { config, running: None, listening: Vec::new() };
                if entry.config.enabled {
                    match self.bind(&entry.config).await {
                        Ok(bound) => entry.run(bound),
                        Err(error) => refused.push((entry.config.name.clone(), as_invalid(&error))),
                    }
                }
                entries.push(entry);
                continue;
            };
            let plural = self.registry.kind(config.kind).is_some_and(Kind::is_plural);
            let switched = plural && config.enabled != entry.config.enabled;
            if switched && !config.enabled {
                entry.leave(deadline).await;
            }
            if let Some(running) = &entry.running
                && let Err(error) = running.reload(config.table.clone()).await
            {
                refused.push((config.name, error));
                continue;
            }
            entry.config = config;
            ports::keep(&mut entry.config, &entry.listening);
            if switched && entry.config.enabled && entry.running.is_none() {
                match self.bind(&entry.config).await {
                    Ok(bound) => entry.run(bound),
                    Err(error) => refused.push((entry.config.name.clone(), as_invalid(&error))),
                }
            }
        }
        self.publish(&entries);
        refused
    }

    /// What gateways that the configuration no longer has have left in the core goes.
    fn forget_others(&self, configs: &[GatewayConfig]) {
        for kind in self.registry.kinds().filter_map(|name| self.registry.kind(name)).filter(|kind| kind.is_plural()) {
            let mine = configs.iter().filter(|config| config.kind == kind.name());
            let names: Vec<_> = mine.map(|config| config.name.clone()).collect();
            kind.forget_others(&self.broker, &names);
        }
    }

    /// Takes leave of everybody; what is not done by the deadline is cut off.
    pub async fn stop(&self, deadline: Instant) {
        let mut entries = self.entries.lock().await;
        // All hear of it before any is waited for. A gateway that does not even listen costs no more than the others.
        let told = entries.iter().filter_map(|entry| entry.running.as_ref()).map(|running| running.drain(deadline));
        let _ = tokio::time::timeout_at(deadline, futures_util::future::join_all(told)).await;
        for entry in entries.iter_mut() {
            entry.finish(deadline).await;
        }
        self.publish(&entries);
    }

    /// Notices gateways that ended by themselves.
    pub async fn reap(&self) {
        // A change is under way: the next turn will see what came of it.
        let Ok(mut entries) = self.entries.try_lock() else { return };
        let mut changed = false;
        for entry in entries.iter_mut() {
            if entry.running.as_ref().is_some_and(|running| running.task.is_finished()) {
                entry.finish(Instant::now()).await;
                tracing::error!(gateway = %entry.config.name, "the gateway ended by itself and is off");
                changed = true;
            }
        }
        if changed {
            self.publish(&entries);
        }
    }

    async fn bind(&self, config: &GatewayConfig) -> Result<Box<dyn Bound>, BindError> {
        let unknown = || BindError::Other {
            key: format!("gateways.{}", config.name),
            why: format!("there is no kind of gateway called {}", config.kind),
        };
        let kind = self.registry.kind(config.kind).ok_or_else(unknown)?;
        let host = self.me.upgrade().expect("`self` is borrowed from this very Arc");
        let context =
            Context { name: config.name.clone(), broker: self.broker.clone(), loops: self.loops.clone(), host };
        kind.bind(config.table.clone(), context).await
    }

    fn publish(&self, entries: &[Entry]) {
        let status = entries.iter().map(|entry| GatewayStatus {
            name: entry.config.name.clone(),
            kind: entry.config.kind,
            enabled: entry.running.is_some(),
            listening: entry.listening.clone(),
        });
        *self.status.lock() = status.collect();
    }

    async fn switch(&self, name: &str, on: bool) -> Result<(), EnableError> {
        let mut entries = self.entries.lock().await;
        let entry = entries.iter_mut().find(|entry| &*entry.config.name == name).ok_or(EnableError::Unknown)?;
        match (&entry.running, on) {
            (Some(_), true) | (None, false) => return Ok(()),
            (None, true) => {
                let bound = self.bind(&entry.config).await?;
                entry.run(bound);
            }
            (Some(_), false) => entry.leave(Instant::now() + SWITCH_OFF).await,
        }
        tracing::info!(gateway = name, on, "gateway switched");
        self.publish(&entries);
        Ok(())
    }
}

impl Entry {
    fn run(&mut self, bound: Box<dyn Bound>) {
        self.listening = bound.listening();
        ports::keep(&mut self.config, &self.listening);
        self.running = Some(bound.start());
    }

    /// Tells it to take leave of its clients, and waits for that until `deadline`.
    async fn leave(&mut self, deadline: Instant) {
        if let Some(running) = &self.running {
            let _ = tokio::time::timeout_at(deadline, running.drain(deadline)).await;
        }
        self.finish(deadline).await;
    }

    /// Waits for its end until `deadline`, then makes it.
    async fn finish(&mut self, deadline: Instant) {
        self.listening.clear();
        let Some(mut running) = self.running.take() else { return };
        let name = &self.config.name;
        match tokio::time::timeout_at(deadline, &mut running.task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!(gateway = %name, %error, "the gateway failed"),
            Ok(Err(error)) => tracing::error!(gateway = %name, %error, "the gateway broke down"),
            Err(_) => {
                tracing::warn!(gateway = %name, "the gateway was not done in time and is cut off");
                running.task.abort();
            }
        }
    }
}

/// A gateway that a reload has brought and that cannot open what it needs.
fn as_invalid(error: &BindError) -> InvalidConfig {
    match error {
        BindError::Other { key, why } => InvalidConfig { key: key.clone(), why: why.clone() },
        BindError::Address { key, .. } => InvalidConfig { key: key.clone(), why: error.to_string() },
    }
}

impl Host for Gateways {
    fn gateways(&self) -> Vec<GatewayStatus> {
        self.status.lock().clone()
    }

    fn enable<'a>(
        &'a self,
        name: &'a str,
        on: bool,
    ) -> Pin<Box<dyn Future<Output = Result<(), EnableError>> + Send + 'a>> {
        // On a task of its own: a caller who goes away in the middle must not leave a gateway half stopped.
        let me = self.me.upgrade();
        let name = name.to_owned();
        Box::pin(async move {
            let Some(me) = me else { return Err(EnableError::Unknown) };
            let change = tokio::spawn(async move { me.switch(&name, on).await });
            change.await.unwrap_or(Err(EnableError::Unknown))
        })
    }

    fn introduce(&self, remote: Arc<dyn Remote>) {
        let name = remote.status().name;
        self.remotes.lock().insert(name, remote);
    }

    fn remotes(&self) -> Vec<RemoteStatus> {
        let remotes: Vec<_> = self.remotes.lock().values().cloned().collect();
        remotes.iter().map(|remote| remote.status()).collect()
    }
}
