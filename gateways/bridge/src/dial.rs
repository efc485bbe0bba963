//! The way to the far side: TCP, and TLS over it.

use crate::settings::Settings;
use rustls::pki_types::ServerName;
use std::io;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// A stream of bytes to the far side.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens the way; what went wrong comes back in words.
pub(crate) async fn dial(settings: &Settings) -> Result<Box<dyn Stream>, String> {
    let url = &settings.url;
    let stream =
        TcpStream::connect((url.host.as_str(), url.port)).await.map_err(|error| told("cannot connect", &error))?;
    // What is written is a batch already.
    stream.set_nodelay(true).map_err(|error| told("cannot connect", &error))?;
    let Some(tls) = &settings.tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(url.host.clone()).map_err(|error| format!("TLS: {}: {error}", url.host))?;
    let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(|error| told("TLS", &error))?;
    Ok(Box::new(stream))
}

/// An error of the system in one line.
pub(crate) fn told(what: &str, error: &io::Error) -> String {
    let text = error.to_string();
    format!("{what}: {}", text.lines().collect::<Vec<_>>().join(" "))
}
