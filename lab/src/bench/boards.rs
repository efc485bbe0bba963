//! A fleet of MQTT-SN boards, one socket each, that publish or are published to. The air between may lose, duplicate
//! and reorder datagrams; boards may sleep and change their address.

mod air;
mod board;
mod crowd;
mod downlink;
mod uplink;
mod wire;

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::board::Counts;
use self::crowd::Crowd;
use super::args::{Common, Down, Fleet};
use super::process::{Process, Usage};
use super::report::{self, Latency, Report};

pub(super) fn run(common: &Common, fleet: &Fleet) -> Result<Report> {
    let process = common.pid.map(Process::new).transpose()?;
    let gateway = gateway(&common.url)?;
    match fleet.down {
        Some(_) => downlink::check(common)?,
        None if common.qos == 0 => {
            bail!("a QoS 0 publish is not answered, and so sets no pace: -q 1 or -q 2 is wanted")
        }
        None => {}
    }
    let idle = process.map(Process::usage).transpose()?;
    let mut crowd = Crowd::new(gateway, common, fleet)?;
    let began = Instant::now();
    crowd.connect()?;
    let connected = began.elapsed();
    let seated = process.map(Process::usage).transpose()?;

    let meter = Meter(process);
    let mut report = Report::new("boards", common);
    "1.2".clone_into(&mut report.mqtt);
    let measured = match fleet.down {
        None => uplink::run(&mut crowd, common, &meter)?,
        Some(down) => {
            report.scenario = if down == Down::All { "boards, to all" } else { "boards, to one" }.to_owned();
            downlink::run(&mut crowd, common, fleet, down, &meter, &mut report)?
        }
    };
    crowd.goodbye()?;

    let Counts { sent, acknowledged, refused, lost, repeats } = crowd.counts;
    report.repeats = Some(repeats);
    if fleet.down.is_none() {
        (report.publishers, report.sent, report.expected, report.delivered) = (fleet.boards, sent, sent, acknowledged);
        (report.refused, report.unacknowledged) = (refused, lost);
        report.lost = sent.saturating_sub(acknowledged + refused);
    } else {
        (report.publishers, report.subscribers) = (1, fleet.boards);
    }
    report.connect_seconds = Some(connected.as_secs_f64());
    report.seconds = measured.seconds;
    report.delivered_per_second = report::rate(measured.messages, report.seconds);
    report.sent_per_second = match fleet.down {
        Some(Down::All) => report.delivered_per_second / f64::from(fleet.boards),
        _ => report.delivered_per_second,
    };
    report.latency = Latency::of(&crowd.latency);
    report.generator_cpu_us = report::micros_each(measured.own, measured.messages);
    if let Some((spent, resident)) = measured.broker {
        report.broker_cpu_us = report::micros_each(spent, measured.messages);
        report.broker_memory = Some(resident);
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

/// Reads the clocks of both sides.
struct Meter(Option<Process>);

/// One reading.
struct Reading {
    at: Instant,
    messages: u64,
    broker: Option<Usage>,
    own: Usage,
}

/// What lies between two.
struct Measured {
    seconds: f64,
    messages: u64,
    /// The broker's CPU time, and its memory at the end.
    broker: Option<(Duration, u64)>,
    own: Duration,
}

impl Meter {
    fn read(&self, messages: u64) -> Result<Reading> {
        let (own, broker) = (Process::myself().usage()?, self.0.map(Process::usage).transpose()?);
        Ok(Reading { at: Instant::now(), messages, broker, own })
    }

    /// When measuring begins and ends, unless a number of messages ends it.
    fn interval(&self, began: Instant, common: &Common) -> (Instant, Instant) {
        const LONG: Duration = Duration::from_secs(86_400);
        match common.messages {
            Some(_) => (began, began + LONG),
            None => {
                let from = began + Duration::from_secs_f64(common.warmup);
                (from, from + Duration::from_secs_f64(common.duration))
            }
        }
    }
}

impl Reading {
    fn until(&self, end: &Self) -> Measured {
        let spent = |before: Usage, after: Usage| after.cpu.saturating_sub(before.cpu);
        Measured {
            seconds: (end.at - self.at).as_secs_f64(),
            messages: end.messages - self.messages,
            broker: self.broker.zip(end.broker).map(|(before, after)| (spent(before, after), after.resident)),
            own: spent(self.own, end.own),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
