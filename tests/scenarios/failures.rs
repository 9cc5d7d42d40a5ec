//! Deploys that fail: what stays live, what runs again, what is recorded, when poller gives up.

use crate::support::{World, exec, file};

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn after_a_failed_script_the_previous_release_is_live_and_its_script_ran_again() {
    let world = World::new("rollback");
    let first = world.deployed();
    let before = world.current("site");
    let bad = world.push(&[("index.html", file("bad\n")), ("deploy.sh", world.script("exit 7"))], "bad");
    world.poll(&[]).expect(1).says("site").says(&bad[..7]);
    assert_eq!(world.current("site"), before);
    world.expect_live("site", &first);
    assert_eq!(world.ran(), pairs(&[("deploy", &first), ("deploy", &bad), ("rollback", &first)]));
    assert_eq!(world.recorded("site"), Some(first));
    let failed = world.journal("site").into_iter().find(|e| e.outcome() == "failed").expect("an entry");
    assert_eq!(failed.to(), bad);
    assert_eq!(failed.run.get("exit").and_then(toml::Value::as_integer), Some(7));
    world.expect_no_leftovers("site");
}

#[test]
fn on_failure_restore_moves_the_link_and_runs_nothing() {
    let world = World::new("restore");
    world.app("site").deploy("on_failure = \"restore\"").write();
    let first = world.deployed_as_configured();
    let bad = world.push(&[("deploy.sh", world.script("exit 1"))], "bad");
    world.poll(&[]).expect(1);
    world.expect_live("site", &first);
    assert_eq!(world.ran(), pairs(&[("deploy", &first), ("deploy", &bad)]));
}

#[test]
fn on_failure_keep_leaves_the_failed_release_live() {
    let world = World::new("keep failed");
    world.app("site").deploy("on_failure = \"keep\"").write();
    let first = world.deployed_as_configured();
    let bad = world.push(&[("deploy.sh", world.script("exit 1"))], "bad");
    world.poll(&[]).expect(1);
    world.expect_live("site", &bad);
    assert_eq!(world.recorded("site"), Some(first), "live, but it does not count as deployed");
}

#[test]
fn a_first_deploy_that_fails_leaves_nothing_live() {
    let world = World::new("first fails");
    world.app("site").write();
    world.push(&[("deploy.sh", world.script("exit 1"))], "bad");
    world.poll(&[]).expect(1);
    assert_eq!(world.current("site"), None);
    assert_eq!(world.recorded("site").unwrap_or_default(), "");
    assert_eq!(world.ran().len(), 1, "there is nothing to go back to");
    let good = world.push(&[("deploy.sh", world.script(""))], "good");
    world.poll(&[]).expect(0);
    world.expect_live("site", &good);
}

#[test]
fn a_failed_build_changes_nothing_live_and_runs_no_script() {
    let world = World::new("build");
    world.app("site").deploy("build = \"./build.sh\"").write();
    let build = "#!/bin/sh\necho built > made-by-build\n";
    world.repo.commit(&[("build.sh", exec(build))], "build");
    let first = world.deployed_as_configured();
    assert_eq!(world.live_text("site", "made-by-build").as_deref(), Some("built\n"));
    let before = world.current("site");
    world.push(&[("build.sh", exec("#!/bin/sh\necho cannot compile\nexit 2\n"))], "bad");
    world.poll(&[]).expect(1).says("cannot compile");
    assert_eq!(world.current("site"), before);
    assert_eq!(world.ran(), pairs(&[("deploy", &first)]), "neither deploy nor rollback");
    assert_eq!(world.journal("site")[0].outcome(), "failed");
}

#[test]
fn the_build_runs_before_anything_live_changes() {
    let world = World::new("build first");
    world.app("site").deploy("build = \"./build.sh\"").write();
    let current = world.target("site").join("current");
    let build =
        format!("#!/bin/sh\nreadlink '{}' > '{}' || true\n", current.display(), world.notes("at-build").display());
    world.repo.commit(&[("build.sh", exec(build))], "build");
    world.deployed_as_configured();
    let before = world.current("site").unwrap();
    world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    assert_eq!(world.note("at-build").trim(), before.to_str().unwrap());
    assert_ne!(world.current("site").unwrap(), before);
}

#[test]
fn a_commit_that_keeps_failing_is_tried_as_often_as_configured_and_no_more() {
    let world = World::new("retries");
    world.app("site").deploy("retries = 3\non_failure = \"restore\"").write();
    let first = world.deployed_as_configured();
    let bad = world.push(&[("deploy.sh", world.script("exit 1"))], "bad");
    for code in [1, 1, 0, 1, 0, 0, 0, 0] {
        world.poll(&[]).expect(code);
    }
    let mut expected = pairs(&[("deploy", &first), ("deploy", &bad)]);
    expected.extend(pairs(&[("retry", &bad), ("retry", &bad)]));
    assert_eq!(world.ran(), expected);
    world.expect_live("site", &first);
}

#[test]
fn a_new_commit_ends_the_waiting_after_a_broken_one() {
    let world = World::new("after broken");
    world.app("site").deploy("retries = 1").write();
    world.deployed_as_configured();
    world.push(&[("deploy.sh", world.script("exit 1"))], "bad");
    world.poll(&[]).expect(1);
    world.poll(&[]).expect(0);
    let good = world.push(&[("deploy.sh", world.script(""))], "good");
    world.poll(&[]).expect(0);
    world.expect_live("site", &good);
    assert_eq!(world.recorded("site"), Some(good));
}

#[test]
fn a_retry_can_succeed() {
    let world = World::new("retry succeeds");
    let first = world.deployed();
    let flag = world.notes("ready");
    let script = world.script(&format!("test -e '{}'", flag.display()));
    let second = world.push(&[("deploy.sh", script)], "needs the flag");
    world.poll(&[]).expect(1);
    world.expect_live("site", &first);
    std::fs::write(&flag, "").unwrap();
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
    assert_eq!(world.ran().last(), Some(&("retry".to_owned(), second)));
    assert_eq!(world.history("site").last().map(String::as_str), Some("retry deployed"));
}

#[test]
fn force_tries_a_broken_commit_again() {
    let world = World::new("force");
    world.app("site").deploy("retries = 1").write();
    world.deployed_as_configured();
    let flag = world.notes("ready");
    let script = world.script(&format!("test -e '{}'", flag.display()));
    let second = world.push(&[("deploy.sh", script)], "needs the flag");
    world.poll(&[]).expect(1);
    std::fs::write(&flag, "").unwrap();
    world.poll(&[]).expect(0);
    assert_ne!(world.revision("site").as_deref(), Some(second.as_str()));
    world.poll(&["--force", "site"]).expect(0);
    world.expect_live("site", &second);
}

#[test]
fn a_rollback_whose_script_fails_too_says_so_and_keeps_the_old_release() {
    let world = World::new("rollback fails");
    world.app("site").write();
    let script = world.script("test \"$POLLER_REASON\" = deploy || { echo back also broken; exit 4; }");
    let first = world.push(&[("deploy.sh", script)], "first");
    world.poll(&[]).expect(0);
    world.push(&[("deploy.sh", world.script("exit 1"))], "bad");
    world.poll(&[]).expect(1).says("back also broken");
    world.expect_live("site", &first);
}

#[test]
fn a_failed_health_check_is_a_failed_deploy() {
    let world = World::new("health");
    let health = "command = \"./healthy.sh\"\nattempts = 2\ninterval = \"100ms\"\ntimeout = \"5s\"";
    world.app("site").health(health).write();
    let count = world.notes("checks");
    let check = |code: u8| exec(format!("#!/bin/sh\necho x >> '{}'\nexit {code}\n", count.display()));
    world.repo.commit(&[("healthy.sh", check(0))], "health");
    let first = world.deployed_as_configured();
    assert_eq!(world.note("checks").lines().count(), 1);
    world.push(&[("healthy.sh", check(1))], "sick");
    world.poll(&[]).expect(1);
    world.expect_live("site", &first);
    assert_eq!(world.recorded("site"), Some(first));
    assert!(world.note("checks").lines().count() >= 3, "two attempts at the sick one");
}

#[test]
fn a_rewritten_history_is_refused_and_force_accepts_it_once() {
    let world = World::new("rewind");
    let first = world.deployed();
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    world.repo.rewind_to(&first);
    let other = world.repo.commit(&[("index.html", file("rewritten\n"))], "other");
    world.repo.force_push();
    world.poll(&[]).expect(77).says(&second[..7]).says(&other[..7]);
    world.expect_live("site", &second);
    assert_eq!(world.ran().len(), 2);
    world.poll(&["--force", "site"]).expect(0);
    world.expect_live("site", &other);
    world.repo.rewind_to(&first);
    world.repo.force_push();
    world.poll(&[]).expect(77);
    world.expect_live("site", &other);
}

#[test]
fn allow_rewind_deploys_a_rewritten_history() {
    let world = World::new("allow rewind");
    world.app("site").verify("allow_rewind = true").write();
    let first = world.deployed_as_configured();
    world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    world.repo.rewind_to(&first);
    world.repo.force_push();
    world.poll(&[]).expect(0);
    world.expect_live("site", &first);
}
