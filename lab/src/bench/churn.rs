//! Clients that come, say one thing to themselves, and go.

use std::io::Write;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;

use super::args::{Common, Mqtt};
use super::clients::Broker;
use super::process::Process;
use super::progress::Progress;
use super::report::{self, Latency, Report};
use super::template::Template;
use super::wire;

pub(super) fn run(common: &Common, concurrency: u32) -> Result<Report> {
    let process = common.pid.map(Process::new).transpose()?;
    let broker = Broker::new(common)?;
    let before = process.map(Process::usage).transpose()?;
    let own = Process::myself().usage()?;
    let began = Instant::now();
    let last = began + Duration::from_secs_f64(common.duration);
    let (tickets, done) = (AtomicU32::new(0), AtomicU64::new(0));
    let more = || match common.messages {
        Some(messages) => tickets.fetch_add(1, Ordering::Relaxed) < messages,
        None => Instant::now() < last,
    };
    let client = |number: u32| -> Result<Histogram<u64>> {
        let mut cycles = Histogram::new_with_bounds(1, 600_000_000_000, 3)?;
        let topics = [format!("{}/{number}", broker.root())];
        let mut template = Template::new(common.mqtt, common.qos, usize::try_from(common.size)?, &topics, 1);
        while more() {
            let start = Instant::now();
            cycle(common, &broker, number, &topics, &mut template)?;
            cycles.saturating_record(u64::try_from(start.elapsed().as_nanos())?);
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(cycles)
    };
    let mut all = Histogram::new_with_bounds(1, 600_000_000_000, 3)?;
    let client = &client;
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..concurrency).map(|number| scope.spawn(move || client(number))).collect();
        let progress = Progress::new(u64::try_from((last - began).as_millis())?, "churn");
        while threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            let passed = u64::try_from(began.elapsed().as_millis())?;
            progress.at(passed, format!("{} cycles", done.load(Ordering::Relaxed)));
        }
        for thread in threads {
            all.add(thread.join().map_err(|_| anyhow!("a client thread failed"))??)?;
        }
        Ok(())
    })?;

    let mut report = Report::new("churn", common);
    (report.publishers, report.subscribers) = (concurrency, concurrency);
    report.seconds = began.elapsed().as_secs_f64();
    // A cycle that misses its message ends the run with an error; all others are complete.
    (report.sent, report.expected, report.delivered) = (all.len(), all.len(), all.len());
    report.sent_per_second = report::rate(all.len(), report.seconds);
    report.delivered_per_second = report.sent_per_second;
    report.latency = Latency::of(&all);
    let spent = Process::myself().usage()?.cpu.saturating_sub(own.cpu);
    report.generator_cpu_us = report::micros_each(spent, all.len());
    if let (Some(process), Some(before)) = (process, before) {
        let after = process.usage()?;
        report.broker_cpu_us = report::micros_each(after.cpu.saturating_sub(before.cpu), all.len());
        report.broker_memory = Some(after.resident);
    }
    Ok(report)
}

fn cycle(common: &Common, broker: &Broker, number: u32, topics: &[String], template: &mut Template) -> Result<()> {
    let mqtt: Mqtt = common.mqtt;
    let mut client =
        broker.greet(&format!("bench-{}-{number}", broker.root().replace('/', "-")), wire::Session::Clean)?;
    client.welcome(mqtt)?;
    client.subscribe(mqtt, topics, common.qos)?;
    client.subscribed(mqtt)?;
    let (_, range) = template.stamp(number, 0, 1, 0);
    client.stream.write_all(template.bytes(range))?;
    let (qos, id) = loop {
        // At QoS 2 the delivery may wait for our PUBREL, or come before the PUBREC (MQTT 3.1.1 §4.3.3 allows both).
        let packet = client.answer_of(&[wire::PUBLISH, wire::PUBREC], |frame| match frame.kind() {
            wire::PUBREC => frame.acknowledged().map(|(id, _)| (None, id)),
            _ => frame.publish(mqtt).map(|publish| (Some(publish.qos), publish.id)),
        })?;
        match packet {
            (Some(qos), id) => break (qos, id),
            (None, id) => {
                let mut release = Vec::new();
                wire::acknowledge(&mut release, wire::PUBREL, id);
                client.stream.write_all(&release)?;
            }
        }
    };
    let mut last = Vec::new();
    // The rest of the exchange is left open at QoS 2: the session ends with this connection.
    if qos > 0 {
        wire::acknowledge(&mut last, if qos == 1 { wire::PUBACK } else { wire::PUBREC }, id);
    }
    last.extend(wire::DISCONNECT_BYTES);
    client.stream.write_all(&last)?;
    Ok(())
}
