//! Boards by their addresses: rebinding, forwarders, discovery, and what is said of them.

use crate::{Server, server_with, server_within, soon};
use std::net::SocketAddr;
use tokio::net::UdpSocket;
use waystation_broker::{Limits, Principal, Topic};
use waystation_mqtt_sn::{
    Config,
    codec::{Packet, decode, encapsulate, encode},
    config::{PredefinedTopics, Rebind},
};

/// A socket that speaks in octets.
struct Wire(UdpSocket);

impl Wire {
    async fn from(host: &str, server: &Server) -> Self {
        let socket = UdpSocket::bind(format!("{host}:0")).await.unwrap();
        socket.connect(server.address).await.unwrap();
        Self(socket)
    }

    async fn says(&self, datagram: &[u8]) {
        self.0.send(datagram).await.unwrap();
    }

    async fn hears(&self) -> Vec<u8> {
        let mut buffer = [0; 2_048];
        let length = soon(self.0.recv(&mut buffer)).await.unwrap();
        buffer[..length].to_vec()
    }

    async fn asks(&self, datagram: &[u8]) -> Vec<u8> {
        self.says(datagram).await;
        self.hears().await
    }

    /// Nothing has come: what is asked next is answered next.
    async fn heard_nothing(&self) {
        assert_eq!(self.asks(&[3, 0x01, 0]).await, [3, 0x02, 1]);
    }
}

const CONNACK: [u8; 3] = [3, 0x05, 0];
const DISCONNECT: [u8; 2] = [2, 0x18];
const PINGRESP: [u8; 2] = [2, 0x17];

fn connect(id: &str) -> Vec<u8> {
    let mut datagram = vec![u8::try_from(6 + id.len()).unwrap(), 0x04, 0b0000_0100, 1, 0, 60];
    datagram.extend_from_slice(id.as_bytes());
    datagram
}

fn ping(id: &str) -> Vec<u8> {
    let mut datagram = vec![u8::try_from(2 + id.len()).unwrap(), 0x16];
    datagram.extend_from_slice(id.as_bytes());
    datagram
}

fn wrapped(node: &[u8], message: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    encapsulate(0, node, &mut datagram).unwrap();
    datagram.extend_from_slice(message);
    datagram
}

/// SUBSCRIBE to `xy` by short name, QoS 1, and its SUBACK.
const SUBSCRIBE: [u8; 7] = [7, 0x12, 0b0010_0010, 0, 1, b'x', b'y'];
const SUBACK: [u8; 8] = [8, 0x13, 0b0010_0000, 0, 0, 0, 1, 0];
/// PUBLISH of `m` to `xy`, QoS -1.
const PUBLISH: [u8; 8] = [8, 0x0C, 0b0110_0010, b'x', b'y', 0, 0, b'm'];
/// The same as a subscriber gets it.
const DELIVERED: [u8; 8] = [8, 0x0C, 0b0000_0010, b'x', b'y', 0, 0, b'm'];

async fn rebinding(rebind: Rebind) -> Server {
    server_with(Config { rebind, ..Config::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_board_with_a_new_port_is_found_by_its_ping() {
    let server = rebinding(Rebind::SameHost).await;
    let board = Wire::from("127.0.0.1", &server).await;
    assert_eq!(board.asks(&connect("b")).await, CONNACK);
    assert_eq!(board.asks(&SUBSCRIBE).await, SUBACK);
    assert_eq!(board.asks(&[4, 0x18, 0, 60]).await, DISCONNECT);
    board.says(&PUBLISH).await;
    let moved = Wire::from("127.0.0.1", &server).await;
    assert_eq!(moved.asks(&ping("b")).await, DELIVERED);
    assert_eq!(moved.hears().await, PINGRESP);
    // Who is not known there any more is told so.
    assert_eq!(board.asks(&ping("")).await, DISCONNECT);
    server.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_neither_speaks_for_a_board_nor_ends_nor_reads_it() {
    let server = rebinding(Rebind::SameHost).await;
    let board = Wire::from("127.0.0.1", &server).await;
    let other = Wire::from("127.0.0.2", &server).await;
    assert_eq!(board.asks(&connect("b")).await, CONNACK);
    assert_eq!(board.asks(&SUBSCRIBE).await, SUBACK);
    for asleep in [false, true] {
        if asleep {
            assert_eq!(board.asks(&[4, 0x18, 0, 60]).await, DISCONNECT);
        }
        assert_eq!(other.asks(&ping("b")).await, DISCONNECT);
        other.says(&DISCONNECT).await;
        other.says(&PUBLISH).await;
        other.heard_nothing().await;
        if !asleep {
            assert_eq!(board.hears().await, DELIVERED);
        }
    }
    assert_eq!(board.asks(&ping("b")).await, DELIVERED);
    assert_eq!(board.hears().await, PINGRESP);
    server.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn rebinding_from_anywhere_and_from_nowhere_are_a_matter_of_configuration() {
    for (rebind, host, expected) in [(Rebind::Always, "127.0.0.2", PINGRESP), (Rebind::Never, "127.0.0.1", DISCONNECT)]
    {
        let server = rebinding(rebind).await;
        let board = Wire::from("127.0.0.1", &server).await;
        assert_eq!(board.asks(&connect("b")).await, CONNACK);
        let moved = Wire::from(host, &server).await;
        assert_eq!(moved.asks(&ping("b")).await, expected, "{rebind:?}");
        server.end();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_full_says_congestion() {
    let limits = Limits { max_connections: 2, ..Limits::default() };
    let server = server_within(limits, Config::default()).await;
    let boards = [Wire::from("127.0.0.1", &server).await, Wire::from("127.0.0.1", &server).await];
    for (board, id) in boards.iter().zip(["a", "b"]) {
        assert_eq!(board.asks(&connect(id)).await, CONNACK);
    }
    let late = Wire::from("127.0.0.1", &server).await;
    assert_eq!(late.asks(&connect("c")).await, [3, 0x05, 1]);
    assert_eq!(boards[0].asks(&DISCONNECT).await, DISCONNECT);
    assert_eq!(late.asks(&connect("c")).await, CONNACK);
    server.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_takes_over_from_anywhere() {
    let server = rebinding(Rebind::Never).await;
    let board = Wire::from("127.0.0.1", &server).await;
    let other = Wire::from("127.0.0.2", &server).await;
    assert_eq!(board.asks(&connect("b")).await, CONNACK);
    assert_eq!(other.asks(&connect("b")).await, CONNACK);
    assert_eq!(board.hears().await, DISCONNECT);
    server.says_of("b", "state", "active").await;
    server.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_whose_address_another_takes_over_is_lost() {
    let server = server_with(Config::default()).await;
    let board = Wire::from("127.0.0.1", &server).await;
    assert_eq!(board.asks(&connect("one")).await, CONNACK);
    server.says_of("one", "state", "active").await;
    // What is no client id takes over nothing.
    assert_eq!(board.asks(&connect("$")).await, [3, 0x05, 3]);
    assert_eq!(board.asks(&ping("one")).await, PINGRESP);
    assert_eq!(board.asks(&connect("two")).await, CONNACK);
    server.says_of("one", "state", "lost").await;
    server.says_of("two", "state", "active").await;
    server.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn boards_behind_a_forwarder_are_told_apart_by_their_node() {
    let server = server_with(Config::default()).await;
    let forwarder = Wire::from("127.0.0.1", &server).await;
    for (node, id) in [(&[1][..], "one"), (&[0, 2], "two"), (&[], "none")] {
        assert_eq!(forwarder.asks(&wrapped(node, &connect(id))).await, wrapped(node, &CONNACK));
    }
    assert_eq!(forwarder.asks(&connect("itself")).await, CONNACK);
    assert_eq!(forwarder.asks(&wrapped(&[0, 2], &SUBSCRIBE)).await, wrapped(&[0, 2], &SUBACK));
    forwarder.says(&wrapped(&[9], &PUBLISH)).await;
    assert_eq!(forwarder.hears().await, wrapped(&[0, 2], &DELIVERED));
    assert_eq!(forwarder.asks(&wrapped(&[1], &ping(""))).await, wrapped(&[1], &PINGRESP));
    // Another node of the same forwarder is another host.
    assert_eq!(forwarder.asks(&wrapped(&[3], &ping("one"))).await, wrapped(&[3], &DISCONNECT));
    // The same node behind the forwarder's new port is the same board.
    let moved = Wire::from("127.0.0.1", &server).await;
    assert_eq!(moved.asks(&wrapped(&[1], &ping("one"))).await, wrapped(&[1], &PINGRESP));
    moved.says(&wrapped(&[1], &wrapped(&[2], &PUBLISH))).await;
    moved.heard_nothing().await;
    server.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_board_does_is_told_under_sys() {
    let server = server_with(Config::default()).await;
    let board = Wire::from("127.0.0.1", &server).await;
    assert_eq!(board.asks(&connect("b")).await, CONNACK);
    server.says_of("b", "state", "active").await;
    assert_eq!(board.asks(&SUBSCRIBE).await, SUBACK);
    assert_eq!(board.asks(&[4, 0x18, 0, 60]).await, DISCONNECT);
    server.says_of("b", "state", "asleep").await;
    server.says_of("b", "next_wake", "20").await;
    let mut publish = PUBLISH;
    publish[2] = 0b0010_0010;
    let other = Wire::from("127.0.0.1", &server).await;
    assert_eq!(other.asks(&connect("c")).await, CONNACK);
    publish[6] = 1;
    assert_eq!(other.asks(&publish).await, [7, 0x0D, b'x', b'y', 0, 1, 0]);
    let delivered = board.asks(&ping("b")).await;
    server.says_of("b", "state", "awake").await;
    board.says(&[7, 0x0D, b'x', b'y', delivered[5], delivered[6], 0]).await;
    assert_eq!(board.hears().await, PINGRESP);
    server.says_of("b", "state", "asleep").await;
    assert_eq!(board.asks(&DISCONNECT).await, DISCONNECT);
    server.says_of("b", "state", "disconnected").await;
    server.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_live_with_the_session() {
    let server = server_with(Config::default()).await;
    let persistent = |id: &str| {
        let mut datagram = connect(id);
        datagram[2] = 0;
        datagram
    };
    let publish = [8, 0x0C, 0b0010_0000, 0, 1, 0, 7, b'm'];
    let board = Wire::from("127.0.0.1", &server).await;
    assert_eq!(board.asks(&persistent("b")).await, CONNACK);
    assert_eq!(board.asks(&[9, 0x0A, 0, 0, 0, 1, b'a', b'/', b'b']).await, [7, 0x0B, 0, 1, 0, 1, 0]);
    assert_eq!(board.asks(&DISCONNECT).await, DISCONNECT);
    // Back from elsewhere; then taken over from elsewhere while it is connected.
    for _ in 0..2 {
        let moved = Wire::from("127.0.0.2", &server).await;
        assert_eq!(moved.asks(&persistent("b")).await, CONNACK);
        assert_eq!(moved.asks(&publish).await, [7, 0x0D, 0, 1, 0, 7, 0]);
    }
    let anew = Wire::from("127.0.0.1", &server).await;
    assert_eq!(anew.asks(&connect("b")).await, CONNACK);
    assert_eq!(anew.asks(&publish).await, [7, 0x0D, 0, 1, 0, 7, 2], "a clean session knows no ids");
    server.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_has_topics_of_its_own_beside_those_of_all() {
    let topics = |id, name: &str| PredefinedTopics([(id, name.to_owned())].into());
    let own = waystation_mqtt_sn::config::Board {
        id: "board-7".into(),
        predefined_topics: topics(1, "attic"),
        ..Default::default()
    };
    let config = Config { predefined_topics: topics(1, "house"), client: vec![own], ..Config::default() };
    let server = server_with(config).await;
    let (listener, board) = (Wire::from("127.0.0.1", &server).await, Wire::from("127.0.0.1", &server).await);
    assert_eq!(listener.asks(&connect("listener")).await, CONNACK);
    assert_eq!(listener.asks(&[6, 0x12, 0, 0, 1, b'#']).await[1], 0x13);
    assert_eq!(board.asks(&connect("board-7")).await, CONNACK);
    board.says(&[8, 0x0C, 0b0000_0001, 0, 1, 0, 0, b'm']).await;
    let register = listener.hears().await;
    assert!(register.ends_with(b"attic"), "{register:02x?}");
    server.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_of_any_size_pass_in_both_length_forms() {
    let server = server_with(Config { max_datagram: 65_507, ..Config::default() }).await;
    let board = Wire::from("127.0.0.1", &server).await;
    assert_eq!(board.asks(&connect("b")).await, CONNACK);
    let mut subscribe = SUBSCRIBE;
    subscribe[2] = 0b0000_0010;
    assert_eq!(board.asks(&subscribe).await[7], 0);
    let mut room = vec![0; 65_536];
    for size in [1, 247, 248, 249, 1_400, 40_000, 65_498] {
        let mut publish = vec![1];
        publish.extend(u16::try_from(9 + size).unwrap().to_be_bytes());
        publish.extend([0x0C, 0b0000_0010, b'x', b'y', 0, 0]);
        publish.resize(9 + size, b'p');
        board.says(&publish).await;
        let length = soon(board.0.recv(&mut room)).await.unwrap();
        let Packet::Publish(back) = decode(&room[..length]).unwrap() else { panic!("{:02x?}", &room[..9]) };
        assert_eq!(back.payload.len(), size);
    }
    server.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_tells_its_multicast_group_of_itself_and_answers_searches_there() {
    let group: SocketAddr = "239.255.77.4:17884".parse().unwrap();
    let hears = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    hears.set_reuse_address(true).unwrap();
    hears.set_nonblocking(true).unwrap();
    hears.bind(&group.into()).unwrap();
    hears.join_multicast_v4(&[239, 255, 77, 4].into(), &[127, 0, 0, 1].into()).unwrap();
    let hears = UdpSocket::from_std(hears.into()).unwrap();
    let config = Config { advertise: group.to_string(), gateway_id: 7, advertise_interval_s: 600, ..Config::default() };
    let server = server_with(config).await;
    let mut buffer = [0; 64];
    let mut next = async || {
        let (length, from) = soon(hears.recv_from(&mut buffer)).await.unwrap();
        (buffer[..length].to_vec(), from)
    };
    assert_eq!(next().await, (vec![5, 0x00, 7, 2, 88], server.address), "ADVERTISE tells where to connect to");
    let board = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    board.set_multicast_if_v4(&[127, 0, 0, 1].into()).unwrap();
    board.set_nonblocking(true).unwrap();
    board.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let board = UdpSocket::from_std(board.into()).unwrap();
    let mut search = Vec::new();
    encode(&Packet::SearchGw { radius: 1 }, &mut search).unwrap();
    board.send_to(&search, group).await.unwrap();
    let mut answer = [0; 64];
    let (length, from) = soon(board.recv_from(&mut answer)).await.unwrap();
    assert_eq!((&answer[..length], from), (&[3, 0x02, 7][..], server.address));
    let heard = [next().await.0, next().await.0];
    assert_eq!(heard, [search, vec![3, 0x02, 7]], "who shares the group hears the answer too");
    server.end();
}

impl Server {
    /// Waits until a board's state begins so.
    async fn says_of(&self, id: &str, what: &str, expected: &str) {
        let topic = Topic::parse(&format!("$SYS/broker/mqtt_sn/clients/{id}/{what}")).unwrap();
        soon(async {
            loop {
                let state = self.scene.cx.broker.retained(&Principal::anonymous(), &topic).unwrap();
                let state = state.map(|state| String::from_utf8_lossy(state.payload()).into_owned());
                if state.is_some_and(|state| state.starts_with(expected)) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}
