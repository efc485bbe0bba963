//! The plug-in: `[gateways.mqtt_sn]`.

use crate::{
    config::Config,
    driver::{Driver, News, Parts},
    settings::Settings,
    transport::{dtls::Credentials, udp},
};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    sync::{oneshot, watch},
    time::timeout_at,
};
use waystation_kit::{BindError, Command, Context, Control, Gateway, InvalidConfig, Listen, ServeError};

/// MQTT-SN 1.2 over UDP.
pub struct MqttSn {
    parts: Parts,
    listening: Vec<(String, SocketAddr)>,
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
        let mut listening = Vec::new();
        let sockets = open(&config.listen, &format!("gateways.{}.listen", cx.name), "mqtt_sn", &mut listening)?;
        let secured = match &config.dtls {
            Some(dtls) => {
                let credentials = Credentials::load(dtls).map_err(|error| BindError::Other {
                    key: format!("gateways.{}.{}", cx.name, error.key),
                    why: error.why,
                })?;
                let key = format!("gateways.{}.dtls.listen", cx.name);
                Some((open(&dtls.listen, &key, "mqtt_sn_dtls", &mut listening)?, Arc::new(credentials)))
            }
            None => None,
        };
        let group = join(&config, &cx)?;
        Ok(Self { parts: Parts { sockets, secured, group }, listening, config, cx })
    }

    fn listening(&self) -> Vec<(String, SocketAddr)> {
        self.listening.clone()
    }

    async fn serve(self, mut control: Control<Config>) -> Result<(), ServeError> {
        let Self { parts, config, cx, .. } = self;
        let news = |config: &Config, credentials| News {
            settings: Arc::new(Settings::new(cx.name.clone(), config)),
            credentials,
        };
        let (told, hears) = watch::channel(news(&config, None));
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel::<Result<(), std::io::Error>>();
        let broker = cx.broker.clone();
        // All boards live on one loop, so that one may move from socket to socket; their sessions are met from any.
        cx.loops.spawn(move || {
            let first = hears.borrow().settings.clone();
            match Driver::new(parts, broker, first) {
                Ok(driver) => Some(async move {
                    driver.run(stopped, hears).await;
                    // Nobody listens any more if the deadline has passed.
                    drop(end.send(Ok(())));
                }),
                Err(error) => {
                    drop(end.send(Err(error)));
                    None
                }
            }
        });
        let deadline = loop {
            match control.next().await {
                Command::Drain { deadline } => break deadline,
                Command::Reload(new) => {
                    if (&new.listen, &new.advertise) != (&config.listen, &config.advertise) {
                        tracing::warn!(gateway = %cx.name, "listen and advertise take effect at the next start");
                    }
                    let credentials = new.dtls.as_ref().map(Credentials::load).transpose();
                    let credentials = credentials.unwrap_or_else(|error| {
                        tracing::error!(gateway = %cx.name, %error, "the old keys and certificates stay in use");
                        None
                    });
                    told.send_replace(news(&new, credentials.map(Arc::new)));
                }
            }
        };
        drop(stop);
        if let Ok(Ok(result)) = timeout_at(deadline, ended).await {
            result?;
        }
        Ok(())
    }
}

/// Opens the sockets of a `listen` key.
fn open(
    listen: &Listen,
    key: &str,
    name: &str,
    listening: &mut Vec<(String, SocketAddr)>,
) -> Result<Vec<std::net::UdpSocket>, BindError> {
    let mut sockets = Vec::new();
    for &address in &listen.0 {
        let open = || {
            let socket = udp::bind(address)?;
            let bound = socket.local_addr()?;
            Ok((socket, bound))
        };
        let (socket, bound) = open().map_err(|source| BindError::Address { key: key.to_owned(), address, source })?;
        sockets.push(socket);
        listening.push((name.to_owned(), bound));
    }
    Ok(sockets)
}

/// The socket for `advertise`, if it is set.
fn join(config: &Config, cx: &Context) -> Result<Option<(SocketAddr, std::net::UdpSocket)>, BindError> {
    let key = || format!("gateways.{}.advertise", cx.name);
    let group = config.group().map_err(|error| BindError::Other { key: key(), why: error.why })?;
    let Some(group) = group else { return Ok(None) };
    let Some(listen) = config.listen.0.iter().find(|listen| listen.is_ipv4() == group.is_ipv4()) else {
        let why = format!("{group} cannot be reached from any address in listen");
        return Err(BindError::Other { key: key(), why });
    };
    let socket = udp::join(group, *listen);
    socket.map(|socket| Some((group, socket))).map_err(|source| BindError::Address {
        key: key(),
        address: group,
        source,
    })
}
