//! Lists that are kept by hand, held against what they list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn parsed(path: &str) -> toml::Table {
    read(path).parse().unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The crates that a manifest names, and how.
fn named(manifest: &toml::Table, table: &str) -> toml::Table {
    manifest.get(table).and_then(toml::Value::as_table).cloned().unwrap_or_default()
}

/// Which versions of a crate are in a lock file.
fn versions(lock: &toml::Table, name: &str) -> BTreeSet<String> {
    let packages = lock["package"].as_array().unwrap();
    let of_name = packages.iter().filter(|package| package["name"].as_str() == Some(name));
    of_name.map(|package| package["version"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_direct_dependency_is_in_the_table_and_nothing_else() {
    let text = read("docs/dependencies.md");
    let rows = text.lines().skip_while(|line| !line.starts_with("| crate |")).skip(2);
    let rows: BTreeMap<&str, &str> = rows
        .map_while(|line| line.strip_prefix("| "))
        .map(|line| {
            let mut cells = line.split(" | ");
            (cells.next().unwrap(), cells.next().unwrap())
        })
        .collect();
    let manifest = parsed("Cargo.toml");
    let named: BTreeSet<String> =
        ["dependencies", "dev-dependencies"].iter().flat_map(|table| named(&manifest, table)).map(|(n, _)| n).collect();
    assert!(named.len() > 25);
    let told: BTreeSet<String> = rows.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(told, named, "docs/dependencies.md and Cargo.toml; the facts: tools/dependencies.sh");
    let lock = parsed("Cargo.lock");
    for (name, version) in rows {
        // Without what stands behind a `+`, the version of a C library for one.
        let known = versions(&lock, name);
        assert!(
            known.iter().any(|v| v.split('+').next() == Some(version)),
            "{name} is {known:?}: tools/dependencies.sh"
        );
    }
}

/// The fuzz targets are compiled from poller's own sources, outside of its workspace.
#[test]
fn the_fuzz_targets_are_built_with_the_same_crates() {
    let (own, mut fuzz) =
        (named(&parsed("Cargo.toml"), "dependencies"), named(&parsed("fuzz/Cargo.toml"), "dependencies"));
    assert!(fuzz.remove("libfuzzer-sys").is_some());
    assert_eq!(fuzz, own, "copy the lines into fuzz/Cargo.toml");
    let (lock, fuzz_lock) = (parsed("Cargo.lock"), parsed("fuzz/Cargo.lock"));
    for name in own.keys() {
        let (own, fuzz) = (versions(&lock, name), versions(&fuzz_lock, name));
        assert!(
            own.is_subset(&fuzz),
            "{name}: {own:?} and {fuzz:?}; cargo update --manifest-path fuzz/Cargo.toml {name}"
        );
    }
}

/// A build never takes anything newer than what was looked at.
#[test]
fn cargo_is_never_called_without_locked() {
    let files = [
        "Makefile",
        "README.md",
        "docs/fleet.md",
        "docs/performance.md",
        ".ci/run",
        "tools/demo.sh",
        "tools/dependencies.sh",
        "tools/fuzz.sh",
        "tools/reproducible.sh",
        "tools/sbom.sh",
    ];
    let resolving =
        ["bench", "build", "check", "clippy", "deny", "install", "metadata", "nextest run", "run", "test", "tree"];
    let calls = ["cargo ", "$(CARGO) ", "\"${CARGO:-cargo}\" "];
    let mut seen = 0;
    for file in files {
        for line in read(file).lines().filter(|line| !line.trim_start().starts_with(['#', '@'])) {
            let called = calls.iter().filter_map(|call| line.split_once(call)).map(|(_, rest)| rest);
            for rest in called.filter(|rest| resolving.iter().any(|word| rest.starts_with(word))) {
                assert!(rest.contains("--locked"), "{file}: {line}");
                seen += 1;
            }
        }
    }
    assert!(seen > 8, "{seen}");
}
