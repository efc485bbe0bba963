//! Publishers into the queue of a session that outlives its connection: what an acknowledgement costs that means
//! "kept".

use std::io::Write;

use anyhow::{Result, bail};

use super::args::{self, Common};
use super::clients::{Broker, Client};
use super::conn::Conn;
use super::engine::{Engine, Group, Publisher, Subscriber};
use super::flows::{self, Flow};
use super::process::Process;
use super::report::Report;
use super::template::Template;
use super::wire::{self, Session};

/// Messages that may wait for a client that reads: it bounds how far it falls behind, not the pace.
const BEHIND: u32 = 4_000;

pub(super) fn run(common: &Common, flight: u32, publishers: u32, client: args::Client) -> Result<Report> {
    if common.qos == 0 {
        bail!("a QoS 0 publish is not acknowledged: -q 1 or -q 2 is wanted");
    }
    let watched = common.pid.map(Process::new).transpose()?;
    let broker = Broker::new(common)?;
    let mut report = Report::new("durable", common);
    let mut engine = Engine::new(common.mqtt, common.qos, common.patience())?;
    let publishers = publishers.min(flight);
    (report.publishers, report.subscribers) = (publishers, 1);

    let mut reader = come(common, &broker, Session::Kept)?;
    reader.subscribe(common.mqtt, &[format!("{}/+", broker.root())], common.qos)?;
    reader.subscribed(common.mqtt)?;
    let mut subscribers = Vec::new();
    match client {
        args::Client::Away => leave(reader)?,
        args::Client::Reading => subscribers.push(Conn::new(reader)?),
    }
    let everyone = 0..usize::try_from(publishers)?;
    engine.groups.push(Group::new(everyone.clone(), 0..subscribers.len()));
    engine.subscribers = subscribers.into_iter().map(|conn| Subscriber::new(conn, 0, everyone.clone())).collect();
    let silent = vec![Vec::new(); everyone.len()];
    for (number, connection) in (0..publishers).zip(broker.open("p", &silent, |_| {})?) {
        let inflight = part(flight, number, publishers).min(connection.receive_maximum.into());
        let topic = format!("{}/{number}", broker.root());
        let template =
            Template::new(common.mqtt, common.qos, usize::try_from(common.size)?, &[topic], usize::try_from(inflight)?);
        let mut publisher = Publisher::new(Conn::new(connection)?, template, 0);
        (publisher.inflight, publisher.batch) = (inflight, inflight);
        publisher.share = match client {
            args::Client::Away => u32::MAX,
            args::Client::Reading => inflight + BEHIND / publishers,
        };
        publisher.budget = common.messages.map_or(u32::MAX, |messages| part(messages, number, publishers));
        publisher.time_acknowledgements();
        engine.publishers.push(publisher);
    }
    engine.start()?;
    let flow = Flow::of_acknowledgements("durable");
    flows::measure(common, &flow, watched, &mut engine, &mut report)?;
    if client == args::Client::Away {
        engine.admit(Conn::new(come(common, &broker, Session::Kept)?)?)?;
        flows::drain(&mut engine, common.patience())?;
    }
    flows::account(&engine, &mut report);
    drop(engine);
    // A clean session ends the kept one [MQTT-3.1.2-6]: the broker is left as it was found.
    leave(come(common, &broker, Session::Clean)?)?;
    Ok(report)
}

/// Connects the client whose session it is.
fn come(common: &Common, broker: &Broker, session: Session) -> Result<Client> {
    let mut client = broker.greet(&broker.client_id("s", 0), session)?;
    client.welcome(common.mqtt)?;
    Ok(client)
}

/// Disconnects, and waits until the broker has closed in its turn: from then on the client is away.
fn leave(mut client: Client) -> Result<()> {
    client.stream.write_all(&wire::DISCONNECT_BYTES)?;
    // There is no answer, only an end.
    let _ = client.answer(wire::PINGRESP, |_| Ok(()));
    Ok(())
}

/// What one of several gets of `whole`, the remainder going to the first.
fn part(whole: u32, number: u32, of: u32) -> u32 {
    whole / of + u32::from(number < whole % of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_spread_evenly_and_whole() {
        for (whole, of) in [(1, 1), (16, 16), (128, 16), (1_000, 16), (17, 16)] {
            let parts: Vec<u32> = (0..of).map(|number| part(whole, number, of)).collect();
            assert_eq!(parts.iter().sum::<u32>(), whole);
            assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1);
        }
    }
}
