//! The sending half of staging: a commit's tree, from the repository into a pipe. Runs in the fetcher.
//!
//! [`SIZE`] comes first: how many files and bytes there will be. Then, in the order of their paths: [`FILE`] or [`EXECUTABLE`] with size and path, followed by
//! [`DATA`] until the size is reached; [`LINK`] with path and target; [`FOLDER`] for a submodule;
//! [`DELETE`] for what an in-place update removes; [`END`] last, without which nothing counts.
//!
//! Where the target's file system can clone files, an offer goes before that: [`OFFER`] or [`OFFER_EXECUTABLE`] with
//! size, id and path of each large file that the release before should have under that path; [`END`]. The stager
//! answers by way of the supervisor with the numbers of those that it lacks, and the rest of the tree follows.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;

use anyhow::{Context, Result};
use git2::{Odb, Repository};

use super::activate::WAITING;
use super::stage::REVISION;
use super::tree::{self, Kind, Leaf};
use super::verify::published_tree;
use crate::commit::Commit;
use crate::journal::state::Published;
use crate::processes::messages::{Base, StreamTree};
use crate::processes::wire::put_frame;

pub const SIZE: u8 = b'S';
pub const FILE: u8 = b'F';
pub const EXECUTABLE: u8 = b'X';
pub const LINK: u8 = b'L';
pub const FOLDER: u8 = b'D';
pub const DATA: u8 = b'B';
pub const DELETE: u8 = b'R';
pub const END: u8 = b'E';
pub const OFFER: u8 = b'O';
pub const OFFER_EXECUTABLE: u8 = b'P';

/// Whether a path is poller's own to replace: it was in a commit that was live before.
pub const KNOWN: u8 = 1;
pub const NEW: u8 = 0;

/// Top-level names that are poller's own: what a repository has there is not published.
pub const OWN: [&str; 2] = [REVISION, WAITING];

const CHUNK: usize = 256 << 10;

/// Smaller files are streamed even where they could be cloned. On xfs and btrfs a clone that is read back costs a
/// little more than a write at 4 KiB, about as much at 64 KiB and a quarter at 1 MiB. What need not be inflated is
/// saved besides: staging 400 files of 64 KiB took 215 ms and not 510, eight of 4 MiB 250 and not 970 (xfs, measured).
const SMALLEST_CLONE: u64 = 64 << 10;

/// What is to be written and deleted, by path.
pub struct Outgoing {
    changes: Changes,
    /// In the order of the offer.
    offered: Vec<Vec<u8>>,
}

type Changes = BTreeMap<Vec<u8>, Change>;

impl Outgoing {
    pub fn new(repo: &Repository, request: &StreamTree) -> Result<Outgoing> {
        let odb = repo.odb()?;
        let publish = |commit: &Commit| published_tree(repo, commit.oid()?, request.subdir.as_deref());
        let tree = request.commit.as_ref().map(publish).transpose()?;
        let mut changes = changes(repo, &odb, tree, request)?;
        changes.retain(|path, _| !is_shared(path, &request.shared) && !is_own(path));
        Ok(Outgoing { changes, offered: Vec::new() })
    }

    /// Names what the release of `base` has as it shall be, as far as the commits tell.
    pub fn offer(&mut self, repo: &Repository, base: &Base, to: &mut impl Write) -> Result<()> {
        let odb = repo.odb()?;
        let old = base_tree(repo, &Some(base.published.clone()))?;
        let old = old.map_or(Ok(tree::Leaves::new()), |old| tree::leaves(&odb, old))?;
        for (path, change) in &self.changes {
            let (Change::Write(leaf, _), Some(before)) = (change, old.get(path)) else { continue };
            let kind = match leaf.kind {
                Kind::File => OFFER,
                Kind::Executable => OFFER_EXECUTABLE,
                Kind::Link | Kind::Submodule => continue,
            };
            if before.id != leaf.id {
                continue;
            }
            let size = blob_size(&odb, leaf)?;
            if size >= SMALLEST_CLONE {
                put_frame(to, kind, &[&size.to_be_bytes(), leaf.id.as_bytes(), path])?;
                self.offered.push(path.clone());
            }
        }
        put_frame(to, END, &[]).context("the stager went away")
    }

    /// What was offered is not sent, but for those numbers of it that the stager lacks.
    pub fn keep_back(&mut self, lacking: &[u32]) {
        let lacking: HashSet<usize> = lacking.iter().map(|&number| number as usize).collect();
        for (number, path) in self.offered.drain(..).enumerate() {
            if !lacking.contains(&number) {
                self.changes.remove(&path);
            }
        }
    }

    pub fn stream(self, repo: &Repository, to: &mut impl Write) -> Result<()> {
        let odb = repo.odb()?;
        let (files, bytes) = size(&odb, &self.changes)?;
        put_frame(to, SIZE, &[&files.to_be_bytes(), &bytes.to_be_bytes()])?;
        for (path, change) in self.changes {
            match change {
                Change::Write(leaf, known) => send(&odb, &path, &leaf, known, to)?,
                Change::Delete => put_frame(to, DELETE, &[&path])?,
            }
        }
        put_frame(to, END, &[]).context("the stager went away")
    }
}

enum Change {
    Write(Leaf, u8),
    Delete,
}

/// What has to be done so that the live tree becomes the commit's.
fn changes(repo: &Repository, odb: &Odb, tree: Option<git2::Oid>, request: &StreamTree) -> Result<Changes> {
    if request.bases.is_empty() {
        let leaves = tree.map_or(Ok(tree::Leaves::new()), |tree| tree::leaves(odb, tree))?;
        return Ok(leaves.into_iter().map(|(path, leaf)| (path, Change::Write(leaf, NEW))).collect());
    }
    let base_trees: Vec<_> = request.bases.iter().map(|base| base_tree(repo, base)).collect::<Result<_>>()?;
    let mut found = BTreeMap::new();
    for &base in &base_trees {
        for (path, (old, new)) in tree::changes(odb, base, tree)? {
            let known = u8::from(old.is_some());
            match (found.get_mut(&path), new) {
                (Some(Change::Write(_, already)), _) => *already |= known,
                (Some(Change::Delete), _) => {}
                (None, Some(leaf)) => drop(found.insert(path, Change::Write(leaf, known))),
                (None, None) => drop(found.insert(path, Change::Delete)),
            }
        }
    }
    // A path that one base has as it shall be, and another has not at all, is known too.
    for &base in base_trees.iter().filter(|_| base_trees.len() > 1) {
        let Some(base) = base else { continue };
        let there = tree::leaves(odb, base)?;
        for (path, change) in &mut found {
            if let Change::Write(_, known) = change
                && there.contains_key(path)
            {
                *known = KNOWN;
            }
        }
    }
    Ok(found)
}

/// None when the folder that was published is not in that commit.
fn base_tree(repo: &Repository, base: &Option<Published>) -> Result<Option<git2::Oid>> {
    let Some(Published { commit, subdir }) = base else { return Ok(None) };
    let id = commit.oid()?;
    let whole = repo.find_commit(id).with_context(|| format!("the commit {id}, which is live"))?.tree_id();
    match subdir {
        None => Ok(Some(whole)),
        Some(folder) => tree::subtree(&repo.odb()?, whole, folder),
    }
}

/// How many files there are to write, and how many bytes in them.
fn size(odb: &Odb, changes: &Changes) -> Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0u64);
    for change in changes.values() {
        let Change::Write(leaf, _) = change else { continue };
        files += 1;
        if matches!(leaf.kind, Kind::File | Kind::Executable) {
            bytes = bytes.saturating_add(blob_size(odb, leaf)?);
        }
    }
    Ok((files, bytes))
}

fn blob_size(odb: &Odb, leaf: &Leaf) -> Result<u64> {
    let (size, _) = odb.read_header(leaf.id).with_context(|| format!("the file {}", leaf.id))?;
    Ok(size as u64)
}

/// Whether a path is poller's own, or lies in it.
pub fn is_own(path: &[u8]) -> bool {
    OWN.iter().any(|own| path.strip_prefix(own.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/'))
}

/// Whether a path is, or lies in, something that is linked to `shared/`.
pub fn is_shared(path: &[u8], shared: &[String]) -> bool {
    shared
        .iter()
        .map(|s| s.trim_end_matches('/').as_bytes())
        .any(|s| path.strip_prefix(s).is_some_and(|rest| rest.is_empty() || rest[0] == b'/'))
}

fn send(odb: &Odb, path: &[u8], leaf: &Leaf, known: u8, to: &mut impl Write) -> Result<()> {
    let kind = match leaf.kind {
        Kind::Submodule => return Ok(put_frame(to, FOLDER, &[&[known], path])?),
        Kind::Link => {
            let target = odb.read(leaf.id).with_context(|| format!("the link {}", leaf.id))?;
            let length = u32::try_from(path.len())?.to_be_bytes();
            return Ok(put_frame(to, LINK, &[&[known], &length, path, target.data()])?);
        }
        Kind::File => FILE,
        Kind::Executable => EXECUTABLE,
    };
    let blob = odb.read(leaf.id).with_context(|| format!("the file {}", leaf.id))?;
    let size = (blob.len() as u64).to_be_bytes();
    put_frame(to, kind, &[&[known], &size, path])?;
    for chunk in blob.data().chunks(CHUNK) {
        put_frame(to, DATA, &[chunk])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_covers_the_path_and_what_lies_in_it() {
        let shared = ["media/".to_owned(), "db.sqlite3".to_owned()];
        for yes in ["media", "media/a/b", "db.sqlite3"] {
            assert!(is_shared(yes.as_bytes(), &shared), "{yes}");
        }
        for no in ["medial", "db.sqlite3-journal", "a/media", "med"] {
            assert!(!is_shared(no.as_bytes(), &shared), "{no}");
        }
    }
}
