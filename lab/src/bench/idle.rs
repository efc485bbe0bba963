//! Connections that do nothing: what does each of them cost?

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::args::Common;
use super::clients::Broker;
use super::process::Process;
use super::progress::Progress;
use super::report::{self, Report};

/// Time for a broker to settle before its memory is read.
const SETTLE: Duration = Duration::from_secs(1);

pub(super) fn run(common: &Common, connections: u32) -> Result<Report> {
    let process =
        Process::new(common.pid.context("idle connections are measured by the broker's memory: give --pid")?)?;
    let broker = Broker::new(common)?;
    let root = broker.root();
    let filters: Vec<_> = (0..connections).map(|n| vec![format!("{root}/device/{n}/command")]).collect();
    let progress = Progress::new(u64::from(connections), "connecting");
    let before = process.usage()?;
    let began = Instant::now();
    let clients = broker.open("i", &filters, |done| progress.at(u64::try_from(done).unwrap_or(0), String::new()))?;
    let seconds = began.elapsed().as_secs_f64();
    std::thread::sleep(SETTLE);
    let after = process.usage()?;
    drop(clients);

    let mut report = Report::new("idle", common);
    report.subscribers = connections;
    report.seconds = seconds;
    report.broker_cpu_us = report::micros_each(after.cpu.saturating_sub(before.cpu), u64::from(connections));
    report.broker_memory = Some(after.resident);
    report.item = Some("connection".to_owned());
    let growth = after.resident.saturating_sub(before.resident);
    report.memory_per_item = Some(report::ratio(growth, u64::from(connections)));
    Ok(report)
}
