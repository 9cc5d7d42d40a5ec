//! Going back by hand: without network, with the script, and frozen until somebody lifts it.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::{World, exec, file, seconds, wait_until};

/// Three good deploys.
fn three(world: &World) -> [String; 3] {
    let first = world.deployed();
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    let third = world.push(&[("index.html", file("three\n"))], "third");
    world.poll(&[]).expect(0);
    [first, second, third]
}

#[test]
fn with_the_network_down_it_goes_back_runs_the_script_and_stays_there() {
    needs_root!();
    let mut world = World::new("rollback");
    let [_, second, third] = three(&world);
    world.sshd.stop();
    let back = world.poll(&["rollback", "site", "--reason", "orders are lost"]).expect(0);
    world.screen("rollback-terminal", "poller rollback site --reason 'orders are lost'", &back.stdout);
    world.expect_live("site", &second);
    assert_eq!(world.ran().last(), Some(&("rollback".to_owned(), second.clone())));
    assert_eq!(world.note("ran").lines().count(), 4);
    world.sshd.restart();
    // The tip is still the third: the next polls leave it alone.
    for _ in 0..2 {
        world.poll(&[]).expect(0).silent();
    }
    world.expect_live("site", &second);
    let entry = &world.journal("site")[0];
    assert_eq!((entry.kind(), entry.outcome(), entry.to()), ("rollback", "deployed", second.as_str()));
    let reason = entry.state["frozen"]["reason"].as_str().unwrap();
    assert!(reason.contains(&third[..10]) && reason.contains("orders are lost"), "{reason}");
    world.expect_no_leftovers("site");
    world.poll(&["unfreeze", "site"]).expect(0);
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &third);
}

#[test]
fn a_second_rollback_goes_further_back_and_not_to_what_was_left() {
    let world = World::new("rollback twice");
    let [first, second, _] = three(&world);
    world.poll(&["rollback", "site"]).expect(0);
    world.expect_live("site", &second);
    world.poll(&["rollback", "site"]).expect(0);
    world.expect_live("site", &first);
    let end = world.poll(&["rollback", "site"]).expect(64);
    world.screen("rollback-nothing-earlier", "poller rollback site", &end.stderr);
    world.expect_live("site", &first);
}

#[test]
fn a_commit_can_be_named_by_its_beginning() {
    needs_root!();
    let world = World::new("rollback named");
    let [first, second, third] = three(&world);
    let unknown = world.poll(&["rollback", "site", "0123456"]).expect(64);
    world.screen("rollback-unknown", "poller rollback site 0123456", &unknown.stderr);
    world.poll(&["rollback", "site", "HEAD~1"]).expect(64).says("not the name of a commit");
    world.poll(&["rollback", "site", &third[..12]]).expect(64).says("is what is deployed");
    let pushed_only = world.push(&[("index.html", file("four\n"))], "never deployed");
    world.poll(&["rollback", "site", &pushed_only]).expect(64).says("never deployed well");
    world.expect_live("site", &third);
    let back = world.poll(&["rollback", "site", &first[..8], "--json"]).expect(0);
    world.screen("rollback-json", "poller rollback site 8f414716 --json", &back.stdout);
    world.expect_live("site", &first);
    assert_ne!(first, second);
}

#[test]
fn a_release_that_was_retired_is_written_and_built_anew_from_the_repository() {
    let mut world = World::new("rollback retired");
    world.app("site").target("keep = 1").deploy("build = \"./build.sh\"").write();
    world.repo.commit(&[("build.sh", exec("#!/bin/sh\ncp index.html built\n"))], "build");
    let first = world.deployed_as_configured();
    for text in ["two\n", "three\n", "four\n"] {
        world.push(&[("index.html", file(text))], text);
        world.poll(&[]).expect(0);
    }
    assert!(world.releases("site").iter().all(|name| !name.ends_with(&first)), "it was retired");
    world.sshd.stop();
    world.poll(&["rollback", "site", &first]).expect(0);
    assert_eq!(world.live_text("site", "built").as_deref(), Some("one\n"));
    assert_eq!(world.revision("site"), Some(first));
}

#[test]
fn a_release_that_could_not_be_removed_whole_is_not_gone_back_to() {
    needs_root!();
    let world = World::new("half a release");
    world.app("site").target("keep = 1").write();
    let first = world.deployed_as_configured();
    // Somebody else's, as a service leaves it that caches beside its code.
    let cache = world.target("site").join(world.current("site").unwrap()).join("cache");
    fs::create_dir(&cache).unwrap();
    fs::write(cache.join("entry"), "").unwrap();
    for text in ["two\n", "three\n", "four\n"] {
        world.push(&[("index.html", file(text))], text);
        world.poll(&[]).expect(0).silent();
    }
    let left = || world.releases("site").into_iter().filter(|name| name.contains(&first)).collect::<Vec<_>>();
    assert!(matches!(left().as_slice(), [name] if name.ends_with(".gone")), "{:?}", left());
    world.poll(&["rollback", "site", &first]).expect(0);
    world.expect_live("site", &first);
    // What keeps it from going is gone.
    let gone = left().into_iter().find(|name| name.ends_with(".gone")).unwrap();
    fs::remove_dir_all(world.target("site").join("releases").join(gone).join("cache")).unwrap();
    world.poll(&["unfreeze", "site"]).expect(0);
    world.poll(&[]).expect(0);
    assert!(world.releases("site").iter().all(|name| !name.ends_with(".gone")), "{:?}", world.releases("site"));
}

#[test]
fn a_kept_release_is_used_as_it_was_left_with_its_build() {
    let world = World::new("rollback kept");
    world.app("site").deploy("build = \"./build.sh\"").write();
    let builds = world.notes("builds");
    let build = format!("#!/bin/sh\necho built >> '{}'\n", builds.display());
    world.repo.commit(&[("build.sh", exec(build))], "build");
    world.deployed_as_configured();
    let before = world.current("site");
    world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    world.poll(&["rollback", "site"]).expect(0);
    assert_eq!(world.current("site"), before, "the very release");
    assert_eq!(world.note("builds").lines().count(), 2, "and no third build");
}

#[test]
fn in_place_only_what_differs_goes_back() {
    let mut world = World::new("rollback in place");
    world.app("site").in_place().write();
    let first = world.deployed_as_configured();
    world.push(&[("index.html", file("two\n")), ("new.html", file("new\n"))], "second");
    world.poll(&[]).expect(0);
    fs::write(world.target("site").join("untracked"), "mine").unwrap();
    world.sshd.stop();
    world.poll(&["rollback", "site"]).expect(0);
    assert_eq!(world.live_text("site", "index.html").as_deref(), Some("one\n"));
    assert_eq!(world.live_text("site", "new.html"), None);
    assert_eq!(world.live_text("site", "untracked").as_deref(), Some("mine"));
    assert_eq!(world.recorded("site"), Some(first));
}

#[test]
fn a_rollback_whose_script_fails_is_taken_back_and_freezes_nothing() {
    let world = World::new("rollback fails");
    let script = world.script("[ \"$POLLER_REASON\" != rollback ] || [ -e \"$POLLER_RELEASE/newer\" ]");
    world.app("site").write();
    world.repo.commit(&[("deploy.sh", script), ("index.html", file("one\n"))], "first");
    world.repo.push();
    world.poll(&[]).expect(0);
    let second = world.push(&[("newer", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    let failed = world.poll(&["rollback", "site"]).expect(1);
    assert!(failed.stderr.contains("the rollback to") && failed.stderr.contains("again"), "{}", failed.stderr);
    world.expect_live("site", &second);
    assert_eq!(world.recorded("site"), Some(second.clone()));
    assert!(world.journal("site")[0].state.get("frozen").is_none());
    let third = world.push(&[("index.html", file("three\n"))], "third");
    world.poll(&[]).expect(0);
    world.expect_live("site", &third);
}

#[test]
fn a_rollback_that_is_killed_is_carried_through_by_the_next_poll() {
    let world = World::new("rollback killed");
    let second = killed(&world);
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &second);
    assert_eq!(world.recorded("site"), Some(second.clone()));
    let state = &world.journal("site")[0].state;
    assert!(state["frozen"]["reason"].as_str().unwrap().starts_with("rolled back"), "{state:?}");
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &second);
    world.expect_no_leftovers("site");
}

#[test]
fn a_rollback_that_is_killed_is_carried_through_though_no_server_answers() {
    let mut world = World::new("rollback killed offline");
    let second = killed(&world);
    world.sshd.stop();
    let short = &second[..10];
    world.poll(&[]).expect(69).says(&format!("live: {short}; the rollback to it had been cut short"));
    world.expect_live("site", &second);
    assert_eq!(world.recorded("site"), Some(second.clone()));
    assert_eq!(world.ran().last(), Some(&("rollback".to_owned(), second.clone())));
    let runs = world.ran().len();
    world.poll(&[]).expect(69);
    assert_eq!(world.ran().len(), runs, "once");
    world.sshd.restart();
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
    world.expect_no_leftovers("site");
}

/// Kills a rollback from the third deploy to the second while its script runs; the second.
fn killed(world: &World) -> String {
    let [_, second, _] = three(world);
    let gate = world.notes("gate");
    fs::write(&gate, "").unwrap();
    // Every script waits at the gate from now on, those of former releases included: they read this note.
    world.app("site").deploy(&format!(
        "script = ['sh', '-c', 'echo \"$POLLER_REASON $POLLER_COMMIT\" >> {}; while [ -e {} ]; do sleep 0.1; done']",
        world.notes("ran").display(),
        gate.display()
    )).write_file_only();
    let running = world.spawn_poll(&["rollback", "site"]);
    wait_until("its script runs", seconds(20), || world.ran().len() == 4);
    running.kill_supervisor();
    fs::remove_file(&gate).unwrap();
    second
}

#[test]
fn who_lifts_the_freeze_of_a_rollback_that_was_killed_hears_that_it_is_carried_through_first() {
    let world = World::new("rollback lifted");
    let [_, second, _] = three(&world);
    let gate = world.notes("gate");
    fs::write(&gate, "").unwrap();
    let wait =
        format!("while [ -e {} ]; do sleep 0.1; done; echo ran >> {}", gate.display(), world.notes("ends").display());
    world.app("site").deploy(&format!("script = ['sh', '-c', '{wait}']")).write_file_only();
    let running = world.spawn_poll(&["rollback", "site"]);
    world.wait_for_script("gate");
    running.kill_supervisor();
    fs::remove_file(&gate).unwrap();
    world.poll(&["unfreeze", "site"]).expect(0).prints("the next poll first carries the rollback through");
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
    assert_eq!(world.recorded("site"), Some(second));
}

#[test]
fn a_rollback_that_is_told_to_stop_puts_things_back_and_is_carried_through_later() {
    let world = World::new("rollback stopped");
    let [_, second, third] = three(&world);
    let gate = world.notes("gate");
    fs::write(&gate, "").unwrap();
    let wait = format!("while [ -e '{}' ]; do sleep 0.1; done", gate.display());
    world
        .app("site")
        .deploy(&format!(
            "script = ['sh', '-c', 'echo \"$POLLER_REASON $POLLER_COMMIT\" >> {}; {}']",
            world.notes("ran").display(),
            wait.replace('\'', "")
        ))
        .write_file_only();
    let running = world.spawn_poll(&["rollback", "site"]);
    wait_until("its script runs", seconds(20), || world.ran().len() == 4);
    running.signal(Signal::SIGTERM);
    running.wait().expect(1).says("interrupted");
    world.expect_live("site", &third);
    fs::remove_file(&gate).unwrap();
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
}

#[test]
fn nothing_deployed_means_nothing_to_go_back_to() {
    let world = World::new("rollback new");
    world.app("site").write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    world.poll(&["rollback", "site"]).expect(64).says("nothing earlier");
    world.poll(&[]).expect(0);
    world.poll(&["rollback", "site"]).expect(64).says("nothing earlier");
}

#[test]
fn a_failed_release_that_was_kept_gives_way_to_the_last_good_one() {
    let world = World::new("rollback keep");
    world.app("site").deploy("on_failure = \"keep\"").write();
    let first = world.deployed_as_configured();
    let bad = world.push(&[("deploy.sh", world.script("exit 1"))], "bad");
    world.poll(&[]).expect(1);
    world.expect_live("site", &bad);
    world.poll(&["rollback", "site"]).expect(0).prints(&first[..10]);
    world.expect_live("site", &first);
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &first);
}
