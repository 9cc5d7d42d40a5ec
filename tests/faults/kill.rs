//! SIGKILL at any moment: the next run comes to the right end by itself, and what is live is at every
//! moment wholly the old tree or wholly the new one.
//!
//! Two ways: by the clock over a whole deploy, and by strace at each of the calls that change something.
//! `POLLER_FAULTS=all` meets every point, otherwise every few are met.

use std::process::Command;
use std::time::Duration;

use crate::all;
use crate::support::{World, file, gone, seconds, wait_until};
use crate::tally::{Group, Tally};

fn make(name: &str, layout: &str) -> (World, String) {
    let world = World::new(name);
    world.app("site").target(&format!("layout = \"{layout}\"")).write();
    let first = world.deployed_as_configured();
    (world, first)
}

fn change(world: &World, round: usize) -> String {
    let script = world.script(&format!("sleep 0.05 # {round}"));
    let page = format!("pages/{round}.html");
    let old = format!("pages/{}.html", round.saturating_sub(3));
    world.repo.commit(&[(&old, gone()), ("deploy.sh", script)], "tidy");
    world.push(&[(&page, file("page\n")), ("index.html", file(format!("{round}\n")))], "round")
}

/// `current` must be whole at any moment; in-place only after the next run.
#[track_caller]
fn expect_old_or_new(world: &World, layout: &str, old: &str, new: &str) {
    if layout == "releases" {
        let live = world.revision("site");
        assert!([Some(old), Some(new)].contains(&live.as_deref()), "live is {live:?}");
        world.expect_live("site", live.as_deref().unwrap());
    }
}

#[track_caller]
fn expect_recovery(world: &World, tip: &str, what: &str) {
    // What a killed run left running may hold the lock for a moment.
    let mut last = 0;
    wait_until(&format!("a good end after {what}, {last}"), seconds(30), || {
        let outcome = world.poll(&[]).expect_one_of(&[0, 75]);
        last = outcome.code;
        last == 0
    });
    assert_eq!(world.revision("site").as_deref(), Some(tip), "{what}");
    world.expect_live("site", tip);
    assert_eq!(world.recorded("site").as_deref(), Some(tip), "{what}");
    let deployed = world.journal("site").iter().filter(|e| e.outcome() == "deployed" && e.to() == tip).count();
    assert_eq!(deployed, 1, "{what}: recorded once\n{:?}", world.history("site"));
    assert!(world.ran().iter().any(|(_, commit)| commit == tip), "{what}: its script ran");
    world.expect_no_leftovers("site");
    world.expect_no_processes();
    world.poll(&[]).expect(0).silent();
}

fn by_the_clock(layout: &str) {
    let (world, _) = make("clock", layout);
    let mut old = change(&world, 0);
    let took = world.poll(&[]).expect(0).took;
    let steps = if all() { 200 } else { 25 };
    let mut tally = Tally::new(Group::Kills);
    for step in 1..=steps {
        tally.case(format!("step {step} of {steps}"));
        let new = change(&world, step);
        let running = world.spawn_poll(&[]);
        std::thread::sleep(took * step as u32 / steps as u32);
        running.kill_all();
        expect_old_or_new(&world, layout, &old, &new);
        expect_recovery(&world, &new, &format!("step {step} of {steps}"));
        old = new;
    }
}

#[test]
fn by_the_clock_over_a_deploy_into_releases() {
    by_the_clock("releases");
}

#[test]
fn by_the_clock_over_a_deploy_in_place() {
    by_the_clock("in-place");
}

/// The calls that change something, or that begin something. Those with `?` are not on every machine.
const CHANGES: [&str; 18] = [
    "?rename,?renameat,renameat2",
    "?unlink,unlinkat",
    "?mkdir,mkdirat",
    "?symlink,symlinkat",
    "?link,linkat",
    "?rmdir",
    "fsync",
    "fdatasync",
    "syncfs",
    "ftruncate",
    "fchmod",
    "?open,openat,openat2",
    "setsid",
    "connect",
    "flock",
    "close",
    "write",
    "dup2,dup3",
];

/// A poll under strace in which each process dies of its `number`th such call. Whether any did.
fn poll_that_dies_at(world: &World, calls: &str, number: usize) -> bool {
    let trace = world.path("trace");
    let plain = world.command(&[]);
    let mut traced = Command::new("/usr/bin/strace");
    traced.args(["-f", "-q", "-o"]).arg(&trace);
    traced.args(["-e", &format!("trace={calls}")]);
    traced.args(["-e", &format!("inject={calls}:signal=SIGKILL:when={number}")]);
    traced.arg(plain.get_program()).args(plain.get_args());
    traced.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/root");
    world.spawn(traced).wait();
    let text = std::fs::read(&trace).unwrap();
    String::from_utf8_lossy(&text).contains("killed by SIGKILL")
}

fn at_each_change(layout: &str) {
    let (world, mut old) = make("changes", layout);
    let (mut met, mut round) = (0, 0);
    for calls in CHANGES {
        // strace counts in each process and for each call on its own.
        let numbers = if all() { 1..200 } else { 1..4 };
        for number in numbers {
            round += 1;
            let new = change(&world, round);
            let struck = poll_that_dies_at(&world, calls, number);
            expect_old_or_new(&world, layout, &old, &new);
            expect_recovery(&world, &new, &format!("{calls} number {number}"));
            old = new;
            if !struck {
                break;
            }
            met += 1;
        }
    }
    assert!(met > 10, "only {met} points were met");
}

#[test]
fn at_each_change_of_a_deploy_into_releases() {
    needs_root!();
    needs_program!("strace");
    at_each_change("releases");
}

#[test]
fn at_each_change_of_a_deploy_in_place() {
    needs_root!();
    needs_program!("strace");
    at_each_change("in-place");
}

#[test]
fn during_a_first_deploy() {
    for percent in [10, 25, 40, 55, 70, 85] {
        let world = World::new("first");
        world.app("site").write();
        let first = world.push(&[("deploy.sh", world.script("sleep 0.1"))], "first");
        let running = world.spawn_poll(&[]);
        std::thread::sleep(Duration::from_millis(4 * percent));
        running.kill_all();
        expect_recovery(&world, &first, &format!("{percent} percent"));
    }
}

#[test]
fn what_a_kill_leaves_in_the_repository_stops_nobody() {
    let (world, _) = make("locks", "releases");
    let bare = world.repositories().remove(0);
    for name in
        ["HEAD.lock", "config.lock", "packed-refs.lock", "refs/poller/site.lock", "objects/pack/pack_git2_x1y2z3"]
    {
        std::fs::create_dir_all(bare.join(name).parent().unwrap()).unwrap();
        std::fs::write(bare.join(name), "").unwrap();
        world.fetcher.own(&bare.join(name));
    }
    let half = world.target("site").join("releases/20200101T000000Z-0123456.partial");
    std::fs::create_dir(&half).unwrap();
    world.deployer.own(&half);
    let new = change(&world, 1);
    expect_recovery(&world, &new, "leftovers");
}
