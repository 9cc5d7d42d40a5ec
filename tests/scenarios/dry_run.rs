//! `--dry-run` shows what a poll would do, and leaves every folder as it was.

use crate::support::{World, exec, file};

#[test]
fn a_dry_run_shows_commits_files_verdict_and_command() {
    let world = World::new("shows");
    let first = world.deployed();
    world.push(&[("index.html", file("two\n"))], "Change the front page");
    let tip = world.push(&[("new.html", file("new\n"))], "Add a page");
    let shown = world.poll(&["--dry-run"]).expect(0);
    for word in [
        "site",
        &first[..7],
        &tip[..7],
        "Change the front page",
        "Add a page",
        "Ada Author",
        "index.html",
        "new.html",
        "./deploy.sh",
        "30s",
        world.deployer.name.as_str(),
    ] {
        assert!(shown.stdout.contains(word), "{word:?} is not in\n{}", shown.stdout);
    }
    assert!(shown.stderr.is_empty(), "{}", shown.story());
    assert!(!shown.stdout.contains("first"), "what is deployed already is not news\n{}", shown.stdout);
}

#[test]
fn a_dry_run_changes_nothing_when_there_is_something_new() {
    let world = World::new("changes nothing");
    let first = world.deployed();
    world.push(&[("index.html", file("two\n"))], "second");
    let before = world.hash_of_everything();
    world.poll(&["-n"]).expect(0);
    assert_eq!(world.hash_of_everything(), before);
    world.expect_live("site", &first);
    assert_eq!(world.ran().len(), 1);
    world.expect_no_leftovers("site");
    world.expect_no_processes();
    // What it fetched went to a folder of the fetch user's, outside of all of poller's.
    let left: Vec<_> = std::fs::read_dir("/tmp").unwrap().flatten().filter(|e| is_quarantine_of(&world, e)).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn is_quarantine_of(world: &World, entry: &std::fs::DirEntry) -> bool {
    use std::os::unix::fs::MetadataExt;
    let is_one = entry.file_name().to_string_lossy().starts_with("poller-dry-run-");
    // Other tests have their own at the same time; as an ordinary user they cannot be told apart.
    is_one && nix::unistd::Uid::effective().is_root() && entry.metadata().is_ok_and(|m| m.uid() == world.fetcher.uid)
}

#[test]
fn a_dry_run_changes_nothing_when_nothing_is_new() {
    let world = World::new("nothing new");
    world.deployed();
    let before = world.hash_of_everything();
    world.poll(&["-n"]).expect(0).prints("site");
    assert_eq!(world.hash_of_everything(), before);
}

#[test]
fn a_dry_run_before_the_first_deploy_makes_no_folder() {
    let world = World::new("before first");
    world.app("site").write();
    let tip = world.push(&[("deploy.sh", world.script(""))], "The very first");
    let before = world.hash_of_everything();
    world.poll(&["-n"]).expect(0).prints(&tip[..7]).prints("The very first").prints("new");
    assert_eq!(world.hash_of_everything(), before);
    world.poll(&[]).expect(0);
    world.expect_live("site", &tip);
}

#[test]
fn a_dry_run_changes_nothing_in_place_either() {
    let world = World::new("in place");
    world.app("site").in_place().write();
    world.deployed_as_configured();
    world.push(&[("index.html", file("two\n"))], "second");
    let before = world.hash_of_everything();
    world.poll(&["-n"]).expect(0).prints("index.html");
    assert_eq!(world.hash_of_everything(), before);
}

#[test]
fn a_dry_run_of_a_rewritten_history_says_it_would_be_refused() {
    let world = World::new("refused");
    let first = world.deployed();
    world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    world.repo.rewind_to(&first);
    let other = world.repo.commit(&[("index.html", file("other\n"))], "other");
    world.repo.force_push();
    let before = world.hash_of_everything();
    let shown = world.poll(&["-n"]);
    assert!(shown.stdout.contains("refused"), "{}", shown.story());
    assert!(shown.stdout.contains(&other[..7]), "{}", shown.story());
    assert_eq!(world.hash_of_everything(), before);
}

#[test]
fn a_dry_run_of_a_failing_app_changes_nothing() {
    let world = World::new("failing");
    world.app("site").deploy("retries = 2").write();
    world.deployed_as_configured();
    world.push(&[("deploy.sh", exec("#!/bin/sh\nexit 1\n"))], "bad");
    world.poll(&[]).expect(1);
    let before = world.hash_of_everything();
    world.poll(&["-n"]).expect(0).prints("failed");
    assert_eq!(world.hash_of_everything(), before);
}

#[test]
fn a_dry_run_that_cannot_reach_the_server_says_so_by_its_status() {
    let mut world = World::new("unreachable");
    world.deployed();
    world.sshd.stop();
    let before = world.hash_of_everything();
    world.poll(&["-n"]).expect(69);
    assert_eq!(world.hash_of_everything(), before);
    world.sshd.restart();
}

#[test]
fn a_dry_run_beside_a_deploy_waits_for_nobody_and_harms_nobody() {
    let world = World::new("beside");
    world.app("site").write();
    world.deployed_as_configured();
    let second = world.push(&[("deploy.sh", world.script("sleep 2"))], "slow");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("sleep 2");
    world.poll(&["-n"]).expect_one_of(&[0, 75]);
    running.wait().expect(0);
    world.expect_live("site", &second);
}

#[test]
fn json_of_a_dry_run_has_the_commits_as_data() {
    let world = World::new("json");
    world.deployed();
    let tip = world.push(&[("index.html", file("two\n"))], "Quote \" and \u{1b}[31m red");
    let shown = world.poll(&["-n", "--json"]).expect(0);
    let value: serde_json::Value = serde_json::from_str(&shown.stdout).expect("JSON");
    let text = value.to_string();
    assert!(text.contains(&tip) && text.contains("site"), "{text}");
    assert!(!shown.stdout.contains('\u{1b}'));
}
