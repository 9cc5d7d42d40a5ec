//! Files whose word is taken: configuration, keys, known_hosts, absolute scripts.
//!
//! Nobody but root and the caller may be able to change the file, or to put another in its place.
//! So the path is walked folder by folder, each opened without following links beneath the one
//! before, and each is judged by its own descriptor: what was checked is what is opened.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{Uid, User};

use crate::outcome::{Class, Failure};

/// What kind of secrecy a file needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Secrecy {
    /// Others may read it.
    Public,
    /// A private key: 0600 or stricter.
    Private,
}

/// Longer files are no configuration, key or known_hosts.
const LONGEST: u64 = 8 << 20;

/// Reads a text file that only root or the caller can have written.
///
/// # Errors
/// `Refused` when somebody else could have; otherwise the error of opening, with the path.
pub fn read(path: &Path, secrecy: Secrecy) -> Result<String> {
    let file = walk(path)?;
    let stat = fstat(&file).with_context(|| path.display().to_string())?;
    if !is_kind(&stat, SFlag::S_IFREG) {
        let failure = refused(format!("{} is not a plain file", path.display()));
        return Err(failure.help(format!("move it away, or name another: ls -ld {}", path.display())).into());
    }
    if secrecy == Secrecy::Private && stat.st_mode & 0o077 != 0 {
        return Err(refused(format!(
            "{} can be read by others (mode {:04o}): a private key must be 0600 or stricter",
            path.display(),
            stat.st_mode & 0o7777
        ))
        .help(format!("chmod 600 {}", path.display()))
        .into());
    }
    // Half a known_hosts might lack the line that revokes a key.
    if stat.st_size as u64 > LONGEST {
        let (path, size, most) = (path.display(), stat.st_size, LONGEST);
        let failure = Failure::new(Class::Config, format!("{path} has {size} bytes, and {most} is the most"));
        return Err(failure.help(format!("is it the right file? head -c 1000 {path}")).into());
    }
    // The walk's descriptor is for looking only; this one is the same file, opened to read.
    let readable = by_descriptor(&file);
    let mut text = String::new();
    File::open(readable)
        .and_then(|f| f.take(LONGEST).read_to_string(&mut text))
        .with_context(|| path.display().to_string())?;
    if text.contains('\0') {
        let failure = Failure::new(Class::Config, format!("{} is no text: it has NUL bytes", path.display()));
        return Err(failure.help(format!("is it the right file? head -c 1000 {}", path.display())).into());
    }
    Ok(text)
}

/// Checks a program that will be run by its absolute path.
pub fn check_program(path: &Path) -> Result<()> {
    walk(path).map(drop)
}

/// Checks a folder in which only root or the caller may make files. A sticky one will do on the way to
/// it, but not for itself: there others could be first with a name.
pub fn check_folder(path: &Path) -> Result<()> {
    match shared_by_others(&walk(path)?, path)? {
        Some(failure) => Err(failure.help("name a folder of poller's own in `[paths]`").into()),
        None => Ok(()),
    }
}

/// Opens a folder (O_PATH) in which only root or the caller may make files, to make one beneath it.
pub fn open_folder(path: &Path) -> Result<OwnedFd> {
    let folder = walk(path)?;
    let stat = fstat(&folder)?;
    if !is_kind(&stat, SFlag::S_IFDIR) {
        return Err(std::io::Error::from(Errno::ENOTDIR)).with_context(|| path.display().to_string());
    }
    match shared_by_others(&folder, path)? {
        // A sticky one is meant to be everybody's.
        Some(failure) if stat.st_mode & 0o1000 != 0 => {
            Err(failure.help("choose a folder that is not everybody's").into())
        }
        Some(failure) => Err(failure.help(format!("chmod go-w {}", path.display())).into()),
        None => Ok(folder),
    }
}

fn shared_by_others(folder: &OwnedFd, path: &Path) -> Result<Option<Failure>> {
    let stat = fstat(folder)?;
    let writers = Writers::of(folder, &stat).with_context(|| path.display().to_string())?;
    Ok(writers.any().then(|| {
        refused(format!(
            "others can make files in {} (mode {:04o}), so it is not trusted",
            path.display(),
            stat.st_mode & 0o7777
        ))
    }))
}

/// Who can change something besides its owner and root's own group.
pub struct Writers {
    group: bool,
    all: bool,
    /// Somebody whom an access control list names. The mode's group bits are then the most that it gives to
    /// anybody, and not what the group has.
    listed: bool,
}

impl Writers {
    pub fn of(file: &OwnedFd, stat: &FileStat) -> Result<Writers> {
        let (by_group, all) = (stat.st_mode & 0o020 != 0, stat.st_mode & 0o002 != 0);
        // Root's own group is root; anyone in another group is somebody else.
        let group = by_group && stat.st_gid != 0;
        Ok(Writers { group, all, listed: by_group && !group && has_access_list(file)? })
    }

    pub fn any(&self) -> bool {
        self.group || self.all || self.listed
    }

    /// The command that makes it nobody else's. With a list, the group's bits are the most that it gives.
    pub fn remedy(&self, path: &Path) -> String {
        let whose = match (self.group || self.listed, self.all) {
            (true, true) => "go",
            (true, false) => "g",
            (false, _) => "o",
        };
        format!("chmod {whose}-w {}", path.display())
    }
}

/// Whether a file has a list of users and groups besides its mode, see acl(5).
fn has_access_list(file: &OwnedFd) -> std::io::Result<bool> {
    let path = std::ffi::CString::new(by_descriptor(file))?;
    // SAFETY: both names end with a NUL byte and outlive the call; no memory is given to write to.
    let size = unsafe { libc::getxattr(path.as_ptr(), c"system.posix_acl_access".as_ptr(), std::ptr::null_mut(), 0) };
    match Errno::result(size) {
        Ok(size) => Ok(size > 0),
        // None, and a file system without any.
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// A name for what a descriptor is for, that leads there whatever has its path by now.
fn by_descriptor(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Opens `path` (O_PATH) and judges it and everything on the way.
fn walk(path: &Path) -> Result<OwnedFd> {
    anyhow::ensure!(path.is_absolute(), "{} is not an absolute path", path.display());
    let mut ahead: VecDeque<OsString> = parts(path);
    let mut stack = vec![open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?];
    let mut here = PathBuf::from("/");
    let mut links = 0;
    judge(&stack[0], &fstat(&stack[0])?, &here)?;
    while let Some(part) = ahead.pop_front() {
        if part == ".." {
            if stack.len() > 1 {
                stack.pop();
                here.pop();
            }
            continue;
        }
        let parent = stack.last().map(AsFd::as_fd).context("the root folder")?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = openat(parent, part.as_os_str(), flags, Mode::empty())
            .map_err(std::io::Error::from)
            .with_context(|| path.display().to_string())?;
        let stat = fstat(&found)?;
        here.push(&part);
        if is_kind(&stat, SFlag::S_IFLNK) {
            links += 1;
            if links > 40 {
                return Err(std::io::Error::from(Errno::ELOOP)).with_context(|| path.display().to_string());
            }
            check_owner(&stat, &here)?;
            let target = PathBuf::from(readlinkat(&found, OsStr::new(""))?);
            here.pop();
            if target.is_absolute() {
                stack.truncate(1);
                here = PathBuf::from("/");
            }
            let mut replaced = parts(&target);
            replaced.append(&mut ahead);
            ahead = replaced;
            continue;
        }
        judge(&found, &stat, &here)?;
        stack.push(found);
    }
    stack.pop().context("the root folder")
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

fn is_kind(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind
}

fn judge(file: &OwnedFd, stat: &FileStat, path: &Path) -> Result<()> {
    check_owner(stat, path)?;
    let writers = Writers::of(file, stat).with_context(|| path.display().to_string())?;
    // In a sticky folder nobody can replace what is another's.
    let sticky = is_kind(stat, SFlag::S_IFDIR) && stat.st_mode & 0o1000 != 0;
    if writers.any() && !sticky {
        let list = if writers.listed { ", by its access control list" } else { "" };
        return Err(refused(format!(
            "{} can be changed by others (mode {:04o}){list}, so it is not trusted",
            path.display(),
            stat.st_mode & 0o7777
        ))
        .help(writers.remedy(path))
        .into());
    }
    Ok(())
}

fn check_owner(stat: &FileStat, path: &Path) -> Result<()> {
    let me = Uid::effective();
    if stat.st_uid == 0 || stat.st_uid == me.as_raw() {
        return Ok(());
    }
    let owner = User::from_uid(Uid::from_raw(stat.st_uid)).ok().flatten();
    let shown = path.display();
    // What lies in somebody's home stays that person's: to take it away would lock them out.
    let is_at_home = owner.as_ref().is_some_and(|u| u.dir != Path::new("/") && path.starts_with(&u.dir));
    let owner = owner.map_or_else(|| stat.st_uid.to_string(), |u| u.name);
    let help = match me.is_root() {
        true if is_at_home => format!(
            "{shown} is in {owner}'s home: keep what is named where only root can change it, such as in /etc/poller"
        ),
        true => format!("chown root:root {shown}"),
        false => format!("sudo chown {me} {shown}"),
    };
    Err(refused(format!(
        "{shown} belongs to {owner} (mode {:04o}), who could change it, so it is not trusted",
        stat.st_mode & 0o7777
    ))
    .help(help)
    .into())
}

fn refused(message: String) -> Failure {
    Failure::new(Class::Refused, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A folder that only we can write, under a sticky one.
    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("poller-trust-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    fn class_of(result: Result<String>) -> Class {
        Failure::of(result.unwrap_err()).class
    }

    #[test]
    fn a_file_or_folder_that_others_can_write_is_refused_with_the_chmod() {
        let folder = scratch("writable");
        let file = folder.join("f");
        fs::write(&file, "text").unwrap();
        assert_eq!(read(&file, Secrecy::Public).unwrap(), "text");

        fs::set_permissions(&file, fs::Permissions::from_mode(0o646)).unwrap();
        let failure = Failure::of(read(&file, Secrecy::Public).unwrap_err());
        assert_eq!(failure.class, Class::Refused);
        assert_eq!(failure.help, [format!("chmod o-w {}", file.display())]);

        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o757)).unwrap();
        assert_eq!(class_of(read(&file, Secrecy::Public)), Class::Refused);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_an_access_control_list_lets_others_write_is_refused() {
        let folder = scratch("list");
        let file = folder.join("f");
        fs::write(&file, "text").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o664)).unwrap();
        if !Uid::effective().is_root() {
            // Group bits count only when the group is root's, and nobody else can have such a file.
            assert!(std::env::var_os("CI").is_none(), "skipped on CI: needs root");
            eprintln!("skipped: needs root");
            return fs::remove_dir_all(folder).unwrap();
        }
        assert_eq!(read(&file, Secrecy::Public).unwrap(), "text", "root's own group");
        // As in linux/posix_acl_xattr.h: a version, then tag, permissions and id of each entry.
        let entries = [
            (0x01u16, 6u16, u32::MAX),
            (0x02, 6, 12345),
            (0x04, 4, u32::MAX),
            (0x10, 6, u32::MAX),
            (0x20, 4, u32::MAX),
        ];
        let mut list = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            list.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
            list.extend(id.to_le_bytes());
        }
        let path = std::ffi::CString::new(file.to_str().unwrap()).unwrap();
        let name = c"system.posix_acl_access";
        // SAFETY: names with a NUL byte at their end, and a list of the length that is given.
        let done = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), list.as_ptr().cast(), list.len(), 0) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        let failure = Failure::of(read(&file, Secrecy::Public).unwrap_err());
        assert_eq!(failure.class, Class::Refused);
        assert!(failure.message.contains("access control list"), "{failure:?}");
        assert_eq!(failure.help, [format!("chmod g-w {}", file.display())]);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read(&file, Secrecy::Public).unwrap(), "text", "as it says");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = scratch("key");
        let file = folder.join("key");
        fs::write(&file, "secret").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(class_of(read(&file, Secrecy::Private)), Class::Refused);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(read(&file, Secrecy::Private).unwrap(), "secret");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let folder = scratch("nul");
        let file = folder.join("f");
        fs::write(&file, "te\0xt").unwrap();
        assert_eq!(class_of(read(&file, Secrecy::Public)), Class::Config);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn links_are_followed_and_judged_where_they_lead() {
        let folder = scratch("links");
        let open_folder = folder.join("open");
        fs::create_dir(&open_folder).unwrap();
        fs::write(open_folder.join("f"), "text").unwrap();
        std::os::unix::fs::symlink("open/../open/f", folder.join("link")).unwrap();
        std::os::unix::fs::symlink("loop", folder.join("loop")).unwrap();
        assert_eq!(read(&folder.join("link"), Secrecy::Public).unwrap(), "text");
        fs::set_permissions(&open_folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(class_of(read(&folder.join("link"), Secrecy::Public)), Class::Refused);
        assert_eq!(class_of(read(&folder.join("loop"), Secrecy::Public)), Class::Io);
        fs::remove_dir_all(folder).unwrap();
    }
}
