//! The receiving half of staging: writes the tree that comes down the pipe. Runs in the stager, as
//! the deploy user.
//!
//! Everything is written beneath one folder descriptor, a folder at a time, and no link is ever
//! followed. The result has a name that ends in `.partial` until every byte is on the disk; what a
//! killed run left under such a name is removed by the next.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{UnlinkatFlags, symlinkat, syncfs, unlinkat};

use super::stream::{DATA, DELETE, END, EXECUTABLE, FILE, FOLDER, LINK, SIZE};
use super::tree::bad_name;
use crate::commit::Commit;
use crate::outcome::{Class, Failure, MAKE_ROOM};
use crate::processes::wire::read_frame;
use crate::sys::beneath::{Folders, make_folder};

/// The file in the published tree that holds the commit.
pub const REVISION: &str = "REVISION";

/// What an in-place update still has to do once everything is written.
#[derive(Debug, Default)]
pub struct Staged {
    pub files: u64,
    pub bytes: u64,
    /// Paths that were written, and whether a commit before had them too.
    pub written: Vec<(Vec<u8>, bool)>,
    pub deleted: Vec<Vec<u8>>,
    /// Those of `written` that are folders: submodules.
    pub folders: HashSet<Vec<u8>>,
}

/// Writes the tree into `folder`, which is empty. It is not on the disk before [`sync`].
pub fn write(folder: &OwnedFd, commit: Option<&Commit>, from: &mut impl Read) -> Result<Staged> {
    let mut staged = Staged::default();
    let mut folders = Folders::new(folder.try_clone()?);
    let mut body = Vec::new();
    loop {
        let kind = read_frame(from, &mut body)?.context("the tree ended too early: the fetcher was stopped")?;
        match kind {
            SIZE => {
                ensure!(body.len() == 16, "a size that is none");
                let (files, bytes) = body.split_at(8);
                ensure_room(folder, u64::from_be_bytes(files.try_into()?), u64::from_be_bytes(bytes.try_into()?))?;
                continue;
            }
            FILE | EXECUTABLE => {
                ensure!(body.len() > 9, "a file without a name");
                let (head, path) = body.split_at(9);
                let (known, path) = (head[0] != 0, path.to_vec());
                let size = u64::from_be_bytes(head[1..9].try_into()?);
                let mode = if kind == EXECUTABLE { 0o777 } else { 0o666 };
                let file = create(&mut folders, &path, mode)?;
                receive(file, size, from, &mut body).with_context(|| shown(&path))?;
                staged.bytes += size;
                staged.written.push((path, known));
            }
            LINK => {
                ensure!(body.len() > 5, "a link without a name");
                let known = body[0] != 0;
                let length = u32::from_be_bytes(body[1..5].try_into()?) as usize;
                ensure!(body.len() > 5 + length, "a link without a target");
                let (path, target) = body[5..].split_at(length);
                let (parent, name) = folders.parent_of(path, &good_names(path)?)?;
                symlinkat(OsStr::from_bytes(target), parent, name)
                    .map_err(std::io::Error::from)
                    .with_context(|| shown(path))?;
                staged.written.push((path.to_vec(), known));
            }
            FOLDER => {
                ensure!(body.len() > 1, "a folder without a name");
                let path = body[1..].to_vec();
                let (parent, name) = folders.parent_of(&path, &good_names(&path)?)?;
                make_folder(parent, name).with_context(|| shown(&path))?;
                staged.folders.insert(path.clone());
                staged.written.push((path, body[0] != 0));
                continue;
            }
            DELETE => {
                good_names(&body)?;
                staged.deleted.push(std::mem::take(&mut body));
                continue;
            }
            END => break,
            other => bail!("a frame of the kind {other} in a tree"),
        }
        staged.files += 1;
    }
    let revision = REVISION.as_bytes().to_vec();
    match commit {
        Some(commit) => {
            let mut file = create(&mut folders, &revision, 0o666)?;
            file.write_all(format!("{commit}\n").as_bytes()).context(REVISION)?;
            staged.written.push((revision, true));
        }
        None => staged.deleted.push(revision),
    }
    Ok(staged)
}

/// Waits until all files are on the disk: once, which is cheaper than an fsync for each, and reports
/// what could not be written.
pub fn sync(folder: &OwnedFd) -> Result<()> {
    syncfs(folder).map_err(std::io::Error::from).context("writing to the target's disk")
}

/// A tree that cannot fit is not begun: others on that disk would meet its last bytes.
fn ensure_room(folder: &OwnedFd, files: u64, bytes: u64) -> Result<()> {
    let stat = fstatvfs(folder).map_err(std::io::Error::from).context("asking for the free space")?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let what = if bytes > free {
        format!("{bytes} bytes, and there are {free} free")
    } else if stat.files() > 0 && files > stat.files_available() {
        format!("{files} files, and there are inodes for {}", stat.files_available())
    } else {
        return Ok(());
    };
    Err(Failure::new(Class::Io, format!("no room for the tree: it has {what}")).help(MAKE_ROOM).into())
}

pub(super) fn create(folders: &mut Folders, path: &[u8], mode: u32) -> Result<File> {
    let (parent, name) = folders.parent_of(path, &good_names(path)?)?;
    // O_EXCL never opens what is there, be it a link or not.
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(parent, name, flags, Mode::from_bits_truncate(mode)).map_err(std::io::Error::from);
    Ok(File::from(file.with_context(|| shown(path))?))
}

fn receive(mut file: File, size: u64, from: &mut impl Read, body: &mut Vec<u8>) -> Result<()> {
    let mut left = size;
    while left > 0 {
        let kind = read_frame(from, body)?.context("the tree ended too early: the fetcher was stopped")?;
        ensure!(kind == DATA && body.len() as u64 <= left, "a file longer than it was said to be");
        file.write_all(body)?;
        left -= body.len() as u64;
    }
    Ok(())
}

/// The fetcher has judged the names; what comes through a pipe is judged again.
pub fn good_names(path: &[u8]) -> Result<Vec<&OsStr>> {
    let parts: Vec<&[u8]> = path.split(|&b| b == b'/').collect();
    for part in &parts {
        if let Some(why) = bad_name(part) {
            bail!("{} has a part {why}", shown(path));
        }
    }
    Ok(parts.into_iter().map(OsStr::from_bytes).collect())
}

/// Removes a file beneath a folder; one that is gone already is fine.
pub fn remove(parent: impl AsFd, name: &OsStr) -> std::io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(nix::errno::Errno::ENOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

pub fn shown(path: &[u8]) -> String {
    format!("`{}`", crate::report::printable(&String::from_utf8_lossy(path)))
}
