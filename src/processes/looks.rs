//! What `check` asks helpers beyond what a poll does, and what they say: the parts of
//! [`messages`](super::messages) that only look.

use serde::{Deserialize, Serialize};

/// What is known of the right to push of the origin with this index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Right {
    pub index: usize,
    pub push: Push,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Push {
    /// The server would take one.
    Allowed,
    /// The server said that it would not.
    Refused,
    Unknown,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Programs {
    /// From the top of what is published.
    pub paths: Vec<String>,
    pub subdir: Option<String>,
    /// Paths that are linked to `shared/` and so are not in the commit.
    pub shared: Vec<String>,
}

/// What stands under a path of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InTree {
    Missing,
    /// A folder, or a submodule, which is published as one.
    Folder,
    File {
        mode: Mode,
        first: First,
    },
    /// It lies in `shared/`, or a link leads out of sight.
    Elsewhere,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    Plain,
    Executable,
}

/// How a file begins, as far as it decides what runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum First {
    /// `#!` and this: program and argument, printable.
    Interpreter(String),
    /// A compiled program.
    Elf,
    Other,
}

/// What a target directory has room for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// For a user other than root.
    pub bytes: u64,
    pub inodes: u64,
    /// File systems such as btrfs have no limit of inodes.
    pub counts_inodes: bool,
    /// Folders that the user cannot write to, from the directory down, and why not.
    pub not_writable: Vec<(String, String)>,
    /// Entries of `shared` that are not there and are not made by poller.
    pub missing: Vec<String>,
    /// Programs that the user cannot run.
    pub unusable: Vec<String>,
}
