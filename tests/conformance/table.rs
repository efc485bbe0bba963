//! `docs/conformance.md` is whole and tells the truth about where a statement is shown.

use std::{collections::BTreeMap, path::Path};

fn document() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md")).unwrap()
}

#[test]
fn every_test_that_the_conformance_table_names_exists() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let document = document();
    let mut named = 0;
    for row in document.lines().filter(|line| line.starts_with("| [MQTT-")) {
        let shown = row.split('|').nth(3).expect("the column of tests");
        assert!(shown.trim().len() > 5, "nothing is said about {row}");
        for reference in shown.split('`').skip(1).step_by(2) {
            let Some((module, test)) = reference.split_once("::") else { continue };
            let places = [format!("conformance/{module}.rs"), format!("{module}.rs")];
            let sources = places.iter().filter_map(|place| std::fs::read_to_string(tests.join(place)).ok());
            let found = sources.into_iter().any(|source| source.contains(&format!("#[test]\nfn {test}(")));
            assert!(found, "there is no test {reference}");
            named += 1;
        }
    }
    assert!(named > 300, "only {named} tests are named");
}

#[test]
fn the_conformance_table_leaves_no_number_out() {
    let document = document();
    let (before, five) = document.split_once("## MQTT 5.0").expect("a part on MQTT 5.0");
    let (_, three) = before.split_once("## MQTT 3.1.1").expect("a part on MQTT 3.1.1");
    for part in [three, five] {
        let mut seen: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        let statements = part.split("[MQTT-").skip(1).filter_map(|rest| rest.split_once(']'));
        for (statement, _) in statements {
            let (section, number) = statement.split_once('-').expect("section-number");
            seen.entry(section).or_default().push(number.parse().unwrap());
        }
        for (section, mut numbers) in seen {
            numbers.sort_unstable();
            numbers.dedup();
            let all: Vec<u32> = (1..=numbers.len().try_into().unwrap()).collect();
            assert_eq!(numbers, all, "statements of section {section}");
        }
    }
}
