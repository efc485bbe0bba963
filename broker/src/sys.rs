//! `$SYS/broker/...`: what the broker says about itself, as state that anybody with the right may read or follow.

use crate::{broker::Broker, clock::Time, traffic::Traffic};
use std::{collections::HashMap, fmt::Write as _, sync::Arc};

/// Publishes the broker's figures. Whoever owns the clock calls [`Sys::tick`] every `[sys] interval_s`; there is one
/// for each broker, made at its start.
pub struct Sys {
    broker: Broker,
    version: String,
    started: Time,
    ticked: Option<Time>,
    loads: [Load; 4],
    /// What was said last: only what has changed is said again. As many as there are topics: a fixed number, and
    /// four a gateway.
    said: HashMap<String, String>,
}

impl Sys {
    /// The figures of `broker`, whose life counts from now; `version` is the program's.
    #[must_use]
    pub fn new(broker: &Broker, version: &str) -> Self {
        let load = |name| Load { name, total: 0, per_minute: [0.0; 3] };
        Self {
            broker: broker.clone(),
            version: format!("waystation version {version}"),
            started: broker.now(),
            ticked: None,
            loads: ["messages/received", "messages/sent", "bytes/received", "bytes/sent"].map(load),
            said: HashMap::new(),
        }
    }

    /// Says what has changed since the last time.
    pub fn tick(&mut self, now: Time) {
        let gateways = self.broker.all_traffic();
        let sum = |of: fn(&Traffic) -> u64| gateways.iter().map(|gateway| of(gateway)).sum::<u64>();
        let totals = [
            sum(Traffic::messages_received),
            sum(Traffic::messages_sent),
            sum(Traffic::bytes_received),
            sum(Traffic::bytes_sent),
        ];
        self.say("version", &self.version.clone());
        self.say("uptime", &format!("{} seconds", now.since(self.started).as_secs()));
        self.say("timestamp", &now.to_string());
        self.say_clients();
        self.say_messages();
        self.say_loads(now, totals);
        for gateway in &gateways {
            self.say_gateway(gateway);
        }
    }

    fn say_clients(&mut self) {
        let (connected, away) = (u64::from(self.broker.connected()), self.broker.disconnected() as u64);
        self.say_number("clients/connected", connected);
        self.say_number("clients/active", connected);
        self.say_number("clients/disconnected", away);
        self.say_number("clients/inactive", away);
        self.say_number("clients/total", connected + away);
        self.say_number("clients/maximum", self.broker.most_connected().into());
        self.say_number("clients/expired", self.broker.metrics().expired_sessions());
    }

    fn say_messages(&mut self) {
        let retained = self.broker.retained_count() as u64;
        let (waiting, dropped) = (self.broker.metrics().waiting(), self.broker.metrics().dropped_total());
        self.say_number("messages/stored", waiting + retained);
        self.say_number("messages/dropped", dropped);
        self.say_number("retained messages/count", retained);
        self.say_number("subscriptions/count", self.broker.subscriptions() as u64);
    }

    fn say_loads(&mut self, now: Time, totals: [u64; 4]) {
        let passed = self.ticked.map(|before| now.since(before).as_secs_f64());
        self.ticked = Some(now);
        let mut topics = Vec::new();
        for (load, total) in self.loads.iter_mut().zip(totals) {
            if let Some(passed) = passed.filter(|seconds| *seconds > 0.0) {
                load.update(total, passed);
            }
            topics.push((load.name.to_owned(), total.to_string()));
            for (minutes, value) in MINUTES.iter().zip(load.per_minute) {
                topics.push((format!("load/{}/{minutes}min", load.name), format!("{value:.2}")));
            }
        }
        topics.iter().for_each(|(name, value)| self.say(name, value));
    }

    fn say_gateway(&mut self, gateway: &Arc<Traffic>) {
        let mut name = format!("gateways/{}/", gateway.gateway());
        let stem = name.len();
        for (leaf, value) in [
            ("clients", u64::from(gateway.clients())),
            ("messages/received", gateway.messages_received()),
            ("messages/sent", gateway.messages_sent()),
            ("violations", gateway.violations()),
        ] {
            name.truncate(stem);
            // Writing to a string never fails.
            let _ = name.write_str(leaf);
            self.say_number(&name, value);
        }
    }

    fn say_number(&mut self, name: &str, value: u64) {
        self.say(name, &value.to_string());
    }

    fn say(&mut self, name: &str, value: &str) {
        match self.said.get_mut(name) {
            Some(before) if before == value => return,
            Some(before) => value.clone_into(before),
            None => drop(self.said.insert(name.to_owned(), value.to_owned())),
        }
        // Names are ours, or a gateway's from the configuration; one that makes no topic has no figures.
        let _ = self.broker.announce(name, value);
    }
}

impl std::fmt::Debug for Sys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sys").field("started", &self.started).finish_non_exhaustive()
    }
}

const MINUTES: [u8; 3] = [1, 5, 15];

/// How much a minute, on average over the last 1, 5 and 15 minutes: averages in which what is past fades away, as in
/// the load of a Unix system, and as mosquitto has them.
#[derive(Debug)]
struct Load {
    name: &'static str,
    total: u64,
    per_minute: [f64; 3],
}

impl Load {
    #[expect(clippy::cast_precision_loss, reason = "an average is no exact number")]
    fn update(&mut self, total: u64, seconds: f64) {
        let rate = (total - self.total) as f64 * 60.0 / seconds;
        self.total = total;
        for (minutes, average) in MINUTES.iter().zip(&mut self.per_minute) {
            let fading = (-seconds / (60.0 * f64::from(*minutes))).exp();
            *average = rate + fading * (*average - rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_reached_and_fades_again() {
        let mut load = Load { name: "", total: 0, per_minute: [0.0; 3] };
        for total in 1..=90 {
            load.update(total * 100, 10.0);
        }
        // Fifteen minutes of 600 a minute: 1 - 1/e of it for the slowest average.
        let [fast, middle, slow] = load.per_minute;
        assert!((fast - 600.0).abs() < 0.1 && (middle - 570.0).abs() < 1.0 && (slow - 379.3).abs() < 1.0);
        load.update(9_000, 60.0);
        assert!((load.per_minute[0] - 600.0 / std::f64::consts::E).abs() < 0.1);
    }
}
