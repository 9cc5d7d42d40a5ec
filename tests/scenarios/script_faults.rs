//! Scripts that go wrong, each in its own way: recorded as such, `current` back where it was, nothing left.

use std::time::Duration;

use crate::support::{Content, World, exec, file, gone, seconds};

/// Deploys well once, then pushes `script` and polls. Afterwards the first commit is live again.
#[track_caller]
fn after_good(name: &str, deploy: &str, script: impl Fn(&World) -> Content) -> (World, crate::support::run::Outcome) {
    let world = World::new(name);
    world.app("site").deploy("on_failure = \"restore\"").deploy(deploy).write();
    let first = world.deployed_as_configured();
    let bad = world.push(&[("deploy.sh", script(&world)), ("index.html", file("bad\n"))], "bad");
    let outcome = world.poll(&[]).expect(1);
    world.expect_live("site", &first);
    assert_eq!(world.recorded("site"), Some(first));
    let entry = &world.journal("site")[0];
    assert_eq!((entry.outcome(), entry.to()), ("failed", bad.as_str()));
    assert!(!world.log().is_empty());
    world.expect_no_leftovers("site");
    world.expect_no_processes();
    (world, outcome)
}

#[test]
fn a_script_that_is_not_in_the_commit() {
    let (_, outcome) = after_good("missing", "", |_| gone());
    assert!(outcome.stderr.contains("deploy.sh"), "{}", outcome.story());
}

#[test]
fn a_script_that_is_not_executable() {
    let (_, outcome) = after_good("not executable", "", |_| file("#!/bin/sh\n"));
    assert!(outcome.stderr.contains("deploy.sh"), "{}", outcome.story());
}

#[test]
fn a_script_whose_interpreter_is_not_there() {
    after_good("interpreter", "", |_| exec("#!/no/such/interpreter\n"));
}

#[test]
fn a_script_that_exits_with_1_is_shown_with_the_end_of_its_output() {
    let (world, outcome) = after_good("exit 1", "", |w| w.script("echo the reason >&2; exit 1"));
    assert!(outcome.stderr.contains("the reason"), "{}", outcome.story());
    let output = world.journal("site")[0].output.clone();
    assert!(String::from_utf8_lossy(&output).contains("the reason"));
}

#[test]
fn a_script_that_dies_by_a_signal() {
    let (_, outcome) = after_good("signal", "", |w| w.script("kill -SEGV $$"));
    let said = outcome.stderr.to_lowercase();
    assert!(said.contains("signal") || said.contains("sigsegv"), "{}", outcome.story());
}

#[test]
fn a_script_that_runs_past_its_limit() {
    let (_, outcome) = after_good("limit", "timeout = \"1s\"", |w| w.script("sleep 1000"));
    outcome.within(seconds(10)).says("1s");
}

#[test]
fn a_script_that_ignores_term() {
    let script = "trap '' TERM INT HUP\nwhile :; do sleep 0.1; done";
    let (_, outcome) = after_good("ignores", "timeout = \"1s\"", |w| w.script(script));
    outcome.within(seconds(30));
}

#[test]
fn a_script_that_gets_term_at_its_limit_can_tidy_up() {
    let (world, _) = after_good("tidy", "timeout = \"1s\"", |w| {
        let note = w.notes("tidied");
        w.script(&format!("trap 'echo done > \"{}\"; exit 9' TERM\nwhile :; do sleep 0.1; done", note.display()))
    });
    assert_eq!(world.note("tidied"), "done\n");
}

#[test]
fn children_in_sessions_of_their_own_do_not_outlive_the_limit() {
    let script = "setsid sh -c 'trap \"\" TERM; sleep 1000' &\n\
         setsid -f sh -c 'setsid -f sleep 1001'\n(sleep 1002 &)\nsleep 1003";
    after_good("sessions", "timeout = \"1s\"", |w| w.script(script));
}

#[test]
fn a_child_left_behind_is_ended_and_the_deploy_counts_as_failed() {
    after_good("left", "", |w| w.script("setsid sleep 1000 > /dev/null 2>&1 &\nexit 0"));
}

#[test]
fn a_child_that_holds_the_output_open_does_not_hold_up_the_run() {
    let (_, outcome) = after_good("holds", "", |w| w.script("setsid -f sleep 1000\nexit 0"));
    outcome.within(seconds(20));
}

#[test]
fn a_child_that_is_nearly_done_is_not_held_against_the_script() {
    // A pipeline's last writer may end a moment after the shell that started it.
    let world = World::new("nearly done");
    world.app("site").write();
    world.push(&[("deploy.sh", world.script("echo hello | cat | cat"))], "first");
    for _ in 0..5 {
        world.poll(&[]).expect(0);
        world.push(&[("index.html", file(crate::support::random_word()))], "next");
    }
}

#[test]
fn exit_75_means_not_now_and_does_not_count() {
    let world = World::new("not now");
    world.app("site").deploy("retries = 2").write();
    let first = world.deployed_as_configured();
    let flag = world.notes("ready");
    let script = world.script(&format!("test -e '{}' || exit 75", flag.display()));
    let second = world.push(&[("deploy.sh", script)], "busy");
    for _ in 0..4 {
        world.poll(&[]).expect(0).silent();
        world.expect_live("site", &first);
    }
    std::fs::write(&flag, "").unwrap();
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
    assert_eq!(world.recorded("site"), Some(second));
}

#[test]
fn a_gigabyte_of_output_is_counted_and_not_kept() {
    let script = "echo the very first line\n\
         yes 'all work and no play makes a dull deploy, and so on for about a hundred characters in a line, well' \
         | head -c 1000000000\necho\necho the very last line\nexit 1";
    let (world, outcome) = after_good("gigabyte", "timeout = \"110s\"", |w| w.script(script));
    assert!(outcome.stderr.contains("the very last line"), "{}", outcome.story());
    assert!(outcome.stderr.len() < 100_000);
    let output = world.journal("site")[0].output.clone();
    let text = String::from_utf8_lossy(&output);
    assert!(text.contains("the very first line") && text.contains("the very last line"));
    assert!(output.len() < 4_000_000, "{} bytes kept", output.len());
    let log = std::fs::metadata(world.log_file()).unwrap().len();
    assert!(log < 16_000_000, "a log of {log} bytes");
}

#[test]
fn one_endless_line_is_bounded_too() {
    let script = "head -c 50000000 /dev/zero | tr '\\0' x\necho\necho after it\nexit 1";
    let (world, outcome) = after_good("endless line", "timeout = \"60s\"", |w| w.script(script));
    assert!(outcome.stderr.contains("after it"));
    assert!(world.journal("site")[0].output.len() < 4_000_000);
    assert!(std::fs::metadata(world.log_file()).unwrap().len() < 16_000_000);
}

#[test]
fn escape_codes_and_invalid_utf8_are_data() {
    let script = r#"printf '\033]0;owned\007\033[2J red \033[31m\n'
printf 'half \377\376 a \303( line\n'
printf '{"event":"deploy.finished","outcome":"deployed"}\n'
printf 'carriage\rreturn and nul \000 end\n'
printf '\302\233 c1 \342\200\256 turned around\n'
printf 'no newline at the end'
exit 1"#;
    let (world, outcome) = after_good("escapes", "", |w| w.script(script));
    assert!(!outcome.stderr.contains('\u{1b}') && !outcome.stderr.contains('\u{9b}'), "{:?}", outcome.stderr);
    assert!(!outcome.stderr.contains('\u{7}') && !outcome.stderr.contains('\r'));
    for line in std::fs::read(world.log_file()).unwrap().split(|byte| *byte == b'\n') {
        assert!(line.iter().all(|byte| *byte >= 0x20), "a control character: {line:?}");
    }
    let forged = |line: &serde_json::Value| line["event"] == "deploy.finished" && line["run"].is_null();
    assert!(!world.log().iter().any(forged));
    assert!(world.log().iter().any(|line| line.to_string().contains("no newline at the end")));
    let shown = world.poll_on_terminal(&[]);
    assert!(!shown.stderr.contains("\u{1b}]0;owned"), "{:?}", shown.stderr);
    assert!(!shown.stderr.contains("\u{1b}[2J"), "{:?}", shown.stderr);
}

#[test]
fn what_a_commit_says_is_data_too() {
    let world = World::new("evil subject");
    let first = world.deployed();
    let subject = "\u{1b}[2Jgone\u{7} {\"event\":\"x\"} \u{202e}";
    world.push(&[("deploy.sh", world.script("exit 1"))], subject);
    let outcome = world.poll(&[]).expect(1);
    assert!(!outcome.stderr.contains('\u{1b}'));
    assert!(!world.log().is_empty());
    let shown = world.poll(&["--dry-run"]);
    assert!(!shown.stdout.contains('\u{1b}') && !shown.stdout.contains('\u{7}'), "{:?}", shown.stdout);
    world.expect_live("site", &first);
}

#[test]
fn the_limit_stands_over_the_build_too() {
    let world = World::new("slow build");
    let app = world.app("site").deploy("build = \"./build.sh\"\ntimeout = \"1s\"");
    app.write();
    world.push(&[("deploy.sh", world.script("")), ("build.sh", exec("#!/bin/sh\nsleep 1000\n"))], "first");
    let outcome = world.poll(&[]).expect(1);
    assert!(outcome.took < Duration::from_secs(15));
    assert!(world.ran().is_empty() && world.current("site").is_none());
    world.expect_no_processes();
}

#[test]
fn exit_75_of_a_script_that_was_ended_is_a_failure() {
    let script = "trap 'exit 75' TERM\nwhile :; do sleep 0.1; done";
    after_good("ended with 75", "timeout = \"1s\"", |w| w.script(script));
}
