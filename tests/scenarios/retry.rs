//! Attempts at a commit that fails: their number, their distance, and `poller retry`.

use crate::support::{World, exec, file};

#[test]
fn a_failing_commit_is_tried_at_growing_distances_exactly_retries_times_and_a_new_one_at_once() {
    let world = World::new("distance");
    world.app("site").deploy("retries = 4\non_failure = \"restore\"").write();
    world.deployed_as_configured();
    world.push(&[("deploy.sh", world.script("exit 1"))], "bad");
    let mut tried_at = Vec::new();
    for poll in 1..=20 {
        let before = world.ran().len();
        let outcome = world.poll(&[]);
        match world.ran().len() - before {
            0 => drop(outcome.expect(0).silent()),
            1 => {
                outcome.expect(1);
                tried_at.push(poll);
            }
            more => panic!("{more} scripts in one poll"),
        }
    }
    assert_eq!(tried_at, [1, 2, 4, 8], "and never again");
    let skips = world.events("poll.skipped");
    let said = |what: &str| skips.iter().filter(|l| l["msg"].as_str().unwrap().contains(what)).count();
    assert_eq!((said("attempt 2 of 4"), said("attempt 3 of 4"), said("broken: 4 of 4")), (1, 3, 12));
    let good = world.push(&[("deploy.sh", world.script(""))], "good");
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &good);
}

#[test]
fn retry_tries_a_broken_commit_at_once_and_tells_the_script() {
    let world = World::new("retry");
    world.app("site").deploy("retries = 1").write();
    let first = world.deployed_as_configured();
    let ready = world.notes("ready");
    let bad = world.push(
        &[("deploy.sh", world.script(&format!("[ \"$POLLER_REASON\" = rollback ] || [ -e '{}' ]", ready.display())))],
        "needs the note",
    );
    world.poll(&[]).expect(1);
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &first);
    world.poll(&["retry", "site"]).expect(1).says("for the last time");
    world.poll(&["status"]).expect(0).prints("all 2 attempts at");
    std::fs::write(&ready, "").unwrap();
    world.poll(&["retry", "site"]).expect(0);
    world.expect_live("site", &bad);
    assert_eq!(world.ran().last(), Some(&("retry".to_owned(), bad)));
}

#[test]
fn retry_of_what_did_not_fail_changes_nothing() {
    needs_root!();
    let world = World::new("retry ok");
    world.deployed();
    let before = world.ran().len();
    let outcome = world.poll_on_terminal(&["retry", "site"]).expect(0);
    world.screen("retry-terminal", "poller retry site", &outcome.stderr);
    assert_eq!(world.ran().len(), before);
    let json = world.poll(&["retry", "site", "--json"]).expect(0);
    world.screen("retry-json", "poller retry site --json", &json.stdout);
    let unknown = world.poll(&["retry", "siet"]).expect(64);
    world.screen("retry-unknown-app", "poller retry siet", &unknown.stderr);
}

#[test]
fn retry_does_not_accept_rewritten_history() {
    let world = World::new("retry rewind");
    let first = world.deployed();
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    world.repo.rewind_to(&first);
    world.repo.commit(&[("index.html", file("other\n"))], "other");
    world.repo.force_push();
    world.poll(&[]).expect(77);
    world.poll(&["retry", "site"]).expect(77);
    world.expect_live("site", &second);
}

#[test]
fn not_now_is_asked_again_at_each_poll_and_counts_for_nothing() {
    let world = World::new("not now");
    world.app("site").deploy("retries = 2\non_failure = \"restore\"").write();
    world.deployed_as_configured();
    world.push(&[("deploy.sh", exec("#!/bin/sh\nexit 75\n"))], "later");
    for _ in 0..5 {
        world.poll(&[]).expect(0).silent();
    }
    assert_eq!(world.events("deploy.finished").iter().filter(|l| l["outcome"] == "deferred").count(), 5);
}
