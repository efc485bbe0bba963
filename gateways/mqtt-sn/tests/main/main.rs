//! The gateway over loopback UDP: as the kit's contract has it, board to board, and octet by octet.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail their test")]

mod addresses;
mod documentation;
mod dtls;

use std::{any::Any, future::poll_fn, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use waystation_broker::{Broker, Limits, Parts, Qos, SystemClock};
use waystation_kit::{
    Gateway, Listen, Registry, Running,
    contract::{Scene, Subject, holds},
};
use waystation_mqtt_sn::{Board, BoardError, Config, MqttSn, Options, codec::TopicRef, config::PredefinedTopics};

const PATIENCE: Duration = Duration::from_secs(10);

struct Sn;

impl Subject for Sn {
    type Gateway = MqttSn;

    fn config(listen: Listen) -> Config {
        Config { listen, ..Config::default() }
    }

    async fn client(address: SocketAddr) -> Box<dyn Any> {
        Box::new(Board::connect(address, Options::new("contract")).await.unwrap())
    }

    async fn is_gone(client: Box<dyn Any>) -> bool {
        let Ok(mut board) = client.downcast::<Board>() else { return false };
        matches!(board.receive().await, Err(BoardError::Disconnected))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_keeps_the_contract() {
    let mut tests = pin!(holds::<Sn>());
    // It starts a loop, which waits for the loop's thread.
    poll_fn(|cx| tokio::task::block_in_place(|| tests.as_mut().poll(cx))).await;
}

struct Server {
    scene: Scene,
    running: Running,
    address: SocketAddr,
    listening: Vec<(String, SocketAddr)>,
}

impl Server {
    fn end(self) {
        self.scene.cx.loops.shutdown();
    }
}

async fn server() -> Server {
    let predefined_topics = PredefinedTopics([(1, "sensors/temperature".to_owned())].into());
    server_with(Config { predefined_topics, ..Config::default() }).await
}

async fn server_with(config: Config) -> Server {
    server_within(Limits::default(), config).await
}

async fn server_within(limits: Limits, config: Config) -> Server {
    let broker = Broker::new(Parts::in_memory(limits, Arc::new(SystemClock::default())));
    // Starting a loop waits for its thread.
    let scene = tokio::task::block_in_place(|| Scene::with_broker(MqttSn::KIND, broker));
    let config = Config { listen: Listen(vec![([127, 0, 0, 1], 0).into()]), ..config };
    let registry = Registry::default().with::<MqttSn>();
    let kind = registry.kind(MqttSn::KIND).unwrap();
    let table = toml::Table::try_from(&config).unwrap();
    let bound = kind.bind(table, scene.cx.clone()).await.unwrap_or_else(|error| panic!("{error}"));
    let listening = bound.listening();
    Server { running: bound.start(), scene, address: listening[0].1, listening }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

#[tokio::test(flavor = "multi_thread")]
async fn boards_speak_with_each_other_with_every_qos_awake_and_asleep() {
    let server = server().await;
    let mut from = soon(Board::connect(server.address, Options::new("from"))).await.unwrap();
    let mut to = soon(Board::connect(server.address, Options::new("to"))).await.unwrap();
    assert_eq!(soon(to.subscribe("house/#", Qos::ExactlyOnce)).await.unwrap(), Qos::ExactlyOnce);
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        soon(from.publish("house/door", &[qos as u8; 300], qos, false)).await.unwrap();
        let message = soon(to.receive()).await.unwrap();
        assert_eq!((message.topic.as_str(), message.qos, message.payload.len()), ("house/door", qos, 300));
    }
    soon(to.sleep(600)).await.unwrap();
    for n in 0..5_u8 {
        soon(from.publish("house/window", &[n], Qos::AtLeastOnce, false)).await.unwrap();
    }
    soon(to.wake()).await.unwrap();
    for n in 0..5_u8 {
        assert_eq!(soon(to.receive()).await.unwrap().payload[..], [n]);
    }
    soon(to.disconnect()).await.unwrap();
    server.running.drain(Instant::now() + PATIENCE).await;
    server.scene.cx.loops.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_connects_publishes_to_predefined_and_short_topics() {
    let server = server().await;
    let mut to = soon(Board::connect(server.address, Options::new("to"))).await.unwrap();
    soon(to.subscribe("#", Qos::AtMostOnce)).await.unwrap();
    for (topic, name) in [(TopicRef::Predefined(1), "sensors/temperature"), (TopicRef::Short(*b"ab"), "ab")] {
        Board::publish_without_connect(server.address, topic, b"21", false).await.unwrap();
        assert_eq!(soon(to.receive()).await.unwrap().topic, name);
    }
    server.scene.cx.loops.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_hear_two_octets_at_most_three_and_nothing_in_answer_to_goodbye() {
    let server = server().await;
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stranger.connect(server.address).await.unwrap();
    let mut buffer = [0; 64];
    for (says, hears) in [
        (&[2, 0x18][..], &[][..]),                        // DISCONNECT
        (&[7, 0x0D, 0, 1, 0, 1, 0], &[]),                 // PUBACK
        (&[9, 0xFF, 0], &[]),                             // nonsense
        (&[3, 0x01, 0], &[3, 0x02, 1]),                   // SEARCHGW, GWINFO
        (&[2, 0x16], &[2, 0x18]),                         // PINGREQ, DISCONNECT
        (&[8, 0x0C, 0x20, 0, 1, 0, 1, b'x'], &[2, 0x18]), // PUBLISH QoS 1
    ] {
        stranger.send(says).await.unwrap();
        if !hears.is_empty() {
            let length = soon(stranger.recv(&mut buffer)).await.unwrap();
            // Whatever came before would have been answered before.
            assert_eq!(&buffer[..length], hears, "{says:02x?}");
        }
    }
    server.scene.cx.loops.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_is_counted_and_costs_nobody_anything() {
    let server = server().await;
    let mut board = soon(Board::connect(server.address, Options::new("bystander"))).await.unwrap();
    let rude = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    rude.connect(server.address).await.unwrap();
    let bad: [&[u8]; 12] = [
        &[],                                      // nothing
        &[0],                                     // a length of zero
        &[1],                                     // a long length that is cut
        &[1, 0],                                  // likewise
        &[1, 0, 2, 0x16],                         // a long length below its own size
        &[3, 0x16],                               // longer than it is
        &[2, 0x16, 0],                            // shorter than it is
        &[2, 0x03],                               // a reserved type
        &[7, 0x0C, 0b0110_0011, 0, 1, 0, 0],      // a reserved topic id type
        &[7, 0x0C, 0b0110_0000, 0, 1, 0, 0],      // QoS -1 to a normal id
        &[4, 0xFE, 0, 7, 4, 0xFE, 0, 8, 2, 0x16], // encapsulated twice
        &[7, 0x0D, 0, 1, 0, 1, 0],                // PUBACK of nobody
    ];
    for datagram in bad {
        rude.send(datagram).await.unwrap();
    }
    // Whatever came before has been obeyed before.
    rude.send(&[3, 0x01, 0]).await.unwrap();
    let mut buffer = [0; 64];
    assert_eq!(soon(rude.recv(&mut buffer)).await.unwrap(), 3);
    assert_eq!(server.scene.cx.broker.traffic(&MqttSn::KIND.into()).violations(), 12);
    soon(board.publish("a/b", b"still here", Qos::AtLeastOnce, false)).await.unwrap();
    server.end();
}
