//! What an unchanged poll costs, beside what else asks a server whether a branch has moved.
//!
//! One sshd on the loopback, one repository with ten references and one with ten thousand. Every round
//! runs each contestant once on each repository, the order shifted by one from round to round, so that
//! whatever else the machine does hits all of them alike. Nothing is asserted about time: the targets'
//! lines say whether they were met. How to run and to read it: `docs/performance.md`.

mod support;

use std::process::ExitCode;

use support::measure::{Sample, Summary, largest_process, run};
use support::world::{Contestant, World};

/// Rounds that count, unless ROUNDS says otherwise.
const ROUNDS: usize = 30;
/// Rounds before those, to fill caches.
const WARM_UP: usize = 2;
/// References of each repository.
const SIZES: [usize; 2] = [10, 10_000];

/// What the whole unchanged run may cost in wall time, as a multiple of another contestant's.
struct Target {
    of: Contestant,
    at_most: f64,
}

const TARGETS: [Target; 2] =
    [Target { of: Contestant::Probe, at_most: 1.3 }, Target { of: Contestant::GitFetch, at_most: 0.25 }];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        // This program plays two of its own supporting parts, as processes of their own.
        Some(support::probe::WORD) => support::probe::main(&arguments[1..]),
        Some(support::measure::WORD) => support::measure::main(&arguments[1..]),
        _ if arguments.iter().any(|a| a == "--bench") => {
            bench();
            ExitCode::SUCCESS
        }
        // `cargo test --all-targets` starts benchmarks too.
        _ => {
            println!("this is a benchmark: cargo bench");
            ExitCode::SUCCESS
        }
    }
}

fn bench() {
    let rounds = std::env::var("ROUNDS").ok();
    let rounds = rounds.map_or(ROUNDS, |text| text.parse().expect("ROUNDS is a number"));
    assert!(rounds > 0, "ROUNDS is a number above 0");
    let worlds = SIZES.map(World::new);
    let courses: Vec<(&World, Contestant)> =
        worlds.iter().flat_map(|world| Contestant::ALL.map(|contestant| (world, contestant))).collect();
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); courses.len()];
    for round in 0..WARM_UP + rounds {
        for step in 0..courses.len() {
            let at = (round + step) % courses.len();
            let (world, contestant) = courses[at];
            let sample = run(world.command(contestant));
            if round >= WARM_UP {
                samples[at].push(sample);
            }
        }
    }
    let results: Vec<Summary> = courses
        .iter()
        .zip(&samples)
        .map(|((world, contestant), samples)| Summary::of(samples, largest_process(&world.command(*contestant))))
        .collect();
    for world in &worlds {
        // Each round, and the one for the memory.
        world.assert_unchanged(WARM_UP + rounds + 1);
    }

    let who = World::who();
    println!("\n{rounds} rounds, interleaved; poller runs {who}\n");
    let mut verdicts = Vec::new();
    let sizes = results.chunks(Contestant::ALL.len());
    for (refs, results) in SIZES.into_iter().zip(sizes) {
        print_table(refs, results);
        for Target { of, at_most } in TARGETS {
            let ratio = results[Contestant::Poller as usize].wall / results[of as usize].wall;
            let verdict = if ratio <= at_most { "met" } else { "NOT met" };
            let name = of.name();
            verdicts.push(format!(
                "target, {refs} references: the whole run ≤ {at_most} × {name}: {ratio:.2} ×, {verdict}"
            ));
        }
    }
    verdicts.iter().for_each(|line| println!("{line}"));
}

fn print_table(refs: usize, results: &[Summary]) {
    let wall_of = |contestant: Contestant| results[contestant as usize].wall;
    println!("| {refs} references | wall, ms | middle half | CPU, ms | memory, MiB | × probe | × fetch |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (contestant, result) in Contestant::ALL.into_iter().zip(results) {
        println!(
            "| {} | {:.1} | {:.1}–{:.1} | {:.1} | {:.1} | {:.2} | {:.2} |",
            contestant.name(),
            result.wall,
            result.quarter,
            result.three_quarters,
            result.cpu,
            result.memory,
            result.wall / wall_of(Contestant::Probe),
            result.wall / wall_of(Contestant::GitFetch),
        );
    }
    println!();
}
