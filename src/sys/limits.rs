//! What one helper may use up, so that a hostile server or repository ends that helper and not the machine.
//!
//! Memory is bounded by RLIMIT_DATA: what a process allocates. Not by RLIMIT_AS, in which libgit2's maps
//! of packs count, up to 8 GiB of them, though they are the disk's cache and cost nothing. A limit that is
//! stricter already stays. There is none on the number of processes: the kernel counts those of the
//! user and not of the helper, so an ordinary user's desktop would break it; the cage forbids them instead.

use anyhow::{Context, Result};
use nix::libc::rlim_t;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};

use super::libgit2::LARGEST_OBJECT;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// For the fetcher and the stager. An object of the largest size that comes as a difference takes three quarters
/// of it, and a first fetch some 300 bytes for each object of the repository (both measured).
pub const MEMORY: u64 = 2 * GIB;
/// For helpers that hold answers and journals only.
pub const LITTLE_MEMORY: u64 = 512 * MIB;
/// The largest pack that one fetch may bring.
pub const LARGEST_PACK: u64 = 16 * GIB;
/// libgit2 keeps a descriptor for each pack, and the prober one for each connection.
const DESCRIPTORS: u64 = 4096;

/// What a helper may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub memory: u64,
    /// None: it writes no file, but its errors may go to one of any size.
    pub file: Option<u64>,
}

impl Limits {
    pub const FETCHER: Limits = Limits { memory: MEMORY, file: Some(LARGEST_PACK) };
    pub const STAGER: Limits = Limits { memory: MEMORY, file: Some(LARGEST_OBJECT) };
    pub const SMALL: Limits = Limits { memory: LITTLE_MEMORY, file: None };

    /// Holds for this process, and for what it starts from now on.
    pub fn impose(self) -> Result<()> {
        lower(Resource::RLIMIT_CORE, 0)?;
        lower(Resource::RLIMIT_DATA, self.memory)?;
        lower(Resource::RLIMIT_NOFILE, DESCRIPTORS)?;
        if let Some(file) = self.file {
            // A write past the limit is then an error with a text, and not a signal.
            // SAFETY: no handler is installed.
            unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.context("ignoring SIGXFSZ")?;
            lower(Resource::RLIMIT_FSIZE, file)?;
        }
        Ok(())
    }
}

/// Both limits become `wanted`, unless the harder one is below it already.
fn lower(resource: Resource, wanted: u64) -> Result<()> {
    let (_, hard) = getrlimit(resource).with_context(|| format!("{resource:?}"))?;
    let limit = hard.min(wanted as rlim_t);
    setrlimit(resource, limit, limit).with_context(|| format!("{resource:?}"))
}

/// Keys pass through the memory of poller's processes, so none of them leaves its memory behind. A script,
/// which inherits this, may raise it again.
pub fn no_core() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE).context("RLIMIT_CORE")?;
    setrlimit(Resource::RLIMIT_CORE, 0, hard).context("RLIMIT_CORE")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{TOO_LARGE, TOO_MUCH_MEMORY};

    #[test]
    fn the_numbers_are_those_that_remedies_and_pages_tell() {
        let written =
            |bytes: u64| if bytes < GIB { format!("{} MiB", bytes / MIB) } else { format!("{} GiB", bytes / GIB) };
        let (memory, little) = (written(MEMORY), written(LITTLE_MEMORY));
        let (pack, object) = (written(LARGEST_PACK), written(LARGEST_OBJECT));
        assert!(TOO_MUCH_MEMORY.contains(&memory) && TOO_MUCH_MEMORY.contains(&little));
        assert!(TOO_LARGE.contains(&pack) && TOO_LARGE.contains(&object));
        let page = include_str!("../../docs/man/poller.8");
        let map = include_str!("../../docs/architecture.md");
        assert!(page.contains(&format!("{memory} of memory, {pack} for the pack of one fetch")));
        assert!(page.contains(&format!("{memory} of memory, {object} for one file")));
        assert!(page.contains(&format!("{little} of memory\n.It all of these\n{DESCRIPTORS} open files")));
        assert!(map.contains(&format!("| fetcher | {memory} | {pack} |")));
        assert!(map.contains(&format!("| stager | {memory} | {object} |")));
        assert!(map.contains(&format!("| prober, reader, caller | {little} |")));
    }
}
