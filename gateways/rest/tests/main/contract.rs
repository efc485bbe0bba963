//! What every gateway promises its host.

use std::{any::Any, net::SocketAddr};
use tokio::{io::AsyncReadExt, net::TcpStream};
use waystation_kit::{
    Listen,
    contract::{self, Subject},
};
use waystation_rest::{Config, Rest};

struct OverHttp;

impl Subject for OverHttp {
    type Gateway = Rest;

    fn config(listen: Listen) -> Config {
        Config { listen, ..Config::default() }
    }

    async fn client(address: SocketAddr) -> Box<dyn Any> {
        Box::new(TcpStream::connect(address).await.unwrap())
    }

    async fn is_gone(client: Box<dyn Any>) -> bool {
        let mut stream = client.downcast::<TcpStream>().unwrap();
        matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_keeps_the_contract() {
    contract::holds::<OverHttp>().await;
}
