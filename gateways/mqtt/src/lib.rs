//! Waystation's MQTT front-end: MQTT 3.1, 3.1.1 and 5.0 over TCP.
//!
//! [`codec`] knows the wire, `connection` the protocol, `driver` the socket. Sessions, queues and rights are the
//! core's.

mod clients;
pub mod codec;
mod connection;
mod driver;
#[cfg(test)]
mod tests;

use driver::{Drive, Shared};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, sync::Arc};
use tokio::task::JoinSet;
use waystation_kit::{BindError, Command, Context, Control, Gateway, Listen, Listener, Loops, ServeError};

/// The gateway.
pub struct Mqtt {
    listeners: Vec<Listener>,
    shared: Arc<Shared>,
    loops: Loops,
}

/// `[gateways.mqtt]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where plain MQTT is spoken: an address or a list of them.
    pub listen: Listen,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: Listen(vec![SocketAddr::from(([127, 0, 0, 1], 1883))]) }
    }
}

impl Gateway for Mqtt {
    const KIND: &'static str = "mqtt";
    type Config = Config;

    async fn bind(config: Config, cx: Context) -> Result<Self, BindError> {
        let listeners = Listener::bind_all(&format!("gateways.{}.listen", cx.name), &config.listen.0)?;
        let shared = Shared { broker: cx.broker, name: cx.name, clients: clients::Clients::default() };
        Ok(Self { listeners, shared: Arc::new(shared), loops: cx.loops })
    }

    fn listening(&self) -> Vec<(String, SocketAddr)> {
        self.listeners.iter().map(|it| (Self::KIND.to_owned(), it.address())).collect()
    }

    async fn serve(self, mut control: Control<Config>) -> Result<(), ServeError> {
        let mut accepting = JoinSet::new();
        let addresses: Vec<SocketAddr> = self.listeners.iter().map(Listener::address).collect();
        for listener in self.listeners {
            accepting.spawn(accept(listener.acceptor()?, self.shared.clone(), self.loops.clone()));
        }
        let deadline = loop {
            match control.next().await {
                Command::Drain { deadline } => break deadline,
                Command::Reload(config) => {
                    if config.listen.0 != addresses && config.listen.0.iter().any(|it| it.port() != 0) {
                        tracing::warn!("gateways.mqtt.listen takes effect at the next start");
                    }
                }
            }
        };
        accepting.shutdown().await;
        self.shared.clients.drain();
        if tokio::time::timeout_at(deadline, self.shared.clients.gone()).await.is_err() {
            tracing::warn!("some clients were still connected when the time to stop was up");
        }
        Ok(())
    }
}

async fn accept(mut acceptor: waystation_kit::Acceptor, shared: Arc<Shared>, loops: Loops) {
    loop {
        let (stream, peer) = acceptor.accept().await;
        let shared = shared.clone();
        loops.spawn(move || match tokio::net::TcpStream::from_std(stream) {
            Ok(stream) => Some(Drive::new(stream, peer, shared)),
            Err(error) => {
                tracing::warn!(%peer, %error, "cannot watch the connection");
                None
            }
        });
    }
}
