//! Acknowledged means kept, over steps, failures and ends in any order.

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Publish,
    Sync,
    Again,
    Read { complete: bool },
    Kill,
    Fail(&'static str),
    Heal,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Publish),
        3 => Just(Step::Sync),
        1 => Just(Step::Again),
        3 => any::<bool>().prop_map(|complete| Step::Read { complete }),
        1 => Just(Step::Kill),
        1 => prop_oneof![Just("commit"), Just("committed")].prop_map(Step::Fail),
        2 => Just(Step::Heal),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// One publisher, one reader, kills and failures between any two steps: nothing acknowledged is lost, QoS 2 comes
    /// once.
    #[test]
    fn acknowledged_means_kept_over_kills_and_failures(
        steps in prop::collection::vec(step(), 1..40), qos in 1u8..3, memory in prop_oneof![Just(1), Just(12), Just(MEMORY)],
    ) {
        let qos = Qos::from_u8(qos).unwrap();
        let exact = qos == Qos::ExactlyOnce;
        let mut scene = Scene::with_memory(memory);
        let mut reader = scene.world.resident("r");
        subscribe(&mut reader, "t", qos);
        let mut publisher = scene.world.resident("p");
        scene.sync();
        // By packet id: text, and the position at which it counts as acknowledged once it was sent.
        let mut open: BTreeMap<u16, (String, Option<Lsn>)> = BTreeMap::new();
        let (mut acknowledged, mut received) = (BTreeSet::new(), Vec::new());
        let mut serial = 0u16;
        let end = [Step::Heal, Step::Kill, Step::Again, Step::Sync, Step::Read { complete: true }];
        for step in steps.into_iter().chain(end) {
            match step {
                Step::Publish => {
                    serial += 1;
                    open.insert(serial, (format!("{serial:05}"), None));
                    send(&mut publisher, &mut open, serial, qos);
                }
                Step::Again => for id in open.keys().copied().collect::<Vec<_>>() {
                    send(&mut publisher, &mut open, id, qos);
                },
                Step::Sync if scene.health().trouble.is_none() => {
                    let lsn = scene.disk.append_lazily(&mut Vec::new());
                    eventually("on disk, or failed", || scene.disk.durable() >= lsn || scene.health().trouble.is_some());
                    let durable = scene.disk.durable();
                    for (id, (text, _)) in open.extract_if(.., |_, (_, lsn)| lsn.is_some_and(|lsn| lsn <= durable)) {
                        if let Some(id) = std::num::NonZeroU16::new(id) { publisher.release(id); }
                        acknowledged.insert(text);
                    }
                }
                Step::Sync => {}
                Step::Read { complete } => {
                    let mut got = take(&mut reader, Pick::Inflight);
                    // A page is read when the disk is there.
                    scene.disk.rehearse_failure(None);
                    got.extend(take_with_pages(&mut reader, Pick::Unsent));
                    for g in got {
                        if exact {
                            if g.stage == Stage::Offered { received.push(g.text.clone()); }
                            let mut unknown = Vec::new();
                            let lsn = reader.settle(&[(g.tag.unwrap(), Settle::Received)], &mut unknown);
                            // PUBREL goes out once PUBREC is safe; a kill before that is out of this client's sight, so
                            // it waits here.
                            scene.disk.rehearse_failure(None);
                            eventually("PUBREC is on disk", || scene.disk.durable() >= lsn);
                            if complete { settle(&mut reader, &g, Settle::Completed); }
                        } else {
                            received.push(g.text.clone());
                            settle(&mut reader, &g, Settle::Acknowledged);
                        }
                    }
                }
                Step::Kill => {
                    forget(reader);
                    forget(publisher);
                    scene = scene.kill();
                    open.values_mut().for_each(|(_, sent)| *sent = None);
                    (reader, publisher) = (scene.world.resident("r"), scene.world.resident("p"));
                }
                Step::Fail(at) => scene.disk.rehearse_failure(Some(at)),
                Step::Heal => {
                    scene.disk.rehearse_failure(None);
                    eventually("healed", || scene.health().trouble.is_none());
                }
            }
        }
        let distinct: BTreeSet<&String> = received.iter().collect();
        for text in &acknowledged {
            prop_assert!(distinct.contains(text), "{} was acknowledged and is lost", text);
        }
        if exact {
            prop_assert_eq!(distinct.len(), received.len(), "received twice: {:?}", received);
        }
    }
}

/// Sends an open publication over the present connection.
fn send(publisher: &mut Link, open: &mut BTreeMap<u16, (String, Option<Lsn>)>, id: u16, qos: Qos) {
    let Some((text, sent)) = open.get_mut(&id) else { return };
    let topic = Topic::parse("t").unwrap();
    let exactly_once = (qos == Qos::ExactlyOnce).then(|| id.try_into().unwrap());
    publisher.publisher().stage(Publish { exactly_once, ..Publish::new(topic, text.as_bytes(), qos) }, 0).unwrap();
    let mut receipts = Vec::new();
    let lsn = publisher.publisher().flush(&mut receipts);
    if matches!(receipts[0].outcome, Outcome::Accepted { .. }) {
        *sent = Some(lsn);
    }
}
