//! Screens: what a command shows, held against `tests/screens/NAME.txt`.
//!
//! What differs from run to run (ids, times, folders, ports, names of users) is replaced by what a reader
//! of the README would see on a server. `POLLER_BLESS=1` writes the files anew, to be looked at in the diff.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::World;
use super::repo::git;

impl World {
    /// Compares `text`, what `command` showed, with the screen of that name.
    #[track_caller]
    pub fn screen(&self, name: &str, command: &str, text: &str) {
        let shown = format!("# {command}\n{}", self.as_on_a_server(text));
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/screens").join(format!("{name}.txt"));
        if std::env::var_os("POLLER_BLESS").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &shown).unwrap();
            return;
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            shown == expected,
            "the screen {name} is another one (POLLER_BLESS=1 writes it anew)\n--- expected\n{expected}\n--- shown\n{shown}\n--- as it was\n{text}"
        );
    }

    fn as_on_a_server(&self, text: &str) -> String {
        let root = self.root.to_str().unwrap();
        let url = self.sshd.url(&self.repo.bare);
        let mut text = without_colour(&what_stays(&text.replace("\r\n", "\n")));
        let port = self.sshd.port;
        for (from, to) in [
            (url.as_str(), "git@git.example.org:site.git"),
            (&format!("[127.0.0.1]:{port}"), "git.example.org"),
            (&format!("{}@127.0.0.1 port {port}", self.sshd.login), "git@git.example.org"),
            (&format!("127.0.0.1 port {port}"), "git.example.org port 22"),
            (&format!("{}@127.0.0.1", self.sshd.login), "git@git.example.org"),
            (&format!("{root}/etc"), "/etc/poller"),
            (&format!("{root}/var/state"), "/var/lib/poller"),
            (&format!("{root}/var/run"), "/run/poller"),
            (&format!("{root}/var/log"), "/var/log/poller"),
            (&format!("{root}/target"), "/srv"),
            (&format!("{root}/"), "/"),
            (&self.fetcher.name, "poller"),
            (&self.deployer.name, "www-data"),
            ("testhost", "web-1"),
        ] {
            text = text.replace(from, to);
        }
        // In the order in which they were made, so that ids that happen to differ change nothing.
        let commits = git(&self.repo.work, &["rev-list", "--all", "--reflog", "--topo-order", "--reverse"]);
        for (n, commit) in commits.lines().enumerate() {
            let fake = fake_commit(n);
            text = text.replace(commit, &fake).replace(&commit[..10], &fake[..10]);
        }
        settle_words(&settle_ages(&settle_cage(&text)))
    }
}

/// What is left on a terminal of lines that were written over: how far a slow transfer was.
fn what_stays(text: &str) -> String {
    text.split('\n').map(|line| line.rsplit('\r').next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// What `check` says of the kernel, as on one that has all that the cage is made of.
fn settle_cage(text: &str) -> String {
    const ALL: &str = "landlock 7, seccomp";
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    let mut warned = false;
    while let Some(line) = lines.next() {
        if let Some((mark, after)) = line.split_once(" cage ").filter(|(mark, _)| ["  ✓", "  !"].contains(mark)) {
            let gap = &after[..after.len() - after.trim_start().len()];
            out += &format!("  ✓ cage {gap}{ALL}\n");
            warned = mark == "  !";
            while lines.next_if(|line| line.starts_with("      ")).is_some() {}
        } else if line.trim() == "\"check\": \"cage\"," {
            let indent = &line[..line.len() - line.trim_start().len()];
            out +=
                &format!("{line}\n{indent}\"result\": \"ok\",\n{indent}\"text\": \"{ALL}\",\n{indent}\"fix\": [],\n");
            while lines.next_if(|line| !line.trim().starts_with("\"class\"")).is_some() {}
        } else if warned && line.ends_with(" warnings") {
            let (before, count) = line.trim_end_matches(" warnings").rsplit_once(' ').expect("a count");
            let left = count.parse::<usize>().expect("a count") - 1;
            out += &format!("{before} {left} warning{}\n", if left == 1 { "" } else { "s" });
        } else {
            let line = if warned && line == "no problem, 1 warning" { "all is well" } else { line };
            out += line.strip_suffix(", 1 warning").filter(|_| warned).unwrap_or(line);
            out.push('\n');
        }
    }
    if !text.ends_with('\n') {
        out.pop();
    }
    out
}

/// A README has no colours.
fn without_colour(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).expect("the end of an escape code");
        assert!(part[end..].starts_with(['m', 'K']), "an escape code that is no colour: {part:?}");
        out += &part[end + 1..];
    }
    out
}

/// Forty hexadecimal digits that look like a commit's.
fn fake_commit(n: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(n as u64 + 1);
    let mut text = String::new();
    while text.len() < 40 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text += &format!("{:08x}", state >> 32);
    }
    text
}

/// `12 s ago` is as wide as `1 s ago` was: what stands in a column after it stays where it was.
fn settle_ages(text: &str) -> String {
    let mut parts = text.split(" s ago");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = out.len() - out.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        out.truncate(out.len() - digits);
        out += "1 s ago";
        if part.starts_with(' ') {
            out += &" ".repeat(digits.saturating_sub(1));
        }
        out += part;
    }
    out
}

/// Replaces words that are different in each run: times, run ids, keys, lengths of time.
fn settle_words(text: &str) -> String {
    let mut runs: BTreeMap<String, usize> = BTreeMap::new();
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_word = |c: char| c.is_ascii_alphanumeric() || "-:.+/=_".contains(c);
        let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len()).max(if in_word(first) { 1 } else { 0 });
        if end == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (word, after) = rest.split_at(end);
        let core = word.trim_end_matches([':', '.']);
        let tail = &word[core.len()..];
        out += &settled(core, &out, after, &mut runs);
        out += tail;
        rest = after;
    }
    out
}

fn settled(word: &str, before: &str, after: &str, runs: &mut BTreeMap<String, usize>) -> String {
    let bytes = word.as_bytes();
    let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
    let number = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if word.len() >= 20 && digit(0) && digit(3) && bytes[4] == b'-' && bytes[10] == b'T' && word.ends_with('Z') {
        let fraction = if word.contains('.') { ".123456" } else { "" };
        return format!("2026-11-20T14:46:15{fraction}Z");
    }
    // The name of a release begins with the time.
    if let Some((folder, release)) = word.split_at_checked(word.rfind('/').map_or(0, |i| i + 1))
        && release.len() == 57
        && release.as_bytes()[8] == b'T'
        && release.as_bytes()[15] == b'Z'
    {
        return format!("{folder}20261120T144615Z{}", &release[16..]);
    }
    if is_uuid(word) {
        let next = runs.len();
        let n = *runs.entry(word.to_owned()).or_insert(next);
        return format!("01a1f96c-2081-7490-af7c-e22309d4{:04x}", 0x8f3d + n);
    }
    if word.starts_with("SHA256:") {
        return "SHA256:RafK8Tuk1mSB3KZJHgLPM2J6LXl8J/3jLnP5oq+AheA".to_owned();
    }
    // That of an OpenPGP key.
    if word.len() == 40 && word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')) {
        return "7A4F0D8C21B36E95F0C4A1D87B3E5296C08DF143".to_owned();
    }
    if word.starts_with("AAAA") && word.len() > 60 {
        return "AAAAC3NzaC1lZDI1NTE5AAAAICOr3AJ2VpInVrGJbZR/84BW/eQoy0IvDiBl+BuklhXH".to_owned();
    }
    if number && before.ends_with("process ") {
        return "4711".to_owned();
    }
    if number && (before.ends_with("ms\": ") || before.ends_with("_ms\": ")) {
        return "300".to_owned();
    }
    if number && before.ends_with("\"time\": ") {
        return "1795186005".to_owned();
    }
    if number && word.contains('.') && (after.starts_with(" s") || before.ends_with("seconds\": ")) {
        return "0.3".to_owned();
    }
    word.to_owned()
}

fn is_uuid(word: &str) -> bool {
    let parts: Vec<usize> = word.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12] && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[test]
fn what_differs_from_run_to_run_is_settled() {
    assert_eq!(settle_ages("a  12 s ago  -\nb  5 s ago   -\n(99 s ago)"), "a  1 s ago   -\nb  1 s ago   -\n(1 s ago)");
    let lacking = "web-1\n  ! cage      no landlock, seccomp: …\n              a newer one\n  ✓ log       /l\n\n";
    let settled = "web-1\n  ✓ cage      landlock 7, seccomp\n  ✓ log       /l\n\n";
    for (said, says) in [
        ("no problem, 1 warning", "all is well"),
        ("no problem, 2 warnings", "no problem, 1 warning"),
        ("1 problem, 1 warning", "1 problem"),
        ("2 problems, 4 warnings", "2 problems, 3 warnings"),
    ] {
        assert_eq!(settle_cage(&format!("{lacking}{said}\n")), format!("{settled}{says}\n"));
        assert_eq!(settle_cage(&format!("{settled}{said}\n")), format!("{settled}{said}\n"));
    }
    let text = "at 2031-01-02T03:04:05Z: run 01a1f96c-2081-7490-af7c-e22309d48f3d took 1.7 s\n\"ms\": 99,";
    assert_eq!(
        settle_words(text),
        "at 2026-11-20T14:46:15Z: run 01a1f96c-2081-7490-af7c-e22309d48f3d took 0.3 s\n\"ms\": 300,"
    );
}
