//! Activate: what was staged becomes live, and what is no longer needed goes. Runs in the stager, as
//! the deploy user; the supervisor never opens the target directory.
//!
//! Layout `releases`: a full release has its name by rename, and `current` is switched by the rename
//! of a new link. A crash before either leaves the old one, a crash after both the new one.
//! Layout `in-place`: all changed files wait, complete and synced, in one folder beside the live ones;
//! then each is renamed over. A crash in between is mended by the next run, which knows of both commits.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, readlinkat, renameat};
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::{UnlinkatFlags, fsync, symlinkat, unlinkat};

use super::clone::Begun;
use super::stage::{self, Staged, good_names, shown};
use crate::commit::Commit;
use crate::outcome::{Class, Failure};
use crate::processes::messages::StagerReply;
use crate::stages::tree::DEEPEST;
use crate::sys::account::Account;
use crate::sys::beneath::{Folders, look, make_folder, open_folder};
use crate::sys::remove::{Take, names, remove_all};

pub(super) const RELEASES: &str = "releases";
pub(super) const CURRENT: &str = "current";
pub(super) const SHARED: &str = "shared";
/// At the end of a release's name: it is being removed.
const GONE: &str = ".gone";
/// Where changed files wait with the layout `in-place`.
pub(super) const WAITING: &str = ".poller.partial";

/// The app's target directory, open.
pub struct Target {
    path: PathBuf,
    pub(super) root: OwnedFd,
}

impl Target {
    pub fn open(path: &Path) -> Result<Target> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(path, flags, Mode::empty()).map_err(|e| {
            let me = Account::my_name().unwrap_or_else(|| "the deploy user".to_owned());
            Failure::new(
                Class::Config,
                format!("the target directory {} cannot be opened: {}", path.display(), e.desc()),
            )
            .help(format!("make it for {me}: install -d -o {me} {}", path.display()))
        })?;
        Ok(Target { path: path.to_owned(), root })
    }

    /// For an app that was never deployed: whether anything here is not poller's.
    pub fn inspect(&self, app: &str, releases: bool) -> Result<()> {
        let allowed = |name: &OsStr| {
            name == "lost+found"
                || name == WAITING
                || (releases && (name == RELEASES || name == SHARED || name == "current.partial"))
        };
        for name in names(&self.root)? {
            if !allowed(&name) {
                let no_release = releases && look(&self.root, OsStr::new(CURRENT))?.is_none();
                let first = if no_release { "`layout = \"in-place\"` in `[target]`, then " } else { "" };
                return Err(Failure::new(
                    Class::Refused,
                    format!(
                        "{} is not empty ({} is there) and poller never deployed to it",
                        self.path.display(),
                        shown(name.as_bytes())
                    ),
                )
                .help(format!("take it over as it is: {first}poller adopt {app}"))
                .help("or empty it, or name another `[target] directory`")
                .into());
            }
        }
        Ok(())
    }

    pub(super) fn releases(&self) -> Result<OwnedFd> {
        self.folder(RELEASES)
    }

    /// A folder of poller's own in the target, made where it is missing.
    fn folder(&self, name: &str) -> Result<OwnedFd> {
        let name = OsStr::new(name);
        let path = self.path.join(name);
        match make_folder(&self.root, name).and_then(|()| open_folder(&self.root, name)) {
            Ok(folder) => Ok(folder),
            Err(_) if look(&self.root, name)?.is_some_and(|stat| !is_folder(&stat)) => {
                let text = format!("{} is not a folder, so poller did not make it", path.display());
                Err(Failure::new(Class::Refused, text).help("move it away; the next run makes the folder").into())
            }
            Err(e) => Err(Failure::new(Class::Io, format!("{}: {e}", path.display()))
                .help(format!("the deploy user must be able to write there: ls -ld {}", path.display()))
                .into()),
        }
    }

    /// Writes the rest of a release and gives it its name.
    pub fn stage_release(
        &self,
        begun: Begun,
        commit: Option<&Commit>,
        shared: &[String],
        from: &mut impl Read,
    ) -> Result<StagerReply> {
        let Begun { releases, folder, name, files, bytes } = begun;
        let partial = partial_name(&name);
        let staged = stage::write(&folder, commit, from);
        let staged = staged.and_then(|staged| {
            let warnings = self.link_shared(&folder, shared)?;
            stage::sync(&folder)?;
            Ok((staged, warnings))
        });
        let (staged, warnings) = match staged {
            Ok(done) => done,
            Err(e) => {
                // A full disk must not stay full of what nobody can use.
                clear_partial(&releases)?;
                return Err(e);
            }
        };
        // The same commit in the same second: left by a run that was killed before its journal knew.
        if self.live().as_deref() != Some(&name) && look(&releases, OsStr::new(&name))?.is_some() {
            remove_all(&releases, OsStr::new(&name), Take::Everything).with_context(|| name.clone())?;
        }
        // Crash before the rename: a .partial, which the next run removes. After: a whole release.
        renameat(&releases, partial.as_os_str(), &releases, name.as_str()).map_err(std::io::Error::from)?;
        fsync(&releases).map_err(std::io::Error::from)?;
        let (all, all_bytes) = (staged.files + files, staged.bytes + bytes);
        Ok(StagerReply::Staged { files: all, bytes: all_bytes, cloned: files, warnings })
    }

    /// Puts links to `shared/` into a release. What a link should lead to is made when it is a folder:
    /// written with a slash at the end, or without a dot in its name.
    fn link_shared(&self, release: &OwnedFd, shared: &[String]) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        if shared.is_empty() {
            return Ok(warnings);
        }
        let mut common = Folders::new(self.folder(SHARED)?);
        let mut folders = Folders::new(release.try_clone()?);
        for entry in shared {
            let path = entry.trim_end_matches('/');
            let parts = good_names(path.as_bytes())?;
            let (parent, name) = common.parent_of(path.as_bytes(), &parts)?;
            if look(parent, name)?.is_none() {
                if entry.ends_with('/') || !name.as_bytes().contains(&b'.') {
                    make_folder(parent, name)?;
                } else {
                    warnings.push(format!("{SHARED}/{path} is not there yet; the script may make it through the link"));
                }
            }
            let (parent, name) = folders.parent_of(path.as_bytes(), &parts)?;
            // releases/NAME/ and one more for each folder on the way
            let up = "../".repeat(parts.len() + 1);
            symlinkat(format!("{up}{SHARED}/{path}").as_str(), parent, name)
                .map_err(std::io::Error::from)
                .with_context(|| path.to_owned())?;
        }
        Ok(warnings)
    }

    /// Waits until what the app's own commands made in the release, or in place, is on the disk.
    pub fn sync(&self, releases: bool) -> Result<()> {
        if releases { stage::sync(&self.releases()?) } else { stage::sync(&self.root) }
    }

    /// Points `current` at a release, or at nothing.
    pub fn switch(&self, release: Option<&str>) -> Result<()> {
        if let Some(stat) = look(&self.root, OsStr::new(CURRENT))?
            && SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK
        {
            return Err(Failure::new(
                Class::Refused,
                format!("{}/{CURRENT} is not a link, so poller did not make it", self.path.display()),
            )
            .help("move it away; the next run puts the link there")
            .into());
        }
        match release {
            Some(name) => {
                let releases = open_folder(&self.root, OsStr::new(RELEASES))?;
                let there = look(&releases, OsStr::new(name))?.is_some_and(|stat| is_folder(&stat));
                anyhow::ensure!(there, "{}/{RELEASES}/{name} is not there any more", self.path.display());
                let next = OsStr::new("current.partial");
                remove_all(&self.root, next, Take::Everything).context("current.partial")?;
                symlinkat(format!("{RELEASES}/{name}").as_str(), &self.root, next).map_err(std::io::Error::from)?;
                // Crash before: the old link and a leftover. After: the new link.
                renameat(&self.root, next, &self.root, CURRENT).map_err(std::io::Error::from)?;
            }
            None => stage::remove(&self.root, OsStr::new(CURRENT))?,
        }
        fsync(&self.root).map_err(std::io::Error::from)?;
        Ok(())
    }

    /// Writes the changed files beside the live ones and checks that they can take their places.
    pub fn stage_in_place(&self, commit: Option<&Commit>, from: &mut impl Read) -> Result<(StagerReply, Staged)> {
        self.clear_waiting()?;
        make_folder(&self.root, OsStr::new(WAITING))?;
        let waiting = open_folder(&self.root, OsStr::new(WAITING))?;
        let staged = stage::write(&waiting, commit, from).and_then(|staged| {
            self.check_in_place(&staged)?;
            stage::sync(&waiting)?;
            Ok(staged)
        });
        match staged {
            Ok(staged) => {
                let (files, bytes) = (staged.files, staged.bytes);
                Ok((StagerReply::Staged { files, bytes, cloned: 0, warnings: Vec::new() }, staged))
            }
            Err(e) => {
                self.clear_waiting()?;
                Err(e)
            }
        }
    }

    fn clear_waiting(&self) -> Result<()> {
        remove_all(&self.root, OsStr::new(WAITING), Take::Everything).context(WAITING)
    }

    /// Untracked files stay: one that stands where a new file must go is a conflict, not a loss.
    fn check_in_place(&self, staged: &Staged) -> Result<()> {
        let in_the_way = |path: &[u8]| {
            Failure::new(
                Class::Refused,
                format!(
                    "{}/{} is not from the repository and is in the way of a file that is",
                    self.path.display(),
                    String::from_utf8_lossy(path).escape_debug()
                ),
            )
            .help("move it away, or take it out of the repository")
        };
        let going: HashSet<&[u8]> = staged
            .deleted
            .iter()
            .map(Vec::as_slice)
            .chain(staged.written.iter().filter(|(_, known)| *known).map(|(p, _)| p.as_slice()))
            .collect();
        let mut folders = Folders::new(self.root.try_clone()?);
        for (path, known) in &staged.written {
            let parts = good_names(path)?;
            // A file on the way that is not going is in the way.
            for depth in 1..parts.len() {
                let above: Vec<u8> = parts[..depth].iter().map(|p| p.as_bytes()).collect::<Vec<_>>().join(&b'/');
                let stands = folders
                    .existing_parent_of(&parts[..depth])?
                    .map(|(parent, name)| look(parent, name))
                    .transpose()?
                    .flatten();
                if stands.is_some_and(|s| !is_folder(&s)) && !going.contains(above.as_slice()) {
                    return Err(in_the_way(&above).into());
                }
            }
            let Some((parent, name)) = folders.existing_parent_of(&parts)? else {
                continue;
            };
            match look(parent, name)? {
                // A submodule's folder may have been filled by somebody; it stays as it is.
                Some(stat) if is_folder(&stat) && staged.folders.contains(path) => {}
                Some(stat) if is_folder(&stat) => {
                    let folder = open_folder(parent, name).with_context(|| shown(path))?;
                    check_emptied(&folder, path, &going, parts.len()).map_err(|_| in_the_way(path))?;
                }
                Some(_) if !known => return Err(in_the_way(path).into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Renames every waiting file over the live one, and removes what is gone.
    pub fn apply(&self, staged: &Staged) -> Result<()> {
        let mut live = Folders::new(self.root.try_clone()?);
        for path in &staged.deleted {
            self.remove_with_empty_folders(&mut live, path)?;
        }
        let mut live = Folders::new(self.root.try_clone()?);
        let mut waiting = Folders::new(open_folder(&self.root, OsStr::new(WAITING))?);
        for (path, _) in &staged.written {
            let parts = good_names(path)?;
            let (from, name) = waiting.parent_of(path, &parts)?;
            let (to, _) = live.parent_of(path, &parts)?;
            let stands = look(to, name)?.map(|stat| is_folder(&stat));
            match (stands, staged.folders.contains(path)) {
                (Some(true), true) => continue,
                (Some(true), false) => remove_all(to, name, Take::Folders).with_context(|| shown(path))?,
                // A folder is not renamed over a file.
                (Some(false), true) => stage::remove(to, name).with_context(|| shown(path))?,
                _ => {}
            }
            renameat(from, name, to, name).map_err(std::io::Error::from).with_context(|| shown(path))?;
        }
        self.clear_waiting()?;
        stage::sync(&self.root)
    }

    fn remove_with_empty_folders(&self, live: &mut Folders, path: &[u8]) -> Result<()> {
        let mut parts = good_names(path)?;
        if let Some((parent, name)) = live.existing_parent_of(&parts)? {
            match look(parent, name)? {
                // A submodule's folder goes when it is empty; anything that somebody put there stays.
                Some(stat) if is_folder(&stat) => {
                    let _ = unlinkat(parent, name, UnlinkatFlags::RemoveDir);
                }
                _ => stage::remove(parent, name).with_context(|| shown(path))?,
            }
        }
        while parts.pop().is_some() && !parts.is_empty() {
            // A run that was killed may have removed the inner ones.
            let Some((parent, name)) = live.existing_parent_of(&parts)? else { continue };
            match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// The release that `current` leads to.
    pub(super) fn live(&self) -> Option<String> {
        let link = PathBuf::from(readlinkat(&self.root, CURRENT).ok()?);
        Some(link.file_name()?.to_str()?.to_owned())
    }

    /// Removes releases past the newest `keep`, but never the live one or one that is protected.
    pub fn retire(&self, keep: usize, protect: &[String], remove: &[String]) -> Result<StagerReply> {
        let releases = self.releases()?;
        let names: Vec<String> = names(&releases)?.into_iter().filter_map(|name| name.into_string().ok()).collect();
        let live = self.live();
        let protect: Vec<&str> = protect.iter().map(String::as_str).chain(live.as_deref()).collect();
        let mut warnings = Vec::new();
        let mut removed = Vec::new();
        // What could not be removed before, or was being removed when its run was killed.
        for name in names.iter().filter(|name| name.strip_suffix(GONE).is_some_and(is_release_name)) {
            if let Err(e) = remove_all(&releases, OsStr::new(name), Take::Everything) {
                warnings.push(format!("{RELEASES}/{name} could not be removed: {e}"));
            }
        }
        for name in retired(names, keep, &protect, remove) {
            // Under its own name half a release would pass for a whole one, and be gone back to.
            let gone = format!("{name}{GONE}");
            let done = renameat(&releases, name.as_str(), &releases, gone.as_str())
                .map_err(std::io::Error::from)
                .and_then(|()| remove_all(&releases, OsStr::new(&gone), Take::Everything));
            match done {
                Ok(()) => removed.push(name),
                Err(e) => warnings.push(format!("{RELEASES}/{name} could not be removed: {e}")),
            }
        }
        Ok(StagerReply::Retired { removed, warnings })
    }
}

/// Which releases go: those to be removed, and the oldest past `keep`; their names begin with the time.
fn retired(mut names: Vec<String>, keep: usize, protect: &[&str], remove: &[String]) -> Vec<String> {
    names.retain(|name| is_release_name(name));
    names.sort_unstable_by(|a, b| b.cmp(a));
    let (mut gone, kept): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| remove.contains(name) && !protect.contains(&name.as_str()));
    gone.extend(kept.into_iter().skip(keep).filter(|name| !protect.contains(&name.as_str())));
    gone
}

/// `20260102T030405Z-` and forty hexadecimal digits; anything else in `releases/` is somebody else's.
pub(super) fn is_release_name(name: &str) -> bool {
    name.split_once('-').is_some_and(|(time, commit)| {
        time.len() == 16 && time.ends_with('Z') && Commit::try_from(commit.to_owned()).is_ok()
    })
}

pub(super) fn is_folder(stat: &nix::sys::stat::FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

/// A folder gives way to a file only when all that is in it goes too. Nothing of a repository lies as deep
/// as `DEEPEST`.
fn check_emptied(folder: &OwnedFd, at: &[u8], going: &HashSet<&[u8]>, depth: usize) -> Result<()> {
    anyhow::ensure!(depth <= DEEPEST, "not from the repository");
    for name in names(folder)? {
        let path = [at, b"/", name.as_bytes()].concat();
        if look(folder, &name)?.is_some_and(|stat| is_folder(&stat)) {
            check_emptied(&open_folder(folder, &name)?, &path, going, depth + 1)?;
        } else {
            anyhow::ensure!(going.contains(path.as_slice()), "not from the repository");
        }
    }
    Ok(())
}

/// What a release is called while it is written.
pub(super) fn partial_name(name: &str) -> OsString {
    OsString::from(format!("{name}.partial"))
}

/// Removes what a killed run was writing.
pub(super) fn clear_partial(releases: &OwnedFd) -> Result<()> {
    for name in names(releases)?.iter().filter(|name| name.as_bytes().ends_with(b".partial")) {
        remove_all(releases, name, Take::Everything)
            .with_context(|| format!("{RELEASES}/{}", shown(name.as_bytes())))?;
    }
    Ok(())
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests {
    use super::*;

    fn name(second: u32) -> String {
        format!("20260102T0304{second:02}Z-{}", "a".repeat(40))
    }

    #[test]
    fn the_newest_are_kept_and_the_last_good_one_always() {
        let names: Vec<String> = (0..6).map(name).collect();
        let gone = retired(names.clone(), 2, &[&name(0)], &[]);
        assert_eq!(gone, [name(3), name(2), name(1)]);
        assert_eq!(retired(names.clone(), 10, &[], &[]), Vec::<String>::new());
        assert_eq!(retired(names.clone(), 10, &[&name(5)], &[name(5), name(4)]), [name(4)]);
        assert_eq!(retired(vec!["mine".into(), "20260102T030405Z-x".into()], 1, &[], &[]), Vec::<String>::new());
    }
}
