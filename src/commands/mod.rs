//! One file a subcommand.

pub mod adopt;
pub mod check;
pub mod dry_run;
mod follow;
pub mod freeze;
pub mod history;
pub mod init;
pub mod log;
mod past;
pub mod poll;
pub mod retry;
pub mod rollback;
pub mod setting;
mod standing;
pub mod status;
pub mod sudoers;
