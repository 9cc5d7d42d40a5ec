//! Attacks on what poller promises, counted. A file here is a group of them; each test keeps a
//! [`tally`] of the cases it tried, from which `make faults` makes the table of docs/reliability.md.
//!
//! `make test` meets a few points of each; `POLLER_FAULTS=all` meets every one, which takes some
//! hours.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod cage;
mod disk;
mod network;
mod points;
mod power;
mod random;
mod repository;
mod scenes;
mod server;
mod swap;
mod tally;
mod tracer;

/// Whether every point is to be met, or a few of each kind.
fn all() -> bool {
    std::env::var("POLLER_FAULTS").is_ok_and(|which| which == "all")
}
