//! Publishing flat out: one message a request, or one request of very many lines.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::super::args::Common;
use super::super::process::{Process, Usage};
use super::super::progress::Progress;
use super::super::report::{self, Report};
use super::Target;
use super::answer::{self, Answer, Chunks};

const TICK: Duration = Duration::from_millis(50);
const READ_BUFFER: usize = 65_536;

/// Lines under way on one connection at most, unless told otherwise.
const WINDOW: u32 = 2_000;

/// Bytes of lines in one chunk at most.
const CHUNK: usize = 32_768;

/// One message a request, one request under way a connection.
pub(in super::super) fn single(common: &Common, connections: u32) -> Result<Report> {
    let target = Target::new(&common.url, common)?;
    let body = vec![b'x'; usize::try_from(common.size)?];
    let qos = common.qos;
    run(common, &target, "http", connections, |number| {
        let path = format!("/v1/topics/bench/{}/{number}?qos={qos}", std::process::id());
        let request = target.request("POST", &path, "Content-Type: application/octet-stream\r\n", &body);
        Load { unit: request, opening: Vec::new(), closing: Vec::new(), lines: 1, window: 1, answers: Answers::Whole }
    })
}

/// One request a connection, an NDJSON line a message.
pub(in super::super) fn bulk(common: &Common, connections: u32) -> Result<Report> {
    let target = Target::new(&common.url, common)?;
    let payload = "x".repeat(usize::try_from(common.size)?);
    let window = common.window.unwrap_or(WINDOW);
    run(common, &target, "ndjson", connections, |number| {
        let topic = format!("bench/{}/{number}", std::process::id());
        let line = format!("{{\"topic\":\"{topic}\",\"payload\":\"{payload}\",\"qos\":{}}}\n", common.qos);
        let lines = (CHUNK / line.len()).clamp(1, 256).min(usize::try_from(window).unwrap_or(usize::MAX));
        let chunk = format!("{:x}\r\n{}\r\n", line.len() * lines, line.repeat(lines));
        let more = "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n";
        Load {
            unit: chunk.into_bytes(),
            opening: target.request("POST", "/v1/messages", more, b""),
            closing: b"0\r\n\r\n".to_vec(),
            lines: u32::try_from(lines).unwrap_or(u32::MAX),
            window,
            answers: Answers::Lines(Lines::default()),
        }
    })
}

/// What a connection sends, again and again.
struct Load {
    /// What is sent once, before the first message and after the last.
    opening: Vec<u8>,
    closing: Vec<u8>,
    /// So many messages, encoded.
    unit: Vec<u8>,
    lines: u32,
    /// Messages under way at most.
    window: u32,
    answers: Answers,
}

/// How answers come.
enum Answers {
    /// One a message, each with its length.
    Whole,
    /// All in one body.
    Lines(Lines),
}

/// Where in a body of lines a connection stands.
#[derive(Default)]
struct Lines {
    begun: bool,
    chunks: Chunks,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    ended: bool,
}

/// What answers said.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    accepted: u64,
    refused: u64,
}

struct Conn {
    stream: TcpStream,
    load: Load,
    /// What is being sent, and how far it is.
    part: Part,
    at: usize,
    under_way: u32,
    sent: u64,
    told: Told,
    /// The beginning of an answer whose end has not come.
    carry: Vec<u8>,
    alive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Opening,
    Unit,
    Closing,
    Nothing,
}

fn run(common: &Common, target: &Target, name: &str, count: u32, load: impl Fn(u32) -> Load) -> Result<Report> {
    let watched = common.pid.map(Process::new).transpose()?;
    let mut poll = Poll::new()?;
    let mut conns = Vec::new();
    for number in 0..count {
        let stream = target.connect()?;
        stream.set_nonblocking(true)?;
        let mut conn = Conn::new(TcpStream::from_std(stream), load(number));
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut conn.stream, Token(usize::try_from(number)?), both)?;
        conns.push(conn);
    }
    let warmup = Duration::from_secs_f64(if common.messages.is_some() { 0.0 } else { common.warmup });
    let total = warmup + Duration::from_secs_f64(common.duration);
    let began = Instant::now();
    let progress = Progress::new(u64::try_from(total.as_millis())?, name);
    let snapshot = |conns: &[Conn]| -> Result<Snapshot> {
        let accepted = conns.iter().map(|conn| conn.told.accepted).sum();
        let broker = watched.map(Process::usage).transpose()?;
        Ok(Snapshot { at: Instant::now(), accepted, broker, own: Process::myself().usage()? })
    };
    let (mut first, mut last) = (None, None);
    let (mut events, mut scratch) = (Events::with_capacity(1_024), vec![0; READ_BUFFER]);
    let (mut begun, mut moved, mut before) = (0_u64, Instant::now(), 0);
    while last.is_none() || conns.iter().any(|conn| conn.alive && conn.is_busy()) {
        if let Err(error) = poll.poll(&mut events, Some(TICK))
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &events {
            let Some(conn) = conns.get_mut(event.token().0) else { continue };
            conn.read(&mut scratch)?;
            conn.write(|lines| {
                let goes_on = last.is_none() && common.messages.is_none_or(|most| begun < u64::from(most));
                begun += u64::from(if goes_on { lines } else { 0 });
                goes_on
            });
        }
        let passed = began.elapsed();
        if first.is_none() && passed >= warmup {
            first = Some(snapshot(&conns)?);
        }
        let enough = match common.messages {
            Some(most) => conns.iter().map(|conn| conn.told.accepted + conn.told.refused).sum::<u64>() >= most.into(),
            None => passed >= total,
        };
        let answered = conns.iter().map(|conn| conn.told.accepted + conn.told.refused).sum();
        if answered != before {
            (before, moved) = (answered, Instant::now());
        }
        let stalled = moved.elapsed() > common.patience().max(Duration::from_secs(1));
        if last.is_none() && (enough || stalled || conns.iter().all(|conn| !conn.alive)) {
            last = Some(snapshot(&conns)?);
            // Whoever waits for leave to send is told that there is none any more.
            for conn in &mut conns {
                conn.write(|_| false);
            }
        }
        if stalled {
            break;
        }
        progress.at(u64::try_from(passed.as_millis())?, format!("{answered} published"));
    }
    let (first, last) = first.zip(last).context("the run ended before it began")?;
    if last.accepted == 0 && conns.iter().all(|conn| conn.told.accepted == 0) {
        bail!("the server took no message: {before} were refused (--user, rights, --url)");
    }
    let mut report = Report::new(name, common);
    report.publishers = count;
    report.sent = conns.iter().map(|conn| conn.sent).sum();
    report.refused = conns.iter().map(|conn| conn.told.refused).sum();
    // An answer stands for a delivery: there is no subscriber.
    report.expected = report.sent;
    report.delivered = conns.iter().map(|conn| conn.told.accepted).sum();
    report.lost = report.sent.saturating_sub(report.delivered + report.refused);
    report.unacknowledged = report.lost;
    report.disconnects = conns.iter().map(|conn| u64::from(!conn.alive)).sum();
    let measured = last.accepted - first.accepted;
    report.seconds = (last.at - first.at).as_secs_f64();
    report.sent_per_second = report::rate(measured, report.seconds);
    report.delivered_per_second = report.sent_per_second;
    let spent = |after: Usage, before: Usage| report::micros_each(after.cpu.saturating_sub(before.cpu), measured);
    report.generator_cpu_us = spent(last.own, first.own);
    if let (Some(after), Some(before)) = (last.broker, first.broker) {
        report.broker_cpu_us = spent(after, before);
        report.broker_memory = Some(after.resident);
    }
    Ok(report)
}

/// The state of affairs at one end of the measured interval.
struct Snapshot {
    at: Instant,
    accepted: u64,
    broker: Option<Usage>,
    own: Usage,
}

impl Conn {
    fn new(stream: TcpStream, load: Load) -> Self {
        let part = if load.opening.is_empty() { Part::Nothing } else { Part::Opening };
        let (told, carry) = (Told::default(), Vec::new());
        Self { stream, load, part, at: 0, under_way: 0, sent: 0, told, carry, alive: true }
    }

    /// Whether something is yet to be sent or to come.
    fn is_busy(&self) -> bool {
        self.part != Part::Nothing
            || match &self.load.answers {
                Answers::Whole => self.under_way > 0,
                Answers::Lines(lines) => !lines.ended,
            }
    }

    /// Sends as far as the window and the socket allow; `more` says whether another unit may begin.
    fn write(&mut self, mut more: impl FnMut(u32) -> bool) {
        while self.alive {
            if self.part == Part::Nothing {
                if self.under_way + self.load.lines > self.load.window {
                    return;
                }
                if more(self.load.lines) {
                    self.part = Part::Unit;
                    self.under_way += self.load.lines;
                    self.sent += u64::from(self.load.lines);
                } else if self.load.closing.is_empty() {
                    return;
                } else {
                    self.part = Part::Closing;
                }
            }
            let bytes = match self.part {
                Part::Opening => &self.load.opening,
                Part::Unit => &self.load.unit,
                Part::Closing | Part::Nothing => &self.load.closing,
            };
            match self.stream.write(&bytes[self.at..]) {
                Ok(count) => self.at += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => self.alive = false,
            }
            if self.at == bytes.len() {
                self.at = 0;
                if self.part == Part::Closing {
                    self.load.closing.clear();
                }
                self.part = Part::Nothing;
            }
        }
    }

    /// Takes in what the socket has.
    fn read(&mut self, scratch: &mut [u8]) -> Result<()> {
        while self.alive {
            match self.stream.read(scratch) {
                Ok(0) => self.alive = false,
                Ok(count) => {
                    let before = self.told;
                    self.load.answers.take(&mut self.carry, &scratch[..count], &mut self.told)?;
                    let answered = self.told.accepted + self.told.refused - before.accepted - before.refused;
                    self.under_way = self.under_way.saturating_sub(u32::try_from(answered).unwrap_or(u32::MAX));
                    // A short read emptied the socket: what comes later is told by another event.
                    if count < scratch.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.alive = false,
            }
        }
        Ok(())
    }
}

impl Answers {
    fn take(&mut self, carry: &mut Vec<u8>, bytes: &[u8], told: &mut Told) -> Result<()> {
        match self {
            Self::Whole => {
                // Nearly always a read is an answer: nothing is copied.
                if carry.is_empty() {
                    let used = whole(bytes, told)?;
                    carry.extend_from_slice(&bytes[used..]);
                } else {
                    carry.extend_from_slice(bytes);
                    let used = whole(carry, told)?;
                    carry.drain(..used);
                }
                Ok(())
            }
            Self::Lines(lines) => lines.take(carry, bytes, told),
        }
    }
}

/// Counts one answer after the other; the bytes they take.
fn whole(bytes: &[u8], told: &mut Told) -> Result<usize> {
    let mut used = 0;
    while let Some(Answer { status, length, .. }) = Answer::parse(&bytes[used..])? {
        told.note((200..300).contains(&status));
        used += length;
    }
    Ok(used)
}

impl Lines {
    fn take(&mut self, carry: &mut Vec<u8>, bytes: &[u8], told: &mut Told) -> Result<()> {
        if self.begun {
            return self.body(bytes, told);
        }
        carry.extend_from_slice(bytes);
        let Some(head) = answer::head(carry)? else { return Ok(()) };
        match answer::status(head)? {
            200 => {}
            status => bail!("the server answers a stream of lines with {status} (--user, rights, --url)"),
        }
        self.begun = true;
        let body = carry.split_off(head.len());
        self.body(&body, told)
    }

    fn body(&mut self, bytes: &[u8], told: &mut Told) -> Result<()> {
        let line = &mut self.line;
        self.ended = self.chunks.take(bytes, |piece| {
            for part in piece.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if line.ends_with(b"\n") {
                    told.note(line.starts_with(b"{\"status\":200,"));
                    line.clear();
                }
            }
        })?;
        Ok(())
    }
}

impl Told {
    fn note(&mut self, accepted: bool) {
        if accepted {
            self.accepted += 1;
        } else {
            self.refused += 1;
        }
    }
}
