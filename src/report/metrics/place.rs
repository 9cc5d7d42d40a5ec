//! Where the metrics file lies: a folder that nobody else can write to, held open while it is used.
//!
//! It is judged less strictly than configuration is. Debian gives /var/lib/prometheus, on the way to the
//! folder, to the exporter's user. So folders on the way may be another's, who could put something else
//! in this one's place; but no link that another made is followed, and the folder itself is root's or
//! ours. All that is left to the other is the choice among such folders below their own.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::Uid;

use crate::outcome::{Class, Failure};
use crate::sys::trusted_file::Writers;

pub struct Folder {
    folder: OwnedFd,
    name: OsString,
}

impl Folder {
    /// The folder of the file `path`, an absolute path.
    ///
    /// # Errors
    /// `Config` where it is not there, `Refused` where others could make files in it; both with the remedy.
    pub fn open(path: &Path) -> Result<Folder> {
        let (parent, name) = path.parent().zip(path.file_name()).context("a metrics file without a folder")?;
        let shown = parent.display();
        let folder = walk(parent).map_err(|e| match e.downcast_ref::<Errno>() {
            Some(Errno::ENOENT | Errno::ENOTDIR) => Failure::new(
                Class::Config,
                format!("{}: its folder is not there", path.display()),
            )
            .help(format!(
                "is node_exporter installed? mkdir -p {shown}, and start it with --collector.textfile.directory={shown}"
            ))
            .into(),
            _ => e.context(path.display().to_string()),
        })?;
        let stat = fstat(&folder)?;
        let mode = stat.st_mode & 0o7777;
        let refused = |why: String, help: String| Err(Failure::new(Class::Refused, why).help(help).into());
        if !is_ours(&stat) {
            return refused(
                format!("{shown} belongs to another user (uid {}), so it is not trusted", stat.st_uid),
                format!("chown root {shown}; node_exporter only reads it"),
            );
        }
        let writers = Writers::of(&folder, &stat).with_context(|| shown.to_string())?;
        if writers.any() {
            return refused(
                format!("others can make files in {shown} (mode {mode:04o}), so it is not trusted"),
                format!("{}; node_exporter only reads it", writers.remedy(parent)),
            );
        }
        Ok(Folder { folder, name: name.to_owned() })
    }

    /// A path to the file that leads through the folder as it was judged.
    pub fn file(&self) -> PathBuf {
        self.beneath(&self.name)
    }

    /// Where it is written before it is renamed.
    pub fn partial(&self) -> PathBuf {
        let mut name = self.name.clone();
        name.push(".partial");
        self.beneath(&name)
    }

    fn beneath(&self, name: &OsStr) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd())).join(name)
    }
}

/// Folder by folder, each opened beneath the one before. Links are followed where root or we made them.
fn walk(path: &Path) -> Result<OwnedFd> {
    let mut ahead: VecDeque<OsString> = parts(path);
    let root = || open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let mut stack = vec![root()?];
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        if part == ".." {
            stack.truncate(stack.len().saturating_sub(1).max(1));
            continue;
        }
        let parent = stack.last().context("the root folder")?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = openat(parent, part.as_os_str(), flags, Mode::empty())?;
        let stat = fstat(&found)?;
        if !is_kind(&stat, SFlag::S_IFLNK) {
            stack.push(found);
            continue;
        }
        links += 1;
        if links > 40 || !is_ours(&stat) {
            let why = format!("`{}` on the way to {} is a link that another user made", part.display(), path.display());
            return Err(Failure::new(Class::Refused, why)
                .help("name the folder itself in `[metrics] textfile`")
                .into());
        }
        let target = PathBuf::from(readlinkat(&found, OsStr::new(""))?);
        if target.is_absolute() {
            stack.truncate(1);
        }
        let mut replaced = parts(&target);
        replaced.append(&mut ahead);
        ahead = replaced;
    }
    let last = stack.pop().context("the root folder")?;
    if is_kind(&fstat(&last)?, SFlag::S_IFDIR) { Ok(last) } else { Err(Errno::ENOTDIR.into()) }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |c| match c {
        Component::Normal(name) => Some(OsStr::to_owned(name)),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

fn is_kind(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind
}

fn is_ours(stat: &FileStat) -> bool {
    stat.st_uid == 0 || stat.st_uid == Uid::effective().as_raw()
}
