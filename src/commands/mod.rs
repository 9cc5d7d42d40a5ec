//! One file a subcommand.

pub mod dry_run;
pub mod poll;
