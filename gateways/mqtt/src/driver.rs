//! The one future of a connection: bytes in, events in, bytes out; what they mean is [`Connection`]'s to know.
//!
//! Generic over the stream, so that TLS and WebSocket are other streams and nothing else.

use crate::{
    clients::{Clients, Place},
    complaints,
    connection::{
        Connection, Scratch,
        handshake::{self, Knock, Terms, TurnedAway},
    },
};
use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use waystation_broker::{Attached, Broker, Credentials, Peer, Refusal, Time, Traffic};
use waystation_kit::{
    Timer,
    buffers::{self, READ_BYTES},
};

/// For a client to take what it is told at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// A longer carry is appended to rather than copied to the front of the loop's read buffer.
const SHORT_CARRY: usize = 8_192;

/// Events a connection handles before others get their turn.
const MOST_EVENTS: usize = 8;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What all connections of a gateway share.
pub(crate) struct Shared {
    pub(crate) broker: Broker,
    pub(crate) name: Arc<str>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) clients: Clients,
}

/// A connection, from accept to close.
pub(crate) struct Drive<S> {
    stream: S,
    shared: Arc<Shared>,
    state: State,
    /// Bytes of a packet that is not whole yet; at most `limits.max_packet_size` and one read.
    carry: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    /// The carry may hold whole packets: what came along with CONNECT.
    pipelined: bool,
    /// Everything is written, but the stream (TLS, WebSocket) has not passed it on yet.
    flushing: bool,
    timer: Timer,
    timer_at: Time,
    place: Option<Place>,
}

enum State {
    /// Waits for CONNECT.
    Greeting(Newcomer),
    /// The core decides.
    Attaching(Box<Attaching>),
    Up(Connection),
    /// Only what is in `out` is still to go; then the peer's end is waited for, so that closing does not destroy
    /// what it has not read.
    Farewell {
        until: Time,
        shut: bool,
    },
}

/// A connection that has said nothing yet.
#[derive(Debug, Clone)]
pub(crate) struct Newcomer {
    pub(crate) peer: Peer,
    /// The name its certificate gives it, where that counts.
    pub(crate) vouched: Option<Box<str>>,
    /// When its CONNECT must be whole.
    pub(crate) until: Time,
}

struct Attaching {
    peer: Peer,
    terms: Terms,
    answer: Pin<Box<dyn Future<Output = Result<Attached, Refusal>> + Send>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Drive<S> {
    /// A connection just opened. Make it on the loop that is to drive it.
    pub(crate) fn new(stream: S, newcomer: Newcomer, shared: Arc<Shared>) -> Self {
        Self {
            stream,
            shared,
            state: State::Greeting(newcomer),
            carry: Vec::new(),
            out: Vec::new(),
            written: 0,
            pipelined: false,
            flushing: false,
            timer: Timer::new(),
            timer_at: Time(0),
            place: None,
        }
    }

    /// Reads once and acts on it. `Ok(true)`: there may be more at once.
    fn read(&mut self, cx: &mut Context<'_>, now: Time) -> io::Result<Progress> {
        buffers::with_read_buffer(|buffer| {
            let front = if self.carry.len() <= SHORT_CARRY { self.carry.len() } else { 0 };
            buffer[..front].copy_from_slice(&self.carry[..front]);
            let mut free = ReadBuf::new(&mut buffer[front..]);
            match Pin::new(&mut self.stream).poll_read(cx, &mut free) {
                Poll::Pending => return Ok(Progress::Waits),
                Poll::Ready(read) => read?,
            }
            let len = free.filled().len();
            if len == 0 {
                return Ok(Progress::HungUp);
            }
            self.shared.traffic.add_bytes_received(len);
            let end = front + len;
            if front == self.carry.len() {
                let used = self.handle_bytes(now, &buffer[..end]);
                self.keep_rest(&buffer[used..end]);
            } else {
                self.carry.extend_from_slice(&buffer[..end]);
                self.handle_carry(now);
            }
            Ok(if end == READ_BYTES { Progress::MayHaveMore } else { Progress::Drained })
        })
    }

    fn keep_rest(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            buffers::give_back(std::mem::take(&mut self.carry));
            return;
        }
        if self.carry.capacity() == 0 {
            self.carry = buffers::take();
        }
        self.carry.clear();
        self.carry.extend_from_slice(rest);
    }

    fn handle_carry(&mut self, now: Time) {
        let carry = std::mem::take(&mut self.carry);
        let used = self.handle_bytes(now, &carry);
        self.carry = carry;
        self.carry.drain(..used);
        if self.carry.is_empty() {
            buffers::give_back(std::mem::take(&mut self.carry));
        }
    }

    fn handle_bytes(&mut self, now: Time, bytes: &[u8]) -> usize {
        match &mut self.state {
            State::Greeting(_) => self.knock(now, bytes),
            State::Up(connection) => {
                let limits = self.shared.broker.limits();
                SCRATCH.with_borrow_mut(|scratch| connection.handle_bytes(now, bytes, limits, scratch, &mut self.out))
            }
            // A client may send on before it has its CONNACK; that waits in the carry.
            State::Attaching(_) => 0,
            State::Farewell { .. } => bytes.len(),
        }
    }

    fn knock(&mut self, now: Time, bytes: &[u8]) -> usize {
        let State::Greeting(newcomer) = &mut self.state else { return 0 };
        let (shared, peer) = (&self.shared, newcomer.peer);
        match handshake::knock(bytes, &shared.name, peer, shared.broker.limits()) {
            Ok(None) => 0,
            Ok(Some((knock, used))) => {
                let Knock { mut hello, terms } = *knock;
                if let Some(name) = newcomer.vouched.take() {
                    hello.credentials = Credentials::Vouched(name.into());
                }
                let broker = shared.broker.clone();
                let answer = Box::pin(async move { broker.attach(hello).await });
                self.state = State::Attaching(Box::new(Attaching { peer, terms, answer }));
                used
            }
            Err(turned_away) => {
                self.shared.traffic.add_violation();
                self.turn_away(now, peer, turned_away);
                bytes.len()
            }
        }
    }

    fn turn_away(&mut self, now: Time, peer: Peer, TurnedAway { answer, why }: TurnedAway) {
        complaints::turned_away(peer, &why);
        self.out.extend_from_slice(&answer);
        self.farewell(now);
    }

    fn farewell(&mut self, now: Time) {
        self.state = State::Farewell { until: now.after(FAREWELL), shut: false };
    }

    fn poll_attaching(&mut self, cx: &mut Context<'_>, now: Time) {
        let State::Attaching(attaching) = &mut self.state else { return };
        let Poll::Ready(answer) = attaching.answer.as_mut().poll(cx) else { return };
        let (terms, peer) = (attaching.terms.clone(), attaching.peer);
        match answer {
            Ok(attached) => {
                tracing::debug!(%peer, resumed = attached.resumed, version = ?terms.version, "client connected");
                let connection = Connection::new(&terms, attached, &self.shared.broker, &mut self.out);
                self.state = State::Up(connection);
                self.pipelined = !self.carry.is_empty();
            }
            Err(refusal) => self.turn_away(now, peer, handshake::refuse(&terms, &refusal)),
        }
    }

    fn poll_up(&mut self, cx: &mut Context<'_>, now: Time) {
        if self.shared.clients.is_draining()
            && let State::Up(connection) = &mut self.state
        {
            connection.handle_drain();
        }
        self.poll_read(cx, now);
        let State::Up(connection) = &mut self.state else { return };
        let deaf = !connection.listens(now, self.out.len() - self.written);
        let mut settled = false;
        for _ in 0..MOST_EVENTS {
            let unwritten = self.out.len() - self.written;
            let Poll::Ready(event) = connection.link_event(cx, unwritten) else {
                settled = true;
                break;
            };
            let limits = self.shared.broker.limits();
            SCRATCH.with_borrow_mut(|scratch| connection.handle_event(now, event, limits, scratch, &mut self.out));
            if connection.is_closing() {
                break;
            }
        }
        // What was not read before, because an acknowledgement waited for the store, is read now that it has gone out.
        let hears_again = deaf && connection.listens(now, self.out.len() - self.written);
        if !settled || hears_again {
            cx.waker().wake_by_ref();
        }
        connection.handle_timeout(now);
        if connection.is_closing()
            && let State::Up(connection) =
                std::mem::replace(&mut self.state, State::Farewell { until: now.after(FAREWELL), shut: false })
        {
            tracing::debug!(peer = %connection.peer(), client = connection.client(), "client leaves");
            connection.leave(&mut self.out);
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, now: Time) {
        // The second read of a round only asks for readiness: after a short read it costs no system call.
        for _ in 0..2 {
            let unwritten = self.out.len() - self.written;
            match &mut self.state {
                State::Up(connection) => {
                    if connection.is_closing() || !connection.listens(now, unwritten) {
                        return;
                    }
                    if std::mem::take(&mut self.pipelined) {
                        self.handle_carry(now);
                    }
                }
                State::Attaching(_) => return,
                State::Greeting(_) | State::Farewell { .. } => {}
            }
            match self.read(cx, now) {
                Ok(Progress::Waits) => return,
                Ok(Progress::Drained) => {}
                Ok(Progress::MayHaveMore) => break,
                Ok(Progress::HungUp) | Err(_) => {
                    match &mut self.state {
                        State::Up(connection) => connection.handle_hang_up(),
                        state => *state = State::Farewell { until: now, shut: true },
                    }
                    return;
                }
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Writes what there is. `Ready(Ok)`: all of it is written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let rest = &self.out[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => {
                    self.written += len;
                    self.shared.traffic.add_bytes_sent(len);
                }
            }
        }
        if !self.out.is_empty() {
            buffers::give_back(std::mem::take(&mut self.out));
            self.written = 0;
            self.flushing = true;
        }
        if self.flushing {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.flushing = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing can be written any more: the client is gone. What it had sent before still counts: a DISCONNECT keeps
    /// its will back, its acknowledgements settle what it got.
    fn hear_out(&mut self, cx: &mut Context<'_>, now: Time) {
        while matches!(&self.state, State::Up(connection) if !connection.is_closing()) {
            let more = matches!(self.read(cx, now), Ok(Progress::Drained | Progress::MayHaveMore));
            self.out.clear();
            self.written = 0;
            if !more {
                break;
            }
        }
        if let State::Up(mut connection) =
            std::mem::replace(&mut self.state, State::Farewell { until: now, shut: true })
        {
            connection.handle_hang_up();
            connection.leave(&mut self.out);
        }
    }

    /// `Ready`: the connection is closed.
    fn poll_farewell(&mut self, cx: &mut Context<'_>, now: Time) -> Poll<()> {
        let State::Farewell { until, shut } = self.state else { return Poll::Pending };
        if now >= until {
            return Poll::Ready(());
        }
        if !shut {
            let Ok(()) = ready!(Pin::new(&mut self.stream).poll_shutdown(cx)) else { return Poll::Ready(()) };
            self.state = State::Farewell { until, shut: true };
        }
        // What still comes is read and forgotten; unread, it would turn our close into a reset.
        for _ in 0..16 {
            let end = buffers::with_read_buffer(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(read) => Poll::Ready(read.is_err() || buffer.filled().is_empty()),
                }
            });
            if ready!(end) {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Greeting(Newcomer { until, .. }) | State::Farewell { until, .. } => Some(*until),
            State::Attaching(_) => None,
            State::Up(connection) => connection.poll_timeout(),
        }
    }

    fn arm(&mut self, cx: &mut Context<'_>, now: Time) {
        let Some(at) = self.deadline() else { return };
        // A timer that fires too early only looks again; so activity costs nothing.
        if !self.timer.is_armed() || at < self.timer_at {
            self.timer.arm(at.since(now), cx.waker());
            self.timer_at = at;
        }
    }
}

enum Progress {
    Waits,
    Drained,
    MayHaveMore,
    HungUp,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Drive<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let now = this.shared.broker.now();
        if this.place.is_none() {
            this.place = Some(this.shared.clients.join(cx.waker()));
        }
        if let State::Greeting(Newcomer { until, peer, .. }) = &this.state {
            if now >= *until || this.shared.clients.is_draining() {
                if now >= *until {
                    complaints::turned_away(*peer, "no CONNECT within limits.connect_timeout_ms");
                }
                return Poll::Ready(());
            }
            this.poll_read(cx, now);
        }
        if let State::Attaching(_) = this.state {
            this.poll_attaching(cx, now);
        }
        if let State::Up(_) = this.state {
            this.poll_up(cx, now);
        }
        let had = this.out.len();
        match this.poll_write(cx) {
            Poll::Ready(Ok(())) => {
                if had >= crate::connection::HIGH_WATER {
                    // Deliveries were not listened for.
                    cx.waker().wake_by_ref();
                }
                if this.poll_farewell(cx, now).is_ready() {
                    return Poll::Ready(());
                }
            }
            Poll::Ready(Err(_)) => {
                this.hear_out(cx, now);
                return Poll::Ready(());
            }
            Poll::Pending => {
                if let State::Farewell { until, .. } = this.state
                    && now >= until
                {
                    return Poll::Ready(());
                }
            }
        }
        this.arm(cx, now);
        Poll::Pending
    }
}

impl<S> Drop for Drive<S> {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            self.shared.clients.leave(place);
        }
        buffers::give_back(std::mem::take(&mut self.out));
    }
}
