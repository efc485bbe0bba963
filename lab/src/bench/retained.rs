//! Retained messages: set one by one, replayed to a new subscriber, cleared.

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use anyhow::{Result, bail};

use super::args::Common;
use super::clients::{Broker, Client};
use super::process::Process;
use super::progress::Progress;
use super::report::{self, Report};
use super::template::{self, STAMP};
use super::wire::{self, Frame};

/// Messages between two answers waited for; below every broker's receive maximum once capped by it.
const BATCH: u32 = 100;

pub(super) fn run(common: &Common, count: u32) -> Result<Report> {
    let process = common.pid.map(Process::new).transpose()?;
    let broker = Broker::new(common)?;
    let root = broker.root();
    let progress = Progress::new(u64::from(count), "retained");
    let usage = || process.map(Process::usage).transpose();
    let mut report = Report::new("retained", common);
    (report.publishers, report.subscribers) = (1, 1);
    let mut publisher = broker.greet(&format!("{}-p", root.replace('/', "-")), wire::Session::Clean)?;
    publisher.welcome(common.mqtt)?;

    let (before, began) = (usage()?, Instant::now());
    let payload = vec![b'x'; usize::try_from(common.size)?];
    report.refused = publish_all(common, &mut publisher, &root, count, &payload, &progress)?;
    report.set_per_second = Some(report::rate(u64::from(count), began.elapsed().as_secs_f64()));
    let set = usage()?;

    let mut subscriber = broker.greet(&format!("{}-s", root.replace('/', "-")), wire::Session::Clean)?;
    subscriber.welcome(common.mqtt)?;
    let (start, began, own) = (usage()?, Instant::now(), Process::myself().usage()?);
    subscriber.subscribe(common.mqtt, &[format!("{root}/#")], common.qos)?;
    let mut seen = vec![false; usize::try_from(count)?];
    let last = replay(common, &mut subscriber, &mut seen, &mut report)?;
    let spent = Process::myself().usage()?.cpu.saturating_sub(own.cpu);
    let replayed = usage()?;

    (report.sent, report.expected) = (u64::from(count), u64::from(count));
    report.lost = report.expected - report.delivered;
    report.seconds = (last - began).as_secs_f64();
    report.delivered_per_second = report::rate(report.delivered, report.seconds);
    report.generator_cpu_us = report::micros_each(spent, report.delivered);
    if let (Some(before), Some(set), Some(start), Some(replayed)) = (before, set, start, replayed) {
        report.broker_cpu_us_per_set = report::micros_each(set.cpu.saturating_sub(before.cpu), u64::from(count));
        report.broker_cpu_us = report::micros_each(replayed.cpu.saturating_sub(start.cpu), report.delivered);
        report.broker_memory = Some(replayed.resident);
        report.item = Some("retained message".to_owned());
        let growth = set.resident.saturating_sub(before.resident);
        report.memory_per_item = Some(report::ratio(growth, u64::from(count)));
    }
    // An empty payload takes a retained message away [MQTT-3.3.1-10]; the broker is left as it was found.
    drop(subscriber);
    publish_all(common, &mut publisher, &root, count, &[], &progress)?;
    publisher.stream.write_all(&wire::DISCONNECT_BYTES)?;
    Ok(report)
}

/// Publishes to every topic; a PINGREQ behind each batch tells when it has been dealt with. Yields the refusals.
fn publish_all(
    common: &Common,
    client: &mut Client,
    root: &str,
    count: u32,
    payload: &[u8],
    progress: &Progress,
) -> Result<u64> {
    let batch = BATCH.min(u32::from(client.receive_maximum));
    let first_byte = wire::PUBLISH | (common.qos << 1) | 1;
    let mut refused = 0;
    let mut first = 0;
    while first < count {
        let end = count.min(first + batch);
        let mut bytes = Vec::new();
        for number in first..end {
            let at = wire::publish(&mut bytes, common.mqtt, first_byte, &format!("{root}/{number}"), payload);
            if let Some(id) = at.id {
                bytes[id..id + 2].copy_from_slice(&template::packet_id(number).to_be_bytes());
            }
            if payload.len() >= STAMP {
                bytes[at.payload..at.payload + 4].copy_from_slice(&number.to_be_bytes());
            }
        }
        if common.qos == 0 {
            bytes.extend(wire::PINGREQ_BYTES);
        }
        client.stream.write_all(&bytes)?;
        match common.qos {
            0 => client.answer(wire::PINGRESP, |_| Ok(()))?,
            1 => {
                for _ in first..end {
                    refused += u64::from(client.answer(wire::PUBACK, |frame| frame.acknowledged())?.1);
                }
            }
            _ => refused += release_all(client, end - first)?,
        }
        first = end;
        progress.at(u64::from(end), String::new());
    }
    Ok(refused)
}

fn release_all(client: &mut Client, count: u32) -> Result<u64> {
    let mut releases = Vec::new();
    let (mut refused, mut released) = (0, 0);
    for _ in 0..count {
        match client.answer(wire::PUBREC, |frame| frame.acknowledged())? {
            (_, true) => refused += 1,
            (id, false) => {
                wire::acknowledge(&mut releases, wire::PUBREL, id);
                released += 1;
            }
        }
    }
    client.stream.write_all(&releases)?;
    for _ in 0..released {
        client.answer(wire::PUBCOMP, |frame| frame.acknowledged())?;
    }
    Ok(refused)
}

/// Reads until all have come or nothing comes any more; when the last one came.
fn replay(common: &Common, client: &mut Client, seen: &mut [bool], report: &mut Report) -> Result<Instant> {
    client.stream.socket().set_read_timeout(Some(common.patience()))?;
    let mut scratch = vec![0; 262_144];
    let mut answers = Vec::new();
    let mut last = Instant::now();
    let mut carry = std::mem::take(&mut client.carry);
    while report.delivered < u64::try_from(seen.len())? {
        let count = match client.stream.read(&mut scratch) {
            Ok(0) => {
                report.disconnects += 1;
                break;
            }
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => return Err(error.into()),
        };
        carry.extend_from_slice(&scratch[..count]);
        let mut used = 0;
        while let Some((frame, length)) = Frame::parse(&carry[used..])? {
            used += length;
            match frame.kind() {
                wire::SUBACK if frame.refused_filters(common.mqtt)? > 0 => bail!("the broker refuses the subscription"),
                wire::PUBREL => wire::acknowledge(&mut answers, wire::PUBCOMP, frame.acknowledged()?.0),
                wire::PUBLISH => {
                    let publish = frame.publish(common.mqtt)?;
                    match publish.qos {
                        0 => {}
                        1 => wire::acknowledge(&mut answers, wire::PUBACK, publish.id),
                        _ => wire::acknowledge(&mut answers, wire::PUBREC, publish.id),
                    }
                    let number = publish.payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
                    let number = number.and_then(|number| usize::try_from(number).ok());
                    match number.and_then(|number| seen.get_mut(number)) {
                        Some(seen) if !*seen => {
                            *seen = true;
                            report.delivered += 1;
                        }
                        Some(_) => report.duplicates += 1,
                        None => bail!("the broker replays a message this run did not set"),
                    }
                }
                _ => {}
            }
        }
        carry.drain(..used);
        last = Instant::now();
        client.stream.write_all(&answers)?;
        answers.clear();
    }
    Ok(last)
}
