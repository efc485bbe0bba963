//! The conversation with a far side that is played by hand, in both dialects, over the real core.

mod far;

use super::*;
use crate::{
    config::Protocol,
    remote::{Terms, dialect},
    settings::session_id,
    work::{attach, letters, prepare},
};
use far::{Said, Say};
use std::sync::Arc;
use waystation_broker::{
    AllowAll, Broker, ClientId, Clock, Credentials, DropCause, Filter, Hello as Greeting, Limits, ManualClock, Message,
    Overflow, Parts, Peer, Pick, Principal, Properties, Publish, SessionOptions, Start, Subscription, Taken, Topic,
    store::{Memory, Store, rehearsal::Rehearsal},
};
use waystation_kit::{
    Remote,
    contract::Scene,
    names::{HOPS, MISSED, ORIGIN},
};

const BOTH: [Protocol; 2] = [Protocol::V311, Protocol::V5];

const TABLE: &str = "
    name = 'cloud'
    url = 'mqtt://far'
    [[route]]
    direction = 'out'
    filter = 'up/#'
    qos = 2
    remote_prefix = 'site/'
    [[route]]
    direction = 'in'
    filter = 'down/#'
    qos = 2
    remote_prefix = 'site/'
";

/// A site with one bridge.
struct Site {
    scene: Scene,
    clock: Arc<ManualClock>,
    settings: Arc<Settings>,
    figures: Arc<Figures>,
}

/// One connection of its bridge.
struct Talk {
    pump: Pump,
    clock: Arc<ManualClock>,
    protocol: Protocol,
    out: BytesMut,
}

impl Site {
    async fn new(protocol: Protocol) -> Self {
        Self::with(protocol, TABLE, Limits::default(), None).await
    }

    async fn with(protocol: Protocol, table: &str, limits: Limits, store: Option<Rehearsal>) -> Self {
        let clock = Arc::new(ManualClock::default());
        let store: Arc<dyn Store> = match store {
            Some(store) => Arc::new(store),
            None => Arc::new(Memory::new(clock.now())),
        };
        let (authenticate, authorize) = (Arc::new(AllowAll), Arc::new(AllowAll));
        let broker = Broker::new(Parts {
            limits,
            clock: clock.clone(),
            authenticate,
            authorize,
            store,
            memory_per_session: 262_144,
        });
        let scene = Scene::with_broker("cloud", broker);
        let config = crate::Config { protocol, ..toml::from_str(table).unwrap() };
        let settings = Arc::new(Settings::load(config).unwrap());
        assert_eq!(prepare(&scene.cx, &settings).await.unwrap().1, []);
        let figures = Arc::new(Figures::new(&scene.cx.name, &scene.cx.broker));
        Self { scene, clock, settings, figures }
    }

    fn broker(&self) -> &Broker {
        &self.scene.cx.broker
    }

    /// The far side lets us in, and takes our subscriptions.
    async fn connect(&self, session_present: bool, terms: Terms) -> Talk {
        let mut talk = self.reach(session_present, terms, vec![0]).await;
        let [Said::Subscribe(id, _)] = talk.said()[..] else { panic!("no SUBSCRIBE") };
        talk.hear(Say::SubAck(id, vec![true]));
        talk
    }

    async fn reach(&self, session_present: bool, terms: Terms, wanted: Vec<usize>) -> Talk {
        self.welcomed(Welcome { session_present, server: None, terms }, wanted).await
    }

    async fn welcomed(&self, welcome: Welcome, wanted: Vec<usize>) -> Talk {
        let protocol = self.settings.config.protocol;
        let attached = attach(&self.scene.cx, &self.settings, welcome.terms.receive_maximum).await.unwrap();
        let parties = Parties {
            settings: self.settings.clone(),
            figures: self.figures.clone(),
            server: "here".into(),
            wanted,
            limits: self.broker().limits().clone(),
            letters: letters(&self.scene.cx),
        };
        let mut out = BytesMut::new();
        let pump = Pump::new(parties, dialect(protocol), &welcome, attached, self.clock.now(), &mut out);
        Talk { pump, clock: self.clock.clone(), protocol, out }
    }

    /// Somebody here publishes.
    fn publish(&self, topic: &str, payload: &str, qos: Qos) {
        self.publish_as(Some("somebody"), topic, payload, qos, |_| {});
    }

    fn publish_as(
        &self,
        client: Option<&str>,
        topic: &str,
        payload: &str,
        qos: Qos,
        change: impl FnOnce(&mut Publish<'_>),
    ) {
        let client = client.and_then(ClientId::new);
        let mut publisher = self.broker().publisher(&self.scene.cx.name, Principal::anonymous(), client);
        let mut message = Publish::new(Topic::parse(topic).unwrap(), payload.as_bytes(), qos);
        change(&mut message);
        publisher.stage(message, 0).unwrap();
        publisher.flush(&mut Vec::new());
    }

    /// A session that gets everything under `filter`.
    async fn listener(&self, id: &str, filter: &str, options: SessionOptions) -> Link {
        let greeting = Greeting {
            credentials: Credentials::Known(Principal::server()),
            start: Start::Resume,
            expiry: u32::MAX,
            options,
            ..Greeting::new(self.scene.cx.name.clone(), Peer::INTERNAL, ClientId::new(id))
        };
        let mut link = self.broker().attach(greeting).await.unwrap().link;
        let filter = Filter::parse(filter).unwrap();
        link.subscribe(&[Subscription::new(filter, Qos::ExactlyOnce)], &mut Vec::new());
        link
    }

    fn status(&self) -> waystation_kit::RemoteStatus {
        self.figures.status()
    }
}

/// What a session holds, without taking it.
fn heard(link: &mut Link) -> Vec<Message> {
    let mut messages = Vec::new();
    let budget = waystation_broker::Budget { messages: 10_000, bytes: usize::MAX };
    link.take(Pick::Oldest(link.settled()), budget, |delivery| {
        messages.push(delivery.message.clone());
        Taken::Sent
    });
    messages
}

fn payloads(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(message.payload()).into_owned()).collect()
}

impl Talk {
    /// What we said since it was last asked.
    fn said(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        while !self.out.is_empty() {
            said.push(far::read(self.protocol, &mut self.out));
        }
        said
    }

    /// The far side says something.
    fn hear(&mut self, say: Say) {
        let mut input = far::write(self.protocol, say);
        self.hear_bytes(&mut input);
    }

    fn hear_bytes(&mut self, input: &mut BytesMut) {
        self.pump.handle_input(self.clock.now(), input, &mut self.out);
    }

    /// Obeys what the core has for it.
    async fn run(&mut self) {
        let nothing = Duration::ZERO;
        while let Ok(event) = tokio::time::timeout(nothing, self.pump.event(self.out.len())).await {
            self.pump.handle_event(self.clock.now(), event, &mut self.out);
        }
    }

    /// What was published since it was last asked: payload, identifier, DUP.
    async fn published(&mut self) -> Vec<(String, u16, bool)> {
        self.run().await;
        let said = self.said().into_iter();
        said.map(|said| match said {
            Said::Publish(publish) => (publish.payload, publish.id, publish.duplicate),
            other => panic!("{other:?} is no PUBLISH"),
        })
        .collect()
    }

    fn over(&self) -> Option<&str> {
        self.pump.over().map(|over| over.why.as_str())
    }
}

fn numbered(range: std::ops::RangeInclusive<u16>, duplicate: bool) -> Vec<(String, u16, bool)> {
    range.map(|n| (n.to_string(), n, duplicate)).collect()
}

#[tokio::test]
async fn messages_go_out_in_order_within_the_window_and_are_settled_when_they_are_acknowledged() {
    for protocol in BOTH {
        let site = Site::new(protocol).await;
        // Before the far side is reached, and after.
        (1..=3).for_each(|n| site.publish("up/a", &n.to_string(), Qos::AtLeastOnce));
        let mut talk = site.connect(false, Terms { receive_maximum: 4, ..Terms::default() }).await;
        (4..=6).for_each(|n| site.publish("up/a", &n.to_string(), Qos::AtLeastOnce));
        assert_eq!(talk.published().await, numbered(1..=4, false));
        assert_eq!((site.status().queued, site.status().in_flight, site.status().sent), (6, 4, 0));
        // In whatever order.
        talk.hear(Say::PubAck(2, None));
        talk.hear(Say::PubAck(1, None));
        assert_eq!(talk.published().await, numbered(5..=6, false));
        assert_eq!((site.status().queued, site.status().in_flight, site.status().sent), (4, 4, 2));
    }
}

#[tokio::test]
async fn a_connection_that_follows_goes_on_under_the_same_identifiers() {
    for protocol in BOTH {
        let site = Site::new(protocol).await;
        let mut talk = site.connect(false, Terms::default()).await;
        (1..=4).for_each(|n| site.publish("up/a", &n.to_string(), Qos::ExactlyOnce));
        assert_eq!(talk.published().await, numbered(1..=4, false));
        talk.hear(Say::PubRec(1, None));
        talk.hear(Say::PubRec(2, None));
        talk.hear(Say::PubComp(1));
        assert_eq!(talk.said(), [Said::PubRel(1), Said::PubRel(2)]);
        drop(talk);
        site.publish("up/a", "5", Qos::ExactlyOnce);
        // What the far side has received only has to be released.
        let mut talk = site.reach(true, Terms::default(), Vec::new()).await;
        talk.run().await;
        let said = talk.said();
        assert_eq!(said[0], Said::PubRel(2));
        let rest: Vec<_> = said[1..].iter().map(Said::numbered).collect();
        assert_eq!(rest, [("3".into(), 3, true), ("4".into(), 4, true), ("5".into(), 5, false)]);
        (3..=5).for_each(|id| talk.hear(Say::PubRec(id, None)));
        (2..=5).for_each(|id| talk.hear(Say::PubComp(id)));
        assert_eq!((site.status().queued, site.status().sent), (0, 5));
    }
}

#[tokio::test]
async fn a_far_side_that_has_forgotten_us_gets_again_what_it_had_not_released() {
    for protocol in BOTH {
        let site = Site::new(protocol).await;
        let mut talk = site.connect(false, Terms::default()).await;
        site.publish("up/a", "1", Qos::ExactlyOnce);
        assert_eq!(talk.published().await, numbered(1..=1, false));
        talk.hear(Say::PubRec(1, None));
        drop(talk);
        let mut talk = site.connect(false, Terms::default()).await;
        assert_eq!(talk.published().await, numbered(1..=1, true));
    }
}

#[tokio::test]
async fn after_a_crash_what_was_under_way_goes_on_under_its_identifiers() {
    let store = Rehearsal::default();
    let site = Site::with(Protocol::V5, TABLE, Limits::default(), Some(store.clone())).await;
    let mut talk = site.connect(false, Terms::default()).await;
    (1..=3).for_each(|n| site.publish("up/a", &n.to_string(), Qos::ExactlyOnce));
    store.sync();
    assert_eq!(talk.published().await, numbered(1..=3, false));
    talk.hear(Say::PubRec(1, None));
    // It is not released before we are sure to remember that.
    assert_eq!(talk.said(), []);
    store.sync();
    talk.run().await;
    assert_eq!(talk.said(), [Said::PubRel(1)]);
    talk.hear(Say::PubRec(2, None));
    let site = Site::with(Protocol::V5, TABLE, Limits::default(), Some(store.crash())).await;
    let mut talk = site.reach(true, Terms::default(), Vec::new()).await;
    talk.run().await;
    let said = talk.said();
    assert_eq!(said[0], Said::PubRel(1));
    assert_eq!([said[1].numbered(), said[2].numbered()], [("2".into(), 2, true), ("3".into(), 3, true)]);
}

#[tokio::test]
async fn what_comes_in_is_acknowledged_once_it_is_safe() {
    for protocol in BOTH {
        let store = Rehearsal::default();
        let site = Site::with(protocol, TABLE, Limits::default(), Some(store.clone())).await;
        let mut link = site.listener("app", "down/#", SessionOptions::default()).await;
        let mut talk = site.connect(false, Terms::default()).await;
        store.sync();
        talk.hear(Say::publish("site/down/x", "one", 1, 7));
        talk.hear(Say::publish("site/down/x", "two", 2, 8));
        talk.run().await;
        assert_eq!(talk.said(), []);
        store.sync();
        talk.run().await;
        assert_eq!(talk.said(), [Said::PubAck(7), Said::PubRec(8)]);
        assert_eq!(payloads(&heard(&mut link)), ["one", "two"]);
        assert_eq!(site.status().received, 2);
    }
}

#[tokio::test]
async fn qos_2_comes_in_once_however_often_it_is_sent() {
    for protocol in BOTH {
        let site = Site::new(protocol).await;
        let mut link = site.listener("app", "down/#", SessionOptions::default()).await;
        let mut talk = site.connect(false, Terms::default()).await;
        talk.hear(Say::publish("site/down/x", "one", 2, 8));
        assert_eq!(talk.said(), [Said::PubRec(8)]);
        drop(talk);
        let mut talk = site.reach(true, Terms::default(), Vec::new()).await;
        talk.hear(Say::publish("site/down/x", "one", 2, 8));
        talk.hear(Say::PubRel(8));
        talk.hear(Say::publish("site/down/x", "two", 2, 8));
        assert_eq!(talk.said(), [Said::PubRec(8), Said::PubComp(8), Said::PubRec(8)]);
        assert_eq!(payloads(&heard(&mut link)), ["one", "two"]);
        drop(talk);
        // A far side that has forgotten us uses its identifiers anew.
        let mut talk = site.connect(false, Terms::default()).await;
        talk.hear(Say::publish("site/down/x", "three", 2, 8));
        assert_eq!(payloads(&heard(&mut link)), ["one", "two", "three"]);
        assert_eq!(talk.said(), [Said::PubRec(8)]);
    }
}

#[tokio::test]
async fn what_finds_no_room_here_is_kept_in_order_and_acknowledged_later() {
    for protocol in BOTH {
        let site = Site::new(protocol).await;
        let small = SessionOptions {
            max_queued_messages: Some(1),
            overflow: Some(Overflow::Reject),
            ..SessionOptions::default()
        };
        let mut link = site.listener("app", "down/#", small).await;
        let mut talk = site.connect(false, Terms::default()).await;
        for id in 1..=3 {
            talk.hear(Say::publish("site/down/x", &id.to_string(), 1, id));
        }
        assert_eq!(talk.said(), [Said::PubAck(1)]);
        for id in 2..=3 {
            let last = link.settled();
            let budget = waystation_broker::Budget { messages: 1, bytes: usize::MAX };
            let mut cursor = last;
            link.take(Pick::Oldest(last), budget, |delivery| {
                cursor = delivery.cursor;
                Taken::Sent
            });
            link.settle_through(cursor).unwrap();
            talk.run().await;
            assert_eq!(talk.said(), [Said::PubAck(id)]);
        }
    }
}

#[tokio::test]
async fn what_came_in_does_not_go_out_over_the_same_bridge() {
    for protocol in BOTH {
        let table = TABLE.replace("'up/#'", "'#'").replace("'down/#'", "'down/x'").replace("qos = 2", "qos = 1");
        let table = table.replacen("'site/'", "'out/'", 1);
        let site = Site::with(protocol, &table, Limits::default(), None).await;
        let mut link = site.listener("app", "#", SessionOptions::default()).await;
        let mut talk = site.connect(false, Terms::default()).await;
        talk.hear(Say::Publish(far::Published { retain: true, ..far::Published::new("site/down/x", "in", 1, 1) }));
        site.publish("other", "out", Qos::AtLeastOnce);
        talk.run().await;
        let said = talk.said();
        assert_eq!((said[0].clone(), said[1].numbered().0, said.len()), (Said::PubAck(1), "out".into(), 2));
        assert_eq!(payloads(&heard(&mut link)), ["in", "out"]);
        // Nor as retained state for a subscription that is new.
        let mut again = site.listener("$bridge/cloud", "down/x", SessionOptions::default()).await;
        again.subscribe(&[Subscription::new(Filter::parse("#").unwrap(), Qos::AtLeastOnce)], &mut Vec::new());
        drop(again);
        talk.hear(Say::PubAck(1, None));
        let mut talk = site.reach(true, Terms::default(), Vec::new()).await;
        talk.run().await;
        assert!(talk.said().iter().all(|said| said.numbered().0 == "out"));
    }
}

#[tokio::test]
async fn stamps_are_written_counted_and_obeyed() {
    let site = Site::new(Protocol::V5).await;
    let mut link = site.listener("app", "down/#", SessionOptions::default()).await;
    let mut talk = site.connect(false, Terms::default()).await;
    let own = |pairs: &[(&str, &str)]| Properties {
        user: pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        ..Properties::default()
    };
    // Of our own, with what is not to cross; of another server; come back to us by a plain client; come in by another
    // bridge of ours; gone far enough.
    let cases: [(&str, &[(&str, &str)]); 5] = [
        ("somebody", &[("colour", "red"), (MISSED, "3")]),
        ("somebody", &[(ORIGIN, "there"), (HOPS, "2")]),
        ("site-b", &[(ORIGIN, "here"), (HOPS, "2")]),
        ("$bridge/other", &[(ORIGIN, "here"), (HOPS, "1")]),
        ("somebody", &[(ORIGIN, "there"), (HOPS, "16")]),
    ];
    for (client, pairs) in cases {
        let properties = Some(Box::new(own(pairs)));
        site.publish_as(Some(client), "up/a", "x", Qos::AtLeastOnce, |message| message.properties = properties);
    }
    talk.run().await;
    let said: Vec<_> = talk.said().into_iter().map(Said::user).collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        said,
        [
            vec![pair(ORIGIN, "here"), pair(HOPS, "1"), pair("colour", "red")],
            vec![pair(ORIGIN, "there"), pair(HOPS, "3")],
            vec![pair(ORIGIN, "here"), pair(HOPS, "2")],
        ]
    );
    // Inward: what has been here is acknowledged, and no more.
    for (id, pairs) in [(1, vec![]), (2, vec![pair(ORIGIN, "there"), pair(HOPS, "4")]), (3, vec![pair(ORIGIN, "here")])]
    {
        let publish = far::Published { user: pairs, ..far::Published::new("site/down/x", &id.to_string(), 1, id) };
        talk.hear(Say::Publish(publish));
    }
    assert_eq!(talk.said(), [Said::PubAck(1), Said::PubAck(2), Said::PubAck(3)]);
    let messages = heard(&mut link);
    assert_eq!(payloads(&messages), ["1", "2"]);
    let stamps: Vec<_> = messages.iter().map(|message| crate::loops::Stamp::stored(message.properties())).collect();
    assert_eq!((stamps[0].origin, stamps[0].hops), (Some("here"), 1));
    assert_eq!((stamps[1].origin, stamps[1].hops), (Some("there"), 5));
}

#[tokio::test]
async fn a_far_side_that_says_who_it_is_is_not_sent_what_began_there() {
    let site = Site::new(Protocol::V5).await;
    let mut link = site.listener("app", "down/#", SessionOptions::default()).await;
    let welcome = Welcome { session_present: true, server: Some("there".into()), terms: Terms::default() };
    let mut talk = site.welcomed(welcome, Vec::new()).await;
    for origin in ["there", "elsewhere"] {
        let user = vec![(ORIGIN.into(), origin.into()), (HOPS.into(), "1".into())];
        let properties = Some(Box::new(Properties { user, ..Properties::default() }));
        site.publish_as(Some("s"), "up/a", origin, Qos::AtLeastOnce, |message| message.properties = properties);
    }
    assert_eq!(talk.published().await, [("elsewhere".to_owned(), 2, false)]);
    assert_eq!(site.status().queued, 1);
    talk.hear(Say::publish("site/down/x", "in", 1, 1));
    let messages = heard(&mut link);
    assert_eq!(crate::loops::Stamp::stored(messages[0].properties()).origin, Some("there"));
}

#[tokio::test]
async fn properties_and_the_retain_flag_cross_both_ways() {
    let site = Site::new(Protocol::V5).await;
    let mut link = site.listener("app", "down/#", SessionOptions::default()).await;
    let mut talk = site.connect(false, Terms::default()).await;
    let properties = Properties {
        payload_is_utf8: true,
        content_type: Some("text/plain".into()),
        response_topic: Some("answer/here".into()),
        correlation_data: Some([1, 2, 3].into()),
        user: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
    };
    site.publish_as(Some("s"), "up/a", "x", Qos::AtLeastOnce, |message| {
        message.properties = Some(Box::new(properties.clone()));
        message.expiry = Some(60);
        message.retain = true;
    });
    site.publish("up/a", "plain", Qos::AtMostOnce);
    talk.run().await;
    let said = talk.said();
    let (Said::Publish(first), Said::Publish(second)) = (&said[0], &said[1]) else { panic!("{said:?}") };
    assert_eq!((first.topic.as_str(), first.retain, first.expiry), ("site/up/a", true, Some(60)));
    assert_eq!(first.said.as_ref().map(|said| &said.content_type), Some(&properties.content_type));
    assert_eq!(first.user[2..], [("a".to_owned(), "1".to_owned()), ("a".into(), "2".into())]);
    // Nothing of one message stays in the next.
    assert_eq!((second.retain, second.expiry, second.user.len(), second.qos, second.id), (false, None, 2, 0, 0));
    assert_eq!(second.said, Some(Properties::default()));
    let back = far::Published { topic: "site/down/a".into(), id: 9, ..(**first).clone() };
    talk.hear(Say::Publish(far::Published { user: back.user[2..].to_vec(), ..back }));
    let message = &heard(&mut link)[0];
    let kept = message.properties().unwrap();
    assert_eq!((message.topic().as_str(), message.retain(), &kept.user[..2]), ("down/a", true, &properties.user[..]));
    assert_eq!(
        (kept.payload_is_utf8, &kept.content_type, &kept.response_topic, &kept.correlation_data),
        (true, &properties.content_type, &properties.response_topic, &properties.correlation_data)
    );
    assert!(message.expires().is_some());
}

#[tokio::test]
async fn a_far_side_that_can_do_less_gets_less_and_it_is_counted() {
    let site = Site::new(Protocol::V5).await;
    let terms = Terms { maximum_qos: Qos::AtLeastOnce, retain: false, maximum_packet: 200, ..Terms::default() };
    let mut talk = site.connect(false, terms).await;
    site.publish("up/a", "two", Qos::ExactlyOnce);
    site.publish_as(Some("s"), "up/a", "state", Qos::AtLeastOnce, |message| message.retain = true);
    site.publish("up/a", &"x".repeat(200), Qos::AtLeastOnce);
    site.publish("up/a", "plain", Qos::AtLeastOnce);
    talk.run().await;
    let said = talk.said();
    let seen: Vec<_> = said.iter().map(Said::seen).collect();
    assert_eq!(seen, [("two", 1, false), ("state", 1, false), ("plain", 1, false)]);
    said.iter().for_each(|said| talk.hear(Say::PubAck(said.numbered().1, None)));
    let status = site.status();
    assert_eq!((status.queued, status.sent, status.reduced, status.dropped), (0, 3, 2, 1));
}

#[tokio::test]
async fn a_message_that_is_refused_for_good_becomes_a_dead_letter() {
    let store = Rehearsal::default();
    let site = Site::with(Protocol::V5, TABLE, Limits::default(), Some(store.clone())).await;
    let mut talk = site.connect(false, Terms::default()).await;
    site.publish("up/a", "bad", Qos::AtLeastOnce);
    site.publish("up/a", "worse", Qos::ExactlyOnce);
    site.publish("up/a", "good", Qos::AtLeastOnce);
    store.sync();
    assert_eq!(talk.published().await.len(), 3);
    talk.hear(Say::PubAck(1, Some(0x87)));
    talk.hear(Say::PubRec(2, Some(0x90)));
    talk.hear(Say::PubAck(3, None));
    // Until the dead letter is safe the message stays where it is.
    assert_eq!(site.status().queued, 2);
    store.sync();
    talk.run().await;
    assert_eq!((site.status().queued, site.status().dropped, talk.over()), (0, 2, None));
    let mut grave = site.listener("$dead/bridge/cloud", "$dead/bridge/cloud/#", SessionOptions::default()).await;
    let letters = heard(&mut grave);
    assert_eq!(payloads(&letters), ["bad", "worse"]);
    assert_eq!(letters[0].topic().as_str(), "$dead/bridge/cloud/up/a");
    let reason = letters[0].properties().unwrap().user.iter().find(|(name, _)| &**name == "waystation-dead-reason");
    assert_eq!(reason.map(|(_, value)| &**value), Some("not authorized"));
}

#[tokio::test]
async fn what_the_far_side_has_no_room_for_is_sent_again_in_order() {
    let site = Site::new(Protocol::V5).await;
    let mut talk = site.connect(false, Terms { receive_maximum: 3, ..Terms::default() }).await;
    (1..=4).for_each(|n| site.publish("up/a", &n.to_string(), Qos::AtLeastOnce));
    assert_eq!(talk.published().await, numbered(1..=3, false));
    talk.hear(Say::PubAck(1, None));
    // 4 went out before the first word of trouble.
    assert_eq!(talk.published().await, numbered(4..=4, false));
    talk.hear(Say::PubAck(2, Some(0x97)));
    talk.hear(Say::PubAck(3, Some(0x97)));
    site.publish("up/a", "5", Qos::AtLeastOnce);
    assert_eq!(talk.published().await, []);
    site.clock.advance(FIRST_AGAIN);
    assert!(!talk.pump.wants_anew(site.clock.now()), "one is not answered yet");
    talk.hear(Say::PubAck(4, Some(0x97)));
    assert!(talk.pump.wants_anew(site.clock.now()));
    let attached = attach(&site.scene.cx, &site.settings, 3).await.unwrap();
    talk.pump.renew(site.clock.now(), attached.link, &mut talk.out);
    assert_eq!(talk.published().await, numbered(2..=4, true));
    (2..=4).for_each(|id| talk.hear(Say::PubAck(id, None)));
    assert_eq!(talk.published().await, numbered(5..=5, false));
    assert_eq!(talk.over(), None);
}

#[tokio::test]
async fn subscriptions_are_asked_for_a_few_at_a_time_and_refusals_are_told() {
    for protocol in BOTH {
        let routes: String = (0..10)
            .map(|n| format!("[[route]]\ndirection = 'in'\nfilter = 'down/{n}'\nremote_prefix = 'site/'\n"))
            .collect();
        let table = format!("name = 'cloud'\nurl = 'mqtt://far'\n{routes}");
        let site = Site::with(protocol, &table, Limits::default(), None).await;
        let mut talk = site.reach(false, Terms::default(), (0..10).collect()).await;
        let [Said::Subscribe(id, filters)] = &talk.said()[..] else { panic!("no SUBSCRIBE") };
        assert_eq!((filters.len(), filters[0].as_str()), (FILTERS, "site/down/0"));
        let mut results = vec![true; FILTERS];
        results[3] = false;
        talk.hear(Say::SubAck(*id, results));
        let [Said::Subscribe(id, filters)] = &talk.said()[..] else { panic!("no second SUBSCRIBE") };
        assert_eq!(filters, &["site/down/8", "site/down/9"]);
        talk.hear(Say::SubAck(*id, vec![true, true]));
        let (done, refused) = talk.pump.subscriptions();
        assert_eq!((done, refused.iter().map(|(place, _)| *place).collect::<Vec<_>>()), (true, vec![3]));
    }
}

#[tokio::test]
async fn a_message_larger_than_we_take_is_acknowledged_and_the_next_one_comes() {
    for protocol in BOTH {
        let limits = Limits { max_packet_size: 1_000, ..Limits::default() };
        let site = Site::with(protocol, TABLE, limits, None).await;
        let mut link = site.listener("app", "down/#", SessionOptions::default()).await;
        let mut talk = site.connect(false, Terms::default()).await;
        let mut input = far::write(protocol, Say::publish("site/down/x", &"x".repeat(5_000), 1, 1));
        input.extend_from_slice(&far::write(protocol, Say::publish("site/down/x", &"x".repeat(5_000), 2, 2)));
        input.extend_from_slice(&far::write(protocol, Say::publish("site/down/x", &"x".repeat(5_000), 0, 0)));
        input.extend_from_slice(&far::write(protocol, Say::publish("site/down/x", "next", 1, 3)));
        // However it is cut.
        let mut fed = BytesMut::new();
        for byte in input {
            fed.extend_from_slice(&[byte]);
            talk.hear_bytes(&mut fed);
        }
        assert_eq!(talk.said(), [Said::PubAck(1), Said::PubRec(2), Said::PubAck(3)]);
        assert_eq!((payloads(&heard(&mut link)), talk.over()), (vec!["next".to_owned()], None));
        assert_eq!(site.broker().metrics().dropped(DropCause::TooLarge), 3);
    }
}

#[tokio::test]
async fn a_message_without_a_topic_ends_the_connection() {
    let everything = TABLE.replace("'down/#'", "'#'").replace("remote_prefix = 'site/'", "local_prefix = 'far/'");
    let site = Site::with(Protocol::V5, &everything, Limits::default(), None).await;
    let mut link = site.listener("app", "far/#", SessionOptions::default()).await;
    let mut talk = site.connect(false, Terms::default()).await;
    talk.hear(Say::publish("", "aliased", 1, 1));
    assert_eq!((talk.said(), payloads(&heard(&mut link))), (vec![], vec![]));
    assert!(talk.over().is_some_and(|why| why.contains("topic")), "{:?}", talk.over());
}

#[tokio::test]
async fn a_message_whose_topic_is_none_on_the_other_side_is_counted_and_the_next_one_follows() {
    for protocol in BOTH {
        let limits = Limits { max_topic_levels: 3, ..Limits::default() };
        let site = Site::with(protocol, TABLE, limits, None).await;
        let mut link = site.listener("app", "down/#", SessionOptions::default()).await;
        let mut talk = site.connect(false, Terms::default()).await;
        talk.hear(Say::publish("site/down/2/3/4", "deep", 1, 1));
        talk.hear(Say::publish("site/down/2/3/4", "deep again", 1, 2));
        talk.hear(Say::publish("site/down/2/3", "next", 1, 3));
        assert_eq!(talk.said(), [Said::PubAck(1), Said::PubAck(2), Said::PubAck(3)]);
        assert_eq!(payloads(&heard(&mut link)), ["next"]);
        assert_eq!(site.broker().metrics().dropped(DropCause::Refused), 2);

        site.publish(&format!("up/{}", "x".repeat(65_531)), "long", Qos::AtLeastOnce);
        site.publish("up/a", "short", Qos::AtLeastOnce);
        talk.run().await;
        assert_eq!(talk.said().iter().map(Said::seen).collect::<Vec<_>>(), [("short", 1, false)]);
        assert_eq!(site.status().dropped, 1);
    }
}

#[tokio::test]
async fn the_state_topic_is_set_and_cleared() {
    for protocol in BOTH {
        let table = TABLE.replace("url =", "state_topic = 'sites/a'\nurl =");
        let site = Site::with(protocol, &table, Limits::default(), None).await;
        let mut talk = site.reach(true, Terms::default(), Vec::new()).await;
        let state = |said: &Said| match said {
            Said::Publish(publish) => (publish.topic.clone(), publish.payload.clone(), publish.retain),
            other => panic!("{other:?} is no PUBLISH"),
        };
        assert_eq!(state(&talk.said()[0]), ("sites/a".into(), "1".into(), true));
        let Talk { pump, mut out, .. } = talk;
        drop(pump.leave(&mut out));
        assert_eq!(state(&far::read(protocol, &mut out)), ("sites/a".into(), "0".into(), true));
        assert_eq!((far::read(protocol, &mut out), out.len()), (Said::Disconnect, 0));
    }
}

#[tokio::test]
async fn a_far_side_that_is_silent_is_asked_and_then_given_up() {
    for protocol in BOTH {
        let site = Site::new(protocol).await;
        let mut talk = site.connect(true, Terms { keep_alive_s: Some(10), ..Terms::default() }).await;
        let seconds = |n| Duration::from_secs(n);
        for _ in 0..3 {
            site.clock.advance(seconds(9));
            talk.pump.handle_timeout(site.clock.now(), &mut talk.out);
            assert_eq!(talk.said(), []);
            site.clock.advance(seconds(1));
            talk.pump.handle_timeout(site.clock.now(), &mut talk.out);
            assert_eq!(talk.said(), [Said::PingReq]);
            talk.hear(Say::PingResp);
        }
        site.clock.advance(seconds(10));
        talk.pump.handle_timeout(site.clock.now(), &mut talk.out);
        site.clock.advance(seconds(5));
        talk.pump.handle_timeout(site.clock.now(), &mut talk.out);
        assert!(talk.over().is_some_and(|why| why.contains("silent")), "{:?}", talk.over());
    }
}

#[tokio::test]
async fn a_farewell_of_the_far_side_is_told_in_its_words() {
    let site = Site::new(Protocol::V5).await;
    for (bytes, words) in [
        (&[0xE0, 0][..], "normal disconnection"),
        (&[0xE0, 1, 0x8B], "server shutting down"),
        (&[0xE0, 2, 0x8E, 0], "session taken over"),
    ] {
        let mut talk = site.connect(true, Terms::default()).await;
        talk.hear_bytes(&mut BytesMut::from(bytes));
        assert_eq!(talk.over(), Some(format!("the far side disconnected: {words}").as_str()));
    }
}

#[tokio::test]
async fn a_server_that_stops_makes_the_bridge_say_goodbye() {
    let site = Site::new(Protocol::V5).await;
    let mut talk = site.connect(true, Terms::default()).await;
    site.broker().stop();
    let event = talk.pump.event(0).await;
    talk.pump.handle_event(site.clock.now(), event, &mut talk.out);
    assert!(talk.pump.is_leaving() && talk.over().is_none());
    assert!(session_id("cloud").is_some_and(|id| site.broker().session(&id).is_some()));
}

mod nonsense {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whatever a far side sends costs the connection at most.
        #[test]
        fn no_bytes_do_harm(first in prop_oneof![any::<u8>(), 0x20u8..0xF0], bytes in prop::collection::vec(any::<u8>(), 0..60), five: bool) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let site = Site::new(if five { Protocol::V5 } else { Protocol::V311 }).await;
                let mut talk = site.connect(false, Terms::default()).await;
                let mut input = BytesMut::from(&[first, u8::try_from(bytes.len()).unwrap()][..]);
                input.extend_from_slice(&bytes);
                talk.hear_bytes(&mut input);
                site.scene.cx.loops.shutdown();
            });
        }
    }
}
