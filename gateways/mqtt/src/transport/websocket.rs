//! MQTT over WebSocket (MQTT 5.0 §6): a stream of bytes inside binary messages. The frames are the library's.

mod upgrade;

pub(crate) use upgrade::{Site, upgrade};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

/// Bytes of what a connection reads at once. It keeps a buffer of this size.
const READ_AT_ONCE: usize = 4_096;

/// Our longest message: what a connection that once had much to say keeps as a buffer.
const LONGEST_MESSAGE: usize = 16_384;

/// What may stand in a message beside the largest MQTT packet: the ends of its neighbours.
const NEIGHBOURS: usize = 65_536;

/// The bytes in the messages.
pub(crate) struct WebSocket<S> {
    messages: WebSocketStream<S>,
    /// What is still to be read of the last one; at most [`limits`].
    rest: Bytes,
    /// The client broke the rules and has been told: nothing it says counts any more.
    broken: bool,
}

/// How long a message or one of its frames may be. The room for it is reserved when its length is announced, but it
/// takes memory only as bytes come in.
fn limits(max_packet_size: u32) -> WebSocketConfig {
    let longest = Some(max_packet_size as usize + NEIGHBOURS);
    WebSocketConfig::default()
        .read_buffer_size(READ_AT_ONCE)
        // A message is written when it is complete, not when many are.
        .write_buffer_size(0)
        .max_write_buffer_size(4 * LONGEST_MESSAGE)
        .max_message_size(longest)
        .max_frame_size(longest)
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    fn new(messages: WebSocketStream<S>) -> Self {
        Self { messages, rest: Bytes::new(), broken: false }
    }

    /// The next message with bytes in it; `None` at the end. Pings and the client's farewell are answered on the way.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if self.broken {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        loop {
            let wrong = match ready!(Pin::new(&mut self.messages).poll_next(cx)) {
                None => return Poll::Ready(Ok(None)),
                Some(Ok(Message::Binary(bytes))) if !bytes.is_empty() => return Poll::Ready(Ok(Some(bytes))),
                Some(Ok(Message::Text(_))) => {
                    // [MQTT-6.0.0-1]
                    (CloseCode::Unsupported, io::Error::new(io::ErrorKind::InvalidData, "a text message"))
                }
                Some(Ok(_)) => continue,
                Some(Err(Error::Io(error))) => return Poll::Ready(Err(error)),
                Some(Err(error @ Error::Capacity(_))) => (CloseCode::Size, other(error)),
                Some(Err(error)) => (CloseCode::Protocol, other(error)),
            };
            return Poll::Ready(Err(self.break_off(cx, wrong)));
        }
    }

    /// Tells the client what it did wrong, if it listens; nothing follows that could wait for it.
    fn break_off(&mut self, cx: &mut Context<'_>, (code, error): (CloseCode, io::Error)) -> io::Error {
        self.broken = true;
        let farewell = Message::Close(Some(CloseFrame { code, reason: "".into() }));
        if Pin::new(&mut self.messages).start_send(farewell).is_ok() {
            let _unheard = Pin::new(&mut self.messages).poll_flush(cx);
        }
        error
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    /// As much as is there: a buffer that was not filled means that the stream has no more, as it does with a socket.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            if self.rest.is_empty() {
                match self.poll_message(cx) {
                    Poll::Ready(Ok(Some(bytes))) => self.rest = bytes,
                    // What came before is to be read first; the end comes again, and so does an error.
                    Poll::Pending if buf.filled().len() == before => return Poll::Pending,
                    Poll::Ready(Err(error)) if buf.filled().len() == before => return Poll::Ready(Err(error)),
                    _ => break,
                }
            }
            let count = self.rest.len().min(buf.remaining());
            buf.put_slice(&self.rest[..count]);
            self.rest.advance(count);
        }
        if self.rest.is_empty() {
            // An empty slice would hold the whole message.
            self.rest = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.messages).poll_ready(cx)).map_err(other)?;
        let message = Bytes::copy_from_slice(&buf[..buf.len().min(LONGEST_MESSAGE)]);
        let count = message.len();
        Pin::new(&mut self.messages).start_send(Message::Binary(message)).map_err(other)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.messages).poll_flush(cx).map_err(other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.messages).poll_close(cx).map_err(other)
    }
}

fn other(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}
