//! The gateway over loopback TCP: the kit's contract, and the driver's own promises.

use crate::{
    Config, Mqtt,
    codec::{Connect, Packet, Version, decode_from_server},
};
use std::{any::Any, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use waystation_kit::{
    Bound, Gateway, Listen,
    contract::{self, Scene, Subject},
};

struct OverTcp;

impl Subject for OverTcp {
    type Gateway = Mqtt;

    fn config(listen: Listen) -> Config {
        Config { listen, ..Config::default() }
    }

    async fn client(address: SocketAddr) -> Box<dyn Any> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut bytes = Vec::new();
        Connect::new(Version::V5, "").encode(&mut bytes).unwrap();
        // In two pieces, and with the next packet already behind it.
        bytes.extend_from_slice(&[0xC0, 0]);
        stream.write_all(&bytes[..5]).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(&bytes[5..]).await.unwrap();
        assert!(matches!(next(&mut stream).await.as_slice(), [0x20, ..]));
        assert_eq!(next(&mut stream).await, [0xD0, 0]);
        Box::new(stream)
    }

    async fn is_gone(client: Box<dyn Any>) -> bool {
        let mut stream = client.downcast::<TcpStream>().unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        let Ok(Some((Packet::Disconnect(it), _))) = decode_from_server(&rest, Version::V5, u32::MAX) else {
            return false;
        };
        it.reason.0 == 0x8B
    }
}

/// One whole packet.
async fn next(stream: &mut TcpStream) -> Vec<u8> {
    let mut packet = Vec::new();
    while !matches!(decode_from_server(&packet, Version::V5, u32::MAX), Ok(Some(_))) {
        packet.push(timeout(Duration::from_secs(5), stream.read_u8()).await.unwrap().unwrap());
    }
    packet
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_keeps_the_contract() {
    contract::holds::<OverTcp>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_counted_for_the_gateway() {
    let scene = Scene::new("mqtt");
    let config = OverTcp::config(Listen(vec![SocketAddr::from(([127, 0, 0, 1], 0))]));
    let gateway: Box<dyn Bound> = Box::new(Mqtt::bind(config, scene.cx.clone()).await.unwrap());
    let (_, address) = gateway.listening()[0];
    let _running = gateway.start();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut connect = Vec::new();
    Connect::new(Version::V5, "c").encode(&mut connect).unwrap();
    stream.write_all(&connect).await.unwrap();
    let connack = next(&mut stream).await;
    let traffic = scene.cx.broker.traffic(&"mqtt".into());
    assert_eq!(traffic.bytes_received(), connect.len() as u64);
    // The count follows the write.
    while traffic.bytes_sent() < connack.len() as u64 {
        tokio::task::yield_now().await;
    }
    assert_eq!(traffic.bytes_sent(), connack.len() as u64);
    scene.cx.loops.shutdown();
}
