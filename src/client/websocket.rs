//! MQTT over WebSocket (RFC 6455, MQTT 5.0 §6): the upgrade over HTTP, then binary frames.

use super::http;
use crate::cli::Road;
use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use reqwest::{StatusCode, Upgraded, Url};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

/// Bytes of one frame of ours.
const FRAME: usize = 64 * 1024;

/// Asks for the upgrade.
pub(super) async fn connect(url: &Url, road: &Road) -> anyhow::Result<WebSocketStream<Upgraded>> {
    let key = generate_key();
    let request = http::builder(url, road)?.http1_only().build().context("cannot set up HTTP")?.get(url.clone());
    let answer = request
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "mqtt")
        .header("sec-websocket-key", &key)
        .send()
        .await
        .map_err(reqwest::Error::without_url)?;
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        bail!("the server refused the WebSocket: {}", answer.status());
    }
    if header("sec-websocket-accept") != Some(derive_accept_key(key.as_bytes())) {
        bail!("the server speaks no WebSocket: its answer to the upgrade is not the one to this key");
    }
    if header("sec-websocket-protocol").as_deref() != Some("mqtt") {
        bail!("the server speaks no MQTT over this WebSocket"); // [MQTT-6.0.0-4]
    }
    let stream = answer.upgrade().await.map_err(reqwest::Error::without_url)?;
    // As large as the server likes: it is asked for what it sends.
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    Ok(WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await)
}

/// Carries bytes until one side ends.
pub(super) async fn carry(mut near: UnixStream, mut far: WebSocketStream<Upgraded>) -> anyhow::Result<()> {
    let mut buffer = vec![0; FRAME];
    loop {
        tokio::select! {
            read = near.read(&mut buffer) => match read? {
                0 => {
                    far.close(None).await?;
                    return Ok(());
                }
                count => far.send(Message::Binary(Bytes::copy_from_slice(&buffer[..count]))).await?,
            },
            message = far.next() => match message.transpose()? {
                Some(Message::Binary(bytes)) => near.write_all(&bytes).await?,
                Some(Message::Text(_)) => bail!("the server sent a text frame, which MQTT has none of"), // [MQTT-6.0.0-1]
                Some(Message::Close(_)) | None => return Ok(()),
                Some(_) => {}
            },
        }
    }
}
