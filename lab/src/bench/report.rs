//! What a run found, for people and for programs.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::args::{Common, Mqtt};

/// What a run found. Fields that were not measured are absent from JSON.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// The broker.
    pub url: String,
    /// Protocol version, `3.1.1` or `5`.
    pub mqtt: String,
    /// Quality of service.
    pub qos: u8,
    /// Bytes of payload.
    pub size: u32,
    /// Publishing connections.
    pub publishers: u32,
    /// Subscribing connections.
    pub subscribers: u32,
    /// Length of the measured interval.
    pub seconds: f64,
    /// Messages published in the whole run, warm-up included.
    pub sent: u64,
    /// Deliveries these should have caused.
    pub expected: u64,
    /// Deliveries that came, each message counted once a subscriber.
    pub delivered: u64,
    /// `expected` less `delivered`.
    pub lost: u64,
    /// Deliveries that came again.
    pub duplicates: u64,
    /// Messages that came after a later one of the same publisher.
    pub reordered: u64,
    /// Publishes the broker answered with a failure.
    pub refused: u64,
    /// Publishes at QoS 1 or 2 whose acknowledgement never came.
    pub unacknowledged: u64,
    /// Boards: datagrams sent again for want of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<u64>,
    /// Boards: until all were connected and had their topic ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_seconds: Option<f64>,
    /// Connections that ended before the run did.
    pub disconnects: u64,
    /// Messages published in the measured interval, a second.
    pub sent_per_second: f64,
    /// Deliveries in the measured interval, a second. Churn: cycles.
    pub delivered_per_second: f64,
    /// Durable: acknowledgements in the measured interval, a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged_per_second: Option<f64>,
    /// Durable: time from send to acknowledgement. Sync: time of a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledgement: Option<Latency>,
    /// Time from send to receipt. Under full load it is mostly the window's length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Hand-over: the same messages' time to an MQTT subscriber.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt_latency: Option<Latency>,
    /// The broker's CPU time in the measured interval, a delivery, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_cpu_us: Option<f64>,
    /// The generator's own, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator_cpu_us: Option<f64>,
    /// The broker's resident memory at the end of the measured interval, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_memory: Option<u64>,
    /// What [`Report::memory_per_item`] counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// Growth of the broker's resident memory, an item, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_per_item: Option<f64>,
    /// Retained: messages set a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_per_second: Option<f64>,
    /// Retained: the broker's CPU time a message set, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_cpu_us_per_set: Option<f64>,
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Deliveries measured.
    pub samples: u64,
    /// Half were faster.
    pub p50: f64,
    /// 90 % were faster.
    pub p90: f64,
    /// 99 % were faster.
    pub p99: f64,
    /// 99.9 % were faster.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

impl Latency {
    /// From nanoseconds; `None` without samples.
    pub(super) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile| micros(histogram.value_at_quantile(quantile));
        Some(Self {
            samples: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(histogram.max()),
        })
    }
}

impl Report {
    pub(super) fn new(scenario: &str, common: &Common) -> Self {
        Self {
            scenario: scenario.to_owned(),
            url: common.url.clone(),
            mqtt: if common.mqtt == Mqtt::V5 { "5" } else { "3.1.1" }.to_owned(),
            qos: common.qos,
            size: common.size,
            ..Self::default()
        }
    }

    /// Whether nothing happened that the quality of service forbids.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        (self.qos == 0 || self.lost == 0)
            && (self.qos != 2 || self.duplicates == 0)
            && self.refused == 0
            && self.unacknowledged == 0
            && self.disconnects == 0
    }

    pub(super) fn print(&self, json: bool) -> Result<()> {
        let text = if json { serde_json::to_string(self)? } else { self.text() };
        writeln!(std::io::stdout().lock(), "{}", text.trim_end())?;
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let road = match self.url.split_once(':') {
            Some(("mqttsn", _)) => format!("MQTT-SN {}", self.mqtt),
            Some(("http", _)) => "HTTP/1.1".to_owned(),
            _ => format!("MQTT {}", self.mqtt),
        };
        let mut line = |name: &str, value: String| {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{name:<22}{value}");
        };
        line("scenario", format!("{}, {road}, QoS {}, {} bytes", self.scenario, self.qos, self.size));
        line("connections", format!("{} publishing, {} subscribing", self.publishers, self.subscribers));
        if self.expected > 0 {
            line("sent", format!("{} ({:.0}/s)", self.sent, self.sent_per_second));
            line("delivered", format!("{} of {}", self.delivered, self.expected));
            line("lost", self.lost.to_string());
            for (name, count) in [
                ("duplicates", self.duplicates),
                ("out of order", self.reordered),
                ("refused", self.refused),
                ("unacknowledged", self.unacknowledged),
            ] {
                if count > 0 {
                    line(name, count.to_string());
                }
            }
            line("rate", format!("{:.0} delivered/s over {:.2} s", self.delivered_per_second, self.seconds));
        }
        if let Some(rate) = self.acknowledged_per_second {
            line("acknowledged", format!("{rate:.0}/s"));
        }
        if let (Some(repeats), Some(seconds)) = (self.repeats, self.connect_seconds) {
            line("connected", format!("in {seconds:.3} s, with topic ids"));
            line("repeated", repeats.to_string());
        }
        if self.disconnects > 0 {
            line("connections ended", self.disconnects.to_string());
        }
        if let Some(rate) = self.set_per_second {
            line("set", format!("{rate:.0} retained/s"));
        }
        for (name, latency) in
            [("acknowledgement", self.acknowledgement), ("latency", self.latency), ("latency, MQTT", self.mqtt_latency)]
        {
            if let Some(Latency { p50, p90, p99, p999, max, .. }) = latency {
                line(name, format!("p50 {p50:.0} p90 {p90:.0} p99 {p99:.0} p99.9 {p999:.0} max {max:.0} µs"));
            }
        }
        for (name, cost) in [
            ("broker CPU", self.broker_cpu_us),
            ("broker CPU, set", self.broker_cpu_us_per_set),
            ("generator CPU", self.generator_cpu_us),
        ] {
            if let Some(cost) = cost {
                let each = if matches!(self.scenario.as_str(), "idle" | "held") { "connection" } else { "message" };
                line(name, format!("{cost:.3} µs a {each}"));
            }
        }
        if let (Some(memory), Some(item)) = (self.memory_per_item, &self.item) {
            line("broker memory", format!("{memory:.0} bytes a {item}"));
        }
        if let Some(memory) = self.broker_memory {
            line("broker memory, all", format!("{:.1} MiB", ratio(memory, 1_048_576)));
        }
        text
    }
}

/// A quotient of counts; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A count a second.
pub(super) fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { ratio(count, 1) / seconds } else { 0.0 }
}

/// Microseconds of a duration for each of `count`; `None` of nothing.
pub(super) fn micros_each(time: std::time::Duration, count: u64) -> Option<f64> {
    (count > 0).then(|| time.as_secs_f64() * 1e6 / ratio(count, 1))
}

fn micros(nanoseconds: u64) -> f64 {
    ratio(nanoseconds, 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let mut histogram = Histogram::new(3).unwrap();
        assert!(Latency::of(&histogram).is_none());
        for value in 1..=1_000_u64 {
            histogram.record(value * 1_000).unwrap();
        }
        let latency = Latency::of(&histogram).unwrap();
        assert_eq!(latency.samples, 1_000);
        for (value, wanted) in [(latency.p50, 500.0), (latency.p99, 990.0), (latency.p999, 999.0), (latency.max, 1e3)] {
            assert!((value - wanted).abs() / wanted < 0.002, "{value} instead of {wanted}");
        }
    }

    #[test]
    fn soundness_depends_on_quality_of_service() {
        let report = |qos, lost, duplicates| Report { qos, lost, duplicates, ..Report::default() };
        assert!(report(0, 5, 0).is_sound());
        assert!(!report(1, 5, 0).is_sound());
        assert!(report(1, 0, 5).is_sound());
        assert!(!report(2, 0, 5).is_sound());
        assert!(!Report { disconnects: 1, ..Report::default() }.is_sound());
    }

    #[test]
    fn what_was_not_measured_is_not_in_json() {
        let json = serde_json::to_value(Report::default()).unwrap();
        assert!(json.get("broker_cpu_us").is_none() && json.get("latency").is_none());
        assert_eq!(json["lost"], 0);
    }
}
