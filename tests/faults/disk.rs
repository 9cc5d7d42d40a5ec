//! Full and failing disks: each call by which a poll, a deploy, a rollback or a freeze changes something
//! on a disk meets ENOSPC once, and EIO once.
//!
//! What libgit2 writes through memory maps can get no error that way; `tests/scenarios/disk.rs` fills real
//! file systems for that.

use nix::errno::Errno;

use crate::all;
use crate::scenes::Scene;
use crate::support::{World, file};
use crate::tally::{Group, Tally};
use crate::tracer::{self, Blow, Calls};

/// How many points of a scene `make test` meets.
const FEW: usize = 6;

/// Input or output, a failed deploy, or a helper that could not say more: each a sentence of its own.
const SOUND: [i32; 3] = [0, 1, 74];

fn at_each_change(scene: Scene) {
    needs_root!();
    let stage = scene.set();
    let seen = tracer::count(&stage.world, scene.arguments(), Calls::Changes);
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    stage.expect_end("nothing");
    let points = seen.points();
    let stride = if all() { 1 } else { points.len().div_ceil(FEW) };
    let mut tally = Tally::new(Group::Disk);
    let (mut met, mut unharmed) = (0, 0);
    for point in points.iter().step_by(stride) {
        for errno in [Errno::ENOSPC, Errno::EIO] {
            stage.reset();
            let seen = tracer::strike(&stage.world, scene.arguments(), Calls::Changes, *point, Blow::Error(errno));
            let what = format!("{errno} for {}", seen.struck.as_deref().unwrap_or("nothing"));
            tally.case(&what);
            met += usize::from(seen.struck.is_some());
            let said = format!("{what}: exit {}\n{}{}", seen.code, seen.stdout, seen.stderr);
            assert!(SOUND.contains(&seen.code) && !seen.stderr.contains("panicked"), "{said}");
            stage.expect_whole(&said);
            if seen.code == 0 {
                // It said that all is well, so it is.
                unharmed += 1;
                stage.expect_done(&said);
                stage.expect_nothing_left_by_the_next_deploy(&said);
            } else {
                stage.expect_recovery(&said);
            }
        }
    }
    let of: Vec<String> = seen.processes.iter().map(|p| format!("{} {}", p.role, p.calls.len())).collect();
    let twice = 2 * points.len();
    tally.note(format!("{met} of {twice}, {unharmed} did no harm; calls: {}", of.join(", ")));
}

#[test]
fn of_a_poll_that_finds_nothing_new() {
    at_each_change(Scene::Unchanged);
}

#[test]
fn of_a_first_deploy() {
    at_each_change(Scene::First);
}

#[test]
fn of_a_deploy_into_releases() {
    at_each_change(Scene::Releases);
}

#[test]
fn of_a_deploy_in_place() {
    at_each_change(Scene::InPlace);
}

#[test]
fn of_a_rollback() {
    at_each_change(Scene::Rollback);
}

#[test]
fn of_a_freeze() {
    at_each_change(Scene::Freeze);
}

#[test]
fn of_an_unfreeze() {
    at_each_change(Scene::Unfreeze);
}

/// What each says goes to a full device, as when the disk with a redirected output is full.
#[test]
fn of_standard_output_and_standard_error() {
    let world = World::new("full streams");
    world.deployed();
    world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    let failing = world.push(&[("deploy.sh", world.script("exit 3"))], "third");
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut tally = Tally::new(Group::Disk);
    let mut case = |arguments: &[&str], code: i32| {
        tally.case(format!("{arguments:?}"));
        let mut command = world.command(arguments);
        let status = command.stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    };
    case(&["--dry-run"], 74);
    case(&[], 1);
    assert!(world.journal("site")[0].text("error").contains("status 3"), "{failing} failed");
    for command in [&["status"][..], &["status", "--json"], &["history", "site"], &["log", "site"], &["sudoers"]] {
        case(command, 74);
    }
    case(&["check", "site"], 74);
    case(&["retry", "site"], 1);
    // Done, and not told: it is no success, and it stands in the journal.
    case(&["rollback", "site"], 74);
    assert_eq!(world.history("site").last().unwrap(), "rollback deployed");
    case(&["unfreeze", "site"], 74);
    case(&["freeze", "site", "--reason", "a test"], 74);
    assert_eq!(world.history("site").last().unwrap(), "freeze done");
    case(&["freeze", "site", "--reason", "again"], 64);
    case(&["status", "nobody"], 64);
    case(&["completions", "bash"], 74);
    case(&["_fetcher", "1"], 70);
}
