//! `$SYS`: what the broker says about itself.

use crate::harness::*;
use waystation_broker::*;

fn said(world: &World, name: &str) -> Option<String> {
    let topic = Topic::parse(&format!("$SYS/broker/{name}")).unwrap();
    let message = world.broker.retained(&Principal::anonymous(), &topic).unwrap()?;
    Some(String::from_utf8_lossy(message.payload()).into_owned())
}

#[test]
fn every_figure_is_state_that_can_be_read() {
    let world = World::new();
    let mut sys = Sys::new(&world.broker, "1.2.3");
    let mut link = world.resident("a");
    subscribe(&mut link, "t", Qos::AtLeastOnce);
    world.resident("b").detach(Detach::Clean);
    world.publish("t", "1", Qos::AtLeastOnce);
    world.retain("state", "on");
    world.broker.traffic(&"test".into()).add_bytes_received(100);
    world.advance(7);
    sys.tick(world.clock.now());
    for (name, value) in [
        ("version", "waystation version 1.2.3"),
        ("uptime", "7 seconds"),
        ("timestamp", "2023-11-14T22:13:27.000Z"),
        ("clients/connected", "1"),
        ("clients/active", "1"),
        ("clients/disconnected", "1"),
        ("clients/inactive", "1"),
        ("clients/total", "2"),
        ("clients/maximum", "2"),
        ("clients/expired", "0"),
        ("messages/received", "2"),
        ("messages/sent", "0"),
        ("messages/stored", "2"),
        ("messages/dropped", "0"),
        ("retained messages/count", "1"),
        ("subscriptions/count", "1"),
        ("bytes/received", "100"),
        ("bytes/sent", "0"),
        ("load/messages/received/1min", "0.00"),
        ("load/bytes/sent/15min", "0.00"),
        ("gateways/test/clients", "1"),
        ("gateways/test/messages/received", "2"),
        ("gateways/test/messages/sent", "0"),
        ("gateways/test/violations", "0"),
    ] {
        assert_eq!(said(&world, name).as_deref(), Some(value), "{name}");
    }
    take(&mut link, Pick::Unsent);
    world.advance(3_600);
    sys.tick(world.clock.now());
    assert_eq!(said(&world, "clients/expired").as_deref(), Some("1"));
    assert_eq!(said(&world, "gateways/test/messages/sent").as_deref(), Some("1"));
}

#[test]
fn only_what_has_changed_is_said_again_and_nothing_of_it_is_kept() {
    let world = World::new();
    let mut sys = Sys::new(&world.broker, "1");
    let mut watcher = world.client("watcher");
    subscribe(&mut watcher, "$SYS/#", Qos::AtLeastOnce);
    let mut nosy = world.client("nosy");
    subscribe(&mut nosy, "#", Qos::AtLeastOnce);
    sys.tick(world.clock.now());
    assert!(take(&mut watcher, Pick::Unsent).len() > 30);
    sys.tick(world.clock.now());
    let again = take(&mut watcher, Pick::Unsent);
    // What the first round itself did, and what its reader took.
    assert!(again.len() < 10, "{again:?}");
    assert!(take(&mut nosy, Pick::Unsent).is_empty(), "wildcards do not reach $ topics");
    world.store.sync();
    std::mem::forget((watcher, nosy));
    let world = world.crash();
    assert_eq!((said(&world, "uptime"), world.broker.retained_count()), (None, 0));
}

#[test]
fn a_gateways_own_topics_are_said_and_taken_back() {
    let world = World::new();
    world.broker.announce("connection/cloud/state", "0").unwrap();
    assert_eq!(said(&world, "connection/cloud/state").as_deref(), Some("0"));
    world.broker.announce("connection/cloud/state", "").unwrap();
    assert_eq!(said(&world, "connection/cloud/state"), None);
    assert_eq!(world.broker.announce("mqtt_sn/clients/#/state", "lost"), Err(InvalidTopic::Wildcard));
}

#[test]
fn where_nothing_is_retained_for_clients_the_figures_are_still_state() {
    let world = World::with(|limits| limits.retain_available = false);
    Sys::new(&world.broker, "1").tick(world.clock.now());
    assert_eq!(said(&world, "uptime").as_deref(), Some("0 seconds"));
}
