//! The plug-in: `[gateways.mqtt_sn]`.

use crate::{
    client::Settings,
    config::Config,
    driver::{Driver, stranger},
    topics::Predefined,
    transport::udp,
};
use std::{net::SocketAddr, sync::Arc};
use tokio::{net::UdpSocket, sync::oneshot, time::timeout_at};
use waystation_kit::{BindError, Command, Context, Control, Gateway, InvalidConfig, ServeError};

/// MQTT-SN 1.2 over UDP.
pub struct MqttSn {
    sockets: Vec<(std::net::UdpSocket, SocketAddr)>,
    config: Config,
    cx: Context,
}

impl Gateway for MqttSn {
    const KIND: &'static str = "mqtt_sn";

    type Config = Config;

    fn check(config: &Config) -> Result<(), InvalidConfig> {
        config.check()
    }

    async fn bind(config: Config, cx: Context) -> Result<Self, BindError> {
        let mut sockets = Vec::new();
        for &address in &config.listen.0 {
            let open = || {
                let socket = udp::bind(address)?;
                let bound = socket.local_addr()?;
                Ok((socket, bound))
            };
            let key = || format!("gateways.{}.listen", cx.name);
            sockets.push(open().map_err(|source| BindError::Address { key: key(), address, source })?);
        }
        Ok(Self { sockets, config, cx })
    }

    fn listening(&self) -> Vec<(String, SocketAddr)> {
        self.sockets.iter().map(|(_, address)| (Self::KIND.to_owned(), *address)).collect()
    }

    async fn serve(self, mut control: Control<Config>) -> Result<(), ServeError> {
        let Self { sockets, config, cx } = self;
        let settings = Arc::new(Settings {
            gateway: cx.name.clone(),
            retry_interval: config.retry_interval(),
            retry_count: config.retry_count,
            max_datagram: config.max_datagram,
            predefined: Predefined::new(&config.predefined_topics),
        });
        let who = if config.publish_without_connect { stranger(&cx.broker, &cx.name).await } else { None };
        let (mut stops, mut ends) = (Vec::new(), Vec::new());
        for (socket, _) in sockets {
            let (stop, stopped) = oneshot::channel();
            let (end, ended) = oneshot::channel::<Result<(), std::io::Error>>();
            let (broker, settings, who) = (cx.broker.clone(), settings.clone(), who.clone());
            // All boards of a socket live on one loop; its sessions are met from any.
            cx.loops.spawn(move || match UdpSocket::from_std(socket) {
                Ok(socket) => Some(async move {
                    Driver::new(socket, broker, settings, config.gateway_id, who).run(stopped).await;
                    // Nobody listens any more if the deadline has passed.
                    drop(end.send(Ok(())));
                }),
                Err(error) => {
                    drop(end.send(Err(error)));
                    None
                }
            });
            stops.push(stop);
            ends.push(ended);
        }
        let deadline = loop {
            match control.next().await {
                Command::Drain { deadline } => break deadline,
                Command::Reload(new) if new == config => {}
                Command::Reload(_) => {
                    tracing::warn!(gateway = %cx.name, "changes to this table take effect at the next start");
                }
            }
        };
        drop(stops);
        for end in ends {
            if let Ok(Ok(result)) = timeout_at(deadline, end).await {
                result?;
            }
        }
        Ok(())
    }
}
