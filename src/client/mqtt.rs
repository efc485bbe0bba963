//! MQTT 3.1.1 and 5.0, by rumqttc.

use super::{Way, tunnel::Tunnel};
use crate::{
    cli::{PubArgs, Road, SubArgs, Version},
    command::subscribe::Printer,
};
use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use rumqttc::{self as v4, v5};
use std::{ops::ControlFlow, time::Duration};
use tokio::sync::mpsc;
use waystation_kit::words::in_words;

/// Requests that wait for the event loop.
const PENDING: usize = 64;

/// The largest there is (MQTT 5.0 §1.5.5); the server decides.
const MAX_PACKET: u32 = 268_435_455;

const KEEP_ALIVE: Duration = Duration::from_secs(30);

pub(crate) async fn publish(
    way: &Way,
    args: &PubArgs,
    payloads: mpsc::Receiver<std::io::Result<Bytes>>,
) -> anyhow::Result<()> {
    let (handle, connection, tunnel) = open(way, &args.road).await?;
    conclude(publish_all(handle, connection, args, payloads).await, tunnel).await.with_context(|| way.to_string())
}

pub(crate) async fn subscribe(way: &Way, args: &SubArgs, printer: &mut Printer) -> anyhow::Result<()> {
    let (handle, connection, tunnel) = open(way, &args.road).await?;
    conclude(print_all(handle, connection, args, printer).await, tunnel).await.with_context(|| way.to_string())
}

/// What the tunnel knows about a failure is nearer to its cause; after a success it still carries the farewell.
async fn conclude(outcome: anyhow::Result<()>, tunnel: Option<Tunnel>) -> anyhow::Result<()> {
    match (outcome, tunnel) {
        (Ok(()), Some(tunnel)) => {
            tunnel.finish().await;
            Ok(())
        }
        (Err(error), Some(tunnel)) => Err(tunnel.why().await.unwrap_or(error)),
        (outcome, None) => outcome,
    }
}

async fn publish_all(
    handle: Handle,
    mut connection: Connection,
    args: &PubArgs,
    mut payloads: mpsc::Receiver<std::io::Result<Bytes>>,
) -> anyhow::Result<()> {
    let (topic, qos, retain) = (args.topic.clone(), args.qos, args.retain);
    let feeder = handle.clone();
    let mut feed = tokio::spawn(async move {
        let mut count = 0_u64;
        while let Some(payload) = payloads.recv().await {
            feeder.publish(&topic, qos, retain, payload.context("standard input")?).await?;
            count += 1;
        }
        anyhow::Ok(count)
    });
    // A poll that is given up half-way begins a second connection: it has a task to itself.
    let (events, mut steps) = mpsc::channel(PENDING);
    tokio::spawn(async move {
        loop {
            let step = connection.step().await;
            let over = matches!(step, Ok(Step::Farewell) | Err(_));
            if events.send(step).await.is_err() || over {
                return;
            }
        }
    });
    let (mut done, mut total) = (0, None);
    loop {
        tokio::select! {
            fed = &mut feed, if total.is_none() => total = Some(fed??),
            Some(step) = steps.recv() => match step {
                Ok(Step::Farewell) => return Ok(()),
                Ok(Step::Refused(why)) => bail!("the server refused the message: {why}"),
                Ok(Step::Sent) if qos == 0 => done += 1,
                Ok(Step::Acknowledged) => done += 1,
                Ok(_) => {}
                // All is acknowledged and the farewell is due: whoever hangs up first has done nobody any harm.
                Err(_) if qos > 0 && total.is_some_and(|total| done > total) => return Ok(()),
                Err(error) => return Err(error),
            },
        }
        if total == Some(done) {
            handle.disconnect()?;
            done += 1; // only once: what follows is the farewell
        }
    }
}

async fn print_all(
    handle: Handle,
    mut connection: Connection,
    args: &SubArgs,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    handle.subscribe(&args.filter, args.qos).await?;
    let mut enough = false;
    loop {
        match connection.step().await {
            Ok(Step::Farewell) => return Ok(()),
            Ok(Step::Refused(why)) => bail!("the server refused the subscription: {why}"),
            Ok(Step::Message { topic, payload }) if !enough => {
                if printer.print(&topic, &payload)? == ControlFlow::Break(()) {
                    enough = true;
                    // The acknowledgement stands before it in the line.
                    handle.disconnect()?;
                }
            }
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
}

/// What happened, as far as `pub` and `sub` care.
enum Step {
    /// A PUBLISH of ours went out.
    Sent,
    /// One of our messages is done: PUBACK or PUBCOMP.
    Acknowledged,
    /// A message or the subscription was refused.
    Refused(String),
    /// A message for us.
    Message { topic: String, payload: Bytes },
    /// Our DISCONNECT is out.
    Farewell,
    /// Anything else.
    Other,
}

#[derive(Clone)]
enum Handle {
    V4(v4::AsyncClient),
    V5(v5::AsyncClient),
}

enum Connection {
    V4(Box<v4::EventLoop>),
    V5(Box<v5::EventLoop>),
}

async fn open(way: &Way, road: &Road) -> anyhow::Result<(Handle, Connection, Option<Tunnel>)> {
    let id = road.id.clone().unwrap_or_else(|| format!("waystation-{}", std::process::id()));
    // rumqttc panics on these.
    if id.is_empty() || id.starts_with(' ') {
        bail!("--id must not be empty or begin with a blank");
    }
    let login = match (&road.user, &road.password) {
        (None, None) => None,
        (user, password) => Some((user.clone().unwrap_or_default(), password.clone().unwrap_or_default())),
    };
    let tunnel = match way {
        Way::Plain(_) => None,
        Way::Tls(address) => Some(Tunnel::tls(address, road).await.with_context(|| way.to_string())?),
        Way::WebSocket(url) => Some(Tunnel::websocket(url, road).await.with_context(|| way.to_string())?),
    };
    // The near end of a tunnel is a socket with a path, and without a port.
    let (host, port, transport) = match (way, &tunnel) {
        (_, Some(tunnel)) => (tunnel.socket.display().to_string(), 0, v4::Transport::unix()),
        (Way::Plain(address) | Way::Tls(address), None) => (address.host.clone(), address.port, v4::Transport::tcp()),
        (Way::WebSocket(url), None) => bail!("{url}: no way there"),
    };
    let (handle, connection) = match road.version {
        Version::V311 => {
            let mut options = v4::MqttOptions::new(id, host, port);
            options.set_transport(transport);
            let most = MAX_PACKET as usize;
            options.set_keep_alive(KEEP_ALIVE).set_max_packet_size(most, most);
            if let Some((user, password)) = login {
                options.set_credentials(user, password);
            }
            let (client, event_loop) = v4::AsyncClient::new(options, PENDING);
            (Handle::V4(client), Connection::V4(Box::new(event_loop)))
        }
        Version::V5 => {
            let mut options = v5::MqttOptions::new(id, host, port);
            options.set_transport(transport);
            options.set_keep_alive(KEEP_ALIVE).set_clean_start(true).set_max_packet_size(Some(MAX_PACKET));
            if let Some((user, password)) = login {
                options.set_credentials(user, password);
            }
            let (client, event_loop) = v5::AsyncClient::new(options, PENDING);
            (Handle::V5(client), Connection::V5(Box::new(event_loop)))
        }
    };
    Ok((handle, connection, tunnel))
}

impl Handle {
    async fn publish(&self, topic: &str, qos: u8, retain: bool, payload: Bytes) -> anyhow::Result<()> {
        match self {
            Self::V4(client) => client.publish_bytes(topic, qos_v4(qos), retain, payload).await?,
            Self::V5(client) => client.publish_bytes(topic, qos_v5(qos), retain, payload).await?,
        }
        Ok(())
    }

    async fn subscribe(&self, filter: &str, qos: u8) -> anyhow::Result<()> {
        match self {
            Self::V4(client) => client.subscribe(filter, qos_v4(qos)).await?,
            Self::V5(client) => client.subscribe(filter, qos_v5(qos)).await?,
        }
        Ok(())
    }

    fn disconnect(&self) -> anyhow::Result<()> {
        match self {
            Self::V4(client) => client.try_disconnect()?,
            Self::V5(client) => client.try_disconnect()?,
        }
        Ok(())
    }
}

impl Connection {
    /// The next thing that happens. An error ends the connection: nothing here tries a second time.
    async fn step(&mut self) -> anyhow::Result<Step> {
        match self {
            // rumqttc's errors repeat their causes in their own text.
            Self::V4(event_loop) => Ok(step_v4(event_loop.poll().await.map_err(|error| match error {
                v4::ConnectionError::ConnectionRefused(code) => refused(&code),
                error => anyhow!("{error}"),
            })?)),
            Self::V5(event_loop) => step_v5(event_loop.poll().await.map_err(|error| match error {
                v5::ConnectionError::ConnectionRefused(code) => refused(&code),
                error => anyhow!("{error}"),
            })?),
        }
    }
}

/// What the server has against us, in words.
fn refused(code: &impl std::fmt::Debug) -> anyhow::Error {
    anyhow!("the server refused the connection: {}", in_words(code))
}

fn step_v4(event: v4::Event) -> Step {
    use v4::{Event, Outgoing, Packet, SubscribeReasonCode};
    match event {
        Event::Outgoing(Outgoing::Publish(_)) => Step::Sent,
        Event::Outgoing(Outgoing::Disconnect) => Step::Farewell,
        Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => Step::Acknowledged,
        Event::Incoming(Packet::SubAck(ack)) if ack.return_codes.contains(&SubscribeReasonCode::Failure) => {
            Step::Refused("the server says no".into())
        }
        Event::Incoming(Packet::Publish(message)) => Step::Message { topic: message.topic, payload: message.payload },
        _ => Step::Other,
    }
}

fn step_v5(event: v5::Event) -> anyhow::Result<Step> {
    use rumqttc::Outgoing;
    use v5::{
        Event,
        mqttbytes::v5::{Packet, PubAckReason, PubCompReason, PubRecReason, SubscribeReasonCode},
    };
    Ok(match event {
        Event::Outgoing(Outgoing::Publish(_)) => Step::Sent,
        Event::Outgoing(Outgoing::Disconnect) => Step::Farewell,
        Event::Incoming(Packet::PubAck(ack)) => match ack.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Step::Acknowledged,
            reason => Step::Refused(in_words(&reason)),
        },
        Event::Incoming(Packet::PubRec(ack)) => match ack.reason {
            PubRecReason::Success | PubRecReason::NoMatchingSubscribers => Step::Other,
            reason => Step::Refused(in_words(&reason)),
        },
        Event::Incoming(Packet::PubComp(ack)) => match ack.reason {
            PubCompReason::Success => Step::Acknowledged,
            reason => Step::Refused(in_words(&reason)),
        },
        Event::Incoming(Packet::SubAck(ack)) => match ack.return_codes.first() {
            Some(SubscribeReasonCode::Success(_)) => Step::Other,
            reason => Step::Refused(reason.map_or_else(String::new, in_words)),
        },
        Event::Incoming(Packet::Publish(message)) => {
            Step::Message { topic: String::from_utf8_lossy(&message.topic).into_owned(), payload: message.payload }
        }
        Event::Incoming(Packet::Disconnect(farewell)) => {
            return Err(anyhow!("the server disconnected: {}", in_words(&farewell.reason_code)));
        }
        _ => Step::Other,
    })
}

fn qos_v4(qos: u8) -> v4::QoS {
    match qos {
        0 => v4::QoS::AtMostOnce,
        1 => v4::QoS::AtLeastOnce,
        _ => v4::QoS::ExactlyOnce,
    }
}

fn qos_v5(qos: u8) -> v5::mqttbytes::QoS {
    match qos {
        0 => v5::mqttbytes::QoS::AtMostOnce,
        1 => v5::mqttbytes::QoS::AtLeastOnce,
        _ => v5::mqttbytes::QoS::ExactlyOnce,
    }
}
