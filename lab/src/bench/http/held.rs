//! Readers that wait for what does not come: what does each of them cost?

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::super::args::{Common, Wait};
use super::super::process::Process;
use super::super::progress::Progress;
use super::super::report::{self, Report};
use super::{PATIENCE, Target, answer};

/// Connections whose requests are sent before the first of them is looked at; within every listen backlog.
const GROUP: usize = 64;

/// The server has taken in all requests when it uses no CPU for so long.
const QUIET: Duration = Duration::from_millis(300);

pub(in super::super) fn run(common: &Common, connections: u32, on: Wait) -> Result<Report> {
    let process =
        Process::new(common.pid.context("readers that wait are measured by the server's memory: give --pid")?)?;
    let target = Target::new(&common.url, common)?;
    let progress = Progress::new(u64::from(connections), "connecting");
    let before = process.usage()?;
    let began = Instant::now();
    let mut streams: Vec<TcpStream> = Vec::new();
    for number in 0..connections {
        let mut stream = target.connect().with_context(|| format!("connection {} of {connections}", number + 1))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        ask(&target, &mut stream, on, number)?;
        streams.push(stream);
        if on == Wait::Stream && streams.len().is_multiple_of(GROUP) {
            let first = streams.len() - GROUP;
            streams[first..].iter_mut().try_for_each(begun)?;
        }
        progress.at(u64::from(number), String::new());
    }
    let rest = streams.len() / GROUP * GROUP;
    if on == Wait::Stream {
        streams[rest..].iter_mut().try_for_each(begun)?;
    }
    let after = settle(process)?;
    let seconds = began.elapsed().as_secs_f64();

    let mut report = Report::new("held", common);
    report.subscribers = connections;
    report.seconds = seconds;
    report.disconnects = streams.iter().map(|stream| u64::from(!waits(stream))).sum();
    report.broker_cpu_us = report::micros_each(after.cpu.saturating_sub(before.cpu), u64::from(connections));
    report.broker_memory = Some(after.resident);
    report.item = Some(if on == Wait::Stream { "stream" } else { "long-poll" }.to_owned());
    let growth = after.resident.saturating_sub(before.resident);
    report.memory_per_item = Some(report::ratio(growth, u64::from(connections)));
    Ok(report)
}

fn ask(target: &Target, stream: &mut TcpStream, on: Wait, number: u32) -> Result<()> {
    let name = format!("bench-{}-{number}", std::process::id());
    let (path, accept) = match on {
        Wait::State => (format!("/v1/topics/{name}?wait=3600"), "*/*"),
        Wait::Session => {
            let body = format!("{{\"subscriptions\":[{{\"filter\":\"{name}/command\"}}],\"expiry\":60}}");
            let path = format!("/v1/sessions/{name}");
            let make = target.request("PUT", &path, "Content-Type: application/json\r\n", body.as_bytes());
            let reply = Target::ask(stream, &make)?;
            if !matches!(reply.status, 200 | 201) {
                bail!("the server answers PUT {path} with {} (--user, rights, limits)", reply.status);
            }
            (format!("{path}/messages?wait=3600"), "application/json")
        }
        Wait::Stream => (format!("/v1/stream?filter={name}"), "text/event-stream"),
    };
    stream.write_all(&target.request("GET", &path, &format!("Accept: {accept}\r\n"), b""))?;
    Ok(())
}

/// Waits for the head of a stream.
fn begun(stream: &mut TcpStream) -> Result<()> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4_096]);
    loop {
        if let Some(head) = answer::head(&bytes)? {
            return match answer::status(head)? {
                200 => Ok(()),
                status => bail!("the server refuses a stream with {status} (--user, rights, limits)"),
            };
        }
        match stream.read(&mut chunk).context("the server does not begin a stream")? {
            0 => bail!("the server closed the connection instead of beginning a stream"),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}

/// Whether the server has neither closed the connection nor said anything.
fn waits(stream: &TcpStream) -> bool {
    let quiet = |count: std::io::Result<usize>| count.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(true).is_ok() && quiet(stream.peek(&mut [0]))
}

/// What the server uses once it is quiet.
fn settle(process: Process) -> Result<super::super::process::Usage> {
    let end = Instant::now() + PATIENCE;
    let mut usage = process.usage()?;
    loop {
        std::thread::sleep(QUIET);
        let now = process.usage()?;
        if now.cpu == usage.cpu || Instant::now() > end {
            return Ok(now);
        }
        usage = now;
    }
}
