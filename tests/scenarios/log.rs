//! `poller log`: what the commands of a run said, as it was and as it comes.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::status::{go, waiting};
use crate::support::mischief::{Mood, Proxy};
use crate::support::{World, exec, file, seconds, wait_until};

fn newest_id(world: &World) -> String {
    world.journal("site")[0].text("id").to_owned()
}

fn deploys(world: &World, script: &str) -> String {
    world.push(&[("deploy.sh", world.script(script))], "another");
    world.poll(&[]).expect_one_of(&[0, 1]);
    newest_id(world)
}

fn document(text: &str) -> Value {
    serde_json::from_str(text).expect("one JSON document")
}

#[test]
fn the_newest_output_is_shown_as_it_was_below_what_run_it_is() {
    let world = World::new("newest");
    let first = world.deployed();
    let id = deploys(&world, "echo one\necho '  two  three'\necho gr\u{fc}n");
    // A run without a word does not hide it.
    world.poll(&["freeze", "site", "--reason", "audit"]).expect(0);
    let shown = world.poll(&["log", "site"]).expect(0);
    assert!(shown.stderr.is_empty(), "{}", shown.story());
    let (header, output) = shown.stdout.split_once("\n\n").expect("a header");
    assert_eq!(output, "one\n  two  three\ngr\u{fc}n\n");
    for word in [id.as_str(), "deployed after", &first[..10], "refs/heads/main"] {
        assert!(header.contains(word), "{word} is not in\n{header}");
    }
    let shown = world.poll(&["log", "site", "--json"]).expect(0);
    let log = document(&shown.stdout);
    assert_eq!((&log["schema"], &log["app"], &log["run"]), (&1.into(), &"site".into(), &id.as_str().into()));
    assert_eq!((&log["output"], &log["outcome"]), (&"one\n  two  three\ngr\u{fc}n\n".into(), &"deployed".into()));
}

#[test]
fn escape_codes_of_a_script_are_shown_and_not_obeyed() {
    let world = World::new("escapes");
    world.deployed();
    deploys(&world, "printf '\\033[2J\\033]0;title\\007 red\\r\\n\\302\\233 31m \\377\\n'");
    for words in [vec!["log", "site"], vec!["log", "site", "--json"], vec!["history", "site"], vec!["status"]] {
        let shown = world.poll(&words).expect(0);
        let bad = shown.stdout.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(bad, None, "{words:?}\n{}", shown.stdout.escape_debug());
    }
    world.poll(&["log", "site"]).expect(0).prints("\\u{1b}[2J");
    let log = document(&world.poll(&["log", "site", "--json"]).expect(0).stdout);
    assert!(log["output"].as_str().unwrap().starts_with("\u{1b}[2J"), "as data it is what it was");
}

#[test]
fn a_run_is_found_by_a_beginning_that_no_other_has() {
    let world = World::new("beginnings");
    world.deployed();
    let first = newest_id(&world);
    let one = deploys(&world, "echo one");
    let two = deploys(&world, "echo two; exit 3");
    world.poll(&["log", "site", &one]).expect(0).prints("one");
    world.poll(&["log", "site", &two.to_uppercase()]).expect(0).prints("two").prints("exit status 3");
    let shared = |other: &str| one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let common = shared(&two);
    world.poll(&["log", "site", &one[..=common.max(shared(&first))]]).expect(0).prints("one");
    for ambiguous in [&one[..common], ""] {
        let shown = world.poll(&["log", "site", ambiguous]).expect(64).says("more than one run").says(&one).says(&two);
        assert!(shown.stdout.is_empty(), "{}", shown.story());
    }
    world.poll(&["log", "site", "nonsense\u{1b}[2J"]).expect(64).says("no run `nonsense\\u{1b}[2j`").says(&two);
}

#[test]
fn a_run_that_said_nothing_says_so() {
    let world = World::new("nothing");
    world.app("site").write();
    world.poll(&["log", "site"]).expect(64).says("never deployed");
    world.deployed_as_configured();
    let id = newest_id(&world);
    for words in [vec!["log", "site"], vec!["log", "site", &id]] {
        let shown = world.poll(&words).expect(0).says("said nothing").prints(&id);
        assert!(shown.stdout.ends_with("\n\n"), "{}", shown.stdout);
    }
    world.poll(&["log", "siet"]).expect(64).says("did you mean `site`?");
}

#[test]
fn a_running_deploy_is_followed_line_by_line_to_its_end() {
    let world = World::new("follow");
    world.deployed();
    world.push(&[("deploy.sh", waiting(&world, "echo one", "echo two"))], "slow");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("deploy.sh");
    wait_until("the first line in the log", seconds(20), || !world.events("deploy.output").is_empty());
    let so_far =
        world.poll(&["log", "site"]).expect(0).prints("running").prints("one\n").says("poller log site --follow");
    assert!(!so_far.stdout.contains("two"));
    let so_far = document(&world.poll(&["log", "site", "--json"]).expect(0).stdout);
    assert_eq!((&so_far["outcome"], &so_far["output"]), (&"running".into(), &"one\n".into()));

    let following = world.spawn_poll(&["log", "site", "--follow"]);
    let quiet = world.spawn_poll(&["log", "site", "--follow", "--json"]);
    wait_until("the first line", seconds(20), || following.printed().contains("one\n"));
    assert!(!following.printed().contains("two"));
    go(&world);
    running.wait().expect(0);
    let shown = following.wait().expect(0).says("site: deployed").within(seconds(60));
    assert!(shown.stdout.ends_with("\n\none\ntwo\n"), "{}", shown.story());
    let log = document(&quiet.wait().expect(0).stdout);
    assert_eq!((&log["outcome"], &log["output"]), (&"deployed".into(), &"one\ntwo\n".into()));
}

#[test]
fn following_a_deploy_that_fails_ends_with_1_though_the_log_is_rotated_meanwhile() {
    let world = World::new("fails");
    world.deployed();
    world.push(&[("deploy.sh", waiting(&world, "echo one", "echo two; exit 3"))], "slow");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("deploy.sh");
    let early = world.spawn_poll(&["log", "site", "--follow"]);
    wait_until("the first line", seconds(20), || early.printed().contains("one\n"));
    let rotated = world.log_file().with_file_name("poller.log.1");
    fs::rename(world.log_file(), &rotated).unwrap();
    let late = world.spawn_poll(&["log", "site", "--follow"]);
    wait_until("the first line", seconds(20), || late.printed().contains("one\n"));
    go(&world);
    running.wait().expect(1);
    for following in [early, late] {
        let shown = following.wait().expect(1).says("failed: the script ./deploy.sh exited with status 3");
        assert!(shown.stdout.contains("\none\ntwo\n"), "{}", shown.story());
    }
}

/// The watch meets the run before its deploy begins, and looks again when that is over.
#[test]
fn a_deploy_that_fails_between_two_looks_of_a_watch_ends_it_with_1_all_the_same() {
    needs_program!("ssh");
    let world = World::new("between");
    let ssh = world.path("ssh");
    fs::create_dir(&ssh).unwrap();
    let texts = [("key", fs::read_to_string(world.key_file()).unwrap()), ("hosts", world.sshd.known_hosts_line())];
    for (name, text) in texts {
        fs::write(ssh.join(name), text).unwrap();
        crate::support::set_mode(&ssh.join(name), 0o600);
        world.fetcher.own(&ssh.join(name));
    }
    let (shown, hold) = (ssh.display(), ssh.join("hold"));
    let options = format!("-F /dev/null -o BatchMode=yes -i {shown}/key -o UserKnownHostsFile={shown}/hosts");
    let wait = format!("while [ -e {} ]; do sleep 0.02; done", hold.display());
    let command = format!("/bin/sh -c '{wait}; exec ssh {options} \"$@\"' ssh");
    world.app("site").without("source.identity").source(&format!("ssh_command = {command:?}")).write();
    world.deployed_as_configured();
    world.push(&[("deploy.sh", world.script("echo one; exit 3"))], "bad");
    fs::write(&hold, "").unwrap();
    let running = world.spawn_poll(&[]);
    wait_until("a poll that waits for its server", seconds(20), || {
        world.poll(&["status"]).expect(0).stdout.contains("in the stage `probe`")
    });
    let watches = ["--follow", "-f"].map(|follow| world.spawn_poll(&["log", "site", follow, "--json"]));
    wait_until("watches that look", seconds(20), || watches.iter().all(|watch| asleep(watch.pid())));
    watches.iter().for_each(|watch| watch.signal(Signal::SIGSTOP));
    fs::remove_file(&hold).unwrap();
    running.wait().expect(1);
    watches.iter().for_each(|watch| watch.signal(Signal::SIGCONT));
    for watch in watches {
        let log = document(&watch.wait().expect(1).stdout);
        assert_eq!((&log["outcome"], &log["output"]), (&"failed".into(), &"one\n".into()));
    }
}

/// Between two looks: a watch keeps no file but the log open while it sleeps.
fn asleep(pid: i32) -> bool {
    let wait = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    wait.split(' ').next() == Some(&nix::libc::SYS_clock_nanosleep.to_string())
}

#[test]
fn following_a_deploy_that_is_killed_ends_too() {
    let world = World::new("killed");
    world.deployed();
    world.push(&[("deploy.sh", waiting(&world, "echo one", ""))], "slow");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("deploy.sh");
    let following = world.spawn_poll(&["log", "site", "--follow"]);
    wait_until("the first line", seconds(20), || following.printed().contains("one\n"));
    running.kill_all();
    following.wait().expect(1).says("was killed; the next poll takes it up");
}

#[test]
fn an_interrupt_ends_the_watch_quietly_and_not_the_deploy() {
    let world = World::new("interrupt");
    world.deployed();
    let tip = world.push(&[("deploy.sh", waiting(&world, "echo one", ""))], "slow");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("deploy.sh");
    let following = world.spawn_poll(&["log", "site", "--follow"]);
    wait_until("the first line", seconds(20), || following.printed().contains("one\n"));
    following.signal(Signal::SIGINT);
    let shown = following.wait().expect(130);
    assert!(shown.stderr.is_empty(), "{}", shown.story());
    go(&world);
    running.wait().expect(0);
    world.expect_live("site", &tip);
}

#[test]
fn with_nothing_to_follow_the_newest_is_shown() {
    let world = World::new("none runs");
    world.deployed();
    deploys(&world, "echo one");
    world.poll(&["log", "site", "--follow"]).expect(0).prints("one\n").says("no deploy of site is going on");
}

#[test]
fn another_run_is_shown_while_one_is_going_on() {
    let world = World::new("another");
    world.deployed();
    let former = deploys(&world, "echo former");
    world.push(&[("deploy.sh", waiting(&world, "echo one", "")), ("x", file("x"))], "slow");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("deploy.sh");
    let shown = world.poll(&["log", "site", &former, "--follow"]).expect(0).prints("former");
    assert!(!shown.stdout.contains("one"), "{}", shown.story());
    let live = world.poll(&["log", "site", &newest_id(&world)]).expect(0).prints("running");
    assert!(live.stdout.ends_with("\n\none\n"), "{}", live.story());
    go(&world);
    running.wait().expect(0);
}

#[test]
fn a_poll_that_deploys_nothing_is_waited_for_and_then_the_newest_is_shown() {
    let world = World::new("in vain");
    let proxy = Proxy::before(world.sshd.port);
    world.write_etc("known_hosts", &world.sshd.known_hosts_line_for(proxy.port));
    let url = world.sshd.url_by_port(proxy.port, &world.repo.bare);
    world.app("site").source(&format!("url = \"{url}\"\ntimeout = \"3s\"")).write();
    world.deployed_as_configured();
    deploys(&world, "echo one");
    proxy.set(Mood::Stalls, 0);
    let running = world.spawn_poll(&[]);
    wait_until("a poll that waits for its server", seconds(20), || proxy.struck() > 0);
    world.poll(&["status"]).expect(0).prints("a run is at it now, in the stage `probe`");
    world.poll(&["log", "site"]).expect(0).prints("one\n");
    world.poll(&["log", "site", "--follow"]).expect(0).prints("one\n").says("no deploy of site is going on");
    running.wait().expect(69);
}

#[test]
fn the_screens_of_log() {
    needs_root!();
    let world = World::new("screens");
    world.deployed();
    let migrate = "echo 'Applying shop.0042_orders... OK'\necho 'Collecting static files: 3 copied.'";
    world.push(&[("deploy.sh", world.script(migrate))], "good");
    world.poll(&[]).expect(0);
    let shown = world.poll_on_terminal(&["log", "site"]).expect(0);
    world.screen("log-terminal", "poller log site", &shown.stderr);
    world.push(&[("deploy.sh", exec("#!/bin/sh\necho 'relation \"orders\" does not exist' >&2\nexit 3\n"))], "bad");
    world.poll(&[]).expect(1);
    let shown = world.poll(&["log", "site", "--json"]).expect(0);
    world.screen("log-json", "poller log site --json", &super::history::with_settled_stages(&shown.stdout));
    let shown = world.poll_on_terminal(&["log", "site", "0badc0de"]).expect(64);
    world.screen("log-unknown-run", "poller log site 0badc0de", &shown.stderr);
}
