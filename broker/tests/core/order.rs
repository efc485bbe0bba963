//! Publishers that offer again what was refused: nothing of theirs overtakes.

use crate::harness::*;
use waystation_broker::*;

#[test]
fn what_comes_after_a_refused_message_is_refused_with_it() {
    let world = World::with(|limits| (limits.max_queued_messages, limits.overflow) = (1, Overflow::Reject));
    let (mut full, mut free) = (world.resident("full"), world.client("free"));
    subscribe(&mut full, "full", Qos::AtLeastOnce);
    subscribe(&mut free, "free", Qos::AtLeastOnce);
    let mut publisher = world.client("p");
    let mut outcomes = |in_order: bool| {
        let burst = [
            ("full", Qos::AtLeastOnce),
            ("full", Qos::AtLeastOnce),
            ("free", Qos::AtMostOnce),
            ("free", Qos::AtLeastOnce),
        ];
        for (token, (topic, qos)) in (0..).zip(burst) {
            let topic = Topic::parse(topic).unwrap();
            publisher.publisher().stage(Publish::new(topic, b"x", qos), token).unwrap();
        }
        let mut receipts = Vec::new();
        match in_order {
            true => publisher.publisher().flush_in_order(&mut receipts),
            false => publisher.publisher().flush(&mut receipts),
        };
        take(&mut free, Pick::Unsent).iter().filter(|got| got.tag.is_some()).for_each(|got| {
            settle(&mut free, got, Settle::Acknowledged);
        });
        let accepted: Vec<bool> = receipts.iter().map(|r| matches!(r.outcome, Outcome::Accepted { .. })).collect();
        assert_eq!(receipts.iter().map(|r| r.token).collect::<Vec<_>>(), [0, 1, 2, 3]);
        accepted
    };
    assert_eq!(outcomes(true), [true, false, true, false]);
    assert_eq!(outcomes(false), [false, false, true, true]);
    assert_eq!(event(&mut publisher), None);
    let got = take(&mut full, Pick::Unsent);
    settle(&mut full, &got[0], Settle::Acknowledged);
    assert_eq!(event(&mut publisher), Some(Event::Room));
}
