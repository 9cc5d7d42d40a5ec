//! The order in which objects are given to the packer, and the names they have. It looks for what an object has
//! in common with those beside it, by name, size and order: so the versions of a folder or file come one after
//! the other. In the order of their ids a folder's versions stand far apart, and the pack is several times larger.

use std::collections::HashSet;

use anyhow::Result;
use git2::{Oid, PackBuilder, Repository};

/// Inserts all of the objects: commits from the newest to the oldest, each with what came with it, and at last
/// what no commit among them leads to. The same objects always come in the same order.
pub fn insert(builder: &mut PackBuilder, repo: &Repository, objects: &HashSet<Oid>) -> Result<()> {
    let mut left = objects.clone();
    for (commit, tree) in commits(repo, objects) {
        left.remove(&commit);
        builder.insert_object(commit, None)?;
        // No recursion: nobody says how deep a tree goes.
        let mut ahead = vec![(tree, String::new())];
        while let Some((id, name)) = ahead.pop() {
            if !left.remove(&id) {
                continue;
            }
            builder.insert_object(id, Some(&name))?;
            if let Ok(tree) = repo.find_tree(id) {
                let entries = tree.iter().filter(|entry| left.contains(&entry.id()));
                ahead.extend(
                    entries.map(|entry| (entry.id(), String::from_utf8_lossy(entry.name_bytes()).into_owned())),
                );
            }
        }
    }
    let mut rest: Vec<_> = left.into_iter().collect();
    rest.sort();
    rest.into_iter().try_for_each(|id| Ok(builder.insert_object(id, None)?))
}

/// The commits among the objects and their trees, the newest first. What cannot be read as a commit is none.
fn commits(repo: &Repository, objects: &HashSet<Oid>) -> Vec<(Oid, Oid)> {
    let found = objects.iter().filter_map(|id| repo.find_commit(*id).ok());
    let mut found: Vec<_> = found.map(|commit| (commit.time().seconds(), commit.id(), commit.tree_id())).collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, commit, tree)| (commit, tree)).collect()
}
