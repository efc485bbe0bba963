//! The plug-in: `[[gateways.bridge]]`.

use crate::{
    backoff::Backoff,
    config::Config,
    figures::{Figures, state_name},
    settings::{SESSIONS, Settings},
    work::{Work, prepare},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use waystation_broker::{Broker, Reason};
use waystation_kit::{BindError, Command, Context, Control, Gateway, InvalidConfig, ServeError, dead::DeadLetters};

/// Sessions looked at in one go.
const PAGE: usize = 256;

/// A bridge to another MQTT broker.
pub struct Bridge {
    cx: Context,
    settings: Arc<Settings>,
    figures: Arc<Figures>,
    server: Arc<str>,
}

impl Gateway for Bridge {
    const KIND: &'static str = "bridge";

    const PLURAL: bool = true;

    type Config = Config;

    fn check(config: &Config) -> Result<(), InvalidConfig> {
        config.check()
    }

    fn check_beside(config: &Config, before: &[Config]) -> Result<(), InvalidConfig> {
        config.check_beside(before)
    }

    fn look(config: &Config) -> Result<(), InvalidConfig> {
        Settings::load(config.clone()).map(drop)
    }

    fn forget_others(broker: &Broker, names: &[Arc<str>]) {
        let mut after = None;
        loop {
            let page = broker.sessions(after.as_ref(), PAGE);
            for session in &page {
                let Some(name) = session.id.as_str().strip_prefix(SESSIONS) else { continue };
                if names.iter().any(|known| **known == *name) {
                    continue;
                }
                tracing::info!(bridge = name, "the bridge is no longer in the configuration");
                if session.queued > 0 {
                    tracing::warn!(bridge = name, queued = session.queued, "what waited for the bridge is gone");
                }
                broker.end_session(&session.id, Reason::SessionEnded);
                DeadLetters::of(broker, &name.into(), &format!("bridge/{name}")).close();
                // Its name was checked when it was made.
                let _ = broker.announce(&state_name(name), "");
            }
            match page.last() {
                Some(last) => after = Some(last.id.clone()),
                None => return,
            }
        }
    }

    async fn bind(config: Config, cx: Context) -> Result<Self, BindError> {
        let named = |InvalidConfig { key, why }| BindError::Other { key: format!("gateways.{}.{key}", cx.name), why };
        let server: Arc<str> = cx.broker.identity().into();
        let settings = Settings::load(identified(config, &server)).map_err(named)?;
        let figures = Arc::new(Figures::new(&cx.name, &cx.broker));
        figures.bound_for(settings.url.to_string());
        figures.connected(false);
        cx.host.introduce(figures.clone());
        let this = Self { cx, settings: Arc::new(settings), figures, server };
        // From now on nothing is missed, connected or not.
        this.prepare().await.map_err(|why| BindError::Other { key: format!("gateways.{}", this.cx.name), why })?;
        Ok(this)
    }

    fn listening(&self) -> Vec<(String, std::net::SocketAddr)> {
        Vec::new()
    }

    async fn serve(mut self, mut control: Control<Config>) -> Result<(), ServeError> {
        let (mut orders, mut work) = self.begin();
        let deadline = loop {
            match control.next().await {
                Command::Drain { deadline } => break deadline,
                Command::Reload(config) => {
                    let settings = match Settings::load(identified(config, &self.server)) {
                        Ok(settings) => Arc::new(settings),
                        Err(error) => {
                            tracing::error!(bridge = %self.cx.name, %error, "the old settings stay in use");
                            continue;
                        }
                    };
                    let before = std::mem::replace(&mut self.settings, settings.clone());
                    if settings.config == before.config && settings.password == before.password {
                        // New certificates are for the next connection; the one there is stays.
                        orders.send_replace(Some(settings));
                        continue;
                    }
                    tracing::info!(bridge = %self.cx.name, "the bridge has changed and begins anew");
                    end(orders, work, Instant::now() + FAREWELL).await;
                    self.figures.bound_for(settings.url.to_string());
                    if let Err(error) = self.prepare().await {
                        tracing::error!(bridge = %self.cx.name, error, "its subscriptions stay as they were");
                    }
                    (orders, work) = self.begin();
                }
            }
        };
        end(orders, work, deadline).await;
        Ok(())
    }
}

impl Bridge {
    /// Makes the session and its subscriptions; what is refused is logged and shown.
    async fn prepare(&self) -> Result<(), String> {
        let (lsn, refused) = prepare(&self.cx, &self.settings).await?;
        for (filter, error) in refused {
            let bridge = &self.cx.name;
            tracing::error!(%bridge, %filter, "an outward route gets no messages here: {error}");
            self.figures.failed(&format!("the outward route {filter} gets no messages here: {error}"));
        }
        self.cx.broker.durable(lsn).await;
        Ok(())
    }

    /// Sets it to work.
    fn begin(&self) -> (watch::Sender<Option<Arc<Settings>>>, JoinHandle<()>) {
        let (orders, hears) = watch::channel(Some(self.settings.clone()));
        let work = Work {
            cx: self.cx.clone(),
            settings: self.settings.clone(),
            figures: self.figures.clone(),
            server: self.server.clone(),
            refused: Vec::new(),
            granted: false,
            backoff: Backoff::default(),
            orders: hears,
        };
        (orders, tokio::spawn(work.run()))
    }
}

/// Most time for a goodbye to a far side that is left for another, or for other routes.
const FAREWELL: Duration = Duration::from_secs(2);

/// Tells it to leave and waits for that, but not past the deadline.
async fn end(orders: watch::Sender<Option<Arc<Settings>>>, mut work: JoinHandle<()>, deadline: Instant) {
    orders.send_replace(None);
    if timeout_at(deadline, &mut work).await.is_err() {
        work.abort();
    }
}

/// The table with a client id: made of the bridge's name and the server's number where none is given.
fn identified(config: Config, server: &str) -> Config {
    if config.client_id.is_empty() {
        let client_id = format!("bridge-{}-{server}", config.name);
        return Config { client_id, ..config };
    }
    config
}
