//! Everything that needs `unsafe` or speaks to the kernel about processes: accounts, dropping
//! privileges, keeping a process tree, opening files that can be trusted, libgit2's global switches.

pub mod account;
pub mod beneath;
pub mod cage;
pub mod clone;
pub mod fresh;
pub mod libgit2;
pub mod limits;
pub mod privdrop;
pub mod proc;
pub mod remove;
pub mod seccomp;
pub mod signals;
pub mod trusted_file;
