//! Tend: keeps a repository from growing with age. Runs in the fetcher, last of all, and only where there is
//! something to do: every few deploys, never in a poll that finds nothing new.
//!
//! Journals are cut to their newest entries; what they leave as loose objects goes into one pack of the
//! journals', made anew each time from what can be reached. Small packs that fetches brought are merged, so
//! that there are never many, and a large one is not copied for a small one's sake.
//!
//! Nothing goes before what replaces it is complete and on the disk, and nobody reads the repository in that
//! moment. Killed at any point, what is there is whole, and the next time goes on from it.

mod order;
mod packs;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use git2::{Oid, Repository};

use super::fetch::{self, Lock, Step};
use crate::journal::in_use::alone;
use crate::journal::shorten::{LOOSE, Shortened, entries, shorten};
pub use packs::ids;
use packs::{Folder, Pack};

/// Loose objects that are no reason to do anything: about 20 deploys' worth.
const LOOSE_OBJECTS: usize = 200;
/// Packs that are no reason either.
const PACKS: usize = 10;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tended {
    /// Loose objects that went, into a pack or for good.
    pub loose: usize,
    /// Packs that were replaced by one.
    pub merged: usize,
    /// Whether the journal lost its oldest entries.
    pub shortened: bool,
}

/// Whether to look for what was left over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Due {
    IfNeeded,
    /// Only what the last time left, which was cut short: a merge that can't come to its end is not begun at each
    /// poll, but at each deploy.
    Leftovers,
}

/// Whether there is something to do.
pub fn is_needed(path: &Path) -> Result<bool> {
    let folder = Folder::of(path);
    Ok(folder.about_loose()? > LOOSE_OBJECTS || !folder.to_merge(PACKS)?.is_empty())
}

/// Tends the repository if it needs it. `history` is how many entries a journal keeps.
pub fn tend(path: &Path, app: &str, history: usize, due: Due) -> Result<Option<Tended>> {
    let folder = Folder::of(path);
    if due == Due::IfNeeded && !is_needed(path)? {
        return Ok(None);
    }
    let _fetch = Lock::take(path, Step::Fetch)?;
    fetch::clean_packs(path)?;
    folder.tidy()?;
    if due == Due::Leftovers || !is_needed(path)? {
        let _record = Lock::take(path, Step::Record)?;
        fetch::clean_refs(path)?;
        return Ok(None);
    }
    let repo = Repository::open_bare(path).with_context(|| path.display().to_string())?;
    let small = folder.to_merge(PACKS)?;
    let merged_into = folder.merge(&repo, &small)?;
    // Not before: merging takes its time, and a deploy of another app wants to be recorded.
    let _record = Lock::take(path, Step::Record)?;
    fetch::clean_refs(path)?;
    let shortened = shorten(&repo, app, history)?;
    if let Some(Shortened { pack: Some(pack) }) = &shortened {
        folder.add_journal_pack(Pack::named(pack))?;
    }
    let journals = Journals::of(&repo)?;
    let old_journals = folder.journal_packs()?;
    // Whoever fetches or records holds a lock, so it stays true to the end.
    let loose = folder.loose()?;
    let journal_pack = folder.write_journal_pack(&repo, &journals.to_pack(&loose))?;
    drop(repo);

    let mut done = Tended { shortened: shortened.is_some(), ..Tended::default() };
    let Some(_alone) = alone(path)? else {
        // Somebody reads what was replaced. It is there twice, and the next time finds it again.
        return Ok(Some(done));
    };
    for pack in &small {
        if merged_into.as_ref() != Some(pack) {
            folder.remove(pack)?;
            done.merged += 1;
        }
    }
    for pack in old_journals.iter().filter(|pack| journal_pack.as_ref() != Some(pack)) {
        folder.remove(pack)?;
    }
    folder.list_journal_packs(journal_pack.as_slice())?;
    for (id, file) in loose {
        // What no journal leads to is nobody's.
        if !journals.fresh.contains(&id) {
            fs::remove_file(&file).with_context(|| file.display().to_string())?;
            done.loose += 1;
        }
    }
    Ok(Some(done))
}

/// The objects of all journals of a repository.
#[derive(Default)]
struct Journals {
    /// Those of the newest entries of each: they stay loose.
    fresh: HashSet<Oid>,
    /// Those of the entries before.
    settled: HashSet<Oid>,
}

impl Journals {
    fn of(repo: &Repository) -> Result<Journals> {
        let mut all = Journals::default();
        let mut names = HashSet::new();
        for reference in repo.references_glob("refs/poller/*")? {
            names.insert(reference?.name().context("a ref whose name is not UTF-8")?.to_owned());
        }
        // libgit2 passes over a ref that it cannot read. What such a journal needs is not to go.
        for file in fs::read_dir(repo.path().join("refs/poller"))? {
            let name = format!("refs/poller/{}", file?.file_name().to_string_lossy());
            ensure!(names.contains(&name), "{name} cannot be read: poller check says more");
        }
        for name in &names {
            for (index, entry) in entries(repo, name, usize::MAX)?.iter().enumerate() {
                let into = if index < LOOSE { &mut all.fresh } else { &mut all.settled };
                into.insert(entry.id());
                into.insert(entry.tree_id());
                into.extend(entry.tree()?.iter().map(|file| file.id()));
            }
        }
        Ok(all)
    }

    /// What belongs into the journals' pack: all that does not stay loose. An entry may be new and part of it old:
    /// libgit2 writes no loose object where a pack has it, and that pack goes.
    fn to_pack(&self, loose: &[(Oid, PathBuf)]) -> HashSet<Oid> {
        let stay: HashSet<Oid> = loose.iter().map(|(id, _)| *id).filter(|id| self.fresh.contains(id)).collect();
        self.fresh.union(&self.settled).filter(|id| !stay.contains(id)).copied().collect()
    }
}

#[cfg(test)]
mod tests;
