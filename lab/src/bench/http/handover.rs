//! From a publish by MQTT to a reader that waits over HTTP, with an MQTT subscriber beside it.

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;

use super::super::args::Common;
use super::super::clients::{Broker, Client};
use super::super::report::{self, Latency, Report};
use super::super::template::{self, Template};
use super::super::wire;
use super::{Target, answer};

/// One message under way at a time, so that what is measured is the way and no queue.
pub(in super::super) fn run(common: &Common, http: &str, rate: u32) -> Result<Report> {
    if common.qos == 2 {
        bail!("hand-over is measured at QoS 0 or 1");
    }
    let target = Target::new(http, common)?;
    let broker = Broker::new(common)?;
    let topic = format!("{}/handover", broker.root());
    let name = broker.root().replace('/', "-");
    let mut publisher = broker.open("publisher", &[Vec::new()], |_| {})?.pop().context("no publisher")?;
    let subscriber = broker.open("subscriber", &[vec![topic.clone()]], |_| {})?.pop().context("no subscriber")?;
    let reader = Reader::new(&target, &name, &topic, common.qos)?;

    let (by_mqtt, mqtt) = mpsc::channel();
    let (by_http, web) = mpsc::channel();
    let (protocol, qos) = (common.mqtt, common.qos);
    // The threads end with their connections, or with this run.
    std::thread::spawn(move || subscriber.receive(protocol, qos, &by_mqtt));
    std::thread::spawn(move || reader.receive(&by_http));

    let mut template = Template::new(common.mqtt, common.qos, usize::try_from(common.size)?, &[topic], 1);
    let mut report = Report::new("handover", common);
    let histogram = || Histogram::<u64>::new_with_bounds(1, 600_000_000_000, 3);
    let (mut by_mqtt, mut by_http) = (histogram()?, histogram()?);
    let (began, interval) = (Instant::now(), Duration::from_secs(1) / rate);
    let warmup = Duration::from_secs_f64(if common.messages.is_some() { 0.0 } else { common.warmup });
    let end = began + warmup + Duration::from_secs_f64(common.duration);
    let mut next = began;
    let (mut sequence, mut arrivals) = (0, 0);
    while common.messages.map_or_else(|| Instant::now() < end, |most| sequence < most) {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next = Instant::now().max(next) + interval;
        let (_, range) = template.stamp(0, sequence, 1, 0);
        let sent = Instant::now();
        publisher.stream.write_all(template.bytes(range))?;
        if common.qos > 0 {
            publisher.answer(wire::PUBACK, |frame| frame.acknowledged())?;
        }
        sequence += 1;
        for (arrivals_of, histogram) in [(&mqtt, &mut by_mqtt), (&web, &mut by_http)] {
            match arrival(arrivals_of, common.patience())? {
                Some((at, 1)) if sent - began >= warmup => {
                    histogram.saturating_record(u64::try_from((at - sent).as_nanos())?);
                    arrivals += 1;
                }
                Some((_, count)) => {
                    report.duplicates += count.saturating_sub(1);
                    arrivals += 1;
                }
                None => report.lost += 1,
            }
        }
    }
    (report.publishers, report.subscribers) = (1, 2);
    report.seconds = began.elapsed().as_secs_f64();
    report.sent = u64::from(sequence);
    (report.expected, report.delivered) = (2 * report.sent, arrivals);
    report.sent_per_second = report::rate(report.sent, report.seconds);
    report.delivered_per_second = report::rate(arrivals, report.seconds);
    (report.latency, report.mqtt_latency) = (Latency::of(&by_http), Latency::of(&by_mqtt));
    Ok(report)
}

/// When something came, and how many messages it was.
type Arrival = Result<(Instant, u64)>;

fn arrival(arrivals: &Receiver<Arrival>, patience: Duration) -> Result<Option<(Instant, u64)>> {
    match arrivals.recv_timeout(patience) {
        Ok(arrival) => arrival.map(Some),
        Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
        Err(mpsc::RecvTimeoutError::Disconnected) => bail!("a receiver's connection ended"),
    }
}

impl Client {
    /// Tells of every message until the other end of `tell` is gone.
    fn receive(mut self, mqtt: super::super::args::Mqtt, qos: u8, tell: &Sender<Arrival>) {
        drop(self.stream.socket().set_read_timeout(None));
        loop {
            let one = self.answer(wire::PUBLISH, |frame| {
                let publish = frame.publish(mqtt)?;
                Ok((publish.id, template::read_stamp(publish.payload).is_some()))
            });
            let at = Instant::now();
            let arrival = one.and_then(|(id, stamped)| {
                if qos > 0 {
                    let mut bytes = Vec::new();
                    wire::acknowledge(&mut bytes, wire::PUBACK, id);
                    self.stream.write_all(&bytes)?;
                }
                Ok((at, u64::from(stamped)))
            });
            let over = arrival.is_err();
            if tell.send(arrival).is_err() || over {
                return;
            }
        }
    }
}

/// A session that is read over HTTP, held read after held read.
struct Reader {
    target: Target,
    stream: TcpStream,
    path: String,
    cursor: Option<String>,
}

impl Reader {
    fn new(target: &Target, name: &str, topic: &str, qos: u8) -> Result<Self> {
        let mut stream = target.connect()?;
        let path = format!("/v1/sessions/{name}-reader");
        let body = format!("{{\"subscriptions\":[{{\"filter\":\"{topic}\",\"qos\":{qos}}}],\"expiry\":60}}");
        let make = target.request("PUT", &path, "Content-Type: application/json\r\n", body.as_bytes());
        let status = Target::ask(&mut stream, &make)?.status;
        if !matches!(status, 200 | 201) {
            bail!("the server answers PUT {path} with {status} (--user, rights)");
        }
        Ok(Self { target: target.clone(), stream, path, cursor: None })
    }

    /// Tells of every message until the other end of `tell` is gone.
    fn receive(mut self, tell: &Sender<Arrival>) {
        loop {
            let arrival = self.next();
            let over = arrival.is_err();
            // A read that ran out without a message is no arrival.
            if !matches!(arrival, Ok((_, 0))) && tell.send(arrival).is_err() || over {
                return;
            }
        }
    }

    fn next(&mut self) -> Arrival {
        let after = self.cursor.as_ref().map(|cursor| format!("&after={cursor}")).unwrap_or_default();
        let path = format!("{}/messages?wait=30{after}", self.path);
        let request = self.target.request("GET", &path, "", b"");
        let reply = Target::ask(&mut self.stream, &request)?;
        let at = Instant::now();
        match reply.status {
            200 => {}
            204 => return Ok((at, 0)),
            status => bail!("the server answers GET {path} with {status}"),
        }
        let cursor = answer::header(&reply.head, "waystation-cursor").context("the server names no cursor")?;
        let page: Page = serde_json::from_slice(&reply.body)?;
        self.cursor = Some(cursor.to_owned());
        Ok((at, u64::try_from(page.messages.len())?))
    }
}

/// What a held read brings; only the number counts.
#[derive(serde::Deserialize)]
struct Page {
    messages: Vec<serde::de::IgnoredAny>,
}
