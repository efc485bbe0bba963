//! `docs/mqtt-sn.md` names a test for each section of the specification; they must be there.

use std::{fs, path::Path};

#[test]
fn every_test_that_the_documentation_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../../docs/mqtt-sn.md")).unwrap();
    let mut sources = String::new();
    collect(&root.join("src"), &mut sources);
    collect(&root.join("tests"), &mut sources);
    let page = page.split_once("\n## The specification, section by section\n").expect("the section").1;
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let named: Vec<&str> = rows.flat_map(|row| row.split('`').skip(1).step_by(2)).collect();
    assert!(named.len() > 20, "the table of sections is gone");
    for name in named {
        assert!(sources.contains(&format!("fn {name}(")), "docs/mqtt-sn.md names {name}, and there is no such test");
    }
}

fn collect(folder: &Path, sources: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, sources);
        } else {
            sources.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}
