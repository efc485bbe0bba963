use crate::harness::*;
use waystation_broker::*;

/// Publishes as `user` with a key; gives the outcome and the position it waits for.
fn ask(world: &World, user: Option<&str>, key: &str, request: u8, condition: Option<Condition>) -> (Outcome, Lsn) {
    let principal = user.map_or_else(Principal::anonymous, |name| Principal::user(name, None));
    let mut publisher = world.broker.publisher(&"test".into(), principal, None);
    let idempotency = Some(Box::new(Idempotency { key: key.into(), request: [request; 32] }));
    let topic = Topic::parse("t").unwrap();
    let message = Publish { idempotency, condition, retain: true, ..Publish::new(topic, b"1", Qos::AtLeastOnce) };
    publisher.stage(message, 0).unwrap();
    let mut receipts = Vec::new();
    let lsn = publisher.flush(&mut receipts);
    (receipts[0].outcome, lsn)
}

#[test]
fn a_repeat_is_answered_as_the_first_was_and_published_once() {
    let world = World::new();
    let mut sub = world.resident("s");
    subscribe(&mut sub, "t", Qos::AtLeastOnce);
    assert!(take(&mut sub, Pick::Oldest(Cursor::default())).is_empty());
    let (first, lsn) = ask(&world, Some("u"), "k", 1, None);
    let Outcome::Accepted { id, matched: 1 } = first else { panic!("{first:?}") };
    // The repeat waits for what the first waits for, and asks no precondition.
    let again = ask(&world, Some("u"), "k", 1, Some(Condition::Absent));
    assert_eq!(again, (Outcome::Repeated { id, matched: 1 }, lsn));
    assert_eq!(ask(&world, Some("u"), "k", 2, None).0, Outcome::KeyReused);
    for user in [None, Some("v")] {
        assert!(matches!(ask(&world, user, "k", 1, None).0, Outcome::Accepted { .. }), "another user's key");
    }
    world.store.sync();
    assert_eq!(take(&mut sub, Pick::Oldest(Cursor::default())).len(), 3);
}

#[test]
fn an_answer_outlives_a_crash_and_lapses_after_ten_minutes() {
    let world = World::new();
    let Outcome::Accepted { id, .. } = ask(&world, None, "k", 1, None).0 else { panic!("refused") };
    world.store.sync();
    let world = world.crash();
    assert_eq!(ask(&world, None, "k", 1, None).0, Outcome::Repeated { id, matched: 0 });
    world.advance(599);
    assert_eq!(ask(&world, None, "k", 1, None).0, Outcome::Repeated { id, matched: 0 });
    world.advance(1);
    assert!(matches!(ask(&world, None, "k", 2, None).0, Outcome::Accepted { .. }));
    world.store.sync();
    let world = world.crash();
    assert!(matches!(ask(&world, None, "k", 2, None).0, Outcome::Repeated { .. }));
}

#[test]
fn errors_are_not_kept() {
    let world = World::new();
    assert!(matches!(ask(&world, None, "k", 1, Some(Condition::Present)).0, Outcome::ConditionFailed { .. }));
    world.store.set_down(true);
    assert_eq!(ask(&world, None, "k", 1, None).0, Outcome::StoreUnavailable);
    world.store.set_down(false);
    assert!(matches!(ask(&world, None, "k", 2, None).0, Outcome::Accepted { .. }));
}
