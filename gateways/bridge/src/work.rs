//! A bridge at work: connects, converses, and connects again.

use crate::{
    backoff::{Backoff, Cause},
    config::Protocol,
    dial::{Stream, dial, told},
    figures::Figures,
    pump::{Over, Parties, Pump},
    remote::{self, Dialect, Heard, Hello, Welcome},
    settings::{Settings, session_id},
};
use bytes::BytesMut;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, WriteHalf, split},
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use waystation_broker::{
    Attached, Credentials, Detach, Filter, Hello as Greeting, Lsn, Peer, Principal, Qos, Refused, RetainHandling,
    SessionOptions, Start, Subscription, WhileAway,
};
use waystation_kit::{Context, dead::DeadLetters};

/// Most time from the first packet to the far side's CONNACK.
const CONNECT_TIME: Duration = Duration::from_secs(15);

/// Most time for a goodbye.
const LEAVE_TIME: Duration = Duration::from_secs(1);

/// Bytes read at once.
const READ: usize = 65_536;

/// A connection of less than this is not taken for one that works, unless something crossed.
const PROBATION: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Work {
    pub(crate) cx: Context,
    pub(crate) settings: Arc<Settings>,
    pub(crate) figures: Arc<Figures>,
    /// What names this server to other bridges.
    pub(crate) server: Arc<str>,
    /// Inward routes that the far side refuses; they are not asked for again.
    pub(crate) refused: Vec<usize>,
    /// The far side has taken the others.
    pub(crate) granted: bool,
    pub(crate) backoff: Backoff,
    /// What to go by from the next connection on; nothing: it is to end.
    pub(crate) orders: watch::Receiver<Option<Arc<Settings>>>,
}

/// A far side that has let us in.
struct Open {
    stream: Box<dyn Stream>,
    dialect: Box<dyn Dialect>,
    welcome: Welcome,
    /// What came with its CONNACK.
    input: BytesMut,
}

impl Work {
    /// Works until it is told to leave. What waits stays in its session.
    pub(crate) async fn run(mut self) {
        let mut orders = self.orders.clone();
        loop {
            let Some(settings) = orders.borrow().clone() else { return };
            self.settings = settings;
            let opened = tokio::select! {
                opened = self.open() => opened,
                () = told_to_leave(&mut orders) => return,
            };
            let Over { why, cause } = match opened {
                Ok(open) => match self.converse(open).await {
                    Some(over) => over,
                    None => return,
                },
                Err(over) => over,
            };
            let pause = self.backoff.pause(cause, fastrand::f64());
            let (bridge, url) = (&self.cx.name, &self.settings.url);
            if self.figures.failed(&why) {
                tracing::warn!(%bridge, %url, again_in_ms = pause.as_millis(), "not connected: {why}");
            } else {
                tracing::debug!(%bridge, %url, again_in_ms = pause.as_millis(), "not connected: {why}");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = told_to_leave(&mut orders) => return,
            }
        }
    }

    /// Connects, and hears the far side's CONNACK.
    async fn open(&self) -> Result<Open, Over> {
        let fault = |why: String| Over { why, cause: Cause::Fault };
        let late = || fault(format!("no answer within {} s", CONNECT_TIME.as_secs()));
        let deadline = Instant::now() + CONNECT_TIME;
        let stream = timeout_at(deadline, dial(&self.settings)).await;
        let mut stream = stream.map_err(|_| late())?.map_err(fault)?;
        let dialect = remote::dialect(self.settings.config.protocol);
        let mut out = BytesMut::new();
        dialect.connect(&self.hello(), &mut out).map_err(|error| fault(format!("CONNECT: {error}")))?;
        let mut input = BytesMut::with_capacity(READ);
        let connack = timeout_at(deadline, exchange(&mut *stream, &out, &mut input)).await.map_err(|_| late())?;
        connack.map_err(fault)?;
        match dialect.read(&mut input) {
            Ok(Heard::ConnAck(Ok(welcome))) => Ok(Open { stream, dialect, welcome, input }),
            Ok(Heard::ConnAck(Err(refusal))) => Err(Over {
                why: format!("the far side refuses the connection: {}", refusal.why),
                cause: if refusal.for_good { Cause::Refused } else { Cause::Fault },
            }),
            Ok(Heard::Disconnect(why)) => Err(fault(format!("the far side disconnected: {why}"))),
            Ok(_) => Err(fault("the far side does not begin with CONNACK".into())),
            Err(error) => Err(fault(format!("the far side sent what is no MQTT: {error}"))),
        }
    }

    fn hello(&self) -> Hello<'_> {
        let (config, limits) = (&self.settings.config, self.cx.broker.limits());
        Hello {
            client_id: &config.client_id,
            login: self.settings.login(),
            keep_alive_s: config.keep_alive_s,
            clean_start: config.clean_start,
            receive_maximum: limits.receive_maximum,
            maximum_packet: limits.max_packet_size,
            server: &self.server,
            state_topic: Some(config.state_topic.as_str()).filter(|topic| !topic.is_empty()),
        }
    }

    /// Speaks with the far side until that ends; `None`: we are to leave.
    async fn converse(&mut self, open: Open) -> Option<Over> {
        let Open { stream, dialect, welcome, mut input } = open;
        let (broker, settings) = (self.cx.broker.clone(), self.settings.clone());
        let fault = |why: String| Some(Over { why, cause: Cause::Fault });
        let attached = match attach(&self.cx, &settings, window(&settings, &welcome)).await {
            Ok(attached) => attached,
            Err(why) => return fault(why),
        };
        // An operator may have ended it.
        if !letters(&self.cx).is_open()
            && let Err(why) = open_letters(&self.cx).await
        {
            return fault(why);
        }
        self.report(&welcome);
        self.backoff.reached();
        self.figures.connected(true);
        let wanted = if self.granted && welcome.session_present { Vec::new() } else { self.wanted() };
        let parties = Parties {
            settings,
            figures: self.figures.clone(),
            server: self.server.clone(),
            wanted,
            limits: broker.limits().clone(),
            letters: letters(&self.cx),
        };
        let mut out = BytesMut::with_capacity(READ);
        let since = Instant::now();
        let mut pump = Pump::new(parties, dialect, &welcome, attached, broker.now(), &mut out);
        let (mut reader, mut writer) = split(stream);
        if !input.is_empty() {
            pump.handle_input(broker.now(), &mut input, &mut out);
        }
        let (mut answered, mut crossed) = (false, false);
        let over = loop {
            if let Some(over) = pump.over() {
                break over.clone();
            }
            if pump.is_leaving() {
                self.leave(pump, &mut writer, out).await;
                return None;
            }
            if pump.wants_anew(broker.now()) {
                match attach(&self.cx, &self.settings, welcome.terms.receive_maximum).await {
                    Ok(attached) => pump.renew(broker.now(), attached.link, &mut out),
                    Err(why) => break Over { why, cause: Cause::Fault },
                }
            }
            if !answered && let (true, refused) = pump.subscriptions() {
                answered = true;
                let refused = refused.to_vec();
                self.subscribed(&refused);
            }
            let wake = pump.poll_timeout().map(|due| Instant::now() + due.since(broker.now()));
            let listens = pump.listens();
            let unwritten = out.len();
            tokio::select! {
                event = pump.event(unwritten) => pump.handle_event(broker.now(), event, &mut out),
                written = writer.write_buf(&mut out), if unwritten > 0 => match written {
                    Ok(0) => break hung_up(),
                    Ok(_) => {}
                    Err(error) => break lost(&error),
                },
                read = reader.read_buf(&mut input), if listens => match read {
                    Ok(0) => break hung_up(),
                    Ok(_) => {
                        crossed = true;
                        pump.handle_input(broker.now(), &mut input, &mut out);
                        input.reserve(READ);
                    }
                    Err(error) => break lost(&error),
                },
                () = sleep_until(wake) => pump.handle_timeout(broker.now(), &mut out),
                () = told_to_leave(&mut self.orders) => {
                    self.leave(pump, &mut writer, out).await;
                    return None;
                }
            }
        };
        if crossed || since.elapsed() >= PROBATION {
            self.backoff.worked();
        }
        drop(pump);
        self.figures.connected(false);
        Some(over)
    }

    /// Says goodbye.
    async fn leave(&self, pump: Pump, writer: &mut WriteHalf<Box<dyn Stream>>, mut out: BytesMut) {
        let link = pump.leave(&mut out);
        // Nobody waits for a far side that does not read.
        let said = timeout(LEAVE_TIME, async {
            writer.write_all_buf(&mut out).await?;
            writer.shutdown().await
        });
        if !matches!(said.await, Ok(Ok(()))) {
            tracing::debug!(bridge = %self.cx.name, "the far side did not hear the goodbye");
        }
        link.detach(Detach::Clean);
        self.figures.connected(false);
    }

    /// The inward routes to subscribe to.
    fn wanted(&self) -> Vec<usize> {
        (0..self.settings.routes.inward.len()).filter(|place| !self.refused.contains(place)).collect()
    }

    /// Says who was reached, and what it cannot do.
    fn report(&self, welcome: &Welcome) {
        let (bridge, url, terms) = (&self.cx.name, &self.settings.url, &welcome.terms);
        tracing::info!(%bridge, %url, session_present = welcome.session_present, "connected");
        if terms.maximum_qos < Qos::ExactlyOnce {
            tracing::warn!(%bridge, maximum_qos = terms.maximum_qos as u8, "the far side takes no higher QoS");
        }
        if !terms.retain {
            tracing::warn!(%bridge, "the far side keeps no retained messages; they go without the flag");
        }
        if terms.maximum_packet < self.cx.broker.limits().max_packet_size as usize {
            let bytes = terms.maximum_packet;
            tracing::warn!(%bridge, bytes, "the far side takes no larger packets; larger messages are dropped");
        }
        if let Some(seconds) = terms.session_expiry_s.filter(|_| !self.settings.config.clean_start) {
            tracing::info!(%bridge, seconds, "the far side keeps our session no longer than this");
        }
    }

    /// The far side has answered the subscriptions.
    fn subscribed(&mut self, refused: &[(usize, String)]) {
        self.granted = true;
        for (place, why) in refused {
            let Some(way) = self.settings.routes.inward.get(*place) else { continue };
            let (bridge, filter) = (&self.cx.name, &way.source);
            tracing::error!(%bridge, %filter, "the far side refuses a subscription, which is off from now on: {why}");
            self.figures.failed(&format!("the far side refuses the subscription to {filter}: {why}"));
            self.refused.push(*place);
        }
    }
}

/// Completes when the bridge is to end.
async fn told_to_leave(orders: &mut watch::Receiver<Option<Arc<Settings>>>) {
    // An error means that whoever gives the orders is gone.
    let _ = orders.wait_for(Option::is_none).await;
}

fn hung_up() -> Over {
    Over { why: "the far side hung up".into(), cause: Cause::Fault }
}

fn lost(error: &std::io::Error) -> Over {
    Over { why: told("connection lost", error), cause: Cause::Fault }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

/// Writes `out`, and reads until a packet is there.
async fn exchange(stream: &mut dyn Stream, out: &[u8], input: &mut BytesMut) -> Result<(), String> {
    /// Far more than a CONNACK can be in practice.
    const MOST: usize = 1 << 20;
    let failed = |error: std::io::Error| told("connection lost before CONNACK", &error);
    stream.write_all(out).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    loop {
        match remote::frame(input) {
            remote::Framing::Known(frame) if frame.total <= input.len() => return Ok(()),
            remote::Framing::Known(frame) if frame.total > MOST => {
                return Err("the far side does not begin with CONNACK".into());
            }
            remote::Framing::Malformed => return Err("the far side sent what is no MQTT".into()),
            _ => {}
        }
        if stream.read_buf(input).await.map_err(failed)? == 0 {
            return Err("the far side hung up before CONNACK".into());
        }
    }
}

/// Most messages under way. Over MQTT 3.1.1 the far side has no word for it; mosquitto hangs up on more exchanges of QoS 2
/// than this.
fn window(settings: &Settings, welcome: &Welcome) -> u16 {
    const UNSAID: u16 = 20;
    let exactly_once = settings.routes.outward.iter().any(|way| way.qos == Qos::ExactlyOnce);
    let unsaid = settings.config.protocol == Protocol::V311 && exactly_once;
    if unsaid { UNSAID } else { welcome.terms.receive_maximum }
}

/// How a bridge comes to its session, with at most `window` messages under way.
pub(crate) async fn attach(cx: &Context, settings: &Settings, window: u16) -> Result<Attached, String> {
    let queue = settings.config.queue;
    let hello = Greeting {
        credentials: Credentials::Known(Principal::anonymous()),
        start: Start::Resume,
        expiry: u32::MAX,
        window,
        while_away: WhileAway::DropQos0,
        properties: settings.config.protocol == Protocol::V5,
        options: SessionOptions {
            max_queued_messages: Some(queue.max_messages),
            max_queued_bytes: Some(queue.max_bytes),
            ..SessionOptions::default()
        },
        ..Greeting::new(cx.name.clone(), Peer::INTERNAL, session_id(&settings.config.name))
    };
    cx.broker.attach(hello).await.map_err(|refusal| format!("its session cannot be had: {refusal}"))
}

/// Where goes what the far side will never take.
pub(crate) fn letters(cx: &Context) -> DeadLetters {
    DeadLetters::of(&cx.broker, &cx.name, &format!("bridge/{}", cx.name))
}

/// Makes the session of dead letters, if it is not there.
async fn open_letters(cx: &Context) -> Result<Lsn, String> {
    letters(cx).open().await.map_err(|refusal| format!("no session for dead letters: {refusal}"))
}

/// Makes the session, or gives it the subscriptions of the present routes: from now on what is to go out waits in it.
/// Gives the position that is to be durable, and what was refused.
pub(crate) async fn prepare(cx: &Context, settings: &Settings) -> Result<(Lsn, Vec<(Filter, Refused)>), String> {
    let dead = open_letters(cx).await?;
    let Attached { mut link, mut lsn, .. } = attach(cx, settings, u16::MAX).await?;
    lsn = lsn.max(dead);
    let wanted: Vec<Subscription> = settings
        .routes
        .outward
        .iter()
        .map(|way| Subscription {
            // What came in over a bridge does not go out over the same.
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::SendIfNew,
            ..Subscription::new(way.source.clone(), way.qos)
        })
        .collect();
    let old = link.subscriptions().into_iter().map(|subscription| subscription.filter);
    let gone: Vec<Filter> = old.filter(|filter| !wanted.iter().any(|wish| wish.filter == *filter)).collect();
    if !gone.is_empty() {
        lsn = lsn.max(link.unsubscribe(&gone, &mut Vec::new()));
    }
    let mut granted = Vec::new();
    lsn = lsn.max(link.subscribe(&wanted, &mut granted));
    let refused = wanted.into_iter().zip(granted);
    let refused = refused.filter_map(|(wish, result)| Some((wish.filter, result.err()?))).collect();
    link.detach(Detach::Clean);
    Ok((lsn, refused))
}
