//! `waystation sub`: print what comes, one payload a line.

use crate::{
    cli::SubArgs,
    client::{self, Target},
};
use anyhow::Context;
use std::{
    io::{ErrorKind, Write},
    ops::ControlFlow,
    process::ExitCode,
};

pub(crate) fn run(args: SubArgs) -> ExitCode {
    super::finish(subscribe(args))
}

async fn subscribe(mut args: SubArgs) -> anyhow::Result<()> {
    waystation_broker::Filter::parse(&args.filter).with_context(|| format!("the filter \"{}\"", args.filter))?;
    let mut printer = Printer { left: args.count, with_topic: args.verbose };
    match Target::of(&mut args.road)? {
        Target::Mqtt(way) => client::mqtt::subscribe(&way, &args, &mut printer).await,
        Target::MqttSn(address) => client::mqtt_sn::subscribe(&address, &args, &mut printer).await,
        Target::Http(base) => client::http::subscribe(&base, &args, &mut printer).await,
    }
}

/// Writes messages to standard output and knows when it has been enough.
pub(crate) struct Printer {
    left: Option<u64>,
    with_topic: bool,
}

impl Printer {
    /// Prints one message; `Break` after the last that was asked for, and when nobody reads any more.
    pub(crate) fn print(&mut self, topic: &str, payload: &[u8]) -> anyhow::Result<ControlFlow<()>> {
        let mut line = Vec::with_capacity(topic.len() + payload.len() + 2);
        if self.with_topic {
            line.extend_from_slice(topic.as_bytes());
            line.push(b' ');
        }
        line.extend_from_slice(payload);
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        match out.write_all(&line).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ControlFlow::Break(())),
            other => other.context("standard output")?,
        }
        let Some(left) = &mut self.left else { return Ok(ControlFlow::Continue(())) };
        *left -= 1;
        Ok(if *left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}
