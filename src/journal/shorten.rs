//! A journal's oldest entries go, so that an app's past does not grow for ever.
//!
//! The newest entries are written anew, as a chain whose first one has no parent, and the ref is moved to its
//! end by compare-and-swap: killed before, it is as it was. What the entries say is not touched.

use anyhow::{Context, Result};
use git2::{Commit as GitCommit, ErrorCode, Oid, Repository};

use super::{commit, reference, swap};

/// The newest entries stay loose objects: that is how a damaged journal finds its way back to one of them.
pub const LOOSE: usize = 4;

/// An app's entries, newest first, and no more than `limit`.
pub fn entries<'r>(repo: &'r Repository, name: &str, limit: usize) -> Result<Vec<GitCommit<'r>>> {
    let mut next = match repo.refname_to_id(name) {
        Ok(id) => Some(commit(repo, id)?),
        Err(e) if e.code() == ErrorCode::NotFound => None,
        Err(e) => return Err(e.into()),
    };
    let mut found = Vec::new();
    while let Some(entry) = next.take_if(|_| found.len() < limit) {
        next = entry.parent_id(0).ok().map(|id| commit(repo, id)).transpose()?;
        found.push(entry);
    }
    Ok(found)
}

/// What became of a journal that was shortened.
pub struct Shortened {
    /// The pack with the older ones, by its name without `pack-` and ending.
    pub pack: Option<String>,
}

/// Drops what is older than the newest `keep` entries, once there are so many more that it is worth it.
/// Only with the lock for recording.
pub fn shorten(repo: &Repository, app: &str, keep: usize) -> Result<Option<Shortened>> {
    let most = keep + keep / 4 + LOOSE;
    let entries = entries(repo, &reference(app), most + 1)?;
    if entries.len() <= most {
        return Ok(None);
    }
    let head = entries[0].id();
    let (newest, older) = entries[..keep].split_at(LOOSE.min(keep));
    let (base, pack) = write_packed(repo, older).context("writing the older entries anew")?.unzip();
    let new = write(repo, newest, base).context("writing the newest entries anew")?.context("no entry to keep")?;
    swap(repo, app, Some(&head.into()), new)?;
    Ok(Some(Shortened { pack }))
}

/// A pack at once, since each loose object costs a sync. Returns the newest one, and the pack's name.
fn write_packed(repo: &Repository, entries: &[GitCommit]) -> Result<Option<(Oid, String)>> {
    // A handle of its own, for what is written through it stays in memory.
    let aside = Repository::open_bare(repo.path())?;
    let odb = aside.odb()?;
    let _memory = odb.add_new_mempack_backend(1000)?;
    let mut last = None;
    // Not by the dump of what is in memory, which wants threads.
    let mut pack = aside.packbuilder()?;
    pack.set_threads(1);
    for entry in entries.iter().rev() {
        let id = write(&aside, std::slice::from_ref(entry), last)?.context("an entry")?;
        pack.insert_object(id, None)?;
        last = Some(id);
    }
    let Some(last) = last else { return Ok(None) };
    let folder = repo.path().join("objects/pack");
    pack.write(&folder, 0o440).with_context(|| folder.display().to_string())?;
    Ok(Some((last, pack.name()?.context("a pack without a name")?.to_owned())))
}

/// Writes these entries, given newest first, on top of `parent`; returns the newest one.
fn write(repo: &Repository, entries: &[GitCommit], mut parent: Option<Oid>) -> Result<Option<Oid>> {
    for entry in entries.iter().rev() {
        let mut parents = Vec::new();
        // The first of all has no parent at all: a first parent is always poller's own.
        if let Some(before) = parent {
            parents.push(repo.find_commit(before)?);
            for id in entry.parent_ids().skip(1) {
                parents.push(repo.find_commit(id)?);
            }
        }
        let parents: Vec<&GitCommit> = parents.iter().collect();
        let tree = repo.find_tree(entry.tree_id())?;
        let message = entry.message().context("a message that is not UTF-8")?;
        parent = Some(repo.commit(None, &entry.author(), &entry.committer(), message, &tree, &parents)?);
    }
    Ok(parent)
}
