//! The end of a connection. One that is closed on bytes that nobody read is reset, and the client loses an answer that
//! is still on its way to it (RFC 9112 §9.6): so what comes is read past for a while, within bounds.

use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};

/// So much is read past.
const MOST: usize = 64 << 20;

/// For so long.
const LONGEST: Duration = Duration::from_secs(10);

/// Who says nothing for so long has said everything.
const SILENCE: Duration = Duration::from_secs(1);

/// What a client has to take the last bytes.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Bytes read past at a time.
const PIECE: usize = 16 * 1024;

/// Whether a client may still be sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    Nothing,
    Perhaps,
}

/// Ends a connection on which everything is said.
pub(crate) async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, unread: Unread) {
    let shut = timeout(SHUTDOWN, stream.shutdown()).await;
    if unread == Unread::Nothing || !matches!(shut, Ok(Ok(()))) {
        return;
    }
    let until = Instant::now() + LONGEST;
    let mut buffer = vec![0; PIECE];
    let mut left = MOST;
    while left > 0 {
        match timeout_at(until.min(Instant::now() + SILENCE), stream.read(&mut buffer)).await {
            Ok(Ok(count @ 1..)) => left = left.saturating_sub(count),
            _ => return,
        }
    }
}

/// A body of HTTP/2. Its stream would be reset as soon as nobody reads it, and not every client then looks for the
/// answer that came before (RFC 9113 §8.1): so what is left of it is read past too. As many at a time as there are
/// streams.
pub(crate) struct ReadPast(Option<Incoming>);

impl ReadPast {
    pub(crate) fn new(body: Incoming) -> Self {
        Self(Some(body))
    }
}

impl HttpBody for ReadPast {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for ReadPast {
    fn drop(&mut self) {
        let Some(mut body) = self.0.take().filter(|body| !body.is_end_stream()) else { return };
        tokio::spawn(timeout(LONGEST, async move {
            let mut left = MOST;
            while left > 0 {
                let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else { return };
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            }
        }));
    }
}
