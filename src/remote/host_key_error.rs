//! Why a host key is refused, told so that the reader can act on it: what was shown, what the file
//! says, what to compare, and the line to write.

use std::fmt;
use std::path::PathBuf;

use super::known_hosts::PREFERENCE;
use crate::outcome::{Class, Failure};

const COMPARE: &str = "First compare the fingerprint with the one that the server's owner publishes.";
/// How many ignored lines are named: the reason is most likely among the first.
const LISTED: usize = 5;

/// What the server showed, and where it would have to be pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub host: String,
    pub port: u16,
    pub file: PathBuf,
    pub key_type: String,
    /// As `ssh-keygen -l` prints it, `SHA256:…`.
    pub fingerprint: String,
    /// `host`, or `[host]:port` for any port but 22.
    pub name: String,
    /// The whole line for the file.
    pub to_add: String,
}

/// A line of the file that pins a key; the fingerprint is absent for a key that
/// this build cannot verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    pub line: usize,
    pub key_type: String,
    pub fingerprint: Option<String>,
}

/// A line of the file that makes no sense, and so counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    pub line: usize,
    pub why: String,
}

/// Why a host key is refused. The text names the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostKeyError {
    /// The file has no line for this host and port, unless one of those that were ignored was
    /// meant to be it.
    NotPinned { shown: Box<Shown>, ignored: Vec<Ignored> },
    /// It has, with other keys.
    Changed { shown: Box<Shown>, pins: Vec<Pin> },
    /// This very key is marked `@revoked`.
    Revoked { shown: Box<Shown>, line: usize },
    /// This very key is pinned for `name`: the host on another port, or without one.
    OtherPort { shown: Box<Shown>, line: usize, name: String },
    /// All lines for the host have types this build cannot verify. No pins: the
    /// key shown is itself of such a type.
    OnlyUnsupported { shown: Box<Shown>, pins: Vec<Pin> },
}

impl std::error::Error for HostKeyError {}

impl From<HostKeyError> for Failure {
    fn from(error: HostKeyError) -> Failure {
        let text = error.to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let failure = Failure::new(Class::Protocol, lines.next().unwrap_or_default());
        lines.fold(failure, Failure::help)
    }
}

impl fmt::Display for HostKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostKeyError::NotPinned { shown, ignored } => {
                shown.head(f, "is not pinned")?;
                for Ignored { line, why } in ignored.iter().take(LISTED) {
                    writeln!(f, "  line {line} is ignored: {why}")?;
                }
                if let Some(more) = ignored.len().checked_sub(LISTED).filter(|n| *n > 0) {
                    writeln!(f, "  and {more} more")?;
                }
                shown.add(f, "If they are the same, add this line to the file:")
            }
            HostKeyError::Changed { shown, pins } => {
                shown.head(f, "HAS CHANGED: this may be an attack")?;
                list(f, pins)?;
                let how = "Ask the server's owner whether the key was replaced. \
                    Only after that put this line in the place of the old one:";
                shown.add(f, how)
            }
            HostKeyError::Revoked { shown, line } => {
                shown.head(f, "is REVOKED: this may be an attack")?;
                writeln!(f, "  line {line} marks this key @revoked")?;
                write!(
                    f,
                    "It must not be trusted, so there is no line to add. \
                    Ask the server's owner which key has taken its place,\n\
                    and compare fingerprints before pinning that one."
                )
            }
            HostKeyError::OtherPort { shown, line, name } => {
                shown.head(f, "is pinned under another name only")?;
                writeln!(
                    f,
                    "  line {line} pins this key for {name}, which does not stand for {}:\n  \
                    port 22 is written host, any other [host]:port",
                    shown.name
                )?;
                shown.add(f, "If they are the same, add this line to the file:")
            }
            HostKeyError::OnlyUnsupported { shown, pins } => {
                shown.head(f, "cannot be checked: its type is not supported")?;
                list(f, pins)?;
                writeln!(
                    f,
                    "Pin the server's ed25519 or ecdsa key; this prints it:\n\
                    ssh-keyscan -t ed25519 -p {} {}",
                    shown.port, shown.host
                )?;
                if PREFERENCE.iter().any(|known| known.as_str() == shown.key_type) {
                    shown.add(f, "If they are the same, add this line to the file:")
                } else {
                    f.write_str(COMPARE)
                }
            }
        }
    }
}

impl Shown {
    fn head(&self, f: &mut fmt::Formatter<'_>, what: &str) -> fmt::Result {
        writeln!(f, "the host key of {} port {} {what}", self.host, self.port)?;
        writeln!(f, "  shown: {} {}", self.key_type, self.fingerprint)?;
        writeln!(f, "  known hosts file: {}", self.file.display())
    }

    fn add(&self, f: &mut fmt::Formatter<'_>, how: &str) -> fmt::Result {
        write!(f, "{COMPARE}\n{how}\n{}", self.to_add)
    }
}

fn list(f: &mut fmt::Formatter<'_>, pins: &[Pin]) -> fmt::Result {
    for pin in pins {
        let key = pin.fingerprint.as_deref().unwrap_or("(not supported)");
        writeln!(f, "  line {} pins: {} {key}", pin.line, pin.key_type)?;
    }
    Ok(())
}
