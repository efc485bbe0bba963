//! What becomes of a folder that was damaged.

use super::*;

/// A reader whose queue holds numbered messages, each acknowledged on its own.
fn numbered(count: usize) -> Scene {
    let scene = Scene::new();
    let mut reader = scene.world.resident("reader");
    subscribe(&mut reader, "t", Qos::AtLeastOnce);
    for n in 0..count {
        scene.world.publish("t", &format!("{n:04}"), Qos::AtLeastOnce);
        scene.sync();
    }
    forget(reader);
    scene
}

#[test]
fn a_torn_tail_costs_only_what_was_never_acknowledged() {
    let scene = numbered(5);
    let killed = scene.copy();
    let (path, before) = journal(killed.path());
    // One more message, cut off at every few bytes on its way to the disk.
    scene.world.publish("t", "torn", Qos::AtLeastOnce);
    scene.sync();
    let whole = fs::read(scene.dir.path().join("db").join(path.file_name().unwrap())).unwrap();
    let end = content_end(&whole);
    for cut in (before + 1..end).step_by(7).chain([end - 1]) {
        let folder = folder();
        copy_folder(killed.path(), folder.path());
        fs::write(folder.path().join("db").join(path.file_name().unwrap()), &whole[..cut]).unwrap();
        let scene = Scene::on(folder, Arc::new(ManualClock::default()), MEMORY);
        assert_eq!(waiting(&scene).len(), 5, "cut at {cut} of {end}");
        assert_eq!(scene.health().damaged, 0);
    }
}

#[test]
fn one_bad_bit_in_the_middle_costs_one_group_and_is_told() {
    let scene = numbered(20);
    let killed = scene.copy();
    let (path, end) = journal(killed.path());
    let bytes = fs::read(&path).unwrap();
    let hits: Vec<usize> = (10..20).map(|n| end * n / 21).collect();
    for at in hits {
        let folder = folder();
        copy_folder(killed.path(), folder.path());
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        fs::write(folder.path().join("db").join(path.file_name().unwrap()), bad).unwrap();
        let refused = Settings { on_damage: OnDamage::Refuse, ..settings(folder.path()) };
        match Disk::open(refused) {
            // The sequence number of a batch is under no checksum, and means little.
            Ok(_) => continue,
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(".jnl at offset"), "{text}");
            }
        }
        let scene = Scene::on(folder, Arc::new(ManualClock::default()), MEMORY);
        let found = waiting(&scene);
        assert!(found.len() >= 19, "a bit at {at} of {end} left {found:?}");
        assert_eq!(scene.health().damaged, 1);
        assert!(fs::read_dir(scene.dir.path().join("quarantine")).unwrap().count() > 0);
    }
}

#[test]
fn a_database_that_cannot_be_opened_is_put_aside_and_its_journals_are_saved() {
    let scene = numbered(5);
    let killed = scene.copy();
    // What tells the engine what its files mean.
    for entry in fs::read_dir(killed.path().join("db")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.extension().is_none_or(|e| e != "jnl") {
            fs::write(path, b"garbage").unwrap();
        }
    }
    let refused = Settings { on_damage: OnDamage::Refuse, ..settings(killed.path()) };
    assert!(matches!(Disk::open(refused), Err(OpenError::Damaged(_))));
    let scene = Scene::on(killed, Arc::new(ManualClock::default()), MEMORY);
    assert_eq!(waiting(&scene).len(), 5);
    assert_eq!(scene.health().damaged, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_flipped_bits_anywhere_make_it_panic_or_lie(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..8), 1..6),
        memory in prop_oneof![Just(1), Just(MEMORY)],
    ) {
        let scene = numbered(6);
        let killed = scene.copy();
        drop(scene);
        let mut files = Vec::new();
        let mut folders = vec![killed.path().join("db")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        for (file, at, bit) in flips {
            let file = &files[file.index(files.len())];
            let mut bytes = fs::read(file).unwrap();
            // Where there is something.
            let end = content_end(&bytes);
            if end == 0 { continue }
            let at = at.index(end);
            bytes[at] ^= 1 << bit;
            fs::write(file, bytes).unwrap();
        }
        let scene = Scene::on(killed, Arc::new(ManualClock::default()), memory);
        let found = waiting(&scene);
        prop_assert!(found.iter().all(|text| text.parse::<usize>().is_ok_and(|n| n < 6)), "made up: {:?}", found);
        prop_assert!(found.is_sorted(), "out of order: {:?}", found);
    }
}
