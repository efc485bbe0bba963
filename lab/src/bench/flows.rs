//! The scenarios in which messages flow from publishers to subscribers all the time.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use super::args::Common;
use super::clients::Broker;
use super::conn::Conn;
use super::engine::{Engine, Group, Publisher, Subscriber};
use super::process::{Process, Usage};
use super::progress::Progress;
use super::report::{self, Latency, Report};
use super::template::{LARGEST_WRITE, Template};

/// Most messages under way to one subscriber unless told otherwise: below what brokers queue by default.
const LARGEST_WINDOW: u32 = 4_000;

/// Publishers and subscribers that belong together.
struct Plan {
    /// Topics of each publisher.
    publishers: Vec<Vec<String>>,
    /// Filters of each subscriber.
    subscribers: Vec<Vec<String>>,
}

/// What differs between scenarios besides who is connected.
pub(super) struct Flow {
    name: &'static str,
    /// Bytes under way to one subscriber.
    window: u32,
    /// Messages a second, if at a fixed rate.
    rate: Option<u32>,
    /// Filters nobody publishes to, one list a connection.
    ballast: Vec<Vec<String>>,
    /// Filters to divide the growth in memory by.
    filters: u32,
    /// What the costs are divided by.
    by: By,
}

/// What counts as a message that was dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// It reached a subscriber.
    Delivery,
    /// It was acknowledged to its publisher.
    Acknowledgement,
}

impl Flow {
    fn new(name: &'static str, window: u32) -> Self {
        Self { name, window, rate: None, ballast: Vec::new(), filters: 0, by: By::Delivery }
    }

    /// Measured by what is acknowledged; nothing waits for deliveries.
    pub(super) fn of_acknowledgements(name: &'static str) -> Self {
        Self { by: By::Acknowledgement, ..Self::new(name, 0) }
    }
}

pub(super) fn fan_in(common: &Common, publishers: u32) -> Result<Report> {
    let broker = Broker::new(common)?;
    let root = broker.root();
    let publishers = (0..publishers).map(|n| vec![format!("{root}/{n}")]).collect();
    let plan = Plan { publishers, subscribers: vec![vec![format!("{root}/+")]] };
    run(common, &broker, &Flow::new("fan-in", 1_048_576), vec![plan])
}

pub(super) fn fan_out(common: &Common, subscribers: u32) -> Result<Report> {
    let broker = Broker::new(common)?;
    let topic = format!("{}/all", broker.root());
    let subscribers = (0..subscribers).map(|_| vec![topic.clone()]).collect();
    let plan = Plan { publishers: vec![vec![topic]], subscribers };
    run(common, &broker, &Flow::new("fan-out", 131_072), vec![plan])
}

pub(super) fn pairs(common: &Common, pairs: u32) -> Result<Report> {
    let broker = Broker::new(common)?;
    let root = broker.root();
    let pair = |n| vec![vec![format!("{root}/{n}")]];
    let plans = (0..pairs).map(|n| Plan { publishers: pair(n), subscribers: pair(n) }).collect();
    // Small bursts are the point of a given batch: the next one starts when this one has arrived.
    let common = Common { window: common.window.or(common.batch), ..common.clone() };
    run(&common, &broker, &Flow::new("pairs", 65_536), plans)
}

pub(super) fn rotate(common: &Common, publishers: u32, topics: u32) -> Result<Report> {
    let broker = Broker::new(common)?;
    let root = broker.root();
    // The same topics for all of them, each starting elsewhere.
    let topics = |first: u32| (0..topics).map(|n| format!("{root}/{}", (first + n) % topics)).collect();
    let publishers = (0..publishers).map(topics).collect();
    let plan = Plan { publishers, subscribers: vec![vec![format!("{root}/+")]] };
    run(common, &broker, &Flow::new("rotate", 1_048_576), vec![plan])
}

pub(super) fn latency(common: &Common, rate: u32) -> Result<Report> {
    let broker = Broker::new(common)?;
    let topic = || vec![vec![format!("{}/tick", broker.root())]];
    let plan = Plan { publishers: topic(), subscribers: topic() };
    let flow = Flow { rate: Some(rate), ..Flow::new("latency", 1_048_576) };
    run(common, &broker, &flow, vec![plan])
}

/// A quarter each: exact filters that match, `+`, `#`, and exact filters that never match.
pub(super) fn filters(common: &Common, filters: u32, per_connection: u32) -> Result<Report> {
    let broker = Broker::new(common)?;
    let root = broker.root();
    let quarter = filters / 4;
    let (mut plans, mut ballast) = (Vec::new(), Vec::new());
    let mut first = 0;
    while first < quarter {
        let numbers = first..quarter.min(first + per_connection);
        let list = |shape: &dyn Fn(u32) -> String| numbers.clone().map(shape).collect::<Vec<_>>();
        let street = |n: u32| n % 331;
        let exact = list(&|n| format!("{root}/street-{}/house-{n}/temperature", street(n)));
        let plus = list(&|n| format!("{root}/+/house-{n}/temperature"));
        let hash = list(&|n| format!("{root}/street-{}/house-{n}/#", street(n)));
        ballast.push(list(&|n| format!("{root}/street-{}/house-{n}/humidity", street(n))));
        plans.push(Plan { publishers: vec![exact.clone()], subscribers: vec![exact, plus, hash] });
        first = numbers.end;
    }
    let flow = Flow { ballast, filters: quarter * 4, ..Flow::new("filters", 262_144) };
    run(common, &broker, &flow, plans)
}

fn run(common: &Common, broker: &Broker, flow: &Flow, plans: Vec<Plan>) -> Result<Report> {
    let watched = common.pid.map(Process::new).transpose()?;
    let mut report = Report::new(flow.name, common);
    let before = watched.map(Process::usage).transpose()?;
    let mut engine = Engine::new(common.mqtt, common.qos, common.patience())?;
    let _ballast = broker.open("b", &flow.ballast, |_| {})?;
    connect(common, broker, flow, plans, &mut engine)?;
    if let (Some(process), Some(before), true) = (watched, before, flow.filters > 0) {
        report.item = Some("filter".to_owned());
        let growth = process.usage()?.resident.saturating_sub(before.resident);
        report.memory_per_item = Some(report::ratio(growth, u64::from(flow.filters)));
    }
    report.publishers = u32::try_from(engine.publishers.len())?;
    report.subscribers = u32::try_from(engine.subscribers.len())?;
    engine.start()?;
    measure(common, flow, watched, &mut engine, &mut report)?;
    account(&engine, &mut report);
    Ok(report)
}

fn connect(common: &Common, broker: &Broker, flow: &Flow, plans: Vec<Plan>, engine: &mut Engine) -> Result<()> {
    let count: usize = plans.iter().map(|plan| plan.publishers.len() + plan.subscribers.len()).sum();
    let progress = Progress::new(u64::try_from(count)?, "connecting");
    let step = |done| progress.at(u64::try_from(done).unwrap_or(0), String::new());
    let (mut topics, mut filters) = (Vec::new(), Vec::new());
    for plan in plans {
        let publishers = topics.len()..topics.len() + plan.publishers.len();
        let subscribers = filters.len()..filters.len() + plan.subscribers.len();
        engine.groups.push(Group::new(publishers, subscribers));
        topics.extend(plan.publishers);
        filters.extend(plan.subscribers);
    }
    let subscribers = broker.of_subscribers(common)?.open("s", &filters, step)?;
    let publishers = broker.open("p", &vec![Vec::new(); topics.len()], |done| step(filters.len() + done))?;
    let mut subscribers = subscribers.into_iter();
    let mut publishers = publishers.into_iter().zip(&topics);
    let total = u32::try_from(topics.len())?;
    for (number, group) in engine.groups.iter().enumerate() {
        for client in subscribers.by_ref().take(group.subscribers.len()) {
            engine.subscribers.push(Subscriber::new(Conn::new(client)?, number, group.publishers.clone()));
        }
        let sizes = Sizes::new(common, flow.window, u32::try_from(group.publishers.len())?);
        for (client, topics) in publishers.by_ref().take(group.publishers.len()) {
            let receive_maximum = u32::from(client.receive_maximum);
            let batch = usize::try_from(sizes.batch)?;
            let size = usize::try_from(common.size)?;
            let template = Template::new(common.mqtt, common.qos, size, topics, batch);
            let mut publisher = Publisher::new(Conn::new(client)?, template, number);
            publisher.inflight = common.inflight.min(receive_maximum);
            publisher.share = sizes.share;
            publisher.batch = sizes.batch;
            let most = if common.qos > 0 { publisher.inflight.min(sizes.share) } else { sizes.share };
            publisher.least = if flow.rate.is_some() { 1 } else { sizes.batch.min(most).div_ceil(2) };
            publisher.budget = match (flow.rate, common.messages) {
                (Some(_), _) => 0,
                (None, None) => u32::MAX,
                // What does not divide evenly goes to the first publishers.
                (None, Some(messages)) => {
                    let number = u32::try_from(engine.publishers.len())?;
                    messages / total + u32::from(number < messages % total)
                }
            };
            engine.publishers.push(publisher);
        }
    }
    Ok(())
}

/// How a window is cut into bursts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    /// A publisher's part of the window, in messages.
    share: u32,
    batch: u32,
}

impl Sizes {
    fn new(common: &Common, window: u32, publishers: u32) -> Self {
        // Header, topic and identifier: some 40 bytes.
        let wire = common.size.saturating_add(40);
        let window = common.window.unwrap_or((window / wire).clamp(8, LARGEST_WINDOW));
        let share = (window / publishers.max(1)).max(1);
        let write = u32::try_from(LARGEST_WRITE).unwrap_or(u32::MAX) / wire;
        let batch = common.batch.unwrap_or_else(|| share.div_ceil(2).min(write.max(1)));
        Self { share, batch: batch.min(share) }
    }
}

/// One reading of all clocks and counters.
struct Reading {
    at: Instant,
    sent: u64,
    delivered: u64,
    acknowledged: u64,
    broker: Option<Usage>,
    own: Usage,
}

impl Reading {
    fn take(engine: &Engine, watched: Option<Process>) -> Result<Self> {
        let own = Process::myself().usage()?;
        let broker = watched.map(Process::usage).transpose()?;
        let (sent, _) = engine.sent_and_expected();
        Ok(Self {
            at: Instant::now(),
            sent,
            delivered: engine.delivered,
            acknowledged: engine.acknowledged(),
            broker,
            own,
        })
    }
}

pub(super) fn measure(
    common: &Common,
    flow: &Flow,
    watched: Option<Process>,
    engine: &mut Engine,
    report: &mut Report,
) -> Result<()> {
    let histogram = Histogram::new_with_bounds(1, 600_000_000_000, 3)?;
    if let Some(rate) = flow.rate {
        engine.pace(rate)?;
        engine.every_latency = true;
    }
    let broken = |engine: &Engine| engine.disconnects() > 0;
    let mut drained = false;
    let (start, end);
    if let Some(messages) = common.messages {
        engine.record(histogram);
        start = Reading::take(engine, watched)?;
        if let Some(rate) = flow.rate {
            let last = start.at + Duration::from_secs_f64(f64::from(messages) / f64::from(rate));
            run_until(engine, last, start.at, flow.name, broken)?;
            engine.stop();
        }
        drain(engine, common.patience())?;
        drained = true;
        end = Reading::take(engine, watched)?;
    } else {
        let warm = Instant::now();
        run_until(engine, warm + Duration::from_secs_f64(common.warmup), warm, "warming up", broken)?;
        engine.record(histogram);
        start = Reading::take(engine, watched)?;
        let last = start.at + Duration::from_secs_f64(common.duration);
        run_until(engine, last, start.at, flow.name, broken)?;
        end = Reading::take(engine, watched)?;
    }
    report.latency = engine.latency.take().as_ref().and_then(Latency::of);
    report.acknowledgement = engine.acknowledgements.take().as_ref().and_then(Latency::of);
    report.seconds = (end.at - start.at).as_secs_f64();
    let (delivered, acknowledged) = (end.delivered - start.delivered, end.acknowledged - start.acknowledged);
    let handled = if flow.by == By::Delivery { delivered } else { acknowledged };
    report.sent_per_second = report::rate(end.sent - start.sent, report.seconds);
    report.delivered_per_second = report::rate(delivered, report.seconds);
    if flow.by == By::Acknowledgement {
        report.acknowledged_per_second = Some(report::rate(acknowledged, report.seconds));
    }
    report.generator_cpu_us = report::micros_each(end.own.cpu.saturating_sub(start.own.cpu), handled);
    if let (Some(start), Some(end)) = (start.broker, end.broker) {
        report.broker_cpu_us = report::micros_each(end.cpu.saturating_sub(start.cpu), handled);
        report.broker_memory = Some(end.resident);
    }
    if !drained {
        engine.stop();
        drain(engine, common.patience())?;
    }
    Ok(())
}

fn run_until(
    engine: &mut Engine,
    last: Instant,
    first: Instant,
    name: &str,
    broken: impl Fn(&Engine) -> bool,
) -> Result<()> {
    let total = u64::try_from((last - first).as_millis())?;
    let progress = Progress::new(total, name);
    let mut shown = (Instant::now(), engine.delivered);
    engine.run(|engine| {
        let now = Instant::now();
        if now - shown.0 > Duration::from_millis(250) {
            let rate = report::rate(engine.delivered - shown.1, (now - shown.0).as_secs_f64());
            let passed = u64::try_from((now - first).as_millis()).unwrap_or(0);
            progress.at(passed.min(total), format!("{rate:.0}/s"));
            shown = (now, engine.delivered);
            return now >= last || broken(engine);
        }
        now >= last
    })
}

/// Goes on until everything has arrived, or nothing has moved for so long.
pub(super) fn drain(engine: &mut Engine, patience: Duration) -> Result<()> {
    let mut moved = (Instant::now(), u64::MAX);
    let mut asked = Instant::now();
    engine.run(|engine| {
        // Asking costs a look at every connection; not every turn.
        if asked.elapsed() < Duration::from_millis(2) {
            return false;
        }
        asked = Instant::now();
        let budget_left = engine.publishers.iter().any(|publisher| publisher.sent < publisher.budget);
        let state = engine.delivered ^ engine.unacknowledged() << 40;
        if state != moved.1 {
            moved = (asked, state);
        }
        // A stalled window is opened again after `patience`; only when that has not helped either is it over.
        (!budget_left && engine.is_complete()) || asked - moved.0 > patience * 2
    })
}

pub(super) fn account(engine: &Engine, report: &mut Report) {
    (report.sent, report.expected) = engine.sent_and_expected();
    for stream in engine.subscribers.iter().flat_map(|subscriber| &subscriber.streams) {
        report.delivered += stream.delivered;
        report.duplicates += stream.duplicates;
        report.reordered += stream.reordered;
    }
    report.lost = report.expected.saturating_sub(report.delivered);
    report.refused = engine.publishers.iter().map(|publisher| u64::from(publisher.refused)).sum();
    report.unacknowledged = engine.unacknowledged();
    report.disconnects = engine.disconnects();
}
