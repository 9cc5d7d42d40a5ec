//! The published evidence names the tests that make it; each of them is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn at(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// `group::name` of everything in backticks that looks like the name of a test.
fn named(page: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(at(page)).unwrap();
    let quoted = text.split('`').skip(1).step_by(2);
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b"_0123456789".contains(&b));
    quoted.filter(|word| word.contains("::") && word.split("::").all(is_part)).map(str::to_owned).collect()
}

/// The text of each source file below `folder`, with its path without the ending.
fn sources(folder: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            sources(&entry, into);
        } else if entry.extension().is_some_and(|e| e == "rs") {
            let path = entry.with_extension("").to_str().unwrap().trim_end_matches("/mod").to_owned();
            into.push((path, fs::read_to_string(&entry).unwrap()));
        }
    }
}

/// Whether a file of the group's name, or in a folder of its name, has the function.
fn exists(test: &str, sources: &[(String, String)]) -> bool {
    let (group, name) = test.rsplit_once("::").unwrap();
    let group = format!("/{}", group.trim_end_matches("::tests").replace("::", "/"));
    let holds = |path: &str| path.ends_with(&group) || path.contains(&format!("{group}/"));
    sources.iter().any(|(path, text)| holds(path) && text.contains(&format!("fn {name}(")))
}

#[test]
fn every_test_that_the_pages_name_is_there() {
    let mut all = Vec::new();
    sources(&at("tests"), &mut all);
    sources(&at("src"), &mut all);
    for page in ["docs/threat-model.md", "docs/reliability.md"] {
        let named = named(page);
        assert!(named.len() > 20, "{page} names {} tests", named.len());
        let missing: Vec<_> = named.iter().filter(|test| !exists(test, &all)).collect();
        assert!(missing.is_empty(), "{page}: {missing:#?}");
    }
}

#[test]
fn a_test_that_is_not_there_is_found() {
    let all = [("/x/tests/scenarios/road".to_owned(), "fn one() {}".to_owned())];
    assert!(exists("road::one", &all));
    assert!(!exists("road::on", &all));
    assert!(!exists("kill::one", &all));
}
