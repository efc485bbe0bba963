//! All boards of a fleet on one poll, and the air between them and the gateway.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, net::UdpSocket};

use super::super::args::{Common, Fleet};
use super::super::progress::Progress;
use super::super::template;
use super::air::Air;
use super::board::{Board, Counts, Doing};
use super::wire;

/// CONNECTs under way at a time: more than that and a first burst is lost in any gateway's receive buffer.
const CONNECTING: usize = 128;

/// Events looked at in one go.
const EVENTS: usize = 1_024;

/// How long a datagram that is to be overtaken is held back.
const HELD_BACK: Duration = Duration::from_millis(5);

/// All boards, their sockets, and the air.
pub(super) struct Crowd {
    gateway: SocketAddr,
    pub(super) poll: Poll,
    pub(super) boards: Vec<Board>,
    sockets: Vec<UdpSocket>,
    air: Air,
    /// When a board wants to be asked again; stale entries are harmless.
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Datagrams that others overtake: until when, whose, and whether up.
    held_back: Vec<(Instant, usize, bool, Vec<u8>)>,
    pub(super) counts: Counts,
    /// Times that messages took, while they are measured.
    pub(super) latency: Histogram<u64>,
    pub(super) measuring: bool,
    /// Messages that came to boards since this was last emptied.
    pub(super) arrivals: Vec<Arrival>,
    /// What stirred on the connection of [`PUBLISHER`]: whether there is something to read, whether it may write.
    pub(super) stirred: (bool, bool),
    /// Payloads say their time of sending since then.
    pub(super) epoch: Instant,
}

/// A message that came to a board.
pub(super) struct Arrival {
    pub(super) board: usize,
    pub(super) sequence: u32,
    pub(super) took: Duration,
}

/// Another connection on the boards' poll: that of the client who publishes to them.
pub(super) const PUBLISHER: Token = Token(usize::MAX);

impl Crowd {
    pub(super) fn new(gateway: SocketAddr, common: &Common, fleet: &Fleet) -> Result<Self> {
        let poll = Poll::new()?;
        let run = std::process::id();
        let size = usize::try_from(common.size)?;
        let mut sockets = Vec::new();
        for number in 0..fleet.boards {
            let token = Token(usize::try_from(number)?);
            sockets.push(open(gateway, &poll, token).context("one socket a board: raise ulimit -n")?);
        }
        let board = |number| Board::new(run, number, common.qos, size, fleet);
        Ok(Self {
            gateway,
            poll,
            boards: (0..fleet.boards).map(board).collect(),
            sockets,
            air: Air::new(fleet),
            timers: BinaryHeap::new(),
            held_back: Vec::new(),
            counts: Counts::default(),
            latency: Histogram::new_with_bounds(1, 600_000_000_000, 3)?,
            measuring: false,
            arrivals: Vec::new(),
            stirred: (false, false),
            epoch: Instant::now(),
        })
    }

    /// Until all are connected and have their topic ids.
    pub(super) fn connect(&mut self) -> Result<()> {
        let progress = Progress::new(self.boards.len() as u64, "connecting");
        let (mut next, mut ready) = (0, 0);
        let mut under_way = Vec::new();
        while ready < self.boards.len() {
            while under_way.len() < CONNECTING && next < self.boards.len() {
                self.step(next, Board::begin)?;
                under_way.push(next);
                next += 1;
            }
            self.turn()?;
            let before = under_way.len();
            if let Some(at) = under_way.iter().find(|at| self.boards[**at].doing() == Doing::Nothing) {
                bail!("board {at} of {} is not let in, or not answered", self.boards.len());
            }
            under_way.retain(|at| self.boards[*at].doing() != Doing::Ready);
            ready += before - under_way.len();
            progress.at(ready as u64, String::new());
        }
        Ok(())
    }

    /// What is under way comes to its end; then all leave.
    pub(super) fn goodbye(&mut self) -> Result<()> {
        for board in &mut self.boards {
            board.stop();
        }
        while self.boards.iter().any(|board| !matches!(board.doing(), Doing::Ready | Doing::Nothing)) {
            self.turn()?;
        }
        for at in 0..self.boards.len() {
            self.step(at, |_, _| Some(wire::DISCONNECT.to_vec()))?;
        }
        Ok(())
    }

    /// Waits for datagrams and timers, and obeys them.
    pub(super) fn turn(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let now = Instant::now();
        let next = self.timers.peek().map(|Reverse((at, _))| *at);
        let next = next.into_iter().chain(self.held_back.first().map(|held| held.0)).min();
        let wait = next.map_or(Duration::from_millis(100), |at| at.saturating_duration_since(now));
        match self.poll.poll(&mut events, Some(wait.min(Duration::from_millis(100)))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let mut room = [0; 65_536];
        for event in &events {
            if event.token() == PUBLISHER {
                self.stirred = (self.stirred.0 | event.is_readable(), self.stirred.1 | event.is_writable());
                continue;
            }
            let Token(at) = event.token();
            loop {
                match self.sockets[at].recv(&mut room) {
                    Ok(length) => self.received(at, &room[..length])?,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // Nobody listens there (any more): what is unanswered tells.
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let now = Instant::now();
        while let Some(held) = self.held_back.first().filter(|held| held.0 <= now) {
            let (_, at, up, datagram) = (held.0, held.1, held.2, self.held_back.remove(0).3);
            if up { self.transmit(at, &datagram)? } else { self.obey(at, &datagram)? }
        }
        while let Some(Reverse((_, at))) = self.timers.pop_if_due(now) {
            self.step(at, Board::time_out)?;
        }
        Ok(())
    }

    fn received(&mut self, at: usize, datagram: &[u8]) -> Result<()> {
        for _ in 0..self.air.copies() {
            if self.air.overtakes() {
                self.held_back.push((Instant::now() + HELD_BACK, at, false, datagram.to_vec()));
            } else {
                self.obey(at, datagram)?;
            }
        }
        Ok(())
    }

    fn obey(&mut self, at: usize, datagram: &[u8]) -> Result<()> {
        if let Some((payload, answer)) = self.boards[at].receives(datagram) {
            if let Some((_, sequence, sent)) = template::read_stamp(payload) {
                let took = self.epoch.elapsed().saturating_sub(Duration::from_nanos(sent));
                self.arrivals.push(Arrival { board: at, sequence, took });
            }
            return self.step(at, |_, _| answer);
        }
        let (before, measuring) = (self.counts.acknowledged, self.measuring);
        let mut took = None;
        let counts = &mut self.counts;
        let reply = self.boards[at].hears(Instant::now(), datagram, counts, &mut took);
        if measuring
            && self.counts.acknowledged > before
            && let Some(took) = took
        {
            self.took(took);
        }
        self.step(at, |board, now| reply.or_else(|| board.goes_on(now)))
    }

    pub(super) fn took(&mut self, time: Duration) {
        self.latency.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Has a board do something, sends what it says, and notes when it wants to be asked again.
    pub(super) fn step(&mut self, at: usize, act: impl FnOnce(&mut Board, Instant) -> Option<Vec<u8>>) -> Result<()> {
        let said = act(&mut self.boards[at], Instant::now());
        self.boards[at].account(&mut self.counts);
        if self.boards[at].takes_new_address() {
            self.sockets[at] = open(self.gateway, &self.poll, Token(at))?;
            // What is still in the air went by the old address: from the new one it would be a stranger's.
            self.held_back.retain(|held| held.1 != at);
        }
        if let Some(due) = self.boards[at].due() {
            self.timers.push(Reverse((due, at)));
        }
        let Some(said) = said else { return Ok(()) };
        for _ in 0..self.air.copies() {
            if self.air.overtakes() {
                self.held_back.push((Instant::now() + HELD_BACK, at, true, said.clone()));
            } else {
                self.transmit(at, &said)?;
            }
        }
        Ok(())
    }

    fn transmit(&mut self, at: usize, datagram: &[u8]) -> Result<()> {
        match self.sockets[at].send(datagram) {
            Ok(_) => Ok(()),
            // A datagram may get lost; the board repeats it.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn open(gateway: SocketAddr, poll: &Poll, token: Token) -> io::Result<UdpSocket> {
    let any: SocketAddr = if gateway.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let mut socket = UdpSocket::bind(any)?;
    socket.connect(gateway)?;
    poll.registry().register(&mut socket, token, Interest::READABLE)?;
    Ok(socket)
}

trait Timers {
    fn pop_if_due(&mut self, now: Instant) -> Option<Reverse<(Instant, usize)>>;
}

impl Timers for BinaryHeap<Reverse<(Instant, usize)>> {
    fn pop_if_due(&mut self, now: Instant) -> Option<Reverse<(Instant, usize)>> {
        let due = self.peek().is_some_and(|Reverse((at, _))| *at <= now);
        due.then(|| self.pop()).flatten()
    }
}
