//! Freeze and unfreeze: an app stays as it is, and everybody can read by whom and why.

use std::fs;

use crate::support::{World, file};

#[test]
fn a_frozen_app_stays_as_it_is_until_it_is_unfrozen() {
    let world = World::new("freeze");
    needs_root!();
    let first = world.deployed();
    let frozen = world.poll(&["freeze", "site", "--reason", "audit until friday"]).expect(0);
    world.screen("freeze-terminal", "poller freeze site --reason 'audit until friday'", &frozen.stdout);
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &first);
    // --force is no way around it either.
    world.poll_on_terminal(&["--force", "site"]).expect(0).says("frozen by root").says("audit until friday");
    world.expect_live("site", &first);
    let skipped = world.events("poll.skipped");
    assert!(skipped.iter().all(|line| line["msg"].as_str().unwrap().contains("audit until friday")), "{skipped:?}");
    let unfrozen = world.poll(&["unfreeze", "site"]).expect(0);
    world.screen("unfreeze-terminal", "poller unfreeze site", &unfrozen.stdout);
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &second);
    let kinds: Vec<String> = world.history("site");
    assert_eq!(&kinds[2..4], ["freeze done", "unfreeze done"], "{kinds:?}");
    let entry = world.journal("site").into_iter().find(|e| e.kind() == "freeze").unwrap();
    assert_eq!((entry.text("who"), entry.text("reason")), ("root", "audit until friday"));
    world.expect_no_leftovers("site");
}

#[test]
fn a_freeze_outlives_a_reboot_and_says_by_whom_and_why() {
    needs_root!();
    let world = World::new("freeze reboot");
    let first = world.deployed();
    let mut command = world.command(&["freeze", "site", "--reason", "moving house", "--json"]);
    command.env("SUDO_USER", "alice");
    let frozen = world.spawn(command).wait().expect(0);
    world.screen("freeze-json", "poller freeze site --reason 'moving house' --json", &frozen.stdout);
    // A boot empties /run; nothing else is left of the machine's memory.
    fs::remove_dir_all(world.run_dir()).unwrap();
    world.push(&[("index.html", file("two\n"))], "second");
    world.poll_on_terminal(&[]).expect(0).says("frozen by alice").says("moving house");
    world.expect_live("site", &first);
}

#[test]
fn freezing_what_is_frozen_is_refused_and_the_first_reason_stays() {
    needs_root!();
    let world = World::new("freeze twice");
    world.deployed();
    world.poll(&["freeze", "site", "--reason", "audit"]).expect(0);
    let again = world.poll(&["freeze", "site", "--reason", "another"]).expect(64);
    world.screen("freeze-frozen", "poller freeze site --reason another", &again.stderr);
    world.poll_on_terminal(&[]).expect(0);
    let state = &world.journal("site")[0].state;
    assert_eq!(state["frozen"]["reason"].as_str(), Some("audit"));
    world.poll(&["unfreeze", "site"]).expect(0);
    let tip = world.journal_tip("site");
    world.poll(&["unfreeze", "site"]).expect(0).prints("was not frozen");
    assert_eq!(world.journal_tip("site"), tip, "nothing to record");
}

#[test]
fn a_freeze_for_a_time_ends_by_itself() {
    let world = World::new("freeze for");
    needs_program!("faketime");
    world.deployed();
    world.poll(&["freeze", "site", "--reason", "launch day", "--for", "2h"]).expect(0).prints("until 20");
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0).silent();
    assert_ne!(world.revision("site").as_ref(), Some(&second));
    let mut later = std::process::Command::new("faketime");
    let poll = world.command(&[]);
    later.arg("-f").arg("+3h").arg(poll.get_program()).args(poll.get_args()).current_dir("/");
    world.spawn(later).wait().expect(0).silent();
    world.expect_live("site", &second);
    // And what froze it is in nobody's way.
    world.poll(&["freeze", "site", "--reason", "again", "--for", "1h"]).expect(64);
}

#[test]
fn a_freeze_without_a_reason_or_for_no_time_is_a_usage_error() {
    let world = World::new("freeze usage");
    world.deployed();
    let tip = world.journal_tip("site");
    world.poll(&["freeze", "site"]).expect(64).says("--reason");
    world.poll(&["freeze", "site", "--reason", " "]).expect(64).says("riddle");
    world.poll(&["freeze", "site", "--reason", "x", "--for=-2h"]).expect(64).says("past");
    world.poll(&["freeze", "site", "--reason", "x", "--for", "0s"]).expect(64);
    world.poll(&["freeze", "site", "--reason", "x", "--for", "soon"]).expect(64).says("90s");
    world.poll(&["freeze", "sote", "--reason", "x"]).expect(64).says("did you mean `site`?");
    assert_eq!(world.journal_tip("site"), tip);
}

#[test]
fn an_app_can_be_frozen_before_its_first_deploy() {
    let world = World::new("freeze new");
    world.app("site").write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    world.poll(&["freeze", "site", "--reason", "not yet"]).expect(0);
    world.poll(&[]).expect(0).silent();
    assert_eq!(world.ran(), []);
    world.poll(&["unfreeze", "site"]).expect(0);
    world.poll(&[]).expect(0).silent();
    assert_eq!(world.ran().len(), 1);
}

#[test]
fn somebody_who_may_not_gets_a_clear_77() {
    needs_root!();
    let world = World::new("stranger");
    world.deployed();
    let tip = world.journal_tip("site");
    for words in [
        &["freeze", "site", "--reason", "x"][..],
        &["unfreeze", "site"],
        &["rollback", "site"],
        &["retry", "site"],
        &["adopt", "site"],
    ] {
        let outcome = world.poll_as(&world.deployer, words).expect(77).says("not allowed").says("sudo poller");
        assert!(!outcome.stderr.contains("os error"), "{}", outcome.stderr);
    }
    assert_eq!(world.journal_tip("site"), tip);
}

#[test]
fn a_freeze_while_a_deploy_runs_is_told_who_is_at_it() {
    let world = World::new("freeze busy");
    world.deployed();
    let go = world.notes("go");
    world.push(
        &[(
            "deploy.sh",
            world.script(&format!("touch '{0}.on'; while [ ! -e '{0}' ]; do sleep 0.1; done", go.display())),
        )],
        "slow",
    );
    let running = world.spawn_poll(&[]);
    crate::support::wait_until("the script runs", crate::support::seconds(20), || world.notes("go.on").exists());
    world.poll(&["freeze", "site", "--reason", "x"]).expect(75).says("in the stage `deploy`");
    fs::write(&go, "").unwrap();
    running.wait().expect(0);
}

#[test]
fn freezing_a_deploy_that_was_killed_half_way_says_what_that_leaves() {
    let world = World::new("freeze half");
    world.deployed();
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    let on = world.notes("on");
    world.push(
        &[(
            "deploy.sh",
            world.script(&format!("[ \"$POLLER_REASON\" = rollback ] || {{ touch '{}'; sleep 100; }}", on.display())),
        )],
        "slow",
    );
    let running = world.spawn_poll(&[]);
    crate::support::wait_until("the script runs", crate::support::seconds(20), || on.exists());
    running.kill_supervisor();
    world.poll(&["freeze", "site", "--reason", "x"]).expect(0).prints("half of it").prints("poller rollback site");
    world.poll(&[]).expect(0).silent();
    // The last good one is the second: it was deployed, and is not, or not wholly, what is live.
    world.poll(&["rollback", "site"]).expect(0);
    world.expect_live("site", &second);
    world.expect_no_leftovers("site");
    world.expect_no_processes();
}

#[test]
fn a_stranger_cannot_poll_either() {
    needs_root!();
    let world = World::new("stranger polls");
    world.deployed();
    world.poll_as(&world.deployer, &["--force", "site"]).expect(77).says("sudo poller --force site");
    let outcome = world.poll_as(&world.deployer, &[]).expect(77).says("not allowed");
    assert!(!outcome.stderr.contains("os error"), "{}", outcome.stderr);
}
