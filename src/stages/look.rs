//! Look: what stands in a target directory that somebody else may have filled. Runs in the stager; it
//! reads beneath the directory's descriptor and through no link.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use anyhow::Result;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};

use super::activate::{CURRENT, RELEASES, Target, is_folder};
use super::stage::{REVISION, good_names};
use crate::commit::Commit;
use crate::sys::beneath::{Folders, look, open_folder};

/// More than any of the files that are read here has.
const MOST: u64 = 1 << 20;

impl Target {
    /// Whether a release is there under its full name.
    pub fn has(&self, release: &str) -> Result<bool> {
        if look(&self.root, OsStr::new(RELEASES))?.is_none() {
            return Ok(false);
        }
        let found = look(&self.releases()?, OsStr::new(release))?;
        Ok(found.is_some_and(|stat| is_folder(&stat)))
    }

    /// The release that `current` leads to, when it is one of this target's own: the link may have been
    /// made by anybody, and in other words than poller's.
    fn live_release(&self) -> Result<Option<(String, OwnedFd)>> {
        let Some(name) = self.live().filter(|name| good_names(name.as_bytes()).is_ok()) else { return Ok(None) };
        let Ok(led_to) = fstatat(&self.root, CURRENT, AtFlags::empty()) else { return Ok(None) };
        let opened = open_folder(&self.root, OsStr::new(RELEASES)).and_then(|all| open_folder(&all, OsStr::new(&name)));
        let Ok(folder) = opened else { return Ok(None) };
        let identity = |stat: &FileStat| (stat.st_dev, stat.st_ino);
        Ok((identity(&fstat(&folder)?) == identity(&led_to)).then_some((name, folder)))
    }

    /// What somebody else put here, for `adopt`: the release behind `current`, and the commit that
    /// `REVISION` names, or the `HEAD` of a clone.
    pub fn what_is_live(&self, releases: bool) -> Result<(Option<String>, Option<Commit>)> {
        let (release, folder) = match releases {
            true => match self.live_release()? {
                Some((name, folder)) => (Some(name), folder),
                None => return Ok((None, None)),
            },
            false => (None, self.root.try_clone()?),
        };
        let mut folders = Folders::new(folder);
        let commit = |text: String| Commit::try_from(text).ok();
        if let Some(revision) = line(&mut folders, REVISION).and_then(commit) {
            return Ok((release, Some(revision)));
        }
        let Some(head) = line(&mut folders, ".git/HEAD") else { return Ok((release, None)) };
        let Some(name) = head.strip_prefix("ref: ").map(str::trim) else { return Ok((release, commit(head))) };
        let loose = line(&mut folders, &format!(".git/{name}")).and_then(commit);
        let packed = || {
            let packed = line(&mut folders, ".git/packed-refs")?;
            let found = packed.lines().find_map(|l| l.strip_suffix(name)?.strip_suffix(' ').map(str::to_owned));
            found.and_then(commit)
        };
        Ok((release, loose.or_else(packed)))
    }
}

/// A small file's text, without white space around it.
fn line(folders: &mut Folders, path: &str) -> Option<String> {
    let parts: Vec<&OsStr> = path.split('/').map(OsStr::new).collect();
    if parts.iter().any(|part| part.is_empty() || *part == "." || *part == "..") {
        return None;
    }
    let (parent, name) = folders.existing_parent_of(&parts).ok()??;
    // A pipe under such a name would keep whoever opens it waiting.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = File::from(openat(parent, name, flags, Mode::empty()).ok()?);
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}
