//! The scenarios: poller as its users meet it, from a push on a real SSH server to what is live, with
//! nothing of the program's inside known to them. A file here is a group; `support` builds the world.

#[macro_use]
mod support;

mod check;
mod config;
mod cron;
mod disk;
mod dry_run;
mod failures;
mod harness;
mod hostile_tree;
mod kill;
mod layouts;
mod mixed;
mod network;
mod output;
mod replay;
mod road;
mod rotate;
mod script;
mod script_faults;
mod supervision;
mod transport;
mod trust;
