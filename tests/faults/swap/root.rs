//! Root opens nothing below an app's target, by any path: seen by strace over all kinds of runs.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::process::Command;

use super::{make, push};
use crate::support::World;
use crate::tally::{Group, Tally};

/// Lines of root's processes that have the target in them.
fn roots_calls(world: &World, args: &[&str]) -> (usize, Vec<String>) {
    let trace = world.path("trace");
    let plain = world.command(args);
    let mut traced = Command::new("/usr/bin/strace");
    traced.args(["-f", "-q", "-s", "200", "-e", "trace=%file,%creds,%process,chdir,fchdir", "-o"]).arg(&trace);
    traced.arg(plain.get_program()).args(plain.get_args());
    traced.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/root");
    world.spawn(traced).wait().expect_one_of(&super::CODES);
    let text = String::from_utf8_lossy(&fs::read(&trace).unwrap()).into_owned();
    let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let mut parents = HashMap::new();
    for (pid, call) in &lines {
        let forks = ["clone", "fork", "vfork", "<... clone", "<... fork", "<... vfork"];
        if forks.iter().any(|name| call.trim_start().starts_with(name))
            && let Some((_, child)) = call.rsplit_once(" = ")
        {
            parents.insert(child.trim(), *pid);
        }
    }
    let target = world.target("site");
    let target = target.to_str().unwrap();
    let (mut dropped, mut met, mut bad) = (HashSet::new(), 0, Vec::new());
    for (pid, call) in &lines {
        let call = call.trim_start();
        if call.starts_with("setresuid(") && !call.starts_with("setresuid(0") {
            dropped.insert(*pid);
        }
        if call.contains(&format!("\"{target}")) {
            met += 1;
            let mut line = Some(pid);
            let is_his = std::iter::from_fn(|| {
                let now = line?;
                line = parents.get(now);
                Some(now)
            })
            .any(|pid| dropped.contains(pid));
            if !is_his {
                bad.push(format!("{pid} {call}"));
            }
        }
    }
    (met, bad)
}

#[test]
fn root_opens_nothing_below_a_target() {
    needs_root!();
    needs_program!("strace");
    let mut tally = Tally::new(Group::Repository);
    for layout in ["releases", "in-place"] {
        let (world, canary) = make("strace", layout);
        let runs: [&[&str]; 8] = [
            &[],
            &["--force", "site"],
            &["--dry-run"],
            &["check"],
            &["status"],
            &["rollback", "site", "--reason", "try"],
            &["unfreeze", "site"],
            &["retry", "site"],
        ];
        let mut all = 0;
        let runs = if crate::all() || layout == "releases" { &runs[..] } else { &runs[1..3] };
        for (round, args) in runs.iter().enumerate() {
            tally.case(format!("{layout}, {args:?}"));
            push(&world, round);
            let (met, bad) = roots_calls(&world, args);
            // The app's file is named like the target's last part, not below it.
            assert!(bad.is_empty(), "{args:?}: {bad:#?}");
            all += met;
        }
        assert!(all > 3, "the deploy user's own calls were seen: {all}");
        tally.note(format!("{layout}: {all} calls on the target, none of them root's"));
        canary.expect_untouched();
    }
}
