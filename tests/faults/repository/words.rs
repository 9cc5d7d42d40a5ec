//! Messages, people and dates of commits, and names of tags, that mean harm: shown everywhere, obeyed by
//! no terminal, and valid JSON where JSON is due.

use git2::ObjectType;

use super::{FILE, Hostile, expect_harmless, sample};
use crate::all;
use crate::support::http::Http;

/// Bytes after `author ` and `committer `, and the rest of the commit.
type Words = (&'static str, Vec<u8>, Vec<u8>);

const ORDINARY: &[u8] = b"A <a@example.org> 1700000000 +0000";

fn commits() -> Vec<Words> {
    let ordinary = || ORDINARY.to_vec();
    let person = |text: &[u8]| [text, b" 1700000000 +0000"].concat();
    let message = |text: &[u8]| [b"\n", text].concat();
    let plain = || message(b"plain\n");
    vec![
        ("escape codes in the message", ordinary(), message(b"\x1b[2J\x1b]0;owned\x07 \x9b31m \x1bP+q\x1b\\\n")),
        ("carriage returns", ordinary(), message(b"good\rbad\r\nlog: forged\n")),
        ("a NUL in the message", ordinary(), message(b"before\0\x1b[2Jafter\n")),
        ("invalid UTF-8 in the message", ordinary(), message(b"\xff\xfe\xc3( \xed\xa0\x80\n")),
        ("turned text", ordinary(), message("\u{202e}gpj.exe\u{2066}\u{200b}\n".as_bytes())),
        ("a message of 1 MB", ordinary(), message(&[b'\x1b'; 1 << 20])),
        ("JSON in the message", ordinary(), message(b"\",\"level\":\"error\"}\n{\"forged\":1}\n")),
        ("no message", ordinary(), b"\n".to_vec()),
        ("no end of the header", ordinary(), Vec::new()),
        ("escape codes in the author", person(b"\x1b[2J\x9b31mRed\x07 <\x1b[2J@x>"), plain()),
        ("invalid UTF-8 in the author", person(b"\xff\xfe <\xff@x>"), plain()),
        ("an author of 1 MB", person(&[&[b'x'; 1 << 20][..], b" <a@x>"].concat()), plain()),
        ("an author without email", person(b"Nobody"), plain()),
        ("an author of nothing", Vec::new(), plain()),
        ("no name", person(b"<>"), plain()),
        ("angles without end", person(b"A <<<>>> <"), plain()),
        ("a date beyond 64 bits", b"A <a@x> 99999999999999999999999 +0000".to_vec(), plain()),
        ("the largest date", b"A <a@x> 9223372036854775807 +0000".to_vec(), plain()),
        ("a date before all dates", b"A <a@x> -99999999999 +0000".to_vec(), plain()),
        ("a date that is none", b"A <a@x> yesterday +0000".to_vec(), plain()),
        ("an absurd time zone", b"A <a@x> 1700000000 +99999999999".to_vec(), plain()),
        ("no time zone", b"A <a@x> 1700000000".to_vec(), plain()),
        ("a header of its own", ordinary(), b"\x1b[2J forged\n\nplain\n".to_vec()),
        ("an encoding that is none", ordinary(), b"encoding \x1b[2J\n\nplain\n".to_vec()),
        ("tree twice", [ORDINARY, b"\ntree 1111111111111111111111111111111111111111"].concat(), plain()),
    ]
}

#[test]
fn messages_people_and_dates_of_commits() {
    let mut hostile = Hostile::by_pack("words");
    let http = Http::start();
    let folder = hostile.world.path("metrics");
    std::fs::create_dir(&folder).unwrap();
    crate::support::set_mode(&folder, 0o755);
    let metrics = folder.join("poller.prom");
    hostile.world.write_host_config(&format!(
        "[notify]\nurl = \"{}\"\non = [\"failed\", \"recovered\", \"deployed\", \"refused\"]\n[metrics]\ntextfile = \"{}\"",
        http.url("/hook"),
        metrics.display()
    ));
    for (number, (case, person, rest)) in sample(commits(), 3).into_iter().enumerate() {
        hostile.tally.case(case);
        let page = hostile.blob(format!("{number}\n"));
        let tree = hostile.tree_with(&[(FILE, b"\x1b[2Jpage\n", page)]);
        let head = format!("tree {tree}\nparent {}\n", hostile.first);
        let people = [b"author ", &*person, b"\ncommitter ", &*person, b"\n"].concat();
        let commit = hostile.object(ObjectType::Commit, &[head.as_bytes(), &people, &rest].concat());
        hostile.serve(&commit.to_string(), &[commit, tree, page]);
        if all() || number % 4 == 0 {
            show(&hostile, &["--dry-run"]);
            show_json(&hostile, &["--dry-run", "--json"]);
        }
        let code = show(&hostile, &[]);
        // What libgit2 cannot read as a commit is not published; all others are.
        assert!([0, 76, 77].contains(&code), "{case}: exit {code}");
        if code == 0 {
            assert_eq!(hostile.world.revision("site"), Some(commit.to_string()), "{case}");
            hostile.first = commit.to_string();
        }
    }
    hostile.tally.case("a good commit after one that cannot be read");
    let tree = hostile.tree_with(&[]);
    let bad = format!("tree {tree}\nparent {}\nauthor \x1b[2J\ncommitter Nobody 1 +0000\n\nbad\n", hostile.first);
    let bad = hostile.object(ObjectType::Commit, bad.as_bytes());
    hostile.first = bad.to_string();
    let tip = hostile.commit(tree);
    hostile.serve(&tip.to_string(), &[bad, tip, tree]);
    show(&hostile, &["--dry-run"]);
    assert!([0, 76, 77].contains(&show(&hostile, &[])));
    hostile.tally.case("status, history, log, metrics and notices after all that");
    for command in [&["status"][..], &["history", "site"], &["log", "site"], &["check"]] {
        show(&hostile, command);
        if command[0] != "check" {
            show_json(&hostile, &[command, &["--json"]].concat());
        }
    }
    expect_harmless(&std::fs::read_to_string(&metrics).unwrap());
    let told = http.take();
    assert!(!told.is_empty());
    told.iter().for_each(|request| expect_harmless(&request.json().to_string()));
    let log = std::fs::read_to_string(hostile.world.log_file()).unwrap();
    expect_harmless(&log);
    hostile.world.log();
}

/// In a pipe and on a terminal; the exit code of the second.
fn show(hostile: &Hostile, args: &[&str]) -> i32 {
    if !args.is_empty() {
        let piped = hostile.world.poll(args);
        expect_harmless(&piped.stdout);
        expect_harmless(&piped.stderr);
    }
    let mut command = hostile.world.command(args);
    command.env("NO_COLOR", "1");
    let watched = hostile.world.on_terminal(command);
    expect_harmless(&watched.stderr.replace("\r\n", "\n").replace("\x1b[K", "").replace('\r', ""));
    watched.code
}

fn show_json(hostile: &Hostile, args: &[&str]) {
    let shown = hostile.world.poll(args).stdout;
    expect_harmless(&shown);
    let parsed: Result<serde_json::Value, _> = serde_json::from_str(&shown);
    assert!(parsed.is_ok(), "{args:?}: {parsed:?} {shown}");
}

#[test]
fn names_of_tags() {
    let mut hostile = Hostile::by_pack("tags");
    hostile.world.app("site").without("source.branch").source("tag = \"v*\"").write();
    let program = hostile.served.clone().unwrap().join("serve");
    let source = format!("tag = \"v*\"\nssh_command = \"{}\"", program.display());
    hostile.world.app("site").without("source.branch").without("source.identity").source(&source).write();
    let tip = hostile.first.clone();
    let names = [
        &b"v9.0.0\x1b[2J"[..],
        b"v9.0.0-\x1b]0;owned\x07",
        "v9.0.0-\u{202e}gpj".as_bytes(),
        b"v9.0.0-\xff\xfe",
        b"v9.0.0+`id`",
        b"v9.0.0/../../x",
        b"v99999999999999999999999.0.0",
        b"v9.0.0-$(id)",
        b"v9 .0.0",
        b"v-1.0.0",
    ];
    for name in names {
        hostile.tally.case(format!("{:?}", String::from_utf8_lossy(name)));
        let lines = [[&b"refs/tags/"[..], name].concat(), b"refs/tags/v1.0.0".to_vec()];
        let mut refs = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let capabilities: &[u8] = if at == 0 { b"\0ofs-delta\n" } else { b"\n" };
            let line = [tip.as_bytes(), b" ", line, capabilities].concat();
            refs.extend([format!("{:04x}", line.len() + 4).as_bytes(), &line].concat());
        }
        refs.extend(b"0000");
        std::fs::write(hostile.served.as_ref().unwrap().join("refs"), refs).unwrap();
        let shown = hostile.world.poll(&["--dry-run", "--force", "site"]);
        expect_harmless(&shown.stdout);
        expect_harmless(&shown.stderr);
        assert!(shown.code == 76 || shown.stdout.contains("v1.0.0"), "{}", shown.story());
        let outcome = hostile.world.poll(&["--force", "site"]).expect_one_of(&[0, 76]);
        expect_harmless(&outcome.stderr);
        let log = std::fs::read_to_string(hostile.world.log_file()).unwrap();
        expect_harmless(&log);
        assert!(!log.contains("9.0.0"), "{log}");
    }
}
