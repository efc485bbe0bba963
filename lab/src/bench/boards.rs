//! A fleet of MQTT-SN boards, one socket each, publishing as fast as the protocol lets them: one message under way a
//! board. The air between may lose, duplicate and reorder datagrams; boards may sleep and change their address.

mod air;
mod board;
mod wire;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, net::UdpSocket};

use self::air::Air;
use self::board::{Board, Counts, Doing};
use super::args::{Common, Fleet};
use super::process::{Process, Usage};
use super::progress::Progress;
use super::report::{self, Latency, Report};

/// CONNECTs under way at a time: more than that and a first burst is lost in any gateway's receive buffer.
const CONNECTING: usize = 128;

/// Events looked at in one go.
const EVENTS: usize = 1_024;

/// How long a datagram that is to be overtaken is held back.
const HELD_BACK: Duration = Duration::from_millis(5);

pub(super) fn run(common: &Common, fleet: &Fleet) -> Result<Report> {
    let process = common.pid.map(Process::new).transpose()?;
    let gateway = gateway(&common.url)?;
    if common.qos == 0 {
        bail!("a QoS 0 publish is not answered, and so sets no pace: -q 1 or -q 2 is wanted");
    }
    let idle = process.map(Process::usage).transpose()?;
    let mut crowd = Crowd::new(gateway, common, fleet)?;
    let began = Instant::now();
    crowd.connect()?;
    let connected = began.elapsed();
    let seated = process.map(Process::usage).transpose()?;
    crowd.publish(process)?;
    crowd.goodbye()?;

    let mut report = Report::new("boards", common);
    "1.2".clone_into(&mut report.mqtt);
    let Counts { sent, acknowledged, refused, lost, repeats } = crowd.counts;
    (report.publishers, report.sent, report.expected, report.delivered) = (fleet.boards, sent, sent, acknowledged);
    (report.refused, report.unacknowledged, report.repeats) = (refused, lost, Some(repeats));
    report.lost = sent.saturating_sub(acknowledged + refused);
    report.connect_seconds = Some(connected.as_secs_f64());
    report.seconds = crowd.measured.seconds;
    report.sent_per_second = report::rate(crowd.measured.messages, report.seconds);
    report.delivered_per_second = report.sent_per_second;
    report.latency = Latency::of(&crowd.latency);
    let spent = |before: Usage, after: Usage| after.cpu.saturating_sub(before.cpu);
    let Measured { messages, broker, own, .. } = crowd.measured;
    report.generator_cpu_us = own.and_then(|(before, after)| report::micros_each(spent(before, after), messages));
    if let Some((before, after)) = broker {
        report.broker_cpu_us = report::micros_each(spent(before, after), messages);
        report.broker_memory = Some(after.resident);
    }
    if let (Some(idle), Some(seated)) = (idle, seated) {
        report.item = Some("board".to_owned());
        report.memory_per_item =
            Some(report::ratio(seated.resident.saturating_sub(idle.resident), u64::from(fleet.boards)));
    }
    Ok(report)
}

fn gateway(url: &str) -> Result<SocketAddr> {
    let Some(("mqttsn", host)) = url.split_once("://") else {
        bail!("{url} is no MQTT-SN gateway; --url mqttsn://HOST:PORT is wanted");
    };
    let host = host.trim_end_matches('/');
    let found = host.to_socket_addrs().or_else(|_| (host, 1_884).to_socket_addrs());
    let mut found = found.with_context(|| format!("cannot resolve {host} (--url)"))?;
    found.next().with_context(|| format!("{host} has no address (--url)"))
}

/// The measured interval.
#[derive(Default)]
struct Measured {
    seconds: f64,
    messages: u64,
    broker: Option<(Usage, Usage)>,
    own: Option<(Usage, Usage)>,
}

/// All boards, their sockets, and the air.
struct Crowd {
    gateway: SocketAddr,
    poll: Poll,
    boards: Vec<Board>,
    sockets: Vec<UdpSocket>,
    air: Air,
    /// When a board wants to be asked again; stale entries are harmless.
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Datagrams that others overtake: until when, whose, and whether up.
    held_back: Vec<(Instant, usize, bool, Vec<u8>)>,
    duration: Duration,
    warmup: Duration,
    each: Option<u32>,
    counts: Counts,
    latency: Histogram<u64>,
    measuring: bool,
    measured: Measured,
}

impl Crowd {
    fn new(gateway: SocketAddr, common: &Common, fleet: &Fleet) -> Result<Self> {
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
            duration: Duration::from_secs_f64(common.duration),
            warmup: if common.messages.is_some() { Duration::ZERO } else { Duration::from_secs_f64(common.warmup) },
            each: common.messages.map(|messages| messages.div_ceil(fleet.boards)),
            counts: Counts::default(),
            latency: Histogram::new_with_bounds(1, 600_000_000_000, 3)?,
            measuring: false,
            measured: Measured::default(),
        })
    }

    /// Until all are connected and have their topic ids.
    fn connect(&mut self) -> Result<()> {
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

    /// The run itself.
    fn publish(&mut self, process: Option<Process>) -> Result<()> {
        let began = Instant::now();
        let (from, until) = (began + self.warmup, began + self.warmup + self.duration);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let progress = Progress::new(millis(self.warmup + self.duration), "publishing");
        let usage = || -> Result<_> { Ok((process.map(Process::usage).transpose()?, Process::myself().usage()?)) };
        let mut start = (Instant::now(), 0, usage()?);
        let each = self.each.unwrap_or(u32::MAX);
        for at in 0..self.boards.len() {
            self.step(at, |board, now| board.publish(now, each))?;
        }
        loop {
            self.turn()?;
            let now = Instant::now();
            if !self.measuring && now >= from {
                self.measuring = true;
                start = (now, self.counts.acknowledged, usage()?);
            }
            let over = match self.each {
                None => now >= until,
                Some(_) => self.boards.iter().all(|board| matches!(board.doing(), Doing::Ready | Doing::Nothing)),
            };
            progress.at(millis(now - began), format!("{} acknowledged", self.counts.acknowledged));
            if over {
                break;
            }
        }
        let (began, before, (broker, own)) = start;
        let (broker_now, own_now) = usage()?;
        self.measured = Measured {
            seconds: began.elapsed().as_secs_f64(),
            messages: self.counts.acknowledged - before,
            broker: broker.zip(broker_now),
            own: Some((own, own_now)),
        };
        self.measuring = false;
        Ok(())
    }

    /// What is under way comes to its end; then all leave.
    fn goodbye(&mut self) -> Result<()> {
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
    fn turn(&mut self) -> Result<()> {
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
        let (before, measuring) = (self.counts.acknowledged, self.measuring);
        let mut took = None;
        let counts = &mut self.counts;
        let reply = self.boards[at].hears(Instant::now(), datagram, counts, &mut took);
        if measuring
            && self.counts.acknowledged > before
            && let Some(took) = took
        {
            self.latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        self.step(at, |board, now| reply.or_else(|| board.goes_on(now)))
    }

    /// Has a board do something, sends what it says, and notes when it wants to be asked again.
    fn step(&mut self, at: usize, act: impl FnOnce(&mut Board, Instant) -> Option<Vec<u8>>) -> Result<()> {
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
