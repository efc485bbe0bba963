//! `waystation pub`: publish, wait until it is acknowledged, say if not.

use crate::{
    cli::{Payload, PubArgs},
    client::{self, Target},
};
use anyhow::Context;
use bytes::Bytes;
use std::{io::BufRead, process::ExitCode};
use tokio::sync::mpsc;

/// Lines read ahead of what is sent.
const READ_AHEAD: usize = 64;

pub(crate) fn run(args: PubArgs) -> ExitCode {
    super::finish(publish(args))
}

async fn publish(mut args: PubArgs) -> anyhow::Result<()> {
    waystation_broker::Topic::parse(&args.topic).with_context(|| format!("the topic \"{}\"", args.topic))?;
    let target = Target::of(&mut args.road)?;
    let payloads = payloads(&args.payload)?;
    match target {
        Target::Mqtt(way) => client::mqtt::publish(&way, &args, payloads).await,
        Target::MqttSn(address) => client::mqtt_sn::publish(&address, &args, payloads).await,
        Target::Http(base) => client::http::publish(&base, &args, payloads).await,
    }
}

/// What to publish, one by one. An error ends it.
fn payloads(payload: &Payload) -> anyhow::Result<mpsc::Receiver<std::io::Result<Bytes>>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    if payload.lines {
        tokio::task::spawn_blocking(move || {
            for line in std::io::stdin().lock().split(b'\n') {
                let line = line.map(|mut line| {
                    line.pop_if(|last| *last == b'\r');
                    Bytes::from(line)
                });
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        return Ok(receiver);
    }
    let one = match (&payload.file, &payload.message) {
        (Some(file), _) => std::fs::read(file).with_context(|| file.display().to_string())?.into(),
        (None, text) => Bytes::from(text.clone().unwrap_or_default()),
    };
    sender.try_send(Ok(one)).context("an empty channel has room")?;
    Ok(receiver)
}
