//! What the app's own commands make, which nobody but poller waits for: a build that does not sync, a
//! script that is cut short, a former script that runs again after a failure.

use std::fs;

use super::checks::{expect_log, expect_recovery, expect_undamaged, times_deployed};
use super::machine::Machine;
use super::makes;
use crate::tally::{Group, Tally};

fn while_it_runs(layout: &'static str, turn: usize) {
    let mut tally = Tally::new(Group::Power);
    for make in makes(turn) {
        let machine = Machine::new("scripts", make, layout);
        let mut before = machine.push(0);
        machine.world.poll(&[]).expect(0);
        for (round, name) in ["by-build", "by-script"].into_iter().enumerate() {
            tally.case(format!("{make}, {name}"));
            let after = machine.push(round + 1);
            let running = machine.poll_until(name);
            machine.cut(Some(running));
            expect_undamaged(&machine, &[&before, &after]);
            assert_eq!(machine.world.recorded("site").as_deref(), Some(before.as_str()));
            expect_recovery(&machine, &after);
            assert_eq!(times_deployed(&machine.world, &after), 1);
            before = after;
        }
    }
}

#[test]
fn while_a_script_runs_in_a_release() {
    needs_disks!();
    while_it_runs("releases", 1);
}

#[test]
fn while_a_script_runs_in_place() {
    needs_disks!();
    while_it_runs("in-place", 2);
}

/// The former script runs again, and writes its files once more.
fn after_a_failure(layout: &'static str, turn: usize) {
    let mut tally = Tally::new(Group::Power);
    for make in makes(turn) {
        tally.case(make);
        let machine = Machine::new("failed", make, layout);
        let world = &machine.world;
        let good = machine.push(0);
        world.poll(&[]).expect(0);
        let bad = machine.push_failing(1);
        world.poll(&[]).expect(1);
        machine.cut(None);
        expect_undamaged(&machine, &[&good]);
        assert_eq!(world.recorded("site").as_deref(), Some(good.as_str()));
        let failed = world.journal("site").remove(0);
        assert_eq!((failed.outcome(), failed.to()), ("failed", bad.as_str()));
        expect_recovery(&machine, &machine.push(2));
    }
}

#[test]
fn after_a_failed_deploy_was_taken_back_in_releases() {
    needs_disks!();
    after_a_failure("releases", 3);
}

#[test]
fn after_a_failed_deploy_was_taken_back_in_place() {
    needs_disks!();
    after_a_failure("in-place", 4);
}

/// What a power cut makes of a log: zeros where the length was on the disk and the bytes were not, or
/// the beginning of a line.
#[test]
fn a_log_whose_last_line_was_torn_loses_that_line_alone() {
    let world = crate::support::World::new("torn");
    world.deployed();
    let mut tally = Tally::new(Group::Power);
    let whole = fs::read(world.log_file()).unwrap();
    let end = whole.len();
    let zeroed = [&whole[..end - 50], &[0; 50]].concat();
    for (case, text) in
        [("cut", whole[..end - 20].to_vec()), ("one byte", whole[..end - 1].to_vec()), ("zeros", zeroed)]
    {
        tally.case(case);
        fs::write(world.log_file(), &text).unwrap();
        world.poll(&[]).expect(0).silent();
        expect_log(&world);
        let after = fs::read(world.log_file()).unwrap();
        let added = after.strip_prefix(text.as_slice()).expect("what was there stays as it is");
        assert!(added.starts_with(b"\n{"), "{}", String::from_utf8_lossy(added));
        assert!(String::from_utf8_lossy(added).contains("\"run.finished\""));
    }
}
