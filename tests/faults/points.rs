//! SIGKILL at every system call of a poll, a deploy in both layouts, a rollback and a freeze: each call
//! of each process of poller's, from its `fork` on, is met once.

use std::fs;

use nix::libc;

use crate::all;
use crate::scenes::{Scene, Stage};
use crate::tally::{Group, Tally};
use crate::tracer::{self, Blow, Calls, Point, Process, Seen};

/// How many points of a scene `make test` meets.
const FEW: usize = 10;

/// Runs differ by some reads from the network: past a process's counted calls further ones are tried until
/// so many in a row were not there.
const MISSED: usize = 12;

fn at_each_call(scene: Scene) {
    needs_root!();
    let stage = scene.set();
    let seen = undisturbed(&stage, Calls::All);
    let points = seen.points();
    let mut tally = Tally::new(Group::Kills);
    let mut met = 0;
    if all() {
        for (process, known) in seen.processes.iter().enumerate() {
            let (mut call, mut missed) = (1, 0);
            while call <= known.calls.len() || (missed < MISSED && !known.calls.is_empty()) {
                let is_met = kill_at(&stage, Calls::All, Point { process, call }, &mut tally);
                met += usize::from(is_met);
                missed = if is_met { 0 } else { missed + 1 };
                call += 1;
            }
        }
    } else {
        let few = points.iter().step_by(points.len().div_ceil(FEW));
        met = few.filter(|point| kill_at(&stage, Calls::All, **point, &mut tally)).count();
    }
    let of: Vec<String> = seen.processes.iter().map(|p| format!("{} {}", p.role, p.calls.len())).collect();
    tally.note(format!("{met} points, one run makes {} calls: {}", points.len(), of.join(", ")));
}

/// The calls that are made when nothing happens.
fn undisturbed(stage: &Stage, calls: Calls) -> Seen {
    let seen = tracer::count(&stage.world, stage.scene.arguments(), calls);
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    stage.expect_end("nothing");
    seen
}

/// Plays the scene once; whether the point was met.
fn kill_at(stage: &Stage, calls: Calls, point: Point, tally: &mut Tally) -> bool {
    stage.reset();
    let seen = tracer::strike(&stage.world, stage.scene.arguments(), calls, point, Blow::Kill);
    let Some(what) = seen.struck else { return false };
    tally.case(&what);
    stage.expect_whole(&what);
    stage.expect_recovery(&what);
    true
}

/// The entry stands there, and nobody was told.
#[test]
fn from_the_update_of_the_ref_to_the_end_of_who_makes_it() {
    needs_root!();
    let mut tally = Tally::new(Group::Kills);
    for scene in [Scene::Releases, Scene::InPlace, Scene::Rollback] {
        let stage = scene.set();
        let renames = Calls::From { number: libc::SYS_rename, times: 1 };
        let all = undisturbed(&stage, renames);
        let renames = |calls: &[_]| calls.iter().filter(|call| **call as i64 == libc::SYS_rename).count();
        // The last one looks after the repository, and renames nothing.
        let makes_it = |p: &Process| p.role == "fetcher" && renames(&p.calls) > 0;
        let process = all.processes.iter().rposition(makes_it).expect("a fetcher");
        let times = renames(&all.processes[process].calls);
        let last = Calls::From { number: libc::SYS_rename, times };
        let met = (1..=20).filter(|call| kill_at(&stage, last, Point { process, call: *call }, &mut tally)).count();
        assert!(met > 5, "{met} points of {scene:?}");
    }
}

#[test]
fn between_making_the_state_folder_and_giving_it_away() {
    needs_root!();
    let stage = Scene::First.set();
    let given = Calls::From { number: libc::SYS_lchown, times: 1 };
    assert!(kill_at(&stage, given, Point { process: 0, call: 1 }, &mut Tally::new(Group::Kills)));
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
