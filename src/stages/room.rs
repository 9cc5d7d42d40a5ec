//! Room: whether a target directory takes one more release. Runs in the stager, for `check`: it looks
//! with the deploy user's eyes and writes nothing.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use nix::fcntl::AtFlags;
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{AccessFlags, access, faccessat};

use super::activate::{RELEASES, SHARED, Target};
use super::stage::good_names;
use crate::processes::messages::Room;
use crate::sys::beneath::{look, open_folder};

impl Target {
    pub fn room(&self, releases: bool, shared: &[String]) -> Result<Room> {
        let mut room = Room::default();
        note_writable(&self.root, "", &mut room);
        let (mut store, mut common) = (None, None);
        if releases {
            for (name, place) in [(RELEASES, &mut store), (SHARED, &mut common)] {
                if look(&self.root, OsStr::new(name))?.is_some() {
                    match open_folder(&self.root, OsStr::new(name)) {
                        Ok(folder) => *place = Some(folder),
                        Err(e) => room.not_writable.push((format!("/{name}"), e.to_string())),
                    }
                }
                if let Some(folder) = place {
                    note_writable(folder, &format!("/{name}"), &mut room);
                }
            }
        }
        // `releases` may be a file system of its own.
        let stat = fstatvfs(store.as_ref().unwrap_or(&self.root)).context("asking for the free space")?;
        room.bytes = stat.blocks_available().saturating_mul(stat.fragment_size());
        room.inodes = stat.files_available();
        room.counts_inodes = stat.files() > 0;
        for entry in shared.iter().filter(|entry| !is_made(entry)) {
            if !is_there(common.as_ref(), entry)? {
                room.missing.push(entry.clone());
            }
        }
        Ok(room)
    }
}

/// Whether this user can run a program of the host, by its path or by its name alone.
pub fn is_usable(program: &str, path: &str) -> bool {
    let runs = |file: &Path| file.is_file() && access(file, AccessFlags::X_OK).is_ok();
    match program.contains('/') {
        true => runs(Path::new(program)),
        false => path.split(':').any(|folder| runs(&Path::new(folder).join(program))),
    }
}

fn note_writable(folder: &OwnedFd, name: &str, room: &mut Room) {
    if let Err(e) = faccessat(folder, ".", AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::empty()) {
        room.not_writable.push((name.to_owned(), e.desc().to_owned()));
    }
}

/// Folders are made by a deploy: written with a slash at the end, or without a dot in the name.
fn is_made(entry: &str) -> bool {
    entry.ends_with('/') || !entry.rsplit('/').next().unwrap_or_default().contains('.')
}

fn is_there(common: Option<&OwnedFd>, entry: &str) -> Result<bool> {
    let Some(common) = common else { return Ok(false) };
    let parts = good_names(entry.as_bytes())?;
    let Some((name, folders)) = parts.split_last() else { return Ok(false) };
    let mut here = common.as_fd().try_clone_to_owned()?;
    for folder in folders {
        match open_folder(&here, folder) {
            Ok(next) => here = next,
            Err(_) => return Ok(false),
        }
    }
    Ok(look(&here, name)?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_deploy_makes_by_itself_is_told_from_what_it_does_not() {
        for (entry, made) in
            [("media", true), ("media.d/", true), ("db.sqlite3", false), ("a.b/log", true), (".env", false)]
        {
            assert_eq!(is_made(entry), made, "{entry}");
        }
    }
}
