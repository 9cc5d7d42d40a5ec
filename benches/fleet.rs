//! A fleet in simulation: 10, 1,000 and 100,000 hosts that poll one git server every five minutes.
//!
//! Which second each host comes in is decided by poller's own splay; what a poll costs was measured, and stands
//! in `fleet/poll.rs`. All else is arithmetic and one generator of random numbers with fixed seeds, so each run
//! prints the same tables. `docs/fleet.md` holds them, and says how to read them; a run that differs from it fails.

/// poller's own code. Its tests are compiled along, and run elsewhere.
#[allow(unused_imports)]
#[path = "../src/stages"]
mod stages {
    pub mod splay;
}

mod fleet {
    pub mod hosts;
    pub mod load;
    pub mod poll;
    pub mod push;
    pub mod random;
    pub mod soak;
    pub mod tables;
}

use std::process::ExitCode;

/// Where the tables are kept, between two marks.
const PAGE: &str = include_str!("../docs/fleet.md");
const MARKS: (&str, &str) = ("<!-- fleet -->\n", "<!-- end -->");

fn main() -> ExitCode {
    // `cargo test --all-targets` starts benchmarks too.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("this is a simulation: cargo bench --bench fleet");
        return ExitCode::SUCCESS;
    }
    let tables = fleet::tables::all();
    print!("{tables}");
    if kept(PAGE).is_some_and(|kept| kept.trim() == tables.trim()) {
        return ExitCode::SUCCESS;
    }
    eprintln!("docs/fleet.md has other tables than these: put them between its marks");
    ExitCode::FAILURE
}

fn kept(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once(MARKS.0)?;
    Some(rest.split_once(MARKS.1)?.0)
}
