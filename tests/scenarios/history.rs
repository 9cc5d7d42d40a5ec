//! `poller history`: the runs that changed something, newest first, a line a run.

use std::fs;

use serde_json::Value;

use super::status::plain;
use crate::support::{World, exec, file};

fn runs(world: &World, more: &[&str]) -> Vec<Value> {
    let shown = world.poll(&[&["history", "site", "--json"], more].concat()).expect(0);
    let mut document: Value = serde_json::from_str(&shown.stdout).expect("one JSON document");
    assert_eq!((&document["schema"], &document["app"]), (&1.into(), &"site".into()));
    serde_json::from_value(document["runs"].take()).unwrap()
}

/// Puts ids of one length in the place of beginnings that are as long as it takes to tell them apart.
fn as_if_apart(world: &World, text: &str) -> String {
    let ids: Vec<String> = runs(world, &["-n", "50"]).iter().map(|r| r["run"].as_str().unwrap().to_owned()).collect();
    let shown = |id: &str| (8..=36).rev().find(|n| text.contains(&format!("  {}  ", &id[..*n])));
    let length = ids.iter().find_map(|id| shown(id)).expect("a beginning of an id");
    let head = format!("RUN{}", " ".repeat(length - 3));
    let text = text.replace(&head, "RUN     ");
    ids.iter()
        .enumerate()
        .fold(text, |text, (n, id)| text.replace(&id[..length], &format!("01a1{:04x}", 0xf96c - 41 * n)))
}

/// How many milliseconds each stage took is another number every time.
pub fn with_settled_stages(json: &str) -> String {
    let stages =
        ["activate", "deploy", "fetch", "record", "rollback", "stage", "verify"].map(|stage| format!("\"{stage}\": "));
    let settled = |line: &str| match stages.iter().find(|stage| line.trim_start().starts_with(*stage)) {
        Some(stage) => {
            let comma = if line.ends_with(',') { "," } else { "" };
            let indent = &line[..line.len() - line.trim_start().len()];
            format!("{indent}{stage}50{comma}\n")
        }
        None => format!("{line}\n"),
    };
    json.lines().map(settled).collect()
}

#[test]
fn an_app_without_a_past_says_so() {
    let world = World::new("empty");
    world.app("site").write();
    let shown = world.poll(&["history", "site"]).expect(0).says("nothing happened yet");
    assert!(shown.stdout.is_empty());
    assert!(runs(&world, &[]).is_empty());
}

#[test]
fn every_kind_of_entry_is_told_newest_first() {
    let world = World::new("kinds");
    world.app("site").deploy("retries = 2").source("paths = [\"*.html\", \"deploy.sh\"]").write();
    let first = world.deployed_as_configured();
    world.push(&[("README", file("x\n"))], "of no interest");
    world.poll(&[]).expect(0);
    let bad = world.push(&[("deploy.sh", exec("#!/bin/sh\nexit 3\n"))], "bad");
    world.poll(&[]).expect(1);
    world.poll(&[]).expect(1);
    world.poll(&["freeze", "site", "--reason", "audit"]).expect(0);
    world.poll(&["unfreeze", "site"]).expect(0);
    world.repo.rewind_to(&first);
    world.repo.commit(&[("index.html", file("other\n"))], "other");
    world.repo.force_push();
    world.poll(&[]).expect_one_of(&[0, 77]);
    let told: Vec<String> = runs(&world, &[])
        .iter()
        .map(|run| format!("{} {}", run["kind"].as_str().unwrap(), run["outcome"].as_str().unwrap()))
        .collect();
    let expected = ["unfreeze done", "freeze done", "retry failed", "deploy failed", "skip skipped", "deploy deployed"];
    assert_eq!(told[told.len() - 6..], expected, "{told:?}");
    let all = runs(&world, &[]);
    let failed = all.iter().find(|run| run["outcome"] == "failed").unwrap();
    assert_eq!((&failed["from"], &failed["to"]), (&first.as_str().into(), &bad.as_str().into()));
    assert_eq!((&failed["exit"], &failed["ref"]), (&3.into(), &"refs/heads/main".into()));
    assert!(failed["seconds"].is_number() && failed["error"].as_str().unwrap().contains("status 3"), "{failed:#}");
    let frozen = all.iter().find(|run| run["kind"] == "freeze").unwrap();
    assert_eq!((&frozen["reason"], &frozen["seconds"]), (&"audit".into(), &Value::Null));
    world.poll(&["history", "site"]).expect(0).prints("audit").prints("status 3");
}

#[test]
fn as_many_are_told_as_asked_for_and_what_is_older_is_not_even_read() {
    let world = World::new("limit");
    world.deployed();
    for round in 0..3 {
        world.push(&[("index.html", file(format!("{round}\n")))], "again");
        world.poll(&[]).expect(0);
    }
    assert_eq!(runs(&world, &[]).len(), 4);
    let two = runs(&world, &["-n", "2"]);
    assert_eq!(two, runs(&world, &[])[..2]);
    world.poll(&["history", "site", "-n", "0"]).expect(64).says("-n 1");
    world.poll(&["history", "site", "-n", "some"]).expect(64);
    let shown = world.poll_on_terminal(&["history", "site", "-n", "2"]).expect(0);
    assert!(shown.stderr.contains("older ones: poller history site -n 10"), "{}", shown.stderr);
    // Without the oldest entry only those who ask for it fail.
    let bare = &world.repositories()[0];
    let oldest = crate::support::repo::git(bare, &["rev-list", "--first-parent", "refs/poller/site"]);
    let oldest = oldest.lines().last().unwrap();
    fs::remove_file(bare.join("objects").join(&oldest[..2]).join(&oldest[2..])).unwrap();
    assert_eq!(runs(&world, &["-n", "2"]), two);
    world.poll(&["history", "site"]).expect(74).says("cannot be read").says("its newest entry is sound");
}

#[test]
fn what_is_shown_of_an_id_is_enough_for_the_log() {
    let world = World::new("ids");
    world.deployed();
    world.push(&[("deploy.sh", world.script("echo hello"))], "second");
    world.poll(&[]).expect(0);
    let shown = world.poll(&["history", "site"]).expect(0);
    for line in shown.stdout.lines().skip(1) {
        let beginning = line.split_whitespace().nth(1).unwrap();
        world.poll(&["log", "site", beginning]).expect(0).prints(beginning);
    }
}

#[test]
fn a_killed_run_is_told_once_and_as_interrupted() {
    let world = World::new("killed");
    world.deployed();
    world.push(&[("deploy.sh", super::status::waiting(&world, "", ""))], "slow");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("deploy.sh");
    assert_eq!(runs(&world, &[])[0]["outcome"], "running");
    running.kill_all();
    assert_eq!(runs(&world, &[])[0]["outcome"], "interrupted");
    world.poll(&["freeze", "site", "--reason", "first a look"]).expect(0);
    world.poll(&["unfreeze", "site"]).expect(0);
    super::status::go(&world);
    world.poll(&[]).expect(0);
    let outcomes: Vec<_> = runs(&world, &[]).iter().map(|run| run["outcome"].as_str().unwrap().to_owned()).collect();
    assert_eq!(outcomes, ["deployed", "interrupted", "done", "done", "deployed"]);
}

#[test]
fn an_app_whose_file_is_broken_or_gone_says_why_there_is_no_history() {
    let world = World::new("broken file");
    world.deployed();
    fs::write(world.path("etc/apps.d/site.toml"), "[source]\nbrunch = 1\n").unwrap();
    world.poll(&["history", "site"]).expect(78).says("site.toml:2").says("found by the URL");
    fs::remove_file(world.path("etc/apps.d/site.toml")).unwrap();
    world.poll(&["history", "site"]).expect(64).says("there is no app `site`").says("put the file back");
}

#[test]
fn the_screens_of_history() {
    needs_root!();
    let world = World::new("screens");
    world.app("site").deploy("retries = 2").write();
    world.deployed_as_configured();
    world.push(&[("deploy.sh", exec("#!/bin/sh\nexit 3\n"))], "bad");
    world.poll(&[]).expect(1);
    world.poll(&[]).expect(1);
    world.push(&[("deploy.sh", world.script("echo fine"))], "good");
    world.poll(&[]).expect(0);
    world.poll(&["freeze", "site", "--reason", "the auditors look at it"]).expect(0);
    let shown = world.poll_on_terminal(&["history", "site"]).expect(0);
    world.screen("history-terminal", "poller history site", &as_if_apart(&world, &plain(&shown.stderr)));
    let shown = world.poll(&["history", "site", "-n", "2", "--json"]).expect(0);
    world.screen("history-json", "poller history site -n 2 --json", &with_settled_stages(&shown.stdout));
}
