//! Where a connection stands between a request and the last byte of its answer. hyper tells nobody, but what it asks of
//! its service and of its stream shows it.

use crate::{farewell::Unread, later::Later, line::Line};
use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, Request, StatusCode, Version, header},
    response::Response,
};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// Every request is answered, and every answer was taken by the socket.
const QUIET: u8 = 0;
/// A request is being answered.
const ASKED: u8 = 1;
/// The end of an answer is in hyper's buffer.
const LEAVING: u8 = 2;

/// See the module. One task reads and writes it; it is shared because hyper owns what does.
pub(super) struct Exchange {
    stage: AtomicU8,
    start: Instant,
    /// In milliseconds after the start.
    quiet_since: AtomicU64,
    /// The last request came with a body that was not read to its end.
    unread: AtomicBool,
    aside: Mutex<Option<Aside>>,
}

/// A request whose answer comes later.
pub(super) struct Aside {
    pub(super) later: Later,
    pub(super) terms: Terms,
}

/// How an answer has to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) version: Version,
    pub(super) keep_alive: bool,
}

impl Terms {
    pub(super) const CLOSING: Self = Self { version: Version::HTTP_11, keep_alive: false };

    fn of(version: Version, headers: &HeaderMap) -> Self {
        let lines = headers.get_all(header::CONNECTION).iter().filter_map(|line| line.to_str().ok());
        let closes = lines.flat_map(|line| line.split(',')).any(|token| token.trim().eq_ignore_ascii_case("close"));
        // Who speaks HTTP/1.0 may have wished it, and is not owed it.
        Self { version, keep_alive: version == Version::HTTP_11 && !closes }
    }
}

impl Exchange {
    pub(super) fn new() -> Self {
        Self {
            stage: AtomicU8::new(QUIET),
            start: Instant::now(),
            quiet_since: AtomicU64::new(0),
            unread: AtomicBool::new(false),
            aside: Mutex::new(None),
        }
    }

    /// A request has come. Gives the terms on which its answer may be written without hyper, if nothing of an answer
    /// before is still on its way.
    pub(super) fn asked(self: &Arc<Self>, request: Request<Incoming>) -> (Request<Given>, Option<Terms>) {
        let was_quiet = self.stage.swap(ASKED, Relaxed) == QUIET;
        self.unread.store(!request.body().is_end_stream(), Relaxed);
        let terms = was_quiet.then(|| Terms::of(request.version(), request.headers()));
        (request.map(|body| Given { body, exchange: Arc::clone(self) }), terms)
    }

    /// Its answer goes to hyper.
    pub(super) fn answered(self: &Arc<Self>, response: Response) -> Response {
        // A body that knows its length is one piece, which leaves together with its head.
        if response.body().size_hint().exact().is_some() {
            self.stage.store(LEAVING, Relaxed);
            return response;
        }
        response.map(|body| Body::new(Tracked { body, _ends: Ends(Arc::clone(self)) }))
    }

    pub(super) fn put_aside(&self, aside: Aside) {
        *self.aside.lock() = Some(aside);
    }

    pub(super) fn aside(&self) -> Option<Aside> {
        // Nobody looks while a request is not under way.
        (self.stage.load(Relaxed) == ASKED).then(|| self.aside.lock().take())?
    }

    /// Since when the next head has been due; `None`: it is the client who waits.
    pub(super) fn quiet_since(&self) -> Option<Instant> {
        let since = Duration::from_millis(self.quiet_since.load(Relaxed));
        (self.stage.load(Relaxed) == QUIET).then(|| self.start + since)
    }

    /// Whether the client may be sending a body that nobody reads.
    pub(super) fn unread(&self) -> Unread {
        if self.unread.load(Relaxed) { Unread::Perhaps } else { Unread::Nothing }
    }

    fn is_quiet(&self) -> bool {
        self.stage.load(Relaxed) == QUIET
    }

    /// hyper flushes when its buffer is empty.
    fn flushed(&self) {
        if self.stage.load(Relaxed) == LEAVING {
            let since = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.quiet_since.store(since, Relaxed);
            self.stage.store(QUIET, Relaxed);
        }
    }
}

/// The body of a request, which notes that it has been read to its end.
pub(super) struct Given {
    body: Incoming,
    exchange: Arc<Exchange>,
}

impl HttpBody for Given {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.exchange.unread.store(false, Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer that leaves piece by piece.
struct Tracked {
    body: Body,
    _ends: Ends,
}

/// hyper drops a body when the end of it is in its buffer.
struct Ends(Arc<Exchange>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.stage.store(LEAVING, Relaxed);
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client's stream as hyper has it. What hyper writes while no request is under way is its own word on what it
/// could not read, a bare status: the client is told better.
pub(super) struct Checked<S> {
    pub(super) line: Line<S>,
    exchange: Arc<Exchange>,
    /// What hyper wished to refuse a request with.
    pub(super) refused: Option<StatusCode>,
}

impl<S> Checked<S> {
    pub(super) fn new(line: Line<S>, exchange: Arc<Exchange>) -> Self {
        Self { line, exchange, refused: None }
    }
}

/// The status in `HTTP/1.1 400 Bad Request`.
fn status(answer: &[u8]) -> StatusCode {
    answer.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok()).unwrap_or(StatusCode::BAD_REQUEST)
}

impl<S: AsyncRead + Unpin> AsyncRead for Checked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Checked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        if me.exchange.is_quiet() {
            me.refused.get_or_insert_with(|| status(bytes));
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut me.line).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        if me.exchange.is_quiet() {
            me.refused.get_or_insert_with(|| slices.first().map_or(StatusCode::BAD_REQUEST, |slice| status(slice)));
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        Pin::new(&mut me.line).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.line.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        ready!(Pin::new(&mut me.line).poll_flush(cx))?;
        me.exchange.flushed();
        Poll::Ready(Ok(()))
    }

    /// hyper is not always the last to speak: the stream is shut by whoever is.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
