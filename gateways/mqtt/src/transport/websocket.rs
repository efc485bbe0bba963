//! MQTT over WebSocket (MQTT 5.0 §6): a stream of bytes inside binary frames.
//!
//! Frames are taken apart in the buffer they were read into and written around the bytes they carry, so an idle
//! connection holds no buffer for it, and nothing is reserved by a length that a client announced.

mod frame;
mod upgrade;

pub(crate) use upgrade::{Site, upgrade};

use frame::{Control, Header, Opcode, Reader, Violation, status};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The stream of bytes. What was offered to a write that was not whole has to be offered again: its length has been
/// announced.
pub(crate) struct WebSocket<S> {
    stream: S,
    reader: Reader,
    /// What came along with the request; at most what an upgrade reads at once.
    early: Vec<u8>,
    /// Nothing more comes from the client that counts.
    ended: bool,
    /// The header of our frame under way, and how much of it is written.
    header: Header,
    header_written: usize,
    /// Payload of our frame under way that is still to be written.
    left: usize,
    controls: Controls,
}

/// Control frames of ours. A client that does not read them costs two of them at most.
#[derive(Default)]
struct Controls {
    /// On its way.
    now: Vec<u8>,
    written: usize,
    /// After it; a newer answer replaces an older one (RFC 6455 §5.5.3).
    next: Vec<u8>,
    /// Our close frame is among them: the last.
    closed: bool,
}

impl<S> WebSocket<S> {
    fn new(stream: S, early: Vec<u8>) -> Self {
        Self {
            stream,
            reader: Reader::default(),
            early,
            ended: false,
            header: Header::default(),
            header_written: 0,
            left: 0,
            controls: Controls::default(),
        }
    }

    /// Takes the frames in what was just read apart; gives how many bytes of data stand at its front.
    fn take(&mut self, bytes: &mut [u8]) -> Result<usize, Violation> {
        let Self { reader, controls, ended, .. } = self;
        reader.take(bytes, |control| match control {
            Control::Ping(payload) => {
                controls.say(frame::control(Opcode::Pong, payload));
                true
            }
            Control::Close(payload) => {
                controls.close(payload);
                *ended = true;
                false
            }
        })
    }

    /// Between our frames control frames may stand.
    fn is_between_frames(&self) -> bool {
        self.left == 0 && self.header_written == self.header.len()
    }
}

impl Controls {
    fn say(&mut self, frame: Vec<u8>) {
        if !self.closed {
            self.next = frame;
        }
    }

    fn close(&mut self, payload: &[u8]) {
        self.say(frame::control(Opcode::Close, payload));
        self.closed = true;
    }
}

impl<S: AsyncWrite + Unpin> WebSocket<S> {
    /// Writes the control frames that wait.
    fn poll_controls(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let controls = &mut self.controls;
        loop {
            while controls.written < controls.now.len() {
                let rest = &controls.now[controls.written..];
                controls.written += written(ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?)?;
            }
            controls.now = std::mem::take(&mut controls.next);
            controls.written = 0;
            if controls.now.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// The same in passing: whoever writes next sees the error, and what is left goes with the next chance.
    fn try_controls(&mut self, cx: &mut Context<'_>) {
        let waits = !self.controls.now.is_empty() || !self.controls.next.is_empty();
        if waits && self.is_between_frames() && matches!(self.poll_controls(cx), Poll::Ready(Ok(()))) {
            let _later = Pin::new(&mut self.stream).poll_flush(cx);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let start = buf.filled().len();
        loop {
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            if this.early.is_empty() {
                ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            } else {
                let fits = this.early.len().min(buf.remaining());
                buf.put_slice(&this.early[..fits]);
                this.early.drain(..fits);
                if this.early.is_empty() {
                    this.early = Vec::new();
                }
            }
            let came = &mut buf.filled_mut()[start..];
            if came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let taken = this.take(came);
            if let Err(violation) = &taken {
                this.controls.close(&violation.status.to_be_bytes());
                this.ended = true;
            }
            buf.set_filled(start + *taken.as_ref().unwrap_or(&0));
            this.try_controls(cx);
            match taken {
                Err(violation) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation))),
                Ok(0) => {}
                Ok(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.is_between_frames() {
            ready!(this.poll_controls(cx))?;
            if this.controls.closed {
                // RFC 6455 §5.5.1: nothing follows a close frame.
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            this.header = frame::binary_header(buf.len());
            this.header_written = 0;
            this.left = buf.len();
        }
        loop {
            let header = &this.header[this.header_written..];
            let payload = &buf[..this.left.min(buf.len())];
            let both = [IoSlice::new(header), IoSlice::new(payload)];
            let slices = if header.is_empty() { &both[1..] } else { &both };
            let count = match Pin::new(&mut this.stream).poll_write_vectored(cx, slices) {
                Poll::Ready(count) => written(count?)?,
                Poll::Pending => {
                    if this.header_written == 0 {
                        // Nothing is announced yet: the next write may be longer, and control frames may go before.
                        this.left = 0;
                        this.header = Header::default();
                    }
                    return Poll::Pending;
                }
            };
            let of_header = count.min(header.len());
            this.header_written += of_header;
            if count > of_header {
                this.left -= count - of_header;
                this.try_controls(cx);
                return Poll::Ready(Ok(count - of_header));
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_between_frames() {
            ready!(self.poll_controls(cx))?;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_between_frames() {
            self.controls.close(&status::NORMAL.to_be_bytes());
            ready!(self.poll_controls(cx))?;
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A stream that takes nothing any more never will.
fn written(count: usize) -> io::Result<usize> {
    if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(count) }
}

#[cfg(test)]
mod tests;
