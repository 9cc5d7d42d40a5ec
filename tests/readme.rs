//! What README shows is what poller shows: each screen in it is one that a scenario checks.
//!
//! `<!-- screen: NAME -->` stands before the indented block that is `tests/screens/NAME.txt`.
//! `POLLER_BLESS=1` writes the blocks anew.

use std::fs;
use std::path::PathBuf;

fn at(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The README as it would be with the screens of today.
fn with_screens(readme: &str) -> String {
    let mut out = String::new();
    let mut lines = readme.lines().peekable();
    while let Some(line) = lines.next() {
        out += line;
        out.push('\n');
        let name = line.strip_prefix("<!-- screen: ").and_then(|rest| rest.strip_suffix(" -->"));
        let Some(name) = name else { continue };
        let file = at(&format!("tests/screens/{name}.txt"));
        let screen = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        // The block that stands there: indented lines, with empty ones in it and around it.
        while lines.peek().is_some_and(|l| l.is_empty() || l.starts_with("    ")) {
            lines.next();
        }
        out.push('\n');
        for line in screen.trim_end().lines() {
            out += format!("    {line}").trim_end();
            out.push('\n');
        }
        out.push('\n');
    }
    out
}

#[test]
fn the_screens_in_the_readme_are_those_of_the_scenarios() {
    let readme = fs::read_to_string(at("README.md")).unwrap();
    let today = with_screens(&readme);
    if std::env::var_os("POLLER_BLESS").is_some() {
        fs::write(at("README.md"), &today).unwrap();
        return;
    }
    let differs = readme.lines().zip(today.lines()).find(|(is, should)| is != should);
    assert_eq!(differs, None, "POLLER_BLESS=1 writes README.md anew");
    assert_eq!(readme.lines().count(), today.lines().count());
}

#[test]
fn no_screen_of_a_command_is_written_by_hand() {
    let readme = fs::read_to_string(at("README.md")).unwrap();
    let lines: Vec<&str> = readme.lines().collect();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("    # poller")) {
        let before = lines[..index].iter().rev().find(|line| !line.is_empty()).unwrap_or(&"");
        assert!(before.starts_with("<!-- screen: "), "line {} of README.md: {line}", index + 1);
    }
}

#[test]
fn every_command_is_in_the_readme() {
    let readme = fs::read_to_string(at("README.md")).unwrap();
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_poller")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let names: Vec<&str> = commands.lines().filter_map(|l| l.strip_prefix("  ")?.split(' ').next()).collect();
    assert!(names.len() > 11, "{names:?}");
    for name in names.iter().filter(|name| !name.is_empty() && **name != "help") {
        assert!(readme.contains(&format!("poller {name}")), "poller {name}");
    }
}

/// The names of all log events, as the code has them.
fn events() -> std::collections::BTreeSet<String> {
    let mut folders = vec![at("src")];
    let mut found = std::collections::BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            let text = fs::read_to_string(&entry).unwrap();
            let names = text.split("event!(").skip(1).filter_map(|rest| rest.split('"').nth(1).map(str::to_owned));
            found.extend(names.filter(|name| name.contains('.') && !name.contains(' ')));
        }
    }
    found
}

#[test]
fn every_event_of_the_log_is_in_the_readme() {
    let readme = fs::read_to_string(at("README.md")).unwrap();
    let events = events();
    assert!(events.len() > 25, "{events:?}");
    for event in events {
        assert!(readme.contains(&format!("`{event}`")), "{event}");
    }
}
