//! What a poll can come to: outcomes, failures, and the one match that makes exit codes of them.
//!
//! A [`Failure`] is what exit codes and states depend on, so it has a class, says what happened and
//! ends with the remedy. Anything else travels as `anyhow` context and becomes a `Failure` here.
//! It crosses the pipes between poller's processes, hence serde.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why something did not happen. The order of the variants is of no meaning; see [`Class::exit_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The configuration is wrong or names something that does not exist.
    Config,
    /// Permissions, signature, rewind, authentication: poller would not.
    Refused,
    /// The host key, or what the server speaks.
    Protocol,
    /// Input or output on this machine: a full disk, an unreadable file.
    Io,
    /// The build, the script, a restart or the health check failed.
    Deploy,
    /// poller was told to stop while the script ran.
    Interrupted,
    /// The remote could not be reached, or not in time.
    Unreachable,
    /// Another run holds the lock, or poller was told to stop before anything began.
    Busy,
    /// The command line.
    Usage,
    /// Something that cannot happen did.
    Bug,
}

impl Class {
    /// The process exit code of this class, as in sysexits.h where that has one.
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Config => 78,
            Class::Refused => 77,
            Class::Protocol => 76,
            Class::Io => 74,
            Class::Deploy | Class::Interrupted => 1,
            Class::Unreachable => 69,
            Class::Busy => 75,
            Class::Usage => 64,
            Class::Bug => 70,
        }
    }

    /// The word that log, metrics and `--json` use.
    pub fn word(self) -> &'static str {
        match self {
            Class::Config => "config",
            Class::Refused => "refused",
            Class::Protocol => "protocol",
            Class::Io => "io",
            Class::Deploy => "failed",
            Class::Interrupted => "interrupted",
            Class::Unreachable => "unreachable",
            Class::Busy => "busy",
            Class::Usage => "usage",
            Class::Bug => "bug",
        }
    }
}

/// When several apps ended differently, the first of these decides the exit code of the run.
const PRECEDENCE: [u8; 10] = [64, 70, 78, 77, 76, 74, 1, 69, 75, 0];

/// The exit code of a run whose apps ended with these codes.
pub fn exit_code(codes: impl IntoIterator<Item = u8>) -> u8 {
    let rank = |code: u8| PRECEDENCE.iter().position(|&c| c == code).unwrap_or(0);
    codes.into_iter().min_by_key(|&code| rank(code)).unwrap_or(0)
}

/// An error that a person will read: what happened, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub class: Class,
    pub message: String,
    /// What to do about it, one line each.
    pub help: Vec<String>,
}

impl Failure {
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Failure { class, message: message.into(), help: Vec::new() }
    }

    /// Adds a line that says what to do.
    pub fn help(mut self, line: impl Into<String>) -> Self {
        self.help.push(line.into());
        self
    }

    /// Finds the failure in an error chain; an error without one is input or output that went wrong.
    pub fn of(error: anyhow::Error) -> Failure {
        Failure::seen(&error)
    }

    /// The same of an error that goes on.
    pub fn seen(error: &anyhow::Error) -> Failure {
        if let Some(own) = error.downcast_ref::<Failure>() {
            let mut failure = own.clone();
            // Context that was wrapped around it says where; keep it in front.
            let whole = format!("{error:#}");
            if let Some(context) = whole.strip_suffix(&own.message) {
                failure.message = format!("{context}{}", own.message);
            }
            return failure;
        }
        let text = format!("{error:#}");
        let failure = Failure::new(Class::Io, text.as_str());
        match remedy(&text) {
            Some(remedy) => failure.help(remedy),
            None => failure,
        }
    }
}

/// Whether an error of input or output of this kind is at the bottom of it.
pub fn is_of_kind(error: &anyhow::Error, kind: std::io::ErrorKind) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|cause| cause.kind() == kind)
}

/// The remedy for a full disk.
pub const MAKE_ROOM: &str = "make room (df -h, df -i); the next run goes on by itself";
const READ_ONLY: &str = "mount it writable (findmnt; dmesg, if it was turned read-only by an error), then try again";

pub const TOO_LARGE: &str =
    "one fetch may bring 16 GiB, and a file have 512 MiB; less where a stricter limit is set (ulimit -f, LimitFSIZE=)";
pub const TOO_MUCH_MEMORY: &str = "what fetches may use 2 GiB, what asks and reads 512 MiB: keep very large files out of git; \
    look at who pushed what (git rev-list --objects --all --disk-usage); a stricter limit may be set here (ulimit -d)";

/// The remedy for a disk that takes nothing more, or a limit that was met. It is known by the error's words:
/// libgit2 puts the system's into its messages and keeps no number.
pub fn remedy(text: &str) -> Option<&'static str> {
    [
        ("No space left on device", MAKE_ROOM),
        ("quota exceeded", MAKE_ROOM),
        ("File too large", TOO_LARGE),
        ("ut of memory", TOO_MUCH_MEMORY),
        ("Read-only file system", READ_ONLY),
    ]
    .into_iter()
    .find_map(|(words, remedy)| text.contains(words).then_some(remedy))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// How the poll of one app ended, when it did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing new.
    Unchanged {
        commit: String,
    },
    /// Something is new, and there is a reason to leave it alone (frozen, broken, no path of interest, exit 75).
    Skipped {
        commit: String,
        why: String,
    },
    Deployed {
        from: Option<String>,
        to: String,
        milliseconds: u64,
    },
}

impl Outcome {
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Unchanged { .. } => "unchanged",
            Outcome::Skipped { .. } => "skipped",
            Outcome::Deployed { .. } => "deployed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_first_in_the_contracts_order_decides() {
        assert_eq!(exit_code([]), 0);
        assert_eq!(exit_code([0, 75, 0]), 75);
        assert_eq!(exit_code([75, 69]), 69);
        assert_eq!(exit_code([69, 1]), 1);
        assert_eq!(exit_code([1, 74]), 74);
        assert_eq!(exit_code([74, 76]), 76);
        assert_eq!(exit_code([76, 77]), 77);
        assert_eq!(exit_code([77, 78]), 78);
    }

    #[test]
    fn context_around_a_failure_is_kept_and_its_class_too() {
        let inner = Failure::new(Class::Protocol, "not a git server").help("look at the URL");
        let failure = Failure::of(Err::<(), _>(inner).context("asking for tips").unwrap_err());
        assert_eq!(failure.class, Class::Protocol);
        assert_eq!(failure.message, "asking for tips: not a git server");
        assert_eq!(failure.help, ["look at the URL"]);
    }

    #[test]
    fn a_full_disk_says_so() {
        let full = std::io::Error::from_raw_os_error(nix::libc::ENOSPC);
        let failure = Failure::of(Err::<(), _>(full).context("writing").unwrap_err());
        assert_eq!(failure.class, Class::Io);
        assert_eq!(failure.help, [MAKE_ROOM]);
        let by_libgit2 = git2::Error::from_str("failed to write loose object: No space left on device");
        assert_eq!(Failure::of(by_libgit2.into()).help, [MAKE_ROOM]);
        assert!(Failure::of(git2::Error::from_str("bad object").into()).help.is_empty());
        let quota = std::io::Error::from_raw_os_error(nix::libc::EDQUOT);
        assert_eq!(Failure::of(quota.into()).help, [MAKE_ROOM]);
        // There may be room enough.
        let read_only = std::io::Error::from_raw_os_error(nix::libc::EROFS);
        assert_eq!(Failure::of(read_only.into()).help, [READ_ONLY]);
        let too_large = std::io::Error::from_raw_os_error(nix::libc::EFBIG);
        assert_eq!(Failure::of(too_large.into()).help, [TOO_LARGE]);
        assert_eq!(Failure::of(git2::Error::from_str("Out of memory").into()).help, [TOO_MUCH_MEMORY]);
    }
}
