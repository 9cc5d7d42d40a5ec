//! What poller says, where, and how often: silence under cron, one report a failure, one JSON object a line.

use std::fs;

use crate::support::{World, file};

#[test]
fn every_line_of_the_log_has_the_documented_fields() {
    let world = World::new("fields");
    let first = world.deployed();
    world.poll(&[]).expect(0);
    world.push(&[("deploy.sh", world.script("echo hello; exit 3"))], "bad");
    world.poll(&[]).expect(1);
    let log = world.log();
    for line in &log {
        for field in ["ts", "level", "run", "event", "msg"] {
            assert!(line[field].is_string(), "{field} is missing: {line}");
        }
        let ts = line["ts"].as_str().unwrap();
        assert!(ts.ends_with('Z') && ts.as_bytes()[10] == b'T', "RFC 3339 in UTC: {ts}");
        let event = line["event"].as_str().unwrap();
        assert!(event.contains('.') && !event.contains(' '), "a dotted name: {event}");
    }
    let events: Vec<_> = log.iter().map(|line| line["event"].as_str().unwrap()).collect();
    for event in ["run.started", "poll.unchanged", "deploy.started", "deploy.output", "deploy.finished"] {
        assert!(events.contains(&event), "{event} is not in {events:?}");
    }
    let finished = world.events("deploy.finished");
    assert_eq!(finished[0]["commit"], first.as_str());
    assert_eq!(finished[0]["app"], "site");
    assert!(finished[0]["ms"].is_number() && finished[0]["outcome"].is_string());
    assert_eq!(finished.last().unwrap()["exit"], 3);
}

#[test]
fn every_run_leaves_one_closing_line_with_its_outcome() {
    let world = World::new("closing");
    world.deployed();
    world.poll(&[]).expect(0);
    world.push(&[("deploy.sh", world.script("exit 3"))], "bad");
    world.poll(&[]).expect(1);
    let (started, finished) = (world.events("run.started"), world.events("run.finished"));
    assert_eq!((started.len(), finished.len()), (3, 3));
    for (start, end) in started.iter().zip(&finished) {
        assert_eq!(start["run"], end["run"]);
        assert!(end["outcome"].is_string(), "{end}");
    }
    let exits: Vec<_> = finished.iter().map(|line| line["exit"].as_i64()).collect();
    assert_eq!(exits, [Some(0), Some(0), Some(1)]);
}

#[test]
fn the_same_failure_is_reported_once() {
    let mut world = World::new("once");
    world.deployed();
    world.sshd.stop();
    let first = world.poll(&[]).expect(69);
    assert!(!first.stderr.is_empty());
    assert!(first.stdout.is_empty());
    world.poll(&[]).expect(69).silent();
    world.poll(&[]).expect(69).silent();
    world.sshd.restart();
    world.poll(&[]).expect(0);
    world.sshd.stop();
    let again = world.poll(&[]).expect(69);
    assert!(!again.stderr.is_empty(), "it began anew");
}

#[test]
fn another_failure_is_reported_although_one_was_already() {
    let mut world = World::new("changes");
    world.deployed();
    world.sshd.stop();
    world.poll(&[]).expect(69).says("site");
    world.sshd.restart();
    world.write_etc("known_hosts", "");
    world.poll(&[]).expect(76).says(&world.sshd.fingerprint());
    world.poll(&[]).expect(76).silent();
}

#[test]
fn on_a_terminal_a_failure_is_shown_each_time() {
    let mut world = World::new("terminal failure");
    world.deployed();
    world.sshd.stop();
    for _ in 0..2 {
        world.poll_on_terminal(&[]).expect(69).says("site");
    }
}

#[test]
fn a_report_of_a_failed_deploy_is_short_and_has_the_end_of_the_output() {
    let world = World::new("short");
    world.app("site").deploy("on_failure = \"restore\"").write();
    let script = "n=0; while [ $n -lt 500 ]; do n=$((n+1)); echo line $n of the script; done; exit 1";
    let bad = world.push(&[("deploy.sh", world.script(script))], "bad");
    let outcome = world.poll(&[]).expect(1).says("line 500 of the script").says("site").says(&bad[..7]);
    assert!(!outcome.stderr.contains("line 1 of the script\n"));
    assert!(outcome.stderr.lines().count() < 60, "{}", outcome.stderr);
}

#[test]
fn on_a_terminal_the_stages_are_shown() {
    let world = World::new("terminal");
    world.app("site").write();
    let first = world.push(&[("deploy.sh", world.script("echo hello from the script"))], "first");
    world.poll_on_terminal(&[]).expect(0).says("site").says(&first[..7]).says("hello from the script");
    world.poll_on_terminal(&[]).expect(0).says("unchanged");
}

#[test]
fn no_color_holds() {
    let world = World::new("no color");
    world.deployed();
    let mut command = std::process::Command::new("/usr/bin/script");
    needs_program!("script");
    let plain = world.command(&[]);
    let words: Vec<_> = std::iter::once(plain.get_program()).chain(plain.get_args()).collect();
    let line: Vec<_> = words.iter().map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    command.args(["-qec", &line.join(" "), "/dev/null"]);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/").env("TERM", "xterm");
    command.env("NO_COLOR", "1").env("SHELL", "/bin/sh").stdin(std::process::Stdio::null());
    let outcome = world.spawn(command).wait().expect(0);
    assert!(!outcome.stdout.contains("\u{1b}[3"), "{:?}", outcome.stdout);
}

#[test]
fn the_log_is_appended_to_and_for_no_others_eyes() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new("log mode");
    world.deployed();
    let before = fs::read(world.log_file()).unwrap();
    world.poll(&[]).expect(0);
    let after = fs::read(world.log_file()).unwrap();
    assert!(after.starts_with(&before) && after.len() > before.len());
    let mode = fs::metadata(world.log_file()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o640);
}

#[test]
fn a_log_that_cannot_be_opened_is_74_and_nothing_is_deployed() {
    let world = World::new("no log");
    world.app("site").write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    fs::create_dir_all(world.log_file()).unwrap();
    let mark = world.sshd.mark();
    world.poll(&[]).expect(74).says("poller.log");
    assert!(world.ran().is_empty() && world.current("site").is_none());
    assert_eq!(world.sshd.connections_since(mark), 0);
}

#[test]
fn a_log_that_is_a_link_planted_by_another_is_not_followed() {
    needs_root!();
    let world = World::new("log link");
    world.app("site").write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    let folder = world.log_file().parent().unwrap().to_owned();
    fs::create_dir_all(&folder).unwrap();
    world.deployer.own(&folder);
    let victim = world.path("victim");
    fs::write(&victim, "precious\n").unwrap();
    std::os::unix::fs::symlink(&victim, world.log_file()).unwrap();
    world.poll(&[]).expect_one_of(&[74, 77]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious\n");
}

#[test]
fn json_results_go_to_standard_output() {
    let world = World::new("json");
    world.deployed();
    world.push(&[("index.html", file("two\n"))], "second");
    let outcome = world.poll(&["--dry-run", "--json"]).expect(0);
    let value: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert!(value.is_object() || value.is_array());
    assert!(outcome.stderr.is_empty());
}

#[test]
fn help_and_version_go_to_standard_output() {
    let world = World::new("help");
    for (flag, word) in [("--help", "--dry-run"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let outcome = world.poll(&[flag]).expect(0).prints(word);
        assert!(outcome.stderr.is_empty());
    }
}

#[test]
fn a_failing_commit_is_reported_at_its_first_and_its_last_attempt_and_never_called_well() {
    let world = World::new("attempts");
    world.app("site").deploy("retries = 3").write();
    world.deployed_as_configured();
    world.push(&[("deploy.sh", world.script("exit 3"))], "bad");
    world.poll(&[]).expect(1).says("attempt 1 of 3");
    world.poll(&[]).expect(1).silent();
    world.poll(&[]).expect(0).silent();
    world.poll(&[]).expect(1).says("attempt 3 of 3");
    world.poll(&[]).expect(0).silent();
    assert!(world.events("poll.recovered").is_empty(), "it waits, it is not well");
    world.push(&[("deploy.sh", world.script("true"))], "good");
    world.poll(&[]).expect(0).silent();
    assert_eq!(world.events("poll.recovered").len(), 1);
}

#[test]
fn a_reader_that_has_seen_enough_of_a_dry_run_is_no_panic() {
    let world = World::new("head");
    world.app("site").write();
    let plain = world.command(&["--dry-run"]);
    let mut shell = std::process::Command::new("/bin/sh");
    let words: Vec<String> = std::iter::once(plain.get_program())
        .chain(plain.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    shell.arg("-c").arg(format!("{} 2>&1 >/dev/full | cat; {} | true", words.join(" "), words.join(" ")));
    let output = shell.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("panicked"), "{text}");
    assert!(text.contains("standard output"), "a full disk behind it is told: {text}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
}

#[test]
fn whoever_asks_for_json_gets_one_document_also_of_a_command_that_fails() {
    let world = World::new("json fails");
    let failing = |args: &[&str], code: i32, class: &str| {
        let outcome = world.poll(args).expect(code);
        let document: serde_json::Value =
            serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {}", outcome.story()));
        assert_eq!((&document["schema"], &document["exit"]), (&1.into(), &code.into()), "{}", outcome.story());
        assert_eq!(document["error"]["class"], class);
        let message = document["error"]["message"].as_str().unwrap();
        assert!(outcome.stderr.contains(message.lines().next().unwrap()), "{}", outcome.story());
    };
    world.app("site").write();
    for command in ["history", "log", "retry", "rollback", "adopt", "unfreeze", "status", "check", "sudoers"] {
        failing(&[command, "siet", "--json"], 64, "usage");
    }
    failing(&["siet", "--json"], 64, "usage");
    failing(&["-n", "siet", "--json"], 64, "usage");
    failing(&["log", "site", "--json"], 64, "usage");
    failing(&["status", "--frob", "--json"], 64, "usage");
    failing(&["init", "status", "/x", "--json"], 64, "usage");
    fs::write(world.config_file(), "[host").unwrap();
    for args in [&["status", "--json"][..], &["history", "site", "--json"], &["--json"], &["-n", "--json"]] {
        failing(args, 78, "config");
    }
}

#[test]
fn results_that_do_not_get_out_are_no_success() {
    let world = World::new("full out");
    world.app("site").write();
    for args in [&["status"][..], &["status", "--json"], &["sudoers"], &["-n"]] {
        let mut command = world.command(args);
        command.stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
        let ended = command.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.code() == Some(74) && said.contains("standard output: No space left"), "{args:?}: {said}");
    }
}

#[test]
fn a_password_in_a_mistyped_url_stays_in_its_file() {
    let world = World::new("mistyped");
    world.app("site").health("url = \"http://127.0.0.1:1/x?key=hunter2 \"").without("health.command").write_file_only();
    let told = world.poll(&[]).expect(78).says("site.toml").says("a URL has no blanks");
    assert!(!told.stderr.contains("hunter2"), "{}", told.story());
    assert!(!fs::read_to_string(world.log_file()).unwrap().contains("hunter2"));
}

#[test]
fn the_end_of_a_failure_is_told_beside_another_one() {
    let world = World::new("well beside");
    world.app("site").write();
    world.app("lost").source("branch = \"nowhere\"").write();
    world.push(&[("deploy.sh", world.script("exit 3"))], "bad");
    world.poll(&[]).expect(1).says("lost").says("site");
    world.push(&[("deploy.sh", world.script(""))], "good");
    world.poll(&[]).expect(69).says("site: well again; it failed since");
    world.poll(&[]).expect(69).silent();
}

#[test]
fn a_run_that_cannot_begin_leaves_its_closing_line_too() {
    let world = World::new("no begin");
    world.app("site").write();
    let path = world.config_file();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(&format!("\"{}\"", world.fetcher.name), "\"no-such-user\"")).unwrap();
    world.poll(&[]).expect(78).says("no-such-user");
    let last = world.events("run.finished").pop().unwrap();
    assert_eq!((last["exit"].as_i64(), last["outcome"].as_str()), (Some(78), Some("failed")));
    assert!(last["error"].as_str().unwrap().contains("no-such-user"), "{last}");
}
