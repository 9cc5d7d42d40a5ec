//! `poller status`: each state, in a word and a sentence, without asking a server or writing anything.

use std::fs;

use serde_json::Value;

use crate::support::people::Account;
use crate::support::{World, exec, file, seconds, wait_until};

/// What `status --json` says of the one app.
#[track_caller]
fn status(world: &World) -> Value {
    let shown = world.poll(&["status", "site", "--json"]).expect(0);
    assert!(shown.stderr.is_empty(), "{}", shown.story());
    let mut document: Value = serde_json::from_str(&shown.stdout).expect("one JSON document");
    assert_eq!((&document["schema"], &document["host"]), (&1.into(), &"testhost".into()));
    document["apps"][0].take()
}

#[track_caller]
fn expect(world: &World, state: &str, why: &str) -> Value {
    let app = status(world);
    assert_eq!(app["state"], state, "{app:#}");
    assert!(app["why"].as_str().unwrap().contains(why), "{why:?} is not in\n{app:#}");
    world.poll(&["status"]).expect(0).prints(state).prints("site");
    app
}

fn forget_as_a_boot_does(world: &World) {
    fs::remove_dir_all(world.run_dir()).unwrap();
}

/// Without colours, as a screen shows it.
pub fn plain(text: &str) -> String {
    ["\u{1b}[0m", "\u{1b}[2m", "\u{1b}[31m", "\u{1b}[32m"]
        .iter()
        .fold(text.to_owned(), |text, code| text.replace(code, ""))
}

/// A script that notes that it runs and waits for a word from the test.
pub fn waiting(world: &World, before: &str, after: &str) -> crate::support::Content {
    let go = world.notes("go");
    world.script(&format!("{before}\nwhile [ ! -e '{}' ]; do sleep 0.02; done\n{after}", go.display()))
}

pub fn go(world: &World) {
    fs::write(world.notes("go"), "").unwrap();
}

#[test]
fn an_app_that_was_never_polled_is_new_and_after_a_deploy_it_is_ok() {
    let world = World::new("new and ok");
    world.app("site").write();
    let app = expect(&world, "new", "not polled since the boot, and never deployed");
    for key in ["deployed", "previous", "tip", "ref", "since", "last_poll", "failed", "frozen", "running", "error"] {
        assert!(app[key].is_null() && app.as_object().unwrap().contains_key(key), "{key}: {app:#}");
    }
    let first = world.deployed_as_configured();
    let app = expect(&world, "ok", "was deployed in");
    assert_eq!((&app["deployed"], &app["tip"]), (&first.as_str().into(), &first.as_str().into()));
    assert_eq!((&app["ref"], &app["last_poll"]["outcome"]), (&"refs/heads/main".into(), &"deployed".into()));
    assert!(app["since"].is_string() && app["last_poll"]["at"].is_string());
    world.poll(&[]).expect(0);
    expect(&world, "ok", "nothing new: the tip is what is deployed");
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    let app = status(&world);
    assert_eq!((&app["deployed"], &app["previous"]), (&second.as_str().into(), &first.as_str().into()));
}

#[test]
fn the_next_attempt_after_failures_is_told_in_polls_until_the_app_is_broken() {
    let world = World::new("failing");
    world.app("site").deploy("retries = 3").write();
    let first = world.deployed_as_configured();
    let bad = world.push(&[("deploy.sh", exec("#!/bin/sh\nexit 1\n"))], "bad");
    world.poll(&[]).expect(1);
    let app = expect(&world, "failed", "failed attempt 1 of 3");
    assert_eq!((&app["next_attempt_in_polls"], &app["attempts"], &app["retries"]), (&1.into(), &1.into(), &3.into()));
    assert_eq!((&app["failed"]["commit"], &app["deployed"]), (&bad.as_str().into(), &first.as_str().into()));
    world.poll(&[]).expect(1);
    let app = expect(&world, "failed", "the script ./deploy.sh exited with status 1; next attempt in 2 polls");
    assert_eq!(app["next_attempt_in_polls"], 2);
    // It says the truth: this one leaves it alone, the next one tries.
    world.poll(&[]).expect(0);
    assert_eq!(expect(&world, "failed", "next attempt with the next poll")["next_attempt_in_polls"], 1);
    world.poll(&[]).expect(1);
    let app = expect(&world, "broken", "3 of 3 attempts");
    assert!(app["next_attempt_in_polls"].is_null());
    let why = app["why"].as_str().unwrap();
    assert!(why.contains("poller log site") && why.contains("poller retry site"), "{why}");
    forget_as_a_boot_does(&world);
    let app = expect(&world, "broken", "not polled since the boot; 3 of 3 attempts");
    assert!(app["tip"].is_null() && app["last_poll"].is_null(), "{app:#}");
}

#[test]
fn a_frozen_app_says_who_why_and_until_when_and_only_for_that_long() {
    let world = World::new("frozen");
    world.deployed();
    world.poll(&["freeze", "site", "--reason", "audit \u{1b}[2J week", "--for", "2h"]).expect(0);
    let app = expect(&world, "frozen", "audit");
    assert!(app["frozen"]["until"].is_string() && app["frozen"]["by"].is_string(), "{app:#}");
    let shown = world.poll(&["status"]).expect(0);
    assert!(!shown.stdout.contains('\u{1b}'), "{}", shown.stdout);
    forget_as_a_boot_does(&world);
    expect(&world, "frozen", "audit");
    world.poll(&["unfreeze", "site"]).expect(0);
    world.poll(&["freeze", "site", "--reason", "a moment", "--for", "1s"]).expect(0);
    wait_until("the end of the freeze", seconds(20), || status(&world)["state"] == "ok");
    assert!(status(&world)["frozen"].is_null());
}

#[test]
fn a_tip_that_soaks_is_pending_and_says_until_when() {
    let world = World::new("soak");
    world.deployed();
    world.app("site").source("soak = \"1h\"").write();
    let tip = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    let app = expect(&world, "pending", "deployed once it has stood for 1h");
    assert_eq!((&app["tip"], &app["seen"]["tip"]), (&tip.as_str().into(), &tip.as_str().into()));
    forget_as_a_boot_does(&world);
    expect(&world, "pending", "deployed once it has stood for 1h");
}

#[test]
fn a_deploy_that_was_killed_is_interrupted_until_the_next_poll() {
    let world = World::new("interrupted");
    world.deployed();
    let second = world.push(&[("deploy.sh", waiting(&world, "", ""))], "slow");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("deploy.sh");
    running.kill_all();
    let app = expect(&world, "interrupted", "was interrupted (run ");
    assert!(app["why"].as_str().unwrap().contains(&second[..10]), "{app:#}");
    assert!(app["running"].is_null(), "{app:#}");
    forget_as_a_boot_does(&world);
    expect(&world, "interrupted", "the next poll takes it up");
    go(&world);
    world.poll(&[]).expect(0);
    expect(&world, "ok", "was deployed");
}

#[test]
fn a_deploy_that_is_going_on_is_no_interrupted_one() {
    let world = World::new("running");
    world.deployed();
    let second = world.push(&[("deploy.sh", waiting(&world, "", ""))], "slow");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("deploy.sh");
    let app = expect(&world, "pending", "in the stage `deploy`");
    assert_eq!((&app["running"]["pid"], &app["running"]["stage"]), (&running.pid().into(), &"deploy".into()));
    assert_eq!(app["tip"], second.as_str());
    assert!(app["why"].as_str().unwrap().starts_with(&format!("deploying {} now", &second[..10])), "{app:#}");
    go(&world);
    running.wait().expect(0);
    let app = expect(&world, "ok", "was deployed in");
    assert!(app["running"].is_null());
}

#[test]
fn an_app_that_is_done_is_told_as_it_is_while_the_run_is_at_work_for_others() {
    let world = World::new("others");
    world.app("site").write();
    world.app("slow").deploy("script = \"./slow.sh\"").write();
    world.repo.commit(&[("slow.sh", world.script(""))], "before");
    world.deployed_as_configured();
    let second = world.push(&[("slow.sh", waiting(&world, "", "")), ("index.html", file("two\n"))], "slow");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("slow.sh");
    wait_until("the end of the quick one", seconds(20), || world.recorded("site").as_deref() == Some(&second));
    let app = expect(&world, "ok", "was deployed in");
    assert_eq!((&app["tip"], &app["deployed"]), (&second.as_str().into(), &second.as_str().into()));
    // Its output is over too: nothing is waited for.
    world.poll(&["log", "site", "--follow"]).expect(0).says("no deploy of site is going on");
    go(&world);
    running.wait().expect(0);
}

#[test]
fn a_refused_commit_is_told_with_the_reason() {
    let world = World::new("refused");
    let first = world.deployed();
    world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    world.repo.rewind_to(&first);
    let other = world.repo.commit(&[("index.html", file("other\n"))], "other");
    world.repo.force_push();
    world.poll(&[]).expect(77);
    let app = expect(&world, "refused", "is refused since");
    assert_eq!(app["refused"]["commit"], other.as_str());
    forget_as_a_boot_does(&world);
    expect(&world, "refused", "is refused since");
}

#[test]
fn a_server_that_was_away_is_told_and_none_is_asked() {
    let mut world = World::new("unreachable");
    let first = world.deployed();
    world.sshd.stop();
    // Before any poll knows: nothing is asked, so nothing can be missed.
    expect(&world, "ok", "was deployed");
    world.poll(&[]).expect(69);
    let app = expect(&world, "unreachable", "the last poll failed: ");
    assert_eq!((&app["deployed"], &app["last_poll"]["outcome"]), (&first.as_str().into(), &"unreachable".into()));
    world.sshd.restart();
    let mark = world.sshd.mark();
    expect(&world, "unreachable", "the last poll failed: ");
    assert_eq!(world.sshd.connections_since(mark), 0);
}

#[test]
fn a_key_that_is_gone_shows_as_a_wrong_configuration() {
    let world = World::new("key");
    world.deployed();
    fs::remove_file(world.key_file()).unwrap();
    world.poll(&[]).expect(78);
    expect(&world, "config", "keys/deploy");
}

#[test]
fn status_history_and_log_change_nothing_at_all() {
    let world = World::new("nothing");
    world.app("site").write();
    let before = world.hash_of_everything();
    world.poll(&["status"]).expect(0);
    world.poll(&["history", "site"]).expect(0);
    world.poll(&["log", "site"]).expect(64);
    assert_eq!(world.hash_of_everything(), before, "before the first poll");
    world.deployed_as_configured();
    let before = world.hash_of_everything();
    for command in [["status", "--json"], ["history", "site"], ["log", "site"]] {
        world.poll(&command).expect(0);
    }
    assert_eq!(world.hash_of_everything(), before, "after it");
    world.expect_no_processes();
}

#[test]
fn polls_are_never_busy_because_somebody_looks() {
    let world = World::new("look");
    world.deployed();
    for _ in 0..10 {
        let looks: Vec<_> = (0..3).map(|_| world.spawn_poll(&["status"])).collect();
        world.poll(&[]).expect(0).silent();
        looks.into_iter().for_each(|look| drop(look.wait().expect(0)));
    }
}

#[test]
fn broken_files_and_broken_journals_are_rows_and_decide_the_exit_status() {
    let world = World::new("broken rows");
    world.deployed();
    world.app("other").source("branch = \"main\"").write_file_only();
    fs::write(world.path("etc/apps.d/other.toml"), "[source]\nbrunch = \"main\"\n").unwrap();
    let shown = world.poll(&["status"]).expect(78).prints("ok").prints("config");
    assert!(shown.stdout.contains("other.toml:2"), "{}", shown.story());
    world.poll(&["status", "site"]).expect(0);
    fs::write(world.repositories()[0].join("refs/poller/site"), "rubbish\n").unwrap();
    world.poll(&["status", "site"]).expect(74).prints("unreadable").prints("go back to the newest entry");
    let shown = world.poll(&["status", "--json"]).expect(78);
    let document: Value = serde_json::from_str(&shown.stdout).unwrap();
    let states: Vec<&str> = document["apps"].as_array().unwrap().iter().map(|a| a["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["config", "unreadable"]);
    assert!(document["apps"][1]["error"]["help"].is_array());
}

#[test]
fn apps_of_other_hosts_are_left_out_unless_they_are_named() {
    let world = World::new("elsewhere");
    world.deployed();
    world.app("far").source("hosts = [\"far-*\"]").write();
    let shown = world.poll(&["status"]).expect(0);
    assert!(!shown.stdout.contains("far") && shown.stderr.is_empty(), "{}", shown.story());
    world.poll(&["status", "far"]).expect(0).prints("elsewhere").prints("not for this host (testhost)");
    fs::remove_file(world.path("etc/apps.d/site.toml")).unwrap();
    world.poll(&["status"]).expect(0).says("no app is for this host (testhost)");
}

#[test]
fn a_mistyped_app_and_a_folder_without_any_are_told() {
    let world = World::new("mistyped");
    world.poll(&["status"]).expect(0).says("there are no apps in").says("poller init");
    world.deployed();
    world.poll(&["status", "siet"]).expect(64).says("did you mean `site`?");
}

#[test]
fn a_stranger_is_sent_to_sudo_in_one_sentence() {
    needs_root!();
    use std::os::unix::process::CommandExt;
    let world = World::new("stranger");
    world.deployed();
    let stranger = Account::make(&world.root, "s");
    for words in [vec!["status"], vec!["history", "site"], vec!["log", "site"]] {
        let mut command = world.command(&words);
        command.uid(stranger.uid).gid(stranger.gid);
        let outcome = world.spawn(command).wait().expect(77);
        assert_eq!(outcome.stderr.lines().count(), 2, "{}", outcome.story());
        outcome.says("not allowed").says(&format!("as root: sudo poller {}", words.join(" ")));
    }
    stranger.remove();
}

#[test]
fn the_screens_of_status() {
    needs_root!();
    let world = World::new("screens");
    world.deployed();
    world.poll(&[]).expect(0);
    let shown = world.poll_on_terminal(&["status"]).expect(0);
    assert!(shown.stderr.contains("\u{1b}[32m"), "coloured on a terminal");
    world.screen("status-terminal", "poller status", &plain(&shown.stderr));
    let shown = world.poll(&["status", "--json"]).expect(0);
    world.screen("status-json", "poller status --json", &shown.stdout);
}

#[test]
fn the_screen_of_status_on_a_bad_day() {
    needs_root!();
    let mut world = World::new("bad day");
    let app = |name: &str| world.app(name).deploy(&format!("script = \"./{name}.sh\""));
    app("shop").write();
    app("blog").write();
    app("docs").deploy("retries = 1").write();
    app("wiki").write();
    let good = |note: &str| {
        [
            ("shop.sh", world.script("")),
            ("blog.sh", world.script("")),
            ("docs.sh", world.script("")),
            ("wiki.sh", world.script(note)),
        ]
    };
    world.push(&good("# one"), "first");
    world.poll(&[]).expect(0);
    world.poll(&["freeze", "wiki", "--reason", "the auditors look at it"]).expect(0);
    let bad = || exec("#!/bin/sh\necho 'relation \"orders\" does not exist' >&2\nexit 3\n");
    world.push(&[("blog.sh", bad()), ("docs.sh", bad())], "second");
    world.poll(&[]).expect(1);
    world.poll(&[]).expect(1);
    world.sshd.stop();
    fs::write(
        world.path("etc/apps.d/beta.toml"),
        "[source]\nurl = \"git@git.example.org:beta.git\"\nbrunch = \"main\"\n",
    )
    .unwrap();
    let shown = world.poll_on_terminal(&["status"]).expect(78);
    world.screen("status-failing", "poller status", &plain(&shown.stderr));
}
