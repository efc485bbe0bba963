//! What comes before MQTT on some ways: a TLS handshake, an HTTP request.

use crate::{complaints, driver::Drive};
use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite};
use waystation_broker::Peer;

/// A connection that has to be opened before it is driven. What opening takes is gone once it is open.
#[expect(clippy::large_enum_variant, reason = "it spends its life in the larger one")]
pub(crate) enum Entrance<S> {
    Opening(Peer, Opening<S>),
    Open(Drive<S>),
}

type Opening<S> = Pin<Box<dyn Future<Output = io::Result<Drive<S>>>>>;

impl<S> Entrance<S> {
    /// Opens first, within a time of its own, then drives.
    pub(crate) fn new(peer: Peer, opening: impl Future<Output = io::Result<Drive<S>>> + 'static) -> Self {
        Self::Opening(peer, Box::pin(opening))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Entrance<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Opening(peer, opening) = &mut *self {
            match ready!(opening.as_mut().poll(cx)) {
                Ok(drive) => *self = Self::Open(drive),
                Err(error) => {
                    complaints::not_opened(*peer, &error);
                    return Poll::Ready(());
                }
            }
        }
        match &mut *self {
            Self::Open(drive) => Pin::new(drive).poll(cx),
            Self::Opening(..) => Poll::Pending,
        }
    }
}
