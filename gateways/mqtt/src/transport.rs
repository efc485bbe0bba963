//! The ways a connection comes: TCP, TLS, WebSocket, and WebSocket over TLS. Each ends in a stream for [`Drive`],
//! which does not know the difference.

mod entrance;
mod websocket;

use crate::{
    config::Config,
    driver::{Drive, Newcomer, Shared},
};
use entrance::Entrance;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};
use waystation_broker::Peer;
use waystation_kit::{Acceptor, BindError, Listener, Loops, Tls, TlsFiles, tls::Accepted};
use websocket::{Site, upgrade};

/// What clients of MQTT over TLS may ask for by ALPN: the registered name, and what clients of one large cloud say.
const ALPN_MQTT: &[&str] = &["mqtt", "x-amzn-mqtt-ca"];

/// A WebSocket begins as HTTP/1.1.
const ALPN_WEBSOCKET: &[&str] = &["http/1.1"];

/// A listening socket and how its connections come in.
pub(crate) struct Endpoint {
    listener: Listener,
    way: Way,
}

#[derive(Clone)]
enum Way {
    Tcp,
    Tls(Arc<Tls>),
    WebSocket(Arc<Site>),
    SecureWebSocket(Arc<Tls>, Arc<Site>),
}

/// The certificates of a gateway's listeners.
pub(crate) struct Certificates {
    tls: Option<Arc<Tls>>,
    websocket: Option<Arc<Tls>>,
}

/// Reads the certificates and opens every listener of a table called `key`.
pub(crate) fn bind(key: &str, config: &Config) -> Result<(Vec<Endpoint>, Certificates), BindError> {
    let load = |table: &str, files: &TlsFiles, alpn| Tls::load(&format!("{key}.{table}"), files, alpn).map(Arc::new);
    let files = config.tls.as_ref().map(|table| table.files());
    let tls = files.map(|files| load("tls", &files, ALPN_MQTT)).transpose()?;
    let files = config.websocket.as_ref().and_then(|table| table.files());
    let websocket_tls = files.map(|files| load("websocket", &files, ALPN_WEBSOCKET)).transpose()?;

    let mut endpoints = Vec::new();
    for listener in Listener::bind_all(&format!("{key}.listen"), &config.listen.0)? {
        endpoints.push(Endpoint { listener, way: Way::Tcp });
    }
    if let (Some(table), Some(tls)) = (&config.tls, &tls) {
        for listener in Listener::bind_all(&format!("{key}.tls.listen"), &table.listen.0)? {
            endpoints.push(Endpoint { listener, way: Way::Tls(Arc::clone(tls)) });
        }
    }
    if let Some(table) = &config.websocket {
        for listener in Listener::bind_all(&format!("{key}.websocket.listen"), &table.listen.0)? {
            let is_loopback = listener.address().ip().to_canonical().is_loopback();
            let site = Arc::new(Site { path: table.path.clone(), origins: table.origins.clone(), is_loopback });
            let way = match &websocket_tls {
                Some(tls) => Way::SecureWebSocket(Arc::clone(tls), site),
                None => Way::WebSocket(site),
            };
            endpoints.push(Endpoint { listener, way });
        }
    }
    Ok((endpoints, Certificates { tls, websocket: websocket_tls }))
}

impl Certificates {
    /// Reads them anew; broken ones change nothing.
    pub(crate) fn reload(&self, config: &Config) {
        if let (Some(tls), Some(table)) = (&self.tls, &config.tls) {
            tls.reload(&table.files());
        }
        if let (Some(tls), Some(files)) = (&self.websocket, config.websocket.as_ref().and_then(|it| it.files())) {
            tls.reload(&files);
        }
    }
}

impl Endpoint {
    /// Its name in the ready line, and where it is.
    pub(crate) fn listening(&self) -> (String, SocketAddr) {
        let name = match self.way {
            Way::Tcp => "mqtt",
            Way::Tls(_) => "mqtt_tls",
            Way::WebSocket(_) => "mqtt_ws",
            Way::SecureWebSocket(..) => "mqtt_wss",
        };
        (name.to_owned(), self.listener.address())
    }

    /// Accepts connections for ever.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub(crate) fn accept(self, shared: Arc<Shared>, loops: Loops) -> io::Result<impl Future<Output = ()> + Send> {
        let Self { listener, way } = self;
        let acceptor = listener.acceptor()?;
        Ok(accept(acceptor, way, shared, loops))
    }
}

async fn accept(mut acceptor: Acceptor, way: Way, shared: Arc<Shared>, loops: Loops) {
    loop {
        let (stream, address) = acceptor.accept().await;
        let (shared, way) = (shared.clone(), way.clone());
        let peer = Peer::direct(address);
        let patience = Duration::from_millis(shared.broker.limits().connect_timeout_ms);
        let newcomer = Newcomer { peer, vouched: None, until: shared.broker.now().after(patience) };
        let deadline = Instant::now() + patience;
        match way {
            Way::Tcp => loops.spawn(move || Some(Drive::new(watch(stream, peer)?, newcomer, shared))),
            Way::Tls(tls) => loops.spawn(move || {
                let stream = watch(stream, peer)?;
                Some(Entrance::new(peer, async move {
                    let (stream, newcomer) = encrypt(&tls, stream, newcomer, deadline).await?;
                    Ok(Drive::new(stream, newcomer, shared))
                }))
            }),
            Way::WebSocket(site) => loops.spawn(move || {
                let stream = watch(stream, peer)?;
                Some(Entrance::new(peer, async move { frame(&site, stream, newcomer, deadline, shared).await }))
            }),
            Way::SecureWebSocket(tls, site) => loops.spawn(move || {
                let stream = watch(stream, peer)?;
                Some(Entrance::new(peer, async move {
                    let (stream, newcomer) = encrypt(&tls, stream, newcomer, deadline).await?;
                    frame(&site, stream, newcomer, deadline, shared).await
                }))
            }),
        }
    }
}

fn watch(stream: std::net::TcpStream, peer: Peer) -> Option<TcpStream> {
    TcpStream::from_std(stream).inspect_err(|error| tracing::warn!(%peer, %error, "cannot watch the connection")).ok()
}

async fn encrypt<S>(
    tls: &Tls,
    stream: S,
    newcomer: Newcomer,
    deadline: Instant,
) -> io::Result<(waystation_kit::tls::TlsStream<S>, Newcomer)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Accepted { stream, identity } = tls.accept(stream, deadline).await?;
    let certified = stream.get_ref().1.peer_certificates().is_some();
    let peer = if certified { newcomer.peer.certified() } else { newcomer.peer.encrypted() };
    Ok((stream, Newcomer { peer, vouched: identity.map(Into::into), ..newcomer }))
}

async fn frame<S>(
    site: &Site,
    stream: S,
    newcomer: Newcomer,
    deadline: Instant,
    shared: Arc<Shared>,
) -> io::Result<Drive<websocket::WebSocket<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let upgraded = upgrade(stream, site, shared.broker.limits().max_packet_size, deadline).await?;
    let peer = match newcomer.peer.address().filter(|_| upgraded.is_proxied) {
        Some(address) if newcomer.peer.is_encrypted() => Peer::proxied(address).encrypted(),
        Some(address) => Peer::proxied(address),
        None => newcomer.peer,
    };
    Ok(Drive::new(upgraded.stream, Newcomer { peer, ..newcomer }, shared))
}
