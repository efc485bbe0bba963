//! The machine against the real core, without sockets; time is moved by hand.

use super::{Connection, Scratch, handshake};
use crate::codec::{
    self, Ack, AckProperties, Connect, ConnectProperties, Disconnect, DisconnectProperties, Filters, Packet, Publish,
    PublishProperties, ReasonCode, Subscribe, SubscribeTo, TopicFilters, Unsubscribe, UserProperties, Version, Will,
};
use std::{
    future::Future,
    num::{NonZeroU16, NonZeroU32},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use waystation_broker::{Broker, Limits, ManualClock, Overflow, Parts, Peer, Qos, store::rehearsal::Rehearsal};

struct Server {
    broker: Broker,
    clock: Arc<ManualClock>,
}

impl Server {
    fn new(limits: Limits) -> Self {
        let clock = Arc::new(ManualClock::default());
        Self { broker: Broker::new(Parts::in_memory(limits, clock.clone())), clock }
    }

    /// With a store in the test's hands.
    fn on(store: &Rehearsal) -> Self {
        let clock = Arc::new(ManualClock::default());
        let parts = Parts { store: Arc::new(store.clone()), ..Parts::in_memory(Limits::default(), clock.clone()) };
        Self { broker: Broker::new(parts), clock }
    }

    /// What the client sees before it is in, and the client if it gets in.
    fn try_connect(&self, connect: &Connect<'_>) -> Result<Client<'_>, Vec<u8>> {
        let mut bytes = Vec::new();
        connect.encode(&mut bytes).unwrap();
        let knock = handshake::knock(&bytes, &"mqtt".into(), Peer::INTERNAL, self.broker.limits());
        let (knock, used) = knock.map_err(|away| away.answer)?.unwrap();
        assert_eq!(used, bytes.len());
        let handshake::Knock { hello, terms } = *knock;
        let attached =
            ready(self.broker.attach(hello)).map_err(|refusal| handshake::refuse(&terms, &refusal).answer)?;
        let mut out = Vec::new();
        let connection = Connection::new(&terms, attached, &self.broker, &mut out);
        let mut client = Client {
            server: self,
            version: terms.version,
            connection: Some(connection),
            scratch: Scratch::default(),
            out,
        };
        client.settle();
        Ok(client)
    }

    fn connect(&self, version: Version, id: &str) -> Client<'_> {
        let mut client = self.try_connect(&Connect::new(version, id)).unwrap();
        client.expect(|packet| assert!(matches!(packet, Packet::ConnAck(ack) if ack.reason == ReasonCode::SUCCESS)));
        client
    }
}

struct Client<'a> {
    server: &'a Server,
    version: Version,
    connection: Option<Connection>,
    scratch: Scratch,
    out: Vec<u8>,
}

impl Client<'_> {
    fn send(&mut self, packets: &[Packet<'_>]) {
        let mut bytes = Vec::new();
        for packet in packets {
            packet.encode(self.version, &mut bytes).unwrap();
        }
        self.send_bytes(&bytes);
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        let (now, limits) = (self.server.broker.now(), self.server.broker.limits());
        let connection = self.connection.as_mut().unwrap();
        assert!(connection.listens(now, self.out.len()));
        connection.handle_bytes(now, bytes, limits, &mut self.scratch, &mut self.out);
        self.settle();
    }

    fn publish(&mut self, publish: Publish<'_>) {
        self.send(&[Packet::Publish(publish)]);
    }

    fn subscribe(&mut self, filter: &str, qos: Qos) {
        self.ask_for(filter, qos);
        self.expect(|packet| {
            assert!(matches!(packet, Packet::SubAck(ack) if ack.reasons == [qos as u8]), "{packet:?}");
        });
    }

    fn ask_for(&mut self, filter: &str, qos: Qos) {
        let list = [SubscribeTo::new(filter, qos)];
        let filters = Filters::new(&list);
        let subscribe = Subscribe { packet_id: id(1), identifier: None, user: Default::default(), filters };
        self.send(&[Packet::Subscribe(subscribe)]);
    }

    /// Events until there are none, then the end if it is one.
    fn settle(&mut self) {
        let (now, limits) = (self.server.broker.now(), self.server.broker.limits());
        let Some(connection) = &mut self.connection else { return };
        let mut cx = Context::from_waker(Waker::noop());
        while !connection.is_closing()
            && let Poll::Ready(event) = connection.link_event(&mut cx, self.out.len())
        {
            connection.handle_event(now, event, limits, &mut self.scratch, &mut self.out);
        }
        connection.handle_timeout(now);
        if connection.is_closing()
            && let Some(connection) = self.connection.take()
        {
            connection.leave(&mut self.out);
        }
    }

    fn advance(&mut self, by: Duration) {
        self.server.clock.advance(by);
        self.settle();
    }

    /// Checks the next packet the client gets.
    fn expect(&mut self, check: impl FnOnce(&Packet<'_>)) {
        self.settle();
        let used = {
            let decoded = codec::decode_from_server(&self.out, self.version, u32::MAX).unwrap();
            let (packet, used) = decoded.expect("a packet has been sent");
            check(&packet);
            used
        };
        self.out.drain(..used);
    }

    fn expect_nothing(&mut self) {
        self.settle();
        assert!(self.out.is_empty(), "{:?}", codec::decode_from_server(&self.out, self.version, u32::MAX));
    }

    fn expect_end(&mut self, reason: ReasonCode) {
        if self.version == Version::V5 {
            self.expect(|packet| {
                assert!(matches!(packet, Packet::Disconnect(it) if it.reason == reason), "{packet:?}");
            });
        }
        self.expect_nothing();
        assert!(self.connection.is_none());
    }
}

fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("nothing here has to wait"),
    }
}

fn id(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).unwrap()
}

fn publication<'a>(topic: &'a str, qos: Qos, packet_id: u16, payload: &'a [u8]) -> Publish<'a> {
    let packet_id = (qos != Qos::AtMostOnce).then(|| id(packet_id));
    Publish { dup: false, qos, retain: false, topic, packet_id, properties: Default::default(), payload }
}

fn ack(packet_id: u16) -> Ack<'static> {
    Ack { packet_id: id(packet_id), reason: ReasonCode::SUCCESS, properties: AckProperties::default() }
}

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];

#[test]
fn every_qos_goes_through_in_every_version() {
    for version in VERSIONS {
        let server = Server::new(Limits::default());
        let (mut publisher, mut subscriber) = (server.connect(version, "p"), server.connect(version, "s"));
        subscriber.subscribe("a/#", Qos::ExactlyOnce);
        publisher.send(&[
            Packet::Publish(publication("a/0", Qos::AtMostOnce, 0, b"zero")),
            Packet::Publish(publication("a/1", Qos::AtLeastOnce, 1, b"one")),
            Packet::Publish(publication("a/2", Qos::ExactlyOnce, 2, b"two")),
        ]);
        publisher.expect(|it| assert!(matches!(it, Packet::PubAck(a) if a.packet_id == id(1)), "{it:?}"));
        publisher.expect(|it| assert!(matches!(it, Packet::PubRec(a) if a.packet_id == id(2)), "{it:?}"));
        publisher.send(&[Packet::PubRel(ack(2))]);
        publisher.expect(|it| {
            assert!(matches!(it, Packet::PubComp(a) if a.reason == ReasonCode::SUCCESS), "{it:?}");
        });

        let mut tags = Vec::new();
        for (topic, payload) in [("a/0", &b"zero"[..]), ("a/1", b"one"), ("a/2", b"two")] {
            subscriber.expect(|it| {
                let Packet::Publish(it) = it else { panic!("{it:?}") };
                assert_eq!((it.topic, it.payload, it.dup), (topic, payload, false));
                tags.extend(it.packet_id.map(NonZeroU16::get));
            });
        }
        subscriber.send(&[Packet::PubAck(ack(tags[0])), Packet::PubRec(ack(tags[1]))]);
        subscriber.expect(|it| assert!(matches!(it, Packet::PubRel(a) if a.packet_id.get() == tags[1]), "{it:?}"));
        subscriber.send(&[Packet::PubComp(ack(tags[1]))]);
        subscriber.expect_nothing();
        assert_eq!(server.broker.waiting(), 0, "{version:?}");
    }
}

#[test]
fn what_was_not_acknowledged_comes_again_first_and_with_dup() {
    let server = Server::new(Limits::default());
    let persistent = Connect { clean_start: false, ..Connect::new(Version::V3_1_1, "s") };
    let mut subscriber = server.try_connect(&persistent).unwrap();
    subscriber.expect(|it| assert!(matches!(it, Packet::ConnAck(a) if !a.session_present)));
    subscriber.subscribe("a", Qos::AtLeastOnce);
    let mut publisher = server.connect(Version::V5, "p");
    publisher.publish(publication("a", Qos::AtLeastOnce, 1, b"first"));
    subscriber.expect(|it| assert!(matches!(it, Packet::Publish(p) if !p.dup)));
    drop(subscriber);
    publisher.publish(publication("a", Qos::AtLeastOnce, 2, b"second"));
    let mut again = server.try_connect(&persistent).unwrap();
    again.expect(|it| assert!(matches!(it, Packet::ConnAck(a) if a.session_present)));
    again.expect(|it| assert!(matches!(it, Packet::Publish(p) if p.dup && p.payload == b"first"), "{it:?}"));
    again.expect(|it| assert!(matches!(it, Packet::Publish(p) if !p.dup && p.payload == b"second"), "{it:?}"));
}

#[test]
fn one_publication_more_than_the_receive_maximum_ends_the_connection() {
    let server = Server::new(Limits { receive_maximum: 2, ..Limits::default() });
    let mut client = server.connect(Version::V5, "c");
    for n in 1..=2 {
        client.publish(publication("a", Qos::ExactlyOnce, n, b""));
        client.expect(|it| {
            assert!(matches!(it, Packet::PubRec(a) if a.reason == ReasonCode::NO_MATCHING_SUBSCRIBERS), "{it:?}");
        });
    }
    client.publish(publication("a", Qos::ExactlyOnce, 3, b""));
    client.expect_end(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED);
}

#[test]
fn a_released_publication_makes_room_in_the_receive_maximum() {
    let server = Server::new(Limits { receive_maximum: 1, ..Limits::default() });
    let mut client = server.connect(Version::V5, "c");
    for _ in 0..3 {
        client.publish(publication("a", Qos::ExactlyOnce, 1, b""));
        client.expect(|it| assert!(matches!(it, Packet::PubRec(_)), "{it:?}"));
        client.send(&[Packet::PubRel(ack(1))]);
        client.expect(|it| assert!(matches!(it, Packet::PubComp(_)), "{it:?}"));
    }
}

#[test]
fn unknown_packet_identifiers_are_answered_as_not_found() {
    let server = Server::new(Limits::default());
    let mut client = server.connect(Version::V5, "c");
    let not_found = ReasonCode::PACKET_IDENTIFIER_NOT_FOUND;
    client.send(&[Packet::PubRel(ack(7)), Packet::PubRec(ack(8)), Packet::PubAck(ack(9)), Packet::PubComp(ack(9))]);
    client.expect(|it| assert!(matches!(it, Packet::PubComp(a) if a.reason == not_found), "{it:?}"));
    client.expect(|it| assert!(matches!(it, Packet::PubRel(a) if a.reason == not_found), "{it:?}"));
    client.expect_nothing();
}

#[test]
fn a_silent_client_is_gone_after_one_and_a_half_keep_alives_and_its_will_is_published() {
    for version in VERSIONS {
        let server = Server::new(Limits::default());
        let mut watcher = server.connect(version, "watcher");
        watcher.subscribe("will", Qos::AtMostOnce);
        let will =
            Will { qos: Qos::AtMostOnce, retain: false, topic: "will", payload: b"x", properties: Default::default() };
        let connect = Connect { keep_alive: 10, will: Some(will), ..Connect::new(version, "c") };
        let mut client = server.try_connect(&connect).unwrap();
        client.expect(|it| assert!(matches!(it, Packet::ConnAck(_))));
        client.advance(Duration::from_secs(14));
        client.send(&[Packet::PingReq]);
        client.expect(|it| assert_eq!(*it, Packet::PingResp));
        client.advance(Duration::from_secs(14));
        client.expect_nothing();
        watcher.expect_nothing();
        client.advance(Duration::from_secs(1));
        client.expect_end(ReasonCode::KEEP_ALIVE_TIMEOUT);
        watcher.expect(|it| assert!(matches!(it, Packet::Publish(p) if p.topic == "will"), "{it:?}"));
    }
}

#[test]
fn a_newcomer_with_the_same_id_takes_the_session_over() {
    let server = Server::new(Limits::default());
    let mut old = server.connect(Version::V5, "c");
    let mut new = server.connect(Version::V5, "c");
    old.expect_end(ReasonCode::SESSION_TAKEN_OVER);
    new.send(&[Packet::PingReq]);
    new.expect(|it| assert_eq!(*it, Packet::PingResp));
}

#[test]
fn topic_aliases_work_both_ways() {
    let server = Server::new(Limits::default());
    let properties = ConnectProperties { topic_alias_maximum: Some(4), ..Default::default() };
    let mut subscriber = server.try_connect(&Connect { properties, ..Connect::new(Version::V5, "s") }).unwrap();
    subscriber.expect(|it| assert!(matches!(it, Packet::ConnAck(_))));
    subscriber.subscribe("#", Qos::AtMostOnce);
    let mut publisher = server.connect(Version::V5, "p");
    let alias = |topic| Publish {
        properties: PublishProperties { topic_alias: Some(id(3)), ..Default::default() },
        ..publication(topic, Qos::AtMostOnce, 0, b"x")
    };
    publisher.send(&[Packet::Publish(alias("long/topic")), Packet::Publish(alias(""))]);
    subscriber.expect(|it| assert!(matches!(it, Packet::Publish(p) if p.topic == "long/topic"), "{it:?}"));
    subscriber.expect(|it| {
        assert!(matches!(it, Packet::Publish(p) if p.topic.is_empty() && p.properties.topic_alias.is_some()), "{it:?}");
    });
    let unknown = PublishProperties { topic_alias: Some(id(4)), ..Default::default() };
    publisher.publish(Publish { properties: unknown, ..publication("", Qos::AtMostOnce, 0, b"") });
    publisher.expect_end(ReasonCode::PROTOCOL_ERROR);
}

#[test]
fn a_payload_that_is_not_the_utf8_it_says_is_refused() {
    let server = Server::new(Limits::default());
    let mut client = server.connect(Version::V5, "c");
    let properties = PublishProperties { payload_is_utf8: true, ..Default::default() };
    client.publish(Publish { properties, ..publication("a", Qos::AtLeastOnce, 1, b"\xff") });
    client.expect(|it| {
        assert!(matches!(it, Packet::PubAck(a) if a.reason == ReasonCode::PAYLOAD_FORMAT_INVALID), "{it:?}");
    });
    client.send(&[Packet::PingReq]);
    client.expect(|it| assert_eq!(*it, Packet::PingResp));
}

#[test]
fn a_session_expiry_that_was_zero_stays_zero() {
    let server = Server::new(Limits::default());
    let mut client = server.connect(Version::V5, "c");
    let properties = DisconnectProperties { session_expiry: Some(10), ..Default::default() };
    client.send(&[Packet::Disconnect(Disconnect { reason: ReasonCode::SUCCESS, properties })]);
    client.expect_end(ReasonCode::PROTOCOL_ERROR);
}

/// The reason of a CONNACK, and its Reason String.
fn connack(bytes: &[u8]) -> (u8, Option<&str>) {
    match codec::decode_from_server(bytes, Version::V5, u32::MAX).unwrap().unwrap().0 {
        Packet::ConnAck(connack) => (connack.reason.0, connack.properties.reason_string),
        other => panic!("{other:?}"),
    }
}

#[test]
fn enhanced_authentication_and_unknown_versions_are_turned_away() {
    let server = Server::new(Limits::default());
    let properties = ConnectProperties { authentication_method: Some("SCRAM"), ..Default::default() };
    let answer = server.try_connect(&Connect { properties, ..Connect::new(Version::V5, "c") }).err().unwrap();
    assert_eq!(connack(&answer), (0x8C, Some("enhanced authentication is not offered")));
    let unknown = b"\x10\x0c\0\x04MQTT\x09\x02\0\0\0\0";
    let away = handshake::knock(unknown, &"mqtt".into(), Peer::INTERNAL, server.broker.limits()).err().unwrap();
    assert_eq!(away.answer, [0x20, 3, 0, 0x84, 0], "in the shortest form");
    let away = handshake::knock(b"GET / HTTP/1.1\r\n", &"mqtt".into(), Peer::INTERNAL, server.broker.limits());
    assert!(away.err().unwrap().answer.is_empty());
}

#[test]
fn a_client_gets_no_packet_larger_than_it_takes() {
    let server = Server::new(Limits::default());
    let small = |size| ConnectProperties { maximum_packet_size: NonZeroU32::new(size), ..Default::default() };
    let mut client = server.try_connect(&Connect { properties: small(10), ..Connect::new(Version::V5, "c") }).unwrap();
    client.expect_nothing();
    assert!(client.connection.is_none(), "a CONNACK would be larger");

    let mut client = server.try_connect(&Connect { properties: small(40), ..Connect::new(Version::V5, "c") }).unwrap();
    client.expect(|it| assert!(matches!(it, Packet::ConnAck(_)), "{it:?}"));
    let filters: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let filters: Vec<SubscribeTo<'_>> = filters.iter().map(|it| SubscribeTo::new(it, Qos::AtMostOnce)).collect();
    let (few, many) = filters.split_at(10);
    for (packet_id, filters) in [(id(1), few), (id(2), many)] {
        let filters = Filters::new(filters);
        client.send(&[Packet::Subscribe(Subscribe { packet_id, identifier: None, user: Default::default(), filters })]);
        if packet_id == id(1) {
            client.expect(|it| assert!(matches!(it, Packet::SubAck(_)), "{it:?}"));
        }
    }
    client.expect_end(ReasonCode::PACKET_TOO_LARGE);
}

#[test]
fn an_id_of_mqtt_3_1_has_at_most_23_characters() {
    let server = Server::new(Limits::default());
    let long = "ü".repeat(23);
    let mut client = server.try_connect(&Connect::new(Version::V3_1, &long)).unwrap();
    client.expect(|it| assert!(matches!(it, Packet::ConnAck(_)), "{it:?}"));
    let answer = server.try_connect(&Connect::new(Version::V3_1, &"x".repeat(24))).err().unwrap();
    assert_eq!(answer, [0x20, 2, 0, 2]);
}

#[test]
fn a_topic_of_too_many_levels_is_refused_where_that_can_be_said_and_ends_the_connection_where_not() {
    for (version, qos, stays) in [
        (Version::V5, Qos::AtLeastOnce, true),
        (Version::V5, Qos::AtMostOnce, false),
        (Version::V3_1_1, Qos::AtLeastOnce, false),
    ] {
        let server = Server::new(Limits { max_topic_levels: 2, ..Limits::default() });
        let mut client = server.connect(version, "c");
        client.publish(publication("a/b/c", qos, 1, b""));
        if stays {
            client.expect(|it| {
                assert!(matches!(it, Packet::PubAck(a) if a.reason == ReasonCode::TOPIC_NAME_INVALID), "{it:?}");
            });
        } else {
            client.expect_end(ReasonCode::TOPIC_NAME_INVALID);
        }
    }
}

#[test]
fn a_client_without_an_id_is_given_one() {
    let server = Server::new(Limits::default());
    let mut client = server.try_connect(&Connect::new(Version::V5, "")).unwrap();
    client.expect(|it| {
        let Packet::ConnAck(ack) = it else { panic!("{it:?}") };
        assert!(ack.properties.assigned_client_id.is_some());
    });
}

fn full_queue(server: &Server) -> Client<'_> {
    let persistent = Connect { clean_start: false, ..Connect::new(Version::V3_1_1, "full") };
    let mut subscriber = server.try_connect(&persistent).unwrap();
    subscriber.expect(|it| assert!(matches!(it, Packet::ConnAck(_))));
    subscriber.subscribe("a", Qos::AtLeastOnce);
    subscriber
}

#[test]
fn an_mqtt5_publisher_is_told_of_a_full_queue() {
    let server = Server::new(Limits { overflow: Overflow::Reject, max_queued_messages: 1, ..Limits::default() });
    let _subscriber = full_queue(&server);
    let mut publisher = server.connect(Version::V5, "p");
    for (n, reason) in [(1, ReasonCode::SUCCESS), (2, ReasonCode::QUOTA_EXCEEDED)] {
        publisher.publish(publication("a", Qos::AtLeastOnce, n, b"x"));
        publisher.expect(|it| assert!(matches!(it, Packet::PubAck(a) if a.reason == reason), "{it:?}"));
    }
}

#[test]
fn an_mqtt3_publication_for_a_full_queue_is_kept_until_there_is_room() {
    let server = Server::new(Limits { overflow: Overflow::Reject, max_queued_messages: 1, ..Limits::default() });
    let mut subscriber = full_queue(&server);
    let mut publisher = server.connect(Version::V3_1_1, "p");
    publisher.send(&[
        Packet::Publish(publication("a", Qos::AtLeastOnce, 1, b"1")),
        Packet::Publish(publication("a", Qos::AtLeastOnce, 2, b"2")),
    ]);
    publisher.expect(|it| assert!(matches!(it, Packet::PubAck(a) if a.packet_id == id(1)), "{it:?}"));
    publisher.send(&[Packet::PingReq]);
    publisher.expect(|it| assert_eq!(*it, Packet::PingResp));
    let mut tag = 0;
    subscriber.expect(|it| {
        let Packet::Publish(it) = it else { panic!("{it:?}") };
        tag = it.packet_id.unwrap().get();
    });
    subscriber.send(&[Packet::PubAck(ack(tag))]);
    publisher.expect(|it| assert!(matches!(it, Packet::PubAck(a) if a.packet_id == id(2)), "{it:?}"));
    subscriber.expect(|it| assert!(matches!(it, Packet::Publish(p) if p.payload == b"2"), "{it:?}"));
}

#[test]
fn nothing_overtakes_a_kept_publication_not_even_in_the_same_burst() {
    let server = Server::new(Limits { overflow: Overflow::Reject, max_queued_messages: 1, ..Limits::default() });
    let mut full = full_queue(&server);
    let mut roomy = server.connect(Version::V5, "roomy");
    roomy.subscribe("b", Qos::AtMostOnce);
    let mut publisher = server.connect(Version::V3_1_1, "p");
    publisher.send(&[
        Packet::Publish(publication("a", Qos::AtLeastOnce, 1, b"1")),
        Packet::Publish(publication("a", Qos::AtLeastOnce, 2, b"2")),
        Packet::Publish(publication("b", Qos::AtLeastOnce, 3, b"3")),
        Packet::Publish(publication("b", Qos::AtMostOnce, 0, b"free")),
    ]);
    publisher.expect(|it| assert!(matches!(it, Packet::PubAck(a) if a.packet_id == id(1)), "{it:?}"));
    publisher.expect_nothing();
    roomy.expect(|it| assert!(matches!(it, Packet::Publish(p) if p.payload == b"free"), "{it:?}"));
    roomy.expect_nothing();
    full.expect(|it| assert!(matches!(it, Packet::Publish(p) if p.payload == b"1"), "{it:?}"));
    full.send(&[Packet::PubAck(ack(1))]);
    for n in 2..=3 {
        publisher.expect(|it| assert!(matches!(it, Packet::PubAck(a) if a.packet_id == id(n)), "{it:?}"));
    }
    roomy.expect(|it| assert!(matches!(it, Packet::Publish(p) if p.payload == b"3"), "{it:?}"));
}

#[test]
fn acknowledgements_wait_for_the_store_and_while_it_is_down_mqtt_5_is_told_and_mqtt_3_waits() {
    let store = Rehearsal::default();
    let server = Server::on(&store);
    let keeper = Connect { clean_start: false, ..Connect::new(Version::V3_1_1, "keeper") };
    let mut keeper = server.try_connect(&keeper).unwrap();
    keeper.expect_nothing();
    store.sync();
    keeper.expect(|it| assert!(matches!(it, Packet::ConnAck(_)), "{it:?}"));
    keeper.ask_for("a", Qos::AtLeastOnce);
    keeper.expect_nothing();
    store.sync();
    keeper.expect(|it| assert!(matches!(it, Packet::SubAck(_)), "{it:?}"));

    let (mut old, mut new) = (server.connect(Version::V3_1_1, "old"), server.connect(Version::V5, "new"));
    store.set_down(true);
    new.publish(publication("a", Qos::AtLeastOnce, 1, b"new"));
    new.expect(|it| {
        assert!(matches!(it, Packet::PubAck(a) if a.reason == ReasonCode::QUOTA_EXCEEDED), "{it:?}");
    });
    for n in 1..=3 {
        old.publish(publication("a", Qos::AtLeastOnce, n, &[b'0' + u8::try_from(n).unwrap()]));
    }
    old.send(&[Packet::PingReq]);
    old.expect(|it| assert_eq!(*it, Packet::PingResp));
    old.expect_nothing();
    store.set_down(false);
    old.expect_nothing();
    store.sync();
    for n in 1..=3 {
        old.expect(|it| assert!(matches!(it, Packet::PubAck(a) if a.packet_id == id(n)), "{it:?}"));
    }
    for text in [b"1", b"2", b"3"] {
        keeper.expect(|it| assert!(matches!(it, Packet::Publish(p) if p.payload == text), "{it:?}"));
    }
}

/// Each step of QoS 2 on both sides, and UNSUBACK: none of them before what it speaks of is on disk.
#[test]
fn every_step_of_qos_2_and_unsuback_wait_for_the_store() {
    for version in VERSIONS {
        let store = Rehearsal::default();
        let server = Server::on(&store);
        let properties = ConnectProperties { session_expiry: Some(60), ..ConnectProperties::default() };
        let connect = Connect { clean_start: false, properties, ..Connect::new(version, "both") };
        let mut client = server.try_connect(&connect).unwrap();
        store.sync();
        client.expect(|it| assert!(matches!(it, Packet::ConnAck(_)), "{it:?}"));
        client.ask_for("a", Qos::ExactlyOnce);
        store.sync();
        client.expect(|it| assert!(matches!(it, Packet::SubAck(_)), "{it:?}"));

        client.publish(publication("a", Qos::ExactlyOnce, 5, b"x"));
        client.expect_nothing();
        store.sync();
        client.expect(|it| assert!(matches!(it, Packet::PubRec(a) if a.packet_id == id(5)), "{it:?}"));
        let mut tag = 0;
        client.expect(|it| match it {
            Packet::Publish(p) => tag = p.packet_id.unwrap().get(),
            other => panic!("not handed out once it is safe: {other:?}"),
        });
        client.send(&[Packet::PubRel(ack(5))]);
        client.expect_nothing();
        store.sync();
        client.expect(|it| assert!(matches!(it, Packet::PubComp(a) if a.packet_id == id(5)), "{it:?}"));
        client.send(&[Packet::PubRec(ack(tag))]);
        client.expect_nothing();
        store.sync();
        client.expect(|it| assert!(matches!(it, Packet::PubRel(a) if a.packet_id == id(tag)), "{it:?}"));
        client.send(&[Packet::PubComp(ack(tag))]);

        let filters = ["a"];
        let filters = TopicFilters::new(&filters);
        client.send(&[Packet::Unsubscribe(Unsubscribe { packet_id: id(6), user: Default::default(), filters })]);
        client.expect_nothing();
        store.sync();
        client.expect(|it| assert!(matches!(it, Packet::UnsubAck(_)), "{it:?}"));
        client.expect_nothing();
    }
}

#[test]
fn a_connack_waits_for_its_will() {
    let store = Rehearsal::default();
    let server = Server::on(&store);
    let will =
        Will { qos: Qos::AtMostOnce, retain: false, topic: "will", payload: b"x", properties: Default::default() };
    let connect = Connect { will: Some(will), ..Connect::new(Version::V5, "mortal") };
    let mut client = server.try_connect(&connect).unwrap();
    client.expect_nothing();
    store.sync();
    client.expect(|it| assert!(matches!(it, Packet::ConnAck(_)), "{it:?}"));
}

#[test]
fn a_kept_publication_that_finds_no_room_for_30_s_ends_the_connection() {
    let server = Server::new(Limits { overflow: Overflow::Reject, max_queued_messages: 1, ..Limits::default() });
    let _subscriber = full_queue(&server);
    let mut publisher = server.connect(Version::V3_1_1, "p");
    publisher.publish(publication("a", Qos::AtLeastOnce, 1, b"1"));
    publisher.expect(|it| assert!(matches!(it, Packet::PubAck(_))));
    publisher.publish(publication("a", Qos::AtLeastOnce, 2, b"2"));
    publisher.advance(Duration::from_secs(29));
    assert!(publisher.connection.is_some());
    publisher.advance(Duration::from_secs(1));
    publisher.expect_end(ReasonCode::QUOTA_EXCEEDED);
}

#[test]
fn every_malformed_sample_ends_the_connection_with_its_reason() {
    for sample in codec::samples::MALFORMED {
        if sample.sender != codec::Sender::Client || sample.bytes.first().is_some_and(|first| first >> 4 == 1) {
            continue;
        }
        let server = Server::new(Limits::default());
        let mut client = server.connect(sample.version, "c");
        client.send_bytes(sample.bytes);
        assert!(client.connection.is_none(), "{}", sample.name);
        client.expect_end(sample.expected.unwrap());
    }
}

/// The runtime puts a header of some hundred bytes before the driver's future and rounds the whole up to 128.
#[test]
fn a_connection_is_small() {
    let (connection, drive) = (size_of::<Connection>(), size_of::<crate::driver::Drive<tokio::net::TcpStream>>());
    assert!(drive <= 280, "{drive} bytes, of which {connection} are the connection");
}

#[test]
fn a_bridge_that_says_where_it_comes_from_is_told_whom_it_has_reached() {
    let server = Server::new(Limits::default());
    let told = |connect: &Connect<'_>| {
        let mut told = Vec::new();
        server.try_connect(connect).unwrap().expect(|packet| {
            let Packet::ConnAck(ack) = packet else { panic!("{packet:?}") };
            told.extend(ack.properties.user.iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        });
        told
    };
    let pairs = [("waystation-origin", "there")];
    let properties = ConnectProperties { user: UserProperties::new(&pairs), ..ConnectProperties::default() };
    let bridge = Connect { properties, ..Connect::new(Version::V5, "site-b") };
    assert_eq!(told(&bridge), [("waystation-origin".to_owned(), server.broker.identity())]);
    assert_eq!(told(&Connect::new(Version::V5, "somebody")), []);
}
