//! What must hold when the power is back, before any poll and after the next.

use std::fs;
use std::path::Path;

use super::machine::{LONG, Machine};
use crate::support::World;
use crate::support::repo::{Tree, git};

/// Before the next poll: nothing that is live or recorded is damaged.
#[track_caller]
pub fn expect_undamaged(machine: &Machine, commits: &[&str]) {
    expect_sound_repositories(&machine.world);
    if machine.is_in_place() {
        expect_each_file_old_or_new(machine, commits);
    } else {
        expect_whole_release(machine, commits);
    }
    expect_what_is_recorded(machine);
}

/// Plain git finds every object and every ref whole.
#[track_caller]
pub fn expect_sound_repositories(world: &World) {
    for bare in world.repositories() {
        git(&bare, &["fsck", "--strict", "--full", "--no-dangling"]);
        let refs = git(&bare, &["for-each-ref", "--format=%(objectname)"]);
        let loose = fs::read_dir(bare.join("refs/poller")).into_iter().flatten().flatten();
        let loose = loose.filter(|entry| entry.path().extension().is_none_or(|ext| ext != "lock")).count();
        assert!(refs.lines().count() >= loose, "a ref that git passes over: {refs}");
    }
}

#[track_caller]
fn expect_whole_release(machine: &Machine, commits: &[&str]) {
    let world = &machine.world;
    let Ok(link) = fs::read_link(world.target("site").join("current")) else {
        return;
    };
    let release = world.target("site").join(&link);
    assert!(link.starts_with("releases") && release.is_dir(), "current leads to {}", link.display());
    let live = world.revision("site").unwrap_or_default();
    assert!(commits.contains(&live.as_str()), "live is {live:?}, and not one of {commits:?}");
    assert!(link.to_str().unwrap().ends_with(&live), "{live} in {}", link.display());
    expect_tree(machine, &live);
    // It was built before it went live.
    assert_eq!(made(&release, "by-build"), format!("{live}\n"), "what the build made");
}

/// What is live is the commit's, but for what build and script made and what is shared.
#[track_caller]
pub fn expect_tree(machine: &Machine, commit: &str) {
    let world = &machine.world;
    let mut live: Tree = world.live("site");
    if !machine.is_in_place() {
        for shared in ["media", LONG] {
            let (mode, _) = live.remove(shared).unwrap_or_else(|| panic!("no link {shared}"));
            assert_eq!(mode, "120000", "{shared}");
            assert!(world.live_folder("site").join(shared).is_dir(), "{shared} leads to no folder");
        }
    }
    // What waited to be renamed is removed when something is staged again.
    live.retain(|path, _| !path.starts_with("made/") && path != UNTRACKED && !path.starts_with(".poller.partial"));
    assert_eq!(world.revision("site").as_deref(), Some(commit), "REVISION");
    crate::support::readers::same_tree(&live, &world.repo.ls_tree(commit));
}

fn made(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join("made").join(name)).unwrap_or_default()
}

/// A file of somebody else's, with the layout `in-place`.
pub const UNTRACKED: &str = "uploads.db";

/// In place: each file as it was or as it will be; none empty, none cut short.
#[track_caller]
fn expect_each_file_old_or_new(machine: &Machine, commits: &[&str]) {
    let world = &machine.world;
    let trees: Vec<Tree> = commits.iter().map(|commit| world.repo.ls_tree(commit)).collect();
    let live: Tree = world.live("site");
    let paths: std::collections::BTreeSet<&String> = trees.iter().flat_map(|tree| tree.keys()).collect();
    for path in paths {
        let may_be: Vec<_> = trees.iter().map(|tree| tree.get(path)).collect();
        // Nothing was deployed before the first.
        let absent = !live.contains_key(path) && trees.len() == 1;
        assert!(absent || may_be.contains(&live.get(path)), "{path}: {:?}, not {may_be:?}", live.get(path));
    }
}

/// What the journal calls deployed is there, and what is live is in the journal.
#[track_caller]
fn expect_what_is_recorded(machine: &Machine) {
    let world = &machine.world;
    let newest = world.newest_entry("site");
    let commit = |name: &str| {
        let table = newest.as_ref()?.state.get(name)?;
        table.get("commit")?.as_str().map(str::to_owned)
    };
    let (deployed, started) = (commit("deployed"), commit("started"));
    if !machine.is_in_place() {
        let live = world.revision("site");
        let known = live == deployed || (live.is_some() && live == started);
        assert!(known, "live is {live:?}, deployed {deployed:?}, begun {started:?}");
    }
    if let (Some(deployed), None) = (&deployed, &started) {
        expect_tree(machine, deployed);
        let (build, script) =
            (made(&world.live_folder("site"), "by-build"), made(&world.live_folder("site"), "by-script"));
        assert_eq!(script, format!("{deployed}\n"), "what the script made");
        // In place the build of a commit that failed is not undone: only the script runs again.
        let built = build == format!("{deployed}\n") || (machine.is_in_place() && build.len() == 41);
        assert!(built, "what the build of {deployed} made: {build:?}");
    }
}

/// The poll after a power cut: it ends well by itself, and after it there is nothing to do.
#[track_caller]
pub fn expect_recovery(machine: &Machine, goal: &str) {
    let world = &machine.world;
    let before = world.journal_tip("site");
    world.poll(&[]).expect(0);
    expect_tree(machine, goal);
    expect_sound_repositories(world);
    assert_eq!(world.recorded("site").as_deref(), Some(goal), "{:?}", world.history("site"));
    expect_what_is_recorded(machine);
    if machine.is_in_place() && world.target("site").join(UNTRACKED).exists() {
        assert_eq!(fs::read_to_string(world.target("site").join(UNTRACKED)).unwrap(), "mine\n");
    }
    // A poll with nothing to do tidies nothing up: it writes nothing but its log.
    if world.journal_tip("site") != before {
        world.expect_no_leftovers("site");
    }
    world.expect_no_processes();
    world.poll(&[]).expect(0).silent();
    expect_log(world);
}

/// What a cut left of a line stands on a line of its own; all others are whole.
#[track_caller]
pub fn expect_log(world: &World) {
    let text = fs::read(world.log_file()).unwrap();
    assert!(text.ends_with(b"\n"), "the log's last line is torn");
    for line in text.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
        let whole = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line).is_ok();
        let line = String::from_utf8_lossy(line);
        // A length that was on the disk before the bytes shows as zeros.
        let lost = line.ends_with('\0') || (line.starts_with('{') && !line.ends_with('}'));
        assert!(whole || lost, "in the log: {line:?}");
    }
}

/// How often the journal says that a commit was deployed, whole trees apart.
pub fn times_deployed(world: &World, commit: &str) -> usize {
    world.journal("site").iter().filter(|entry| entry.outcome() == "deployed" && entry.to() == commit).count()
}

/// The kind of the newest entry.
pub fn newest_kind(world: &World) -> String {
    world.newest_entry("site").map(|entry| entry.kind().to_owned()).unwrap_or_default()
}
