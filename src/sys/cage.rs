//! The cage: what a helper can still do once it has what it needs, so that a hole in libgit2 or russh is
//! worth next to nothing.
//!
//! Landlock bounds which files can be reached, seccomp ([`super::seccomp`]) which system calls there are,
//! and both can only ever be tightened. What the kernel does not have is left out: poller runs without, and
//! `poller check` says so. Names of files are looked at when a cage is entered: what it lets in must be there
//! by then.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, Scope,
};
use nix::errno::Errno;
use nix::libc;

use super::seccomp::{self, Part};

/// Below a version, what it does not know is left out. No later one is asked for than was tried.
const FILES: ABI = ABI::V5;
const NETWORK: ABI = ABI::V4;
const SCOPE: ABI = ABI::V6;
/// The first version forbids any rename from one folder to another, which git does with each object.
const OLDEST_FOR_WRITERS: i32 = 2;

/// How long threads may take to end that have nothing more to do.
const LAST_THREADS: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
pub enum Reading<'a> {
    Anywhere,
    Beneath(&'a [&'a Path]),
}

/// What leads out of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Names are yet to be looked up, which may take threads, and servers to be connected to.
    Open,
    /// What is connected stays so; nothing more is opened.
    Settled,
    /// The same, but programs were started that may have to be ended.
    SettledWithPrograms,
}

#[derive(Clone, Copy, Debug)]
pub struct Cage<'a> {
    pub read: Reading<'a>,
    /// Beneath these everything can be read, made, changed and removed.
    pub write: &'a [&'a Path],
    /// A folder from which empty folders can be taken away.
    pub remove: Option<&'a Path>,
    pub outside: Outside,
}

impl Cage<'_> {
    /// From here on, for good. Nothing can be executed from now on.
    ///
    /// # Errors
    /// The kernel offers it and then fails.
    pub fn enter(&self) -> Result<()> {
        if self.outside != Outside::Open {
            end_of_threads();
        }
        if self.works_with(landlock_version()) {
            self.restrict().context("the cage")?;
        }
        seccomp::refuse(Part::Always)?;
        if self.outside != Outside::Open {
            seccomp::refuse(Part::Settled)?;
        }
        Ok(())
    }

    fn works_with(&self, version: i32) -> bool {
        version >= OLDEST_FOR_WRITERS || (version > 0 && self.write.is_empty())
    }

    fn restrict(&self) -> Result<()> {
        let all = AccessFs::from_all(FILES);
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let handled = if matches!(self.read, Reading::Anywhere) { all & !read } else { all };
        let mut ruleset = Ruleset::default().handle_access(handled)?;
        if self.outside != Outside::Open {
            ruleset = ruleset.handle_access(AccessNet::from_all(NETWORK))?;
            ruleset = ruleset.scope(match self.outside {
                Outside::SettledWithPrograms => Scope::AbstractUnixSocket.into(),
                _ => Scope::from_all(SCOPE),
            })?;
        }
        let mut ruleset = ruleset.create()?;
        if let Reading::Beneath(paths) = self.read {
            for path in paths {
                ruleset = allow(ruleset, path, read)?;
            }
        }
        for path in self.write {
            ruleset = allow(ruleset, path, written() & handled)?;
        }
        if let Some(path) = self.remove {
            ruleset = allow(ruleset, path, AccessFs::RemoveDir.into())?;
        }
        // What is missing of it in this kernel was left out, and `check` told.
        ruleset.restrict_self()?;
        Ok(())
    }
}

/// What is done beneath a folder that is written: all, but for programs, devices, pipes and sockets.
fn written() -> BitFlags<AccessFs> {
    let never = AccessFs::Execute
        | AccessFs::MakeChar
        | AccessFs::MakeBlock
        | AccessFs::MakeSock
        | AccessFs::MakeFifo
        | AccessFs::IoctlDev;
    AccessFs::from_all(FILES) & !never
}

/// What is not there, or cannot be reached, lets nothing in.
fn allow(ruleset: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated> {
    match PathFd::new(path) {
        Ok(folder) => Ok(ruleset.add_rule(PathBeneath::new(folder, access))?),
        Err(_) => Ok(ruleset),
    }
}

/// Landlock holds for the thread that asks for it and those that it starts, so none should be left from
/// before: only looking up names makes any. One that a name service keeps goes on outside of Landlock, but
/// not of seccomp, which holds for all.
fn end_of_threads() {
    let end = Instant::now() + LAST_THREADS;
    let others = || std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1);
    while others() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Of Landlock in this kernel; 0 where there is none, or it is turned off.
pub fn landlock_version() -> i32 {
    const VERSION: u32 = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: a question: no memory is named.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0usize, VERSION) };
    Errno::result(version).map_or(0, |version| version as i32)
}

/// What of the cage this kernel has, for `check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    pub landlock: i32,
    pub seccomp: bool,
}

impl Offered {
    pub fn here() -> Offered {
        Offered { landlock: landlock_version(), seccomp: seccomp::is_offered() }
    }

    pub fn is_enough(self) -> bool {
        self.seccomp && self.landlock >= OLDEST_FOR_WRITERS
    }
}

#[cfg(test)]
mod tests;
