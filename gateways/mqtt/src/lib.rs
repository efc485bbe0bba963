//! Waystation's MQTT front-end: MQTT 3.1, 3.1.1 and 5.0 over TCP, TLS and WebSocket.
//!
//! [`codec`] knows the wire, `connection` the protocol, `driver` the stream, `transport` where it comes from. Sessions, queues and rights are the
//! core's.

mod clients;
pub mod codec;
mod complaints;
mod config;
mod connection;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod conversation;
mod driver;
#[cfg(test)]
mod tests;
mod transport;

pub use config::{Config, TlsTable, WebSocketTable};

use driver::Shared;
use std::{net::SocketAddr, sync::Arc};
use tokio::task::JoinSet;
use transport::{Certificates, Endpoint};
use waystation_kit::{BindError, Command, Context, Control, Gateway, InvalidConfig, Loops, ServeError};

/// The gateway.
pub struct Mqtt {
    config: Config,
    endpoints: Vec<Endpoint>,
    certificates: Certificates,
    shared: Arc<Shared>,
    loops: Loops,
}

impl Gateway for Mqtt {
    const KIND: &'static str = "mqtt";
    type Config = Config;

    fn check(config: &Config) -> Result<(), InvalidConfig> {
        config.check()
    }

    fn look(config: &Config) -> Result<(), InvalidConfig> {
        config.look()
    }

    async fn bind(config: Config, cx: Context) -> Result<Self, BindError> {
        let (endpoints, certificates) = transport::bind(&format!("gateways.{}", cx.name), &config)?;
        let traffic = cx.broker.traffic(&cx.name);
        let shared = Shared { broker: cx.broker, name: cx.name, traffic, clients: clients::Clients::default() };
        Ok(Self { config, endpoints, certificates, shared: Arc::new(shared), loops: cx.loops })
    }

    fn listening(&self) -> Vec<(String, SocketAddr)> {
        self.endpoints.iter().map(Endpoint::listening).collect()
    }

    async fn serve(self, mut control: Control<Config>) -> Result<(), ServeError> {
        let Self { config, endpoints, certificates, shared, loops } = self;
        let mut accepting = JoinSet::new();
        for endpoint in endpoints {
            accepting.spawn(endpoint.accept(shared.clone(), loops.clone())?);
        }
        let deadline = loop {
            match control.next().await {
                Command::Drain { deadline } => break deadline,
                Command::Reload(new) => {
                    certificates.reload(&new);
                    if new.fixed() != config.fixed() {
                        tracing::warn!("of gateways.{} only new certificates count before the next start", shared.name);
                    }
                }
            }
        };
        accepting.shutdown().await;
        shared.clients.drain();
        if tokio::time::timeout_at(deadline, shared.clients.gone()).await.is_err() {
            tracing::warn!("some clients were still connected when the time to stop was up");
        }
        Ok(())
    }
}
