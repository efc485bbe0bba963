//! A client publishes by MQTT, and boards receive: each message goes to all of them, or to one after the other.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mio::Interest;

use super::super::args::{Common, Down, Fleet};
use super::super::clients::Broker;
use super::super::conn::Conn;
use super::super::progress::Progress;
use super::super::report::Report;
use super::super::tally::Stream;
use super::super::template::Template;
use super::super::wire;
use super::crowd::{Arrival, Crowd, PUBLISHER};
use super::{Measured, Meter, millis};

/// Messages under way at most, unless told otherwise, when each goes to all boards: the next when all have this one.
const TO_ALL: u32 = 1;

/// Most messages of one write.
const BURST: u32 = 64;

pub(super) fn run(
    crowd: &mut Crowd,
    common: &Common,
    fleet: &Fleet,
    down: Down,
    meter: &Meter,
    report: &mut Report,
) -> Result<Measured> {
    let mut client = Client::new(crowd, common, fleet, down)?;
    let began = Instant::now();
    let (from, until) = meter.interval(began, common);
    let progress = Progress::new(millis(until - began), "publishing");
    let mut start = meter.read(0)?;
    loop {
        client.pump(crowd.epoch);
        crowd.turn()?;
        let (readable, writable) = std::mem::take(&mut crowd.stirred);
        client.stirs(readable, writable)?;
        let now = Instant::now();
        if !crowd.measuring && now >= from {
            crowd.measuring = true;
            start = meter.read(client.window.delivered)?;
        }
        for arrival in std::mem::take(&mut crowd.arrivals) {
            if client.takes(&arrival, now) && crowd.measuring {
                crowd.took(arrival.took);
            }
        }
        client.window.give_up_after(common.patience(), now);
        progress.at(millis(now - began), format!("{} delivered", client.window.delivered));
        if now >= until || client.is_complete() || !client.conn.alive {
            break;
        }
    }
    let measured = start.until(&meter.read(client.window.delivered)?);
    crowd.measuring = false;
    client.budget = client.sent;
    let mut moved = (Instant::now(), client.window.delivered);
    while client.conn.alive && !client.is_complete() && moved.0.elapsed() < common.patience() {
        client.pump(crowd.epoch);
        crowd.turn()?;
        let (readable, writable) = std::mem::take(&mut crowd.stirred);
        client.stirs(readable, writable)?;
        for arrival in std::mem::take(&mut crowd.arrivals) {
            client.takes(&arrival, Instant::now());
        }
        if client.window.delivered != moved.1 {
            moved = (Instant::now(), client.window.delivered);
        }
    }
    client.account(report);
    Ok(measured)
}

/// Who publishes, and what the boards have had of it.
struct Client {
    conn: Conn,
    template: Template,
    qos: u8,
    down: Down,
    /// Messages it may send in all, has sent, had acknowledged, had refused.
    budget: u32,
    sent: u32,
    acknowledged: u32,
    refused: u32,
    inflight: u32,
    pending: Range<usize>,
    window: Window,
    /// What each board received of what was for it.
    streams: Vec<Stream>,
}

impl Client {
    fn new(crowd: &Crowd, common: &Common, fleet: &Fleet, down: Down) -> Result<Self> {
        let url = fleet.from.clone().context("messages to boards are published by MQTT: --from mqtt://HOST:PORT")?;
        let broker = Broker::new(&Common { url, ..common.clone() })?;
        let publisher = broker.open("p", &[Vec::new()], |_| {})?.pop().context("no publisher")?;
        let inflight = common.inflight.min(publisher.receive_maximum.into());
        let mut conn = Conn::new(publisher)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        crowd.poll.registry().register(conn.stream.socket_mut(), PUBLISHER, both)?;
        let topics: Vec<String> = match down {
            Down::All => crowd.boards.iter().take(1).map(|board| board.topic().to_owned()).collect(),
            Down::One => crowd.boards.iter().map(|board| board.topic().to_owned()).collect(),
        };
        let (copies, messages) = match down {
            Down::All => (fleet.boards, TO_ALL),
            Down::One => (1, fleet.boards),
        };
        let size = usize::try_from(common.size)?;
        Ok(Self {
            conn,
            template: Template::new(common.mqtt, common.qos, size, &topics, usize::try_from(BURST)?),
            qos: common.qos,
            down,
            budget: common.messages.unwrap_or(u32::MAX),
            sent: 0,
            acknowledged: 0,
            refused: 0,
            inflight,
            pending: 0..0,
            window: Window::new(copies, common.window.unwrap_or(messages)),
            streams: crowd.boards.iter().map(|_| Stream::default()).collect(),
        })
    }

    /// Sends as far as the windows allow.
    fn pump(&mut self, epoch: Instant) {
        loop {
            if self.pending.is_empty() && self.conn.may_begin() {
                let mut credit = self.window.credit().min(self.budget - self.sent).min(BURST);
                if self.qos > 0 {
                    credit = credit.min(self.inflight.saturating_sub(self.sent - self.acknowledged));
                }
                if credit > 0 {
                    let now = u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    let count = usize::try_from(credit).unwrap_or(usize::MAX);
                    let (count, range) = self.template.stamp(0, self.sent, count, now);
                    self.sent += count;
                    self.window.sends(count);
                    self.pending = range;
                }
            }
            if self.pending.is_empty() && self.conn.out.is_empty() {
                return;
            }
            self.conn.write(Some(&self.template), &mut self.pending);
            if !self.conn.writable || !self.conn.alive {
                return;
            }
        }
    }

    /// Its connection may be read or written again.
    fn stirs(&mut self, readable: bool, writable: bool) -> Result<()> {
        self.conn.writable |= writable;
        if !readable {
            return Ok(());
        }
        let (acknowledged, refused) = (&mut self.acknowledged, &mut self.refused);
        // Acknowledgements are short: one read takes many of them.
        self.conn.read(&mut [0; 16_384], |frame, _| {
            if frame.kind() == wire::PUBACK {
                *acknowledged += 1;
                *refused += u32::from(frame.acknowledged()?.1);
            }
            Ok(())
        })
    }

    /// Notes a message that a board received; true if it had not had it before.
    fn takes(&mut self, arrival: &Arrival, now: Instant) -> bool {
        let boards = u32::try_from(self.streams.len()).unwrap_or(u32::MAX);
        let own = if self.down == Down::All { arrival.sequence } else { arrival.sequence / boards };
        let fresh = self.streams[arrival.board].note(own);
        if fresh {
            self.window.receives(now);
        }
        fresh
    }

    /// Whether everything that was to be sent has arrived and been acknowledged.
    fn is_complete(&self) -> bool {
        self.sent == self.budget
            && self.pending.is_empty()
            && self.window.under_way == 0
            && (self.qos == 0 || self.acknowledged == self.sent)
    }

    fn account(&self, report: &mut Report) {
        report.sent = self.sent.into();
        report.expected = report.sent * self.window.copies;
        report.delivered = self.streams.iter().map(|stream| stream.delivered).sum();
        report.duplicates = self.streams.iter().map(|stream| stream.duplicates).sum();
        report.reordered = self.streams.iter().map(|stream| stream.reordered).sum();
        report.lost = report.expected.saturating_sub(report.delivered);
        report.refused = self.refused.into();
        report.unacknowledged = if self.qos == 0 { 0 } else { (self.sent - self.acknowledged).into() };
        report.disconnects = u64::from(!self.conn.alive);
    }
}

/// How many deliveries are under way, and may be.
struct Window {
    /// Boards that a message goes to.
    copies: u64,
    most: u64,
    under_way: u64,
    delivered: u64,
    moved: Instant,
}

impl Window {
    fn new(boards: u32, messages: u32) -> Self {
        let copies = u64::from(boards);
        Self { copies, most: copies * u64::from(messages), under_way: 0, delivered: 0, moved: Instant::now() }
    }

    /// Messages that may be sent now.
    fn credit(&self) -> u32 {
        u32::try_from(self.most.saturating_sub(self.under_way) / self.copies).unwrap_or(u32::MAX)
    }

    fn sends(&mut self, messages: u32) {
        if self.under_way == 0 {
            self.moved = Instant::now();
        }
        self.under_way += u64::from(messages) * self.copies;
    }

    /// What was given up may come after all.
    fn receives(&mut self, now: Instant) {
        (self.delivered, self.moved) = (self.delivered + 1, now);
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// What has not come for so long, with nothing else coming either, is not waited for any more.
    fn give_up_after(&mut self, patience: Duration, now: Instant) {
        if self.under_way > 0 && now.saturating_duration_since(self.moved) > patience {
            self.under_way = 0;
        }
    }
}

pub(super) fn check(common: &Common) -> Result<()> {
    if common.qos == 2 {
        bail!("messages to boards are measured at QoS 0 or 1");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_counts_every_copy_and_forgets_what_does_not_come() {
        let (now, mut window) = (Instant::now(), Window::new(10, 4));
        assert_eq!(window.credit(), 4);
        window.sends(4);
        assert_eq!(window.credit(), 0);
        for _ in 0..9 {
            window.receives(now);
        }
        assert_eq!(window.credit(), 0, "one board has not had the first message yet");
        window.receives(now);
        assert_eq!((window.credit(), window.delivered, window.under_way), (1, 10, 30));
        window.give_up_after(Duration::from_secs(1), now + Duration::from_millis(999));
        assert_eq!(window.under_way, 30);
        window.give_up_after(Duration::from_secs(1), now + Duration::from_millis(1_001));
        assert_eq!(window.credit(), 4);
        window.receives(now);
        assert_eq!((window.under_way, window.delivered), (0, 11), "a late one counts, and makes no more room");
    }
}
