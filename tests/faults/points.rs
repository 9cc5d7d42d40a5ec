//! SIGKILL at every system call of a poll, a deploy in both layouts, a rollback and a freeze: each call
//! of each process of poller's, from its `fork` on, is met once.

use std::fs;

use crate::all;
use crate::scenes::Scene;
use crate::tally::{Group, Tally};
use crate::tracer::{self, Blow, Calls};

/// How many points of a scene `make test` meets.
const FEW: usize = 10;

fn at_each_call(scene: Scene) {
    needs_root!();
    let stage = scene.set();
    let seen = tracer::count(&stage.world, scene.arguments(), Calls::All);
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    stage.expect_end("nothing");
    let points = seen.points();
    let stride = if all() { 1 } else { points.len().div_ceil(FEW) };
    let mut tally = Tally::new(Group::Kills);
    let mut met = 0;
    for point in points.iter().step_by(stride) {
        stage.reset();
        let seen = tracer::strike(&stage.world, scene.arguments(), Calls::All, *point, Blow::Kill);
        let what = seen.struck.unwrap_or_else(|| "nothing".into());
        tally.case(&what);
        met += usize::from(what != "nothing");
        stage.expect_whole(&what);
        stage.expect_recovery(&what);
    }
    let of: Vec<String> = seen.processes.iter().map(|p| format!("{} {}", p.role, p.calls.len())).collect();
    tally.note(format!("{met} of {} calls: {}", points.len(), of.join(", ")));
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
