//! poller's processes, one privilege each. All are this program, started again with a hidden word.
//!
//! | process    | as               | does                                                    |
//! | ---------- | ---------------- | ------------------------------------------------------- |
//! | supervisor | root             | configuration, locks, keys, spawning, log, metrics      |
//! | prober     | the fetch user   | asks for the tips of all apps, reads the journals       |
//! | fetcher    | the fetch user   | fetches, verifies, streams the tree, writes the journal |
//! | stager     | the deploy user  | writes the release, switches `current`, retires         |
//! | reader     | the fetch user   | tells commands what the journals say                    |
//! | caller     | the fetch user   | speaks HTTP: webhooks, pings, health checks             |
//! | keeper     | root             | runs one script as the deploy user and ends its tree    |
//!
//! Started by an ordinary user, all of them are that user.

pub mod caller;
pub mod calls;
pub mod fetcher;
pub mod helper;
pub mod keeper;
pub mod looks;
pub mod messages;
pub mod origins;
pub mod output;
pub mod preparation;
pub mod prober;
pub mod publishing;
pub mod reader;
pub mod rights;
pub mod script;
pub mod stager;
pub mod supervisor;
pub mod wire;
pub mod workshop;

use anyhow::{Context, Result};

/// The hidden words, and what they start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Prober,
    Fetcher,
    Stager,
    Keeper,
    Reader,
    Caller,
}

impl Role {
    const ALL: [Role; 6] = [Role::Prober, Role::Fetcher, Role::Stager, Role::Keeper, Role::Reader, Role::Caller];

    pub fn word(self) -> &'static str {
        match self {
            Role::Prober => "_prober",
            Role::Fetcher => "_fetcher",
            Role::Stager => "_stager",
            Role::Keeper => "_keeper",
            Role::Reader => "_reader",
            Role::Caller => "_caller",
        }
    }

    /// The role that this process was started for, and its parent.
    pub fn of_this_process() -> Option<(Role, String)> {
        let mut arguments = std::env::args_os().skip(1);
        let word = arguments.next()?;
        let role = Role::ALL.into_iter().find(|role| word == role.word())?;
        Some((role, arguments.next().unwrap_or_default().to_string_lossy().into_owned()))
    }
}

/// Runs a helper's side until its work is done.
pub fn run(role: Role, parent: &str) -> Result<()> {
    let parent = parent.parse().context("this word is for poller's own processes")?;
    crate::sys::limits::no_core()?;
    match role {
        // It outlives a supervisor that was killed, for as long as it takes to end the script.
        Role::Keeper => keeper::run(),
        Role::Prober | Role::Fetcher | Role::Stager | Role::Reader | Role::Caller => {
            crate::sys::privdrop::die_with_parent(parent)?;
            // Keys pass through the first two: no other process of the user may look into their memory.
            nix::sys::prctl::set_dumpable(false).context("guarding the process's memory")?;
            match role {
                Role::Stager => stager::run(),
                Role::Caller => caller::run(),
                _ => {
                    crate::sys::libgit2::restrain()?;
                    match role {
                        Role::Prober => prober::run(),
                        Role::Reader => reader::run(),
                        _ => fetcher::run(),
                    }
                }
            }
        }
    }
}
