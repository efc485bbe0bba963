//! The core's counters in Prometheus' text format. They are read when they are asked for; nothing is counted twice.

use prometheus::{Encoder, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use waystation_broker::{Broker, DropCause, Traffic};
use waystation_kit::Host;

/// Everything, as text.
pub(crate) fn text(broker: &Broker, host: &dyn Host) -> prometheus::Result<Vec<u8>> {
    let scrape = Scrape(Registry::new());
    scrape.messages(broker)?;
    scrape.clients(broker)?;
    scrape.store(broker)?;
    scrape.gateways(broker)?;
    scrape.bridges(host)?;
    let mut out = Vec::new();
    TextEncoder::new().encode(&scrape.0.gather(), &mut out)?;
    Ok(out)
}

/// One answer in the making.
struct Scrape(Registry);

impl Scrape {
    fn messages(&self, broker: &Broker) -> prometheus::Result<()> {
        let metrics = broker.metrics();
        self.counter("messages_published_total", "Messages accepted from publishers", metrics.published())?;
        self.counter("published_bytes_total", "Bytes (topic and payload) of them", metrics.published_bytes())?;
        self.counter("messages_refused_total", "Messages refused: quota, store", metrics.refused())?;
        self.counter("copies_total", "Copies that sessions were to get", metrics.copies())?;
        self.counter("copies_delivered_total", "Copies settled (QoS 0: handed out)", metrics.delivered())?;
        let dropped = DropCause::ALL.map(|cause| (cause.name().to_owned(), metrics.dropped(cause)));
        self.counters("messages_dropped_total", "Messages dropped, by cause", "cause", &dropped)?;
        self.gauge("messages_waiting", "Copies that wait or are not acknowledged", metrics.waiting())?;
        let backlog = broker.backlog();
        self.gauge("session_backlog_messages_most", "Most messages that one session holds", backlog.messages)?;
        self.gauge("session_backlog_bytes_most", "Most bytes that one session holds", backlog.bytes)?;
        let age = backlog.oldest.map_or(0, |taken| broker.now().since(taken).as_secs());
        self.gauge("session_backlog_oldest_seconds", "Age of the oldest message that a session holds", age)?;
        self.gauge("retained_messages", "Topics that have a retained message", broker.retained_count() as u64)?;
        self.gauge("subscriptions", "Subscriptions of all sessions", broker.subscriptions() as u64)
    }

    fn clients(&self, broker: &Broker) -> prometheus::Result<()> {
        self.gauge("clients_connected", "Clients connected now", broker.connected().into())?;
        self.gauge("clients_connected_most", "Most at a time since the start", broker.most_connected().into())?;
        self.gauge("sessions_away", "Sessions whose client is away", broker.disconnected() as u64)?;
        let expired = broker.metrics().expired_sessions();
        self.counter("sessions_expired_total", "Sessions that ended because their client stayed away", expired)
    }

    fn store(&self, broker: &Broker) -> prometheus::Result<()> {
        let store = broker.durability();
        self.gauge("store_bytes", "Bytes on disk", store.bytes)?;
        self.gauge("store_accepts", "Whether what must be kept is accepted", store.trouble.is_none().into())?;
        self.counter("store_damaged_total", "Records that were found damaged", store.damaged)
    }

    fn gateways(&self, broker: &Broker) -> prometheus::Result<()> {
        let traffic = broker.all_traffic();
        let by = |of: fn(&Traffic) -> u64| -> Vec<_> {
            traffic.iter().map(|gateway| (gateway.gateway().to_string(), of(gateway))).collect()
        };
        let (name, clients) = ("gateway", by(|gateway| gateway.clients().into()));
        self.gauges("gateway_clients", "Clients connected by this gateway", name, &clients)?;
        for (metric, help, values) in [
            ("gateway_messages_received_total", "Messages that came by it", by(Traffic::messages_received)),
            ("gateway_messages_sent_total", "Messages that went out by it", by(Traffic::messages_sent)),
            ("gateway_bytes_received_total", "Bytes that came by it", by(Traffic::bytes_received)),
            ("gateway_bytes_sent_total", "Bytes that went out by it", by(Traffic::bytes_sent)),
            ("gateway_violations_total", "Times a client broke its protocol", by(Traffic::violations)),
        ] {
            self.counters(metric, help, name, &values)?;
        }
        Ok(())
    }

    fn bridges(&self, host: &dyn Host) -> prometheus::Result<()> {
        let remotes = host.remotes();
        let by = |of: fn(&waystation_kit::RemoteStatus) -> u64| -> Vec<_> {
            remotes.iter().map(|remote| (remote.name.to_string(), of(remote))).collect()
        };
        self.gauges("bridge_connected", "Whether the other side is reached", "bridge", &by(|r| r.connected.into()))?;
        self.gauges("bridge_queued", "Messages that wait for it", "bridge", &by(|r| r.queued))?;
        self.gauges("bridge_in_flight", "Messages it has not acknowledged yet", "bridge", &by(|r| r.in_flight))?;
        self.counters("bridge_messages_sent_total", "Messages taken there", "bridge", &by(|r| r.sent))?;
        self.counters("bridge_messages_dropped_total", "Messages for it that were lost", "bridge", &by(|r| r.dropped))?;
        let help = "Messages that went with a lower QoS or without the retain flag";
        self.counters("bridge_messages_reduced_total", help, "bridge", &by(|r| r.reduced))?;
        self.counters("bridge_messages_received_total", "Messages taken from there", "bridge", &by(|r| r.received))
    }

    fn counter(&self, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
        let counter = prometheus::IntCounter::with_opts(opts(name, help))?;
        counter.inc_by(value);
        self.0.register(Box::new(counter))
    }

    fn gauge(&self, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
        let gauge = prometheus::IntGauge::with_opts(opts(name, help))?;
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        self.0.register(Box::new(gauge))
    }

    fn counters(&self, name: &str, help: &str, label: &str, values: &[(String, u64)]) -> prometheus::Result<()> {
        let counters = IntCounterVec::new(opts(name, help), &[label])?;
        for (which, value) in values {
            counters.with_label_values(&[which]).inc_by(*value);
        }
        self.0.register(Box::new(counters))
    }

    fn gauges(&self, name: &str, help: &str, label: &str, values: &[(String, u64)]) -> prometheus::Result<()> {
        let gauges = IntGaugeVec::new(opts(name, help), &[label])?;
        for (which, value) in values {
            gauges.with_label_values(&[which]).set(i64::try_from(*value).unwrap_or(i64::MAX));
        }
        self.0.register(Box::new(gauges))
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("waystation")
}
