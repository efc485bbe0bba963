//! Queues that lie on disk: what a start reads of them, what a page brings, what a sweep leaves.

use super::*;

/// Bytes of a queue that stay in memory, and of a message.
const HEAD: u64 = 1_000;
const TEXT: usize = 100;

/// Readers that are away, and `count` messages that wait for each, every third of them for all.
fn filled(readers: u32, count: u32) -> Scene {
    let scene = Scene::with_memory(HEAD);
    for n in 0..readers {
        let mut reader = scene.world.resident(&format!("r{n}"));
        subscribe(&mut reader, "all", Qos::AtLeastOnce);
        subscribe(&mut reader, &format!("own/{n}"), Qos::ExactlyOnce);
        reader.detach(Detach::Clean);
    }
    scene.world.advance(1);
    fill(&scene, readers, 0..count);
    scene
}

fn fill(scene: &Scene, readers: u32, numbers: std::ops::Range<u32>) {
    let mut publisher = scene.world.client("publisher");
    for n in numbers {
        let text = format!("{n:0>TEXT$}");
        if n % 3 == 0 {
            publish(&mut publisher, "all", &text, Qos::AtLeastOnce);
            continue;
        }
        for reader in 0..readers {
            publish(&mut publisher, &format!("own/{reader}"), &text, Qos::ExactlyOnce);
        }
    }
    scene.sync();
}

fn numbers(got: &[Got]) -> Vec<u32> {
    got.iter().map(|got| got.text.parse().unwrap()).collect()
}

/// Reads and settles everything that waits for a reader.
fn read_all(scene: &Scene, reader: &str) -> Vec<u32> {
    let mut link = resume(&scene.world, reader);
    let got = take_with_pages(&mut link, Pick::Unsent);
    got.iter().for_each(|got| assert!(settle(&mut link, got, Settle::Done)));
    link.detach(Detach::Clean);
    numbers(&got)
}

#[test]
fn long_queues_survive_a_kill_and_only_their_heads_are_in_memory() {
    let scene = filled(3, 300);
    eventually("only heads are in memory", || scene.world.broker.queued_in_memory() <= 3 * HEAD);
    let scene = scene.kill();
    assert!(scene.world.broker.queued_in_memory() <= 3 * HEAD);
    assert_eq!(scene.world.broker.waiting(), 900);
    fill(&scene, 3, 300..400);
    assert_eq!(read_all(&scene, "r0"), (0..400).collect::<Vec<_>>());
    let scene = scene.kill();
    assert_eq!(scene.world.broker.waiting(), 800);
    for reader in ["r1", "r2"] {
        assert_eq!(read_all(&scene, reader), (0..400).collect::<Vec<_>>());
    }
    scene.sync();
    // Nothing is left, of what they shared neither.
    let scene = scene.kill();
    assert_eq!((scene.world.broker.waiting(), scene.health().damaged), (0, 0));
}

#[test]
fn what_is_dropped_or_settled_unread_leaves_the_disk() {
    let scene = filled(2, 300);
    eventually("only heads are in memory", || scene.world.broker.queued_in_memory() <= 2 * HEAD);
    let mut link = resume(&scene.world, "r0");
    let mut seen = Vec::new();
    loop {
        let after = seen.last().map_or(Cursor(0), |got: &Got| got.cursor);
        let got = take(&mut link, Pick::Oldest(after));
        if got.is_empty() && !link.is_paging() {
            break;
        }
        seen.extend(got);
        eventually("the page is read", || !link.is_paging());
    }
    assert_eq!(numbers(&seen), (0..300).collect::<Vec<_>>());
    link.settle_through(seen[249].cursor).unwrap();
    link.detach(Detach::Clean);
    scene.world.broker.end_session(&ClientId::new("r1").unwrap(), Reason::SessionEnded);
    scene.sync();
    let scene = scene.kill();
    assert_eq!(scene.world.broker.waiting(), 50);
    assert_eq!(read_all(&scene, "r0"), (250..300).collect::<Vec<_>>());
}

#[test]
fn a_store_that_was_down_gives_the_page_when_it_is_back() {
    let scene = filled(1, 60);
    eventually("only the head is in memory", || scene.world.broker.queued_in_memory() <= HEAD);
    scene.disk.rehearse_failure(Some("commit"));
    let mut link = resume(&scene.world, "r0");
    eventually("the failure is noticed", || scene.health().trouble.is_some());
    let head = take(&mut link, Pick::Unsent);
    assert!(link.is_paging());
    scene.disk.rehearse_failure(None);
    let mut all = numbers(&head);
    all.extend(numbers(&take_with_pages(&mut link, Pick::Unsent)));
    assert_eq!(all, (0..60).collect::<Vec<_>>());
}
