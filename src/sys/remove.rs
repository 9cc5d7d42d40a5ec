//! Removing folders with all that is in them, in a tree whose owner may be moving things about in it at
//! that very moment. Only descriptors are walked, never a path; no link is followed, no other file
//! system is entered, and however deep a tree is, it takes two descriptors and no stack.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::beneath::{look, open_folder};

/// What a removal may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    Everything,
    /// Folders, and those in them; a file is an error, and what holds it stays.
    Folders,
}

/// The names in a folder.
pub fn names(folder: impl AsFd) -> io::Result<Vec<OsString>> {
    // A description of its own, since the place in a listing is shared by copies of a descriptor.
    let mut listing = Dir::from_fd(open_folder(folder, OsStr::new("."))?)?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// A folder on the way down: which one it is, its name in the one above, and the folders still in it.
struct Level {
    identity: (u64, u64),
    name: OsString,
    folders: Vec<OsString>,
}

/// Removes what stands under a name, whatever it is; nothing is fine. Folders are made readable first.
pub fn remove_all(parent: impl AsFd, name: &OsStr, take: Take) -> io::Result<()> {
    let parent = parent.as_fd();
    if !remove_unless_folder(parent, name, take)? {
        return Ok(());
    }
    let mut here = open_to_empty(parent, name)?;
    let mut levels = vec![enter(&here, name, take)?];
    while let Some(level) = levels.last_mut() {
        if let Some(below) = level.folders.pop() {
            let folder = match open_to_empty(&here, &below) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let next = enter(&folder, &below, take)?;
            if next.identity.0 != level.identity.0 {
                return Err(io::Error::other(format!("{} is a file system of its own", below.display())));
            }
            levels.push(next);
            here = folder;
            continue;
        }
        let Some(done) = levels.pop() else { break };
        let Some(above) = levels.last() else { return remove_folder(parent, &done.name) };
        // Somebody who moved the folder elsewhere must not lead us there.
        let up = open_folder(&here, OsStr::new(".."))?;
        if identity(&up)? != above.identity {
            return Err(io::Error::other(format!("{} was moved while it was removed", done.name.display())));
        }
        remove_folder(&up, &done.name)?;
        here = up;
    }
    Ok(())
}

/// Takes what is no folder out of a folder, and tells which folders are in it.
fn enter(folder: &OwnedFd, name: &OsStr, take: Take) -> io::Result<Level> {
    let mut folders = Vec::new();
    for entry in names(folder)? {
        if remove_unless_folder(folder, &entry, take)? {
            folders.push(entry);
        }
    }
    Ok(Level { identity: identity(folder)?, name: name.to_owned(), folders })
}

/// Whether a folder stands there; anything else is removed, or is an error.
fn remove_unless_folder(parent: impl AsFd, name: &OsStr, take: Take) -> io::Result<bool> {
    if take == Take::Folders {
        let Some(stat) = look(&parent, name)? else { return Ok(false) };
        return if is_folder(stat.st_mode) { Ok(true) } else { Err(Errno::ENOTEMPTY.into()) };
    }
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(false),
        Err(Errno::EISDIR) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

fn remove_folder(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Opens a folder; one that its owner closed to himself is opened up, for it goes anyway.
fn open_to_empty(parent: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let folder = match open_folder(&parent, name) {
        Err(e) if e.raw_os_error() == Some(Errno::EACCES as i32) => {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let closed = openat(&parent, name, flags, Mode::empty())?;
            // By its descriptor: another folder may have the name by now.
            let path = format!("/proc/self/fd/{}", closed.as_raw_fd());
            fchmodat(nix::fcntl::AT_FDCWD, path.as_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
            open_folder(&closed, OsStr::new("."))?
        }
        other => other?,
    };
    let mode = Mode::from_bits_truncate(fstat(&folder)?.st_mode);
    if !mode.contains(Mode::S_IRWXU) {
        // Another user's stays as it is, and what cannot be removed from it says so.
        let _ = fchmod(&folder, mode | Mode::S_IRWXU);
    }
    Ok(folder)
}

fn identity(folder: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = nix::sys::stat::fstatat(folder, "", AtFlags::AT_EMPTY_PATH)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn is_folder(mode: u32) -> bool {
    mode & nix::libc::S_IFMT == nix::libc::S_IFDIR
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::{Path, PathBuf};

    fn scratch(name: &str) -> (PathBuf, OwnedFd) {
        let folder = std::env::temp_dir().join(format!("poller-remove-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let open = OwnedFd::from(fs::File::open(&folder).unwrap());
        (folder, open)
    }

    fn gone(folder: &Path) {
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
        fs::remove_dir(folder).unwrap();
    }

    #[test]
    fn a_tree_goes_and_what_its_links_lead_to_stays() {
        let (folder, open) = scratch("tree");
        let (outside, _) = scratch("outside");
        fs::write(outside.join("precious"), "").unwrap();
        fs::create_dir_all(folder.join("x/a/b/c")).unwrap();
        fs::create_dir_all(folder.join("x/a/d")).unwrap();
        fs::write(folder.join("x/a/file"), "").unwrap();
        symlink(&outside, folder.join("x/a/b/link")).unwrap();
        symlink(&outside, folder.join("y")).unwrap();
        fs::write(folder.join("z"), "").unwrap();
        for name in ["x", "y", "z", "nothing"] {
            remove_all(&open, OsStr::new(name), Take::Everything).unwrap();
        }
        gone(&folder);
        assert!(outside.join("precious").exists());
        fs::remove_dir_all(outside).unwrap();
    }

    #[test]
    fn folders_closed_by_their_owner_go_too() {
        let (folder, open) = scratch("closed");
        for mode in [0o000, 0o555, 0o300, 0o400] {
            fs::create_dir_all(folder.join("x/a/b")).unwrap();
            fs::write(folder.join("x/a/file"), "").unwrap();
            fs::set_permissions(folder.join("x/a"), fs::Permissions::from_mode(mode)).unwrap();
            fs::set_permissions(folder.join("x"), fs::Permissions::from_mode(mode)).unwrap();
            remove_all(&open, OsStr::new("x"), Take::Everything).unwrap();
        }
        gone(&folder);
    }

    #[test]
    fn two_thousand_levels_take_no_more_descriptors_than_two() {
        let (folder, open) = scratch("deep");
        let mut here = open.try_clone().unwrap();
        for _ in 0..2_000 {
            nix::sys::stat::mkdirat(&here, "x", Mode::S_IRWXU).unwrap();
            here = open_folder(&here, OsStr::new("x")).unwrap();
        }
        drop(here);
        remove_all(&open, OsStr::new("x"), Take::Everything).unwrap();
        gone(&folder);
    }

    #[test]
    fn a_file_stops_the_removal_of_folders() {
        let (folder, open) = scratch("folders");
        fs::create_dir_all(folder.join("x/a/b")).unwrap();
        fs::create_dir_all(folder.join("y/a")).unwrap();
        fs::write(folder.join("y/a/file"), "").unwrap();
        remove_all(&open, OsStr::new("x"), Take::Folders).unwrap();
        assert!(remove_all(&open, OsStr::new("y"), Take::Folders).is_err());
        assert!(!folder.join("x").exists() && folder.join("y/a/file").exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
