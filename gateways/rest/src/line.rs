//! A client's stream: its bytes are counted, once a read or a write, and what was read ahead is read first.

use bytes::{Buf, Bytes};
use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use waystation_broker::Traffic;

/// What every HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's stream, as the gateway's counters see it.
pub(crate) struct Line<S> {
    stream: S,
    /// At most what one buffer of a reader held.
    ahead: Bytes,
    traffic: Arc<Traffic>,
}

impl<S> Line<S> {
    pub(crate) fn new(stream: S, traffic: Arc<Traffic>) -> Self {
        Self { stream, ahead: Bytes::new(), traffic }
    }

    /// Gives bytes back that were read for somebody else. What is there already comes after them.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            // A copy of its own: the buffer they came in is to go.
            self.ahead = [bytes, &*self.ahead].concat().into();
        }
    }
}

impl<S: AsyncRead + Unpin> Line<S> {
    /// Whether the client begins as HTTP/2 does.
    pub(crate) async fn begins_with_http2(&mut self) -> io::Result<bool> {
        let mut start = [0; PREFACE.len()];
        let mut buffer = ReadBuf::new(&mut start);
        while PREFACE.starts_with(buffer.filled()) && buffer.remaining() > 0 {
            let before = buffer.filled().len();
            poll_fn(|cx| Pin::new(&mut *self).poll_read(cx, &mut buffer)).await?;
            if buffer.filled().len() == before {
                break;
            }
        }
        let is_http2 = buffer.filled() == PREFACE;
        self.ahead = Bytes::copy_from_slice(buffer.filled());
        Ok(is_http2)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if !me.ahead.is_empty() {
            let most = me.ahead.len().min(buf.remaining());
            buf.put_slice(&me.ahead[..most]);
            me.ahead.advance(most);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut me.stream).poll_read(cx, buf))?;
        me.traffic.add_bytes_received(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let written = ready!(Pin::new(&mut me.stream).poll_write(cx, bytes))?;
        me.traffic.add_bytes_sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let written = ready!(Pin::new(&mut me.stream).poll_write_vectored(cx, slices))?;
        me.traffic.add_bytes_sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use waystation_broker::{Broker, Limits, ManualClock, Parts};

    fn line(bytes: &'static [u8]) -> Line<&'static [u8]> {
        let broker = Broker::new(Parts::in_memory(Limits::default(), Arc::new(ManualClock::default())));
        Line::new(bytes, broker.traffic(&"rest".into()))
    }

    #[tokio::test]
    async fn the_preface_of_http2_is_told_from_all_else_and_nothing_is_lost() {
        for (bytes, is_http2) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore"[..], true),
            (b"PRI * HTTP/1.1\r\nhost: x\r\n\r\n", false),
            (b"GET / HTTP/1.1\r\n\r\n", false),
            (b"PRI", false),
            (b"", false),
        ] {
            let mut line = line(bytes);
            assert_eq!(line.begins_with_http2().await.unwrap(), is_http2);
            let mut all = Vec::new();
            line.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, bytes);
        }
    }

    #[tokio::test]
    async fn what_is_put_back_comes_first() {
        let mut line = line(b"GET / HTTP/1.1\r\n");
        line.begins_with_http2().await.unwrap();
        line.put_back(b"before ");
        let mut all = Vec::new();
        line.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"before GET / HTTP/1.1\r\n");
    }
}
