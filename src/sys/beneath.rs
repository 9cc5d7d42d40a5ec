//! Walking beneath a folder descriptor without ever following a link.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, fstatat, mkdirat};

/// Opens a folder beneath another; never through a link.
pub fn open_folder(parent: impl AsFd, name: &OsStr) -> std::io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// Opens a file to read, wherever beneath a folder it lies: through no link and into no other file system, and
/// without waiting for whoever is at the other end of a pipe. It may be anything but a link.
pub fn open_file(folder: impl AsFd, path: &OsStr) -> std::io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let stay = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    Ok(File::from(openat2(folder, path, OpenHow::new().flags(flags).resolve(stay))?))
}

/// Makes a folder; one that is there already is fine.
pub fn make_folder(parent: impl AsFd, name: &OsStr) -> std::io::Result<()> {
    match mkdirat(parent, name, Mode::from_bits_truncate(0o777)) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// What stands under a name, not following a link; None when nothing does.
pub fn look(parent: impl AsFd, name: &OsStr) -> std::io::Result<Option<FileStat>> {
    match fstatat(parent, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The chain of open folders down to the one that was used last. Paths come sorted, so nearly every
/// file finds its folder open.
pub struct Folders {
    root: OwnedFd,
    chain: Vec<(OsString, OwnedFd)>,
}

impl Folders {
    pub fn new(root: OwnedFd) -> Folders {
        Folders { root, chain: Vec::new() }
    }

    /// The folder that `parts` lies in, made where it is missing, and the last part.
    pub fn parent_of<'p>(&mut self, path: &[u8], parts: &[&'p OsStr]) -> Result<(BorrowedFd<'_>, &'p OsStr)> {
        let (name, folders) = parts.split_last().context("an empty path")?;
        let common = self.chain.iter().zip(folders).take_while(|((have, _), want)| have == *want).count();
        self.chain.truncate(common);
        for folder in &folders[common..] {
            let parent = self.here();
            make_folder(parent, folder)
                .and_then(|()| open_folder(parent, folder))
                .map(|fd| self.chain.push(((*folder).to_owned(), fd)))
                .with_context(|| {
                    format!("the folder of `{}`", crate::report::printable(&String::from_utf8_lossy(path)))
                })?;
        }
        Ok((self.here(), name))
    }

    /// The same, but None where a folder on the way is missing or is none.
    pub fn existing_parent_of<'p>(&mut self, parts: &[&'p OsStr]) -> Result<Option<(BorrowedFd<'_>, &'p OsStr)>> {
        let (name, folders) = parts.split_last().context("an empty path")?;
        let common = self.chain.iter().zip(folders).take_while(|((have, _), want)| have == *want).count();
        self.chain.truncate(common);
        for folder in &folders[common..] {
            match open_folder(self.here(), folder) {
                Ok(fd) => self.chain.push(((*folder).to_owned(), fd)),
                Err(e)
                    if matches!(
                        Errno::from_raw(e.raw_os_error().unwrap_or(0)),
                        Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP
                    ) =>
                {
                    return Ok(None);
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(Some((self.here(), name)))
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.chain.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd())
    }
}
