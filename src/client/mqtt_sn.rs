//! MQTT-SN over UDP: `pub` and `sub` as a board would.

use super::Address;
use crate::{
    cli::{PubArgs, Road, SubArgs},
    command::subscribe::Printer,
};
use anyhow::{Context, bail};
use bytes::Bytes;
use std::ops::ControlFlow;
use tokio::sync::mpsc;
use waystation_broker::Qos;
use waystation_mqtt_sn::{Board, Options};

pub(crate) async fn publish(
    address: &Address,
    args: &PubArgs,
    mut payloads: mpsc::Receiver<std::io::Result<Bytes>>,
) -> anyhow::Result<()> {
    let mut board = connect(address, &args.road).await?;
    while let Some(payload) = payloads.recv().await {
        let payload = payload.context("standard input")?;
        board.publish(&args.topic, &payload, qos(args.qos), args.retain).await.with_context(|| address.to_string())?;
    }
    board.disconnect().await.with_context(|| address.to_string())
}

pub(crate) async fn subscribe(address: &Address, args: &SubArgs, printer: &mut Printer) -> anyhow::Result<()> {
    let mut board = connect(address, &args.road).await?;
    board.subscribe(&args.filter, qos(args.qos)).await.with_context(|| address.to_string())?;
    loop {
        let message = board.receive().await.with_context(|| address.to_string())?;
        if printer.print(&message.topic, &message.payload)? == ControlFlow::Break(()) {
            return board.disconnect().await.with_context(|| address.to_string());
        }
    }
}

async fn connect(address: &Address, road: &Road) -> anyhow::Result<Board> {
    if road.user.is_some() || road.password.is_some() {
        bail!("MQTT-SN 1.2 knows no user names and passwords");
    }
    let id = road.id.clone().unwrap_or_else(|| format!("waystation-{}", std::process::id()));
    let mut found =
        tokio::net::lookup_host((address.host.as_str(), address.port)).await.with_context(|| address.to_string())?;
    let gateway = found.next().with_context(|| format!("{address}: the name has no address"))?;
    Board::connect(gateway, Options::new(&id)).await.with_context(|| address.to_string())
}

fn qos(level: u8) -> Qos {
    Qos::from_u8(level).unwrap_or_default()
}
