//! Power cuts on real file systems, at each boundary between stages and at each call in between that
//! changes a name or waits for the disk: what was not synced is gone, the next run finds nothing damaged
//! and comes to the right end by itself.
//!
//! - `machine` is a world on a disk that can lose its power
//! - `stops` finds the moments of a run and holds it there
//! - `checks` says what must hold when the power is back
//!
//! `POLLER_FAULTS=all` meets every moment on ext4, on xfs and on one disk more, otherwise a few on some.

macro_rules! needs_disks {
    () => {
        needs_root!();
        needs_program!("strace");
        needs_program!("mkfs.ext4");
        needs_program!("mkfs.xfs");
        needs_program!("xfs_io");
        if !std::path::Path::new("/dev/loop-control").exists() {
            skip!("needs loop devices")
        }
    };
}

mod checks;
mod machine;
mod scripts;
mod setting_up;
mod stops;

use std::fs;

use crate::all;
use crate::support::mounts::{Cut, Kind};
use crate::tally::{Group, Tally};
use checks::{UNTRACKED, expect_recovery, expect_undamaged, newest_kind, times_deployed};
use machine::{Lost, Machine, Make};
use stops::{Met, Point};

const fn make(kind: Kind, lost: Lost, cut: Cut) -> Make {
    Make { kind, lost, cut }
}

const MAKES: [Make; 9] = [
    make(Kind::Ext4, Lost::Everything, Cut::Unsynced),
    make(Kind::Xfs, Lost::Everything, Cut::Unsynced),
    make(Kind::Ext4Writeback, Lost::Everything, Cut::Unsynced),
    make(Kind::Ext4, Lost::State, Cut::Unsynced),
    make(Kind::Xfs, Lost::Target, Cut::Unsynced),
    make(Kind::Ext4Writeback, Lost::Everything, Cut::UnsyncedData),
    make(Kind::Xfs, Lost::Everything, Cut::UnsyncedData),
    make(Kind::Ext4Writeback, Lost::Target, Cut::UnsyncedData),
    make(Kind::Xfs, Lost::State, Cut::UnsyncedData),
];
/// So many of them meet every moment, the rest its share of them.
const ON_EACH: usize = 2;
const SHARED: usize = MAKES.len() - ON_EACH;

/// All, or two that differ from one `turn` to the next.
fn makes(turn: usize) -> Vec<Make> {
    if all() { MAKES.to_vec() } else { vec![MAKES[turn % MAKES.len()], MAKES[(turn + 4) % MAKES.len()]] }
}

/// What is done when the power fails.
struct Deed<'d> {
    turn: usize,
    layout: &'static str,
    args: &'d [&'d str],
    /// Makes ready for it; `round` never comes twice.
    prepare: &'d dyn Fn(&Machine, usize) -> Expected,
}

struct Expected {
    /// What may be live when the power is back.
    before: Option<String>,
    after: String,
    /// The kind of its journal entries.
    kind: &'static str,
}

/// Cuts the power at the moments of a deed, each of them or some, and once right after it said that it
/// had gone well.
fn at_each_moment(name: &str, deed: &Deed) {
    let mut tally = Tally::new(Group::Power);
    let (mut met, mut missed, mut moments, makes) = (0, 0, 0, makes(deed.turn));
    for (index, &make) in makes.iter().enumerate() {
        let machine = Machine::new(name, make, deed.layout);
        let mut rounds = 0..;
        let mut prepare = || (deed.prepare)(&machine, rounds.next().unwrap());
        prepare();
        let (outcome, points) = stops::points(&machine.world, deed.args);
        outcome.expect(0);
        assert!(points.len() > 15, "only {} moments: {points:?}", points.len());
        moments = points.len();
        let chosen = chosen(&points, index, deed.turn);
        for point in chosen {
            tally.case(format!("{make}, after {point}"));
            let expected = prepare();
            match stops::stop_at(&machine.world, deed.args, point) {
                Met::Stopped(running) => {
                    met += 1;
                    machine.cut(Some(running));
                    expect_right_end(&machine, deed, &expected, Said::Nothing);
                }
                Met::Over(outcome) => {
                    missed += 1;
                    outcome.expect(0);
                    machine.cut(None);
                    expect_right_end(&machine, deed, &expected, Said::Done);
                }
            }
        }
        tally.case(format!("{make}, after its end"));
        let expected = prepare();
        machine.world.poll(deed.args).expect(0);
        machine.cut(None);
        expect_right_end(&machine, deed, &expected, Said::Done);
    }
    tally.note(format!("{met} moments of {moments} a run, on {} kinds of disk", makes.len()));
    // A run takes a few calls more or less each time, such as a folder for the first object in it.
    assert!(missed <= met, "{missed} moments did not come again, {met} did");
}

/// Of the moments each on the first makes; the others share them, so that each is met once more. By
/// default two.
fn chosen(points: &[Point], index: usize, turn: usize) -> Vec<&Point> {
    let (first, step) = match (all(), index.checked_sub(ON_EACH)) {
        (true, None) => (0, 1),
        (true, Some(share)) => ((share + turn) % SHARED, SHARED),
        (false, _) => (2 + 3 * turn % (points.len() / 2), points.len() / 2),
    };
    points.iter().skip(first).step_by(step).collect()
}

/// What the run had said when the power failed.
#[derive(Clone, Copy, PartialEq)]
enum Said {
    Done,
    Nothing,
}

#[track_caller]
fn expect_right_end(machine: &Machine, deed: &Deed, expected: &Expected, said: Said) {
    let world = &machine.world;
    let after = expected.after.as_str();
    let may_be_live: Vec<&str> = expected.before.as_deref().into_iter().chain([after]).collect();
    let begun = newest_kind(world) == expected.kind;
    expect_undamaged(machine, &may_be_live);
    if said == Said::Done {
        assert!(begun, "it had ended well, and is not on record: {:?}", world.history("site"));
        assert_eq!(world.recorded("site").as_deref(), Some(after), "what had ended well");
    }
    let (entries, runs) = (times_deployed(world, after), world.ran().len());
    // A deploy is made good by the poll itself; what somebody asked for by hand only if it was begun.
    let goal = match &expected.before {
        Some(before) if !begun && !deed.args.is_empty() => before,
        _ => after,
    };
    expect_recovery(machine, goal);
    if said == Said::Done {
        assert_eq!((times_deployed(world, after), world.ran().len()), (entries, runs), "nothing was done twice");
        world.expect_no_leftovers("site");
    }
}

fn first_deploy(machine: &Machine, round: usize) -> Expected {
    machine.make_anew();
    Expected { before: None, after: machine.push(round), kind: "deploy" }
}

#[test]
fn during_a_first_deploy_into_releases() {
    needs_disks!();
    at_each_moment("first", &Deed { turn: 0, layout: "releases", args: &[], prepare: &first_deploy });
}

#[test]
fn during_a_first_deploy_in_place() {
    needs_disks!();
    at_each_moment("firstplace", &Deed { turn: 1, layout: "in-place", args: &[], prepare: &first_deploy });
}

/// One commit deployed, and the next one pushed.
fn update(machine: &Machine, round: usize) -> Expected {
    let world = &machine.world;
    if round == 0 {
        machine.push(0);
        world.poll(&[]).expect(0);
        let untracked = world.target("site").join(UNTRACKED);
        if machine.is_in_place() {
            fs::write(&untracked, "mine\n").unwrap();
            machine.sync();
        }
    }
    let before = world.recorded("site");
    Expected { before, after: machine.push(round + 1), kind: "deploy" }
}

#[test]
fn during_an_update_into_releases() {
    needs_disks!();
    at_each_moment("update", &Deed { turn: 2, layout: "releases", args: &[], prepare: &update });
}

#[test]
fn during_an_update_in_place() {
    needs_disks!();
    at_each_moment("updateplace", &Deed { turn: 3, layout: "in-place", args: &[], prepare: &update });
}

/// Two commits deployed, nothing frozen, the newer one live.
fn two_deployed(machine: &Machine, round: usize) -> (String, String) {
    let world = &machine.world;
    if round == 0 {
        machine.push(0);
        world.poll(&[]).expect(0);
        machine.push(1);
    }
    if round > 0 {
        world.poll(&["unfreeze", "site"]).expect(0);
    }
    world.poll(&[]).expect(0);
    let newest = world.newest_entry("site").unwrap();
    let previous = newest.state["previous"]["commit"].as_str().unwrap().to_owned();
    (previous, world.recorded("site").unwrap())
}

fn rollback(machine: &Machine, round: usize) -> Expected {
    let (previous, live) = two_deployed(machine, round);
    Expected { before: Some(live), after: previous, kind: "rollback" }
}

const BECAUSE: [&str; 2] = ["--reason", "the power fails"];

#[test]
fn during_a_rollback_by_hand() {
    needs_disks!();
    let args = ["rollback", "site", BECAUSE[0], BECAUSE[1]];
    at_each_moment("rollback", &Deed { turn: 4, layout: "releases", args: &args, prepare: &rollback });
}

#[test]
fn during_a_rollback_by_hand_in_place() {
    needs_disks!();
    let args = ["rollback", "site", BECAUSE[0], BECAUSE[1]];
    at_each_moment("rollbackplace", &Deed { turn: 5, layout: "in-place", args: &args, prepare: &rollback });
}

fn freeze(machine: &Machine, round: usize) -> Expected {
    let (_, live) = two_deployed(machine, round);
    Expected { before: Some(live.clone()), after: live, kind: "freeze" }
}

#[test]
fn during_a_freeze() {
    needs_disks!();
    let args = ["freeze", "site", BECAUSE[0], BECAUSE[1]];
    at_each_moment("freeze", &Deed { turn: 6, layout: "releases", args: &args, prepare: &freeze });
}
