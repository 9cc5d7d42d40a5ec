//! SIGKILL at every system call of a poll, a deploy in both layouts, a rollback and a freeze: each call
//! of each process of poller's, from its `fork` on, is met once.

use std::fs;

use nix::libc;

use crate::all;
use crate::scenes::{Scene, Stage};
use crate::tally::{Group, Tally};
use crate::tracer::{self, Blow, Calls, Point, Seen};

/// How many points of a scene `make test` meets.
const FEW: usize = 10;

fn at_each_call(scene: Scene) {
    needs_root!();
    let stage = scene.set();
    let seen = undisturbed(&stage);
    let points = seen.points();
    let stride = if all() { 1 } else { points.len().div_ceil(FEW) };
    let mut tally = Tally::new(Group::Kills);
    let met = kill_at(&stage, points.iter().step_by(stride), &mut tally);
    let of: Vec<String> = seen.processes.iter().map(|p| format!("{} {}", p.role, p.calls.len())).collect();
    tally.note(format!("{met} of {} calls: {}", points.len(), of.join(", ")));
}

/// The calls that are made when nothing happens.
fn undisturbed(stage: &Stage) -> Seen {
    let seen = tracer::count(&stage.world, stage.scene.arguments(), Calls::All);
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    stage.expect_end("nothing");
    seen
}

/// Plays the scene once for each point; how many were met. Not each run makes the same number of calls.
fn kill_at<'p>(stage: &Stage, points: impl Iterator<Item = &'p Point>, tally: &mut Tally) -> usize {
    let mut met = 0;
    for point in points {
        stage.reset();
        let seen = tracer::strike(&stage.world, stage.scene.arguments(), Calls::All, *point, Blow::Kill);
        let what = seen.struck.unwrap_or_else(|| "nothing".into());
        tally.case(&what);
        met += usize::from(what != "nothing");
        stage.expect_whole(&what);
        stage.expect_recovery(&what);
    }
    met
}

/// The points of the last process of this role from its `call` on.
fn from_call_on(seen: &Seen, role: &str, call: i64) -> Vec<Point> {
    let process = seen.processes.iter().rposition(|p| p.role == role).expect("the process");
    let calls = &seen.processes[process].calls;
    let at = calls.iter().rposition(|number| *number as i64 == call).expect("the call");
    (at + 1..=calls.len()).map(|call| Point { process, call }).collect()
}

/// The entry stands there, and nobody was told.
#[test]
fn from_the_update_of_the_ref_to_the_end_of_who_makes_it() {
    needs_root!();
    let mut tally = Tally::new(Group::Kills);
    for scene in [Scene::Releases, Scene::InPlace, Scene::Rollback] {
        let stage = scene.set();
        let points = from_call_on(&undisturbed(&stage), "fetcher", libc::SYS_rename);
        let met = kill_at(&stage, points.iter().take(25), &mut tally);
        assert!(met > 3, "{met} points of {scene:?}");
    }
}

#[test]
fn between_making_the_state_folder_and_giving_it_away() {
    needs_root!();
    let stage = Scene::First.set();
    let points = from_call_on(&undisturbed(&stage), "supervisor", libc::SYS_chown);
    assert_eq!(kill_at(&stage, points.iter().take(1), &mut Tally::new(Group::Kills)), 1);
}

#[test]
fn of_a_poll_that_finds_nothing_new() {
    at_each_call(Scene::Unchanged);
}

#[test]
fn of_a_first_deploy() {
    at_each_call(Scene::First);
}

#[test]
fn of_a_deploy_into_releases() {
    at_each_call(Scene::Releases);
}

#[test]
fn of_a_deploy_in_place() {
    at_each_call(Scene::InPlace);
}

#[test]
fn of_a_rollback() {
    at_each_call(Scene::Rollback);
}

#[test]
fn of_a_freeze() {
    at_each_call(Scene::Freeze);
}

#[test]
fn of_an_unfreeze() {
    at_each_call(Scene::Unfreeze);
}

#[test]
fn what_a_kill_leaves_in_the_repository_stops_nobody() {
    needs_root!();
    let stage = Scene::Releases.set();
    let world = &stage.world;
    let bare = world.repositories().remove(0);
    for name in
        ["HEAD.lock", "config.lock", "packed-refs.lock", "refs/poller/site.lock", "objects/pack/pack_git2_x1y2z3"]
    {
        fs::create_dir_all(bare.join(name).parent().unwrap()).unwrap();
        fs::write(bare.join(name), "").unwrap();
        world.fetcher.own(&bare.join(name));
    }
    let half = world.target("site").join("releases/20200101T000000Z-0123456.partial");
    fs::create_dir(&half).unwrap();
    world.deployer.own(&half);
    stage.expect_recovery("leftovers");
}
