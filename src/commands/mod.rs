//! One file a subcommand.

pub mod adopt;
pub mod check;
pub mod dry_run;
pub mod freeze;
pub mod history;
pub mod init;
pub mod log;
pub mod poll;
pub mod retry;
pub mod rollback;
pub mod setting;
pub mod status;
pub mod sudoers;
