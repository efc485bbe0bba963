//! TLS and WebSocket for a client library that speaks plain: it talks to a socket in a folder of ours, and its bytes
//! are carried from there. So there is one TLS, with one provider and one set of trusted authorities, for all roads,
//! and what goes wrong in it is said in its own words.

use super::{Address, tls, websocket};
use crate::cli::Road;
use anyhow::{Context, anyhow};
use reqwest::Url;
use rustls::pki_types::ServerName;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::copy_bidirectional,
    net::{TcpStream, UnixListener},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How long a connection may take to be there.
const OPENING: Duration = Duration::from_secs(10);

/// How long what was said last may take to get through.
const FAREWELL: Duration = Duration::from_secs(3);

/// How long a reason may follow the end it explains.
const REASON: Duration = Duration::from_millis(500);

/// Bytes carried to and from a server.
pub(crate) struct Tunnel {
    carrier: JoinHandle<anyhow::Result<()>>,
    /// Where its near end is.
    pub(crate) socket: PathBuf,
}

impl Tunnel {
    /// A tunnel through TLS.
    pub(crate) async fn tls(address: &Address, road: &Road) -> anyhow::Result<Self> {
        let mut far = timeout(OPENING, connect(address, road)).await.map_err(|_| anyhow!("no answer"))??;
        Self::dig(|near| async move {
            let mut near = near.await?;
            copy_bidirectional(&mut near, &mut far).await?;
            Ok(())
        })
    }

    /// A tunnel through WebSocket; `url` is the http:// or https:// address of it.
    pub(crate) async fn websocket(url: &Url, road: &Road) -> anyhow::Result<Self> {
        let far = timeout(OPENING, websocket::connect(url, road)).await.map_err(|_| anyhow!("no answer"))??;
        Self::dig(|near| async move { websocket::carry(near.await?, far).await })
    }

    fn dig<F, C>(carry: C) -> anyhow::Result<Self>
    where
        C: FnOnce(std::pin::Pin<Box<dyn Future<Output = anyhow::Result<tokio::net::UnixStream>> + Send>>) -> F,
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        // Its mode is 0700: nobody else gets in. Gone as soon as the one end is taken.
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let socket = folder.path().join("near");
        let listener = UnixListener::bind(&socket).context("cannot make a socket")?;
        let near = Box::pin(async move {
            let (near, _) = listener.accept().await?;
            drop(folder);
            Ok(near)
        });
        Ok(Self { carrier: tokio::spawn(carry(near)), socket })
    }

    /// Why it ended, if that is known to it: say this rather than that the near end was closed.
    pub(crate) async fn why(self) -> Option<anyhow::Error> {
        timeout(REASON, self.carrier).await.ok()?.ok()?.err()
    }

    /// Waits until what went in has come out. The near end is closed.
    pub(crate) async fn finish(self) {
        let _ = timeout(FAREWELL, self.carrier).await;
    }
}

async fn connect(address: &Address, road: &Road) -> anyhow::Result<TlsStream<TcpStream>> {
    let config = tls::config(road)?;
    let name = ServerName::try_from(address.host.clone()).with_context(|| format!("\"{}\"", address.host))?;
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
}
