//! The messages between the supervisor and the stager.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::looks::Room;
use crate::commit::Commit;
use crate::config::Layout;

/// What a stager is asked. After `Clone` the offer follows on the same stream, and after `Stage` the tree.
#[derive(Debug, Serialize, Deserialize)]
pub struct StagerJob {
    pub directory: PathBuf,
    pub layout: Layout,
    pub request: StagerRequest,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum StagerRequest {
    /// Whether the target may be deployed to for the first time.
    Inspect {
        app: String,
    },
    /// Whether files of this release can be cloned.
    CanClone {
        release: String,
    },
    /// Begins a release with those of the offered files that this other one has.
    Clone {
        name: String,
        release: String,
    },
    Stage {
        name: String,
        commit: Option<Commit>,
        shared: Vec<String>,
        onto: Onto,
    },
    /// Whether a release is there.
    Has {
        release: String,
    },
    /// What is live, as far as the files tell.
    Live,
    /// Whether the user may write there and how much room there is, for `check`.
    Room {
        shared: Vec<String>,
        /// Programs of the host, by path or by name, that the app's commands need.
        programs: Vec<String>,
        /// Where those are looked for that have a name only.
        path: String,
    },
    /// Waits until what build and script made is on the disk.
    Sync,
    /// Makes what was staged live.
    Activate {
        name: String,
    },
    /// Puts `current` back, or removes it when there is nothing to go back to.
    Restore {
        release: Option<String>,
    },
    /// Removes what is no longer needed.
    Retire {
        keep: usize,
        protect: Vec<String>,
        remove: Vec<String>,
    },
}

/// What a tree is written onto.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Onto {
    Nothing,
    /// What the request before has cloned.
    Clones,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StagerReply {
    Inspected,
    CanClone(bool),
    /// The numbers of the offered files that were not to be had.
    Cloned {
        lacking: Vec<u32>,
    },
    /// Files and bytes, those that were cloned among them.
    Staged {
        files: u64,
        bytes: u64,
        cloned: u64,
        warnings: Vec<String>,
    },
    Has(bool),
    /// The name of the release that `current` leads to, and the commit that the files name.
    Live {
        release: Option<String>,
        commit: Option<Commit>,
    },
    Room(Room),
    Synced,
    Activated,
    Restored,
    Retired {
        removed: Vec<String>,
        warnings: Vec<String>,
    },
}
