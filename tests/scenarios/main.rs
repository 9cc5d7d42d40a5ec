//! The scenarios: poller as its users meet it, from a push on a real SSH server to what is live, with
//! nothing of the program's inside known to them. A file here is a group; `support` builds the world.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod adopt;
mod check;
mod clones;
mod config;
mod cron;
mod delivery;
mod disk;
mod dry_run;
mod failures;
mod first_deploy;
mod freeze;
mod hand;
mod harness;
mod health;
mod history;
mod hosts;
mod init;
mod layouts;
mod log;
mod many;
mod metrics;
mod mixed;
mod network;
mod notify;
mod old_age;
mod output;
mod pgp;
mod replay;
mod retry;
mod road;
mod rollback;
mod rotate;
mod screens;
mod script;
mod script_faults;
mod signatures;
mod status;
mod sudoers;
mod supervision;
mod transport;
mod trust;
