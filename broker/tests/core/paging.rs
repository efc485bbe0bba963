//! A queue that is longer than what memory takes of it lies on disk, and is what it would be in memory.

use crate::harness::*;
use waystation_broker::*;

/// Bytes of a message here: a topic of one, a text of three.
const MESSAGE: u64 = 4;
/// Messages of a queue that stay in memory.
const HEAD: u64 = 6;

/// A reader that is away, and the numbers that wait for it.
fn away(waiting: std::ops::Range<u32>, qos: Qos, adjust: impl FnOnce(&mut Limits)) -> World {
    let world = World::with_memory(HEAD * MESSAGE, adjust);
    let mut reader = world.resident("r");
    subscribe(&mut reader, "t", qos);
    reader.detach(Detach::Clean);
    // Behind the subscription, not beside it.
    world.advance(1);
    fill(&world, waiting, qos);
    world
}

fn fill(world: &World, numbers: std::ops::Range<u32>, qos: Qos) {
    for n in numbers {
        world.publish("t", &format!("{n:03}"), qos);
    }
    world.store.sync();
}

fn numbers(got: &[Got]) -> Vec<u32> {
    got.iter().map(|got| got.text.parse().unwrap()).collect()
}

fn info(world: &World) -> SessionInfo {
    world.broker.session(&ClientId::new("r").unwrap()).unwrap()
}

#[test]
fn of_a_long_queue_the_head_is_in_memory_and_all_of_it_counts() {
    let world = away(0..100, Qos::AtLeastOnce, |_| {});
    assert_eq!(world.broker.queued_in_memory(), HEAD * MESSAGE);
    assert_eq!((info(&world).queued, info(&world).queued_bytes), (100, 100 * MESSAGE));
    assert_eq!(info(&world).oldest, Some(world.broker.now()));
    assert_eq!(world.broker.waiting(), 100);
    let mut reader = world.resident("r");
    let got = take_all(&world, &mut reader, Pick::Unsent);
    assert_eq!(numbers(&got), (0..100).collect::<Vec<_>>());
    got.iter().for_each(|got| assert!(settle(&mut reader, got, Settle::Acknowledged)));
    assert_eq!((info(&world).queued, info(&world).queued_bytes, world.broker.queued_in_memory()), (0, 0, 0));
}

#[test]
fn a_page_is_read_while_the_one_before_is_handed_out_and_its_coming_wakes_the_reader() {
    let world = away(0..100, Qos::AtLeastOnce, |_| {});
    let mut reader = world.resident("r");
    assert_eq!(numbers(&take(&mut reader, Pick::Unsent)), [0, 1, 2, 3, 4, 5]);
    assert!(reader.is_paging());
    while event(&mut reader).is_some() {}
    assert!(take(&mut reader, Pick::Unsent).is_empty());
    assert_eq!(event(&mut reader), None);
    assert_eq!(world.store.turn_pages(), 1);
    assert_eq!(event(&mut reader), Some(Event::Deliverable));
    assert_eq!(numbers(&take_up_to(&mut reader, Pick::Unsent, 1)), [6]);
    assert_eq!(world.store.turn_pages(), 1, "what is left is less than half of what memory takes");
    assert!(take(&mut reader, Pick::Unsent).len() > 2);
}

#[test]
fn after_a_crash_only_heads_are_read_and_everything_is_there_in_order() {
    let mut world = away(0..60, Qos::ExactlyOnce, |limits| limits.max_inflight = 10);
    let mut reader = world.resident("r");
    let sent = take_all(&world, &mut reader, Pick::Unsent);
    assert_eq!(numbers(&sent), (0..10).collect::<Vec<_>>(), "as many as may be under way");
    settle(&mut reader, &sent[0], Settle::Received);
    reader.detach(Detach::Clean);
    world.store.sync();
    world = world.crash();
    assert_eq!(world.broker.queued_in_memory(), (10 + HEAD) * MESSAGE);
    assert_eq!((info(&world).queued, info(&world).queued_bytes), (60, 60 * MESSAGE));
    fill(&world, 60..80, Qos::ExactlyOnce);
    let mut reader = world.resident("r");
    let again = take_all(&world, &mut reader, Pick::Inflight);
    assert_eq!((numbers(&again), again[0].stage), ((0..10).collect::<Vec<_>>(), Stage::Received));
    assert_eq!(again.iter().map(|got| got.tag).collect::<Vec<_>>(), sent.iter().map(|got| got.tag).collect::<Vec<_>>());
    let mut rest = Vec::new();
    let mut open = again;
    while !open.is_empty() {
        open.iter().for_each(|got| assert!(settle(&mut reader, got, Settle::Done)));
        open = take_all(&world, &mut reader, Pick::Unsent);
        rest.extend(numbers(&open));
    }
    assert_eq!(rest, (10..80).collect::<Vec<_>>());
}

#[test]
fn what_may_have_been_sent_before_a_crash_comes_first_and_as_such_however_long_the_queue() {
    let mut world = away(0..40, Qos::AtLeastOnce, |limits| limits.max_inflight = 20);
    let reader = world.resident("r");
    world.store.sync();
    std::mem::forget(reader);
    world = world.crash();
    let mut reader = world.resident("r");
    let again = take_all(&world, &mut reader, Pick::Inflight);
    assert_eq!(numbers(&again), (0..20).collect::<Vec<_>>());
    assert!(again.iter().all(|got| got.redelivered));
}

#[test]
fn a_reader_by_cursor_sees_the_same_pages_until_it_acknowledges_and_may_run_ahead() {
    let world = away(0..50, Qos::AtLeastOnce, |_| {});
    let mut reader = world.resident("r");
    let all = take_all(&world, &mut reader, Pick::Oldest(Cursor(0)));
    assert_eq!(numbers(&all), (0..50).collect::<Vec<_>>());
    assert_eq!(world.broker.queued_in_memory(), HEAD * MESSAGE, "what it has seen lies on disk still");
    let again = take_all(&world, &mut reader, Pick::Oldest(Cursor(0)));
    assert_eq!(numbers(&again), (0..50).collect::<Vec<_>>());
    assert!(again.iter().all(|got| got.redelivered));
    // Far into what was read and let go.
    reader.settle_through(all[29].cursor).unwrap();
    assert_eq!((info(&world).queued, info(&world).queued_bytes, info(&world).delivered), (20, 20 * MESSAGE, 30));
    reader.detach(Detach::Clean);
    world.store.sync();
    let world = world.crash();
    assert_eq!(info(&world).queued, 20);
    let mut reader = world.resident("r");
    let settled = reader.settled();
    assert_eq!(numbers(&take_all(&world, &mut reader, Pick::Oldest(settled))), (30..50).collect::<Vec<_>>());
}

#[test]
fn a_full_queue_drops_its_oldest_though_it_lies_on_disk_unread() {
    let world = away(0..30, Qos::AtLeastOnce, |limits| limits.max_queued_messages = 20);
    // The first went from the head; now nobody reads for those that come after it.
    fill(&world, 30..60, Qos::AtLeastOnce);
    assert_eq!((info(&world).queued, info(&world).queued_bytes, info(&world).missed), (20, 20 * MESSAGE, 40));
    assert_eq!(world.broker.metrics().dropped(DropCause::QueueFull), 40);
    let world = world.crash();
    assert_eq!((info(&world).queued, info(&world).missed), (20, 40));
    let mut reader = world.resident("r");
    let got = take_all(&world, &mut reader, Pick::Unsent);
    assert_eq!((numbers(&got), got[0].missed), ((40..60).collect::<Vec<_>>(), 40));
}

#[test]
fn the_ledger_names_the_topics_of_what_is_dropped_as_far_as_it_was_read() {
    let world = away(0..20, Qos::AtLeastOnce, |limits| limits.max_queued_messages = 20);
    for n in 20..60 {
        fill(&world, n..n + 1, Qos::AtLeastOnce);
        world.store.turn_pages();
    }
    let lines: Vec<_> = world.broker.drops(None, 10).into_iter().map(|line| (line.topic, line.count)).collect();
    assert_eq!(lines, [(Topic::parse("t").ok(), 40)]);
}

#[test]
fn where_only_memory_is_short_nothing_goes_that_takes_none() {
    let world = away(0..30, Qos::AtLeastOnce, |limits| limits.max_total_queued_bytes = (HEAD + 40) * MESSAGE);
    let mut reader = world.resident("r");
    let sent = take(&mut reader, Pick::Unsent);
    assert_eq!(sent.len() as u64, HEAD);
    let mut other = world.client("other");
    subscribe(&mut other, "o", Qos::AtMostOnce);
    for n in 0..40 {
        world.publish("o", &format!("{n:03}"), Qos::AtMostOnce);
    }
    fill(&world, 30..31, Qos::AtLeastOnce);
    assert_eq!((info(&world).queued, info(&world).missed), (30, 1), "the newcomer");
    drop(other);
    sent.iter().for_each(|got| assert!(settle(&mut reader, got, Settle::Acknowledged)));
    assert_eq!(numbers(&take_all(&world, &mut reader, Pick::Unsent)), (6..30).collect::<Vec<_>>());
}

#[test]
fn a_message_that_cannot_be_read_again_is_counted_and_told_and_those_behind_it_come() {
    let world = away(0..40, Qos::AtLeastOnce, |_| {});
    for text in ["010", "011", "039"] {
        world.store.damage(text.as_bytes());
    }
    let mut reader = world.resident("r");
    let got = take_all(&world, &mut reader, Pick::Unsent);
    let whole: Vec<u32> = (0..40).filter(|n| ![10, 11, 39].contains(n)).collect();
    assert_eq!(numbers(&got), whole);
    assert_eq!(got.iter().map(|got| got.missed).sum::<u32>() + u32::try_from(reader.missed()).unwrap(), 3);
    assert_eq!((world.broker.metrics().dropped(DropCause::Damaged), info(&world).queued), (3, 37));
}

#[test]
fn what_expired_or_may_not_be_read_any_more_goes_when_it_is_read() {
    let rules = std::sync::Arc::new(Rules::default());
    let world = World::ruled_with_memory(&rules, MESSAGE);
    let mut reader = world.user("r");
    subscribe(&mut reader, "+", Qos::AtLeastOnce);
    reader.detach(Detach::Clean);
    world.advance(1);
    let mut publisher = world.client("p");
    for n in 0..30u32 {
        let topic = Topic::parse(if n % 3 == 0 { "s" } else { "t" }).unwrap();
        let text = format!("{n:03}");
        let expiry = (n % 2 == 0).then_some(5);
        let message = Publish { expiry, ..Publish::new(topic, text.as_bytes(), Qos::AtLeastOnce) };
        publisher.publisher().stage(message, 0).unwrap();
        publisher.publisher().flush(&mut Vec::new());
    }
    world.store.sync();
    assert_eq!(world.broker.queued_in_memory(), MESSAGE);
    world.advance(5);
    rules.deny(&world, "r", "receive", "s");
    for by_cursor in [true, false] {
        let mut reader = world.user("r");
        let pick = if by_cursor { Pick::Oldest(Cursor(0)) } else { Pick::Unsent };
        let whole: Vec<u32> = (0..30).filter(|n| n % 2 == 1 && n % 3 != 0).collect();
        assert_eq!(numbers(&take_all(&world, &mut reader, pick)), whole);
    }
    assert_eq!(world.broker.metrics().dropped(DropCause::Expired), 15);
    assert_eq!(world.broker.metrics().dropped(DropCause::NotAuthorized), 5);
}

#[test]
fn a_session_that_ends_takes_what_lies_on_disk_with_it() {
    let world = away(0..40, Qos::AtLeastOnce, |_| {});
    let reader = world.resident("r");
    world.broker.end_session(&ClientId::new("r").unwrap(), Reason::SessionEnded);
    assert_eq!((world.broker.waiting(), world.broker.queued_in_memory()), (0, 0));
    assert_eq!(world.broker.metrics().dropped(DropCause::SessionEnded), 40);
    drop(reader);
    world.store.turn_pages();
    world.store.sync();
    let world = world.crash();
    assert_eq!(world.broker.waiting(), 0);
}

#[test]
fn a_session_that_will_end_with_its_connection_still_has_what_lies_on_disk() {
    let world = away(0..40, Qos::AtLeastOnce, |_| {});
    let mut reader = world.attach(Hello { start: Start::Resume, expiry: 0, ..world.hello("r") }).link;
    world.store.sync();
    fill(&world, 40..50, Qos::AtLeastOnce);
    assert_eq!(numbers(&take_all(&world, &mut reader, Pick::Unsent)), (0..50).collect::<Vec<_>>());
    reader.detach(Detach::Clean);
    world.store.sync();
    let world = world.crash();
    assert!(world.broker.session(&ClientId::new("r").unwrap()).is_none());
}

#[test]
fn a_page_that_comes_for_a_holder_who_was_taken_over_serves_the_next() {
    let world = away(0..30, Qos::AtLeastOnce, |_| {});
    let mut first = world.resident("r");
    let sent = take(&mut first, Pick::Unsent);
    assert!(first.is_paging());
    let mut second = world.resident("r");
    assert!(!first.is_paging() && second.is_paging());
    world.store.turn_pages();
    assert!(take(&mut first, Pick::Unsent).is_empty());
    assert_eq!(numbers(&take(&mut second, Pick::Inflight)), numbers(&sent));
    assert_eq!(numbers(&take_all(&world, &mut second, Pick::Unsent)), (6..30).collect::<Vec<_>>());
}

#[test]
fn qos_0_that_is_kept_for_a_client_stands_in_its_place_before_who_reads_by_cursor() {
    let world = World::with_memory(MESSAGE, |_| {});
    let hello = Hello { while_away: WhileAway::KeepQos0, start: Start::Resume, expiry: 60, ..world.hello("r") };
    let mut reader = world.attach(hello.clone()).link;
    subscribe(&mut reader, "t", Qos::AtLeastOnce);
    reader.detach(Detach::Clean);
    world.advance(1);
    for n in 0..20 {
        fill(&world, n..n + 1, if n % 4 == 3 { Qos::AtMostOnce } else { Qos::AtLeastOnce });
    }
    assert_eq!(world.broker.queued_in_memory(), (1 + 5) * MESSAGE);
    let mut reader = world.attach(hello).link;
    assert_eq!(numbers(&take_all(&world, &mut reader, Pick::Oldest(Cursor(0)))), (0..20).collect::<Vec<_>>());
}

#[test]
fn retained_messages_keep_their_place_behind_what_waits_on_disk() {
    let world = away(0..20, Qos::AtLeastOnce, |_| {});
    world.retain("kept", "100");
    let mut reader = world.resident("r");
    subscribe(&mut reader, "kept", Qos::AtLeastOnce);
    let first = take(&mut reader, Pick::Unsent);
    assert_eq!(first[0].text, "100", "it goes straight to the client");
    fill(&world, 20..40, Qos::AtLeastOnce);
    // Under way, and settled while the page that spans its place is read.
    assert!(settle(&mut reader, &first[0], Settle::Acknowledged));
    let rest = take_all(&world, &mut reader, Pick::Unsent);
    assert_eq!(numbers(&first[1..]).into_iter().chain(numbers(&rest)).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
}
