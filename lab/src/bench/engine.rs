//! One thread, one poll, all connections: sends as far as the window allows, counts what arrives.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, Waker};

use super::args::Mqtt;
use super::conn::Conn;
use super::pacer::Pacer;
use super::tally::Stream;
use super::template::{self, Template};
use super::wire::{self, Frame};

const TICK: Duration = Duration::from_millis(50);
const READ_BUFFER: usize = 262_144;
const PACER: Token = Token(usize::MAX);

/// A sending connection and where it stands.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) conn: Conn,
    pub(super) template: Template,
    pub(super) group: usize,
    /// Unacknowledged messages it may have; QoS 1 and 2 only.
    pub(super) inflight: u32,
    /// Messages it may have under way end to end.
    pub(super) share: u32,
    pub(super) batch: u32,
    /// It waits until it may send so many at once.
    pub(super) least: u32,
    /// Messages it may send in all.
    pub(super) budget: u32,
    pub(super) sent: u32,
    pub(super) acknowledged: u32,
    pub(super) refused: u32,
    /// Messages below this have arrived everywhere, or are no longer waited for.
    arrived: u32,
    pending: Range<usize>,
    /// When what is unacknowledged was sent, if acknowledgements are timed: they come in the order of the messages
    /// [MQTT-4.6.0-2].
    unanswered: Option<VecDeque<u64>>,
}

/// A receiving connection and what it has seen.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) conn: Conn,
    pub(super) group: usize,
    /// The number of the publisher the first stream belongs to.
    pub(super) first: u32,
    pub(super) streams: Vec<Stream>,
}

/// Publishers whose every message goes to each of these subscribers.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) publishers: Range<usize>,
    pub(super) subscribers: Range<usize>,
    touched: bool,
    delivered: u64,
    moved: Instant,
}

/// Everything the loop needs.
pub(super) struct Engine {
    poll: Poll,
    mqtt: Mqtt,
    qos: u8,
    pub(super) publishers: Vec<Publisher>,
    pub(super) subscribers: Vec<Subscriber>,
    pub(super) groups: Vec<Group>,
    touched: Vec<usize>,
    scratch: Vec<u8>,
    epoch: Instant,
    /// `None` while no latency is to be recorded.
    pub(super) latency: Option<Histogram<u64>>,
    /// Times from message to acknowledgement; `None` while none are to be recorded.
    pub(super) acknowledgements: Option<Histogram<u64>>,
    /// Record each message, not one a read.
    pub(super) every_latency: bool,
    pacer: Option<Pacer>,
    /// First deliveries of a message to a subscriber.
    pub(super) delivered: u64,
    patience: Duration,
}

impl Publisher {
    pub(super) fn new(conn: Conn, template: Template, group: usize) -> Self {
        Self {
            conn,
            template,
            group,
            inflight: 1,
            share: 1,
            batch: 1,
            least: 1,
            budget: 0,
            sent: 0,
            acknowledged: 0,
            refused: 0,
            arrived: 0,
            pending: 0..0,
            unanswered: None,
        }
    }

    /// Measures the time from each message to its acknowledgement.
    pub(super) fn time_acknowledgements(&mut self) {
        self.unanswered = Some(VecDeque::new());
    }

    fn credit(&self, qos: u8) -> u32 {
        let mut credit = self.share.saturating_sub(self.sent.saturating_sub(self.arrived));
        if qos > 0 {
            credit = credit.min(self.inflight.saturating_sub(self.sent.saturating_sub(self.acknowledged)));
        }
        let left = self.budget.saturating_sub(self.sent);
        if credit < self.least.min(left) { 0 } else { credit.min(self.batch).min(left) }
    }

    fn pump(&mut self, number: u32, qos: u8, epoch: Instant) {
        loop {
            if self.pending.is_empty() && self.conn.may_begin() {
                let credit = self.credit(qos);
                if credit > 0 {
                    let now = nanoseconds(epoch.elapsed());
                    let count = usize::try_from(credit).unwrap_or(usize::MAX);
                    let (count, range) = self.template.stamp(number, self.sent, count, now);
                    self.sent += count;
                    self.pending = range;
                    if let Some(unanswered) = &mut self.unanswered {
                        unanswered.extend((0..count).map(|_| now));
                    }
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
}

impl Subscriber {
    pub(super) fn new(conn: Conn, group: usize, publishers: Range<usize>) -> Self {
        let first = u32::try_from(publishers.start).unwrap_or(u32::MAX);
        Self { conn, group, first, streams: publishers.map(|_| Stream::default()).collect() }
    }
}

impl Group {
    pub(super) fn new(publishers: Range<usize>, subscribers: Range<usize>) -> Self {
        Self { publishers, subscribers, touched: false, delivered: 0, moved: Instant::now() }
    }
}

impl Engine {
    pub(super) fn new(mqtt: Mqtt, qos: u8, patience: Duration) -> Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            mqtt,
            qos,
            publishers: Vec::new(),
            subscribers: Vec::new(),
            groups: Vec::new(),
            touched: Vec::new(),
            scratch: Vec::new(),
            epoch: Instant::now(),
            latency: None,
            acknowledgements: None,
            every_latency: false,
            pacer: None,
            delivered: 0,
            patience,
        })
    }

    /// Registers all connections; to be called once they are in place.
    pub(super) fn start(&mut self) -> Result<()> {
        let longest = self.publishers.iter().map(|publisher| publisher.template.longest()).max().unwrap_or(0);
        // The longest packet's beginning and as much again: a read always has room to make progress.
        self.scratch = vec![0; READ_BUFFER.max(2 * longest)];
        let both = Interest::READABLE | Interest::WRITABLE;
        let publishers = self.publishers.iter_mut().map(|publisher| &mut publisher.conn);
        let subscribers = self.subscribers.iter_mut().map(|subscriber| &mut subscriber.conn);
        for (token, conn) in publishers.chain(subscribers).enumerate() {
            self.poll.registry().register(conn.stream.socket_mut(), Token(token), both)?;
        }
        Ok(())
    }

    /// Takes in one more subscriber, of the last group, with all that its publishers have sent so far still to come.
    pub(super) fn admit(&mut self, mut conn: Conn) -> Result<()> {
        let group = self.groups.len() - 1;
        let token = Token(self.publishers.len() + self.subscribers.len());
        self.poll.registry().register(conn.stream.socket_mut(), token, Interest::READABLE | Interest::WRITABLE)?;
        let publishers = self.groups[group].publishers.clone();
        self.subscribers.push(Subscriber::new(conn, group, publishers));
        self.groups[group].subscribers.end += 1;
        // Some of it may have come with the answer to CONNECT.
        self.subscriber_event(self.subscribers.len() - 1, true, true)
    }

    /// From now on messages are released at this rate, whatever the publishers' budgets were.
    pub(super) fn pace(&mut self, rate: u32) -> Result<()> {
        self.pacer = Some(Pacer::start(rate, Waker::new(self.poll.registry(), PACER)?));
        Ok(())
    }

    /// Records times from now on.
    pub(super) fn record(&mut self, empty: Histogram<u64>) {
        let timed = self.publishers.iter().any(|publisher| publisher.unanswered.is_some());
        self.acknowledgements = timed.then(|| empty.clone());
        self.latency = Some(empty);
    }

    /// Nothing new is sent after this.
    pub(super) fn stop(&mut self) {
        self.pacer = None;
        for publisher in &mut self.publishers {
            publisher.budget = publisher.sent;
        }
    }

    /// Runs until `done` says so (asked every turn), or nothing can move any more.
    pub(super) fn run(&mut self, mut done: impl FnMut(&Self) -> bool) -> Result<()> {
        let mut events = Events::with_capacity(1_024);
        let mut checked = Instant::now();
        for group in 0..self.groups.len() {
            self.groups[group].moved = checked;
            self.send(group);
        }
        while !done(self) {
            if let Err(error) = self.poll.poll(&mut events, Some(TICK))
                && error.kind() != ErrorKind::Interrupted
            {
                return Err(error.into());
            }
            for event in &events {
                if event.token() == PACER {
                    self.release();
                    continue;
                }
                let token = event.token().0;
                if token < self.publishers.len() {
                    self.publisher_event(token, event.is_readable(), event.is_writable())?;
                } else {
                    self.subscriber_event(token - self.publishers.len(), event.is_readable(), event.is_writable())?;
                }
            }
            let mut touched = std::mem::take(&mut self.touched);
            for group in touched.drain(..) {
                self.groups[group].touched = false;
                self.send(group);
            }
            self.touched = touched;
            if checked.elapsed() >= TICK {
                checked = Instant::now();
                self.give_up_on_stalled(checked);
            }
        }
        Ok(())
    }

    /// Messages sent, and deliveries they should cause.
    pub(super) fn sent_and_expected(&self) -> (u64, u64) {
        let (mut sent, mut expected) = (0, 0);
        for group in &self.groups {
            let published: u64 = self.publishers[group.publishers.clone()].iter().map(|p| u64::from(p.sent)).sum();
            sent += published;
            expected += published * u64::try_from(group.subscribers.len()).unwrap_or(0);
        }
        (sent, expected)
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.publishers.iter().map(|publisher| u64::from(publisher.acknowledged)).sum()
    }

    pub(super) fn unacknowledged(&self) -> u64 {
        if self.qos == 0 {
            return 0;
        }
        self.publishers.iter().map(|publisher| u64::from(publisher.sent.saturating_sub(publisher.acknowledged))).sum()
    }

    /// Whether every message sent has arrived and been acknowledged, with the last handshake's packets written.
    pub(super) fn is_complete(&self) -> bool {
        self.delivered >= self.sent_and_expected().1
            && self.unacknowledged() == 0
            && self.subscribers.iter().all(|subscriber| subscriber.conn.out.is_empty() || !subscriber.conn.alive)
    }

    pub(super) fn disconnects(&self) -> u64 {
        let publishers = self.publishers.iter().map(|publisher| &publisher.conn);
        let all = publishers.chain(self.subscribers.iter().map(|subscriber| &subscriber.conn));
        all.map(|conn| u64::from(!conn.alive)).sum()
    }

    fn publisher_event(&mut self, number: usize, readable: bool, writable: bool) -> Result<()> {
        let publisher = &mut self.publishers[number];
        publisher.conn.writable |= writable;
        if readable && publisher.conn.alive {
            let (acknowledged, refused) = (&mut publisher.acknowledged, &mut publisher.refused);
            let (unanswered, histogram) = (&mut publisher.unanswered, &mut self.acknowledgements);
            let now = nanoseconds(self.epoch.elapsed());
            publisher.conn.read(&mut self.scratch, |frame, out| {
                let refuses = match frame.kind() {
                    wire::PUBACK | wire::PUBCOMP => frame.acknowledged()?.1,
                    wire::PUBREC => match frame.acknowledged()? {
                        // A refusal ends the exchange (MQTT 5 §4.3.3).
                        (_, true) => true,
                        (id, false) => {
                            wire::acknowledge(out, wire::PUBREL, id);
                            return Ok(());
                        }
                    },
                    _ => return Ok(()),
                };
                *refused += u32::from(refuses);
                *acknowledged += 1;
                let sent = unanswered.as_mut().and_then(VecDeque::pop_front);
                if let (Some(sent), Some(histogram)) = (sent, histogram.as_mut()) {
                    histogram.saturating_record(now.saturating_sub(sent));
                }
                Ok(())
            })?;
        }
        let group = publisher.group;
        self.touch(group);
        Ok(())
    }

    fn subscriber_event(&mut self, number: usize, readable: bool, writable: bool) -> Result<()> {
        let subscriber = &mut self.subscribers[number];
        subscriber.conn.writable |= writable;
        let mut fresh = 0;
        if readable && subscriber.conn.alive {
            let now = nanoseconds(self.epoch.elapsed());
            let (mqtt, first, streams) = (self.mqtt, subscriber.first, &mut subscriber.streams);
            let (latency, every, mut sampled) = (&mut self.latency, self.every_latency, false);
            subscriber.conn.read(&mut self.scratch, |frame, out| {
                if let Some(sent) = received(&frame, mqtt, first, streams, out)? {
                    fresh += 1;
                    if (every || !sampled)
                        && let Some(latency) = latency
                    {
                        sampled = true;
                        latency.saturating_record(now.saturating_sub(sent));
                    }
                }
                Ok(())
            })?;
        }
        subscriber.conn.write(None, &mut (0..0));
        let group = subscriber.group;
        self.delivered += fresh;
        self.groups[group].delivered += fresh;
        if fresh > 0 || !self.subscribers[number].conn.alive {
            self.touch(group);
        }
        Ok(())
    }

    fn touch(&mut self, group: usize) {
        if !std::mem::replace(&mut self.groups[group].touched, true) {
            self.touched.push(group);
        }
    }

    /// Lets a group's publishers send what its subscribers have made room for.
    fn send(&mut self, group: usize) {
        let Group { publishers, subscribers, .. } = &self.groups[group];
        let first = publishers.start;
        for number in publishers.clone() {
            let publisher = &mut self.publishers[number];
            let alive = self.subscribers[subscribers.clone()].iter().filter(|subscriber| subscriber.conn.alive);
            let slowest = alive.map(|subscriber| subscriber.streams[number - first].next()).min();
            publisher.arrived = publisher.arrived.max(slowest.unwrap_or(0));
            publisher.pump(u32::try_from(number).unwrap_or(u32::MAX), self.qos, self.epoch);
        }
    }

    fn release(&mut self) {
        let Some(pacer) = &self.pacer else { return };
        let due = pacer.due();
        for (number, publisher) in self.publishers.iter_mut().enumerate() {
            publisher.budget = due;
            publisher.pump(u32::try_from(number).unwrap_or(u32::MAX), self.qos, self.epoch);
        }
    }

    /// Credit for what does not come any more; it stays counted as lost unless it comes after all.
    fn give_up_on_stalled(&mut self, now: Instant) {
        for number in 0..self.groups.len() {
            let group = &mut self.groups[number];
            if group.delivered > 0 {
                group.delivered = 0;
                group.moved = now;
            } else if now.duration_since(group.moved) > self.patience {
                group.moved = now;
                for publisher in &mut self.publishers[group.publishers.clone()] {
                    publisher.arrived = publisher.sent;
                }
                self.send(number);
            }
        }
    }
}

/// Takes in a packet a subscriber got; the time a message was sent, if it had not come before.
fn received(
    frame: &Frame<'_>,
    mqtt: Mqtt,
    first: u32,
    streams: &mut [Stream],
    out: &mut Vec<u8>,
) -> Result<Option<u64>> {
    match frame.kind() {
        wire::PUBLISH => {}
        wire::PUBREL => {
            wire::acknowledge(out, wire::PUBCOMP, frame.acknowledged()?.0);
            return Ok(None);
        }
        _ => return Ok(None),
    }
    let publish = frame.publish(mqtt)?;
    match publish.qos {
        0 => {}
        1 => wire::acknowledge(out, wire::PUBACK, publish.id),
        _ => wire::acknowledge(out, wire::PUBREC, publish.id),
    }
    let Some((publisher, sequence, sent)) = template::read_stamp(publish.payload) else {
        return Err(wire::Malformed("a message that no publisher of this run sent").into());
    };
    let index = publisher.checked_sub(first).and_then(|index| usize::try_from(index).ok());
    let Some(stream) = index.and_then(|index| streams.get_mut(index)) else {
        return Err(wire::Malformed("a message that another group's publisher sent").into());
    };
    Ok(stream.note(sequence).then_some(sent))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
