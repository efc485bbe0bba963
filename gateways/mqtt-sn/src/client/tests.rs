//! The machine against the real broker, with a clock that stands still until moved.

use super::*;
use crate::{
    codec::{Connect, Publish, PublishQos, SubAck, Subscribe, TopicName, TopicRef, WillTopic, decode},
    config::PredefinedTopics,
};
use futures_util::FutureExt;
use std::task::Waker;
use waystation_broker::{Broker, Clock, Limits, ManualClock, Parts, Qos};

const AT: &str = "127.0.0.1:5000";

/// A broker, its clock, and boards that speak with it.
struct Scene {
    clock: Arc<ManualClock>,
    broker: Broker,
}

struct Board<'a> {
    scene: &'a Scene,
    client: Client,
}

impl Scene {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let broker = Broker::new(Parts::in_memory(Limits::default(), clock.clone()));
        Self { clock, broker }
    }

    fn board(&self, address: &str) -> Board<'_> {
        let predefined = PredefinedTopics([(1, "sensors/temperature".to_owned())].into());
        let settings = Settings {
            gateway: "mqtt_sn".into(),
            retry_interval: Duration::from_secs(10),
            retry_count: 3,
            max_datagram: 1_400,
            predefined: Predefined::new(&predefined),
        };
        Board { scene: self, client: Client::new(Arc::new(settings), address.parse().unwrap()) }
    }

    fn connected(&self, id: &str) -> Board<'_> {
        let port: u16 = 6_000 + id.bytes().map(u16::from).sum::<u16>();
        let mut board = self.board(&format!("127.0.0.1:{port}"));
        assert_eq!(board.says(&connect(id, true)), ["ConnAck(Accepted)"]);
        board
    }
}

impl Board<'_> {
    /// What comes back, each as its debug text.
    fn says(&mut self, packet: &Packet<'_>) -> Vec<String> {
        self.turn(|client, now, out| client.handle_packet(now, packet, out))
    }

    /// What comes without a word.
    fn hears(&mut self) -> Vec<String> {
        self.turn(|_, _, _| {})
    }

    fn after(&mut self, seconds: u64) -> Vec<String> {
        self.scene.clock.advance(Duration::from_secs(seconds));
        self.turn(|client, now, out| {
            if client.poll_timeout().is_some_and(|at| at <= now) {
                client.handle_timeout(now, out);
            }
        })
    }

    fn turn(&mut self, act: impl FnOnce(&mut Client, Time, &mut Outbox)) -> Vec<String> {
        let (now, mut out) = (self.scene.clock.now(), Outbox::default());
        act(&mut self.client, now, &mut out);
        for _ in 0..2 {
            self.client.finish(now, &mut out);
            self.client.handle_events(now, &mut Context::from_waker(Waker::noop()), &mut out);
            if let Some(hello) = self.client.poll_attach() {
                let answer = self.scene.broker.attach(hello).now_or_never().unwrap();
                self.client.handle_attached(now, answer, &mut out);
            }
        }
        out.iter().map(|(_, bytes)| format!("{:?}", decode(bytes).unwrap())).collect()
    }

    fn subscribes(&mut self, filter: &str, qos: Qos) -> u16 {
        let topic = TopicName::Name(filter.as_bytes());
        let (now, mut out) = (self.scene.clock.now(), Outbox::default());
        let packet = Packet::Subscribe(Subscribe { dup: false, qos, msg_id: 9, topic });
        self.client.handle_packet(now, &packet, &mut out);
        self.client.finish(now, &mut out);
        let (_, bytes) = out.iter().next().unwrap();
        let Packet::SubAck(SubAck { topic_id, code: ReturnCode::Accepted, .. }) = decode(bytes).unwrap() else {
            panic!("no SUBACK: {:?}", decode(bytes))
        };
        topic_id
    }
}

fn connect(id: &str, clean_session: bool) -> Packet<'_> {
    let client_id = id.as_bytes();
    Packet::Connect(Connect { will: false, clean_session, protocol_id: 1, duration_s: 60, client_id })
}

fn publish(topic: TopicRef, qos: Qos, msg_id: u16, payload: &[u8]) -> Packet<'_> {
    Packet::Publish(Publish { dup: false, qos: PublishQos::Mqtt(qos), retain: false, topic, msg_id, payload })
}

fn text(packet: &Packet<'_>) -> Vec<String> {
    vec![format!("{packet:?}")]
}

fn puback(topic_id: u16, msg_id: u16, code: ReturnCode) -> Packet<'static> {
    Packet::PubAck { topic_id, msg_id, code }
}

#[test]
fn a_repeated_connect_is_answered_again_and_another_protocol_is_refused() {
    let scene = Scene::new();
    let mut board = scene.connected("b");
    assert_eq!(board.says(&connect("b", true)), ["ConnAck(Accepted)"]);
    let mut other = scene.board(AT);
    let packet = Connect { will: false, clean_session: true, protocol_id: 2, duration_s: 1, client_id: b"x" };
    assert_eq!(other.says(&Packet::Connect(packet)), ["ConnAck(NotSupported)"]);
    assert_eq!(other.says(&connect("$x", true)), ["ConnAck(NotSupported)"]);
    assert!(other.client.is_gone());
}

#[test]
fn messages_of_every_qos_arrive_at_a_board_that_subscribed_by_name() {
    let scene = Scene::new();
    let (mut from, mut to) = (scene.connected("from"), scene.connected("to"));
    let id = to.subscribes("a/b", Qos::ExactlyOnce);
    let name = b"a/b";
    let ack = from.says(&Packet::Register { topic_id: 0, msg_id: 1, name });
    assert_eq!(ack, text(&Packet::RegAck { topic_id: 1, msg_id: 1, code: ReturnCode::Accepted }));
    let topic = TopicRef::Normal(1);

    assert!(from.says(&publish(topic, Qos::AtMostOnce, 0, b"0")).is_empty());
    assert_eq!(to.hears(), text(&publish(TopicRef::Normal(id), Qos::AtMostOnce, 0, b"0")));

    assert_eq!(from.says(&publish(topic, Qos::AtLeastOnce, 2, b"1")), text(&puback(1, 2, ReturnCode::Accepted)));
    assert_eq!(to.hears(), text(&publish(TopicRef::Normal(id), Qos::AtLeastOnce, 1, b"1")));
    assert!(to.says(&puback(id, 1, ReturnCode::Accepted)).is_empty());

    assert_eq!(from.says(&publish(topic, Qos::ExactlyOnce, 3, b"2")), ["PubRec { msg_id: 3 }"]);
    assert_eq!(from.says(&publish(topic, Qos::ExactlyOnce, 3, b"2")), ["PubRec { msg_id: 3 }"]);
    assert_eq!(from.says(&Packet::PubRel { msg_id: 3 }), ["PubComp { msg_id: 3 }"]);
    let heard = to.hears();
    assert_eq!(heard.len(), 1, "the repetition was published: {heard:?}");
    let msg_id = if heard[0].contains("msg_id: 1,") { 1 } else { 2 };
    assert_eq!(heard, text(&publish(TopicRef::Normal(id), Qos::ExactlyOnce, msg_id, b"2")));
    assert_eq!(to.says(&Packet::PubRec { msg_id }), text(&Packet::PubRel { msg_id }));
    assert!(to.says(&Packet::PubComp { msg_id }).is_empty());
    assert!(to.after(30).is_empty());
}

#[test]
fn a_wildcard_subscriber_is_told_each_topic_before_its_first_message() {
    let scene = Scene::new();
    let (mut from, mut to) = (scene.connected("from"), scene.connected("to"));
    assert_eq!(to.subscribes("sensors/#", Qos::AtMostOnce), 0);
    from.says(&publish(TopicRef::Predefined(1), Qos::AtMostOnce, 0, b"21"));
    let name = b"sensors/temperature";
    assert_eq!(to.hears(), text(&Packet::Register { topic_id: 1, msg_id: 1, name }));
    let told = Packet::RegAck { topic_id: 1, msg_id: 1, code: ReturnCode::Accepted };
    assert_eq!(to.says(&told), text(&publish(TopicRef::Normal(1), Qos::AtMostOnce, 0, b"21")));
    from.says(&publish(TopicRef::Predefined(1), Qos::AtMostOnce, 0, b"22"));
    assert_eq!(to.hears(), text(&publish(TopicRef::Normal(1), Qos::AtMostOnce, 0, b"22")));
}

#[test]
fn what_is_unanswered_is_repeated_with_dup_and_then_the_board_is_lost() {
    let scene = Scene::new();
    let (mut from, mut to) = (scene.connected("from"), scene.connected("to"));
    let id = to.subscribes("a/b", Qos::AtLeastOnce);
    from.says(&Packet::Register { topic_id: 0, msg_id: 1, name: b"a/b" });
    from.says(&publish(TopicRef::Normal(1), Qos::AtLeastOnce, 2, b"x"));
    assert_eq!(to.hears().len(), 1);
    let again = publish(TopicRef::Normal(id), Qos::AtLeastOnce, 1, b"x");
    let again = format!("{again:?}").replace("dup: false", "dup: true");
    for _ in 0..3 {
        assert_eq!(to.after(10), [again.as_str()]);
    }
    assert_eq!(to.after(10), ["Disconnect { duration_s: None }"]);
    assert!(to.client.is_gone());
}

#[test]
fn an_unknown_topic_id_is_refused_with_0x02_whatever_the_qos() {
    let scene = Scene::new();
    let mut board = scene.connected("b");
    for (qos, msg_id) in [(Qos::AtMostOnce, 0), (Qos::AtLeastOnce, 5), (Qos::ExactlyOnce, 6)] {
        assert_eq!(
            board.says(&publish(TopicRef::Normal(77), qos, msg_id, b"x")),
            text(&puback(77, msg_id, ReturnCode::InvalidTopicId))
        );
    }
    let bad = board.says(&Packet::Register { topic_id: 0, msg_id: 1, name: b"a/#" });
    assert_eq!(bad, text(&Packet::RegAck { topic_id: 0, msg_id: 1, code: ReturnCode::InvalidTopicId }));
}

#[test]
fn a_board_that_forgot_a_topic_id_is_told_again_and_gets_the_message() {
    let scene = Scene::new();
    let (mut from, mut to) = (scene.connected("from"), scene.connected("to"));
    let id = to.subscribes("a/b", Qos::AtLeastOnce);
    from.says(&Packet::Register { topic_id: 0, msg_id: 1, name: b"a/b" });
    from.says(&publish(TopicRef::Normal(1), Qos::AtLeastOnce, 2, b"x"));
    assert_eq!(to.hears().len(), 1);
    assert_eq!(
        to.says(&puback(id, 1, ReturnCode::InvalidTopicId)),
        text(&Packet::Register { topic_id: id, msg_id: 1, name: b"a/b" })
    );
    let heard = to.says(&Packet::RegAck { topic_id: id, msg_id: 1, code: ReturnCode::Accepted });
    assert!(heard[0].contains("dup: true") && heard[0].contains("msg_id: 1"), "{heard:?}");
    assert!(to.says(&puback(id, 1, ReturnCode::Accepted)).is_empty());
    assert!(to.after(30).is_empty());
}

#[test]
fn a_lost_board_has_its_will_published_and_one_that_says_goodbye_has_not() {
    let scene = Scene::new();
    for (lost, expected) in [(true, 1), (false, 0)] {
        let mut watcher = scene.connected("watcher");
        watcher.subscribes("ww", Qos::AtMostOnce);
        let mut board = scene.board(AT);
        let packet = Connect { will: true, clean_session: true, protocol_id: 1, duration_s: 10, client_id: b"w" };
        assert_eq!(board.says(&Packet::Connect(packet)), ["WillTopicReq"]);
        assert_eq!(board.after(10), ["WillTopicReq"]);
        let topic = Some(WillTopic { qos: Qos::AtMostOnce, retain: false, topic: b"ww" });
        assert_eq!(board.says(&Packet::WillTopic(topic)), ["WillMsgReq"]);
        assert_eq!(board.says(&Packet::WillMsg(b"gone")), ["ConnAck(Accepted)"]);
        if lost {
            assert!(board.after(14).is_empty() && !board.client.is_gone());
            board.after(2);
        } else {
            board.says(&Packet::Disconnect { duration_s: None });
        }
        assert!(board.client.is_gone());
        scene.broker.run_due();
        assert_eq!(watcher.hears().len(), expected);
    }
}

#[test]
fn a_sleeping_board_gets_what_waits_when_it_pings_and_then_pingresp() {
    let scene = Scene::new();
    let (mut from, mut to) = (scene.connected("from"), scene.connected("to"));
    let id = to.subscribes("a/b", Qos::AtLeastOnce);
    from.says(&Packet::Register { topic_id: 0, msg_id: 1, name: b"a/b" });
    assert_eq!(to.says(&Packet::Disconnect { duration_s: Some(600) }), ["Disconnect { duration_s: None }"]);
    for payload in [b"1", b"2"] {
        from.says(&publish(TopicRef::Normal(1), Qos::AtLeastOnce, 2, payload));
    }
    assert!(to.after(300).is_empty());
    assert_eq!(
        to.says(&Packet::PingReq { client_id: b"to" }),
        text(&publish(TopicRef::Normal(id), Qos::AtLeastOnce, 1, b"1"))
    );
    let second = to.says(&puback(id, 1, ReturnCode::Accepted));
    assert!(second.len() == 1 && second[0].contains("payload: [50]"), "{second:?}");
    let msg_id = if second[0].contains("msg_id: 1,") { 1 } else { 2 };
    assert_eq!(to.says(&puback(id, msg_id, ReturnCode::Accepted)), ["PingResp"]);
    assert!(!to.client.is_gone());
    to.after(901);
    assert!(to.client.is_gone(), "a sleeper that never came back is lost");
}

#[test]
fn a_persistent_session_keeps_its_messages_until_the_board_is_back() {
    let scene = Scene::new();
    let mut from = scene.connected("from");
    let mut to = scene.board(AT);
    assert_eq!(to.says(&connect("to", false)), ["ConnAck(Accepted)"]);
    to.subscribes("a/b", Qos::AtLeastOnce);
    to.says(&Packet::Disconnect { duration_s: None });
    assert!(to.client.is_gone());
    from.says(&Packet::Register { topic_id: 0, msg_id: 1, name: b"a/b" });
    from.says(&publish(TopicRef::Normal(1), Qos::AtLeastOnce, 2, b"kept"));
    let heard = to.says(&connect("to", false));
    assert_eq!(heard[0], "ConnAck(Accepted)");
    assert_eq!(heard[1..], text(&Packet::Register { topic_id: 1, msg_id: 1, name: b"a/b" }));
    let heard = to.says(&Packet::RegAck { topic_id: 1, msg_id: 1, code: ReturnCode::Accepted });
    assert_eq!(heard, text(&publish(TopicRef::Normal(1), Qos::AtLeastOnce, 1, b"kept")));
}

#[test]
fn a_board_whose_id_comes_from_elsewhere_is_told_to_go() {
    let scene = Scene::new();
    let mut first = scene.connected("b");
    let mut second = scene.board(AT);
    assert_eq!(second.says(&connect("b", true)), ["ConnAck(Accepted)"]);
    assert_eq!(first.hears(), ["Disconnect { duration_s: None }"]);
    assert!(first.client.is_gone());
}
