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

/// The folder that is kept for later versions: with tables, and with everything in it.
fn kept() -> TempDir {
    let copy = folder();
    copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/kept/waystation-1"), copy.path());
    copy
}

/// Files of the database in a folder whose path in it fits, and their lengths.
fn files(folder: &Path, fits: impl Fn(&str) -> bool) -> Vec<(PathBuf, usize)> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.join("db")]);
    while let Some(place) = folders.pop() {
        for entry in fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap();
            match path.is_dir() {
                true => folders.push(path),
                false if fits(name.to_str().unwrap()) => {
                    files.push((name.to_owned(), fs::metadata(&path).unwrap().len().try_into().unwrap()));
                }
                false => {}
            }
        }
    }
    files.sort();
    files
}

fn flip(file: &Path, at: usize, bit: u8) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(file, bytes).unwrap();
}

/// Opens it, reads everything, writes something and stops in order; what is in it then, and how much was damaged.
fn through_a_start(dir: TempDir) -> (Examined, u64, TempDir) {
    let scene = Scene::on(dir, Arc::new(ManualClock::default()), MEMORY);
    let mut newcomer = scene.world.resident("newcomer");
    subscribe(&mut newcomer, "t", Qos::AtLeastOnce);
    scene.world.publish("t", "new", Qos::AtLeastOnce);
    scene.sync();
    forget(newcomer);
    let damaged = scene.health().damaged;
    scene.disk.close();
    let closed = scene.copy();
    let examined = examine(closed.path()).unwrap().unwrap();
    (examined, damaged, closed)
}

#[test]
fn one_flipped_bit_in_a_manifest_is_told_and_set_right() {
    let whole = through_a_start(kept()).0;
    assert_eq!((whole.damaged, whole.unreadable.len()), (0, 0));
    let manifests = files(kept().path(), |path| path.contains("keyspaces") && !path.contains("tables"));
    assert_eq!(manifests.len(), 12, "{manifests:?}");
    for (n, (name, length)) in manifests.into_iter().enumerate() {
        for at in [n % 8, length / 2 + n] {
            let dir = kept();
            // The last byte of the pointer says how the sum is made, and nobody asks it.
            flip(&dir.path().join(&name), at.min(length - 2), 3);
            assert_eq!(examine(dir.path()).unwrap().unwrap().unreadable.len(), 1, "{name:?} at {at}");
            let refused = Disk::open(Settings { on_damage: OnDamage::Refuse, ..settings(dir.path()) }).unwrap_err();
            assert!(matches!(&refused, OpenError::Damaged(why) if why.contains("keyspaces")), "{refused}");
            let (found, damaged, dir) = through_a_start(dir);
            assert_eq!((found.records, found.damaged, damaged), (whole.records, 0, 1), "{name:?} at {at}");
            assert!(dir.path().join("quarantine").exists());
        }
    }
}

/// The engine gives up when it merges what is damaged: nothing could be written any more.
#[test]
fn a_bad_bit_in_a_table_costs_what_it_hits_and_the_rest_is_written_anew() {
    let whole = through_a_start(kept()).0;
    let tables = files(kept().path(), |path| path.contains("tables") && !path.contains("keyspaces/0/"));
    assert!(tables.len() >= 5, "{tables:?}");
    let mut hit = 0;
    for (name, length) in tables {
        for at in (0..4).map(|n| (length - 1) * n / 3) {
            let dir = kept();
            flip(&dir.path().join(&name), at, 2);
            let refuses = match Disk::open(Settings { on_damage: OnDamage::Refuse, ..settings(dir.path()) }) {
                Ok(_) => false,
                Err(OpenError::Damaged(_)) => true,
                Err(other) => panic!("{name:?} at {at} of {length}: {other}"),
            };
            let (found, damaged, dir) = through_a_start(dir);
            assert_eq!((found.damaged, found.unreadable), (0, Vec::new()), "{name:?} at {at} of {length}");
            assert!(found.records <= whole.records && (found.records == whole.records || damaged > 0));
            assert_eq!(refuses, damaged > 0, "{name:?} at {at} of {length}");
            assert_eq!(refuses, dir.path().join("quarantine").exists());
            hit += usize::from(refuses);
        }
    }
    assert!(hit > 5, "{hit} bits mattered");
}

#[test]
fn a_database_that_was_written_anew_and_not_put_in_place_is_put_there() {
    let dir = kept();
    fs::rename(dir.path().join("db"), dir.path().join("rebuilt")).unwrap();
    let whole = through_a_start(kept()).0;
    let (found, damaged, dir) = through_a_start(dir);
    assert_eq!((found.records, damaged), (whole.records, 0));
    // One that was not finished goes.
    copy_folder(&dir.path().join("db"), &dir.path().join("rebuilt"));
    let (_, _, dir) = through_a_start(dir);
    assert!(!dir.path().join("rebuilt").exists());
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
        let files = files(killed.path(), |_| true);
        for (file, at, bit) in flips {
            let file = &killed.path().join(&files[file.index(files.len())].0);
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
