//! Making what is not there yet: files and folders beneath folders that only root or the caller can
//! write, so that nobody can put a link in the way.
//!
//! Nothing has its final name before it is whole and on the disk, and nothing that has the name already
//! is replaced unless that was asked for. What a killed run left under its temporary name is used up by
//! the next one.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, mkdirat};
use nix::unistd::{AccessFlags, Gid, Uid, UnlinkatFlags, access, fchown, linkat, unlinkat};

use super::account::Account;
use super::{beneath, trusted_file};
use crate::outcome::{Class, Failure, is_of_kind};

/// Whether `path` could be made, as far as can be told without making anything.
pub fn check(path: &Path) -> Result<()> {
    let mut folder = path.parent().unwrap_or(Path::new("/"));
    loop {
        match trusted_file::open_folder(folder) {
            Ok(_) => return access(folder, AccessFlags::W_OK).map_err(|e| at(folder, e)),
            Err(e) if is_missing(&e) => folder = folder.parent().context("the root folder is missing")?,
            Err(e) => return Err(e),
        }
    }
}

/// Makes the folder `path` for the caller; one that another process was faster to make is as good.
pub fn own_folder(path: &Path, mode: u32) -> Result<()> {
    let (parent, name) = open_parent(path)?;
    match mkdirat(&parent, name.as_os_str(), Mode::from_bits_truncate(mode)) {
        Ok(()) | Err(Errno::EEXIST) => sync(&parent),
        Err(e) => Err(at(path, e)),
    }
}

/// Makes the folder `path` for `owner`, and those above it for the caller. The umask is to be 022.
pub fn folder(path: &Path, mode: u32, owner: &Account) -> Result<()> {
    let (parent, name) = open_parent(path)?;
    let temporary = temporary_name(&name);
    let mode = Mode::from_bits_truncate(mode);
    let rmdir = || unlinkat(&parent, temporary.as_os_str(), UnlinkatFlags::RemoveDir);
    // It is empty, whoever was killed while making it.
    rmdir().or_else(|e| if e == Errno::ENOENT { Ok(()) } else { Err(at(path, e)) })?;
    mkdirat(&parent, temporary.as_os_str(), mode).map_err(|e| at(path, e))?;
    let made = beneath::open_folder(&parent, &temporary).with_context(|| path.display().to_string())?;
    fchmod(&made, mode).map_err(|e| at(path, e))?;
    if Uid::effective().is_root() {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        fchown(&made, Some(uid), Some(gid)).map_err(|e| at(path, e))?;
    }
    if beneath::look(&parent, &name)?.is_some() {
        rmdir().map_err(|e| at(path, e))?;
        return Err(at(path, Errno::EEXIST));
    }
    renameat(&parent, temporary.as_os_str(), &parent, name.as_os_str()).map_err(|e| at(path, e))?;
    sync(&parent)
}

/// A file in the making, under a temporary name beside its own. One process at a time has it.
pub struct Draft {
    path: PathBuf,
    folder: OwnedFd,
    name: OsString,
    temporary: OsString,
    file: File,
}

/// Takes away what a killed run left of a file that has its name by now.
pub fn tidy(path: &Path) -> Result<()> {
    let (folder, name) = open_parent(path)?;
    match beneath::look(&folder, &temporary_name(&name))? {
        Some(_) => Draft::begin(path).map(drop),
        None => Ok(()),
    }
}

/// Whoever makes the same file needs moments only.
const PATIENCE: Duration = Duration::from_secs(10);

impl Draft {
    /// Begins a file that nobody else can read.
    ///
    /// # Errors
    /// `Refused` when others could put something in the way, `Busy` when another process has it.
    pub fn begin(path: &Path) -> Result<Draft> {
        let (folder, name) = open_parent(path)?;
        let temporary = temporary_name(&name);
        let end = Instant::now() + PATIENCE;
        loop {
            let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mode = Mode::from_bits_truncate(0o600);
            let file = openat(&folder, temporary.as_os_str(), flags, mode).map_err(|e| at(path, e))?;
            let file = File::from(file);
            // The lock is on the file that had the name when it was opened; it may have been renamed since.
            let locked = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(e)) => return Err(e).with_context(|| path.display().to_string()),
            };
            let stat = fstat(&file)?;
            if locked && is_under(&folder, &temporary, &stat)? {
                if stat.st_size == 0 && stat.st_nlink == 1 {
                    return Ok(Draft { path: path.to_owned(), folder, name, temporary, file });
                }
                // A killed run's, which may have its final name already: not to be written to.
                unlinkat(&folder, temporary.as_os_str(), UnlinkatFlags::NoRemoveDir).map_err(|e| at(path, e))?;
                continue;
            }
            if Instant::now() > end {
                return Err(Failure::new(Class::Busy, format!("another process is writing {}", path.display()))
                    .help("try again; nothing was lost")
                    .into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn write(&mut self, text: &str) -> Result<()> {
        self.file.write_all(text.as_bytes()).with_context(|| self.path.display().to_string())
    }

    /// Gives it its name, unless something has that already.
    pub fn keep(self, mode: u32) -> Result<()> {
        self.finish(mode)?;
        linkat(&self.folder, self.temporary.as_os_str(), &self.folder, self.name.as_os_str(), AtFlags::empty())
            .map_err(|e| at(&self.path, e))?;
        // Dropping it takes the temporary name away.
        sync(&self.folder)
    }

    /// Puts it in the place of the file that has the name, or of none, with that one's owner and mode.
    pub fn replace(self, mode: u32) -> Result<()> {
        let before = beneath::look(&self.folder, &self.name)?;
        if let Some(before) = before.filter(|_| Uid::effective().is_root()) {
            let (uid, gid) = (Uid::from_raw(before.st_uid), Gid::from_raw(before.st_gid));
            fchown(&self.file, Some(uid), Some(gid)).map_err(|e| at(&self.path, e))?;
        }
        self.finish(before.map_or(mode, |before| before.st_mode & 0o7777))?;
        renameat(&self.folder, self.temporary.as_os_str(), &self.folder, self.name.as_os_str())
            .map_err(|e| at(&self.path, e))?;
        sync(&self.folder)
    }

    fn finish(&self, mode: u32) -> Result<()> {
        fchmod(&self.file, Mode::from_bits_truncate(mode)).map_err(|e| at(&self.path, e))?;
        self.file.sync_all().with_context(|| self.path.display().to_string())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Renamed, it is gone from there, and another process may have begun anew under the name.
        if fstat(&self.file).is_ok_and(|own| is_under(&self.folder, &self.temporary, &own).unwrap_or(false)) {
            let _ = unlinkat(&self.folder, self.temporary.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

fn is_under(folder: &OwnedFd, name: &OsStr, own: &FileStat) -> io::Result<bool> {
    let found = beneath::look(folder, name)?;
    Ok(found.is_some_and(|found| (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)))
}

/// Hidden, so that what lists a folder of configuration passes it over.
fn temporary_name(name: &OsStr) -> OsString {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".partial");
    temporary
}

/// Opens the folder that `path` lies in, made where it is missing, and the last part.
fn open_parent(path: &Path) -> Result<(OwnedFd, OsString)> {
    let name = path.file_name().with_context(|| format!("{} has no name", path.display()))?.to_owned();
    let parent = path.parent().context("the root folder")?;
    match trusted_file::open_folder(parent) {
        Err(e) if is_missing(&e) && parent.parent().is_some() => {
            let (above, name) = open_parent(parent)?;
            beneath::make_folder(&above, &name).with_context(|| parent.display().to_string())?;
            sync(&above)?;
        }
        Err(e) => return Err(e),
        Ok(folder) => return Ok((folder, name)),
    }
    Ok((trusted_file::open_folder(parent)?, name))
}

pub fn is_missing(error: &anyhow::Error) -> bool {
    is_of_kind(error, io::ErrorKind::NotFound)
}

/// A folder's descriptor may be for looking only, which cannot be synced.
fn sync(folder: &OwnedFd) -> Result<()> {
    let readable = beneath::open_folder(folder.as_fd(), OsStr::new("."))?;
    File::from(readable).sync_all().context("syncing a folder")
}

fn at(path: &Path, error: Errno) -> anyhow::Error {
    anyhow::Error::from(io::Error::from(error)).context(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("poller-fresh-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn make(path: &Path, text: &str) -> Result<()> {
        let mut draft = Draft::begin(path)?;
        draft.write(text)?;
        draft.keep(0o640)
    }

    #[test]
    fn a_new_file_comes_whole_and_never_in_the_place_of_another() {
        let folder = scratch("keep");
        let path = folder.join("a/b/file");
        make(&path, "one").unwrap();
        assert!(make(&path, "two").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        symlink("nowhere", folder.join("link")).unwrap();
        assert!(make(&folder.join("link"), "two").is_err());
        assert_eq!(names(&folder.join("a/b")), ["file"]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_a_killed_run_left_is_used_up() {
        let folder = scratch("left");
        fs::write(folder.join(".file.partial"), "something longer").unwrap();
        fs::create_dir(folder.join(".sub.partial")).unwrap();
        make(&folder.join("file"), "new").unwrap();
        super::folder(&folder.join("sub"), 0o750, &Account::current().unwrap()).unwrap();
        assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "new");
        assert_eq!(names(&folder), ["file", "sub"]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_was_killed_between_its_two_names_keeps_its_content() {
        let folder = scratch("two-names");
        let path = folder.join("file");
        make(&path, "whole").unwrap();
        let left = folder.join(".file.partial");
        fs::hard_link(&path, &left).unwrap();
        assert!(make(&path, "other").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        fs::hard_link(&path, &left).unwrap();
        tidy(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(names(&folder), ["file"]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_replaced_file_keeps_its_mode() {
        let folder = scratch("replace");
        let path = folder.join("file");
        fs::write(&path, "one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        let mut draft = Draft::begin(&path).unwrap();
        draft.write("two").unwrap();
        draft.replace(0o644).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o604);
        assert_eq!(names(&folder), ["file"]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn beneath_a_folder_that_others_can_write_nothing_is_made() {
        let folder = scratch("others");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).unwrap();
        for result in [make(&folder.join("file"), ""), own_folder(&folder.join("sub"), 0o755), check(&folder.join("x"))]
        {
            assert_eq!(Failure::of(result.unwrap_err()).class, Class::Refused);
        }
        assert!(names(&folder).is_empty());
        fs::remove_dir_all(folder).unwrap();
    }
}
