//! The part of a release that need not be written: large files that did not change are cloned from the release
//! before, where the file system can. Runs in the stager, as the deploy user.
//!
//! Never by a hard link, for the script may write to its files; a clone shares the bytes on the disk and nothing
//! else. And never on trust, for it may have written to the old ones: what was cloned counts when size and id are those
//! of the commit's blob, both looked at in the new file, which those who have the old one open do not reach. Whatever
//! else is found under the old path comes from the repository, as it would have anyway.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, bail, ensure};
use git2::{ObjectType, Oid};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::activate::{RELEASES, Target, clear_partial, is_release_name, partial_name};
use super::stage::{REVISION, create, good_names, remove, shown};
use super::stream::{END, OFFER, OFFER_EXECUTABLE};
use crate::processes::wire::read_frame;
use crate::sys::beneath::{Folders, make_folder, open_file, open_folder};
use crate::sys::clone::clone;

/// A release that is being written.
pub struct Begun {
    pub releases: OwnedFd,
    pub folder: OwnedFd,
    pub name: String,
    /// How much was cloned into it.
    pub files: u64,
    pub bytes: u64,
}

impl Begun {
    pub fn empty(target: &Target, name: &str) -> Result<Begun> {
        let releases = target.releases()?;
        clear_partial(&releases)?;
        let partial = partial_name(name);
        make_folder(&releases, &partial)?;
        let folder = open_folder(&releases, &partial)?;
        Ok(Begun { releases, folder, name: name.to_owned(), files: 0, bytes: 0 })
    }

    pub fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// Takes what it can of the offer; the numbers of what it cannot.
    fn take(&mut self, old: Option<&OwnedFd>, from: &mut impl Read) -> Result<Vec<u32>> {
        let mut folders = Folders::new(self.folder.try_clone()?);
        let (mut lacking, mut body) = (Vec::new(), Vec::new());
        for number in 0.. {
            let kind = read_frame(from, &mut body)?.context("the offer ended too early: the fetcher was stopped")?;
            let mode = match kind {
                OFFER => 0o666,
                OFFER_EXECUTABLE => 0o777,
                END => break,
                other => bail!("a frame of the kind {other} in an offer"),
            };
            ensure!(body.len() > 28, "an offer without a name");
            let (head, path) = body.split_at(28);
            let blob = Blob { size: u64::from_be_bytes(head[..8].try_into()?), id: Oid::from_bytes(&head[8..])? };
            match blob.clone_from(old, path, mode, &mut folders)? {
                Had::Yes => {
                    self.files += 1;
                    self.bytes += blob.size;
                }
                Had::No => lacking.push(number),
            }
        }
        Ok(lacking)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Had {
    Yes,
    No,
}

/// What a file is to hold.
struct Blob {
    size: u64,
    id: Oid,
}

impl Blob {
    /// What is no such file, or cannot be read or cloned, for whatever reason, is not to be had.
    fn clone_from(&self, old: Option<&OwnedFd>, path: &[u8], mode: u32, folders: &mut Folders) -> Result<Had> {
        let parts = good_names(path)?;
        let source = old.and_then(|old| open_file(old, OsStr::from_bytes(path)).ok());
        let Some(source) = source.filter(|file| self.may_be(file)) else {
            return Ok(Had::No);
        };
        let file = create(folders, path, mode)?;
        if clone(&source, &file).is_ok() && self.is(&file) {
            return Ok(Had::Yes);
        }
        let (parent, name) = folders.parent_of(path, &parts)?;
        remove(parent, name).with_context(|| shown(path))?;
        Ok(Had::No)
    }

    fn may_be(&self, file: &File) -> bool {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == self.size)
    }

    /// It is open for writing only, so it is opened once more: this very file, whatever has its name now.
    fn is(&self, file: &File) -> bool {
        let this = format!("/proc/self/fd/{}", file.as_raw_fd());
        self.may_be(file) && Oid::hash_file(ObjectType::Blob, this).is_ok_and(|id| id == self.id)
    }
}

impl Target {
    /// Tries it with one small file, which has no name and leaves nothing.
    pub fn can_clone(&self, release: &str) -> bool {
        let Some(old) = self.release(release) else { return false };
        let Ok(source) = open_file(&old, OsStr::new(REVISION)) else { return false };
        let flags = OFlag::O_WRONLY | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
        let Ok(releases) = open_folder(&self.root, OsStr::new(RELEASES)) else { return false };
        let Ok(file) = openat(releases.as_fd(), ".", flags, Mode::from_bits_truncate(0o600)) else { return false };
        source.metadata().is_ok_and(|meta| meta.is_file()) && clone(&source, &File::from(file)).is_ok()
    }

    /// Begins the release `name` with what is offered of another.
    pub fn clone_release(&self, name: &str, release: &str, from: &mut impl Read) -> Result<(Begun, Vec<u32>)> {
        let mut begun = Begun::empty(self, name)?;
        match begun.take(self.release(release).as_ref(), from) {
            Ok(lacking) => Ok((begun, lacking)),
            Err(e) => {
                clear_partial(&begun.releases)?;
                Err(e)
            }
        }
    }

    /// None where it is gone, or no release of poller's.
    fn release(&self, name: &str) -> Option<OwnedFd> {
        let releases = open_folder(&self.root, OsStr::new(RELEASES)).ok().filter(|_| is_release_name(name))?;
        open_folder(&releases, OsStr::new(name)).ok()
    }
}

#[cfg(test)]
mod tests;
