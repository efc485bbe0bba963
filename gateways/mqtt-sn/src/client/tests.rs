//! The machine against the real broker, with a clock that stands still until moved.

use super::*;
use crate::{
    codec::{Connect, Publish, PublishQos, SubAck, Subscribe, TopicName, TopicRef, WillTopic, decode},
    config::{Config, MessagesPerWake, PredefinedTopics},
};
use futures_util::FutureExt;
use std::task::Waker;
use waystation_broker::{
    Broker, Clock, DropCause, Limits, ManualClock, Parts, Principal, Qos, Topic, store::rehearsal::Rehearsal,
};

const AT: &str = "127.0.0.1:5000";

/// A broker, its clock, and boards that speak with it.
struct Scene {
    clock: Arc<ManualClock>,
    broker: Broker,
    config: Config,
}

struct Board<'a> {
    scene: &'a Scene,
    client: Client,
}

impl Scene {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let broker = Broker::new(Parts::in_memory(Limits::default(), clock.clone()));
        let predefined_topics = PredefinedTopics([(1, "sensors/temperature".to_owned())].into());
        Self { clock, broker, config: Config { predefined_topics, ..Config::default() } }
    }

    fn board(&self, address: &str) -> Board<'_> {
        let address = Address::direct(0, address.parse().unwrap());
        let settings = Arc::new(Settings::new("mqtt_sn".into(), &self.config));
        Board { scene: self, client: Client::new(settings, address, Way::Plain) }
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
        self.turn(|client, now, out| assert_eq!(client.handle_packet(now, packet, out), Place::Right, "{packet:?}"))
    }

    /// What is out of place is ignored, and said to be so.
    fn says_in_vain(&mut self, packet: &Packet<'_>) {
        let answer = self.turn(|client, now, out| assert_eq!(client.handle_packet(now, packet, out), Place::Wrong));
        assert!(answer.is_empty(), "{packet:?} is answered with {answer:?}");
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
        out.of_socket(0).map(|(_, bytes)| format!("{:?}", decode(bytes).unwrap())).collect()
    }

    fn subscribes(&mut self, filter: &str, qos: Qos) -> u16 {
        let topic = TopicName::Name(filter.as_bytes());
        let (now, mut out) = (self.scene.clock.now(), Outbox::default());
        let packet = Packet::Subscribe(Subscribe { dup: false, qos, msg_id: 9, topic });
        let _right = self.client.handle_packet(now, &packet, &mut out);
        self.client.finish(now, &mut out);
        let (_, bytes) = out.of_socket(0).next().unwrap();
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
        assert!(board.after(5).is_empty(), "an address that has not connected is sent nothing unasked");
        assert_eq!(board.says(&Packet::Connect(packet)), ["WillTopicReq"]);
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

fn sleeps(seconds: u16) -> Packet<'static> {
    Packet::Disconnect { duration_s: Some(seconds) }
}

/// A sleeping subscriber of `a/b`, and what it knows the topic by.
fn sleeper<'a>(scene: &'a Scene, id: &'a str, qos: Qos) -> (Board<'a>, Board<'a>, u16) {
    let (mut from, mut to) = (scene.connected("from"), scene.connected(id));
    from.says(&Packet::Register { topic_id: 0, msg_id: 1, name: b"a/b" });
    let topic_id = to.subscribes("a/b", qos);
    to.says(&sleeps(600));
    (from, to, topic_id)
}

#[test]
fn connect_from_asleep_is_the_way_back_to_active_whatever_its_flags_say() {
    for (clean_session, will) in [(true, false), (false, false), (true, true)] {
        let scene = Scene::new();
        let (mut from, mut to, id) = sleeper(&scene, "to", Qos::AtLeastOnce);
        from.says(&publish(TopicRef::Normal(1), Qos::AtLeastOnce, 2, b"x"));
        let packet = Connect { will, clean_session, protocol_id: 1, duration_s: 60, client_id: b"to" };
        let mut heard = to.says(&Packet::Connect(packet));
        if will {
            assert_eq!(heard, ["WillTopicReq"]);
            heard = to.says(&Packet::WillTopic(None));
        }
        let register = Packet::Register { topic_id: id, msg_id: 1, name: b"a/b" };
        assert_eq!(heard, ["ConnAck(Accepted)".to_owned(), format!("{register:?}")]);
        let heard = to.says(&Packet::RegAck { topic_id: id, msg_id: 1, code: ReturnCode::Accepted });
        assert!(heard[0].contains("payload: [120]"), "{heard:?}");
        assert_eq!(to.client.status().map(|status| status.standing), Some(Standing::Active));
    }
}

#[test]
fn an_active_board_that_asks_for_a_clean_session_begins_anew() {
    let scene = Scene::new();
    let (mut from, mut to) = (scene.connected("from"), scene.connected("to"));
    from.says(&Packet::Register { topic_id: 0, msg_id: 1, name: b"a/b" });
    to.subscribes("a/b", Qos::AtLeastOnce);
    assert_eq!(to.says(&connect("to", true)), ["ConnAck(Accepted)"]);
    from.says(&publish(TopicRef::Normal(1), Qos::AtLeastOnce, 2, b"x"));
    assert!(to.hears().is_empty());
}

#[test]
fn a_visit_brings_no_more_than_the_configured_number_of_messages() {
    let mut scene = Scene::new();
    scene.config.max_messages_per_wake = MessagesPerWake::AtMost(2.try_into().unwrap());
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        let (mut from, mut to, id) = sleeper(&scene, "to", qos);
        for n in 0..5 {
            from.says(&publish(TopicRef::Normal(1), qos, 10 + n, &[u8::try_from(n).unwrap()]));
        }
        let mut visits = Vec::new();
        for _ in 0..3 {
            let mut heard = to.says(&Packet::PingReq { client_id: b"to" });
            let mut messages = heard.iter().filter(|text| text.starts_with("Publish")).count();
            while heard.last().is_some_and(|text| text != "PingResp") {
                let last = heard.last().unwrap();
                let msg_id = last.split("msg_id: ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
                heard = to.says(&puback(id, msg_id, ReturnCode::Accepted));
                messages += heard.iter().filter(|text| text.starts_with("Publish")).count();
            }
            visits.push(messages);
            assert!(to.hears().is_empty(), "after PINGRESP comes silence");
        }
        assert_eq!(visits, [2, 2, 1], "{qos:?}");
        assert_eq!(to.says(&Packet::PingReq { client_id: b"to" }), ["PingResp"]);
        to.says(&Packet::Disconnect { duration_s: None });
    }
}

#[test]
fn qos_0_is_kept_for_a_sleeper_unless_that_is_switched_off() {
    for (kept, expected) in [(true, 2), (false, 1)] {
        let mut scene = Scene::new();
        scene.config.queue_qos0_asleep = kept;
        let (mut from, mut to, _) = sleeper(&scene, "to", Qos::AtMostOnce);
        from.says(&publish(TopicRef::Normal(1), Qos::AtMostOnce, 0, b"x"));
        assert_eq!(to.says(&Packet::PingReq { client_id: b"to" }).len(), expected);
        to.says(&connect("to", false));
        from.says(&publish(TopicRef::Normal(1), Qos::AtMostOnce, 0, b"y"));
        assert_eq!(to.hears().len(), 1, "awake it gets them all");
    }
}

#[test]
fn the_sleep_duration_replaces_the_keep_alive_and_starts_anew_at_each_wake() {
    let scene = Scene::new();
    let (_, mut to, _) = sleeper(&scene, "to", Qos::AtMostOnce);
    for _ in 0..3 {
        assert!(to.after(650).is_empty() && !to.client.is_gone(), "a tenth more than it said is tolerated");
        assert_eq!(to.says(&Packet::PingReq { client_id: b"to" }), ["PingResp"]);
    }
    assert_eq!(to.says(&sleeps(10)), ["Disconnect { duration_s: None }"]);
    to.after(14);
    assert!(!to.client.is_gone());
    to.after(2);
    assert_eq!(to.client.status().map(|status| status.standing), Some(Standing::Lost));
}

#[test]
fn a_message_unacknowledged_before_sleep_comes_first_at_the_next_wake() {
    let scene = Scene::new();
    let (mut from, mut to) = (scene.connected("from"), scene.connected("to"));
    from.says(&Packet::Register { topic_id: 0, msg_id: 1, name: b"a/b" });
    let id = to.subscribes("a/b", Qos::AtLeastOnce);
    from.says(&publish(TopicRef::Normal(1), Qos::AtLeastOnce, 2, b"x"));
    assert_eq!(to.hears().len(), 1);
    to.says(&sleeps(600));
    assert!(to.after(500).is_empty(), "a sleeper is left alone");
    let heard = to.says(&Packet::PingReq { client_id: b"to" });
    assert!(heard.len() == 1 && heard[0].contains("dup: true"), "{heard:?}");
    assert_eq!(to.says(&puback(id, 1, ReturnCode::Accepted)), ["PingResp"]);
}

#[test]
fn a_sleeper_that_does_not_acknowledge_is_left_alone_after_the_last_retry() {
    let scene = Scene::new();
    let (mut from, mut to, _) = sleeper(&scene, "to", Qos::AtLeastOnce);
    from.says(&publish(TopicRef::Normal(1), Qos::AtLeastOnce, 2, b"x"));
    assert_eq!(to.says(&Packet::PingReq { client_id: b"to" }).len(), 1);
    for _ in 0..3 {
        assert_eq!(to.after(10).len(), 1);
    }
    assert!(to.after(10).is_empty() && !to.client.is_gone());
    assert_eq!(to.says(&Packet::PingReq { client_id: b"to" }).len(), 1);
}

#[test]
fn a_thousand_messages_wait_for_a_sleeper_and_not_one_is_discarded() {
    let scene = Scene::new();
    let (mut from, mut to, id) = sleeper(&scene, "to", Qos::AtLeastOnce);
    for n in 1..=1_000_u16 {
        let acknowledged = from.says(&publish(TopicRef::Normal(1), Qos::AtLeastOnce, n, &n.to_be_bytes()));
        assert_eq!(acknowledged, text(&puback(1, n, ReturnCode::Accepted)));
    }
    let mut heard = to.says(&Packet::PingReq { client_id: b"to" });
    for n in 1..=1_000_u16 {
        assert_eq!(heard.len(), 1, "one at a time, and PINGRESP behind the last: {heard:?}");
        let payload = n.to_be_bytes();
        assert!(heard[0].contains(&format!("payload: [{}, {}]", payload[0], payload[1])), "{heard:?}");
        let msg_id = heard[0].split("msg_id: ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
        heard = to.says(&puback(id, msg_id, ReturnCode::Accepted));
    }
    assert_eq!(heard, ["PingResp"]);
    assert_eq!(scene.broker.metrics().dropped_total(), 0);
}

fn mortal(will: bool, clean_session: bool) -> Packet<'static> {
    Packet::Connect(Connect { will, clean_session, protocol_id: 1, duration_s: 10, client_id: b"w" })
}

fn will_topic() -> Packet<'static> {
    Packet::WillTopic(Some(WillTopic { qos: Qos::AtMostOnce, retain: false, topic: b"ww" }))
}

/// Loses the board and tells what its will said.
fn will_of(scene: &Scene, board: &mut Board<'_>) -> Vec<String> {
    let mut watcher = scene.connected("watcher");
    watcher.subscribes("ww", Qos::AtMostOnce);
    board.after(16);
    assert!(board.client.is_gone());
    watcher.hears()
}

#[test]
fn the_will_stays_with_a_persistent_session_until_it_is_replaced_or_deleted() {
    let scene = Scene::new();
    let mut board = scene.board(AT);
    board.says(&mortal(true, false));
    board.says(&will_topic());
    assert_eq!(board.says(&Packet::WillMsg(b"one")), ["ConnAck(Accepted)"]);
    board.says(&Packet::Disconnect { duration_s: None });
    // §6.3: neither flag set, everything stays as it was.
    board.says(&mortal(false, false));
    assert!(will_of(&scene, &mut board)[0].contains("111, 110, 101"));
    // Changed while connected, also asleep (§6.4).
    board.says(&mortal(false, false));
    board.says(&sleeps(10));
    assert_eq!(board.says(&Packet::WillMsgUpd(b"two")), ["WillMsgResp(Accepted)"]);
    assert!(will_of(&scene, &mut board)[0].contains("116, 119, 111"));
    // §6.3: the Will flag and an empty WILLTOPIC delete it.
    board.says(&mortal(true, false));
    assert_eq!(board.says(&Packet::WillTopic(None)), ["ConnAck(Accepted)"]);
    assert!(will_of(&scene, &mut board).is_empty());
    board.says(&mortal(false, false));
    assert_eq!(board.says(&Packet::WillMsgUpd(b"three")), ["WillMsgResp(NotSupported)"]);
    // A new one by update alone; a clean session has none.
    let topic = Some(WillTopic { qos: Qos::AtMostOnce, retain: false, topic: b"ww" });
    assert_eq!(board.says(&Packet::WillTopicUpd(topic)), ["WillTopicResp(Accepted)"]);
    board.says(&mortal(false, true));
    assert!(will_of(&scene, &mut board).is_empty());
}

#[test]
fn an_empty_willtopicupd_deletes_the_will() {
    let scene = Scene::new();
    let mut board = scene.board(AT);
    board.says(&mortal(true, true));
    board.says(&will_topic());
    board.says(&Packet::WillMsg(b"gone"));
    assert_eq!(board.says(&Packet::WillTopicUpd(None)), ["WillTopicResp(Accepted)"]);
    assert!(will_of(&scene, &mut board).is_empty());
}

#[test]
fn a_will_conversation_that_is_not_finished_is_forgotten() {
    let scene = Scene::new();
    let mut board = scene.board(AT);
    assert_eq!(board.says(&mortal(true, true)), ["WillTopicReq"]);
    assert_eq!(board.says(&mortal(true, true)), ["WillTopicReq"], "a repetition is answered kindly");
    assert_eq!(board.says(&will_topic()), ["WillMsgReq"]);
    assert_eq!(board.says(&will_topic()), ["WillMsgReq"]);
    board.says_in_vain(&Packet::PingReq { client_id: b"" });
    assert!(board.after(41).is_empty() && board.client.is_gone());
    assert_eq!(board.client.status(), None);
}

#[test]
fn a_message_too_large_for_the_board_is_dropped_and_counted_and_the_next_one_comes() {
    let mut scene = Scene::new();
    scene.config.max_datagram = 64;
    let (mut from, mut to) = (scene.connected("from"), scene.connected("to"));
    from.says(&Packet::Register { topic_id: 0, msg_id: 1, name: b"a/b" });
    let id = to.subscribes("a/b", Qos::AtLeastOnce);
    from.says(&publish(TopicRef::Normal(1), Qos::AtLeastOnce, 2, &[7; 60]));
    from.says(&publish(TopicRef::Normal(1), Qos::AtLeastOnce, 3, b"small"));
    let heard = to.hears();
    assert!(heard.len() == 1 && heard[0].contains(&format!("Normal({id})")), "{heard:?}");
    assert_eq!(scene.broker.metrics().dropped(DropCause::TooLarge), 1);
}

#[test]
fn a_visit_lasts_until_what_lies_on_disk_has_come_too() {
    let (mut scene, store) = (Scene::new(), Rehearsal::default());
    let parts = Parts::in_memory(Limits::default(), scene.clock.clone());
    scene.broker = Broker::new(Parts { store: Arc::new(store.clone()), memory_per_session: 1, ..parts });
    let mut board = scene.board(AT);
    let subscribe = Subscribe { dup: false, qos: Qos::AtLeastOnce, msg_id: 9, topic: TopicName::Predefined(1) };
    for packet in [connect("to", false), Packet::Subscribe(subscribe), sleeps(600)] {
        board.says(&packet);
        store.sync();
        board.hears();
    }
    scene.clock.advance(Duration::from_secs(1));
    let mut publisher = scene.broker.publisher(&"test".into(), Principal::anonymous(), None);
    for n in 0..5u8 {
        let topic = Topic::parse("sensors/temperature").unwrap();
        publisher.stage(waystation_broker::Publish::new(topic, &[n], Qos::AtLeastOnce), 0).unwrap();
        publisher.flush(&mut Vec::new());
    }
    store.sync();
    let (mut heard, mut published) = (board.says(&Packet::PingReq { client_id: b"to" }), 0);
    while heard != ["PingResp"] {
        heard = match heard.is_empty() {
            true => {
                assert_eq!(store.turn_pages(), 1, "it waits for the disk");
                board.hears()
            }
            false => {
                assert!(heard.len() == 1 && heard[0].contains("Publish"), "{heard:?}");
                published += 1;
                board.says(&puback(1, published, ReturnCode::Accepted))
            }
        };
    }
    assert_eq!(published, 5);
}

#[test]
fn answers_that_do_not_fit_the_qos_change_nothing() {
    let scene = Scene::new();
    let (mut from, mut to) = (scene.connected("from"), scene.connected("to"));
    from.says(&Packet::Register { topic_id: 0, msg_id: 1, name: b"a/b" });
    let id = to.subscribes("a/b", Qos::ExactlyOnce);
    from.says(&publish(TopicRef::Normal(1), Qos::AtLeastOnce, 2, b"x"));
    to.hears();
    assert!(to.says(&Packet::PubRec { msg_id: 1 }).is_empty());
    to.says(&puback(id, 1, ReturnCode::Accepted));
    from.says(&publish(TopicRef::Normal(1), Qos::ExactlyOnce, 3, b"y"));
    assert_eq!(to.hears().len(), 1);
    assert!(to.says(&puback(id, 2, ReturnCode::Accepted)).is_empty());
    assert_eq!(to.says(&Packet::PubRec { msg_id: 2 }), ["PubRel { msg_id: 2 }"]);
    assert!(to.says(&Packet::PubComp { msg_id: 2 }).is_empty());
    assert_eq!(scene.broker.waiting(), 0);
}

#[test]
fn what_is_out_of_place_is_ignored() {
    let scene = Scene::new();
    let mut stranger = scene.board(AT);
    stranger.says_in_vain(&will_topic());
    stranger.says_in_vain(&Packet::WillMsg(b"gone"));
    stranger.says_in_vain(&Packet::PubRel { msg_id: 1 });
    let mut board = scene.connected("b");
    let ack = SubAck { qos: Qos::AtMostOnce, topic_id: 1, msg_id: 1, code: ReturnCode::Accepted };
    for packet in [
        Packet::Advertise { gateway: 1, duration_s: 1 },
        Packet::GwInfo { gateway: 1, address: b"" },
        Packet::ConnAck(ReturnCode::Accepted),
        Packet::WillTopicReq,
        Packet::WillMsgReq,
        Packet::SubAck(ack),
        Packet::UnsubAck { msg_id: 1 },
        Packet::PingResp,
        Packet::WillTopicResp(ReturnCode::Accepted),
        Packet::WillMsgResp(ReturnCode::Accepted),
        // Nobody asked for them.
        will_topic(),
        Packet::WillTopic(None),
        Packet::WillMsg(b"gone"),
    ] {
        board.says_in_vain(&packet);
    }
    assert_eq!(board.says(&Packet::PingReq { client_id: b"" }), ["PingResp"]);
}

#[test]
fn a_connect_repeated_in_the_will_conversation_of_a_connected_board_loses_nothing() {
    let scene = Scene::new();
    let mut watcher = scene.connected("watcher");
    watcher.subscribes("ww", Qos::AtMostOnce);
    let mut board = scene.board(AT);
    board.says(&mortal(true, false));
    board.says(&will_topic());
    board.says(&Packet::WillMsg(b"gone"));
    board.says(&Packet::Register { topic_id: 0, msg_id: 1, name: b"a/b" });
    assert_eq!(board.says(&mortal(true, false)), ["WillTopicReq"]);
    assert_eq!(board.says(&mortal(true, false)), ["WillTopicReq"], "the first one was lost");
    board.says(&will_topic());
    assert_eq!(board.says(&Packet::WillMsg(b"gone")), ["ConnAck(Accepted)"]);
    assert!(watcher.hears().is_empty(), "nobody was lost");
    let answer = board.says(&publish(TopicRef::Normal(1), Qos::AtLeastOnce, 2, b"x"));
    assert_eq!(answer, text(&puback(1, 2, ReturnCode::Accepted)));
    // It thinks better of the conversation: what was under way to it comes again.
    let id = board.subscribes("a/b", Qos::AtLeastOnce);
    board.says(&publish(TopicRef::Normal(1), Qos::AtLeastOnce, 3, b"y"));
    board.says(&mortal(true, false));
    let heard = board.says(&mortal(false, false));
    assert!(heard[0] == "ConnAck(Accepted)" && heard[1].contains("payload: [121]"), "{heard:?}");
    assert!(board.says(&puback(id, 1, ReturnCode::Accepted)).is_empty());
}

#[test]
fn the_last_word_about_the_will_is_answered_again_when_connack_was_lost() {
    let scene = Scene::new();
    for last in [Packet::WillTopic(None), Packet::WillMsg(b"gone")] {
        let mut board = scene.board(AT);
        board.says(&mortal(true, true));
        if let Packet::WillMsg(_) = last {
            board.says(&will_topic());
        }
        assert_eq!(board.says(&last), ["ConnAck(Accepted)"]);
        assert_eq!(board.says(&last), ["ConnAck(Accepted)"]);
    }
}

#[test]
fn messages_of_a_topic_that_the_board_refused_are_dropped_as_rejected() {
    let scene = Scene::new();
    let (mut from, mut to) = (scene.connected("from"), scene.connected("to"));
    to.subscribes("sensors/#", Qos::AtLeastOnce);
    from.says(&publish(TopicRef::Predefined(1), Qos::AtLeastOnce, 2, b"21"));
    assert_eq!(to.hears(), text(&Packet::Register { topic_id: 1, msg_id: 1, name: b"sensors/temperature" }));
    to.says(&Packet::RegAck { topic_id: 1, msg_id: 1, code: ReturnCode::NotSupported });
    from.says(&publish(TopicRef::Predefined(1), Qos::AtMostOnce, 0, b"22"));
    assert!(to.hears().is_empty());
    let dropped = |cause| scene.broker.metrics().dropped(cause);
    assert_eq!((dropped(DropCause::Rejected), dropped(DropCause::TooLarge), scene.broker.waiting()), (2, 0, 0));
}
