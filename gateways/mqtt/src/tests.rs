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
    Listen,
    contract::{self, Subject},
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
