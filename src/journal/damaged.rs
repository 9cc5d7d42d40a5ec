//! A journal that cannot be read: how that is noticed, and what to do about it.
//!
//! Two remedies are printed, and both work whatever is damaged and without git on the machine: to go back
//! to the newest entry that can be read, or to begin anew with what is live. Neither loses more than history.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::read::ZlibDecoder;
use git2::{Oid, Repository};
use jiff::Timestamp;
use nix::unistd::{Uid, getppid};

use super::{commit, file, reference, tree};
use crate::journal::state::{Run, State};
use crate::outcome::{Class, Failure};
use crate::report::printable;
use crate::sys::account::Account;

/// An entry's objects are small; its output is bounded by far less.
const LONGEST: u64 = 64 << 20;

/// Inflates a loose object to its end. libgit2 would never come to the end of one that was cut short, and
/// the app would hold up all others.
pub fn ensure_sound(repository: &Path, id: Oid) -> Result<()> {
    let name = id.to_string();
    let path = repository.join("objects").join(&name[..2]).join(&name[2..]);
    let file = match File::open(&path) {
        // It is in a pack, or nowhere, which libgit2 says by itself.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.with_context(|| path.display().to_string())?,
    };
    ensure!(is_whole(file), "{} is damaged", path.display());
    Ok(())
}

/// Whether compressed bytes come to an end, or would go on for longer than any entry.
pub fn is_whole(compressed: impl Read) -> bool {
    let copied = io::copy(&mut ZlibDecoder::new(compressed).take(LONGEST), &mut io::sink());
    copied.is_ok_and(|bytes| bytes > 0)
}

pub fn unreadable(repository: &Path, app: &str, e: &anyhow::Error) -> anyhow::Error {
    let name = reference(app);
    let why = printable(&format!("{e:#}"));
    let failure =
        Failure::new(Class::Io, format!("the journal {name} in {} cannot be read: {why}", repository.display()));
    let newest = newest(repository, app);
    let current = std::fs::read_to_string(repository.join(&name)).unwrap_or_default();
    if newest.as_ref().is_some_and(|newest| newest.id.to_string() == current.trim()) {
        return failure
            .help("its newest entry is sound: only its past cannot be told, and polls go on")
            .help(format!("as far as it goes: poller history {app} -n 1, and more"))
            .into();
    }
    let remedy = Remedy::of(repository, &name);
    let failure = failure.help("nothing is deployed while poller does not know what is live");
    let failure = match newest {
        Some(newest) => failure
            .help(format!("go back to the newest entry that can be read, of {:.0} ({}):", newest.at, newest.what))
            .help(format!("  {}", remedy.go_back(newest.id)))
            .help("or begin a new journal with what is live:"),
        None => failure.help("begin a new journal with what is live:"),
    };
    failure.help(format!("  {} && poller adopt {app}", remedy.forget())).into()
}

/// Commands for whoever reads the failure. The repository is the fetch user's, so root does not write there.
struct Remedy {
    prefix: String,
    repository: String,
    name: String,
    is_packed: bool,
}

impl Remedy {
    fn of(repository: &Path, name: &str) -> Remedy {
        let packed = std::fs::read_to_string(repository.join("packed-refs")).unwrap_or_default();
        let path = repository.display().to_string();
        Remedy {
            prefix: become_owner(),
            repository: shlex::try_quote(&path).map_or(path.clone(), |quoted| quoted.into_owned()),
            is_packed: packed.lines().any(|line| line.ends_with(&format!(" {name}"))),
            name: name.to_owned(),
        }
    }

    fn go_back(&self, to: Oid) -> String {
        let Remedy { prefix, repository, name, is_packed } = self;
        // git removes the folder when it packs what was in it.
        let folder = format!("{prefix}mkdir -p {repository}/refs/poller && ");
        format!("{}echo {to} | {prefix}tee {repository}/{name}", if *is_packed { folder.as_str() } else { "" })
    }

    fn forget(&self) -> String {
        let Remedy { prefix, repository, name, is_packed } = self;
        // By `git gc`; libgit2 itself packs no refs.
        let packed = format!("{prefix}sed -i '\\, {name}$,d' {repository}/packed-refs && ");
        format!("{}{prefix}rm -f {repository}/{name}", if *is_packed { packed.as_str() } else { "" })
    }
}

/// What root puts before a command to run it as this helper's user; nothing for who is no root.
fn become_owner() -> String {
    let me = Uid::effective();
    let parent = std::fs::metadata(format!("/proc/{}", getppid()));
    if me.is_root() || parent.is_ok_and(|parent| parent.uid() != 0) {
        return String::new();
    }
    let user = Account::my_name().unwrap_or_else(|| format!("#{me}"));
    format!("runuser -u {user} -- ")
}

struct Newest {
    id: Oid,
    at: Timestamp,
    what: String,
}

/// The newest entry that can be read. Only loose objects are looked at: what a server sends arrives in
/// packs, so that no commit of a project can pass for an entry.
fn newest(repository: &Path, app: &str) -> Option<Newest> {
    let repo = Repository::open_bare(repository).ok()?;
    let mut entries: Vec<(Newest, Vec<Oid>)> =
        loose_commits(repository).into_iter().filter_map(|id| entry(&repo, id, app)).collect();
    let before: HashSet<Oid> = entries.iter().flat_map(|(_, parents)| parents.iter().copied()).collect();
    entries.retain(|(entry, _)| !before.contains(&entry.id));
    entries.into_iter().map(|(entry, _)| entry).max_by_key(|entry| entry.at)
}

fn entry(repo: &Repository, id: Oid, app: &str) -> Option<(Newest, Vec<Oid>)> {
    let commit = commit(repo, id).ok()?;
    let is_of_the_app = commit.message().is_ok_and(|text| text.starts_with(&format!("{app}: ")));
    let tree = tree(repo, &commit).ok().filter(|_| is_of_the_app)?;
    let run: Run = toml::from_str(&file(repo, &tree, "run.toml").ok()?).ok()?;
    let _: State = toml::from_str(&file(repo, &tree, "state.toml").ok()?).ok()?;
    let what = format!("{} {}", run.kind.word(), run.outcome.word());
    Some((Newest { id, at: run.ended.unwrap_or(run.started), what }, commit.parent_ids().take(1).collect()))
}

fn loose_commits(repository: &Path) -> Vec<Oid> {
    let Ok(folders) = std::fs::read_dir(repository.join("objects")) else { return Vec::new() };
    let mut found = Vec::new();
    for folder in folders.flatten().filter(|folder| folder.file_name().len() == 2) {
        for file in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let name = format!("{}{}", folder.file_name().to_string_lossy(), file.file_name().to_string_lossy());
            if let Ok(id) = Oid::from_str(&name)
                && name.len() == 40
                && File::open(file.path()).is_ok_and(is_commit)
            {
                found.push(id);
            }
        }
    }
    found
}

pub fn is_commit(compressed: impl Read) -> bool {
    let mut head = [0; 7];
    ZlibDecoder::new(compressed).read_exact(&mut head).is_ok() && &head == b"commit "
}

#[cfg(test)]
mod tests {
    use super::*;
    use git2::Signature;

    #[test]
    fn an_object_that_is_cut_short_anywhere_is_seen() {
        let folder = std::env::temp_dir().join(format!("poller-cut-{}.git", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let repo = super::super::create(&folder).unwrap();
        let who = Signature::now("a", "b").unwrap();
        let tree = repo.find_tree(repo.treebuilder(None).unwrap().write().unwrap()).unwrap();
        let id = repo.commit(None, &who, &who, "a message", &tree, &[]).unwrap();
        let name = id.to_string();
        let path = folder.join("objects").join(&name[..2]).join(&name[2..]);
        let whole = std::fs::read(&path).unwrap();
        assert!(ensure_sound(&folder, id).is_ok() && is_commit(File::open(&path).unwrap()));
        for length in 0..whole.len() {
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(ensure_sound(&folder, id).is_err(), "cut at {length}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, vec![0; whole.len()]).unwrap();
        assert!(ensure_sound(&folder, id).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
