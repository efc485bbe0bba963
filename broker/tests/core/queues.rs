use crate::harness::*;
use waystation_broker::*;

fn bounded(max: u32, overflow: Overflow) -> (World, Link) {
    let world = World::with(|limits| (limits.max_queued_messages, limits.overflow) = (max, overflow));
    let mut link = world.resident("c");
    subscribe(&mut link, "t", Qos::AtLeastOnce);
    (world, link)
}

#[test]
fn the_largest_and_the_oldest_backlog_are_told() {
    let world = World::new();
    assert_eq!(world.broker.backlog(), Backlog::default());
    for (id, topic) in [("many", "a"), ("old", "b")] {
        let mut link = world.resident(id);
        subscribe(&mut link, topic, Qos::AtLeastOnce);
        link.detach(Detach::Clean);
    }
    let first = world.clock.now();
    world.publish("b", &"x".repeat(1_000), Qos::AtLeastOnce);
    world.advance(30);
    for _ in 0..3 {
        world.publish("a", "", Qos::AtLeastOnce);
    }
    let Backlog { messages, bytes, oldest } = world.broker.backlog();
    assert_eq!((messages, oldest), (3, Some(first)));
    assert!(bytes > 1_000 && bytes < 2_000, "{bytes}");
}

#[test]
fn drop_oldest_loses_the_oldest_that_waits_and_says_so() {
    let (world, mut link) = bounded(3, Overflow::DropOldest);
    world.publish("t", "sent", Qos::AtLeastOnce);
    take(&mut link, Pick::Unsent);
    for text in ["1", "2", "3", "4"] {
        world.publish("t", text, Qos::AtLeastOnce);
    }
    let got = take(&mut link, Pick::Unsent);
    assert_eq!(texts(&got), ["3", "4"]);
    assert_eq!((got[0].missed, got[1].missed), (2, 0));
    assert_eq!(world.broker.metrics().dropped(DropCause::QueueFull), 2);
}

#[test]
fn drop_oldest_loses_the_oldest_of_a_burst_too_and_a_crash_does_not_bring_it_back() {
    let (world, mut link) = bounded(3, Overflow::DropOldest);
    let mut publisher = world.client("p");
    for text in ["1", "2", "3", "4", "5"] {
        let message = Publish::new(Topic::parse("t").unwrap(), text.as_bytes(), Qos::AtLeastOnce);
        publisher.publisher().stage(message, 0).unwrap();
    }
    publisher.publisher().flush(&mut Vec::new());
    world.store.sync();
    let got = take(&mut link, Pick::Unsent);
    assert_eq!((texts(&got), got[0].missed), (vec!["3", "4", "5"], 2));
    assert_eq!(world.broker.metrics().dropped(DropCause::QueueFull), 2);
    let world = world.crash();
    assert_eq!(texts(&take(&mut world.resident("c"), Pick::Oldest(Cursor(0)))), ["3", "4", "5"]);
}

#[test]
fn drop_oldest_loses_the_newcomer_when_everything_is_under_way() {
    let (world, mut link) = bounded(1, Overflow::DropOldest);
    world.publish("t", "1", Qos::AtLeastOnce);
    let first = take(&mut link, Pick::Unsent);
    world.publish("t", "2", Qos::AtLeastOnce);
    assert!(settle(&mut link, &first[0], Settle::Acknowledged));
    world.publish("t", "3", Qos::AtLeastOnce);
    let got = take(&mut link, Pick::Unsent);
    assert_eq!((texts(&got), got[0].missed), (vec!["3"], 1));
}

#[test]
fn drop_newest_loses_the_newcomer() {
    let (world, mut link) = bounded(2, Overflow::DropNewest);
    for text in ["1", "2", "3"] {
        world.publish("t", text, Qos::AtLeastOnce);
    }
    assert_eq!(texts(&take(&mut link, Pick::Unsent)), ["1", "2"]);
}

#[test]
fn what_an_open_stream_has_sent_is_not_missed_by_it_and_other_losses_are_told_once() {
    let (world, mut link) = bounded(2, Overflow::DropOldest);
    let publish = |texts: &[&str]| {
        texts.iter().for_each(|text| _ = world.publish("t", text, Qos::AtLeastOnce));
        world.store.sync();
    };
    publish(&["1", "2", "3"]);
    link.stream(Cursor(0));
    let first = take(&mut link, Pick::Oldest(Cursor(0)));
    assert_eq!((texts(&first), link.newly_missed(), link.newly_missed()), (vec!["2", "3"], 1, 0));
    publish(&["4", "5"]);
    let second = take(&mut link, Pick::Oldest(first[1].cursor));
    assert_eq!((texts(&second), link.newly_missed()), (vec!["4", "5"], 0), "2 and 3 went out before they were lost");
    publish(&["6", "7", "8"]);
    // The acknowledgement covers what was told and sent, not what was lost since.
    link.settle_through(second[1].cursor).unwrap();
    let third = take(&mut link, Pick::Oldest(second[1].cursor));
    assert_eq!((texts(&third), link.newly_missed()), (vec!["7", "8"], 1));
}

#[test]
fn losses_beside_an_empty_queue_are_acknowledged_by_a_cursor_of_their_own() {
    let (world, mut link) = bounded(1, Overflow::DropNewest);
    let publish = |text: &str| {
        world.publish("t", text, Qos::AtLeastOnce);
        world.store.sync();
    };
    publish("kept");
    let read = take(&mut link, Pick::Oldest(Cursor(0)));
    publish("lost");
    assert_eq!((link.missed(), link.behind_the_missed()), (1, None), "a message waits and carries the cursor");
    publish("lost after it was told");
    link.settle_through(read[0].cursor).unwrap();
    assert_eq!(link.missed(), 1);
    let behind = link.behind_the_missed().unwrap();
    assert!(behind > read[0].cursor);
    assert_eq!(link.behind_the_missed(), Some(behind), "the same until it is acknowledged");
    publish("next");
    link.settle_through(behind).unwrap();
    assert_eq!((link.missed(), link.behind_the_missed()), (0, None));
    assert_eq!(texts(&take(&mut link, Pick::Oldest(behind))), ["next"]);
}

#[test]
fn who_reads_on_after_a_stream_misses_what_it_had_sent_and_nobody_acknowledged() {
    let (world, mut link) = bounded(1, Overflow::DropOldest);
    link.stream(Cursor(0));
    world.publish("t", "1", Qos::AtLeastOnce);
    world.store.sync();
    let sent = take(&mut link, Pick::Oldest(Cursor(0)));
    world.publish("t", "2", Qos::AtLeastOnce);
    world.store.sync();
    link.detach(Detach::WithWill);
    let mut again = world.resident("c");
    assert_eq!((texts(&take(&mut again, Pick::Oldest(Cursor(0)))), again.missed()), (vec!["2"], 1));
    again.settle_through(sent[0].cursor).unwrap();
    assert_eq!(again.missed(), 0);
}

#[test]
fn what_a_reader_had_got_before_it_was_lost_is_not_missed_once_it_says_so() {
    let (world, mut link) = bounded(4, Overflow::DropOldest);
    let publish = |texts: &[&str]| {
        texts.iter().for_each(|text| _ = world.publish("t", text, Qos::AtLeastOnce));
        world.store.sync();
    };
    publish(&["1", "2", "3", "4"]);
    let read = take(&mut link, Pick::Oldest(Cursor(0)));
    publish(&["5", "6", "7"]);
    link.detach(Detach::WithWill);
    let mut link = world.resident("c");
    // 1, 2 and 3 are lost; who says that it has 2 does not miss it, nor 1.
    link.settle_through(read[1].cursor).unwrap();
    let rest = take(&mut link, Pick::Oldest(read[1].cursor));
    assert_eq!((texts(&rest), link.missed()), (vec!["4", "5", "6", "7"], 1));
    publish(&["8"]);
    link.settle_through(rest[3].cursor).unwrap();
    assert_eq!(link.missed(), 0, "3 was told with what is acknowledged now, and 4 had come");
}

#[test]
fn properties_count_for_the_bytes_of_a_queue() {
    let world = World::with(|limits| limits.max_queued_bytes = 10_000);
    let mut link = world.resident("c");
    subscribe(&mut link, "t", Qos::AtLeastOnce);
    let mut publisher = world.client("p");
    for payload in [b"1", b"2", b"3"] {
        // No text in them, and yet memory: 4,800 bytes.
        let properties = Properties { user: vec![("".into(), "".into()); 150], ..Properties::default() };
        let plain = Publish::new(Topic::parse("t").unwrap(), payload, Qos::AtLeastOnce);
        let message = Publish { properties: Some(Box::new(properties)), ..plain };
        publisher.publisher().stage(message, 0).unwrap();
        publisher.publisher().flush(&mut Vec::new());
    }
    assert_eq!(texts(&take(&mut link, Pick::Unsent)), ["2", "3"]);
    assert_eq!(world.broker.metrics().dropped(DropCause::QueueFull), 1);
}

#[test]
fn reject_tells_the_publisher_and_reaches_nobody() {
    let (world, mut link) = bounded(1, Overflow::Reject);
    let mut other = world.client("other");
    subscribe(&mut other, "t", Qos::AtLeastOnce);
    let mut publisher = world.client("p");
    assert!(matches!(publish(&mut publisher, "t", "1", Qos::AtLeastOnce), Outcome::Accepted { matched: 2, .. }));
    let taken = take(&mut other, Pick::Unsent);
    assert!(settle(&mut other, &taken[0], Settle::Acknowledged));
    assert_eq!(publish(&mut publisher, "t", "2", Qos::AtLeastOnce), Outcome::QuotaExceeded);
    assert!(take(&mut other, Pick::Unsent).is_empty());
    assert_eq!(event(&mut publisher), None);
    let got = take(&mut link, Pick::Unsent);
    assert!(settle(&mut link, &got[0], Settle::Acknowledged));
    assert_eq!(event(&mut publisher), Some(Event::Room));
    assert!(matches!(publish(&mut publisher, "t", "2", Qos::AtLeastOnce), Outcome::Accepted { .. }));
    assert_eq!(texts(&take(&mut other, Pick::Unsent)), ["2"]);
    assert_eq!(texts(&take(&mut link, Pick::Unsent)), ["2"]);
}

#[test]
fn the_memory_of_all_queues_together_is_bounded() {
    let world = World::with(|limits| limits.max_total_queued_bytes = 10);
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    subscribe(&mut a, "t", Qos::AtMostOnce);
    subscribe(&mut b, "t", Qos::AtMostOnce);
    world.publish("t", "1234", Qos::AtMostOnce);
    world.publish("t", "5678", Qos::AtMostOnce);
    // Each lost its oldest to make room.
    assert_eq!(texts(&take(&mut a, Pick::Unsent)), ["5678"]);
    assert_eq!(texts(&take(&mut b, Pick::Unsent)), ["5678"]);
}

#[test]
fn a_reader_by_cursor_reads_again_until_it_acknowledges() {
    let world = World::new();
    let hello = Hello { while_away: WhileAway::KeepQos0, expiry: 60, start: Start::Resume, ..world.hello("r") };
    let mut link = world.attach(hello.clone()).link;
    subscribe(&mut link, "t", Qos::AtLeastOnce);
    link.detach(Detach::Clean);
    world.publish("t", "1", Qos::AtMostOnce);
    world.publish("t", "2", Qos::AtLeastOnce);
    world.publish("t", "3", Qos::AtMostOnce);
    world.store.sync();
    let mut link = world.attach(hello).link;
    let start = link.settled();
    let page = take_up_to(&mut link, Pick::Oldest(start), 2);
    assert_eq!(texts(&page), ["1", "2"]);
    let again = take(&mut link, Pick::Oldest(start));
    assert_eq!(texts(&again), ["1", "2", "3"]);
    assert_eq!(again.iter().map(|g| g.redelivered).collect::<Vec<_>>(), [true, true, false]);
    assert!(link.settle_through(Cursor(again[2].cursor.0 + 1)).is_err(), "never handed out");
    assert!(link.settle_through(page[1].cursor).is_ok());
    let settled = link.settled();
    let rest = take(&mut link, Pick::Oldest(settled));
    assert_eq!(texts(&rest), ["3"]);
    assert!(link.settle_through(page[0].cursor).is_ok(), "older than what was settled is fine");
    assert_eq!(link.settled(), page[1].cursor);
}

#[test]
fn one_session_walks_from_road_to_road() {
    let world = World::new();
    let mut mqtt = world.resident("c");
    subscribe(&mut mqtt, "t", Qos::ExactlyOnce);
    for text in ["1", "2", "3"] {
        world.publish("t", text, Qos::ExactlyOnce);
    }
    world.store.sync();
    let sent = take_up_to(&mut mqtt, Pick::Unsent, 2);
    settle(&mut mqtt, &sent[0], Settle::Received);
    drop(mqtt);
    let mut rest = world.resident("c");
    let page = take(&mut rest, Pick::Oldest(Cursor(0)));
    assert_eq!(texts(&page), ["2", "3"], "what awaits PUBREL was received already");
    assert_eq!((page[0].redelivered, page[1].redelivered), (true, false), "2 was sent by the other road");
    rest.settle_through(page[0].cursor).unwrap();
    drop(rest);
    let mut mqtt = world.resident("c");
    let again = take(&mut mqtt, Pick::Inflight);
    assert_eq!((again.len(), again[0].stage, again[0].tag), (1, Stage::Received, sent[0].tag));
    settle(&mut mqtt, &again[0], Settle::Completed);
    assert_eq!(texts(&take(&mut mqtt, Pick::Unsent)), ["3"]);
}

#[test]
fn what_expires_in_the_queue_is_dropped_and_counted() {
    let world = World::new();
    let mut link = world.resident("c");
    subscribe(&mut link, "t", Qos::AtLeastOnce);
    let mut publisher = world.client("p");
    let topic = Topic::parse("t").unwrap();
    publisher.publisher().stage(Publish { expiry: Some(5), ..Publish::new(topic, b"1", Qos::AtLeastOnce) }, 0).unwrap();
    publisher.publisher().flush(&mut Vec::new());
    world.publish("t", "2", Qos::AtLeastOnce);
    world.advance(5);
    assert_eq!(texts(&take(&mut link, Pick::Unsent)), ["2"]);
    assert_eq!(world.broker.metrics().dropped(DropCause::Expired), 1);
}

#[test]
fn a_client_that_dozes_gets_no_qos_0_from_that_time() {
    let world = World::new();
    let mut link = world.client("c");
    subscribe(&mut link, "t", Qos::AtLeastOnce);
    link.doze(true);
    world.publish("t", "0", Qos::AtMostOnce);
    world.publish("t", "1", Qos::AtLeastOnce);
    link.doze(false);
    world.publish("t", "2", Qos::AtMostOnce);
    let texts: Vec<String> = take(&mut link, Pick::Unsent).into_iter().map(|got| got.text).collect();
    assert_eq!(texts, ["1", "2"]);
}
