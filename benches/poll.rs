//! What poller costs, beside what else asks a server whether a branch has moved, and brings it.
//!
//! One sshd on the loopback and one run for all rows. Nothing is asserted about time: the targets' lines
//! say whether they were met. How to run and to read it: `docs/performance.md`.

mod rows;
mod support;

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use rows::{GROUPS, Group};
use support::lab::Lab;
use support::record::Machine;
use support::rows::{Results, Row};
use support::{probe, record, report, table};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        // This program plays a supporting part too, as a process of its own.
        Some(probe::WORD) => probe::main(&arguments[1..]),
        _ if arguments.iter().any(|a| a == "--bench") => {
            bench();
            ExitCode::SUCCESS
        }
        // `cargo test --all-targets` starts benchmarks too.
        _ => {
            println!("this is a benchmark: make bench");
            ExitCode::SUCCESS
        }
    }
}

fn bench() {
    let (groups, start, machine) = (picked(), Instant::now(), Machine::now());
    let lab = Rc::new(Lab::new());
    let (mut all, mut tables) = (Vec::<Results>::new(), String::new());
    // The last first: its thousand deploys take longest, and go on while the others are prepared.
    let mut prepared: Vec<(&Group, Vec<Row>)> = Vec::new();
    for group in groups.iter().rev() {
        eprintln!("preparing {}", group.word);
        prepared.push((group, (group.rows)(&lab)));
    }
    // Nothing is measured before all is quiet.
    prepared.iter_mut().flat_map(|(_, rows)| rows).for_each(Row::wait);
    lab.settle();
    eprintln!("prepared in {} s", start.elapsed().as_secs());
    for (group, rows) in prepared.into_iter().rev() {
        let begun = Instant::now();
        eprintln!("{}: {}", group.word, group.title);
        let results = support::rows::measure(&lab, rows);
        let text = table::of_group(group.title, &results);
        println!("\n{text}\n({}: {} s)", group.word, begun.elapsed().as_secs());
        tables += &format!("\n{text}");
        all.extend(results);
    }
    let targets = report::targets(&all);
    println!("\n{targets}");
    let minutes = start.elapsed().as_secs_f64() / 60.0;
    // Hundreds of thousands of files: it takes a while.
    drop(lab);
    let text = format!("{machine} It took {minutes:.1} minutes.\n\n### Targets\n\n{targets}{tables}");
    println!("written to {}", record::keep(&text).display());
    if asked("RECORD").is_some() {
        assert!(groups.len() == GROUPS.len(), "only a run of all rows is recorded");
        println!("recorded in {}", record::record(&text).display());
    }
}

/// The groups that ROWS names, or all.
fn picked() -> Vec<&'static Group> {
    let Some(words) = asked("ROWS") else { return GROUPS.iter().collect() };
    let group = |word: &str| {
        let known: Vec<&str> = GROUPS.iter().map(|group| group.word).collect();
        let found = GROUPS.iter().find(|group| group.word == word);
        found.unwrap_or_else(|| panic!("ROWS names {word:?}; there are {}", known.join(", ")))
    };
    words.split(',').map(group).collect()
}

/// An environment variable that says something.
fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}
