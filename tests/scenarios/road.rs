//! The main road: a push is noticed, published, deployed and recorded; what is not new is left alone.

use crate::support::{World, file, seconds};

#[test]
fn a_first_deploy_publishes_the_commit_runs_the_script_and_says_nothing() {
    let world = World::new("first");
    world.app("site").write();
    let first = world.push(
        &[("deploy.sh", world.script("")), ("index.html", file("one\n")), ("a/b/c.txt", file("deep\n"))],
        "first",
    );
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &first);
    assert_eq!(world.ran(), [("deploy".to_owned(), first.clone())]);
    assert_eq!(world.recorded("site"), Some(first.clone()));
    let current = world.current("site").expect("a link");
    assert!(current.starts_with("releases/"), "a relative link: {}", current.display());
    assert!(current.to_str().unwrap().contains(&first[..7]), "{}", current.display());
    assert!(!world.live_folder("site").join(".git").exists());
    world.expect_no_leftovers("site");
    world.expect_no_processes();
}

#[test]
fn the_journal_of_a_deploy_has_its_start_and_its_end() {
    let world = World::new("journal");
    let first = world.deployed();
    let entries = world.journal("site");
    assert_eq!(world.history("site"), ["deploy started", "deploy deployed"]);
    assert_eq!(entries[0].to(), first);
    assert_eq!(entries[0].text("id"), entries[1].text("id"), "one run, one id");
    assert_eq!(entries[0].text("id").len(), 36, "a UUID");
    assert_eq!(entries[0].run.get("exit").and_then(toml::Value::as_integer), Some(0));
}

#[test]
fn an_unchanged_poll_is_silent_and_writes_only_its_log() {
    let world = World::new("unchanged");
    world.deployed();
    let (tip, current) = (world.journal_tip("site"), world.current("site"));
    let before = crate::support::sh(
        "find",
        &[world.state().to_str().unwrap(), world.target("site").to_str().unwrap(), "-printf", "%p %T@ %C@ %s\n"],
    );
    world.poll(&[]).expect(0).silent();
    let after = crate::support::sh(
        "find",
        &[world.state().to_str().unwrap(), world.target("site").to_str().unwrap(), "-printf", "%p %T@ %C@ %s\n"],
    );
    assert_eq!(before, after, "nothing on disk changed");
    assert_eq!((tip, current), (world.journal_tip("site"), world.current("site")));
    assert_eq!(world.ran().len(), 1);
    assert_eq!(world.events("poll.unchanged").len(), 1);
}

#[test]
fn an_unchanged_poll_makes_one_connection() {
    let world = World::new("one connection");
    world.deployed();
    let mark = world.sshd.mark();
    world.poll(&[]).expect(0);
    assert_eq!(world.sshd.connections_since(mark), 1);
}

#[test]
fn each_push_becomes_a_release_of_its_own() {
    let world = World::new("push");
    let first = world.deployed();
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &second);
    assert_eq!(world.releases("site").len(), 2);
    assert_eq!(world.ran(), [("deploy".into(), first.clone()), ("deploy".into(), second.clone())]);
    let newest = &world.journal("site")[0];
    assert_eq!((newest.text("from"), newest.to()), (first.as_str(), second.as_str()));
}

#[test]
fn several_pushes_between_two_polls_deploy_the_last() {
    let world = World::new("several pushes");
    world.deployed();
    world.push(&[("index.html", file("two\n"))], "second");
    world.push(&[("index.html", file("three\n"))], "third");
    let last = world.push(&[("index.html", file("four\n"))], "fourth");
    world.poll(&[]).expect(0);
    world.expect_live("site", &last);
    assert_eq!(world.ran().len(), 2);
}

#[test]
fn the_script_hears_what_it_deploys_and_what_was_before() {
    let world = World::new("words");
    let script = "env | grep ^POLLER_ | sort > \"$NOTES\"\npwd >> \"$NOTES\"";
    let notes = world.notes("words");
    world.app("site").deploy(&format!("env = {{ NOTES = \"{}\" }}", notes.display())).write();
    let first = world.deployed_as_configured();
    let second = world.push(&[("deploy.sh", world.script(script))], "second");
    world.poll(&[]).expect(0);
    let said = world.note("words");
    let release = world.target("site").join(world.current("site").unwrap());
    for line in [
        "POLLER_APP=site".to_owned(),
        format!("POLLER_COMMIT={second}"),
        format!("POLLER_PREVIOUS={first}"),
        "POLLER_REF=refs/heads/main".to_owned(),
        "POLLER_REASON=deploy".to_owned(),
        format!("POLLER_RUN={}", world.journal("site")[0].text("id")),
        format!("POLLER_RELEASE={}", release.display()),
        release.display().to_string(),
    ] {
        assert!(said.lines().any(|has| has == line), "{line} is not in\n{said}");
    }
}

#[test]
fn another_branch_is_followed_and_main_is_not() {
    let world = World::new("branch");
    world.app("site").source("branch = \"live/eu\"").write();
    world.push(&[("deploy.sh", world.script(""))], "on main");
    let wanted = world.repo.commit(&[("index.html", file("live\n"))], "on live");
    world.repo.push_to("refs/heads/live/eu");
    world.push(&[("index.html", file("main again\n"))], "on main again");
    world.poll(&[]).expect(0);
    world.expect_live("site", &wanted);
}

#[test]
fn of_tags_the_highest_version_counts_and_a_tag_object_is_peeled() {
    let world = World::new("tags");
    world.app("site").without("source.branch").source("tag = \"v*\"").write();
    world.push(&[("deploy.sh", world.script("")), ("index.html", file("1.9\n"))], "1.9");
    world.repo.tag("v1.9.0");
    let high = world.push(&[("index.html", file("1.10\n"))], "1.10");
    world.repo.tag("v1.10.0");
    world.push(&[("index.html", file("other\n"))], "other");
    world.repo.light_tag("nightly-99");
    world.repo.light_tag("v1.2.0");
    world.poll(&[]).expect(0);
    world.expect_live("site", &high);
    let higher = world.push(&[("index.html", file("2\n"))], "2");
    world.repo.light_tag("v2.0.0");
    world.poll(&[]).expect(0);
    world.expect_live("site", &higher);
    assert_eq!(world.ran().len(), 2);
}

#[test]
fn any_ref_of_the_server_can_be_followed() {
    let world = World::new("ref");
    world.app("site").without("source.branch").source("ref = \"refs/deploy/prod\"").write();
    let wanted = world.repo.commit(&[("deploy.sh", world.script(""))], "first");
    world.repo.push_to("refs/deploy/prod");
    world.poll(&[]).expect(0);
    world.expect_live("site", &wanted);
}

#[test]
fn a_branch_is_not_mistaken_for_another_whose_name_begins_alike() {
    let world = World::new("alike");
    world.app("site").write();
    world.repo.commit(&[("deploy.sh", world.script("")), ("index.html", file("no\n"))], "elsewhere");
    world.repo.push_to("refs/heads/main-old");
    world.repo.push_to("refs/heads/mai");
    let wanted = world.push(&[("index.html", file("yes\n"))], "on main");
    world.poll(&[]).expect(0);
    world.expect_live("site", &wanted);
}

#[test]
fn apps_side_by_side_do_not_wait_for_each_other() {
    let world = World::new("side by side");
    for name in ["one", "two", "three"] {
        world.app(name).write();
    }
    let first = world.push(&[("deploy.sh", world.script("sleep 3"))], "first");
    world.poll(&[]).expect(0).silent().within(seconds(8));
    for name in ["one", "two", "three"] {
        world.expect_live(name, &first);
        assert_eq!(world.recorded(name), Some(first.clone()), "{name}");
    }
}

#[test]
fn one_apps_failure_does_not_hold_up_another() {
    let world = World::new("one fails");
    world.app("good").write();
    world.app("bad").deploy("script = \"./broken.sh\"").write();
    world.app("lost").source("branch = \"nowhere\"").write();
    let broken = crate::support::exec("#!/bin/sh\nexit 3\n");
    let first = world.push(&[("deploy.sh", world.script("")), ("broken.sh", broken)], "first");
    world.poll(&[]).expect_one_of(&[1, 69, 76]).says("bad").says("lost");
    world.expect_live("good", &first);
    assert_eq!(world.history("bad"), ["deploy started", "deploy failed"]);
}

#[test]
fn only_the_apps_named_are_polled() {
    let world = World::new("named");
    world.app("one").write();
    world.app("two").write();
    let first = world.push(&[("deploy.sh", world.script(""))], "first");
    world.poll(&["two"]).expect(0);
    assert_eq!(world.recorded("two"), Some(first));
    assert!(world.journal("one").is_empty() && world.current("one").is_none());
}

#[test]
fn a_repository_on_the_same_machine_is_deployed_by_path_and_by_file_url() {
    let world = World::new("local");
    let bare = world.repo.bare.display().to_string();
    world.app("path").without("source.identity").source(&format!("url = \"{bare}\"")).write();
    world.app("url").without("source.identity").source(&format!("url = \"file://{bare}\"")).write();
    let first = world.push(&[("deploy.sh", world.script(""))], "first");
    let mark = world.sshd.mark();
    world.poll(&[]).expect(0).silent();
    world.expect_live("path", &first);
    world.expect_live("url", &first);
    assert_eq!(world.sshd.connections_since(mark), 0);
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    world.expect_live("path", &second);
    world.expect_live("url", &second);
}
